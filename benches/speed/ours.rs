//! The library's own measurements.

use std::error::Error;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use kontiki::{Config, Pending, RaftNode, Request};
use serde_json::{Map, Value, json};

use crate::measure::{self, Asked, Client, Test, closed_loop, many_threads};

pub const NAME: &str = "kontiki/udp";
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Cluster {
    pub nodes: Vec<RaftNode>,
    names: Vec<String>,
}

impl Cluster {
    /// So many voters, started, with a leader that has committed.
    pub fn start(asked: &Asked, keys: Value) -> Result<Cluster, Box<dyn Error>> {
        // Nobody else gets the ports while all of them are held.
        let held: Vec<UdpSocket> =
            (0..asked.nodes).map(|_| UdpSocket::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
        let names: Vec<String> = (0..asked.nodes).map(|place| format!("node{place}")).collect();
        let mut nodes = Map::new();
        for (name, socket) in names.iter().zip(&held) {
            let port = socket.local_addr()?.port();
            nodes.insert(name.clone(), json!({"ip": "127.0.0.1", "port": port}));
        }
        drop(held);
        let mut file = json!({ "nodes": nodes, "request_timeout_ms": 60_000 });
        if let Some(folder) = &asked.durable {
            file["data_dir"] = json!(folder);
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
        Ok(Cluster { nodes, names })
    }

    pub fn leader(&self) -> Result<&RaftNode, Box<dyn Error>> {
        let since = Instant::now();
        while since.elapsed() < PATIENCE {
            if let Some(leader) = self.nodes[0].check_committed_entry().leader {
                let place = self.names.iter().position(|name| *name == leader);
                return Ok(&self.nodes[place.ok_or("a leader that nobody knows")?]);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Err("there is no leader".into())
    }
}

/// A client at a node.
struct Commands<'a> {
    node: &'a RaftNode,
    value: Value,
}

impl<'a> Commands<'a> {
    /// The JSON of the value has so many bytes.
    fn new(node: &'a RaftNode, size: usize) -> Commands<'a> {
        Commands { node, value: Value::String("x".repeat(size.saturating_sub(2))) }
    }
}

impl Client for Commands<'_> {
    type Ticket = Pending;

    fn send(&mut self) -> Pending {
        self.node.client_request(&self.value).expect("it is taken")
    }

    fn wait(&mut self, ticket: Pending) {
        ticket.wait().expect("it is committed");
    }

    fn is_done(&mut self, ticket: &mut Pending) -> bool {
        ticket.try_reply().expect("it is committed").is_some()
    }
}

/// One that asks without changing anything.
struct Queries<'a>(&'a RaftNode);

impl Client for Queries<'_> {
    type Ticket = Pending;

    fn send(&mut self) -> Pending {
        self.0.client_request(Request::query(&0)).expect("it is taken")
    }

    fn wait(&mut self, ticket: Pending) {
        ticket.wait().expect("it is answered");
    }

    fn is_done(&mut self, ticket: &mut Pending) -> bool {
        ticket.try_reply().expect("it is answered").is_some()
    }
}

pub fn measure(asked: &Asked) -> Result<(), Box<dyn Error>> {
    match asked.test {
        Test::Load | Test::Threads | Test::Queries => loads(asked),
        Test::Idle => {
            let _cluster = Cluster::start(asked, json!({}))?;
            std::thread::sleep(Duration::from_secs(1));
            measure::idle_line(NAME, asked.seconds);
            Ok(())
        }
        Test::Failover | Test::Mem => todo!(),
    }
}

fn loads(asked: &Asked) -> Result<(), Box<dyn Error>> {
    let cluster = Cluster::start(asked, json!({}))?;
    let leader = cluster.leader()?;
    for &size in &asked.size {
        for &k in &asked.k {
            let (name, sample) = match asked.test {
                Test::Queries => ("queries", closed_loop(&mut Queries(leader), k, asked.seconds)),
                Test::Threads => {
                    let clients = (0..k).map(|_| Commands::new(leader, size)).collect();
                    ("threads", many_threads(clients, asked.seconds))
                }
                _ => ("load", closed_loop(&mut Commands::new(leader, size), k, asked.seconds)),
            };
            measure::load_line(NAME, name, k, size, &sample);
        }
    }
    Ok(())
}
