//! What long logs cost: memory, and the time to read them back.

use std::error::Error;
use std::time::Instant;

use kontiki::RaftNode;
use serde_json::{Value, json};

use super::loads::Commands;
use super::{Cluster, NAME, value};
use crate::measure::{self, Asked};

/// A log that nothing compacts, unless it grows to so many bytes.
const KEPT: u64 = 100_000_000;
const KEPT_BYTES: u64 = 64 << 20;
/// About so much stands around a value.
const AROUND_BYTES: u64 = 28;

fn keys(asked: &Asked) -> Result<Value, String> {
    let bytes = asked.entries * (asked.size[0] as u64 + AROUND_BYTES);
    match asked.snapshots {
        true => Ok(json!({})),
        false if bytes < KEPT_BYTES => Ok(json!({"snapshot_every": KEPT})),
        false => {
            Err("so much is compacted: ask for fewer or smaller entries, or --snapshots".into())
        }
    }
}

/// Commits so many values, with a thousand outstanding.
fn fill(node: &RaftNode, entries: u64, size: usize) -> Result<u64, Box<dyn Error>> {
    let value = value(size);
    let mut index = 0;
    let mut open = std::collections::VecDeque::new();
    for _ in 0..entries {
        if open.len() == measure::WINDOW {
            let first: kontiki::Pending = open.pop_front().expect("there are some");
            index = first.wait()?.index;
        }
        open.push_back(node.client_request(&value)?);
    }
    for pending in open {
        index = pending.wait()?.index;
    }
    Ok(index)
}

/// How much memory entries take, in all nodes.
pub fn memory(asked: &Asked) -> Result<(), Box<dyn Error>> {
    let size = asked.size[0];
    let cluster = Cluster::start(asked, asked.durable.as_deref(), &keys(asked)?)?;
    let idle = measure::rss_kb();
    let node = &cluster.nodes[cluster.leader(None)?];
    let last = fill(node, asked.entries, size)?;
    for place in 0..asked.nodes {
        cluster.wait_for(place, last)?;
    }
    let rss = measure::rss_kb();
    let each = (rss - idle.min(rss)) as f64 * 1024.0 / asked.entries as f64 / asked.nodes as f64;
    let rest = json!({
        "entries": asked.entries,
        "size": size,
        "snapshots": asked.snapshots,
        "idle_kb": idle,
        "rss_kb": rss,
        "bytes_per_entry_node": (each * 10.0).round() / 10.0,
    });
    measure::line(NAME, "mem", &rest);
    Ok(())
}

/// How long one client waits, with ever more in the log.
pub fn growth(asked: &Asked) -> Result<(), Box<dyn Error>> {
    let size = asked.size[0];
    let cluster = Cluster::start(asked, asked.durable.as_deref(), &keys(asked)?)?;
    let node = &cluster.nodes[cluster.leader(None)?];
    let mut last = 0;
    for step in [1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000] {
        if step > asked.entries {
            break;
        }
        last = fill(node, step.saturating_sub(last).max(1), size)?;
        let sample = measure::closed_loop(&mut Commands::new(node, size), 1, asked.seconds);
        let us = |percent| sample.percentile(percent).as_nanos() as f64 / 1e3;
        let rest = json!({"entries": last, "size": size, "p50_us": us(50.0), "p99_us": us(99.0)});
        measure::line(NAME, "growth", &rest);
    }
    Ok(())
}

/// How long a node takes to read its log back from the disk.
pub fn recovery(asked: &Asked) -> Result<(), Box<dyn Error>> {
    let folder = asked.durable.as_deref().ok_or("a recovery needs --durable DIR")?;
    let mut cluster = Cluster::start(asked, Some(folder), &keys(asked)?)?;
    fill(&cluster.nodes[cluster.leader(None)?], asked.entries, asked.size[0])?;
    let name = cluster.names[0].clone();
    drop(cluster.nodes.remove(0));
    let began = Instant::now();
    let node = RaftNode::new(&cluster.config, &name)?;
    let ms = began.elapsed().as_micros() as f64 / 1000.0;
    drop(node);
    let rest = json!({
        "entries": asked.entries,
        "size": asked.size[0],
        "snapshots": asked.snapshots,
        "ms": ms,
    });
    measure::line(NAME, "recovery", &rest);
    Ok(())
}
