//! Seeds in every test run, and that a seed says all.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::*;

/// Runs these seeds on all cores.
fn run_all(seeds: std::ops::Range<u64>, make: fn(u64) -> Simulation) -> Vec<Report> {
    let next = AtomicU64::new(seeds.start);
    let reports = Mutex::new(Vec::new());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            match make(seed).run() {
                Ok(report) => reports.lock().expect("no other panics").push(report),
                Err(violation) => panic!("{violation}"),
            }
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(work);
        }
    });
    let mut reports = reports.into_inner().expect("nobody panicked");
    reports.sort_by_key(|report| report.seed);
    reports
}

/// Whatever happens, everything holds and everything heals; and enough happens.
#[test]
fn two_hundred_seeds() {
    let began = std::time::Instant::now();
    let reports = run_all(0..200, Simulation::new);
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    let (steps, faults) = (sum(|r| r.steps), sum(|r| r.faults));
    println!("200 seeds, {steps} steps, {faults} faults in {:?}", began.elapsed());
    assert_eq!(reports.len(), 200);
    assert!(faults > 10_000, "{faults} faults");
    assert!(sum(|r| r.answered) > 50_000 && sum(|r| r.unknown) > 500);
    assert!(sum(|r| r.leaders) > 500, "{} leaders", sum(|r| r.leaders));
}

/// The same where members are added, removed and replaced, lose their memory again and
/// again, and hand over; among them clusters of two and of four, and such as lose one
/// voter more than they can bear: these go on or stop, and say so.
#[test]
fn two_hundred_seeds_of_members_that_come_and_go() {
    let began = std::time::Instant::now();
    let reports = run_all(0..200, Simulation::of_members);
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    let (steps, changes) = (sum(|r| r.steps), sum(|r| r.changes));
    let stopped = reports.iter().filter(|report| report.stopped).count();
    println!(
        "200 seeds, {steps} steps, {changes} changes of the members, {stopped} that stopped, \
         in {:?}",
        began.elapsed()
    );
    assert!(changes > 700, "{changes} changes");
    assert!(stopped > 0, "none stopped");
    assert!(sum(|r| r.answered) > 20_000, "{} answers", sum(|r| r.answered));
}

fn told(seed: u64) -> (Report, Vec<String>) {
    let lines = Rc::new(RefCell::new(Vec::new()));
    let sink = Rc::clone(&lines);
    let simulation = Simulation::new(seed).trace(move |line| sink.borrow_mut().push(line.into()));
    let report = simulation.run().unwrap_or_else(|violation| panic!("{violation}"));
    let lines = lines.take();
    (report, lines)
}

/// The same seed gives the same run, event for event; and whether it is told changes
/// nothing. (`tests/simulate.rs` compares two processes.)
#[test]
fn a_seed_says_all() {
    for seed in [3, 11, 12] {
        let (first, lines) = told(seed);
        let (second, again) = told(seed);
        assert_eq!(lines.len(), again.len());
        for (one, other) in lines.iter().zip(&again) {
            assert_eq!(one, other);
        }
        assert_eq!(first, second);
        assert!(lines.len() > 500, "{} lines", lines.len());
        let untold = Simulation::new(seed).run().unwrap_or_else(|violation| panic!("{violation}"));
        assert_eq!(untold, first);
    }
    let digest = |seed| Simulation::new(seed).run().map(|report| report.digest);
    assert_ne!(digest(3), digest(4));
}

/// A quiet world has no faults, and a cluster of any size serves in it.
#[test]
fn without_faults_nothing_is_lost() {
    for voters in 1..=5 {
        let simulation = Simulation::new(1).voters(voters).learners(1).faults(Faults::NONE);
        let report = simulation.clients(3).storm(Duration::from_secs(2)).run().expect("all holds");
        assert_eq!((report.faults, report.unknown), (0, 0), "{voters} voters");
        assert_eq!(report.answered, report.requests, "{voters} voters");
        assert!(report.answered > 50, "{} answers of {voters} voters", report.answered);
    }
}

#[test]
#[should_panic(expected = "a simulation has 1 to 9 voters and at most 60 nodes")]
fn ten_voters_are_too_many() {
    let _ = Simulation::new(1).voters(10);
}

/// Fifty learners follow three voters through a storm.
#[test]
fn many_nodes_are_run_as_few_are() {
    let faults = Faults { lost: 100, isolations: 3, crashes: 3, mends: 3, ..Faults::NONE };
    let simulation = Simulation::new(5).voters(3).learners(50).disks(true).faults(faults);
    let report = simulation.clients(2).storm(Duration::from_secs(2)).run().expect("all holds");
    assert!(report.answered > 20, "{} answers", report.answered);
}
