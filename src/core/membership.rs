//! Who the members are: the value that a founding record and each later
//! configuration entry carries (Raft §6, thesis §4.1).
//!
//! A name may stand twice: once as a voter whose memory is gone, and once as the
//! learner that came back under the name. Only the voter's incarnation counts in
//! votes and acknowledgements, and it is gone: that member is lost until it is
//! replaced. So the size of a majority never changes by a restart.

use ::core::net::SocketAddr;

use super::types::{ClusterId, Incarnation};

/// One member.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// Its name in the shared file.
    pub name: String,
    /// Where it is spoken to.
    pub address: SocketAddr,
    /// The log that is meant. `None` only for a voter of a cluster that a
    /// majority founded without it: it counts as lost until it is first heard.
    pub incarnation: Option<Incarnation>,
    /// Whether it votes and counts; a learner only receives the log.
    pub voter: bool,
}

/// The members of a cluster, as one entry of the log states them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Membership {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its members, in order of name, a name's voter before its learner.
    pub members: Vec<Member>,
}

/// At most so many members does a membership have; more are refused at the door.
pub const MEMBERS_LIMIT: usize = 256;

impl Membership {
    /// The members, put in order.
    pub fn new(cluster: ClusterId, mut members: Vec<Member>) -> Membership {
        members.sort_by(|a, b| (&a.name, !a.voter).cmp(&(&b.name, !b.voter)));
        Membership { cluster, members }
    }

    /// The voters, those without an incarnation too.
    pub fn voters(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.voter)
    }

    /// Whether this incarnation votes and counts.
    pub fn is_voter(&self, incarnation: Incarnation) -> bool {
        self.voters().any(|member| member.incarnation == Some(incarnation))
    }

    /// Whether this incarnation is named at all.
    pub fn names(&self, incarnation: Incarnation) -> bool {
        self.members.iter().any(|member| member.incarnation == Some(incarnation))
    }

    /// The member that this incarnation is.
    pub fn member(&self, incarnation: Incarnation) -> Option<&Member> {
        self.members.iter().find(|member| member.incarnation == Some(incarnation))
    }

    /// Whether this name has a newer life here than `incarnation`: the voter of
    /// a name is older than the learner that came back under it.
    pub fn supersedes(&self, name: &str, incarnation: Incarnation) -> bool {
        let of_name = || self.members.iter().filter(|member| member.name == name);
        of_name().any(|member| member.voter && member.incarnation == Some(incarnation))
            && of_name().any(|member| !member.voter)
    }

    /// How many voters are a majority. Voters without an incarnation count in
    /// the number and can never be among those that agree.
    pub fn majority(&self) -> usize {
        self.voters().count() / 2 + 1
    }

    /// The members with `incarnation` as a learner under `name`, in place of the
    /// learner that the name had.
    pub fn with_learner(
        &self,
        name: &str,
        address: SocketAddr,
        incarnation: Incarnation,
    ) -> Membership {
        let mut members = self.members.clone();
        members.retain(|member| member.voter || member.name != name);
        members.push(Member {
            name: name.to_string(),
            address,
            incarnation: Some(incarnation),
            voter: false,
        });
        Membership::new(self.cluster, members)
    }

    /// The members with `incarnation` as the voter of that name that had none.
    pub fn with_voter_found(&self, name: &str, incarnation: Incarnation) -> Membership {
        let mut members = self.members.clone();
        for member in &mut members {
            if member.voter && member.name == name && member.incarnation.is_none() {
                member.incarnation = Some(incarnation);
            }
        }
        Membership::new(self.cluster, members)
    }
}
