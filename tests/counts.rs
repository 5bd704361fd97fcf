//! What a commit costs, counted and not timed: datagrams, system calls, wakes and
//! allocations, of the client and all three nodes together. A busy machine changes these
//! a little and not by much, so that a path that came to cost more shows here.
#![cfg(target_os = "linux")]

mod common;

use std::alloc::System;
use std::collections::VecDeque;
use std::process::Command;
use std::{env, fs};

use common::skipped::skipped;
use common::{Plan, answer};
use kontiki::Pending;
use serde_json::json;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// By this the program knows how many requests to keep outstanding.
const OUTSTANDING: &str = "KONTIKI_COUNTS_OUTSTANDING";

/// So many values are committed for each count.
fn commits(outstanding: usize) -> u64 {
    if outstanding < 64 { 3_000 } else { 400_000 }
}

/// The datagrams that were sent on this machine: only those of this program, but for
/// what others do meanwhile.
fn datagrams() -> u64 {
    let text = fs::read_to_string("/proc/net/snmp").expect("there is one");
    let mut rows = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, numbers) = (rows.next().expect("names"), rows.next().expect("numbers"));
    let place = names.split(' ').position(|name| name == "OutDatagrams").expect("a column");
    numbers.split(' ').nth(place).expect("a number").parse().expect("a number")
}

/// How often threads of this program went to sleep.
fn sleeps() -> u64 {
    let tasks = fs::read_dir("/proc/self/task").expect("there are threads");
    let of = |path: std::path::PathBuf| {
        let status = fs::read_to_string(path.join("status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.and_then(|number| number.trim().parse::<u64>().ok()).unwrap_or(0)
    };
    tasks.map(|task| of(task.expect("a thread").path())).sum()
}

/// What one commit costs.
#[derive(Debug)]
struct Cost {
    datagrams: f64,
    sleeps: f64,
    allocations: f64,
}

/// Keeps so many requests outstanding at the leader, until enough are answered.
fn load(cluster: &common::Cluster, outstanding: usize, commits: u64) {
    let leader = cluster.node(cluster.wait_leader());
    let value = json!("x".repeat(62));
    let mut open: VecDeque<Pending> = VecDeque::with_capacity(outstanding);
    let mut sent = 0;
    while sent < commits || !open.is_empty() {
        while sent < commits && open.len() < outstanding {
            open.push_back(leader.client_request(&value).expect("it is taken"));
            sent += 1;
        }
        if let Some(mut first) = open.pop_front() {
            answer("a value", &mut first).expect("it is committed");
        }
        while let Some(next) = open.front_mut()
            && next.try_reply().expect("it is committed").is_some()
        {
            open.pop_front();
        }
    }
}

fn cost(outstanding: usize) -> Cost {
    let cluster = Plan::voters(3).start();
    load(&cluster, outstanding, commits(outstanding) / 4);
    let (datagrams_before, sleeps_before) = (datagrams(), sleeps());
    let region = Region::new(ALLOCATOR);
    load(&cluster, outstanding, commits(outstanding));
    let allocations = region.change().allocations as u64;
    let each = |count: u64| count as f64 / commits(outstanding) as f64;
    Cost {
        datagrams: each(datagrams() - datagrams_before),
        sleeps: each(sleeps() - sleeps_before),
        allocations: each(allocations),
    }
}

/// No test, unless this program is told to: then it commits values and ends.
#[test]
fn a_load() {
    let Some(outstanding) = env::var(OUTSTANDING).ok().and_then(|text| text.parse().ok()) else {
        return;
    };
    load(&Plan::voters(3).start(), outstanding, commits(outstanding));
}

/// How many system calls a commit takes, as `strace` counts them; `None` without it.
fn system_calls(outstanding: usize) -> Option<f64> {
    let folder = common::folder::Folder::new();
    let table = folder.path().join("table");
    let traced = Command::new("strace")
        .args(["--follow-forks", "--summary-only", "--output"])
        .arg(&table)
        .arg(env::current_exe().expect("this program"))
        .args(["--exact", "a_load"])
        .env(OUTSTANDING, outstanding.to_string())
        .output();
    let Ok(output) = traced else {
        skipped("there is no strace");
        return None;
    };
    if !output.status.success() {
        skipped(&format!("strace may not trace here: {:?}", output.status));
        return None;
    }
    let table = fs::read_to_string(table).expect("strace wrote it");
    let total = table.lines().rev().find(|line| line.ends_with("total")).expect("a sum");
    let calls: f64 = total.split_whitespace().nth(3).expect("calls").parse().expect("a number");
    Some(calls / commits(outstanding) as f64)
}

/// All in one test: what runs beside it would be counted, too. With one outstanding, an
/// append to each follower, its answer, and a wake for each of them and the client, is
/// what there must be. With many, a commit's own is its answer.
#[test]
fn a_commit_costs_what_it_must() {
    let limits = [
        (1, Cost { datagrams: 4.5, sleeps: 6.5, allocations: 12.0 }, 26.0),
        (64, Cost { datagrams: 0.2, sleeps: 0.25, allocations: 1.5 }, 0.8),
        (1024, Cost { datagrams: 0.03, sleeps: 0.03, allocations: 1.2 }, 0.08),
    ];
    for (outstanding, most, calls_most) in limits {
        let cost = cost(outstanding);
        let calls = system_calls(outstanding);
        println!("{outstanding} outstanding: {cost:.3?}, {calls:.3?} system calls a commit");
        assert!(cost.datagrams <= most.datagrams, "{outstanding} outstanding: {cost:?}");
        assert!(cost.sleeps <= most.sleeps, "{outstanding} outstanding: {cost:?}");
        assert!(cost.allocations <= most.allocations, "{outstanding} outstanding: {cost:?}");
        let few = calls.is_none_or(|calls| calls <= calls_most);
        assert!(few, "{outstanding} outstanding: {calls:?} system calls a commit");
    }
}
