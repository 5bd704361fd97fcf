//! One step of one node: an input for the real core, then all that comes of it, as
//! its driver would let it out, and what of it the node alone can be judged by.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;

use super::bounds::{Bounds, Bug};
use super::node::{NOW, Node, digest, life, place_of};
use super::past::{NO_PANIC, Verdict};
use crate::core::Core;
use crate::core::effect::Effects;
use crate::core::message::{AppendOutcome, Envelope, Message, PreVoteReply};
use crate::core::properties::logs::{COMMIT_RULE, LEADER_APPEND_ONLY};
use crate::core::properties::said::{DURABLE_FIRST, term_of};
use crate::core::properties::{APPLY_DURABLE, NEVER_BACK, NO_FAILURE, PROGRESS};
use crate::core::rng::Rng;
use crate::core::snapshot::SnapshotId;
use crate::core::state::Role;
use crate::core::tests::plan::name;
use crate::core::types::{Incarnation, Index, Time};
use crate::encoding;

/// An envelope of the network. Two are the same if all in them is the same.
pub struct Packet {
    pub digest: u64,
    pub from: usize,
    pub to: usize,
    pub envelope: Envelope,
}

impl Packet {
    pub fn new(envelope: Envelope) -> Packet {
        let (from, to) = (place_of(envelope.from.incarnation), place_of(envelope.to.incarnation));
        Packet { digest: digest(&envelope), from, to, envelope }
    }

    /// Asks for a vote, or for the promise of one.
    pub fn asks_for_vote(&self) -> bool {
        matches!(self.envelope.message, Message::RequestVote(_) | Message::PreVote(_))
    }
}

impl PartialEq for Packet {
    fn eq(&self, other: &Packet) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Packet {}

impl Hash for Packet {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.digest.hash(state);
    }
}

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}->{} {:?}", name(self.from), name(self.to), self.envelope.message)
    }
}

/// What can happen to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// A client's operation with this number.
    Propose(u8),
    /// The election timer runs out, and a majority gives its pre-votes.
    Stand,
    /// The election timer runs out.
    AskPreVotes,
    /// Heartbeats are due.
    Heartbeat,
    /// What is under way to the others is given up.
    GiveUp,
    /// No majority was heard for too long.
    StepDown,
    /// The oldest write under way is done.
    Written,
    /// A snapshot is taken of what may be applied, and the log cut behind it.
    Compact,
    /// A crash, with so many writes on the disk and so many entries of the next one,
    /// and a restart.
    Crash { reached: u8, torn: u8 },
    /// That run of that node is believed.
    Believe { place: u8, run: u8 },
    /// A packet arrives, perhaps after any promise to a leader has lapsed.
    Arrive { packet: &'static Packet, lapsed: bool },
}

/// What came of a step.
pub struct Outcome {
    pub node: Arc<Node>,
    pub sends: Vec<Envelope>,
    /// Whether entries were removed.
    pub cut: bool,
    pub verdict: Verdict,
}

/// Lets the input happen to a copy of the node.
pub fn step(before: &Node, input: Input, bounds: &Bounds) -> Outcome {
    let mut step = Step {
        node: before.clone(),
        effects: Effects::default(),
        sends: Vec::new(),
        cut: false,
        verdict: Verdict::default(),
        bounds,
    };
    let lived = catch_unwind(AssertUnwindSafe(|| {
        step.perform(input);
        step.drain();
        step.node.settle(bounds);
    }));
    if lived.is_err() {
        let mut verdict = step.verdict;
        verdict.ensure(&NO_PANIC, false);
        return Outcome { node: Arc::new(before.clone()), sends: Vec::new(), cut: false, verdict };
    }
    step.judge(before);
    let Step { node, sends, cut, verdict, .. } = step;
    Outcome { node: Arc::new(node), sends, cut, verdict }
}

struct Step<'a> {
    node: Node,
    effects: Effects,
    sends: Vec<Envelope>,
    cut: bool,
    verdict: Verdict,
    bounds: &'a Bounds,
}

impl Step<'_> {
    fn perform(&mut self, input: Input) {
        let core = &mut self.node.core;
        match input {
            Input::Propose(number) => {
                core.propose(Bytes::from(vec![number])).expect("a leader takes it");
            }
            Input::Stand => stand(core),
            Input::AskPreVotes => {
                self.node.asked += 1;
                // Each asking has a number that none before it had.
                let seed = digest(&(core.me(), self.node.asked));
                core.rng = Rng::new(seed);
                time_out(core);
            }
            Input::Heartbeat => {
                let Role::Leader(leader) = &mut core.role else { unreachable!("a leader") };
                leader.heartbeat_at = NOW;
                core.tick_leader(NOW);
            }
            Input::GiveUp => {
                let Role::Leader(leader) = &mut core.role else { unreachable!("a leader") };
                for progress in leader.progress.values_mut() {
                    progress.on_tick(Time(u64::MAX));
                }
            }
            Input::StepDown => {
                let Role::Leader(leader) = &mut core.role else { unreachable!("a leader") };
                for progress in leader.progress.values_mut() {
                    progress.contact_at = Time(0);
                }
                core.check_quorum(NOW);
            }
            Input::Written => self.oldest_write_is_done(),
            Input::Compact => self.node.compact(self.bounds.bug),
            Input::Crash { reached, torn } => self.node.restart(reached, torn, self.bounds),
            Input::Believe { place, run } => {
                self.node.believe(life(usize::from(place), u64::from(run)));
            }
            Input::Arrive { packet, lapsed } => self.arrive(packet, lapsed),
        }
    }

    fn arrive(&mut self, packet: &Packet, lapsed: bool) {
        let core = &mut self.node.core;
        if lapsed {
            core.leader_heard_at = None;
        }
        let mut envelope = packet.envelope.clone();
        self.bounds.bug.at_arrival(core, &mut envelope.message);
        let message = envelope.message.clone();
        // A refusal is the core's right; what of it is wrong shows in `failure`.
        let _ = core.receive(envelope, NOW);
        self.bounds.bug.after_arrival(core, &message);
    }

    fn oldest_write_is_done(&mut self) {
        if let Some(record) = self.node.writes.pop_front() {
            self.node.disk.write(&record);
            self.node.core.written(record.number, NOW);
        }
    }

    /// Lets everything out until nothing comes any more.
    fn drain(&mut self) {
        for round in 0.. {
            assert!(round < 20, "{:?} never comes to rest", self.node);
            self.node.core.flush(NOW, &mut self.effects);
            self.bounds.bug.at_flush(&mut self.node.core, &mut self.effects);
            self.cut |= self.effects.truncated.is_some();
            if self.effects.is_empty() {
                return;
            }
            for outgoing in std::mem::take(&mut self.effects.sends) {
                self.let_out(outgoing.envelope);
            }
            if let Some(write) = &self.effects.write {
                let record = self.node.core.record(write);
                self.node.writes.push_back(record);
                if self.bounds.bug == Bug::DiskLies {
                    self.node.core.written(write.number, NOW);
                }
            }
            if let Some((id, data)) = self.effects.assembled.take() {
                self.install(id, data);
            }
            while !self.bounds.slow_writes && !self.node.writes.is_empty() {
                self.oldest_write_is_done();
            }
        }
    }

    /// A snapshot has come whole.
    fn install(&mut self, id: SnapshotId, data: Bytes) {
        let snapshot = encoding::snapshot::open(id, data).expect("it is what was sent");
        let core = &mut self.node.core;
        let tail = core.log().from(id.index.next()).map(|(_, entry)| entry.clone()).collect();
        core.install(snapshot).expect("it is the leader's");
        if core.log().base_index() == id.index {
            self.bounds.bug.after_install(core, tail);
        }
    }

    /// A message leaves: what it rests on is on the disk by now (Raft Figure 2).
    fn let_out(&mut self, envelope: Envelope) {
        let disk = &self.node.disk;
        let hard = &disk.hard;
        let mut ensure = |holds| self.verdict.ensure(&DURABLE_FIRST, holds);
        ensure(hard.cluster == Some(envelope.cluster));
        let term = term_of(&envelope.message);
        ensure(hard.term >= term);
        let vote = match &envelope.message {
            Message::RequestVote(_) => Some(self.node.core.me().incarnation),
            Message::RequestVoteReply(m) if m.granted => Some(envelope.to.incarnation),
            _ => None,
        };
        ensure(hard.term > term || vote.is_none() || hard.voted_for == vote);
        let matched = match &envelope.message {
            Message::AppendEntriesReply(m) => match m.outcome {
                AppendOutcome::Matched { index } => index,
                _ => Index(0),
            },
            Message::HeartbeatReply(m) => m.matched,
            _ => Index(0),
        };
        ensure(disk.last_index() >= matched);
        self.node.spoken = self.node.spoken.max(term);
        self.sends.push(envelope);
    }

    fn judge(&mut self, before: &Node) {
        let (was, is) = (&before.facts, &self.node.facts);
        let core = &self.node.core;
        let verdict = &mut self.verdict;
        verdict.ensure(&NO_FAILURE, core.failure().is_none());
        verdict.ensure(&NEVER_BACK, core.term() >= before.spoken);
        if before.run() == self.node.run() {
            let (old, new) = (before.core.hard(), core.hard());
            verdict.ensure(&NEVER_BACK, is.term >= was.term && is.commit >= was.commit);
            let kept = old.voted_for.is_none() || old.voted_for == new.voted_for;
            verdict.ensure(&NEVER_BACK, kept || new.term > old.term);
        }
        let led_on = was.leads && is.leads && was.term == is.term;
        verdict.ensure(&LEADER_APPEND_ONLY, !led_on || is.log.starts_with(&was.log));
        let applicable = core.applicable();
        let reached = applicable.0 as usize;
        let durable = is.stored.get(..reached) == is.log.get(..reached);
        verdict.ensure(&APPLY_DURABLE, durable && applicable <= core.commit_index());
        if let (Role::Leader(leader), Some(members)) = (&core.role, core.members()) {
            for (member, progress) in &leader.progress {
                let ordered = progress.next_index() > progress.match_index();
                verdict.ensure(&PROGRESS, ordered && members.names(*member));
            }
            verdict.ensure(&COMMIT_RULE, counted(core) == core.commit_index());
        }
    }
}

/// Pitfall 26: the commit index as counting by hand finds it, from what the leader
/// knows: the greatest index of its own term that a majority has.
pub fn counted(core: &Core) -> Index {
    let (Role::Leader(leader), Some(members)) = (&core.role, core.members()) else {
        return core.commit_index();
    };
    let has = |voter: Incarnation, index: Index| match leader.progress.get(&voter) {
        Some(progress) => progress.match_index() >= index,
        None => core.durability.durable() >= index,
    };
    let mut index = core.log().last_index();
    while index > core.commit_index() {
        let voters = members.voters().filter_map(|member| member.incarnation);
        let copies = voters.filter(|voter| has(*voter, index)).count();
        if core.log().term_at(index) == Some(core.term()) && copies >= members.majority() {
            return index;
        }
        index = index.previous();
    }
    core.commit_index()
}

fn time_out(core: &mut Core) {
    core.election_at = NOW;
    core.leader_heard_at = None;
    core.tick_election(NOW);
}

/// The election timer runs out, and the first other node gives its pre-vote: with
/// the own one, that is a majority of three.
fn stand(core: &mut Core) {
    time_out(core);
    let Role::PreCandidate(candidacy) = &core.role else { unreachable!("nobody answered yet") };
    let reply = PreVoteReply { round: candidacy.round, term: core.term(), granted: true };
    let peer = core.peers().iter().find_map(|peer| peer.believed).expect("a peer is believed");
    core.on_pre_vote_reply(peer.incarnation, reply, NOW);
    assert!(matches!(core.role, Role::Candidate(_)), "stands with a majority's pre-votes");
}
