//! Disks that are slow, and disks that hang.

use super::super::effect::{Effects, Note, RoleName};
use super::super::message::{Envelope, Heartbeat, Message};
use super::super::types::{Index, Time, WriteNumber};
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

/// Who follows hears its leader, so nothing else is ever due: that its disk hangs is told
/// all the same, once, and that it has finished as soon as it has. Here a turn ticks only
/// when something was due before it.
#[test]
fn a_disk_that_hangs_is_told_of_by_who_follows() {
    let mut world = World::founded(Plan::voters(3));
    let leader = world.leaders()[0];
    let follower = (leader + 1) % 3;
    world.nodes[follower].holds_writes = true;
    world.propose(leader, "one");
    world.run_for(10 * MS);
    let (from, cluster) = (world.core(leader).me(), world.core(leader).hard().cluster);
    let mut core = world.nodes[follower].core.take().expect("it runs");
    let mut effects = Effects::default();
    let mut warnings: Vec<(Time, String)> = Vec::new();
    let mut now = world.clock(follower);
    let hangs_at = now.plus(PATIENCE);
    for seq in 1_000..1_100 {
        let due = core.deadline();
        now = now.plus(30 * MS);
        let beat = Heartbeat { term: core.term(), seq, leader_commit: Index(0), quorum_age_us: 0 };
        let (to, message) = (core.me(), Message::Heartbeat(beat));
        let cluster = cluster.expect("it was founded");
        core.receive(Envelope { cluster, from, to, message }, now).expect("it is taken");
        if now >= due {
            core.tick(now);
        }
        core.flush(now, &mut effects);
        warnings.extend(said(&effects).map(|text| (now, text)));
    }
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].1.contains("its disk has not finished"), "{warnings:?}");
    // The write was under way for up to 10 ms before, and a heartbeat wakes it.
    assert!(warnings[0].0 <= hangs_at.plus(30 * MS), "{warnings:?}, for {hangs_at:?}");
    // Its last write, and all before it.
    core.written(WriteNumber(2), now);
    core.flush(now, &mut effects);
    assert!(said(&effects).any(|text| text.contains("its disk has finished")));
}

fn said(effects: &Effects) -> impl Iterator<Item = String> {
    effects.notes.iter().filter_map(|told| match &told.note {
        Note::Warning(text) => Some(text.clone()),
        _ => None,
    })
}
