//! Three nodes in one program agree on five values: `cargo run --example cluster`.

use std::error::Error;
use std::thread::sleep;
use std::time::{Duration, Instant};

use kontiki::{Config, RaftNode};
use serde_json::json;

fn main() -> Result<(), Box<dyn Error>> {
    env_logger::init(); // RUST_LOG=info shows the election
    let config = Config::load("cluster.json")?;
    let names: Vec<String> = config.names().map(String::from).collect();
    let nodes = names
        .iter()
        .map(|name| RaftNode::new(&config, name))
        .collect::<Result<Vec<RaftNode>, kontiki::Error>>()?;
    for node in &nodes {
        node.start()?;
    }

    // A node says what it can see; a request may be made before there is a leader, too.
    wait_until("a leader", || nodes.iter().all(|node| leader(node).is_some()))?;
    println!("{} leads", leader(&nodes[0]).unwrap_or_default());

    // Any node takes a request and sees it to the leader.
    for value in 1..=5 {
        let reply = nodes[1].client_request(json!({ "val": value }))?.wait()?;
        println!("val {value} is committed at index {} in term {}", reply.index, reply.term);
    }

    // The others learn of a commit one message later.
    let entries = || nodes.iter().map(|node| node.check_committed_entry().entry);
    let newest = nodes[1].check_committed_entry().entry;
    wait_until("the same entry on all nodes", || entries().all(|entry| entry == newest))?;
    for (name, entry) in names.iter().zip(entries()) {
        println!("{name}: {}", entry.as_ref().map_or("nothing", |entry| entry.json()));
    }
    for node in &nodes {
        node.stop();
    }
    Ok(())
}

fn leader(node: &RaftNode) -> Option<String> {
    node.check_committed_entry().leader
}

fn wait_until(what: &str, mut reached: impl FnMut() -> bool) -> Result<(), String> {
    let deadline = Instant::now() + Duration::from_secs(4);
    while !reached() {
        if Instant::now() > deadline {
            return Err(format!("no sign of {what} within 4 seconds"));
        }
        sleep(Duration::from_millis(5));
    }
    Ok(())
}
