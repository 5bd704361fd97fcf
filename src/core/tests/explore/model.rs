//! The model that stateright walks through: its states, what can happen in each, and
//! the properties.

use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use stateright::{Model, Property};

use super::NODES;
use super::bounds::Bounds;
use super::node::{Node, digest};
use super::past::{Past, RULES};
use super::step::{Input, Outcome, Packet, step};
use crate::core::effect::RoleName;
use crate::core::message::{Envelope, Message};
use crate::core::state::Role;
use crate::core::types::Index;

/// How much of what is bounded has been used up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Spent {
    pub entries: u8,
    pub heartbeats: u8,
    pub given_up: u8,
    pub crashes: u8,
    pub compactions: u8,
}

/// A state of the whole cluster.
#[derive(Clone)]
pub struct State {
    pub nodes: [Arc<Node>; NODES],
    /// All that was ever sent and may still arrive, by digest. What arrives stays.
    pub network: Vec<&'static Packet>,
    pub past: Arc<Past>,
    pub spent: Spent,
}

/// What can happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Something happens to the node at a place.
    Step(usize, Input),
    /// Two nodes come to believe each other's present run.
    Meet(usize, usize),
}

/// What a `sometimes` property looks for in what happened rather than in a state.
pub const SAW_CUT: u32 = 1;

const SHARDS: usize = 64;
/// So many outcomes of steps are remembered, at most.
const REMEMBERED: usize = 4_000_000;

type Outcomes = HashMap<(u64, Input), Arc<Sent>>;

/// The outcome of a step, its messages in the table.
pub struct Sent {
    pub outcome: Outcome,
    pub packets: Vec<&'static Packet>,
}

pub struct Cluster {
    pub bounds: Bounds,
    packets: Mutex<HashMap<u64, &'static Packet>>,
    outcomes: Vec<Mutex<Outcomes>>,
    /// How many steps of a core were carried out.
    pub steps: AtomicU64,
    /// How many states were left out because a leader had said too much.
    pub cut_off: AtomicU64,
    seen: AtomicU32,
}

impl Cluster {
    pub fn new(bounds: Bounds) -> Cluster {
        let outcomes = (0..SHARDS).map(|_| Mutex::default()).collect();
        Cluster {
            bounds,
            packets: Mutex::default(),
            outcomes,
            steps: AtomicU64::new(0),
            cut_off: AtomicU64::new(0),
            seen: AtomicU32::new(0),
        }
    }

    pub fn saw(&self, what: u32) -> bool {
        self.seen.load(Ordering::Relaxed) & what != 0
    }

    /// The packet with this envelope. There are few of them, each in millions of
    /// states, so they are never given back.
    fn packet(&self, envelope: &Envelope) -> &'static Packet {
        let mut packets = self.packets.lock().expect("no panic in here");
        let digest = digest(envelope);
        packets.entry(digest).or_insert_with(|| Box::leak(Box::new(Packet::new(envelope.clone()))))
    }

    /// What comes of an input. Nodes with one fingerprint do the same, so what was
    /// found once is looked up: many states share a node.
    pub fn step(&self, node: &Node, input: Input) -> Arc<Sent> {
        let key = (node.facts.digest, input);
        let shard = &self.outcomes[(key.0 as usize) % SHARDS];
        if let Some(sent) = shard.lock().expect("no panic in here").get(&key) {
            return sent.clone();
        }
        let outcome = step(node, input, &self.bounds);
        self.steps.fetch_add(1, Ordering::Relaxed);
        let arrives = |packet: &&Packet| match &packet.envelope.message {
            Message::PreVote(_) if !self.bounds.pre_votes => false,
            _ => (self.bounds.arrives)(packet),
        };
        let packets = outcome.sends.iter().map(|envelope| self.packet(envelope));
        let packets = packets.filter(arrives).collect();
        let sent = Arc::new(Sent { outcome, packets });
        let mut outcomes = shard.lock().expect("no panic in here");
        if outcomes.len() >= REMEMBERED / SHARDS {
            outcomes.clear();
        }
        outcomes.insert(key, sent.clone());
        sent
    }

    /// The node at `place` takes a step; what the network and the past make of it.
    fn advance(&self, state: &mut State, place: usize, input: Input) -> bool {
        let before = state.nodes[place].clone();
        let sent = self.step(&before, input);
        let Sent { outcome, packets } = &*sent;
        if outcome.cut {
            self.seen.fetch_or(SAW_CUT, Ordering::Relaxed);
        }
        let alone = outcome.verdict.only(self.bounds.judged);
        let mut changed = outcome.node.facts.digest != before.facts.digest;
        changed |= !alone.is_clean();
        state.nodes[place] = outcome.node.clone();
        let sweeps = self.bounds.sweeps;
        for packet in packets {
            if !sweeps || !self.says_nothing(&state.nodes[packet.to], packet) {
                changed |= state.post(packet);
            }
        }
        if !changed {
            return false;
        }
        if sweeps {
            let node = &state.nodes[place];
            state.network.retain(|packet| packet.to != place || !self.says_nothing(node, packet));
        }
        let together = Past::judge(&mut state.past, &state.nodes, &before, place, packets);
        let together = together.only(self.bounds.judged);
        if !alone.is_clean() || !together.is_clean() {
            let verdict = &mut Arc::make_mut(&mut state.past).verdict;
            verdict.add(alone);
            verdict.add(together);
        }
        true
    }

    /// Whether a packet is an answer that says nothing any more: it bears an older term
    /// than its addressee has reached in its run, or refuses it a vote in the term it
    /// knows. That a term never falls in a run is what makes it so for good; that it is
    /// so now is tried out, and one that does anything stays.
    fn says_nothing(&self, node: &Node, packet: &'static Packet) -> bool {
        let term = node.facts.term;
        let late = match &packet.envelope.message {
            Message::RequestVoteReply(m) => m.term.0 < term || m.term.0 == term && !m.granted,
            Message::AppendEntriesReply(m) => m.term.0 < term,
            Message::HeartbeatReply(m) => m.term.0 < term,
            Message::Commit(m) => m.term.0 < term,
            _ => false,
        };
        if !late || node.facts.believed[packet.from] != packet.envelope.from.run.0 {
            return false;
        }
        let sent = self.step(node, Input::Arrive { packet, lapsed: false });
        sent.outcome.node.facts.digest == node.facts.digest
            && sent.outcome.verdict.is_clean()
            && sent.packets.is_empty()
    }

    fn local_actions(&self, state: &State, place: usize, actions: &mut Vec<Action>) {
        let Bounds { entries, heartbeats, given_up, crashes, compactions, .. } = self.bounds;
        let (node, spent) = (&state.nodes[place], state.spent);
        let mut push = |input| actions.push(Action::Step(place, input));
        if !node.writes.is_empty() {
            push(Input::Written);
        }
        if node.facts.leads {
            if spent.entries < entries {
                push(Input::Propose(spent.entries));
            }
            if spent.heartbeats < heartbeats {
                push(Input::Heartbeat);
            }
            if spent.given_up < given_up {
                push(Input::GiveUp);
            }
            if self.bounds.steps_down {
                push(Input::StepDown);
            }
        } else if let Some((_, newest)) = self.bounds.standing.iter().find(|(who, _)| *who == place)
            && node.facts.term < *newest
            && node.facts.believed.iter().any(|run| *run > 0)
        {
            match self.bounds.pre_votes {
                true if node.asked < *newest => push(Input::AskPreVotes),
                true => {}
                false => push(Input::Stand),
            }
        }
        let covered = node.core.snapshot().map_or(Index(0), |snapshot| snapshot.id.index);
        // What stands for the founding record alone is of no use to anybody.
        if spent.compactions < compactions && node.core.applicable() > covered.max(Index(1)) {
            push(Input::Compact);
        }
        if spent.crashes < crashes {
            for reached in 0..=node.writes.len() {
                push(Input::Crash { reached: reached as u8, torn: 0 });
                // A write of entries alone may leave the first of them.
                let next = node.writes.get(reached).filter(|record| record.hard.is_none());
                for torn in 1..next.map_or(0, |record| record.entries.len()) {
                    push(Input::Crash { reached: reached as u8, torn: torn as u8 });
                }
            }
        }
    }

    /// One node is elected and all that comes of it arrives; then the network is
    /// empty.
    fn elect(&self, state: &mut State, place: usize) {
        self.advance(state, place, Input::Stand);
        let mut moved = true;
        while moved {
            moved = false;
            for place in 0..NODES {
                while !state.nodes[place].writes.is_empty() {
                    moved |= self.advance(state, place, Input::Written);
                }
            }
            for packet in state.network.clone() {
                if state.may_arrive(packet) {
                    let input = Input::Arrive { packet, lapsed: false };
                    moved |= self.advance(state, packet.to, input);
                }
            }
        }
        assert!(state.nodes[place].facts.leads, "elected");
        state.network.clear();
    }
}

impl State {
    /// Puts a packet into the network, if it can ever arrive. Says whether that is
    /// news.
    fn post(&mut self, packet: &'static Packet) -> bool {
        if self.is_dead(packet) {
            return false;
        }
        match self.network.binary_search_by_key(&packet.digest, |other| other.digest) {
            Ok(_) => false,
            Err(place) => {
                self.network.insert(place, packet);
                true
            }
        }
    }

    /// Meant for a run that is over, or from one that its addressee knows to be
    /// over: the core refuses it, now and later.
    fn is_dead(&self, packet: &Packet) -> bool {
        let (from, to) = (packet.envelope.from, packet.envelope.to);
        let addressee = &self.nodes[packet.to];
        to != addressee.core.me() || addressee.facts.believed[packet.from] > from.run.0
    }

    /// The addressee believes the run that speaks.
    fn may_arrive(&self, packet: &Packet) -> bool {
        self.nodes[packet.to].facts.believed[packet.from] == packet.envelope.from.run.0
    }

    fn bury_the_dead(&mut self) {
        let mut network = std::mem::take(&mut self.network);
        network.retain(|packet| !self.is_dead(packet));
        self.network = network;
    }

    fn leaders(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.iter().filter(|node| node.facts.leads)
    }

    fn believes(&self, one: usize, other: usize) -> bool {
        self.nodes[one].facts.believed[other] == self.nodes[other].run()
    }
}

impl Model for Cluster {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let nodes = std::array::from_fn(|place| Arc::new(Node::new(place, &self.bounds)));
        let (past, spent) = (Arc::default(), Spent::default());
        let mut state = State { nodes, network: Vec::new(), past, spent };
        if let Some(place) = self.bounds.elected {
            self.elect(&mut state, place);
        }
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        // What is broken stays broken: there is nothing more to learn behind it.
        if !state.past.verdict.is_clean() {
            return;
        }
        for place in 0..NODES {
            self.local_actions(state, place, actions);
            for other in place + 1..NODES {
                if !state.believes(place, other) || !state.believes(other, place) {
                    actions.push(Action::Meet(place, other));
                }
            }
        }
        for &packet in &state.network {
            if !state.may_arrive(packet) {
                continue;
            }
            let arrive = |lapsed| Action::Step(packet.to, Input::Arrive { packet, lapsed });
            actions.push(arrive(false));
            if packet.asks_for_vote() && state.nodes[packet.to].core.leader_heard_at.is_some() {
                actions.push(arrive(true));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Step(place, input) => {
                match input {
                    Input::Propose(_) => state.spent.entries += 1,
                    Input::Heartbeat => state.spent.heartbeats += 1,
                    Input::GiveUp => state.spent.given_up += 1,
                    Input::Crash { .. } => state.spent.crashes += 1,
                    Input::Compact => state.spent.compactions += 1,
                    _ => {}
                }
                if !self.advance(&mut state, place, input) {
                    return None;
                }
                if is_beyond(&state.nodes[place], self.bounds.newest_seq) {
                    self.cut_off.fetch_add(1, Ordering::Relaxed);
                    return None;
                }
                if matches!(input, Input::Crash { .. }) {
                    state.bury_the_dead();
                }
            }
            Action::Meet(one, other) => {
                for (who, whom) in [(one, other), (other, one)] {
                    if !state.believes(who, whom) {
                        let run = state.nodes[whom].run() as u8;
                        self.advance(&mut state, who, Input::Believe { place: whom as u8, run });
                    }
                }
                state.bury_the_dead();
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Cluster>> {
        let mut all: Vec<Property<Cluster>> = RULES
            .iter()
            .zip(HOLDS)
            .map(|(rule, holds)| Property::always(rule.name, holds))
            .collect();
        all.extend(SOMETIMES.iter().map(|(name, condition)| Property::sometimes(name, *condition)));
        all
    }
}

fn is_beyond(node: &Node, newest_seq: u64) -> bool {
    matches!(&node.core.role, Role::Leader(leader) if leader.seq > newest_seq)
}

type Condition = fn(&Cluster, &State) -> bool;

fn holds<const RULE: usize>(_: &Cluster, state: &State) -> bool {
    state.past.verdict.holds(RULE)
}

/// Members do not change here, so the rules of that are not judged.
const HOLDS: [Condition; 15] = [
    holds::<0>,
    holds::<1>,
    holds::<2>,
    holds::<3>,
    holds::<4>,
    holds::<5>,
    holds::<6>,
    holds::<7>,
    holds::<8>,
    holds::<9>,
    holds::<10>,
    holds::<11>,
    holds::<12>,
    holds::<13>,
    holds::<14>,
];

// What must happen somewhere, or the model is asleep. Each run says which of it lies
// within its bounds.
pub const ELECTED: &str = "a leader is elected";
pub const TWO_LEAD: &str = "two lead at once, in different terms";
pub const COMMITTED: &str = "a client's entry is committed";
pub const CUT: &str = "a conflicting suffix is cut";
pub const CRASHED: &str = "a node restarts";
pub const SURVIVED: &str = "what is committed survives its leader's crash";
pub const REFUSED: &str = "a candidate is refused";
pub const INSTALLED: &str = "a snapshot takes the place of a log";

const SOMETIMES: [(&str, Condition); 8] = [
    (INSTALLED, |_, state| {
        let have = state.nodes.iter().filter(|node| node.core.snapshot().is_some()).count();
        have > usize::from(state.spent.compactions)
    }),
    (ELECTED, |_, state| state.leaders().next().is_some()),
    (TWO_LEAD, |_, state| state.leaders().count() == 2),
    (COMMITTED, |cluster, state| {
        let older = cluster.bounds.logs.iter().map(|log| log.len()).min().unwrap_or(0) + 1;
        // The first entry of a term is the leader's own.
        state.spent.entries > 0 && state.past.committed.len() > older + 1
    }),
    (CUT, |cluster, _| cluster.saw(SAW_CUT)),
    (CRASHED, |_, state| state.nodes.iter().any(|node| node.run() > 1)),
    (SURVIVED, |_, state| {
        let Some((_, term)) = state.past.committed.last() else { return false };
        let led = state.past.leaders.iter().find(|led| led.term == *term);
        let crashed = led.is_some_and(|led| state.nodes[led.place].run() > led.run);
        crashed && state.leaders().any(|node| node.facts.term > *term)
    }),
    (REFUSED, |_, state| {
        let candidate = |node: &Arc<Node>| node.core.role() == RoleName::Candidate;
        let refusal = |packet: &&Packet| match &packet.envelope.message {
            Message::RequestVoteReply(m) => !m.granted,
            _ => false,
        };
        state.nodes.iter().any(candidate) && state.network.iter().any(refusal)
    }),
];

impl PartialEq for State {
    fn eq(&self, other: &State) -> bool {
        digest(self) == digest(other)
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        for node in &self.nodes {
            hasher.write_u64(node.facts.digest);
        }
        for packet in &self.network {
            hasher.write_u64(packet.digest);
        }
        self.past.hash(hasher);
        self.spent.hash(hasher);
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for node in &self.nodes {
            writeln!(f, "  {node:?}")?;
        }
        let committed: Vec<u64> = self.past.committed.iter().map(|(stamp, _)| stamp.term).collect();
        write!(f, "  committed {committed:?}, {} packets", self.network.len())
    }
}
