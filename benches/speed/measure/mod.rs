//! What every system is measured with, ours and others, so that the same rules hold for
//! all: how clients keep requests outstanding, what is counted, and the lines that say it.
//!
//! ```text
//! --test load       one client with --k requests outstanding (1,64,1024,16384)
//! --test threads    --k threads that each wait for their own commit (64)
//! --test queries    as load, and nothing is committed
//! --test failover   the leader stops, over and over: to the next commit
//! --test idle       nobody asks anything
//! --test mem        how much --entries (500000) of --size bytes take
//! --test catchup    a node was away while so many were committed
//! --test recovery   so many (1000000, of 32 bytes) are read back from the disk
//! --test growth     one client, again and again while the log grows to so many of them
//!   --snapshots     of logs that are compacted (mem, recovery)
//!   --secs S        so long each (5)
//!   --size N,N      bytes of a value (64 where nothing else is said)
//!   --nodes N       so many voters (3)
//!   --durable DIR   logs on disk, below this folder
//!   --sealed        datagrams are sealed
//! ```
//!
//! One line of JSON a result, on standard output.

mod asked;
mod drive;
mod process;
mod wait;

pub use self::asked::{Asked, Test};
pub use self::drive::{Client, Sample, closed_loop, many_threads};
pub use self::process::{cpu_time, lo_packets, rss_kb};
pub use self::wait::look_then;

use std::time::Duration;

use serde_json::{Value, json};

/// Where a log is filled, so many requests are outstanding.
pub const WINDOW: usize = 1_024;

/// Prints one result.
pub fn line(peer: &str, test: &str, rest: &Value) {
    let mut all = json!({"peer": peer, "test": test});
    let fields = all.as_object_mut().expect("it is an object");
    fields.extend(rest.as_object().expect("an object").clone());
    println!("{all}");
}

/// Prints what a load came to.
pub fn load_line(peer: &str, test: Test, k: usize, size: usize, sample: &Sample) {
    let us = |duration: Duration| (duration.as_nanos() as f64 / 100.0).round() / 10.0;
    let rest = json!({
        "k": k,
        "size": size,
        "per_s": sample.per_second().round(),
        "p50_us": us(sample.percentile(50.0)),
        "p99_us": us(sample.percentile(99.0)),
        "cpu_us_per_commit": (sample.cpu_us_each() * 1000.0).round() / 1000.0,
    });
    line(peer, test.name(), &rest);
}

/// What an idle system takes in so long, and how much memory it has.
pub fn idle_line(peer: &str, seconds: Duration) {
    let (cpu, packets) = (cpu_time(), lo_packets());
    std::thread::sleep(seconds);
    let share = (cpu_time() - cpu).as_secs_f64() / seconds.as_secs_f64();
    let rate = (lo_packets() - packets) as f64 / seconds.as_secs_f64();
    let rest = json!({
        "cpu_pct": (share * 1e4).round() / 100.0,
        "lo_packets_per_s": rate.round(),
        "rss_kb": rss_kb(),
    });
    line(peer, "idle", &rest);
}

/// Prints how long each new leader took, from the death of the old one to a commit.
pub fn failover_line(peer: &str, took: Duration) {
    line(peer, "failover", &json!({"ms": (took.as_micros() as f64 / 100.0).round() / 10.0}));
}
