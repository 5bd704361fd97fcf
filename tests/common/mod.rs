//! What the tests over real sockets share: addresses that nobody else has, waiting
//! that says what it waits for, whole clusters, and a relay with bad weather.

// Each test file uses its own part of this.
#![allow(dead_code)]

pub mod chance;
pub mod folder;
pub mod forge;
pub mod load;
pub mod machine;
pub mod narration;
pub mod relay;
pub mod single;
pub mod skipped;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use kontiki::{Committed, Config, Error, Pending, RaftNode, Reply, Request, RequestError, Role};
use serde_json::{Value, json};

use self::folder::Folder;
use self::relay::Relay;

/// How long anything may take before a test gives up: far more than it needs,
/// for machines that do much else.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// A loopback address that no other test has: processes differ in the address,
/// tests of one process in the port, which lies below those that systems give
/// out by themselves.
pub fn address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let place = NEXT.fetch_add(1, Ordering::Relaxed);
    let pid = std::process::id();
    if cfg!(target_os = "linux") {
        let [_, a, b, c] = pid.to_be_bytes();
        let ip = Ipv4Addr::new(127, 64 | (a & 0x3f), b, c);
        return SocketAddr::from((ip, 10_000 + place));
    }
    // Only 127.0.0.1 is there: each process has 200 of its ports.
    let first = 10_000 + (pid % 100) as u16 * 200;
    SocketAddr::from((Ipv4Addr::LOCALHOST, first + place))
}

/// An address of this machine that is no loopback address, if it has one: between
/// such nodes datagrams are as short as a network wants them.
pub fn outer_address() -> Option<SocketAddr> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let probe = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // Nothing is sent: the system only says by which address it would be.
    probe.connect((Ipv4Addr::new(198, 51, 100, 1), 9)).ok()?;
    let ip = probe.local_addr().ok()?.ip();
    let first = 12_000 + (std::process::id() % 200) as u16 * 100;
    let address = SocketAddr::new(ip, first + NEXT.fetch_add(1, Ordering::Relaxed));
    (!ip.is_loopback() && !ip.is_unspecified()).then_some(address)
}

/// How much memory this process holds, where the system says so.
pub fn resident_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? / 1024)
}

/// Polls until there is something, and says what was awaited if there never is.
#[track_caller]
pub fn until_some<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "no sign of {what} within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Polls until it is so.
#[track_caller]
pub fn until(what: &str, mut look: impl FnMut() -> bool) {
    until_some(what, || look().then_some(()));
}

/// Waits for an answer, and says what was asked if it never comes.
#[track_caller]
pub fn answer(what: &str, pending: &mut Pending) -> Result<Reply, RequestError> {
    match pending.wait_timeout(PATIENCE) {
        Ok(Some(reply)) => Ok(reply),
        Ok(None) => panic!("no answer to {what} within {PATIENCE:?}"),
        Err(error) => Err(error),
    }
}

/// Asks and waits for the reply.
#[track_caller]
pub fn ask(node: &RaftNode, request: impl Into<Request>) -> Reply {
    let request = request.into();
    let what = format!("{request:?}");
    let mut pending = match node.client_request(request) {
        Ok(pending) => pending,
        Err(error) => panic!("{what} was not taken: {error}"),
    };
    match answer(&what, &mut pending) {
        Ok(reply) => reply,
        Err(error) => panic!("{what} was answered with: {error}"),
    }
}

/// Asks and waits for the error, at once or later.
#[track_caller]
pub fn refusal(node: &RaftNode, request: impl Into<Request>) -> RequestError {
    let request = request.into();
    let what = format!("{request:?}");
    match node.client_request(request) {
        Err(error) => error,
        Ok(mut pending) => match answer(&what, &mut pending) {
            Err(error) => error,
            Ok(reply) => panic!("{what} was answered with {reply:?}"),
        },
    }
}

/// What a cluster is made of.
pub struct Plan {
    prefix: String,
    voters: usize,
    learners: usize,
    keys: Value,
    durable: bool,
    weather: Option<u64>,
    at: Option<Vec<SocketAddr>>,
    dress: Box<dyn Fn(Config) -> Config>,
}

impl Plan {
    /// So many voters and nothing else.
    pub fn voters(voters: usize) -> Plan {
        Plan {
            prefix: "node".to_string(),
            voters,
            learners: 0,
            keys: json!({}),
            durable: false,
            weather: None,
            at: None,
            dress: Box::new(|config| config),
        }
    }

    /// And so many learners, whose names come after those of the voters.
    pub fn learners(mut self, learners: usize) -> Plan {
        self.learners = learners;
        self
    }

    /// With names that begin so.
    pub fn named(mut self, prefix: &str) -> Plan {
        self.prefix = prefix.to_string();
        self
    }

    /// With these keys of the file.
    pub fn keys(mut self, keys: Value) -> Plan {
        self.keys = keys;
        self
    }

    /// With logs on the disk, in a folder that goes with the cluster.
    pub fn durable(self) -> Plan {
        self.durable_if(true)
    }

    /// With logs on the disk, or in memory.
    pub fn durable_if(mut self, durable: bool) -> Plan {
        self.durable = durable;
        self
    }

    /// With a relay between the nodes, whose chance comes of this seed.
    pub fn relay(mut self, seed: u64) -> Plan {
        self.weather = Some(seed);
        self
    }

    /// At these addresses, not at some of loopback.
    pub fn at(mut self, addresses: Vec<SocketAddr>) -> Plan {
        self.at = Some(addresses);
        self
    }

    /// With what only a program can give.
    pub fn dress(mut self, dress: impl Fn(Config) -> Config + 'static) -> Plan {
        self.dress = Box::new(dress);
        self
    }

    /// The nodes, made and not started.
    pub fn make(mut self) -> Cluster {
        let count = self.voters + self.learners;
        let names: Vec<String> = (0..count).map(|n| format!("{}{n}", self.prefix)).collect();
        let anywhere = || (0..count).map(|_| address()).collect();
        let addresses = self.at.take().unwrap_or_else(anywhere);
        let relay = self.weather.map(|seed| Relay::new(addresses.clone(), seed));
        let folder = self.durable.then(Folder::new);
        if let Some(folder) = &folder {
            self.keys["data_dir"] = json!(folder.path());
        }
        // With a relay the file has its addresses, and the nodes listen behind it.
        let node = |place: usize| {
            let address = relay.as_ref().map_or(addresses[place], |relay| relay.entrance(place));
            let role = if place < self.voters { "voter" } else { "learner" };
            json!({"ip": address.ip().to_string(), "port": address.port(), "role": role})
        };
        let nodes: BTreeMap<&String, Value> =
            (0..count).map(|place| (&names[place], node(place))).collect();
        let config = Config::try_from(json!({ "nodes": nodes })).expect("the nodes are sound");
        let mut config = (self.dress)(config.with(self.keys.clone()).expect("the keys are sound"));
        for (name, address) in names.iter().zip(&addresses).filter(|_| relay.is_some()) {
            config = config.listen_at(name, *address);
        }
        let configs = vec![config; count];
        let nodes = Vec::new();
        let mut cluster = Cluster { relay, names, addresses, configs, nodes, folder };
        for place in 0..count {
            let node = cluster.new_node(place);
            cluster.nodes.push(Some(node));
        }
        cluster
    }

    /// The nodes, made and started.
    pub fn start(self) -> Cluster {
        let cluster = self.make();
        for node in cluster.all() {
            node.start().expect("the node starts");
        }
        cluster
    }
}

/// Some nodes in this process.
pub struct Cluster {
    /// What stands between the nodes, if anything does.
    pub relay: Option<Relay>,
    /// In order.
    pub names: Vec<String>,
    /// Where the nodes really are.
    pub addresses: Vec<SocketAddr>,
    /// The config of each node.
    pub configs: Vec<Config>,
    nodes: Vec<Option<RaftNode>>,
    /// Of durable nodes. Behind them, so that it is there for as long as they are.
    folder: Option<Folder>,
}

impl Cluster {
    /// The folder in which a durable node keeps its files.
    #[track_caller]
    pub fn folder(&self, place: usize) -> PathBuf {
        let folder = self.folder.as_ref().expect("the cluster is durable");
        folder.path().join(&self.names[place])
    }

    /// A node made, or why it cannot be.
    pub fn try_new(&self, place: usize) -> Result<RaftNode, Error> {
        RaftNode::new(&self.configs[place], &self.names[place])
    }

    fn new_node(&self, place: usize) -> RaftNode {
        let made = self.try_new(place);
        made.unwrap_or_else(|error| panic!("{} could not be made: {error}", self.names[place]))
    }

    /// One more node, started: its file names it beside all that were there before, and
    /// nobody's file names it. Where it is. Not for clusters with a relay.
    pub fn newcomer(&mut self) -> usize {
        assert!(self.relay.is_none(), "a relay knows its nodes from the start");
        let (place, first) = (self.count(), &self.names[0]);
        let name = format!("{}{place}", first.trim_end_matches(char::is_numeric));
        self.names.push(name);
        self.addresses.push(address());
        let node =
            |address: &SocketAddr| json!({"ip": address.ip().to_string(), "port": address.port()});
        let nodes: BTreeMap<&String, Value> =
            self.names.iter().zip(self.addresses.iter().map(node)).collect();
        let config = self.configs[0].clone().with(json!({ "nodes": nodes }));
        self.configs.push(config.expect("the nodes are sound"));
        self.nodes.push(None);
        self.renew(place);
        place
    }

    /// By which address the others know this node.
    pub fn known_at(&self, place: usize) -> SocketAddr {
        self.relay.as_ref().map_or(self.addresses[place], |relay| relay.entrance(place))
    }

    /// The request that makes this node a voter.
    pub fn adding(&self, place: usize) -> Request {
        Request::add_member(&self.names[place], self.known_at(place))
    }

    /// One more voter, asked for at a node that is there.
    #[track_caller]
    pub fn grow(&mut self, through: usize) -> usize {
        let place = self.newcomer();
        ask(self.node(through), self.adding(place));
        place
    }

    /// Whether the node was not dropped.
    pub fn is_there(&self, place: usize) -> bool {
        self.nodes[place].is_some()
    }

    /// How many nodes there are, dropped ones included.
    pub fn count(&self) -> usize {
        self.names.len()
    }

    /// One node, which was not dropped.
    #[track_caller]
    pub fn node(&self, place: usize) -> &RaftNode {
        self.nodes[place].as_ref().expect("the node was not dropped")
    }

    /// All that were not dropped.
    pub fn all(&self) -> impl Iterator<Item = &RaftNode> {
        self.nodes.iter().flatten()
    }

    /// The relay.
    #[track_caller]
    pub fn relay(&self) -> &Relay {
        self.relay.as_ref().expect("the cluster has a relay")
    }

    /// The node is gone, and its memory with it; a durable one's folder stays.
    pub fn lose(&mut self, place: usize) {
        self.nodes[place] = None;
    }

    /// Another node under the name of one that is gone, started.
    pub fn renew(&mut self, place: usize) {
        let node = self.new_node(place);
        node.start().expect("the node starts");
        self.nodes[place] = Some(node);
    }

    /// What a node knows.
    #[track_caller]
    pub fn knows(&self, place: usize) -> Committed {
        self.node(place).check_committed_entry()
    }

    /// Which of these nodes leads now, by its own word and in the newest term.
    pub fn leader_among(&self, places: impl IntoIterator<Item = usize>) -> Option<usize> {
        places
            .into_iter()
            .filter(|&place| self.nodes[place].is_some())
            .map(|place| (place, self.knows(place)))
            .filter(|(_, known)| known.role == Role::Leader)
            .max_by_key(|(_, known)| known.term)
            .map(|(place, _)| place)
    }

    /// Waits for one of these nodes to lead.
    #[track_caller]
    pub fn wait_leader_among(&self, places: impl IntoIterator<Item = usize> + Clone) -> usize {
        until_some("a leader", || self.leader_among(places.clone()))
    }

    /// Waits for a leader.
    #[track_caller]
    pub fn wait_leader(&self) -> usize {
        self.wait_leader_among(0..self.count())
    }

    /// Waits for these nodes to show an entry at this index, or behind it.
    #[track_caller]
    pub fn wait_entry(&self, places: impl IntoIterator<Item = usize>, index: u64) {
        for place in places {
            until(&format!("entry {index} on {}", self.names[place]), || {
                self.knows(place).entry.is_some_and(|entry| entry.index >= index)
            });
        }
    }

    /// Waits for a node to vote, as it has it committed: from then on another may be lost.
    #[track_caller]
    pub fn wait_voter(&self, place: usize) {
        until(&format!("{} as a voter", self.names[place]), || self.knows(place).is_voter());
    }

    /// Commits one value through a node, and waits for all started nodes to have it.
    #[track_caller]
    pub fn commit_everywhere(&self, through: usize, value: Value) -> u64 {
        let index = ask(self.node(through), value).index;
        let started = |&place: &usize| {
            self.nodes[place]
                .as_ref()
                .is_some_and(|node| node.check_committed_entry().role != Role::Stopped)
        };
        self.wait_entry((0..self.count()).filter(started), index);
        index
    }

    /// The names of the voters, as this node has them.
    pub fn voters(&self, at: usize) -> Vec<String> {
        let members = self.knows(at).members.into_iter();
        members.filter(|member| member.voter).map(|member| member.name).collect()
    }

    /// How often the members that one node knows name another as a voter, and how
    /// often as a learner.
    pub fn standing(&self, at: usize, of: usize) -> (usize, usize) {
        let members = self.knows(at).members;
        let of = members.iter().filter(|member| member.name == self.names[of]);
        let voters = of.clone().filter(|member| member.voter).count();
        (voters, of.count() - voters)
    }
}

/// Milliseconds, for short.
pub fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Threads of this process whose names begin so, with the processor time that
/// each has used. The system cuts names to 15 bytes. None where the system does not
/// tell.
pub fn threads(prefix: &str) -> Vec<(String, Duration)> {
    let mut found = Vec::new();
    for task in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        // A thread may end while it is looked at.
        let Ok(name) = std::fs::read_to_string(task.path().join("comm")) else { continue };
        let Ok(stat) = std::fs::read_to_string(task.path().join("schedstat")) else { continue };
        let name = name.trim_end_matches('\n');
        let used = stat.split_whitespace().next().and_then(|used| used.parse().ok());
        if name.starts_with(prefix) {
            found.push((name.to_string(), Duration::from_nanos(used.unwrap_or(0))));
        }
    }
    found
}
