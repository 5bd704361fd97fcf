//! Leaders that fall silent, and nodes that come back.

use std::error::Error;
use std::time::{Duration, Instant};

use serde_json::json;

use super::loads::Commands;
use super::{Cluster, NAME, value};
use crate::measure::{self, Asked, closed_loop};

/// The leader falls silent, over and over: how long until the next commit, with a client
/// at each of the others.
pub fn failover(asked: &Asked) -> Result<(), Box<dyn Error>> {
    let cluster = Cluster::start(asked, asked.durable.as_deref(), &json!({}))?;
    let began = Instant::now();
    let mut dead = None;
    while began.elapsed() < asked.seconds {
        let leader = cluster.leader(dead)?;
        let died = Instant::now();
        cluster.nodes[leader].stop();
        let others = cluster.nodes.iter().enumerate().filter(|(place, _)| *place != leader);
        let mut asked: Vec<_> = others
            .map(|(_, node)| node.client_request(json!("who leads now?")))
            .collect::<Result<_, _>>()?;
        let index = 'committed: loop {
            for pending in &mut asked {
                if let Some(reply) = pending.wait_timeout(Duration::from_micros(100))? {
                    break 'committed reply.index;
                }
            }
        };
        measure::failover_line(NAME, died.elapsed());
        cluster.nodes[leader].start()?;
        cluster.wait_for(leader, index)?;
        // The next death meets timers of any age.
        std::thread::sleep(Duration::from_millis(50 + index % 70));
        dead = Some(leader);
    }
    Ok(())
}

/// A follower is away while values are committed: how long until it has them, from the
/// log, or where the log is compacted meanwhile, from a snapshot.
pub fn catch_up(asked: &Asked) -> Result<(), Box<dyn Error>> {
    for (way, snapshot_every) in [("log", 100_000_000), ("snapshot", 10_000)] {
        let keys = json!({"snapshot_every": snapshot_every});
        let cluster = Cluster::start(asked, asked.durable.as_deref(), &keys)?;
        let leader = cluster.leader(None)?;
        let away = (leader + 1) % asked.nodes;
        cluster.nodes[away].stop();
        let node = &cluster.nodes[leader];
        for _ in 0..asked.entries / 10_000 {
            let open: Vec<_> = (0..10_000)
                .map(|_| node.client_request(value(asked.size[0])))
                .collect::<Result<_, _>>()?;
            for pending in open {
                pending.wait()?;
            }
        }
        let index = node.client_request(json!("the last"))?.wait()?.index;
        let began = Instant::now();
        cluster.nodes[away].start()?;
        cluster.wait_for(away, index)?;
        let ms = began.elapsed().as_micros() as f64 / 1000.0;
        let rest = json!({"by": way, "entries": index, "size": asked.size[0], "ms": ms});
        measure::line(NAME, "catchup", &rest);
        // And what it costs the clients meanwhile is a load of its own.
        closed_loop(&mut Commands::new(node, 64), 64, Duration::from_millis(100));
    }
    Ok(())
}
