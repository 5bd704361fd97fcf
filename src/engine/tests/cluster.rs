//! Several engines in one thread: what the tests of this folder run.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::{Ipv4Addr, SocketAddr};

use crate::core::lives::Neighbor;
use crate::core::rng::Rng;
use crate::core::types::{Incarnation, Index, Life, Payload, Run, Time};
use crate::core::{Core, Saved};
use crate::engine::{Engine, Host, Output, Setup};
use crate::error::RequestError;
use crate::operation::Operation;
use crate::replica::Replica;
use crate::request::{Answer, Request};

pub(super) const MILLISECOND: u64 = 1_000;
pub(super) const SECOND: u64 = 1_000_000;
/// How long a datagram travels without faults.
pub(super) const TRIP: u64 = 100;

/// When a datagram arrives, which it was to leave, where it goes, what it says.
type Travelling = (Time, u64, usize, Vec<u8>);

/// Engines, and a network between them.
pub(super) struct Cluster {
    engines: Vec<Engine<u64>>,
    outputs: Output<u64>,
    addresses: Vec<SocketAddr>,
    neighbors: Vec<Neighbor>,
    now: Time,
    rng: Rng,
    travelling: BinaryHeap<Reverse<Travelling>>,
    left: u64,
    faults_percent: u64,
    isolated: BTreeSet<usize>,
    answers: BTreeMap<u64, Answer>,
    /// When each request was made, and ended.
    times: BTreeMap<u64, (u64, u64)>,
    sent: Vec<String>,
    /// How long a datagram travels without faults, and how much that varies.
    pub(super) trip: u64,
    pub(super) jitter: u64,
    /// How many bytes left.
    pub(super) bytes: u64,
    bytes_of: Vec<u64>,
}

impl Cluster {
    pub(super) fn new(size: usize, remote: bool, seed: u64) -> Cluster {
        let address = |node: usize| {
            let ip =
                if remote { Ipv4Addr::new(10, 0, 0, 1 + node as u8) } else { Ipv4Addr::LOCALHOST };
            SocketAddr::from((ip, 7000 + node as u16))
        };
        let neighbor = |node: usize| Neighbor {
            name: format!("node{node}"),
            address: address(node),
            voter: true,
        };
        let neighbors: Vec<Neighbor> = (0..size).map(neighbor).collect();
        let mut cluster = Cluster {
            engines: Vec::new(),
            outputs: Output::default(),
            addresses: (0..size).map(address).collect(),
            neighbors,
            now: Time(1),
            rng: Rng::new(seed),
            travelling: BinaryHeap::new(),
            left: 0,
            faults_percent: 0,
            isolated: BTreeSet::new(),
            answers: BTreeMap::new(),
            times: BTreeMap::new(),
            sent: Vec::new(),
            trip: TRIP,
            jitter: 0,
            bytes: 0,
            bytes_of: vec![0; size],
        };
        for node in 0..size {
            let engine = cluster.engine(node);
            cluster.engines.push(engine);
        }
        cluster
    }

    fn engine(&mut self, node: usize) -> Engine<u64> {
        let incarnation = Incarnation(self.rng.next_nonzero());
        self.engine_of(node, Saved::empty(incarnation))
    }

    fn engine_of(&mut self, node: usize, saved: Saved) -> Engine<u64> {
        let mut others = self.neighbors.clone();
        let own = others.remove(node);
        let incarnation = saved.incarnation;
        let run = Run(self.rng.next_nonzero());
        let mut setup = Setup::in_memory(own, others);
        setup.core.failure_timeout = None;
        let name = format!("node{node}");
        let replica = Replica::new(&name, Life { incarnation, run }, None, Vec::new());
        let seed = self.rng.next();
        Engine::new(setup, saved, run, seed, Host::here(replica), self.now)
    }

    /// The node is stopped and started: another run of the same log.
    pub(super) fn restart(&mut self, node: usize) {
        let gone = self.engine(node);
        let engine = std::mem::replace(&mut self.engines[node], gone);
        let mut output = Output::default();
        let saved = engine.stop(&RequestError::Stopped, &mut output);
        self.take_answers(&mut output);
        self.engines[node] = self.engine_of(node, saved);
    }

    /// The node is gone, and another life takes its name.
    pub(super) fn restart_without_memory(&mut self, node: usize) {
        let engine = self.engine(node);
        self.engines[node] = engine;
    }

    pub(super) fn request(&mut self, node: usize, value: serde_json::Value) -> u64 {
        self.ask(node, Request::from(value))
    }

    /// Requests that the node finds all at once.
    pub(super) fn request_together(
        &mut self,
        node: usize,
        values: impl Iterator<Item = serde_json::Value>,
    ) {
        for value in values {
            self.put(node, Request::from(value));
        }
        self.flush(node);
    }

    pub(super) fn ask(&mut self, node: usize, request: Request) -> u64 {
        let ticket = self.put(node, request);
        self.flush(node);
        ticket
    }

    fn put(&mut self, node: usize, request: Request) -> u64 {
        let ticket = self.sent.len() as u64;
        let kind = request.into_kind();
        self.times.insert(ticket, (self.now.0, u64::MAX));
        self.sent.push(match &kind {
            crate::request::Kind::Command { draft, .. } => {
                String::from_utf8(draft.json().to_vec()).expect("JSON")
            }
            _ => String::new(),
        });
        self.engines[node].request(ticket, kind, self.now);
        ticket
    }

    /// What was sent with this ticket.
    pub(super) fn sent(&self, ticket: u64) -> &str {
        &self.sent[ticket as usize]
    }

    pub(super) fn answer(&self, ticket: u64) -> Answer {
        self.answers.get(&ticket).cloned().expect("the request has ended")
    }

    /// When the request was made, and when it ended.
    pub(super) fn times(&self, ticket: u64) -> (u64, u64) {
        self.times[&ticket]
    }

    pub(super) fn is_answered(&self, ticket: u64) -> bool {
        self.answers.contains_key(&ticket)
    }

    pub(super) fn open_requests(&self) -> usize {
        self.sent.len() - self.answers.len()
    }

    pub(super) fn now(&self) -> Time {
        self.now
    }

    /// How many datagrams left.
    pub(super) fn datagrams(&self) -> u64 {
        self.left
    }

    pub(super) fn address(&self, node: usize) -> SocketAddr {
        self.addresses[node]
    }

    pub(super) fn core(&self, node: usize) -> &Core {
        &self.engines[node].core
    }

    pub(super) fn engine_mut(&mut self, node: usize) -> &mut Engine<u64> {
        &mut self.engines[node]
    }

    pub(super) fn core_mut(&mut self, node: usize) -> &mut Core {
        &mut self.engines[node].core
    }

    /// So many of a hundred datagrams are lost, as many repeated, delayed, or
    /// damaged.
    pub(super) fn faults(&mut self, percent: u64) {
        self.faults_percent = percent;
    }

    /// How many bytes a node has sent.
    pub(super) fn bytes_of(&self, node: usize) -> u64 {
        self.bytes_of[node]
    }

    pub(super) fn isolate(&mut self, node: usize) {
        self.isolated.insert(node);
    }

    pub(super) fn isolate_leader(&mut self) {
        let leader = self.wait_for_leader();
        self.isolate(leader);
    }

    pub(super) fn heal(&mut self) {
        self.isolated.clear();
    }

    pub(super) fn wait_for_leader(&mut self) -> usize {
        self.wait_for_leader_other_than(usize::MAX)
    }

    pub(super) fn wait_for_leader_other_than(&mut self, old: usize) -> usize {
        let leads = |cluster: &Cluster, node: usize| {
            let core = &cluster.engines[node].core;
            node != old && core.leads() && core.commit_index() > Index(1)
        };
        let size = self.engines.len();
        self.run_until(10 * SECOND, |cluster| (0..size).any(|node| leads(cluster, node)));
        (0..size).find(|node| leads(self, *node)).expect("one leads")
    }

    /// The values that were applied at a node, each as often as it was.
    pub(super) fn committed(&self, node: usize) -> Vec<String> {
        let engine = &self.engines[node];
        let mut seen = BTreeSet::new();
        let mut ids = BTreeSet::new();
        let mut values = Vec::new();
        for (index, entry) in engine.core.log().from(Index(1)) {
            if index > engine.host.applied() {
                break;
            }
            let Payload::Client(operation) = &entry.payload else { continue };
            let Some(Operation::Command(command)) = Operation::decode(operation) else { continue };
            let first = seen.insert((command.session, command.seq))
                && command.id.is_none_or(|id| ids.insert(id.to_string()));
            if first {
                values.push(value_of(operation, &command.json_range));
            }
        }
        values
    }

    pub(super) fn value_at(&self, node: usize, index: u64) -> Option<String> {
        let entry = self.engines[node].core.log().entry(Index(index))?;
        let Payload::Client(operation) = &entry.payload else { return None };
        match Operation::decode(operation)? {
            Operation::Command(command) => Some(value_of(operation, &command.json_range)),
            _ => None,
        }
    }

    pub(super) fn run(&mut self, micros: u64) {
        let end = self.now.plus(micros);
        while self.step(end) {}
    }

    pub(super) fn run_until(&mut self, micros: u64, reached: impl Fn(&Cluster) -> bool) {
        let end = self.now.plus(micros);
        while !reached(self) {
            assert!(self.step(end), "not reached within {micros} us");
        }
    }

    /// Lives as long as that is so.
    pub(super) fn run_while(&mut self, micros: u64, so: impl Fn(&mut Cluster) -> bool) {
        let end = self.now.plus(micros);
        while so(self) {
            assert!(self.step(end), "still so after {micros} us");
        }
    }

    /// What travels now is lost.
    pub(super) fn lose_travelling(&mut self) {
        self.travelling.clear();
    }

    /// The next thing happens.
    pub(super) fn run_one(&mut self) {
        let end = self.now.plus(SECOND);
        self.step(end);
    }

    /// Until nothing travels, right after a heartbeat.
    pub(super) fn run_to_quiet(&mut self) {
        let end = self.now.plus(SECOND);
        while self.travelling.is_empty() {
            self.step(end);
        }
        while !self.travelling.is_empty() {
            self.step(end);
        }
    }

    /// The next thing that happens, unless that is after `end`.
    fn step(&mut self, end: Time) -> bool {
        let arrival = self.travelling.peek().map(|Reverse((at, ..))| *at);
        let due = |node: usize| self.engines[node].deadline().max(self.now.plus(1));
        let first = (0..self.engines.len()).map(|node| (due(node), node)).min();
        let (due, node) = first.expect("a cluster has nodes");
        match arrival.filter(|at| *at <= due) {
            Some(at) if at <= end => {
                self.now = self.now.max(at);
                let Some(Reverse((_, _, to, mut bytes))) = self.travelling.pop() else {
                    return true;
                };
                self.engines[to].datagram(&mut bytes, self.now);
                self.flush(to);
            }
            None if due <= end => {
                self.now = due;
                self.engines[node].tick(self.now);
                self.flush(node);
            }
            _ => {
                self.now = end;
                return false;
            }
        }
        true
    }

    fn flush(&mut self, node: usize) {
        let mut output = std::mem::take(&mut self.outputs);
        self.engines[node].flush(&mut output, self.now);
        for (to, bytes) in &output.datagrams {
            self.left += 1;
            self.bytes += bytes.len() as u64;
            self.bytes_of[node] += bytes.len() as u64;
            let to = self.addresses.iter().position(|address| address == to).expect("known");
            if !self.isolated.contains(&node) && !self.isolated.contains(&to) {
                self.travel(to, bytes);
            }
        }
        self.engines[node].recycle(&mut output.datagrams);
        output.notes.clear();
        self.take_answers(&mut output);
        self.outputs = output;
    }

    fn take_answers(&mut self, output: &mut Output<u64>) {
        for (ticket, answer) in output.answers.drain(..) {
            self.times.entry(ticket).and_modify(|times| times.1 = self.now.0);
            let before = self.answers.insert(ticket, answer);
            assert!(before.is_none(), "request {ticket} was answered twice");
        }
    }

    fn travel(&mut self, to: usize, bytes: &[u8]) {
        let percent = self.faults_percent;
        let mut chance = || self.rng.between(0, 99) < percent;
        if chance() {
            return;
        }
        let copies = if chance() { 2 } else { 1 };
        let damaged = chance() && self.rng.between(0, 3) == 0;
        for _ in 0..copies {
            let late = if self.rng.between(0, 99) < percent { 20 * MILLISECOND } else { 0 };
            let vary = self.rng.between(0, self.jitter) + self.rng.between(0, late);
            let at = self.now.plus(self.trip + vary);
            let mut bytes = bytes.to_vec();
            if damaged {
                let place = self.rng.between(0, bytes.len() as u64 - 1) as usize;
                bytes[place] ^= 1 << self.rng.between(0, 7);
            }
            self.travelling.push(Reverse((at, self.left, to, bytes)));
        }
    }
}

fn value_of(operation: &[u8], json: &std::ops::Range<usize>) -> String {
    String::from_utf8(operation[json.clone()].to_vec()).expect("JSON")
}
