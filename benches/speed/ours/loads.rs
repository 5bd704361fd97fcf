//! Clients that ask as fast as they are answered.

use std::error::Error;

use kontiki::{Pending, RaftNode, Request};
use serde_json::{Value, json};

use super::{Cluster, NAME, value};
use crate::measure::{self, Asked, Client, Test, closed_loop, many_threads};

/// A client at a node.
pub struct Commands<'a> {
    node: &'a RaftNode,
    value: Value,
}

impl<'a> Commands<'a> {
    pub fn new(node: &'a RaftNode, size: usize) -> Commands<'a> {
        Commands { node, value: value(size) }
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
    let cluster = Cluster::start(asked, asked.durable.as_deref(), &json!({}))?;
    let leader = &cluster.nodes[cluster.leader(None)?];
    for &size in &asked.size {
        for &k in &asked.k {
            let sample = match asked.test {
                Test::Queries => closed_loop(&mut Queries(leader), k, asked.seconds),
                Test::Threads => {
                    let clients = (0..k).map(|_| Commands::new(leader, size)).collect();
                    many_threads(clients, asked.seconds)
                }
                _ => closed_loop(&mut Commands::new(leader, size), k, asked.seconds),
            };
            measure::load_line(NAME, asked.test, k, size, &sample);
        }
    }
    Ok(())
}
