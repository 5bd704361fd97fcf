//! Five nodes in their namespaces, their ten clients, and what must hold of both.

use std::fs;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::history::{self, Ending, History, us};
use crate::net::{self, MTU, NODES, Network, Weather};
use crate::nodes::{Node, Stand};
use crate::program::program;

/// All nodes.
pub const ALL: Range<usize> = 0..NODES;
/// What is promised: so long after a fault is healed all voters serve their clients again.
pub const HEALING: Duration = Duration::from_secs(2);
/// So long after a fault the side with a majority serves: the longest election timeout is
/// 300 ms, and an election may fail once or twice.
pub const ELECTION: Duration = Duration::from_secs(2);

/// Requests by whether they write.
const KINDS: [(bool, &str); 2] = [(true, "a write"), (false, "a read")];

/// The cluster. Nothing of it is left when it is dropped.
pub struct Cluster {
    nodes: Vec<Option<Node>>,
    pub history: Arc<History>,
    network: Network,
    /// What was measured, to be shown at the end.
    measured: Vec<String>,
    _turn: MutexGuard<'static, ()>,
}

/// One cluster at a time: what is measured should be the cluster's and not the machine's.
pub fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cluster {
    /// The same as `new` with logs on the disk, in the network's own folder.
    pub fn durable(mut keys: Value) -> Option<Cluster> {
        keys["data_dir"] = json!("data");
        Cluster::new(keys)
    }

    /// A cluster that serves, with these keys in its file; or none, with a message that
    /// says why there can be none here.
    pub fn new(keys: Value) -> Option<Cluster> {
        let turn = turn();
        let network = match Network::new() {
            Ok(network) => network,
            Err(why) => {
                crate::skipped::skipped(&why);
                return None;
            }
        };
        program(); // building it, where that is to be done, is nobody's election
        let mut file = keys;
        file["nodes"] = ALL
            .map(|number| {
                let place = json!({"ip": net::address(number), "port": 5565});
                (format!("node{number}"), place)
            })
            .collect();
        let path = network.dir().join("cluster.json");
        fs::write(path, file.to_string()).expect("the file can be written");
        let mut cluster = Cluster {
            nodes: ALL.map(|_| None).collect(),
            history: Arc::new(History::new()),
            network,
            measured: Vec::new(),
            _turn: turn,
        };
        for number in ALL {
            cluster.start(number);
        }
        cluster.served("the first election", 0, ALL, Duration::from_secs(10));
        Some(cluster)
    }

    /// Starts a node, for the first time or again.
    pub fn start(&mut self, number: usize) {
        assert!(self.nodes[number].is_none(), "node{number} runs");
        let file = self.network.dir().join("cluster.json");
        let file = file.to_str().expect("a path that is text");
        let node = Node::start(&self.network, number, file, &self.history);
        self.nodes[number] = Some(node);
    }

    /// Kills a node as nothing else does: it has no chance to do anything about it.
    pub fn kill(&mut self, number: usize) -> u64 {
        let node = self.nodes[number].take().expect("it runs");
        node.signal("KILL");
        let killed_at = self.history.now();
        drop(node);
        killed_at
    }

    pub fn node(&self, number: usize) -> &Node {
        self.nodes[number].as_ref().expect("it runs")
    }

    /// The process ids of the nodes that run.
    pub fn pids(&self) -> Vec<u32> {
        self.nodes.iter().flatten().map(Node::pid).collect()
    }

    /// What of its network is there.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// From the moment that this returns, this weather holds.
    pub fn set(&self, weather: &Weather) -> u64 {
        self.network.set(weather);
        self.history.now()
    }

    /// The newest term of which any node spoke.
    pub fn term(&self) -> u64 {
        let stands = self.nodes.iter().flatten().map(Node::stand);
        stands.map(|stand| stand.term).max().unwrap_or(0)
    }

    /// The leader by its own word, once nobody knows of a newer one; then the others.
    pub fn roles(&self) -> (usize, [usize; 4]) {
        let leader = || {
            let says = |node: &Node| -> Option<Stand> {
                let stand = node.stand();
                (stand.leader.as_ref() == Some(&node.name)).then_some(stand)
            };
            let newest = self.term();
            ALL.into_iter().find(|&number| {
                let stand = self.nodes[number].as_ref().and_then(says);
                stand.is_some_and(|stand| stand.term == newest)
            })
        };
        let leader = self.until_some("a leader", Duration::from_secs(10), leader);
        let others: Vec<usize> = ALL.filter(|&node| node != leader).collect();
        (leader, others.try_into().expect("four others"))
    }

    /// Waits until each of these nodes has done a write and a read that were asked at
    /// `since` or later; how long the last of them took, which is not longer than `within`.
    pub fn served(
        &self,
        what: &str,
        since: u64,
        nodes: impl IntoIterator<Item = usize>,
        within: Duration,
    ) -> Duration {
        let mut longest = Duration::ZERO;
        for number in nodes {
            for (write, kind) in KINDS {
                let awaited = format!("{kind} at node{number}, {what}");
                let from = us(self.history.now() - since);
                let left = within.saturating_sub(from);
                let look = || self.history.first_done(number, write, since);
                let done = self.until_some(&awaited, left, look);
                let took = us(done - since);
                assert!(took <= within, "{awaited} took {took:?}\n{}", self.story());
                longest = longest.max(took);
            }
        }
        longest
    }

    /// Waits until any so many nodes have done what `served` asks of those that it names.
    pub fn served_any(&self, what: &str, since: u64, count: usize, within: Duration) -> Duration {
        let done = |number| {
            let [write, read] = KINDS.map(|(kind, _)| self.history.first_done(number, kind, since));
            Some(us(write?.max(read?) - since))
        };
        let look = || {
            let mut took: Vec<Duration> = ALL.filter_map(done).collect();
            took.sort();
            took.get(count - 1).copied()
        };
        self.until_some(&format!("{count} nodes that serve, {what}"), within, look)
    }

    /// Has a node's writer write a value of so many bytes; how long that took.
    pub fn write_long(&self, number: usize, bytes: usize, within: Duration) -> Duration {
        let since = self.history.now();
        self.node(number).write_long(bytes);
        let look = || {
            let asked = self.history.since(number, true, since);
            let long = asked.into_iter().find(|request| request.long > 0)?;
            match long.ending {
                Ending::Done { at, .. } => Some(us(at - long.called)),
                Ending::Open => None,
                other => panic!("{bytes} bytes at node{number} ended as {other:?}"),
            }
        };
        self.until_some(&format!("{bytes} bytes at node{number}"), within, look)
    }

    /// Waits until a client of each kind has asked each of these nodes at `since` or later
    /// and has its answer: that it was not done, or perhaps not. If one is done, says which.
    pub fn in_vain(
        &self,
        since: u64,
        nodes: impl IntoIterator<Item = usize>,
    ) -> Result<(), String> {
        for number in nodes {
            for (write, kind) in KINDS {
                let ended = || {
                    let asked = self.history.since(number, write, since);
                    asked.into_iter().map(|request| request.ending).find(|&end| end != Ending::Open)
                };
                let awaited = format!("the end of {kind} at node{number}");
                self.until_some(&awaited, Duration::from_secs(10), ended);
                self.none_done(since, [number])?;
            }
        }
        Ok(())
    }

    /// Nothing that was asked of these nodes at `since` or later is done, or what is.
    pub fn none_done(
        &self,
        since: u64,
        nodes: impl IntoIterator<Item = usize>,
    ) -> Result<(), String> {
        for number in nodes {
            for (write, kind) in KINDS {
                if self.history.first_done(number, write, since).is_some() {
                    return Err(format!("{kind} at node{number} was done\n{}", self.story()));
                }
            }
        }
        Ok(())
    }

    /// Waits until a node that came back without its memory says that it votes.
    pub fn votes_again(&self, what: &str, number: usize) {
        let look = || self.node(number).votes_again().then_some(());
        self.until_some(&format!("the vote of node{number}, {what}"), HEALING, look);
    }

    /// Lets so much time pass since then: what is tested is that it does.
    pub fn wait(&self, since: u64, time: Duration) {
        thread::sleep(time.saturating_sub(us(self.history.now() - since)));
    }

    /// Heals the network; all nodes serve again as soon as is promised. How long it took.
    pub fn heal(&self, what: &str) -> Duration {
        let since = self.set(&Weather::calm());
        self.served(&format!("{what}, healed"), since, ALL, HEALING)
    }

    /// Notes for the end how long it took to serve again after a fault, and its healing.
    pub fn measure(&mut self, what: &str, fault: Duration, healed: Duration) {
        let [fault, healed] = [fault, healed].map(|time| time.as_millis());
        let took = format!("served after {fault:>4} ms, healed after {healed:>4} ms");
        self.note(&format!("{what:<54} {took}"));
    }

    /// Notes something for the end.
    pub fn note(&mut self, what: &str) {
        let now = us(self.history.now()).as_secs_f32();
        self.measured.push(format!("{now:>5.1} s  {what}"));
    }

    /// The end: every request is answered, every node ends by itself and in good order,
    /// what was seen had one order, and no datagram was longer than the network's.
    pub fn finish(mut self, what: &str) {
        self.nodes.iter().flatten().for_each(Node::hush);
        // Before any node ends: the last requests may need all of them.
        let look = || self.nodes.iter().flatten().all(Node::is_hushed).then_some(());
        self.until_some("the last answers", HEALING, look);
        ALL.for_each(|number| self.check_counts(number));
        for node in self.nodes.iter_mut() {
            node.take().into_iter().for_each(Node::end);
        }
        let requests = self.history.all();
        let seconds = us(self.history.now()).as_secs_f32();
        let ended = |ending| requests.iter().filter(|request| request.ending == ending).count();
        let (count, refused, unknown) =
            (requests.len(), ended(Ending::Refused), ended(Ending::Unknown) + ended(Ending::Open));
        println!("{what}: {count} requests in {seconds:.1} s, of which {refused} were refused");
        println!("  and the outcome of {unknown} is unknown");
        println!("  {}", self.measured.join("\n  "));
        let began = Instant::now();
        if let Err(report) = history::check(&requests) {
            panic!("{report}");
        }
        println!("  one order explains it, found in {:?}", began.elapsed());
    }

    /// A system breaks a datagram that its network cannot carry into fragments, or drops
    /// it, and counts either.
    fn check_counts(&self, number: usize) {
        let counts = self.network.counts(number);
        for name in ["Ip FragCreates", "Ip FragFails", "Ip ReasmReqds", "Udp SndbufErrors"] {
            assert_eq!(counts[name], 0, "{name} of node{number}, at an MTU of {MTU}");
        }
        assert!(counts["Udp OutDatagrams"] > 0, "node{number} sent nothing over its network");
    }

    /// How many datagrams a node has sent.
    pub fn sent(&self, number: usize) -> u64 {
        self.network.counts(number)["Udp OutDatagrams"]
    }

    /// Looks until there is something; says what was awaited if there never is.
    pub fn until_some<T>(
        &self,
        what: &str,
        within: Duration,
        mut look: impl FnMut() -> Option<T>,
    ) -> T {
        let deadline = self.history.now() + within.as_micros() as u64;
        loop {
            let is_late = self.history.now() > deadline;
            if let Some(found) = look() {
                return found;
            }
            assert!(!is_late, "no sign of {what} within {within:?}\n{}", self.story());
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// What all nodes printed last.
    pub fn story(&self) -> String {
        let now = self.history.now() / 1000;
        let stories: String = self.nodes.iter().flatten().map(Node::story).collect();
        format!("it is {now} ms now\n{stories}")
    }
}
