//! What was true once, as far as the properties need it, and the judgement of each
//! step by it.
//!
//! The properties are those of `properties`, by the same names. They are judged here
//! in another form: a past that a state can carry by the million, and of which all
//! is part of the state's fingerprint. `walk` compares the two forms.

use std::sync::Arc;

use super::NODES;
use super::lives::{BELIEVED_IN_ORDER, FOUNDED_BY_THE_FRESH, NAMED_IN_ORDER, SETTLED_CHANGE};
use super::node::{Node, Stamp, place_of};
use super::step::Packet;
use crate::core::message::{AppendOutcome, Message};
use crate::core::properties::logs::{
    COMMIT_RULE, LEADER_APPEND_ONLY, LEADER_COMPLETENESS, LOG_MATCHING, STATE_MACHINE_SAFETY,
};
use crate::core::properties::said::{DURABLE_FIRST, VOTE_ONCE};
use crate::core::properties::{
    APPLY_DURABLE, ELECTION_SAFETY, NEVER_BACK, NO_FAILURE, ONE_CHANGE, PROGRESS, Property,
    SNAPSHOT_COMMITTED,
};
use crate::core::types::Index;

/// What a leader is told to be on a disk is there, and is what the leader has.
pub const ACKNOWLEDGED_IS_THERE: Property =
    Property { name: "Acknowledged Is There", source: "Raft §5.3, Figure 2: AppendEntries" };

/// None of the core's own asserts fails.
pub const NO_PANIC: Property =
    Property { name: "No Assert Fails", source: "design: a panic is our bug" };

/// All that is judged: what `properties` has, but for what nothing here comes near,
/// reads and queues without bound; the last are of founding and replacement, and judged
/// where those are walked (`lives`).
pub const RULES: [&Property; 20] = [
    &ELECTION_SAFETY,
    &LEADER_APPEND_ONLY,
    &LOG_MATCHING,
    &LEADER_COMPLETENESS,
    &STATE_MACHINE_SAFETY,
    &COMMIT_RULE,
    &VOTE_ONCE,
    &DURABLE_FIRST,
    &NEVER_BACK,
    &SNAPSHOT_COMMITTED,
    &APPLY_DURABLE,
    &PROGRESS,
    &NO_FAILURE,
    &ACKNOWLEDGED_IS_THERE,
    &NO_PANIC,
    &ONE_CHANGE,
    &SETTLED_CHANGE,
    &BELIEVED_IN_ORDER,
    &NAMED_IN_ORDER,
    &FOUNDED_BY_THE_FRESH,
];

fn bit(property: &'static Property) -> u32 {
    let place = RULES.iter().position(|rule| rule.name == property.name);
    1 << place.expect("a property that is judged")
}

/// Properties that do not hold, a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Verdict(u32);

impl Verdict {
    /// The property holds, or does not.
    pub fn ensure(&mut self, property: &'static Property, holds: bool) {
        if !holds {
            self.0 |= bit(property);
        }
    }

    pub fn add(&mut self, other: Verdict) {
        self.0 |= other.0;
    }

    pub fn holds(self, rule: usize) -> bool {
        self.0 & (1 << rule) == 0
    }

    pub fn is_clean(self) -> bool {
        self.0 == 0
    }

    /// What it says of that property alone, if there is one.
    pub fn only(self, property: Option<&'static Property>) -> Verdict {
        match property {
            Some(property) => Verdict(self.0 & bit(property)),
            None => self,
        }
    }
}

/// A leadership: its term, and who led in which run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Led {
    pub term: u64,
    pub place: usize,
    pub run: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Past {
    pub leaders: Vec<Led>,
    /// Who voted in which term for whom.
    votes: Vec<(usize, u64, usize)>,
    /// What is committed, by index, and the oldest term in which it was.
    pub committed: Vec<(Stamp, u64)>,
    pub verdict: Verdict,
}

impl Past {
    /// A step changed the node at `place` and let these packets out; `nodes` are as
    /// they are after it. The past learns of it, and what is broken is said.
    pub fn judge(
        past: &mut Arc<Past>,
        nodes: &[Arc<Node>; NODES],
        before: &Node,
        place: usize,
        sends: &[&'static Packet],
    ) -> Verdict {
        let after = &nodes[place];
        let mut verdict = Verdict::default();
        let (was, is) = (&before.facts, &after.facts);
        let elected = is.leads && (!was.leads || was.term != is.term);
        if elected {
            verdict.add(elect(past, after));
        }
        if is.commit > was.commit {
            verdict.add(commit(past, nodes, after));
        }
        if elected {
            verdict.ensure(&LEADER_COMPLETENESS, is_complete(&past.committed, after));
        }
        if is.covered != was.covered {
            verdict.ensure(&SNAPSHOT_COMMITTED, stands_for(&past.committed, after));
        }
        if is.log != was.log || is.stored != was.stored {
            verdict.ensure(&LOG_MATCHING, nodes.iter().all(|other| are_matching(after, other)));
        }
        for packet in sends {
            verdict.add(vote(past, packet));
            verdict.ensure(&ACKNOWLEDGED_IS_THERE, is_acknowledged_there(nodes, after, packet));
        }
        verdict
    }
}

/// At most one leader in a term (Raft §5.2).
fn elect(past: &mut Arc<Past>, leader: &Node) -> Verdict {
    let led = Led { term: leader.facts.term, place: leader.place, run: leader.run() };
    let mut verdict = Verdict::default();
    match past.leaders.iter().find(|other| other.term == led.term) {
        Some(other) => verdict.ensure(&ELECTION_SAFETY, *other == led),
        None => {
            let past = Arc::make_mut(past);
            past.leaders.push(led);
            past.leaders.sort_unstable_by_key(|led| led.term);
        }
    }
    verdict
}

/// The node knows more to be committed. The first to know is a leader, and what it
/// commits is of its term and on the disks of a majority (Raft §5.3, §5.4.2).
fn commit(past: &mut Arc<Past>, nodes: &[Arc<Node>; NODES], node: &Node) -> Verdict {
    let mut verdict = Verdict::default();
    let facts = &node.facts;
    let reached = &facts.log[..facts.commit as usize];
    let known = past.committed.iter().map(|(stamp, _)| stamp);
    verdict.ensure(&STATE_MACHINE_SAFETY, reached.iter().zip(known).all(|(a, b)| a == b));
    // A leader of an older term may be the last to know.
    let mut committed = past.committed.clone();
    let older = committed.iter_mut().zip(reached).filter(|_| facts.leads);
    older.for_each(|((_, term), _)| *term = facts.term.min(*term));
    if let Some(new) = reached.get(committed.len()..).filter(|new| !new.is_empty()) {
        let index = reached.len() - 1;
        let has = |other: &&Arc<Node>| other.facts.stored.get(index) == Some(&reached[index]);
        let majority = nodes.iter().filter(has).count() * 2 > NODES;
        let own_term = reached[index].term == facts.term;
        verdict.ensure(&COMMIT_RULE, facts.leads && own_term && majority);
        committed.extend(new.iter().map(|stamp| (*stamp, facts.term)));
    }
    if committed != past.committed {
        let complete = nodes.iter().all(|node| is_complete(&committed, node));
        verdict.ensure(&LEADER_COMPLETENESS, complete);
        Arc::make_mut(past).committed = committed;
    }
    verdict
}

/// Committed entries are in the logs of the leaders of all later terms.
fn is_complete(committed: &[(Stamp, u64)], node: &Node) -> bool {
    let facts = &node.facts;
    let mut places = committed.iter().enumerate();
    !facts.leads
        || places.all(|(at, (stamp, term))| *term >= facts.term || facts.log.get(at) == Some(stamp))
}

/// A snapshot stands for what is committed, and for all members (Raft §7). Nobody comes
/// or goes here: they are those of the founding record.
fn stands_for(committed: &[(Stamp, u64)], node: &Node) -> bool {
    // One that was not durable is gone in a crash.
    let Some(snapshot) = node.core.snapshot() else { return true };
    let covered = &node.facts.covered;
    let prefix = committed.iter().take(covered.len()).map(|(stamp, _)| stamp);
    let of = covered.last().map(|stamp| stamp.term);
    covered.iter().eq(prefix)
        && (covered.len() as u64, of) == (snapshot.id.index.0, Some(snapshot.id.term.0))
        && (snapshot.members_index, snapshot.members.members.len()) == (Index(1), NODES)
}

/// Logs that have an entry of one index and term are the same up to there.
pub fn is_prefix_matching(one: &[Stamp], other: &[Stamp]) -> bool {
    let mut pairs = one.iter().zip(other).rev();
    match pairs.find(|(a, b)| a.term == b.term) {
        Some((a, b)) => a == b && pairs.all(|(a, b)| a == b),
        None => true,
    }
}

fn are_matching(one: &Node, other: &Node) -> bool {
    let (one, other) = (&one.facts, &other.facts);
    let others = [&other.log, &other.stored];
    [&one.log, &one.stored].iter().all(|a| others.iter().all(|b| is_prefix_matching(a, b)))
}

/// A log votes once a term, whatever its runs forget (Raft §5.2).
fn vote(past: &mut Arc<Past>, packet: &Packet) -> Verdict {
    let mut verdict = Verdict::default();
    let (term, candidate) = match &packet.envelope.message {
        Message::RequestVote(m) => (m.term.0, packet.from),
        Message::RequestVoteReply(m) if m.granted => (m.term.0, packet.to),
        _ => return verdict,
    };
    let mut votes = past.votes.iter();
    match votes.find(|(voter, in_term, _)| (*voter, *in_term) == (packet.from, term)) {
        Some((_, _, first)) => verdict.ensure(&VOTE_ONCE, *first == candidate),
        None => {
            let votes = &mut Arc::make_mut(past).votes;
            votes.push((packet.from, term, candidate));
            votes.sort_unstable();
        }
    }
    verdict
}

/// A leader that is told of a match finds there what it has itself. One that does
/// not lead in that term any more draws no conclusion.
fn is_acknowledged_there(nodes: &[Arc<Node>; NODES], sender: &Node, packet: &Packet) -> bool {
    let (term, index) = match &packet.envelope.message {
        Message::AppendEntriesReply(m) => match m.outcome {
            AppendOutcome::Matched { index } => (m.term.0, index.0 as usize),
            _ => return true,
        },
        Message::HeartbeatReply(m) => (m.term.0, m.matched.0 as usize),
        _ => return true,
    };
    let leader = &nodes[place_of(packet.envelope.to.incarnation)];
    if leader.core.me() != packet.envelope.to || !leader.facts.leads || leader.facts.term != term {
        return true;
    }
    let (there, here) = (sender.facts.stored.get(..index), leader.facts.log.get(..index));
    there.is_some() && there == here
}
