//! Who counts: lives, learners, and those that came back with nothing.

use super::super::effect::RoleName;
use super::super::message::{AppendEntriesReply, AppendOutcome, Message, PreVoteReply};
use super::super::state::{Refused, Role};
use super::super::types::{Index, Life};
use super::world::{Faults, Flight, MS, Plan, World};

pub(super) fn leader_seq(world: &World, leader: usize) -> u64 {
    match &world.core(leader).role {
        Role::Leader(leader) => leader.seq,
        _ => panic!("it leads"),
    }
}

/// Pitfall 44: acknowledgements of learners count for nothing.
#[test]
fn learners_commit_nothing() {
    let mut world = World::founded(Plan::voters(3).learners(3));
    let leader = world.leaders()[0];
    let others: Vec<usize> = (0..3).filter(|place| *place != leader).collect();
    others.iter().for_each(|&place| world.crash(place));
    let before = world.core(leader).commit_index();
    world.propose(leader, "alone");
    world.run_for(100 * MS);
    for learner in 3..6 {
        assert_eq!(world.core(learner).log().last_index(), before.next(), "it has the entry");
    }
    assert_eq!(world.core(leader).commit_index(), before);
}

/// Pitfalls 43 and 44, as far as learners go: a learner that hears nobody stands for
/// nothing, and nobody asks it for a vote.
#[test]
fn learners_neither_stand_nor_are_asked() {
    let mut world = World::founded(Plan::voters(2).learners(2));
    world.sent = Some(Vec::new());
    world.crash(0);
    world.crash(1);
    world.run_for(3_000 * MS);
    let election = |flight: &Flight| {
        matches!(flight.envelope.message, Message::PreVote(_) | Message::RequestVote(_))
    };
    assert!(!world.sent.as_ref().unwrap().iter().any(election));
    world.start(0);
    world.start(1);
    world.run_until(3_000 * MS, "a leader", World::is_settled);
    let asked = world.sent.take().unwrap().into_iter().filter(election);
    assert!(asked.map(|flight| flight.to).all(|to| to < 2));
}

/// Pitfall 45: an old life's vote and acknowledgement, still under way when the name
/// came back empty, are not taken for the new one's; nor does the new one count.
#[test]
fn what_an_old_life_said_counts_no_more() {
    let mut world = World::founded(Plan::voters(3));
    let leader = world.leaders()[0];
    let lost = (leader + 1) % 3;
    let other = (leader + 2) % 3;
    world.crash(other);
    world.propose(leader, "precious");
    world.run_for(MS);
    let acknowledgement = world
        .take(|f| f.from == lost && matches!(f.envelope.message, Message::AppendEntriesReply(_)));
    assert_eq!(acknowledgement.len(), 1);
    world.flights.clear();
    world.crash(lost);
    world.forget(lost);
    world.start(lost);
    world.run_for(20 * MS);
    let before = world.core(leader).commit_index();
    let old = acknowledgement[0].envelope.clone();
    let taken = world.step(leader, |core, now| core.receive(old, now)).unwrap();
    assert_eq!(taken, Err(Refused::NotBelieved));
    // The new life says that it has all, and counts for nothing.
    let index = world.core(leader).log().last_index();
    let (term, seq) = (world.core(leader).term(), leader_seq(&world, leader));
    let outcome = AppendOutcome::Matched { index };
    let m = Message::AppendEntriesReply(AppendEntriesReply { term, seq, outcome });
    let envelope = super::super::message::Envelope {
        cluster: world.core(leader).hard().cluster.unwrap(),
        from: world.core(lost).me(),
        to: world.core(leader).me(),
        message: m,
    };
    let _ = world.step(leader, |core, now| core.receive(envelope, now));
    assert_eq!(world.core(leader).commit_index(), before);
}

/// Pitfall 45: a minority loses its memory, one after the other and at once, with
/// what was committed on it; nothing committed is lost. The checks see to that.
#[test]
fn a_minority_may_lose_its_memory() {
    for (voters, lost) in [(3, 1), (5, 2), (7, 3)] {
        for seed in 0..10 {
            let mut world = World::founded(Plan::voters(voters).seed(seed));
            let leader = world.leaders()[0];
            world.propose(leader, "precious");
            world.run_until(100 * MS, "a commit", World::is_settled);
            // The leader is among them.
            let gone: Vec<usize> = (leader..leader + lost).map(|place| place % voters).collect();
            gone.iter().for_each(|&place| world.crash(place));
            gone.iter().for_each(|&place| world.forget(place));
            gone.iter().for_each(|&place| world.start(place));
            world.run_until(5_000 * MS, "healing", World::is_settled);
            assert_eq!(world.history.times_committed(b"precious"), 1);
            let votes = |world: &World| {
                let members = world.core(world.leader().unwrap()).members().unwrap();
                gone.iter().all(|&place| members.is_voter(world.nodes[place].incarnation))
            };
            world.run_until(2_000 * MS, "their votes back", votes);
        }
    }
}

/// Pitfall 47: a file that grew from one node to five is given to all; four empty
/// nodes are a majority of the file, and found nothing: the one remembers.
#[test]
fn a_longer_file_founds_no_second_cluster() {
    let mut world = World::new(Plan::voters(5));
    let cluster = {
        let mut small = World::founded(Plan::voters(1).seed(9));
        small.propose(0, "precious");
        small.disks.get(&small.nodes[0].incarnation).unwrap().clone()
    };
    world.disks.insert(world.nodes[0].incarnation, cluster);
    // The record names the small world's incarnation.
    let small = World::new(Plan::voters(1).seed(9)).nodes[0].incarnation;
    let disk = world.disks.remove(&world.nodes[0].incarnation).unwrap();
    world.disks.insert(small, disk);
    world.nodes[0].incarnation = small;
    for place in 1..5 {
        world.start(place);
    }
    world.run_for(10_000 * MS);
    assert_eq!(world.leaders(), [] as [usize; 0], "four of five wait for the fifth");
    world.start(0);
    world.run_for(3_000 * MS);
    assert_eq!(world.leaders(), [0]);
    assert!((1..5).all(|place| world.role(place) == Some(RoleName::Fresh)));
    assert_eq!(world.core(0).members().unwrap().members.len(), 1);
}

/// Pitfall 48: one node alone restarts with its memory; two nodes lose one memory,
/// and stop; the memory of the other is not touched.
#[test]
fn small_clusters_restart() {
    let mut world = World::founded(Plan::voters(1));
    world.propose(0, "precious");
    world.crash(0);
    world.start(0);
    world.run_until(1_000 * MS, "a leader", World::is_settled);
    assert_eq!(world.core(0).commit_index(), Index(4));

    let mut world = World::founded(Plan::voters(2));
    world.propose(0, "precious");
    world.run_until(100 * MS, "a commit", World::is_settled);
    let log = world.core(0).log().last_index();
    world.crash(0);
    world.crash(1);
    world.forget(1);
    world.start(0);
    world.start(1);
    world.run_for(5_000 * MS);
    assert_eq!(world.leaders(), [] as [usize; 0]);
    assert_eq!(world.core(0).log().last_index(), log);
}

/// A restarted learner has nothing to say by itself. If all that was said between
/// it and the leader at its start is lost, the leader still finds its new run.
#[test]
fn a_restarted_learner_is_found_again() {
    let mut world = World::founded(Plan::voters(1).learners(1));
    // The leader asks a fresh node without end; this one is fresh no longer.
    world.run_for(2_000 * MS);
    world.crash(1);
    world.start(1);
    // The learner believes the leader. The leader hears its first hello and no
    // more, and gives up asking after some ten seconds.
    world.run_until(100 * MS, "the leader's echo", |world| {
        world.core(1).peers()[0].believed.is_some()
    });
    assert_ne!(world.core(0).peers()[0].believed, Some(world.core(1).me()));
    world.cut.insert((1, 0));
    world.flights.retain(|_, flight| flight.from == 0);
    world.run_for(20_000 * MS);
    world.cut.clear();
    world.run_until(2_000 * MS, "the two to speak again", World::is_settled);
}

/// A message is for one run: what was meant for an earlier one is dropped.
#[test]
fn what_is_meant_for_an_earlier_run_is_dropped() {
    let mut world = World::founded(Plan::voters(3));
    let old = world.core(1).me();
    world.crash(1);
    world.start(1);
    world.run_for(10 * MS);
    let message = Message::PreVoteReply(PreVoteReply {
        round: 1,
        term: world.core(0).term().next(),
        granted: false,
    });
    let envelope = super::super::message::Envelope {
        cluster: world.core(0).hard().cluster.unwrap(),
        from: world.core(0).me(),
        to: old,
        message,
    };
    let before = world.core(1).term();
    let taken = world.step(1, |core, now| core.receive(envelope.clone(), now)).unwrap();
    assert_eq!(taken, Err(Refused::NotForThisLife));
    let stranger = Life { run: super::super::types::Run(5), ..world.core(0).me() };
    let me = world.core(1).me();
    let forged = super::super::message::Envelope { from: stranger, to: me, ..envelope };
    let taken = world.step(1, |core, now| core.receive(forged, now)).unwrap();
    assert_eq!(taken, Err(Refused::NotBelieved));
    assert_eq!(world.core(1).term(), before);
}

/// The founding goes through loss, repeats and delay, in bounded time.
#[test]
fn a_bad_network_delays_the_founding_and_no_more() {
    for seed in 0..50 {
        let mut world = World::new(Plan::voters(5).learners(1).seed(seed));
        world.faults = Faults {
            latency: (MS, 20 * MS),
            lost_percent: 30,
            repeated_percent: 20,
            late_percent: 10,
            late: 500 * MS,
            ..Faults::NONE
        };
        for place in 0..6 {
            world.start(place);
        }
        world.run_until(10_000 * MS, "a founding", |world| world.history.leaders() > 0);
    }
}

/// A fresh node is started anew within a second of its first start, and the founding
/// names its second life. A leader that has heard the first life only, just before,
/// does not admit that one: it would supersede the living one for good.
#[test]
fn the_life_that_is_named_is_not_superseded_by_an_older_one() {
    let mut world = World::new(Plan::voters(3));
    // c speaks to b, and dies; b has its word that it is fresh.
    world.start(1);
    world.start(2);
    world.run_for(20 * MS);
    world.crash(2);
    world.forget(2);
    // The second life speaks to a, and b hears nothing of it.
    world.cut.extend([(1, 2), (2, 1)]);
    world.start(2);
    world.start(0);
    world.run_until(500 * MS, "a record", |world| world.core(0).log().last_index() > Index(0));
    world.deliver(|flight| matches!(flight.envelope.message, Message::Found(_)));
    world.take(|flight| matches!(flight.envelope.message, Message::PreVote(_)));
    world.timeout(1);
    world.run_until(20 * MS, "b to lead", |world| world.leaders() == [1]);
    world.run_for(400 * MS);
    world.cut.clear();
    world.run_until(5_000 * MS, "healing", World::is_settled);
    assert!((0..3).all(|place| world.role(place) != Some(RoleName::Learner)));
    assert_eq!(world.core(0).members().unwrap().members.len(), 3);
}
