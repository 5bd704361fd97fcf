//! Disks that are slow, and disks that hang.

use super::super::effect::RoleName;
use super::super::message::Message;
use super::super::types::Index;
use super::world::{Faults, Flight, MS, Plan, World};

/// A write that takes longer than this hangs: five of the longest election timeouts.
const PATIENCE: u64 = 5 * 300 * MS;

fn asks_for_votes(flight: &Flight) -> bool {
    matches!(flight.envelope.message, Message::PreVote(_) | Message::RequestVote(_))
}

fn asked(world: &World, place: usize) -> bool {
    world.sent.iter().flatten().any(|flight| flight.from == place && asks_for_votes(flight))
}

/// Pitfall 62: the leader's disk hangs, and its heartbeats go on. It steps down after a
/// bounded time and does not stand while it hangs; another leads, and when the write is
/// done it follows with all that it missed.
#[test]
fn a_leader_whose_disk_hangs_lets_another_lead() {
    let mut world = World::founded(Plan::voters(3));
    let leader = world.leaders()[0];
    let before = world.core(leader).term();
    world.nodes[leader].holds_writes = true;
    world.propose(leader, "x");
    world.run_for(PATIENCE - 20 * MS);
    assert_eq!(world.leaders(), [leader], "a write may take its time");
    world.run_for(20 * MS + 60 * MS);
    assert_ne!(world.role(leader), Some(RoleName::Leader));
    world.run_for(600 * MS);
    let next = world.leader().expect("another leads");
    assert!(next != leader && world.core(next).term() > before);
    world.crash(next);
    for _ in 0..50 {
        world.run_for(50 * MS);
        assert_eq!(world.role(leader), Some(RoleName::Follower), "it could not vote for itself");
    }
    world.start(next);
    world.run_for(1_000 * MS);
    let next = world.leader().expect("another leads once more");
    assert_ne!(next, leader);
    assert!(world.propose(next, "y"));
    world.run_for(50 * MS);
    assert_eq!(world.history.times_committed(b"x"), 1);
    assert_eq!(world.history.times_committed(b"y"), 1);
    world.nodes[leader].holds_writes = false;
    world.run_until(1_000 * MS, "healing", World::is_settled);
    assert_eq!(world.leaders(), [next]);
}

/// Pitfall 62: whoever hears nobody while its disk hangs stands when the write is done.
#[test]
fn who_is_alone_with_a_disk_that_hangs_stands_later() {
    let mut world = World::founded(Plan::voters(3));
    let leader = world.leaders()[0];
    let other = (leader + 1) % 3;
    world.nodes[other].holds_writes = true;
    world.propose(leader, "x");
    world.run_for(PATIENCE + 100 * MS);
    assert_eq!(world.leaders(), [leader], "a follower's disk is not the leader's");
    world.crash(leader);
    world.sent = Some(Vec::new());
    world.run_for(150 * MS);
    world.isolate(&[other]);
    world.run_for(2_000 * MS);
    assert!(!asked(&world, other));
    assert_eq!(world.leaders(), [] as [usize; 0]);
    world.nodes[other].holds_writes = false;
    world.run_for(400 * MS);
    assert!(asked(&world, other));
}

/// A node alone in its cluster leads again when its write is done.
#[test]
fn a_leader_alone_waits_for_its_disk() {
    let mut world = World::founded(Plan::voters(1));
    world.nodes[0].holds_writes = true;
    world.propose(0, "x");
    world.run_for(PATIENCE + 100 * MS);
    assert_eq!(world.role(0), Some(RoleName::Follower));
    world.nodes[0].holds_writes = false;
    world.run_until(1_000 * MS, "its return", World::is_settled);
    assert_eq!(world.history.times_committed(b"x"), 1);
}

/// A disk on which each write takes its time, one after the other, does not hang.
#[test]
fn a_slow_disk_does_not_hang() {
    let mut world = World::founded(Plan::voters(3));
    let leader = world.leaders()[0];
    let term = world.core(leader).term();
    world.faults = Faults { write: (100 * MS, 300 * MS), ..Faults::NONE };
    for number in 0..50 {
        world.propose(leader, &format!("{number}"));
        world.run_for(100 * MS);
    }
    world.run_until(2_000 * MS, "the last write", World::is_settled);
    assert_eq!((world.leaders(), world.core(leader).term()), (vec![leader], term));
    assert_eq!(world.core(leader).log().last_index(), Index(52));
}
