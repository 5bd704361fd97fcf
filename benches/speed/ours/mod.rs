//! The library's own measurements.

mod deaths;
mod loads;
mod logs;

use std::error::Error;
use std::net::UdpSocket;
use std::path::Path;
use std::time::{Duration, Instant};

use kontiki::{Config, RaftNode};
use serde_json::{Map, Value, json};

use crate::measure::{self, Asked, Test};
use crate::scratch::Scratch;

pub const NAME: &str = "kontiki/udp";
const PATIENCE: Duration = Duration::from_secs(120);

pub struct Cluster {
    pub nodes: Vec<RaftNode>,
    names: Vec<String>,
    config: Config,
    /// Goes when the nodes have let go of it.
    _scratch: Option<Scratch>,
}

impl Cluster {
    /// As many voters as are asked for, started, with a leader that has committed.
    pub fn start(
        asked: &Asked,
        durable: Option<&Path>,
        keys: &Value,
    ) -> Result<Cluster, Box<dyn Error>> {
        let nodes = asked.nodes;
        // Nobody else gets the ports while all of them are held.
        let held: Vec<UdpSocket> =
            (0..nodes).map(|_| UdpSocket::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
        let names: Vec<String> = (0..nodes).map(|place| format!("node{place}")).collect();
        let mut members = Map::new();
        for (name, socket) in names.iter().zip(&held) {
            let port = socket.local_addr()?.port();
            members.insert(name.clone(), json!({"ip": "127.0.0.1", "port": port}));
        }
        drop(held);
        let mut file = json!({"nodes": members, "request_timeout_ms": 60_000});
        let scratch = durable.map(Scratch::below).transpose()?;
        if let Some(scratch) = &scratch {
            file["data_dir"] = json!(scratch.path());
        }
        if asked.sealed {
            file["secret"] = json!(SECRET);
        }
        for (key, value) in keys.as_object().into_iter().flatten() {
            file[key] = value.clone();
        }
        let config = Config::try_from(file)?;
        let nodes: Vec<RaftNode> =
            names.iter().map(|name| RaftNode::new(&config, name)).collect::<Result<_, _>>()?;
        for node in &nodes {
            node.start()?;
        }
        nodes[0].client_request(json!("the first"))?.wait()?;
        Ok(Cluster { nodes, names, config, _scratch: scratch })
    }

    /// Who leads, as the first node knows that is not `but`.
    pub fn leader(&self, but: Option<usize>) -> Result<usize, Box<dyn Error>> {
        let asked = usize::from(but == Some(0));
        let since = Instant::now();
        while since.elapsed() < PATIENCE {
            if let Some(leader) = self.nodes[asked].check_committed_entry().leader
                && let Some(place) = self.names.iter().position(|name| *name == leader)
                && but != Some(place)
            {
                return Ok(place);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Err("there is no leader".into())
    }

    /// Waits until a node has applied that much.
    pub fn wait_for(&self, node: usize, index: u64) -> Result<(), Box<dyn Error>> {
        let since = Instant::now();
        while since.elapsed() < PATIENCE {
            let entry = self.nodes[node].check_committed_entry().entry;
            if entry.is_some_and(|entry| entry.index >= index) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Err("a node does not catch up".into())
    }
}

/// Of the clusters that seal.
const SECRET: &str = "5f10c3a94e77b2d806f1aa3c9be4d265708192a3b4c5d6e7f8091a2b3c4d5e6f";

/// A value whose JSON has so many bytes.
pub fn value(size: usize) -> Value {
    Value::String("x".repeat(size.saturating_sub(2)))
}

pub fn measure(asked: &Asked) -> Result<(), Box<dyn Error>> {
    match asked.test {
        Test::Load | Test::Threads | Test::Queries => loads::measure(asked),
        Test::Idle => {
            let _cluster = Cluster::start(asked, asked.durable.as_deref(), &json!({}))?;
            std::thread::sleep(Duration::from_secs(1));
            measure::idle_line(NAME, asked.seconds);
            Ok(())
        }
        Test::Failover => deaths::failover(asked),
        Test::CatchUp => deaths::catch_up(asked),
        Test::Mem => logs::memory(asked),
        Test::Recovery => logs::recovery(asked),
        Test::Growth => logs::growth(asked),
    }
}
