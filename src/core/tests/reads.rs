//! Linearizable reads (thesis §6.4), and time that does not behave.

use super::super::message::{HeartbeatReply, Message, ReadIndex};
use super::super::state::Role;
use super::super::types::Index;
use super::world::{Flight, MS, Plan, World};

fn ready(world: &World, place: usize, id: u64) -> Option<Index> {
    world.nodes[place].reads.iter().find(|ready| ready.id == id).map(|ready| ready.index)
}

fn is_heartbeat_reply(flight: &Flight) -> bool {
    matches!(flight.envelope.message, Message::HeartbeatReply(_))
}

/// Pitfall 49: the late duplicate of an answer to an older round confirms nothing.
#[test]
fn an_answer_to_an_older_round_confirms_nothing() {
    let mut world = World::founded(Plan::voters(3));
    let leader = world.leaders()[0];
    let first = world.read(leader).unwrap();
    world.deliver(|flight| flight.from == leader);
    let answers = world.take(is_heartbeat_reply);
    assert_eq!(answers.len(), 2);
    answers.iter().cloned().for_each(|answer| world.arrive(answer));
    assert!(ready(&world, leader, first).is_some());
    // The leader is cut off, and old answers come again.
    world.isolate(&[leader]);
    world.flights.clear();
    let second = world.read(leader).unwrap();
    world.cut.clear();
    for answer in answers {
        world.arrive(answer);
    }
    assert_eq!(ready(&world, leader, second), None);
}

/// Pitfall 49: a number of a later message than was ever sent is refused, and half
/// of the voters confirm nothing.
#[test]
fn a_minority_confirms_nothing() {
    let mut world = World::founded(Plan::voters(4).learners(2));
    let leader = world.leaders()[0];
    let id = world.read(leader).unwrap();
    let seq = match &world.core(leader).role {
        Role::Leader(leader) => leader.seq,
        _ => panic!("it leads"),
    };
    let term = world.core(leader).term();
    world.flights.clear();
    let verified = world.core(leader).log().last_index();
    let answer =
        |seq| Message::HeartbeatReply(HeartbeatReply { term, seq, matched: Index(0), verified });
    let other = (leader + 1) % 4;
    for from in [4, 5, other, other] {
        world.forge(from, leader, answer(seq)).unwrap();
        assert!(world.forge(from, leader, answer(seq + 1)).is_err());
    }
    assert_eq!(ready(&world, leader, id), None);
    world.forge((leader + 2) % 4, leader, answer(seq)).unwrap();
    assert!(ready(&world, leader, id).is_some());
}

/// Pitfalls 49 and 52: a node asks, restarts, and asks anew; the numbers of its reads
/// start again with its run. The answer to the first asking is not an answer to the
/// second, which may have to see more.
#[test]
fn an_answer_to_an_earlier_run_is_no_answer() {
    let mut world = World::founded(Plan::voters(3));
    let leader = world.leaders()[0];
    let (asker, other) = ((leader + 1) % 3, (leader + 2) % 3);
    world.run_for(100 * MS);
    world.flights.clear();
    world.step(asker, |core, _| core.read(1));
    world.deliver(|flight| matches!(flight.envelope.message, Message::ReadIndex(ReadIndex { .. })));
    // The round is under way; its answers wait until the asker has come back.
    world.deliver(|flight| flight.to == other && flight.from == leader);
    let answers = world.take(|flight| is_heartbeat_reply(flight) && flight.from == other);
    assert!(!answers.is_empty());
    world.flights.clear();
    world.crash(asker);
    world.start(asker);
    let believed = world.core(asker).me();
    let incarnation = believed.incarnation;
    world.deliver(|flight| matches!(flight.envelope.message, Message::Hello(_)));
    world.run_until(20 * MS, "the leader to believe the new run", |world| {
        let peers = world.core(leader).peers();
        peers.iter().any(|peer| peer.believed == Some(believed))
    });
    world.flights.clear();
    answers.into_iter().for_each(|answer| world.arrive(answer));
    let answered = world.flights.values().any(|flight| {
        flight.envelope.to.incarnation == incarnation
            && matches!(flight.envelope.message, Message::ReadIndexReply(_))
    });
    assert!(!answered, "the asker's run is over");
}

/// A read that a follower asked for comes one round later, with all that was
/// committed before.
#[test]
fn a_follower_reads_what_was_committed_before() {
    let mut world = World::founded(Plan::voters(5));
    let leader = world.leaders()[0];
    for number in 0..10 {
        assert!(world.propose(leader, &format!("{number}")));
        world.run_for(3 * MS);
        let reader = number % 5;
        let id = world.read(reader).unwrap();
        let committed = world.history.committed();
        world.run_until(10 * MS, "the read", |world| ready(world, reader, id).is_some());
        assert!(ready(&world, reader, id).unwrap() >= committed);
    }
}

/// Pitfall 55: one hour's jump of any node's clock costs at most one election.
#[test]
fn a_jump_of_a_clock_costs_at_most_one_election() {
    for seed in 0..10 {
        for jumper in 0..3 {
            let mut world = World::founded(Plan::voters(3).seed(seed));
            world.run_for(seed * 7 * MS);
            let before = world.history.leaders();
            world.nodes[jumper].ahead += 3_600_000 * MS;
            world.run_for(2_000 * MS);
            assert!(world.history.leaders() <= before + 1, "seed {seed}, node {jumper}");
            assert!(world.is_settled(), "{}", world.describe());
        }
    }
}

/// Pitfall 55: all sleep for an hour, as when the machine below them is suspended.
#[test]
fn a_suspended_machine_costs_at_most_one_election() {
    for seed in 0..10 {
        let mut world = World::founded(Plan::voters(5).seed(seed));
        let before = world.history.leaders();
        world.nodes.iter_mut().for_each(|node| node.ahead += 3_600_000 * MS);
        world.run_for(2_000 * MS);
        assert!(world.history.leaders() <= before + 1, "seed {seed}");
        assert!(world.is_settled(), "{}", world.describe());
    }
}

/// Pitfall 55: a node that is late by less than an election timeout, again and
/// again, deposes nobody.
#[test]
fn late_ticks_of_a_follower_depose_nobody() {
    let mut world = World::founded(Plan::voters(3));
    let leader = world.leaders()[0];
    let before = world.history.leaders();
    for _ in 0..50 {
        world.nodes[(leader + 1) % 3].ahead += 400 * MS;
        world.run_for(100 * MS);
    }
    assert_eq!((world.leaders(), world.history.leaders()), (vec![leader], before));
}

/// The check of reads checks: a leader that confirms them alone, and was deposed, is
/// found out.
#[test]
#[should_panic(expected = "Reads Are Not Stale")]
fn a_stale_read_is_noticed() {
    let mut world = World::founded(Plan::voters(3));
    let old = world.leaders()[0];
    world.isolate(&[old]);
    let new = (old + 1) % 3;
    world.silence();
    world.timeout(new);
    world.deliver(|flight| flight.from != old && flight.to != old);
    let committed = world.history.committed();
    world.propose(new, "seen by the other two only");
    world.deliver(|flight| flight.from != old && flight.to != old);
    assert!(world.history.committed() > committed && world.leaders().contains(&old));
    world.step(old, |core, _| core.bug_confirms_reads_alone());
    world.read(old);
}
