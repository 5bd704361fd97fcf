//! A volatile node's memory does not grow with what it commits: its log is compacted in
//! memory, and what is kept of replies, ids and sessions is bounded.
//!
//! A cluster of three runs in a process of its own, which is this program again, and
//! says at the end how much memory it ever had.
#![cfg(target_os = "linux")]

mod common;

use std::collections::VecDeque;
use std::process::{Command, Stdio};
use std::{env, fs};

use common::{Plan, answer};
use kontiki::{Pending, Role};
use serde_json::json;

/// By this the program knows that it is to commit so many values.
const ENTRIES: &str = "KONTIKI_MEMORY_ENTRIES";
const OUTSTANDING: usize = 1_000;

/// No test, unless this program is told to: then it commits values and says what that took.
#[test]
fn a_cluster() {
    let Some(entries) = env::var(ENTRIES).ok().and_then(|entries| entries.parse::<u64>().ok())
    else {
        return;
    };
    let cluster = Plan::voters(3).keys(json!({"request_timeout_ms": 60_000})).start();
    let leader = cluster.wait_leader();
    let mut open: VecDeque<Pending> = VecDeque::new();
    for n in 0..entries {
        if open.len() == OUTSTANDING {
            let mut first = open.pop_front().expect("there is one");
            answer("a value", &mut first).expect("it is committed");
        }
        open.push_back(cluster.node(leader).client_request(json!(n)).expect("it is taken"));
    }
    for mut pending in open {
        answer("a value", &mut pending).expect("it is committed");
    }
    let newest = cluster.knows(leader).entry.expect("there are some").index;
    cluster.wait_entry(0..3, newest);
    assert!((0..3).all(|place| cluster.knows(place).role != Role::Stopped));
    println!("KB {}", kilobytes("VmHWM"));
}

/// What the system says of this process.
fn kilobytes(of: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("there is one");
    let line = status.lines().find_map(|line| line.strip_prefix(of)?.strip_prefix(':'));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.unwrap_or_else(|| panic!("no {of} in:\n{status}"))
}

/// The most memory that a process ever had that committed so many values, in KB.
fn memory_of(entries: u64) -> u64 {
    let ran = Command::new(env::current_exe().expect("this program"))
        .args(["--exact", "a_cluster", "--nocapture"])
        .env(ENTRIES, entries.to_string())
        .stdin(Stdio::null())
        .output()
        .expect("this program can be run again");
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    let told = out.lines().find_map(|line| line.strip_prefix("KB ")?.parse().ok());
    let kilobytes = told.unwrap_or_else(|| panic!("{entries} values came to no end:\n{out}{err}"));
    println!("{entries} values: {kilobytes} KB");
    kilobytes
}

/// The most that a process ever had differs from run to run: a follower that was away
/// from its processor for a moment is behind for a moment, and the log is kept for it.
/// A million values that three nodes keep take ten times as much.
const MOMENTS_KB: u64 = 32 * 1024;

fn compare(few: u64, many: u64) {
    let [few, many] = [few, many].map(memory_of);
    assert!(many < few + MOMENTS_KB, "{few} KB became {many} KB");
}

#[test]
fn a_million_values_take_no_more_memory_than_a_hundred_thousand() {
    compare(100_000, 1_000_000);
}

/// The whole of what is promised, for those who ask, and with optimization:
/// `cargo test --release --test memory -- --ignored --nocapture`.
#[test]
#[ignore = "takes long without optimization"]
fn ten_million_values_take_no_more_memory_than_a_hundred_thousand() {
    compare(100_000, 10_000_000);
}
