//! Who founds a cluster, and with whom: the rule that the head of `lives` argues for.

use ::core::net::SocketAddr;

use super::super::membership::{Member, Standing};
use super::super::types::{Incarnation, Time};
use super::{ALONE_FOR, FRESH_FOR, LEARNERS_FOR, Lives, Peer};

/// What this node knows of itself.
#[derive(Clone, Copy, Debug)]
pub struct Own<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its address.
    pub address: SocketAddr,
    /// Whether the file makes it a voter.
    pub voter: bool,
    /// Its log.
    pub incarnation: Incarnation,
}

/// How a founding stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Founding {
    /// This node founds, with these members.
    Here(Vec<Member>),
    /// All are here, and this one founds.
    By(String),
    /// These voters have not said yet that they are fresh.
    Missing(Vec<String>),
    /// All are here, and these have to say once more that they are fresh.
    Unsure(Vec<String>),
    /// These remember a cluster: there is nothing to found.
    Remembered(Vec<String>),
}

impl Lives {
    /// What a fresh node called `name` can do about founding: who founds, with
    /// which members, or whom it waits for.
    pub fn founding(&self, own: &Own<'_>, by_majority: bool, now: Time) -> Founding {
        let remember = self.names(|peer| peer.believed.is_some() && !peer.fresh);
        if !remember.is_empty() {
            return Founding::Remembered(remember);
        }
        let here = |peer: &Peer| {
            peer.believed.is_some()
                && peer.fresh
                && peer.echoed_at.is_some_and(|at| now.since(at) <= FRESH_FOR)
        };
        // A learner may remember what all the voters have forgotten: it is asked, but not
        // waited for.
        let learners = self.names(|peer| !peer.node.voter && peer.believed.is_none());
        if !learners.is_empty() && now.since(self.started_at) < LEARNERS_FOR {
            return Founding::Missing(learners);
        }
        let missing = self.names(|peer| peer.node.voter && !here(peer));
        let voters = || self.peers.iter().filter(|peer| peer.node.voter);
        let file_voters = voters().count() + usize::from(own.voter);
        let present = file_voters - missing.len();
        let alone = |peer: &Peer| now.since(peer.sign_at.unwrap_or(self.started_at)) >= ALONE_FOR;
        let enough = missing.is_empty()
            || by_majority
                && present * 2 > file_voters
                && voters().filter(|peer| !here(peer)).all(alone);
        if !enough {
            return Founding::Missing(missing);
        }
        let first = voters()
            .filter(|peer| here(peer))
            .map(|peer| peer.node.name.as_str())
            .chain(own.voter.then_some(own.name))
            .min();
        match first {
            Some(first) if first == own.name => {
                let unsure = self.unsure(here);
                match unsure.is_empty() {
                    true => Founding::Here(self.founders(own, here)),
                    false => Founding::Unsure(unsure),
                }
            }
            Some(first) => Founding::By(first.to_string()),
            None => Founding::Missing(missing),
        }
    }

    /// Those that said that they are fresh when not all the others were believed
    /// yet: since then they may have agreed to the record of one that is dead.
    fn unsure(&self, here: impl Fn(&Peer) -> bool) -> Vec<String> {
        let voters = || self.peers.iter().filter(|peer| peer.node.voter && here(peer));
        self.names(|peer| {
            let others = voters().filter(|other| other.node.name != peer.node.name);
            let last_born = others.map(|other| other.born).max().unwrap_or(0);
            peer.node.voter && here(peer) && peer.echoed < last_born
        })
    }

    fn founders(&self, own: &Own<'_>, here: impl Fn(&Peer) -> bool) -> Vec<Member> {
        let of_peer = |peer: &Peer| Member {
            name: peer.node.name.clone(),
            address: peer.node.address,
            incarnation: peer.believed.filter(|_| here(peer)).map(|life| life.incarnation),
            standing: Standing::Voter,
        };
        // Learners are named, to be known by name, and none is waited for: each is found
        // by the leader, as whoever comes back.
        let learner = |peer: &Peer| Member {
            name: peer.node.name.clone(),
            address: peer.node.address,
            incarnation: None,
            standing: Standing::Learner,
        };
        let me = Member {
            name: own.name.to_string(),
            address: own.address,
            incarnation: Some(own.incarnation),
            standing: Standing::Voter,
        };
        let file = || self.peers.iter().filter(|peer| peer.in_file.is_some());
        let voters = file().filter(|peer| peer.node.voter).map(of_peer);
        let learners = file().filter(|peer| !peer.node.voter).map(learner);
        voters.chain(learners).chain([me]).collect()
    }
}
