//! What a disk holds when a crash finds a snapshot half written (pitfall 37).

use super::super::super::effect::Effects;
use super::super::super::message::Message;
use super::super::super::types::{Index, Time};
use super::super::super::{Core, Saved};
use super::super::world::{MS, Plan, World};
use super::{bounds, entries, envelope, left_behind, whole};
use crate::encoding::snapshot;

/// c has three writes under way: an entry, the snapshot, and the entries behind it.
fn three_writes() -> World {
    let mut world = left_behind(Plan::voters(3), 9);
    world.propose(0, "y");
    world.propose(0, "z");
    world.run_for(5 * MS);
    let term = world.core(0).term();
    world.nodes[2].holds_writes = true;
    let snapshot = world.core(0).snapshot().expect("a has one").clone();
    let before = entries(world.core(1), 4, 4, term);
    let behind = entries(world.core(1), 10, 11, term);
    world.forge(0, 2, Message::AppendEntries(before)).unwrap();
    world.forge(0, 2, whole(term, 20, &snapshot)).unwrap();
    world.forge(0, 2, Message::AppendEntries(behind)).unwrap();
    assert_eq!(world.nodes[2].writes.len(), 3);
    assert_eq!(bounds(&world, 2), (9, 11));
    assert_eq!(world.core(2).durability.durable(), Index(3));
    world
}

/// Pitfall 37: a crash at each write of an install: the log of before, the snapshot
/// alone, or the snapshot and what follows it. What was acknowledged is there, and the
/// node goes on.
#[test]
fn a_crash_at_each_write_of_an_install() {
    for (reached, found) in [(0, (0, 3)), (1, (0, 4)), (2, (9, 9)), (3, (9, 11))] {
        let mut world = three_writes();
        for _ in 0..reached {
            assert!(world.complete(2));
        }
        world.crash(2);
        world.nodes[2].holds_writes = false;
        world.start(2);
        assert_eq!(bounds(&world, 2), found, "after {reached} writes");
        assert_eq!(world.core(2).commit_index(), Index(found.0));
        assert_eq!(world.core(2).applicable(), Index(found.0));
        world.cut.clear();
        world.run_until(1_000 * MS, "healing", World::is_settled);
        assert_eq!(world.core(2).log().last_index(), Index(11));
    }
}

/// The same where the crash comes before the node has heard that the write is done.
#[test]
fn a_crash_before_a_write_is_told_to_be_done() {
    for reached in 0..3 {
        let mut world = three_writes();
        for _ in 0..=reached {
            world.write_reaches_disk(2).expect("a write");
        }
        world.crash(2);
        world.nodes[2].holds_writes = false;
        world.start(2);
        world.cut.clear();
        world.run_until(1_000 * MS, "healing", World::is_settled);
    }
}

/// Nothing that comes with a snapshot is acknowledged before it is durable, nor given
/// to a state machine.
#[test]
fn an_install_counts_when_it_is_durable() {
    let mut world = three_writes();
    world.sent = Some(Vec::new());
    let matched = |world: &World| {
        let sent = world.sent.iter().flatten().filter(|flight| flight.from == 2);
        let indexes = sent.filter_map(|flight| match &flight.envelope.message {
            Message::AppendEntriesReply(reply) => match reply.outcome {
                super::super::super::message::AppendOutcome::Matched { index } => Some(index.0),
                _ => None,
            },
            Message::HeartbeatReply(reply) => Some(reply.matched.0),
            _ => None,
        });
        indexes.max().unwrap_or(0)
    };
    let (term, mut seq) = (world.core(0).term(), 30);
    // Committed is up to entry 3 when the snapshot comes: what the first write brings
    // says nothing any more.
    for reached in [3, 3, 9, 11] {
        seq += 1;
        let heartbeat = super::super::super::message::Heartbeat {
            term,
            seq,
            leader_commit: Index(11),
            quorum_age_us: 0,
        };
        world.forge(0, 2, Message::Heartbeat(heartbeat)).unwrap();
        assert_eq!(matched(&world), reached);
        assert_eq!(world.core(2).applicable(), Index(reached));
        world.complete(2);
    }
}

/// A snapshot and the entries behind it may be one write: then they are found together.
#[test]
fn a_snapshot_and_what_follows_in_one_write() {
    let mut world = left_behind(Plan::voters(3), 9);
    world.propose(0, "y");
    world.run_for(5 * MS);
    let term = world.core(0).term();
    let snapshot = world.core(0).snapshot().expect("a has one").clone();
    let piece = envelope(&world, 0, 2, whole(term, 50, &snapshot));
    let append = entries(world.core(1), 10, 10, term);
    let append = envelope(&world, 0, 2, Message::AppendEntries(append));
    let mut core = world.core(2).clone();
    let (now, mut effects) = (Time(world.now), Effects::default());
    core.receive(piece, now).unwrap();
    core.flush(now, &mut effects);
    let (id, data) = effects.assembled.take().expect("it is whole");
    core.install(snapshot::open(id, data).unwrap()).unwrap();
    core.receive(append, now).unwrap();
    core.flush(now, &mut effects);
    let record = core.record(&effects.write.expect("a write"));
    assert!(record.install.is_some());
    assert_eq!((record.from, record.entries.len()), (Some(Index(10)), 1));
    let mut disk = world.disks[&world.nodes[2].incarnation].clone();
    disk.write(&record);
    let Saved { log, snapshot, .. } = disk.saved(world.nodes[2].incarnation);
    assert_eq!((log.base_index(), log.last_index()), (Index(9), Index(10)));
    assert_eq!(snapshot, core.snapshot().cloned());
}

/// A node that restarts knows the members of its snapshot, and what of the log it holds
/// behind it.
#[test]
fn a_restart_finds_what_was_compacted() {
    let plan = Plan { tail_entries: 2, ..Plan::voters(3) };
    let mut world = World::with_logs(plan, &[&[1; 9], &[1; 9], &[1; 9]], 1);
    world.timeout(0);
    world.run_until(2_000 * MS, "a leader, followed by all", World::is_settled);
    for place in 0..3 {
        assert!(world.compact(place));
        assert!(!world.compact(place), "there is nothing new");
        assert_eq!(bounds(&world, place), (9, 11));
    }
    world.propose(0, "x");
    world.run_until(100 * MS, "a commit", World::is_settled);
    let members = world.core(1).members().cloned();
    for place in 0..3 {
        world.crash(place);
        world.start(place);
        let core = world.core(place);
        assert_eq!((bounds(&world, place), core.commit_index()), ((9, 12), Index(11)));
        assert_eq!(core.members().cloned(), members);
        assert_eq!(core.members_at(Index(11)).map(|(stated, _)| *stated), Some(Index(1)));
    }
    world.run_until(2_000 * MS, "healing", World::is_settled);
}

/// A snapshot of the node's own that took so long that the leader's came first changes
/// nothing.
#[test]
fn an_own_snapshot_that_comes_too_late_changes_nothing() {
    let mut world = left_behind(Plan::voters(3), 9);
    let own = world.take_snapshot(2).expect("three entries");
    world.cut.clear();
    world.run_until(1_000 * MS, "a snapshot", World::is_settled);
    world.save(2, own);
    assert_eq!(bounds(&world, 2), (9, 9));
    world.crash(2);
    world.start(2);
    world.run_until(1_000 * MS, "healing", World::is_settled);
    assert_eq!(bounds(&world, 2), (9, 9));
    let index = |core: &Core| core.snapshot().map(|snapshot| snapshot.id.index);
    assert_eq!(index(world.core(2)), Some(Index(9)));
}
