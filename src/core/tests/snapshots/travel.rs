//! The way of a snapshot, over a path that loses and leaders that change.

use super::super::super::types::Index;
use super::super::world::{Faults, MS, Plan, World};
use super::{bounds, elect_instead, is_piece, left_behind, received};

/// Until the first piece has been answered, and more of them are under way.
fn more_pieces(world: &mut World) {
    world.run_until(1_000 * MS, "the second piece", |world| {
        world.flights.values().filter(|flight| is_piece(flight)).count() > 1
    });
}

/// Pitfall 36: half of a snapshot of one leader, and then another snapshot of the next,
/// whose messages count from 1 again.
#[test]
fn the_next_leaders_snapshot_takes_the_place_of_half_of_the_first_ones() {
    let mut world = left_behind(Plan::voters(3), 9);
    world.propose(0, "y");
    world.run_for(5 * MS);
    assert!(world.compact(1), "b's snapshot is another than a's");
    world.cut.clear();
    world.run_until(1_000 * MS, "a piece", |world| received(world, 2) > 0);
    elect_instead(&mut world, 1);
    world.run_until(100 * MS, "a snapshot", |world| world.core(2).log().base_index() > Index(9));
}

/// Pitfall 36: a snapshot that came whole and does not open is sent anew.
#[test]
fn a_snapshot_that_does_not_open_is_sent_anew() {
    let mut world = left_behind(Plan::voters(3), 9);
    world.nodes[2].spoils = 1;
    world.cut.clear();
    world.run_until(3_500 * MS, "the snapshot, once more", World::is_settled);
    assert_eq!((world.nodes[2].spoils, world.installs), (0, 1));
}

/// The same where the leader never learns that it came whole: the pieces that it sends
/// again are the middle of what the follower has begun anew, and all of them are
/// answered.
#[test]
fn a_snapshot_that_does_not_open_is_sent_anew_whatever_the_leader_heard() {
    let mut world = left_behind(Plan::voters(3), 9);
    world.nodes[2].spoils = 1;
    world.cut.clear();
    more_pieces(&mut world);
    world.cut.insert((2, 0));
    world.run_for(2 * MS);
    assert_eq!((world.nodes[2].spoils, received(&world, 2)), (0, 0), "it came whole");
    world.cut.clear();
    world.run_until(3_500 * MS, "the snapshot, once more", World::is_settled);
}

/// A follower that starts anew has lost what had come, and gets all of it.
#[test]
fn a_follower_that_restarts_gets_the_snapshot_from_its_start() {
    let mut world = left_behind(Plan::voters(3), 9);
    world.cut.clear();
    world.run_until(1_000 * MS, "a piece", |world| received(world, 2) > 0);
    world.crash(2);
    world.start(2);
    world.run_until(500 * MS, "a snapshot", World::is_settled);
    assert_eq!(bounds(&world, 2), (9, 9));
}

/// Pitfall 36: a leader that starts anew leads again, and its snapshot goes on where it
/// stood.
#[test]
fn a_leader_that_restarts_goes_on_with_its_snapshot() {
    let mut world = left_behind(Plan { append_bytes: 500, ..Plan::voters(3) }, 9);
    world.cut.clear();
    more_pieces(&mut world);
    let under_way = world.take(is_piece);
    assert_eq!(under_way.len(), 6);
    under_way.into_iter().take(3).for_each(|flight| world.arrive(flight));
    assert_eq!(received(&world, 2), 2_000);
    world.crash(0);
    world.start(0);
    world.silence();
    world.run_for(5 * MS);
    world.timeout(0);
    assert_eq!(received(&world, 2), 2_000);
    world.sent = Some(Vec::new());
    world.run_until(500 * MS, "a snapshot", World::is_settled);
    assert_eq!(bounds(&world, 2).0, 9);
    let pieces = world.sent.iter().flatten().filter(|flight| is_piece(flight)).count();
    assert_eq!(pieces, 4, "the first, which says what it is of, and three that are missing");
}

/// Half of a snapshot is let go when its entries come another way.
#[test]
fn half_a_snapshot_is_forgotten_when_the_log_goes_on() {
    let mut world = left_behind(Plan::voters(3), 9);
    world.cut.clear();
    world.run_until(1_000 * MS, "a piece", |world| received(world, 2) > 0);
    // b has never compacted its log.
    elect_instead(&mut world, 1);
    world.run_until(100 * MS, "the log", |world| bounds(world, 2) == (0, 10));
    world.run_for(100 * MS);
    assert!(world.core(2).incoming.is_none());
    assert_eq!(world.installs, 0);
}

/// Pitfall 40: the log behind a snapshot is kept while that travels. Entries come all
/// the time, the leader compacts its log behind each few, and the path loses: the
/// follower gets one snapshot and catches up.
#[test]
fn a_follower_catches_up_under_load() {
    for seed in 0..10 {
        let plan = Plan { append_bytes: 60, ..Plan::voters(3).seed(seed) };
        let mut world = left_behind(plan, 9);
        world.history.thorough_every = 100;
        world.faults = Faults { lost_percent: 10, latency: (MS, 5 * MS), ..Faults::NONE };
        world.cut.clear();
        let start = world.now;
        let behind = |world: &World| {
            let last = |place: usize| world.core(place).log().last_index().0;
            last(0) - last(2)
        };
        let mut number = 0;
        while behind(&world) > 10 || world.now < start + 500 * MS {
            assert!(world.now < start + 3_000 * MS, "seed {seed}\n{}", world.describe());
            number += 1;
            world.propose(0, &format!("{number}"));
            world.run_for(5 * MS);
            if number % 3 == 0 {
                world.compact(0);
            }
        }
        assert_eq!(world.leaders(), [0]);
        assert_eq!(world.installs, 1, "seed {seed}");
    }
}

/// Pitfall 40, its other end: who is silent keeps no log.
#[test]
fn nothing_is_kept_for_who_is_silent() {
    let mut world = left_behind(Plan::voters(3), 9);
    world.cut.clear();
    more_pieces(&mut world);
    world.isolate(&[2]);
    world.propose(0, "y");
    world.run_for(5 * MS);
    assert!(world.compact(0));
    assert_eq!(bounds(&world, 0), (9, 10), "c may come back for it");
    world.run_for(3_100 * MS);
    world.propose(0, "z");
    world.run_for(5 * MS);
    assert!(world.compact(0));
    assert_eq!(bounds(&world, 0), (11, 11));
    // It gets the rest of what it had the first of, and then what is there now.
    world.cut.clear();
    world.run_until(2_000 * MS, "snapshots", World::is_settled);
}
