//! The model that stateright walks through.

use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use stateright::{Model, Property};

use super::super::node::digest;
use super::super::past::RULES;
use super::bounds::{Bounds, Start};
use super::node::{Node, number_of};
use super::past::Past;
use super::sometimes::SOMETIMES;
use super::step::{Input, Outcome, Packet, echo, start, step};
use crate::core::message::{AppendOutcome, Envelope, Message};
use crate::core::state::Role;
use crate::core::types::{ClusterId, Life};

/// How much of what is bounded has been used up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Spent {
    pub entries: u8,
    pub losses: u8,
}

/// A state of the whole cluster.
#[derive(Clone)]
pub struct State {
    pub nodes: Vec<Arc<Node>>,
    /// All that was ever sent and may still make a difference, by digest. What arrives
    /// stays.
    pub network: Vec<&'static Packet>,
    pub past: Arc<Past>,
    pub spent: Spent,
}

/// What can happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Something happens to the node at a place.
    Step(usize, Input),
    /// That node loses its memory and starts anew.
    Lose(usize),
}

const SHARDS: usize = 64;
/// So many outcomes of steps are remembered, at most.
const REMEMBERED: usize = 2_000_000;

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
    /// The echo of each life and cluster to each packet that asks.
    echoes: Mutex<HashMap<(Life, ClusterId, u64), &'static Packet>>,
    /// How many steps of a core were carried out.
    pub steps: AtomicU64,
}

impl Cluster {
    pub fn new(bounds: Bounds) -> Cluster {
        Cluster {
            bounds,
            packets: Mutex::default(),
            outcomes: (0..SHARDS).map(|_| Mutex::default()).collect(),
            echoes: Mutex::default(),
            steps: AtomicU64::new(0),
        }
    }

    /// The packet with this envelope. There are few of them, each in millions of states,
    /// so they are never given back.
    fn packet(&self, to: usize, envelope: &Envelope) -> &'static Packet {
        let packet = Packet::new(to, envelope.clone());
        let mut packets = self.packets.lock().expect("no panic in here");
        packets.entry(packet.digest).or_insert_with(|| Box::leak(Box::new(packet)))
    }

    /// What comes of an input. Nodes with one fingerprint do the same, so what was found
    /// once is looked up.
    pub fn step(&self, node: &Node, input: Input) -> Arc<Sent> {
        let key = (node.facts.digest, input);
        let shard = &self.outcomes[(key.0 as usize) % SHARDS];
        if let Some(sent) = shard.lock().expect("no panic in here").get(&key) {
            return sent.clone();
        }
        let outcome = step(node, input, &self.bounds);
        self.steps.fetch_add(1, Ordering::Relaxed);
        let packets = self.table(&outcome);
        let sent = Arc::new(Sent { outcome, packets });
        let mut outcomes = shard.lock().expect("no panic in here");
        if outcomes.len() >= REMEMBERED / SHARDS {
            outcomes.clear();
        }
        outcomes.insert(key, sent.clone());
        sent
    }

    fn table(&self, outcome: &Outcome) -> Vec<&'static Packet> {
        let packets = outcome.sends.iter().map(|(to, envelope)| self.packet(*to, envelope));
        packets.filter(|packet| (self.bounds.arrives)(packet)).collect()
    }

    /// The node at `place` takes a step; what the network and the past make of it. Says
    /// whether anything changed.
    fn advance(&self, state: &mut State, place: usize, input: Input) -> bool {
        let before = state.nodes[place].clone();
        let sent = self.step(&before, input);
        let Sent { outcome, packets } = &*sent;
        let alone = outcome.verdict.only(self.bounds.judged);
        let mut changed = outcome.node.facts.digest != before.facts.digest;
        changed |= !alone.is_clean();
        state.nodes[place] = outcome.node.clone();
        let known = state.network.clone();
        for packet in packets {
            state.post(packet);
        }
        self.tidy(state);
        if !changed && known == state.network {
            return false;
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

    /// A life begins at a place.
    fn begin(&self, place: usize, number: u64, network: &mut Vec<&'static Packet>) -> Arc<Node> {
        let outcome = start(Node::new(place, number, &self.bounds), &self.bounds);
        network.extend(self.table(&outcome));
        outcome.node
    }

    /// Who is asked says at once what it has to say, and what nobody can make anything of
    /// any more is taken out of the network.
    fn tidy(&self, state: &mut State) {
        let bug = self.bounds.bug;
        let mut network = std::mem::take(&mut state.network);
        network.retain(|packet| bug.keeps(packet) || state.is_of_use(packet));
        let asking = network.iter().filter(|packet| packet.asks().is_some());
        let echoes: Vec<_> = asking.filter_map(|packet| self.echo(state, packet)).collect();
        state.network = network;
        for echo in echoes {
            state.post(echo);
        }
        let network = std::mem::take(&mut state.network);
        let echoed = |packet: &&'static Packet| {
            bug.keeps(packet) || packet.hello().is_some() || state.may_be_believed(packet, &network)
        };
        state.network = network.iter().copied().filter(echoed).collect();
        if self.bounds.sweeps {
            let quiet = |packet: &&'static Packet| self.says_nothing(state, packet);
            let quiet: Vec<u64> =
                state.network.iter().filter(|p| quiet(p)).map(|p| p.digest).collect();
            state.network.retain(|packet| !quiet.contains(&packet.digest));
        }
    }

    /// Whether it is an append that its addressee has followed, or an acknowledgement that
    /// its leader has counted: the node stays as it is, and says only what it said before.
    /// That it is so now is tried out. Later such an append could only tell an old leader
    /// of a newer term, and such an acknowledgement only end a probe early.
    fn says_nothing(&self, state: &State, packet: &'static Packet) -> bool {
        let node = &state.nodes[packet.to];
        let current = match &packet.envelope.message {
            Message::AppendEntries(m) => m.term == node.core.term(),
            Message::AppendEntriesReply(m) => m.term == node.core.term(),
            Message::Commit(m) => m.term == node.core.term(),
            _ => false,
        };
        if !current || !state.may_arrive(packet) {
            return false;
        }
        let sent = self.step(node, Input::Arrive(packet));
        let known = |packet: &&'static Packet| {
            state.network.binary_search_by_key(&packet.digest, |of| of.digest).is_ok()
                || !state.is_of_use(packet)
                || self.is_counted(state, packet)
        };
        sent.outcome.node.facts.digest == node.facts.digest
            && sent.outcome.verdict.is_clean()
            && sent.packets.iter().all(known)
    }

    /// An acknowledgement of which its leader would make nothing.
    fn is_counted(&self, state: &State, packet: &'static Packet) -> bool {
        matches!(packet.envelope.message, Message::AppendEntriesReply(_))
            && self.says_nothing(state, packet)
    }

    fn echo(&self, state: &State, packet: &'static Packet) -> Option<&'static Packet> {
        let node = &state.nodes[packet.to];
        if !state.is_current(packet) {
            return None;
        }
        let key = (node.me(), node.facts.cluster, packet.digest);
        if let Some(echo) = self.echoes.lock().expect("no panic in here").get(&key) {
            return Some(echo);
        }
        let envelope = echo(node, packet, &self.bounds)?;
        let echo = self.packet(packet.sender(), &envelope);
        self.echoes.lock().expect("no panic in here").insert(key, echo);
        Some(echo)
    }

    fn local_actions(&self, state: &State, place: usize, actions: &mut Vec<Action>) {
        let (node, spent) = (&state.nodes[place], state.spent);
        let mut push = |input| actions.push(Action::Step(place, input));
        for other in 0..self.bounds.voters {
            if node.left[other] > 0 && node.facts.asks[other] == 0 {
                push(Input::Ask(other));
            }
        }
        let standing = self.bounds.standing.iter().find(|(who, _)| *who == place);
        if node.facts.leads {
            if spent.entries < self.bounds.entries {
                push(Input::Propose(spent.entries));
            }
        } else if standing.is_some_and(|(_, newest)| node.facts.term < *newest)
            && node.core.may_campaign()
        {
            push(Input::Stand);
        }
        if spent.losses < self.bounds.losses && self.bounds.losing.contains(&place) {
            actions.push(Action::Lose(place));
        }
    }

    /// The first founds, and is elected if it is to lead; all that comes of it arrives.
    fn begin_later(&self, state: &mut State) {
        let leads = self.bounds.start == Start::Led;
        loop {
            let mut moved = false;
            for packet in state.network.clone() {
                if state.may_arrive(packet) {
                    moved |= self.advance(state, packet.to, Input::Arrive(packet));
                }
            }
            let node = &state.nodes[0];
            if moved {
                continue;
            } else if node.facts.cluster == ClusterId(0) {
                // Once more, now that all are here.
                for other in 1..self.bounds.voters {
                    self.ask(state, 0, other);
                }
            } else if let Some((one, other)) = self.strangers(state) {
                self.ask(state, one, other);
            } else if leads && node.facts.term == 0 {
                self.advance(state, 0, Input::Stand);
            } else if leads && node.facts.log.len() == 2 {
                self.advance(state, 0, Input::Propose(u8::MAX));
            } else {
                break;
            }
        }
        assert_eq!(state.nodes[0].facts.leads, leads, "the first is elected");
        for (place, node) in state.nodes.iter_mut().enumerate() {
            let node = Arc::make_mut(node);
            node.left = self.bounds.asks[place];
            node.settle(&mut [], &self.bounds);
        }
    }

    fn ask(&self, state: &mut State, place: usize, other: usize) {
        Arc::make_mut(&mut state.nodes[place]).left[other] = 1;
        self.advance(state, place, Input::Ask(other));
    }

    /// One that does not believe another yet.
    fn strangers(&self, state: &State) -> Option<(usize, usize)> {
        let places = 0..self.bounds.voters;
        let pairs = places.clone().flat_map(|one| places.clone().map(move |other| (one, other)));
        let mut strange = pairs.filter(|(one, other)| one != other);
        strange.find(|(one, other)| state.nodes[*one].facts.believed[*other] == 0)
    }
}

impl State {
    /// Puts a packet into the network.
    fn post(&mut self, packet: &'static Packet) {
        if let Err(place) = self.network.binary_search_by_key(&packet.digest, |of| of.digest) {
            self.network.insert(place, packet);
        }
    }

    fn lives(&self, life: Life) -> bool {
        self.nodes.iter().any(|node| node.me() == life)
    }

    /// It asks, and its sender still waits for the answer.
    fn is_current(&self, packet: &Packet) -> bool {
        let sender = &self.nodes[packet.sender()];
        sender.me() == packet.from && packet.asks() == Some(sender.facts.asks[packet.to])
    }

    /// What is asked by who waits for the answer; what is echoed to who waits for that;
    /// and what is meant for a life that has not come to believe a newer one than the
    /// sender.
    fn is_of_use(&self, packet: &Packet) -> bool {
        let addressee = &self.nodes[packet.to];
        let meant = packet.envelope.to == addressee.me();
        let from = packet.sender();
        match packet.hello() {
            Some(hello) if hello.ask != 0 => self.is_current(packet),
            Some(hello) => meant && hello.echo == addressee.facts.asks[from],
            None => {
                let number = number_of(packet.from.incarnation);
                let superseded = addressee.facts.believed[from] > number;
                meant && !superseded && !is_spent(addressee, packet, self.lives(packet.from))
            }
        }
    }

    /// The addressee believes the sender, or still can: it lives, or has echoed what is
    /// asked.
    fn may_be_believed(&self, packet: &Packet, network: &[&'static Packet]) -> bool {
        let echoed = |other: &&'static Packet| {
            other.hello().is_some_and(|hello| hello.echo != 0)
                && (other.from, other.to) == (packet.from, packet.to)
        };
        self.may_arrive(packet) || self.lives(packet.from) || network.iter().any(echoed)
    }

    /// Something comes of it: it echoes, or its sender is believed.
    fn may_arrive(&self, packet: &Packet) -> bool {
        let believed = self.nodes[packet.to].facts.believed[packet.sender()];
        match packet.hello() {
            Some(hello) => hello.echo != 0,
            None => believed == number_of(packet.from.incarnation),
        }
    }

    pub fn leaders(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.iter().filter(|node| node.facts.leads)
    }
}

/// Nothing comes of it any more, whatever else happens: each of these rests on what never
/// goes back in a life, its term, its log's beginning, what it knows to match.
fn is_spent(node: &Node, packet: &Packet, sender_lives: bool) -> bool {
    let term = node.core.term();
    let of_leader = match &node.core.role {
        Role::Leader(leader) => Some(leader.progress.get(&packet.from.incarnation)),
        _ => None,
    };
    match &packet.envelope.message {
        // The record is here.
        Message::Found(_) => !node.facts.log.is_empty(),
        // Nobody is left to be told of a newer term.
        Message::RequestVote(m) => m.term < term && !sender_lives,
        Message::AppendEntries(m) => m.term < term && !sender_lives,
        // A candidacy that is over does not come again in its term.
        Message::RequestVoteReply(m) => {
            let stands = matches!(node.core.role, Role::Candidate(_));
            m.term < term || m.term == term && !(m.granted && stands)
        }
        // So does a leadership; and who is no member any more, and over, never is again.
        Message::AppendEntriesReply(m) if m.term == term => match (&m.outcome, of_leader) {
            (AppendOutcome::Stale, _) | (_, None) => true,
            (_, Some(None)) => !sender_lives,
            (AppendOutcome::Mismatch { prev_log_index, .. }, Some(Some(progress))) => {
                *prev_log_index <= progress.match_index()
            }
            (AppendOutcome::Matched { .. }, Some(Some(_))) => false,
        },
        Message::AppendEntriesReply(m) => m.term < term,
        Message::Commit(m) => m.term < term,
        _ => false,
    }
}

impl Model for Cluster {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut network = Vec::new();
        let nodes = (0..self.bounds.voters).map(|place| self.begin(place, 1, &mut network));
        let nodes = nodes.collect();
        let (past, spent) = (Arc::default(), Spent::default());
        let mut state = State { nodes, network: Vec::new(), past, spent };
        network.into_iter().for_each(|packet| state.post(packet));
        self.tidy(&mut state);
        if self.bounds.start != Start::Fresh {
            self.begin_later(&mut state);
        }
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        // What is broken stays broken: there is nothing more to learn behind it.
        if !state.past.verdict.is_clean() {
            return;
        }
        for place in 0..self.bounds.voters {
            self.local_actions(state, place, actions);
        }
        let bug = self.bounds.bug;
        for &packet in &state.network {
            if bug.keeps(packet) || state.may_arrive(packet) {
                actions.push(Action::Step(packet.to, Input::Arrive(packet)));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Step(place, input) => {
                if let Input::Propose(_) = input {
                    state.spent.entries += 1;
                }
                if !self.advance(&mut state, place, input) {
                    return None;
                }
            }
            Action::Lose(place) => {
                state.spent.losses += 1;
                let number = state.nodes[place].number() + 1;
                let mut asking = Vec::new();
                let node = self.begin(place, number, &mut asking);
                let who = node.me().incarnation;
                state.nodes[place] = node;
                Arc::make_mut(&mut state.past).bear(&state.nodes, who);
                asking.into_iter().for_each(|packet| state.post(packet));
                self.tidy(&mut state);
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

pub type Condition = fn(&Cluster, &State) -> bool;

fn holds<const RULE: usize>(_: &Cluster, state: &State) -> bool {
    state.past.verdict.holds(RULE)
}

const HOLDS: [Condition; RULES.len()] = [
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
    holds::<15>,
    holds::<16>,
    holds::<17>,
    holds::<18>,
    holds::<19>,
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
        write!(f, "  {} packets", self.network.len())
    }
}
