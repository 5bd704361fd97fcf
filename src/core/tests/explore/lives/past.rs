//! What was true once, as far as the properties need it, and the judgement of each step.

use std::sync::Arc;

use super::super::node::Stamp;
use super::super::past::{Verdict, is_prefix_matching};
use super::node::{Node, number_of};
use super::step::Packet;
use crate::core::membership::Membership;
use crate::core::message::Message;
use crate::core::properties::logs::{
    COMMIT_RULE, LEADER_APPEND_ONLY, LEADER_COMPLETENESS, LOG_MATCHING, STATE_MACHINE_SAFETY,
};
use crate::core::properties::said::VOTE_ONCE;
use crate::core::properties::{ELECTION_SAFETY, NEVER_BACK, ONE_CHANGE, Property};
use crate::core::state::Role;
use crate::core::types::{ClusterId, Incarnation, Index, Payload, Protocol, Term};

/// No change of the members is written before the one before it is committed, and the
/// leader has committed in its term.
pub const SETTLED_CHANGE: Property =
    Property { name: "Changes One By One", source: "thesis §4.1; Ongaro's note of 2015" };

/// A life that was followed by another is not believed any more.
pub const BELIEVED_IN_ORDER: Property =
    Property { name: "Lives Are Believed In Order", source: "design, Lives: Believing" };

/// Members that name a life are followed by none that name an earlier one.
pub const NAMED_IN_ORDER: Property =
    Property { name: "Lives Are Named In Order", source: "design, Lives: Replacing" };

/// Each of those that a founding record names was fresh when all of them were born.
pub const FOUNDED_BY_THE_FRESH: Property =
    Property { name: "Founded By The Fresh", source: "core::lives: what is proved" };

/// A leadership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Led {
    pub cluster: ClusterId,
    pub term: u64,
    pub by: Incarnation,
}

/// A life that began when its name's earlier one had lost its memory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reborn {
    pub who: Incarnation,
    /// Who belonged to a cluster then.
    pub belonged: Vec<Incarnation>,
    /// Whether a client's entry was committed then.
    pub committed: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Past {
    pub leaders: Vec<Led>,
    /// Who voted in which term for whom.
    pub votes: Vec<(Incarnation, u64, Incarnation)>,
    /// What is committed in each cluster, by index, and the oldest term in which it was.
    pub committed: Vec<(ClusterId, Vec<(Stamp, u64)>)>,
    pub reborn: Vec<Reborn>,
    pub verdict: Verdict,
}

/// What a step did to a node, apart from all others.
pub fn alone(before: &Node, after: &Node) -> Verdict {
    let mut verdict = Verdict::default();
    let (was, is) = (&before.facts, &after.facts);
    let (old, new) = (before.core.hard(), after.core.hard());
    verdict.ensure(&NEVER_BACK, is.term >= was.term && is.commit >= was.commit);
    let kept = old.voted_for.is_none() || old.voted_for == new.voted_for;
    verdict.ensure(&NEVER_BACK, kept || new.term > old.term);
    verdict.ensure(&NEVER_BACK, old.cluster.is_none() || old.cluster == new.cluster);
    let led_on = was.leads && is.leads && was.term == is.term;
    verdict.ensure(&LEADER_APPEND_ONLY, !led_on || is.log.starts_with(&was.log));
    let in_order = was.believed.iter().zip(&is.believed).all(|(old, new)| old <= new);
    verdict.ensure(&BELIEVED_IN_ORDER, in_order);
    if is.log != was.log {
        verdict.add(change(before, after));
    }
    verdict
}

/// All members that a log states, and where.
fn stated(node: &Node) -> Vec<(Index, Term, Membership)> {
    let entries = node.core.log().from(Index(1));
    let members = entries.filter_map(|(index, entry)| match &entry.payload {
        Payload::Protocol(Protocol::Members(members)) => {
            Some((index, entry.term, Membership::clone(members)))
        }
        _ => None,
    });
    members.collect()
}

fn change(before: &Node, after: &Node) -> Verdict {
    let mut verdict = Verdict::default();
    let all = stated(after);
    for pair in all.windows(2) {
        let [(_, _, one), (_, _, next)] = pair else { unreachable!("two") };
        verdict.ensure(&ONE_CHANGE, one.voters_apart(next) <= 1);
        let in_order = one.members.iter().all(|member| {
            let life = |of: Option<Incarnation>| of.map_or(0, number_of);
            let follower = next.named(&member.name).and_then(|next| next.incarnation);
            life(member.incarnation) <= life(follower)
        });
        verdict.ensure(&NAMED_IN_ORDER, in_order);
    }
    if let Role::Leader(leader) = &after.core.role {
        let old = before.core.log().last_index();
        let commit = after.core.commit_index();
        for at in 0..all.len() {
            if all[at].0 > old && all[at].1 == after.core.term() {
                let settled = at == 0 || all[at - 1].0 <= commit;
                verdict.ensure(&SETTLED_CHANGE, settled && commit >= leader.term_start);
            }
        }
    }
    verdict
}

impl Past {
    /// A step changed the node at `place` and let these packets out; `nodes` are as they
    /// are after it.
    pub fn judge(
        past: &mut Arc<Past>,
        nodes: &[Arc<Node>],
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
        if is.log != was.log {
            let matching = |other: &Arc<Node>| {
                other.facts.cluster != is.cluster || is_prefix_matching(&is.log, &other.facts.log)
            };
            verdict.ensure(&LOG_MATCHING, nodes.iter().all(matching));
        }
        if was.cluster == ClusterId(0) && !is.log.is_empty() {
            verdict.ensure(&FOUNDED_BY_THE_FRESH, is_of_the_fresh(past, after));
        }
        for packet in sends {
            verdict.add(vote(past, packet));
        }
        verdict
    }

    /// A life ends without any memory left, and another begins.
    pub fn bear(&mut self, nodes: &[Arc<Node>], who: Incarnation) {
        let belonging = nodes.iter().filter(|node| node.facts.cluster != ClusterId(0));
        let belonged = belonging.map(|node| node.me().incarnation).collect();
        let committed = nodes.iter().any(|node| node.has_committed_for_clients());
        self.reborn.push(Reborn { who, belonged, committed });
    }
}

/// At most one leader in a term, and never two clusters with a leader each.
fn elect(past: &mut Arc<Past>, leader: &Node) -> Verdict {
    let facts = &leader.facts;
    let led = Led { cluster: facts.cluster, term: facts.term, by: leader.me().incarnation };
    let mut verdict = Verdict::default();
    if past.leaders.contains(&led) {
        return verdict;
    }
    let fits = |other: &Led| other.cluster == led.cluster && other.term != led.term;
    verdict.ensure(&ELECTION_SAFETY, past.leaders.iter().all(fits));
    let past = Arc::make_mut(past);
    past.leaders.push(led);
    past.leaders.sort_unstable();
    verdict
}

/// The node knows more to be committed. The first to know is a leader, and what it commits
/// is of its term.
fn commit(past: &mut Arc<Past>, nodes: &[Arc<Node>], node: &Node) -> Verdict {
    let mut verdict = Verdict::default();
    let facts = &node.facts;
    let reached = &facts.log[..facts.commit as usize];
    let mut all = past.committed.clone();
    let at = all.iter().position(|(cluster, _)| *cluster == facts.cluster);
    let at = at.unwrap_or_else(|| {
        all.push((facts.cluster, Vec::new()));
        all.len() - 1
    });
    let committed = &mut all[at].1;
    let same = reached.iter().zip(committed.iter()).all(|(one, (other, _))| one == other);
    verdict.ensure(&STATE_MACHINE_SAFETY, same);
    // A leader of an older term may be the last to know.
    let older = committed.iter_mut().zip(reached).filter(|_| facts.leads);
    older.for_each(|((_, term), _)| *term = facts.term.min(*term));
    if let Some(new) = reached.get(committed.len()..).filter(|new| !new.is_empty()) {
        let own_term = reached.last().is_some_and(|last| last.term == facts.term);
        verdict.ensure(&COMMIT_RULE, facts.leads && own_term);
        committed.extend(new.iter().map(|stamp| (*stamp, facts.term)));
    }
    let beyond = all.iter().filter(|(_, committed)| committed.len() > 1).count();
    verdict.ensure(&ELECTION_SAFETY, beyond <= 1);
    if all != past.committed {
        let complete = nodes.iter().all(|node| is_complete(&all, node));
        verdict.ensure(&LEADER_COMPLETENESS, complete);
        Arc::make_mut(past).committed = all;
    }
    verdict
}

/// Committed entries are in the logs of the leaders of all later terms.
fn is_complete(committed: &[(ClusterId, Vec<(Stamp, u64)>)], node: &Node) -> bool {
    let facts = &node.facts;
    let of_cluster = committed.iter().filter(|(cluster, _)| *cluster == facts.cluster);
    let mut places = of_cluster.flat_map(|(_, all)| all.iter().enumerate());
    !facts.leads
        || places.all(|(at, (stamp, term))| *term >= facts.term || facts.log.get(at) == Some(stamp))
}

/// Nobody whom the record names belonged to a cluster when another of them was born.
fn is_of_the_fresh(past: &Past, founder: &Node) -> bool {
    let Some((_, _, record)) = stated(founder).into_iter().next() else { return true };
    let named = |who: Incarnation| record.names(who);
    let mut reborn = past.reborn.iter().filter(|reborn| named(reborn.who));
    // Who has the record by now has it from this founding, or from another holder.
    !reborn.any(|reborn| reborn.belonged.iter().any(|who| named(*who)))
}

/// A log votes once a term.
fn vote(past: &mut Arc<Past>, packet: &Packet) -> Verdict {
    let mut verdict = Verdict::default();
    let voter = packet.from.incarnation;
    let (term, candidate) = match &packet.envelope.message {
        Message::RequestVote(m) => (m.term.0, voter),
        Message::RequestVoteReply(m) if m.granted => (m.term.0, packet.envelope.to.incarnation),
        _ => return verdict,
    };
    let mut votes = past.votes.iter();
    match votes.find(|(who, in_term, _)| (*who, *in_term) == (voter, term)) {
        Some((_, _, first)) => verdict.ensure(&VOTE_ONCE, *first == candidate),
        None => {
            let votes = &mut Arc::make_mut(past).votes;
            votes.push((voter, term, candidate));
            votes.sort_unstable();
        }
    }
    verdict
}
