//! A durable node that is killed and started fifty times with nothing to do in between: its
//! folder does not grow with that, and the last start is as fast as the first.
#![cfg(target_os = "linux")]

#[path = "common/chance.rs"]
#[allow(dead_code)] // each test file uses its own part of these
mod chance;
#[path = "common/folder.rs"]
mod folder;
#[path = "common/processes.rs"]
#[allow(dead_code)]
mod processes;
#[path = "common/program.rs"]
#[allow(dead_code)]
mod program;

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::chance::Chance;
use crate::folder::on_disk;
use crate::processes::{Cluster, NAMES};

/// On its own, where each start writes a term, a vote and an entry.
#[test]
fn fifty_crashes_alone_leave_little_behind() {
    crash_loop(2, 1);
}

/// Among others that go on, where it has nothing to write.
#[test]
fn fifty_crashes_among_others_leave_little_behind() {
    crash_loop(3, 3);
}

/// Kills and starts the first of so many nodes.
fn crash_loop(test: u16, size: usize) {
    const CRASHES: usize = 50;
    let keys = json!({
        "heartbeat_ms": 5, "election_timeout_ms": [20, 40], "snapshot_every": 20,
    });
    let cluster = Cluster::of(&NAMES[..size], test, keys).durable();
    let _others: Vec<_> = NAMES[1..size].iter().map(|name| cluster.start(name)).collect();
    let mut chance = Chance::new(u64::from(test));
    let (mut took, mut kept) = (Vec::new(), Vec::new());
    for crash in 0..=CRASHES {
        let began = Instant::now();
        let mut node = cluster.start("node0");
        node.wait_for(0, "a leader", |line| line.contains(" in term "));
        took.push(began.elapsed());
        if crash == 0 {
            node.ask("\"all that there ever is\"", "ok ");
        }
        if crash == CRASHES {
            assert!(node.ask(":read", "read ").ends_with(": \"all that there ever is\""));
        }
        thread::sleep(Duration::from_millis(chance.draw() % 50));
        node.signal("KILL");
        drop(node);
        kept.push(on_disk(&cluster.folder("node0")));
    }
    let median = |part: &[Duration]| {
        let mut part = part.to_vec();
        part.sort();
        part[part.len() / 2]
    };
    let (first, last) = (median(&took[1..10]), median(&took[CRASHES - 9..]));
    let ((few, little), (names, bytes)) = (&kept[0], &kept[CRASHES]);
    println!(
        "a start takes {first:?} at first and {last:?} after {CRASHES} crashes; {} files had \
         {little} bytes on the disk, {} have {bytes}: {}",
        few.len(),
        names.len(),
        names.join(", "),
    );
    assert!(*bytes < little + (1 << 20), "{little} bytes became {bytes}: {names:?}");
    // A log of 20 entries, perhaps each in a segment of its own, and as much again until a
    // snapshot is there.
    assert!(names.len() < 45, "{names:?}");
    assert!(last < first * 3 + Duration::from_millis(100), "{first:?} became {last:?}");
}
