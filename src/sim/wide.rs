//! A cluster over a wide area: what a commit takes, and how many a round trip carries,
//! where the time is the path's and not the processor's.
//!
//! ```text
//!   engine ─► its link: one datagram after the other, at the link's rate,
//!             a bounded queue ─► lost by chance? ─► half a round trip ─► engine
//! ```
//!
//! A harness of its own over the same engine as a [`Simulation`](super::Simulation): that
//! one checks every property and keeps every commit at each turn, and here hundreds of
//! thousands are measured. Processors and memory take no time; the nodes keep nothing on
//! disks. What leaves first on a path arrives first.
//!
//! The measure is what the window allows: `k` requests outstanding can commit at most `k`
//! times in a round trip, as each takes one at least. Losses befall every datagram, of
//! whichever node, and none is told to anybody.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::json;

use crate::core::Saved;
use crate::core::lives::Neighbor;
use crate::core::types::{Incarnation, Life, Run, Time};
use crate::engine::{Engine, Host, Output, Setup};
use crate::replica::Replica;
use crate::request::Request;

use super::Chance;
use super::chance::micros;

const MS: u64 = 1_000;
const SECOND: u64 = 1_000_000;
/// A link carries so many bits a second, and holds so many bytes that wait.
const BITS_A_SECOND: u64 = 1_000_000_000;
const QUEUE_BYTES: u64 = 4 << 20;
/// How long a datagram travels, and by how much that varies, in microseconds.
const ONE_WAY: u64 = 50 * MS;
const JITTER: u64 = 200;
/// The bytes of a client's value, as JSON.
const VALUE_BYTES: usize = 64;
/// Before anything is measured.
const WARM_UP: u64 = 5 * SECOND;

/// Five voters, 100 ms round trips, 1 Gbit/s, and a client at the leader that always has
/// so many requests of 64 bytes outstanding.
///
/// ```
/// use kontiki::sim::WideArea;
/// use std::time::Duration;
///
/// let seen = WideArea::new(7).run(Duration::from_secs(5));
/// assert!(seen.latency(50) < WideArea::ROUND_TRIP + Duration::from_millis(5));
///
/// // A hundred at once, and one datagram of a hundred lost.
/// let seen = WideArea::new(7).lost(10).outstanding(100).run(Duration::from_secs(5));
/// println!("{} commits, {:.0} % of the window", seen.commits(), seen.percent_of_window());
/// assert_eq!(seen.failed, 0);
/// ```
#[derive(Clone, Debug)]
pub struct WideArea {
    seed: u64,
    lost: u32,
    outstanding: usize,
}

/// What the client saw. See [`WideArea`] for an example.
#[derive(Clone, Debug)]
pub struct Crossed {
    lasted: u64,
    outstanding: usize,
    /// In microseconds, from the shortest to the longest.
    latencies: Vec<u64>,
    /// How many requests ended without a reply.
    pub failed: u64,
    /// How many datagrams left any node.
    pub datagrams: u64,
    /// How often another node than the first leader led.
    pub elections: u64,
}

impl WideArea {
    /// A round trip, up to a fifth of a millisecond more or less: no commit is quicker.
    pub const ROUND_TRIP: Duration = Duration::from_micros(2 * ONE_WAY);

    /// A network that loses nothing, and one request at a time.
    pub fn new(seed: u64) -> WideArea {
        WideArea { seed, lost: 0, outstanding: 1 }
    }

    /// Of a thousand datagrams so many are lost.
    pub fn lost(self, lost: u32) -> WideArea {
        WideArea { lost, ..self }
    }

    /// So many requests are outstanding, always.
    pub fn outstanding(self, outstanding: usize) -> WideArea {
        WideArea { outstanding, ..self }
    }

    /// Watches for so long, in virtual time, after a warm-up.
    ///
    /// # Panics
    ///
    /// If no leader is found.
    pub fn run(self, lasts: Duration) -> Crossed {
        let mut area = Area::new(self.seed);
        let leader = area.found();
        area.lost = self.lost;
        for _ in 0..self.outstanding {
            area.ask(leader);
        }
        area.flush(leader);
        area.run_until(area.now + WARM_UP);
        area.latencies.clear();
        (area.failed, area.datagrams) = (0, 0);
        area.run_until(area.now + micros(lasts));
        let mut latencies = area.latencies;
        latencies.sort_unstable();
        Crossed {
            lasted: micros(lasts),
            outstanding: self.outstanding,
            latencies,
            failed: area.failed,
            datagrams: area.datagrams,
            elections: area.engines[leader].core().term().0 - area.founded_in,
        }
    }
}

impl Crossed {
    /// How many commits the client saw.
    pub fn commits(&self) -> usize {
        self.latencies.len()
    }

    /// So many of a hundred commits took no longer; zero if there were none.
    pub fn latency(&self, percent: usize) -> Duration {
        let place = (self.latencies.len() * percent / 100).min(self.latencies.len().max(1) - 1);
        Duration::from_micros(self.latencies.get(place).copied().unwrap_or(0))
    }

    /// The commits in percent of what is outstanding, each round trip.
    pub fn percent_of_window(&self) -> f64 {
        let round_trips = self.lasted as f64 / (2 * ONE_WAY) as f64;
        100.0 * self.commits() as f64 / round_trips / self.outstanding as f64
    }
}

/// When a datagram arrives, which it was to leave, where it goes, and what it says.
type Travelling = (u64, u64, usize, Vec<u8>);

/// The engines, and all that is under way between them.
struct Area {
    engines: Vec<Engine<u64>>,
    output: Output<u64>,
    now: u64,
    chance: Chance,
    lost: u32,
    /// When each node's link is free again.
    free_at: Vec<u64>,
    /// When the last datagram of each path arrives.
    last_at: BTreeMap<(usize, usize), u64>,
    travelling: BinaryHeap<Reverse<Travelling>>,
    datagrams: u64,
    left: u64,
    founded_in: u64,
    asked: u64,
    open: BTreeMap<u64, u64>,
    latencies: Vec<u64>,
    failed: u64,
}

const NODES: usize = 5;

fn neighbor(node: usize) -> Neighbor {
    let address = SocketAddr::from((Ipv4Addr::new(10, 0, 0, 1 + node as u8), 7000));
    Neighbor { name: format!("node{node}"), address, voter: true }
}

impl Area {
    fn new(seed: u64) -> Area {
        let mut chance = Chance::new(seed);
        let engines = (0..NODES).map(|node| engine(node, &mut chance)).collect();
        Area {
            engines,
            output: Output::default(),
            now: 1,
            chance,
            lost: 0,
            free_at: vec![0; NODES],
            last_at: BTreeMap::new(),
            travelling: BinaryHeap::new(),
            datagrams: 0,
            left: 0,
            founded_in: 0,
            asked: 0,
            open: BTreeMap::new(),
            latencies: Vec::new(),
            failed: 0,
        }
    }

    /// The first leader, when it has committed something of its own.
    fn found(&mut self) -> usize {
        let leads = |engine: &Engine<u64>| engine.core().leads() && engine.applied().0 > 1;
        for _ in 0..60 {
            self.run_until(self.now + SECOND);
            if let Some(leader) = self.engines.iter().position(leads) {
                self.founded_in = self.engines[leader].core().term().0;
                return leader;
            }
        }
        panic!("no leader after {} s", self.now / SECOND);
    }

    fn ask(&mut self, node: usize) {
        self.asked += 1;
        let head = format!("{:010}", self.asked);
        let value = json!(format!("{head:x<width$}", width = VALUE_BYTES - 2));
        self.open.insert(self.asked, self.now);
        let kind = Request::from(&value).into_kind();
        self.engines[node].request(self.asked, kind, Time(self.now));
    }

    fn run_until(&mut self, end: u64) {
        loop {
            let arrival = self.travelling.peek().map_or(u64::MAX, |Reverse((at, ..))| *at);
            let due = |node: usize| self.engines[node].deadline().0.max(self.now + 1);
            let (due, node) = (0..NODES).map(|node| (due(node), node)).min().unwrap_or_default();
            if arrival.min(due) > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(arrival.min(due));
            if arrival <= due {
                let Some(Reverse((_, _, to, mut bytes))) = self.travelling.pop() else { return };
                self.engines[to].datagram(&mut bytes, Time(self.now));
                self.flush(to);
            } else {
                self.engines[node].tick(Time(self.now));
                self.flush(node);
            }
        }
    }

    /// What is ready leaves; for each answer the client asks anew.
    fn flush(&mut self, node: usize) {
        let mut output = std::mem::take(&mut self.output);
        let mut answers = true;
        while answers {
            self.engines[node].flush(&mut output, Time(self.now));
            for (address, bytes) in &output.datagrams {
                let to = (0..NODES).find(|other| neighbor(*other).address == *address);
                self.leave((node, to.unwrap_or(node)), bytes);
            }
            self.engines[node].recycle(&mut output.datagrams);
            output.notes.clear();
            answers = !output.answers.is_empty();
            for (ticket, answer) in output.answers.drain(..) {
                let asked = self.open.remove(&ticket).unwrap_or(self.now);
                match answer {
                    Ok(_) => self.latencies.push(self.now - asked),
                    Err(_) => self.failed += 1,
                }
                self.ask(node);
            }
        }
        self.output = output;
    }

    /// A datagram waits for its node's link, and travels.
    fn leave(&mut self, path: (usize, usize), bytes: &[u8]) {
        self.datagrams += 1;
        self.left += 1;
        let nanos = 1_000 * self.now;
        let free_at = &mut self.free_at[path.0];
        let waiting_bytes = free_at.saturating_sub(nanos) * BITS_A_SECOND / 8 / 1_000_000_000;
        if waiting_bytes + bytes.len() as u64 > QUEUE_BYTES {
            return;
        }
        *free_at = nanos.max(*free_at) + bytes.len() as u64 * 8 * 1_000_000_000 / BITS_A_SECOND;
        let gone_at = *free_at / 1_000;
        if self.chance.permille(self.lost) {
            return;
        }
        let last_at = self.last_at.entry(path).or_default();
        *last_at = (*last_at).max(gone_at + ONE_WAY + self.chance.between(0, JITTER) - JITTER / 2);
        self.travelling.push(Reverse((*last_at, self.left, path.1, bytes.to_vec())));
    }
}

/// A node whose times are those that such a path asks for.
fn engine(node: usize, chance: &mut Chance) -> Engine<u64> {
    let saved = Saved::empty(Incarnation(chance.nonzero()));
    let life = Life { incarnation: saved.incarnation, run: Run(chance.nonzero()) };
    let own = neighbor(node);
    let replica = Replica::new(&own.name, life, None, Vec::new());
    let others = (0..NODES).filter(|other| *other != node).map(neighbor).collect();
    let mut setup = Setup::in_memory(own, others);
    setup.core.heartbeat = 150 * MS;
    setup.core.failure_timeout = Some(SECOND);
    setup.core.election_timeout = (SECOND, 2 * SECOND);
    Engine::new(setup, saved, life.run, chance.number(), Host::here(replica), Time(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LASTS: Duration = Duration::from_secs(10);

    fn seen(lost: u32, outstanding: usize) -> Crossed {
        let seen = WideArea::new(1).lost(lost).outstanding(outstanding).run(LASTS);
        assert_eq!((seen.failed, seen.elections), (0, 0), "{lost} of 1,000 lost");
        seen
    }

    /// A round trip and 5 %, nearly always.
    #[test]
    fn one_commit_takes_a_round_trip() {
        let seen = seen(0, 1);
        let most = WideArea::ROUND_TRIP * 105 / 100;
        assert!(seen.latency(99) <= most, "{:?} of {most:?}", seen.latency(99));
    }

    /// What is lost is sent again, and little waits for it.
    #[test]
    fn many_commits_a_round_trip_go_on_when_datagrams_are_lost() {
        let lossless = seen(0, 1024).percent_of_window();
        assert!(lossless >= 70.0, "{lossless} % of the outstanding a round trip");
        for (lost, least) in [(10, 75.0), (100, 30.0)] {
            let percent = 100.0 * seen(lost, 1024).percent_of_window() / lossless;
            assert!(percent >= least, "{lost} of 1,000 lost: {percent} % of what no loss gives");
        }
    }
}
