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

/// By this the program knows how many requests to keep outstanding, and of how many bytes.
const LOAD: &str = "KONTIKI_COUNTS_LOAD";

/// Requests outstanding, and bytes of a value as JSON.
#[derive(Clone, Copy, Debug)]
struct Load {
    outstanding: usize,
    size: usize,
}

impl Load {
    /// So many values are committed for each count.
    fn commits(self) -> u64 {
        if self.outstanding < 64 { 3_000 } else { 400_000 * 64 / self.size as u64 }
    }
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
    /// Of memory that was too short.
    reallocations: f64,
}

/// Keeps so many requests outstanding at the leader, until enough are answered.
fn commit(cluster: &common::Cluster, load: Load, commits: u64) {
    let leader = cluster.node(cluster.wait_leader());
    let value = json!("x".repeat(load.size - 2));
    let mut open: VecDeque<Pending> = VecDeque::with_capacity(load.outstanding);
    let mut sent = 0;
    while sent < commits || !open.is_empty() {
        while sent < commits && open.len() < load.outstanding {
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

fn cost(load: Load) -> Cost {
    let cluster = Plan::voters(3).start();
    // Until logs are as long as they get.
    commit(&cluster, load, (load.commits() / 4).max(25_000.min(load.commits())));
    let before = [datagrams(), sleeps()];
    let region = Region::new(ALLOCATOR);
    commit(&cluster, load, load.commits());
    let memory = region.change();
    let each = |count: u64| count as f64 / load.commits() as f64;
    Cost {
        datagrams: each(datagrams() - before[0]),
        sleeps: each(sleeps() - before[1]),
        allocations: each(memory.allocations as u64),
        reallocations: each(memory.reallocations as u64),
    }
}

/// No test, unless this program is told to: then it commits values and ends.
#[test]
fn a_load() {
    let Ok(told) = env::var(LOAD) else { return };
    let numbers: Vec<usize> = told.split(' ').map(|text| text.parse().expect("numbers")).collect();
    let [outstanding, size] = numbers[..] else { panic!("two of them: {told}") };
    let load = Load { outstanding, size };
    commit(&Plan::voters(3).start(), load, load.commits());
}

/// How many system calls a commit takes, as `strace` counts them; `None` without it.
fn system_calls(load: Load) -> Option<f64> {
    let folder = common::folder::Folder::new();
    let table = folder.path().join("table");
    let traced = Command::new("strace")
        .args(["--follow-forks", "--summary-only", "--output"])
        .arg(&table)
        .arg(env::current_exe().expect("this program"))
        .args(["--exact", "a_load"])
        .env(LOAD, format!("{} {}", load.outstanding, load.size))
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
    Some(calls / load.commits() as f64)
}

/// All in one test: what runs beside it would be counted, too. With one outstanding, an
/// append to each follower, its answer, and a wake for each of them and the client, is
/// what there must be. With many, a commit's own is its answer.
#[test]
fn a_commit_costs_what_it_must() {
    let small = |outstanding| Load { outstanding, size: 64 };
    let large = Load { outstanding: 1_024, size: 1_024 };
    let cost_of = |datagrams, sleeps, allocations, reallocations| Cost {
        datagrams,
        sleeps,
        allocations,
        reallocations,
    };
    let limits = [
        (small(1), cost_of(4.5, 6.5, 11.0, 0.05), 26.0),
        (small(64), cost_of(0.2, 0.25, 1.5, 0.05), 0.8),
        (small(1_024), cost_of(0.03, 0.03, 1.2, 0.05), 0.08),
        (large, cost_of(0.2, 0.2, 2.0, 0.05), 0.5),
    ];
    for (load, most, calls_most) in limits {
        let cost = cost(load);
        let calls = system_calls(load);
        println!("{load:?}: {cost:.3?}, {calls:.3?} system calls a commit");
        assert!(cost.datagrams <= most.datagrams, "{load:?}: {cost:?}");
        assert!(cost.sleeps <= most.sleeps, "{load:?}: {cost:?}");
        assert!(cost.allocations <= most.allocations, "{load:?}: {cost:?}");
        assert!(cost.reallocations <= most.reallocations, "{load:?}: {cost:?}");
        let few = calls.is_none_or(|calls| calls <= calls_most);
        assert!(few, "{load:?}: {calls:?} system calls a commit");
    }
}
