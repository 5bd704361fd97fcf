//! Who the members are: the value that a founding record and each later
//! configuration entry carries (Raft §6, thesis §4.1).
//!
//! A name stands once, with the incarnation that is meant. Who comes back under a
//! name without its memory is another incarnation: it takes the name's place as a
//! learner that joins, and the one that was there is *former* from then on, as is who
//! was removed. Only the incarnations of voters count in votes and acknowledgements.
//!
//! Each operation here is one entry's worth of change: it adds at most one voter or
//! takes at most one away, so that any majority of before meets any majority of after
//! (thesis §4.1). Whether it may be made now is for `members` and `changes` to say.

use ::core::net::SocketAddr;

use super::types::{ClusterId, Incarnation};

/// What a member is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// It votes and counts.
    Voter,
    /// It receives the log, and becomes a voter when it has caught up.
    Joining,
    /// It receives the log.
    Learner,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Where it is spoken to.
    pub address: SocketAddr,
    /// The log that is meant. `None` while it was never heard: a learner of the file,
    /// or a voter of a cluster that a majority founded without it, which counts as
    /// lost until then.
    pub incarnation: Option<Incarnation>,
    /// What it is there for.
    pub standing: Standing,
}

impl Member {
    /// Whether it votes and counts.
    pub fn is_voter(&self) -> bool {
        self.standing == Standing::Voter
    }
}

/// An incarnation that was a member and is none any more: it was removed, or another
/// has taken its name's place.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Former {
    /// The name that it had.
    pub name: String,
    /// Where it was spoken to.
    pub address: SocketAddr,
    /// The log that was meant.
    pub incarnation: Incarnation,
}

/// The members of a cluster, as one entry of the log states them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Membership {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its members, in order of name, each name once.
    pub members: Vec<Member>,
    /// The last that were members and are not, the oldest first: for them to be told,
    /// and not to be taken for somebody new.
    pub former: Vec<Former>,
}

/// At most so many members does a membership have; more are refused at the door.
pub const MEMBERS_LIMIT: usize = 256;
/// At most so many of them vote.
pub const VOTERS_LIMIT: usize = 9;
/// So many former members are remembered.
pub const FORMER_LIMIT: usize = 64;

impl Membership {
    /// The members of a new cluster, put in order.
    pub fn new(cluster: ClusterId, mut members: Vec<Member>) -> Membership {
        members.sort_by(|a, b| a.name.cmp(&b.name));
        Membership { cluster, members, former: Vec::new() }
    }

    /// The voters, those without an incarnation too.
    pub fn voters(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.is_voter())
    }

    /// Whether this incarnation votes and counts.
    pub fn is_voter(&self, incarnation: Incarnation) -> bool {
        self.voters().any(|member| member.incarnation == Some(incarnation))
    }

    /// Whether this incarnation is named as a member.
    pub fn names(&self, incarnation: Incarnation) -> bool {
        self.member(incarnation).is_some()
    }

    /// The member that this incarnation is.
    pub fn member(&self, incarnation: Incarnation) -> Option<&Member> {
        self.members.iter().find(|member| member.incarnation == Some(incarnation))
    }

    /// The member of that name.
    pub fn named(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }

    /// Whether this incarnation was a member and is none any more.
    pub fn is_former(&self, incarnation: Incarnation) -> bool {
        self.former.iter().any(|former| former.incarnation == incarnation)
    }

    /// How many voters are a majority. Voters without an incarnation count in
    /// the number and can never be among those that agree.
    pub fn majority(&self) -> usize {
        self.voters().count() / 2 + 1
    }

    /// The members with this one in its name's place; the incarnation that had it is
    /// former from now on. `None`: that would be more than one change, or beyond a limit,
    /// or one log under two names, which would count twice.
    pub fn with(&self, member: Member) -> Option<Membership> {
        let before = self.named(&member.name);
        let swaps = before.is_some_and(|before| {
            before.is_voter()
                && member.is_voter()
                && before.incarnation.is_some()
                && before.incarnation != member.incarnation
        });
        let mut next = self.taken(&member.name);
        let twice = member.incarnation.is_some_and(|of| next.names(of));
        next.former.retain(|former| Some(former.incarnation) != member.incarnation);
        next.members.push(member);
        next.members.sort_by(|a, b| a.name.cmp(&b.name));
        let fits = next.members.len() <= MEMBERS_LIMIT && next.voters().count() <= VOTERS_LIMIT;
        (!swaps && !twice && fits).then_some(next)
    }

    /// The members without the one of that name.
    pub fn without(&self, name: &str) -> Membership {
        self.taken(name)
    }

    fn taken(&self, name: &str) -> Membership {
        let mut next = self.clone();
        let Some(place) = next.members.iter().position(|member| member.name == name) else {
            return next;
        };
        let Member { name, address, incarnation, .. } = next.members.remove(place);
        if let Some(incarnation) = incarnation {
            if next.former.len() == FORMER_LIMIT {
                next.former.remove(0);
            }
            next.former.push(Former { name, address, incarnation });
        }
        next
    }

    /// How many voters are not the same in both.
    #[cfg(any(test, feature = "sim"))]
    pub fn voters_apart(&self, other: &Membership) -> usize {
        let apart = |one: &Membership, other: &Membership| {
            let there = |member: &&Member| {
                other.voters().any(|of| of.name == member.name && same_log(of, member))
            };
            one.voters().filter(|member| !there(member)).count()
        };
        apart(self, other) + apart(other, self)
    }
}

/// Whether the two may be one voter: one that was never heard counts for nothing, so it
/// is no other than the one that is found under its name.
#[cfg(any(test, feature = "sim"))]
fn same_log(one: &Member, other: &Member) -> bool {
    one.incarnation == other.incarnation || one.incarnation.is_none() || other.incarnation.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, incarnation: u64, standing: Standing) -> Member {
        let address = ([127, 0, 0, 1], 1).into();
        let incarnation = Some(Incarnation(incarnation)).filter(|of| of.0 != 0);
        Member { name: name.to_string(), address, incarnation, standing }
    }

    fn three() -> Membership {
        let members = [("c", 3), ("a", 1), ("b", 2)];
        let voter = |(name, of)| member(name, of, Standing::Voter);
        Membership::new(ClusterId(1), members.map(voter).to_vec())
    }

    /// Design, "Lives": never one swap, for a late vote of the old life could elect a
    /// second leader.
    #[test]
    fn no_voter_takes_a_voters_place_in_one_change() {
        assert_eq!(three().with(member("b", 9, Standing::Voter)), None);
        let joins = three().with(member("b", 9, Standing::Joining)).expect("one voter less");
        assert_eq!((joins.voters().count(), joins.is_former(Incarnation(2))), (2, true));
        assert_eq!(joins.voters_apart(&three()), 1);
        let votes = joins.with(member("b", 9, Standing::Voter)).expect("one voter more");
        assert_eq!((votes.voters().count(), votes.voters_apart(&joins)), (3, 1));
        assert_eq!(votes.voters_apart(&three()), 2);
        assert!(votes.is_former(Incarnation(2)) && !votes.is_former(Incarnation(9)));
    }

    #[test]
    fn one_log_has_one_name() {
        assert_eq!(three().with(member("d", 2, Standing::Joining)), None);
        assert_eq!(three().with(member("d", 2, Standing::Learner)), None);
        assert!(three().without("b").with(member("d", 2, Standing::Learner)).is_some());
    }

    /// A voter that was never heard is one all the time: its incarnation is found.
    #[test]
    fn a_voter_that_is_found_is_no_swap() {
        let mut members = three();
        members.members[1].incarnation = None;
        let found = members.with(member("b", 9, Standing::Voter)).expect("found");
        assert_eq!((found.voters_apart(&members), found.former.len()), (0, 0));
    }

    #[test]
    fn who_comes_back_by_request_is_former_no_more() {
        let without = three().without("c");
        assert!(without.is_former(Incarnation(3)) && without.named("c").is_none());
        assert_eq!(without.without("nobody"), without);
        let again = without.with(member("c", 3, Standing::Joining)).expect("it joins");
        assert!(!again.is_former(Incarnation(3)) && again.names(Incarnation(3)));
    }

    #[test]
    fn limits_hold() {
        let mut members = three();
        for number in 0..6 {
            let name = format!("n{number}");
            members = members.with(member(&name, 10 + number, Standing::Voter)).expect("room");
        }
        assert_eq!(members.with(member("x", 77, Standing::Voter)), None, "ten voters");
        for turn in 0..2 * FORMER_LIMIT as u64 {
            members = members.with(member("x", 100 + turn, Standing::Learner)).expect("room");
        }
        assert_eq!(members.former.len(), FORMER_LIMIT);
        assert_eq!(members.former.last().map(|former| former.incarnation.0), Some(226));
        for number in members.members.len()..MEMBERS_LIMIT {
            let learner = member(&format!("l{number}"), 0, Standing::Learner);
            members = members.with(learner).expect("room");
        }
        assert_eq!(members.with(member("y", 0, Standing::Learner)), None);
    }
}
