//! The exploration proves itself: with a bug in it, it finds the bug, and by the property
//! that is there for it.

use super::super::node::NOW;
use super::super::tour;
use super::bounds::{Bounds, Start, entries, votes};
use super::model::Cluster;
use super::node::place_of;
use super::step::Packet;
use super::{BELIEVED_IN_ORDER, FOUNDED_BY_THE_FRESH, NAMED_IN_ORDER, SETTLED_CHANGE};
use crate::core::Core;
use crate::core::membership::{Member, Standing};
use crate::core::message::{Envelope, Message};
use crate::core::properties::logs::LEADER_COMPLETENESS;
use crate::core::properties::{ELECTION_SAFETY, ONE_CHANGE, Property};
use crate::core::tests::plan::name;
use crate::core::types::{Entry, Payload, Protocol};

/// A bug as somebody could make it, planted from outside: the core is what it is, and
/// what it hears or does is tampered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    None,
    /// A fresh majority founds, whoever else there may be.
    FoundsByMajority,
    /// A founder takes any word that somebody is fresh for a recent one.
    TakesOldWords,
    /// A leader takes any word for one of the newest life.
    AdmitsOldLives,
    /// An echo of an earlier challenge is as good.
    TakesOldEchoes,
    /// Who says hello is believed.
    BelievesWithoutEcho,
    /// One entry puts a new life in a voter's place.
    SwapsAVoter,
    /// Members are changed before the leader has committed in its term.
    AdmitsUnsettled,
    /// A vote is asked of a name, and counts for that name: whoever lives there gives it.
    CountsByName,
}

impl Bug {
    /// Before a message is received.
    pub fn at_arrival(self, core: &mut Core, envelope: &mut Envelope) {
        let sender = name(place_of(envelope.from.incarnation));
        let me = core.me();
        match (self, &mut envelope.message) {
            (Bug::TakesOldEchoes, Message::Hello(hello)) if hello.echo != 0 => {
                hello.echo = asked_of(core, &sender);
            }
            (Bug::BelievesWithoutEcho, Message::Hello(hello)) if hello.ask != 0 => {
                hello.echo = asked_of(core, &sender);
            }
            (Bug::AdmitsOldLives, _) if core.hard.cluster.is_some() => {
                core.lives.bug_forgets_what_came_first();
            }
            (Bug::CountsByName, Message::RequestVote(_)) => envelope.to = me,
            (Bug::CountsByName, Message::RequestVoteReply(reply)) => {
                let named = core.members().and_then(|members| members.named(&sender)?.incarnation);
                if let Some(named) = named.filter(|_| envelope.to == me) {
                    core.on_request_vote_reply(named, reply.clone(), NOW);
                }
            }
            _ => {}
        }
    }

    /// After a message was received.
    pub fn after_arrival(self, core: &mut Core) {
        match self {
            Bug::TakesOldWords if core.hard.cluster.is_none() => {
                core.lives.settle(true, true, NOW);
                core.lives.bug_forgets_what_came_first();
                core.tick_lives(NOW);
            }
            Bug::SwapsAVoter => swap_a_voter(core),
            Bug::AdmitsUnsettled if core.leads() && !core.is_settled_for_change() => {
                let next = core.members().and_then(|members| core.lives.comeback(members, NOW));
                if let Some(next) = next {
                    core.append_members(next, NOW);
                }
            }
            _ => {}
        }
    }

    /// Whether it makes something of a packet of which nothing can come otherwise.
    pub fn keeps(self, packet: &Packet) -> bool {
        match self {
            Bug::TakesOldEchoes => packet.hello().is_some_and(|hello| hello.echo != 0),
            Bug::BelievesWithoutEcho => packet.asks().is_some(),
            Bug::CountsByName => {
                let message = &packet.envelope.message;
                matches!(message, Message::RequestVote(_) | Message::RequestVoteReply(_))
            }
            _ => false,
        }
    }
}

/// What the core asks of that name.
fn asked_of(core: &mut Core, name: &str) -> u64 {
    let place = core.peers().iter().position(|peer| peer.node.name == name);
    core.lives.challenge(place.expect("all nodes know each other"), &mut core.rng)
}

/// The entry that takes a voter away and lets its name's new life join makes that a voter.
fn swap_a_voter(core: &mut Core) {
    let last = core.log.last_index();
    let Some(Entry { payload: Payload::Protocol(Protocol::Members(members)), .. }) =
        core.log.entry(last)
    else {
        return;
    };
    let mut members = (**members).clone();
    let joining = members.members.iter_mut().find(|m| m.standing == Standing::Joining);
    if let Some(Member { standing, .. }) = joining
        && core.leads()
        && last > core.commit_index
    {
        *standing = Standing::Voter;
        core.log.truncate_from(last);
        core.configurations.truncate_from(last);
        core.durability.truncated(last);
        core.append_members(members, NOW);
    }
}

/// So many states are looked at before a bug counts as not found.
const PATIENCE: usize = 3_000_000;

/// These bounds bring the bug out, by that property; what `History` finds first on the way.
fn finds(bug: Bug, property: &'static Property, bounds: Bounds) -> Option<&'static str> {
    let bounds = Bounds { bug, judged: Some(property), ..bounds };
    tour::find(&bug, Cluster::new(bounds), property, PATIENCE)
}

/// Both forms of the properties find it.
fn both_find(bug: Bug, property: &'static Property, bounds: Bounds) {
    let other = finds(bug, property, bounds);
    assert!(other.is_some(), "only the exploration finds {bug:?}");
}

/// The founder leads by c's vote, and forgets; its next life and b, who is still fresh,
/// are a majority.
#[test]
fn a_founding_by_any_majority_is_found() {
    let asks = [[0, 1, 1], [1, 0, 0], [1, 0, 0]];
    let bounds = Bounds { asks, arrives: votes, standing: &[(0, 1)], ..Bounds::FOUNDING };
    both_find(Bug::FoundsByMajority, &ELECTION_SAFETY, Bounds { losing: &[0], ..bounds });
}

/// Pitfall 45, by what its proof rests on: that it can end with two leaders takes five
/// nodes, or the loss of a majority.
#[test]
fn a_founding_by_an_old_word_is_found() {
    let bounds = Bounds { losses: 2, losing: &[0, 2], ..Bounds::FOUNDING };
    finds(Bug::TakesOldWords, &FOUNDED_BY_THE_FRESH, bounds);
}

#[test]
fn an_echo_that_counts_twice_is_found() {
    let bounds = Bounds { losing: &[2], ..Bounds::FOUNDING };
    finds(Bug::TakesOldEchoes, &BELIEVED_IN_ORDER, bounds);
}

#[test]
fn a_belief_without_an_echo_is_found() {
    let bounds = Bounds { losing: &[2], ..Bounds::FOUNDING };
    finds(Bug::BelievesWithoutEcho, &BELIEVED_IN_ORDER, bounds);
}

/// What replaces c, and the vote that c had given b.
const LATE_VOTE: Bounds = Bounds {
    start: Start::Led,
    asks: [[0, 0, 2], [0, 0, 0], [1, 0, 0]],
    standing: &[(1, 2)],
    losing: &[2],
    arrives: entries,
    ..Bounds::FOUNDING
};

/// Design, "Lives": a late vote of the old life elects a second leader.
#[test]
fn a_swap_of_a_voter_is_found() {
    both_find(Bug::SwapsAVoter, &ONE_CHANGE, LATE_VOTE);
    both_find(Bug::SwapsAVoter, &LEADER_COMPLETENESS, LATE_VOTE);
}

/// a has heard of c', and b has admitted c'' since: a leads again.
#[test]
fn an_admission_of_an_older_life_is_found() {
    let asks = [[0, 0, 1], [0, 0, 1], [0, 0, 0]];
    let standing = &[(1, 1), (0, 2)];
    let bounds = Bounds { start: Start::Founded, losses: 2, standing, asks, ..LATE_VOTE };
    finds(Bug::AdmitsOldLives, &NAMED_IN_ORDER, Bounds { sweeps: true, ..bounds });
}

/// Ongaro's note of 2015, by the rule itself: what comes of it takes more members.
#[test]
fn a_change_before_a_commit_is_found() {
    let asks = [[0, 0, 1], [0, 0, 0], [0, 0, 0]];
    let bounds = Bounds { start: Start::Founded, standing: &[(0, 1)], asks, ..LATE_VOTE };
    finds(Bug::AdmitsUnsettled, &SETTLED_CHANGE, bounds);
}

/// A fresh node that votes for whoever asks its name.
#[test]
fn a_vote_that_counts_by_name_is_found() {
    let asks = [[0, 0, 0], [0, 0, 0], [1, 1, 0]];
    let bounds = Bounds { start: Start::Founded, standing: &[(0, 1), (1, 1)], asks, ..LATE_VOTE };
    both_find(Bug::CountsByName, &ELECTION_SAFETY, bounds);
}
