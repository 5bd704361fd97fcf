//! The five nodes, and what the page may have done to them.

use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use kontiki::{Committed, Config, Entry, Event, Pending, RaftNode};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::network::{Flight, Network};

const COUNT: usize = 5;
/// So many requests may be outstanding.
const REQUESTS: usize = 200;
/// So many entries may wait for the next frame; a node that starts again tells all of its own.
const ENTRIES: usize = 65_536;

/// How much slower everything is than the library's own pace.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub slow: u32,
}

impl Pace {
    /// How long a datagram is on its way.
    pub fn delay(self) -> Duration {
        Duration::from_millis(5) * self.slow
    }

    /// From and up to how long a node waits for its leader.
    pub fn election_ms(self) -> [u32; 2] {
        [150 * self.slow, 300 * self.slow]
    }

    fn keys(self) -> Value {
        json!({
            "heartbeat_ms": 30 * self.slow,
            "election_timeout_ms": self.election_ms(),
            "failure_timeout_ms": 200 * self.slow,
            "request_timeout_ms": 10_000 * self.slow,
        })
    }
}

/// What the nodes and the network tell.
pub struct Told {
    pub events: Receiver<Event>,
    /// Each entry that a node learnt to be committed, with the node's name.
    pub entries: Receiver<(String, Entry)>,
    pub flights: Receiver<Flight>,
}

/// What a person asks for.
#[derive(Debug, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Order {
    Start {
        node: usize,
    },
    Stop {
        node: usize,
    },
    /// The node comes back as one that has lost its memory.
    Forget {
        node: usize,
    },
    Cut {
        node: usize,
        other: usize,
    },
    Mend {
        node: usize,
        other: usize,
    },
    /// All links of a node.
    CutOff {
        node: usize,
    },
    Join {
        node: usize,
    },
    /// All links, and nothing is lost any more.
    Heal,
    Lose {
        percent: u32,
    },
    Send {
        node: usize,
        count: u32,
    },
}

pub struct Cluster {
    config: Config,
    names: Vec<String>,
    nodes: Vec<Mutex<RaftNode>>,
    pub network: Network,
    asked: Mutex<Vec<Asked>>,
    next_value: AtomicU64,
}

struct Asked {
    what: String,
    pending: Pending,
}

impl Cluster {
    /// Five new nodes that take part.
    pub fn start(pace: Pace) -> Result<(Cluster, Told), Box<dyn Error>> {
        let (network, flights) = Network::start(COUNT, pace.delay())?;
        let names: Vec<String> = (0..COUNT).map(|node| format!("node{node}")).collect();
        // The others reach a node by way of the network, so that is where the file has it.
        let mut nodes = Map::new();
        for (node, name) in names.iter().enumerate() {
            let at = network.entrance(node)?;
            nodes.insert(name.clone(), json!({"ip": at.ip().to_string(), "port": at.port()}));
        }
        let (tell, entries) = bounded(ENTRIES);
        let mut config = Config::try_from(json!({ "nodes": nodes }))?.with(pace.keys())?.on_commit(
            // A page that is behind must not hold up a node.
            move |name, entry| drop(tell.try_send((name.to_string(), entry.clone()))),
        );
        for (node, name) in names.iter().enumerate() {
            config = config.listen_at(name, network.node(node));
        }
        let events = config.events();
        let nodes = names
            .iter()
            .map(|name| Ok(Mutex::new(RaftNode::new(&config, name)?)))
            .collect::<Result<Vec<_>, kontiki::Error>>()?;
        for node in &nodes {
            node.lock().start()?;
        }
        let (asked, next_value) = (Mutex::default(), AtomicU64::new(1));
        let cluster = Cluster { config, names, nodes, network, asked, next_value };
        Ok((cluster, Told { events, entries, flights }))
    }

    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// What each node knows.
    pub fn knows(&self) -> Vec<Committed> {
        self.nodes.iter().map(|node| node.lock().check_committed_entry()).collect()
    }

    /// Carries it out, and says in words what was done.
    pub fn carry_out(&self, order: &Order) -> Result<String, Box<dyn Error>> {
        let name = |node: usize| self.names.get(node).ok_or("there is no such node");
        Ok(match *order {
            Order::Start { node } => {
                let name = name(node)?;
                self.nodes[node].lock().start()?;
                format!("you start {name}")
            }
            Order::Stop { node } => {
                let name = name(node)?;
                self.nodes[node].lock().stop();
                format!("you stop {name}")
            }
            Order::Forget { node } => {
                let name = name(node)?;
                let mut place = self.nodes[node].lock();
                place.stop();
                *place = RaftNode::new(&self.config, name)?;
                place.start()?;
                format!("you start {name} without its memory")
            }
            Order::Cut { node, other } | Order::Mend { node, other } => {
                let (one, two) = (name(node)?, name(other)?);
                let cut = matches!(order, Order::Cut { .. });
                self.network.cut(node, other, cut);
                format!("you {} the link of {one} and {two}", if cut { "cut" } else { "mend" })
            }
            Order::CutOff { node } | Order::Join { node } => {
                let name = name(node)?;
                let cut = matches!(order, Order::CutOff { .. });
                (0..COUNT).for_each(|other| self.network.cut(node, other, cut));
                format!("you {} {name}", if cut { "cut off" } else { "join" })
            }
            Order::Heal => {
                (0..COUNT * COUNT).for_each(|n| self.network.cut(n / COUNT, n % COUNT, false));
                self.network.lose(0);
                "you mend the network".to_string()
            }
            Order::Lose { percent } => {
                let percent = percent.min(100);
                self.network.lose(percent);
                format!("you have {percent} of 100 datagrams lost")
            }
            Order::Send { node, count } => {
                let name = name(node)?;
                let count = count.clamp(1, 10);
                (0..count).try_for_each(|_| self.ask(node))?;
                format!("you ask {name} for {count}")
            }
        })
    }

    /// Has the next number committed.
    fn ask(&self, node: usize) -> Result<(), Box<dyn Error>> {
        let mut asked = self.asked.lock();
        if asked.len() >= REQUESTS {
            return Err("too many requests are outstanding".into());
        }
        let value = self.next_value.fetch_add(1, Ordering::Relaxed);
        let pending = self.nodes[node].lock().client_request(json!(value))?;
        asked.push(Asked { what: format!("{value}, asked of {}", self.names[node]), pending });
        Ok(())
    }

    /// What became of requests, in words.
    pub fn answers(&self) -> Vec<String> {
        let mut answers = Vec::new();
        self.asked.lock().retain_mut(|Asked { what, pending }| {
            match pending.try_reply() {
                Ok(None) => return true,
                Ok(Some(reply)) => {
                    answers.push(format!("{what}, is committed as entry {}", reply.index))
                }
                Err(error) => answers.push(format!("{what}: {error}")),
            }
            false
        });
        answers
    }
}
