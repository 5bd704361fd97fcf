//! Three engines and a network that carries everything, in virtual time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};

use crate::core::lives::Neighbor;
use crate::core::rng::Rng;
use crate::core::types::{Incarnation, Index, Life, Run, Time};
use crate::core::{Core, Saved};
use crate::engine::{Engine, Host, Output, Setup};
use crate::error::RequestError;
use crate::replica::Replica;
use crate::request::{Answer, Request};
use crate::secret::Secrets;
use crate::wire::seal::Seal;

pub(super) const NODES: usize = 3;
pub(super) const MILLISECOND: u64 = 1_000;
pub(super) const SECOND: u64 = 1_000_000;
/// How long a datagram travels.
const TRIP: u64 = 100;
/// So many things happen within a second at most, or a node is running hot.
const EVENTS_A_SECOND: u64 = 20_000;

pub(super) struct Cluster {
    secrets: Option<Secrets>,
    engines: Vec<Engine<u64>>,
    output: Output<u64>,
    now: Time,
    rng: Rng,
    /// When it arrives, where, and what.
    travelling: VecDeque<(Time, usize, Vec<u8>)>,
    /// All that was ever sent, and to whom.
    tape: Vec<(usize, Vec<u8>)>,
    honest: BTreeSet<Vec<u8>>,
    counted: BTreeSet<(Vec<u8>, Vec<u8>)>,
    requests: u64,
    answers: BTreeMap<u64, Answer>,
    /// Whether a message was forged in a member's name: it may ask for a newcomer, and name the
    /// address where that is greeted.
    pub(super) forged: bool,
}

fn address(node: usize) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(10, 0, 0, 1 + node as u8), 7000))
}

impl Cluster {
    /// Three nodes that have never spoken.
    pub(super) fn new(seed: u64, sealed: bool) -> Cluster {
        let secret = "5a".repeat(31) + "00";
        let secrets = Secrets::parse([secret.as_str()]).expect("a secret");
        let mut cluster = Cluster {
            secrets: sealed.then_some(secrets),
            engines: Vec::new(),
            output: Output::default(),
            now: Time(1),
            rng: Rng::new(seed),
            travelling: VecDeque::new(),
            tape: Vec::new(),
            honest: BTreeSet::new(),
            counted: BTreeSet::new(),
            requests: 0,
            answers: BTreeMap::new(),
            forged: false,
        };
        for node in 0..NODES {
            let saved = cluster.nothing();
            let engine = cluster.engine(node, saved);
            cluster.engines.push(engine);
        }
        cluster
    }

    /// Three nodes that have a leader and have committed a value at each.
    pub(super) fn founded(seed: u64, sealed: bool) -> Cluster {
        let mut cluster = Cluster::new(seed, sealed);
        for node in 0..NODES {
            let ticket = cluster.request(node);
            let reply = cluster.answer_within(10 * SECOND, ticket);
            assert!(reply.is_ok(), "{reply:?}");
        }
        cluster
    }

    fn nothing(&mut self) -> Saved {
        Saved::empty(Incarnation(self.rng.next_nonzero()))
    }

    fn engine(&mut self, node: usize, saved: Saved) -> Engine<u64> {
        let neighbor = |node: usize| Neighbor {
            name: format!("node{node}"),
            address: address(node),
            voter: true,
        };
        let own = neighbor(node);
        let life = Life { incarnation: saved.incarnation, run: Run(self.rng.next_nonzero()) };
        let host = Host::here(Replica::new(&own.name, life, None, Vec::new()));
        let others = (0..NODES).filter(|other| *other != node).map(neighbor).collect();
        let mut setup = Setup::in_memory(own, others);
        setup.secrets = self.secrets.clone();
        Engine::new(setup, saved, life.run, self.rng.next(), host, self.now)
    }

    /// The node is stopped, and started with or without what it remembers.
    pub(super) fn restart(&mut self, node: usize, remembers: bool) {
        let nothing = self.nothing();
        let gone = self.engine(node, nothing);
        let engine = std::mem::replace(&mut self.engines[node], gone);
        let mut output = Output::default();
        let saved = engine.stop(&RequestError::Stopped, &mut output);
        self.answers.extend(output.answers);
        if remembers {
            self.engines[node] = self.engine(node, saved);
        }
    }

    /// How one would close and open datagrams who holds the secret, if there is one, and has
    /// heard nothing yet.
    pub(super) fn seal_of(&self, own: Life) -> Seal {
        Seal::new(self.secrets.as_ref(), own)
    }

    pub(super) fn engine_of(&self, node: usize) -> &Engine<u64> {
        &self.engines[node]
    }

    pub(super) fn core(&self, node: usize) -> &Core {
        self.engines[node].core()
    }

    pub(super) fn life(&self, node: usize) -> Life {
        self.core(node).me()
    }

    /// All that was ever sent, and to whom.
    pub(super) fn tape(&self) -> &[(usize, Vec<u8>)] {
        &self.tape
    }

    /// Whether one of the nodes sent exactly this.
    pub(super) fn was_sent(&self, datagram: &[u8]) -> bool {
        self.honest.contains(datagram)
    }

    /// A request, whose value is its number; gives its ticket.
    pub(super) fn request(&mut self, node: usize) -> u64 {
        let ticket = self.requests;
        self.requests += 1;
        self.engines[node].request(ticket, Request::command(&ticket).into_kind(), self.now);
        self.flush(node);
        ticket
    }

    pub(super) fn answer_within(&mut self, micros: u64, ticket: u64) -> Answer {
        self.run_until(micros, |cluster| cluster.answers.contains_key(&ticket));
        match self.answers.get(&ticket) {
            Some(answer) => answer.clone(),
            None => panic!("request {ticket} has no answer within {micros} us"),
        }
    }

    pub(super) fn run(&mut self, micros: u64) {
        self.run_until(micros, |_| false);
    }

    fn run_until(&mut self, micros: u64, reached: impl Fn(&Cluster) -> bool) {
        let end = self.now.plus(micros);
        let most = EVENTS_A_SECOND + micros * EVENTS_A_SECOND / SECOND;
        for _ in 0..most {
            if reached(self) || !self.event(end) {
                return;
            }
        }
        panic!("more than {most} events in {micros} us: a node is running hot");
    }

    /// The next thing that happens, unless that is after `end`.
    fn event(&mut self, end: Time) -> bool {
        let due = |node: usize| self.engines[node].deadline().max(self.now.plus(1));
        let (due, node) = (0..NODES).map(|node| (due(node), node)).min().expect("three nodes");
        match self.travelling.front().map(|(at, ..)| *at).filter(|at| *at <= due) {
            Some(at) if at <= end => {
                self.now = self.now.max(at);
                if let Some((_, to, mut datagram)) = self.travelling.pop_front() {
                    self.engines[to].datagram(&mut datagram, self.now);
                    self.flush(to);
                }
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

    /// Somebody sends this to a node, which takes it at once; gives the bytes of all
    /// that the node says right away.
    pub(super) fn inject(&mut self, to: usize, datagram: &[u8]) -> usize {
        self.engines[to].datagram(&mut datagram.to_vec(), self.now);
        self.flush(to)
    }

    /// What is ready leaves; gives how many bytes that was.
    pub(super) fn flush(&mut self, node: usize) -> usize {
        let mut output = std::mem::take(&mut self.output);
        self.engines[node].flush(&mut output, self.now);
        let mut bytes = 0;
        for (to, datagram) in &output.datagrams {
            bytes += datagram.len();
            // The sender's run and its counter: what no two sealed datagrams may share.
            if self.secrets.is_some() {
                let count = (datagram[14..30].to_vec(), datagram[50..58].to_vec());
                assert!(self.counted.insert(count), "a nonce is used twice");
            }
            self.honest.insert(datagram.clone());
            // Nobody is ever spoken to but at an address of the file, or of a member's.
            let place = (0..NODES).find(|node| address(*node) == *to);
            let Some(place) = place.filter(|place| *place != node) else {
                assert!(self.forged, "node{node} speaks to {to}, where none of the others is");
                continue;
            };
            self.travelling.push_back((self.now.plus(TRIP), place, datagram.clone()));
            self.tape.push((place, datagram.clone()));
        }
        self.engines[node].recycle(&mut output.datagrams);
        output.notes.clear();
        for (ticket, answer) in output.answers.drain(..) {
            let before = self.answers.insert(ticket, answer);
            assert!(before.is_none(), "request {ticket} was answered twice");
        }
        self.output = output;
        bytes
    }

    /// What was committed is the same at all nodes, and what was answered is in it.
    pub(super) fn check_agreement(&self) {
        let commit_index = |node: usize| self.core(node).commit_index();
        for node in 1..NODES {
            let both = commit_index(0).min(commit_index(node));
            let [one, other] = [0, node].map(|node| {
                let log = self.core(node).log().from(Index(1));
                log.take_while(|(index, _)| *index <= both)
            });
            assert!(one.eq(other), "node0 and node{node} differ below {both}");
        }
        let most = (0..NODES).map(commit_index).max().expect("three nodes");
        let mut indexes = BTreeSet::new();
        for reply in self.answers.values().filter_map(|answer| answer.as_ref().ok()) {
            assert!(reply.index <= most.0, "{reply:?} is not committed");
            assert!(indexes.insert(reply.index), "two requests were committed as {reply:?}");
        }
    }

    /// So many requests were made and not answered yet.
    pub(super) fn open_requests(&self) -> usize {
        self.requests as usize - self.answers.len()
    }
}
