//! What a leader keeps count of: repeats of operations, bytes, and its rounds.

use bytes::Bytes;

use super::super::Core;
use super::super::detector::Detector;
use super::super::message::Propose;
use super::super::state::{Leader, Role};
use super::super::types::{Index, Payload, Time};
use super::world::{MS, Plan, World};

fn settled() -> (World, usize) {
    let mut world = World::founded(Plan::voters(3));
    world.run_until(2_000 * MS, "a leader, followed by all", World::is_settled);
    let leader = world.leader().expect("one leads");
    (world, leader)
}

fn again(world: &mut World, place: usize, operations: &[&'static str]) {
    let operations = operations.iter().map(|operation| Bytes::from_static(operation.as_bytes()));
    let propose = Propose { retry: true, operations: operations.collect() };
    let taken = world.step(place, |core, _| core.propose_again(propose));
    assert_eq!(taken, Some(Ok(())));
}

fn operations(core: &Core) -> Vec<String> {
    core.log()
        .from(Index(1))
        .filter_map(|(_, entry)| match &entry.payload {
            Payload::Client(operation) => Some(String::from_utf8_lossy(operation).into_owned()),
            _ => None,
        })
        .collect()
}

/// What is sent again while it stands in the log, not yet committed, is left alone;
/// what is new goes in, also beside it and after an earlier look.
#[test]
fn a_repeat_of_what_is_not_committed_yet_is_left_alone() {
    let (mut world, leader) = settled();
    world.isolate(&[leader]);
    assert!(world.propose(leader, "one"));
    again(&mut world, leader, &["one", "two", "one"]);
    assert!(world.propose(leader, "three"));
    again(&mut world, leader, &["two", "three", "four", "four"]);
    assert_eq!(operations(world.core(leader)), ["one", "two", "three", "four"]);
}

/// What is committed is forgotten: a repeat of it goes in, and the sessions refuse
/// it. Else a number that the session left free could never be used.
#[test]
fn a_repeat_of_what_is_committed_goes_in_again() {
    let (mut world, leader) = settled();
    again(&mut world, leader, &["one"]);
    again(&mut world, leader, &["one"]);
    assert_eq!(operations(world.core(leader)), ["one"]);
    let end = world.core(leader).log().last_index();
    world.run_until(1_000 * MS, "the commit", |world| world.core(leader).commit_index() == end);
    again(&mut world, leader, &["one"]);
    assert_eq!(operations(world.core(leader)), ["one", "one"]);
}

/// Pitfall 63: without a quorum the leader's log grows until memory is gone. A new
/// leader counts what it holds and has not committed, whoever appended it.
#[test]
fn a_new_leader_counts_the_tail_that_it_did_not_append() {
    let uncommitted = |core: &Core| match &core.role {
        Role::Leader(leader) => leader.unsettled_bytes,
        _ => 0,
    };
    let mut world = World::with_logs(Plan::voters(3), &[&[1, 1, 1, 1], &[1, 1, 1, 1], &[1]], 1);
    world.timeout(0);
    world.run_until(2_000 * MS, "a leader", |world| {
        world.role(0).is_some() && world.core(0).leads()
    });
    let (core, held) = (world.core(0), uncommitted(world.core(0)));
    let tail: usize =
        core.log().from(core.commit_index().next()).map(|(_, entry)| entry.size_bytes()).sum();
    assert!(core.commit_index() == Index(0) && tail > 0, "nothing is committed yet");
    assert_eq!(held, tail);
    world.run_until(2_000 * MS, "all committed", World::is_settled);
    assert_eq!(uncommitted(world.core(0)), 0, "what is committed is counted no more");
}

/// However many rounds begin in a short time, a late answer still tells when the
/// one began that it proves, and never too late a time.
#[test]
fn an_answer_tells_when_its_round_began_among_thousands() {
    let mut leader = Leader {
        term_start: Index(1),
        seq: 0,
        progress: Default::default(),
        heartbeat_at: Time(0),
        rounds: Default::default(),
        reads: Default::default(),
        seen: Default::default(),
        changing: None,
        joining: Vec::new(),
        newcomers: Default::default(),
        farewells: Default::default(),
        detector: Detector::new(false, Time(0)),
        settled: Index(0),
        unsettled_bytes: 0,
    };
    let every = 20;
    for round in 0..25_000 {
        leader.begin_round(30 * MS / 8, Time(round * every));
        assert_eq!(leader.next_seq(), round + 1);
    }
    for late in [0, 1, 100, 2_000, 20_000] {
        let seq = 25_000 - late;
        let (began, known) = (Time((seq - 1) * every), leader.began_at(seq));
        assert!(known.is_some_and(|at| at <= began), "{late} rounds late: {known:?}");
        assert!(known.is_some_and(|at| began.since(at) < 30 * MS / 8), "{late} rounds late");
    }
}

/// Pitfall 63: a leader whose disk is slower than those of its followers commits
/// without it, and still takes no more than it may hold.
#[test]
fn what_waits_for_the_leaders_own_disk_is_counted() {
    let mut world = World::founded(Plan::voters(3));
    let leader = world.leaders()[0];
    let waiting = |world: &World| match &world.core(leader).role {
        Role::Leader(leader) => leader.unsettled_bytes,
        _ => panic!("it leads"),
    };
    assert_eq!(waiting(&world), 0);
    world.nodes[leader].holds_writes = true;
    for number in 0..50 {
        assert!(world.propose(leader, &format!("operation {number}")));
    }
    let end = world.core(leader).log().last_index();
    world.run_until(1_000 * MS, "the commit", |world| world.core(leader).commit_index() == end);
    assert!(waiting(&world) >= 50 * 11, "{} bytes are not on the disk", waiting(&world));
    while world.complete(leader) {}
    assert_eq!(waiting(&world), 0);
}
