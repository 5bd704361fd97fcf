//! Nodes of one process, and what they say of who is up.

use std::error::Error;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use kontiki::{Config, Event, RaftNode, Role};
use serde_json::{Map, json};

pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Cluster {
    pub nodes: Vec<RaftNode>,
    pub names: Vec<String>,
    events: Receiver<Event>,
}

impl Cluster {
    /// Voters first, then learners; all of them agreed to be up.
    pub fn all_up(voters: usize, learners: usize) -> Result<Cluster, Box<dyn Error>> {
        let count = voters + learners;
        // Nobody else gets the ports while all of them are held.
        let held: Vec<UdpSocket> =
            (0..count).map(|_| UdpSocket::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
        let names: Vec<String> = (0..count).map(|place| format!("node{place:03}")).collect();
        let mut nodes = Map::new();
        for (place, name) in names.iter().enumerate() {
            let role = if place < voters { "voter" } else { "learner" };
            let port = held[place].local_addr()?.port();
            nodes.insert(name.clone(), json!({"ip": "127.0.0.1", "port": port, "role": role}));
        }
        drop(held);
        let config = Config::try_from(json!({ "nodes": nodes }))?;
        let events = config.events();
        let nodes: Vec<RaftNode> =
            names.iter().map(|name| RaftNode::new(&config, name)).collect::<Result<_, _>>()?;
        for node in &nodes {
            node.start()?;
        }
        let cluster = Cluster { nodes, names, events };
        let since = Instant::now();
        while !cluster.nodes.iter().all(|node| {
            let members = node.check_committed_entry().members;
            members.len() == count && members.iter().all(|member| member.is_up())
        }) {
            if since.elapsed() > PATIENCE {
                return Err("not all came up".into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(cluster)
    }

    pub fn leader(&self) -> Option<usize> {
        let known = self.nodes[0].check_committed_entry().leader?;
        self.names.iter().position(|name| *name == known)
    }

    /// One falls silent: how long until the first of the others knows that it is down,
    /// and until all do.
    pub fn death_of(&self, dead: usize) -> Result<(Duration, Duration), Box<dyn Error>> {
        while self.events.try_recv().is_ok() {}
        let died = Instant::now();
        self.nodes[dead].stop();
        let alive = |node: &&RaftNode| node.check_committed_entry().role != Role::Stopped;
        let others = self.nodes.iter().filter(alive).count();
        let (mut first, mut known) = (None, 0);
        while known < others {
            let left = PATIENCE.saturating_sub(died.elapsed());
            match self.events.recv_timeout(left)? {
                Event::MemberDown { member, .. } if member == self.names[dead] => {
                    first.get_or_insert(died.elapsed());
                    known += 1;
                }
                Event::MemberDown { member, node, .. } => {
                    eprintln!("{node} takes {member} for dead, which lives");
                }
                _ => {}
            }
        }
        Ok((first.unwrap_or_default(), died.elapsed()))
    }
}
