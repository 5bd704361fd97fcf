//! Paths that are long, or lose the one datagram that matters: nothing stalls, no
//! leader falls, and nothing is sent again that is on its way.

use serde_json::json;

use super::cluster::{Cluster, MILLISECOND, SECOND};
use crate::request::Request;

fn on_a_path_of(trip: u64) -> (Cluster, usize) {
    let mut cluster = Cluster::new(3, true, 3);
    cluster.trip = trip;
    let leader = cluster.wait_for_leader();
    let other = (leader + 1) % 3;
    for node in [leader, other] {
        cluster.request(node, json!("first"));
    }
    cluster.run_until(8 * SECOND, |cluster| cluster.open_requests() == 0);
    cluster.run(SECOND);
    (cluster, leader)
}

/// A read whose answer takes longer than the node is patient is served by the
/// answer to its first asking.
#[test]
fn reads_are_served_on_paths_slower_than_patience() {
    for trip in [10, 16, 35] {
        let (mut cluster, leader) = on_a_path_of(trip * MILLISECOND);
        for node in 0..3 {
            let read = cluster.ask(node, Request::query(&()));
            // To the leader and back, and its round; not once more after patience.
            cluster.run_until(5 * trip * MILLISECOND, |cluster| cluster.is_answered(read));
            assert!(cluster.answer(read).is_ok(), "trip of {trip} ms, node {node}");
        }
        assert!(cluster.core_mut(leader).leads());
    }
}

/// Pitfall 49's other side: rounds of reads follow so fast that an answer comes
/// when hundreds have begun; it still proves a majority.
#[test]
fn many_reads_depose_no_leader() {
    for (trip, every) in [(20_000, 500), (2_000, 50), (500, 20)] {
        let (mut cluster, leader) = on_a_path_of(trip);
        let end = cluster.now().plus(SECOND / 2);
        while cluster.now() < end {
            cluster.ask(leader, Request::query(&()));
            cluster.run(every);
            assert!(cluster.core_mut(leader).leads(), "a read each {every} us, trip of {trip} us");
        }
        cluster.run_until(SECOND, |cluster| cluster.open_requests() == 0);
    }
}

/// A new leader's first append is lost: what is asked next is the same, and not the
/// whole log.
#[test]
fn a_lost_probe_does_not_send_the_whole_log() {
    let mut cluster = Cluster::new(3, false, 5);
    let old = cluster.wait_for_leader();
    let value = |number: i32| json!({ "number": number, "padding": "x".repeat(100) });
    for _ in 0..20 {
        cluster.request_together(old, (0..500).map(value));
        cluster.run(20 * MILLISECOND);
    }
    cluster.run_until(SECOND, |cluster| cluster.open_requests() == 0);
    cluster.run(SECOND);
    cluster.isolate_leader();
    while (0..3).all(|node| node == old || !cluster.core_mut(node).leads()) {
        cluster.run_one();
    }
    let before = cluster.bytes;
    cluster.lose_travelling();
    let new = cluster.wait_for_leader_other_than(old);
    let write = cluster.request(new, json!("after"));
    cluster.run_until(SECOND, |cluster| cluster.is_answered(write));
    let sent = cluster.bytes - before;
    assert!(sent < 100_000, "{sent} bytes for one commit behind a log of a megabyte");
}

/// On a path slower than the first patience the round trip is measured, and a burst
/// goes over it once.
#[test]
fn a_burst_goes_once_over_a_slow_path() {
    for trip in [5, 16, 20, 30] {
        let (mut cluster, leader) = on_a_path_of(trip * MILLISECOND);
        let before = cluster.bytes;
        let value = |number: i32| json!({ "number": number, "padding": "x".repeat(1000) });
        cluster.request_together(leader, (0..1000).map(value));
        cluster.run_until(3 * SECOND, |cluster| cluster.open_requests() == 0);
        cluster.run(SECOND / 2);
        let sent = cluster.bytes - before;
        assert!(sent < 2_700_000, "trip of {trip} ms: {sent} bytes for a megabyte to two");
    }
}

/// A command of many datagrams from a follower, on a slow path: one copy travels,
/// and the log holds few.
#[test]
fn a_long_command_is_not_sent_again_while_it_travels() {
    for (size, jitter) in [(20_000, 0), (700_000, 0), (700_000, 3_000), (1_000_000, 200)] {
        let (mut cluster, leader) = on_a_path_of(20 * MILLISECOND);
        cluster.jitter = jitter;
        let before = cluster.bytes;
        let write = cluster.request((leader + 1) % 3, json!("x".repeat(size)));
        cluster.run_until(5 * SECOND, |cluster| cluster.is_answered(write));
        assert!(cluster.answer(write).is_ok(), "{size} bytes: {:?}", cluster.answer(write));
        cluster.run(3 * SECOND);
        let sent = cluster.bytes - before;
        // Once to the leader, once to each follower, and what losses are taken for.
        assert!(sent < 5 * size as u64 + 200_000, "{size} bytes, jitter {jitter}: {sent} sent");
    }
}

/// A command that its node sees in the log, where it waits for a majority, has
/// arrived: it is not sent again.
#[test]
fn a_command_that_is_seen_in_the_log_is_not_sent_again() {
    let mut cluster = Cluster::new(5, false, 6);
    let leader = cluster.wait_for_leader();
    let other = (leader + 1) % 5;
    cluster.request(other, json!("session"));
    cluster.run_until(SECOND, |cluster| cluster.open_requests() == 0);
    for node in (0..5).filter(|node| ![leader, other].contains(node)) {
        cluster.isolate(node);
    }
    let before = cluster.bytes_of(other);
    cluster.request(other, json!("x".repeat(20_000)));
    cluster.run(220 * MILLISECOND);
    assert!(cluster.core_mut(leader).leads() && cluster.open_requests() == 1);
    let sent = cluster.bytes_of(other) - before;
    assert!((20_000..30_000).contains(&sent), "{sent} bytes for a command of 20,000");
}

/// The first command is lost, and more than a session remembers come behind it:
/// all are committed once, and the log holds little more.
#[test]
fn a_lost_command_holds_up_no_more_than_the_window() {
    let mut cluster = Cluster::new(3, false, 5);
    let leader = cluster.wait_for_leader();
    let other = (leader + 1) % 3;
    cluster.request(other, json!("session"));
    cluster.run_until(SECOND, |cluster| cluster.open_requests() == 0);
    cluster.run_to_quiet();
    cluster.request(other, json!("lost"));
    cluster.lose_travelling();
    let total = 140_000;
    for wave in 0..14 {
        cluster
            .request_together(other, (0..total / 14).map(|number| json!(wave * 10_000 + number)));
        cluster.run(2 * MILLISECOND);
    }
    cluster.run_until(3 * SECOND, |cluster| cluster.open_requests() == 0);
    assert!((0..total as u64 + 2).all(|ticket| cluster.answer(ticket).is_ok()));
    let last = cluster.core_mut(leader).log().last_index().0;
    assert!(last < total as u64 + 1000, "{last} entries for {total} commands");
}

/// Entries of more than a datagram overtake each other when a fragment is lost, and
/// what came too early is refused. It is sent again at once, though its fragments
/// have arrived. (Seed 102 of the simulator: 0.2 s for each dozen of entries.)
#[test]
fn long_entries_that_overtook_each_other_are_sent_again_at_once() {
    let mut worst = 0;
    for seed in 0..4 {
        let mut cluster = Cluster::new(3, true, seed);
        let leader = cluster.wait_for_leader();
        cluster.request(leader, json!("first"));
        cluster.run_until(SECOND, |cluster| cluster.open_requests() == 0);
        cluster.faults(20);
        let value = |number: i32| json!({ "number": number, "padding": "x".repeat(3_000) });
        cluster.request_together(leader, (0..200).map(value));
        cluster.run(50 * MILLISECOND);
        cluster.faults(0);
        let healed = cluster.now();
        while (0..3).any(|node| cluster.committed(node).len() < 201) {
            cluster.run(10 * MILLISECOND);
        }
        worst = worst.max(cluster.now().since(healed));
    }
    assert!(worst < SECOND / 2, "{worst} us until all had 200 entries of 3,000 bytes");
}

/// What waited for a leader long is asked of the new one as if for the first time: if
/// that is lost, too, it is not waited for as for one that never answers.
#[test]
fn a_new_leader_is_asked_again_as_soon_as_any() {
    for seed in 0..5 {
        let mut cluster = Cluster::new(3, false, seed);
        let old = cluster.wait_for_leader();
        cluster.request(old, json!("session"));
        cluster.run_until(SECOND, |cluster| cluster.open_requests() == 0);
        let other = (old + 1) % 3;
        cluster.request(other, json!("session"));
        cluster.run_until(SECOND, |cluster| cluster.open_requests() == 0);
        cluster.isolate(other);
        let asked = [cluster.request(other, json!(1)), cluster.ask(other, Request::query(&()))];
        cluster.run(5 * SECOND);
        cluster.heal();
        cluster.run_while(SECOND, |cluster| cluster.core_mut(other).leader().is_none());
        cluster.lose_travelling();
        let from = cluster.now();
        cluster.run_until(2 * SECOND, |cluster| asked.iter().all(|one| cluster.is_answered(*one)));
        let took = cluster.now().since(from);
        assert!(took < 150 * MILLISECOND, "seed {seed}: {took} us");
    }
}

/// What waited while no leader was known is sent once when one is heard, and at once. (A
/// fuzzer found that it was sent again with the next datagram.)
#[test]
fn a_leader_that_is_heard_again_is_asked_once() {
    for seed in 0..5 {
        let mut cluster = Cluster::new(3, false, seed);
        let leader = cluster.wait_for_leader();
        let other = (leader + 1) % 3;
        cluster.request(other, json!("session"));
        cluster.run_until(SECOND, |cluster| cluster.open_requests() == 0);
        cluster.isolate(other);
        cluster.run(2 * SECOND);
        assert_eq!(cluster.core_mut(other).leader(), None);
        cluster.request(other, json!("x".repeat(20_000)));
        cluster.heal();
        cluster.run_while(SECOND, |cluster| cluster.core_mut(other).leader().is_none());
        let before = cluster.bytes_of(other);
        cluster.run_until(SECOND, |cluster| cluster.open_requests() == 0);
        let sent = cluster.bytes_of(other) - before;
        assert!(sent < 10_000, "seed {seed}: {sent} bytes after it was sent");
    }
}
