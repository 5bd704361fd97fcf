//! Members that come and go by request: what scripts show only clumsily.

use super::super::effect::{Note, RoleName};
use super::super::message::{ChangeOutcome, Message, WhyNot, Wish};
use super::super::types::Index;
use super::world::{Flight, MS, Plan, World};

/// A cluster of three, whose leader is `a`, and as many spares.
fn three_and(spares: usize) -> World {
    let mut world = World::new(Plan::voters(3).spares(spares));
    (0..3).for_each(|place| world.start(place));
    world.run_until(1_000 * MS, "a leader", World::is_settled);
    assert_eq!(world.leaders(), [0]);
    world
}

fn remove(world: &mut World, asked: usize, place: usize) {
    let name = world.nodes[place].name.clone();
    assert!(world.wish(asked, Wish::Remove { name }));
}

fn answered(world: &mut World, place: usize) -> ChangeOutcome {
    world.run_until(5_000 * MS, "an answer", |world| world.answer(place).is_some());
    world.answer(place).unwrap().outcome.clone()
}

fn done(world: &mut World, place: usize) {
    let outcome = answered(world, place);
    assert!(matches!(outcome, ChangeOutcome::Done { .. }), "{outcome:?}");
}

fn was_told(world: &World, place: usize) -> bool {
    world.nodes[place].notes.iter().any(|(_, _, note)| matches!(note, Note::Removed(_)))
}

fn asks_for_votes(flight: &Flight) -> bool {
    matches!(flight.envelope.message, Message::PreVote(_) | Message::RequestVote(_))
}

/// A newcomer that remembers another cluster is refused, and its hello, which is still
/// being answered then, is nobody's any more: its name stands in no file and no log.
#[test]
fn a_newcomer_of_another_cluster_is_refused() {
    let mut world = three_and(1);
    let mut elsewhere = World::founded(Plan::voters(1).seed(9));
    elsewhere.propose(0, "elsewhere");
    let disk = elsewhere.disks[&elsewhere.nodes[0].incarnation].clone();
    assert_ne!(disk.hard.cluster, world.core(0).hard().cluster);
    let incarnation = world.nodes[3].incarnation;
    world.disks.insert(incarnation, disk);
    world.start(3);
    let wish = world.adding(3, true);
    assert!(world.wish(0, wish));
    assert_eq!(answered(&mut world, 0), ChangeOutcome::Refused(WhyNot::Foreign));
    assert_eq!(world.core(0).members().unwrap().members.len(), 3);
}

/// One log counts once: the folder of b, started under another name, is no fourth member.
#[test]
fn one_log_is_one_member() {
    let mut world = three_and(1);
    world.crash(1);
    world.nodes[3].incarnation = world.nodes[1].incarnation;
    world.start(3);
    for voter in [true, false] {
        let wish = world.adding(3, voter);
        assert!(world.wish(0, wish));
        let outcome = answered(&mut world, 0);
        assert_eq!(outcome, ChangeOutcome::Refused(WhyNot::AlreadyMember));
    }
}

/// A removed member asks nobody, so whoever speaks to it anew has to be asked by it all
/// the same: else what one lost echo leaves behind is silence for ever.
#[test]
fn who_is_added_again_and_missed_an_echo_finds_its_leader() {
    let mut world = three_and(0);
    world.run_for(1_000 * MS);
    remove(&mut world, 0, 2);
    done(&mut world, 0);
    world.run_for(100 * MS);
    assert_eq!(world.role(2), Some(RoleName::Removed));
    // The others are other runs by now, which c has not met.
    [0, 1].iter().for_each(|&place| world.crash(place));
    [0, 1].iter().for_each(|&place| world.start(place));
    world.run_until(3_000 * MS, "a leader", World::is_settled);
    let leader = world.leader().unwrap();
    let wish = world.adding(2, true);
    assert!(world.wish(leader, wish));
    // c echoes and asks in its turn, and gets no answer before it is a member.
    let asks = |flight: &Flight| flight.from == 2 && flight.to == leader;
    world.run_until(1_000 * MS, "c to ask", |world| world.flights.values().any(asks));
    world.cut.insert((leader, 2));
    let named = |world: &World| world.core(leader).members().unwrap().named("c").is_some();
    world.run_until(1_000 * MS, "c to be a member", named);
    world.run_for(2_500 * MS);
    world.cut.clear();
    done(&mut world, leader);
}

/// Pitfall 43: who was cut off when it was removed, and comes back when all the others
/// are other runs, is told nevertheless.
#[test]
fn who_comes_back_to_strangers_is_told_that_it_was_removed() {
    let mut world = three_and(0);
    // By now all have heard of each other that none is fresh any more.
    world.run_for(1_000 * MS);
    world.isolate(&[2]);
    remove(&mut world, 0, 2);
    done(&mut world, 0);
    world.run_for(2_000 * MS);
    for place in [0, 1] {
        world.crash(place);
        world.start(place);
    }
    world.run_until(3_000 * MS, "a leader", World::is_settled);
    world.run_for(30_000 * MS);
    world.cut.clear();
    world.run_until(5_000 * MS, "c to know", |world| was_told(world, 2));
    world.sent = Some(Vec::new());
    world.run_for(2_000 * MS);
    assert!(!world.sent.iter().flatten().any(asks_for_votes));
}

/// Pitfall 43: a leader that was cut off wrote a change of its own that stands further on
/// than its own removal: it is told, and believes it.
#[test]
fn a_change_that_came_to_nothing_hides_no_removal() {
    let mut world = three_and(1);
    world.start(3);
    world.isolate(&[0]);
    world.propose(0, "lost");
    world.propose(0, "lost as well");
    remove(&mut world, 0, 2);
    let own = world.core(0).configurations.current_index();
    assert_eq!(own, Index(5));
    world.run_until(2_000 * MS, "another leader", |world| {
        world
            .leaders()
            .iter()
            .any(|&leader| leader != 0 && world.core(leader).commit_index() >= Index(3))
    });
    world.run_for(300 * MS);
    let leader = world.leader().unwrap();
    remove(&mut world, leader, 0);
    done(&mut world, leader);
    assert_eq!(world.core(leader).configurations.current_index(), Index(4));
    world.cut.clear();
    world.run_until(5_000 * MS, "a to know", |world| was_told(world, 0));
    assert_eq!(world.role(0), Some(RoleName::Removed));
}

/// An old folder that is put back is told that its time is over, also when the first
/// words to it are lost.
#[test]
fn an_old_folder_is_told_though_the_first_words_are_lost() {
    let mut world = three_and(0);
    world.crash(2);
    world.forget(2);
    world.start(2);
    world.run_until(2_000 * MS, "c to be back", World::is_settled);
    world.run_for(1_000 * MS);
    world.crash(2);
    world.put_back(2);
    world.start(2);
    let removed = |flight: &Flight| matches!(flight.envelope.message, Message::Removed(_));
    world.run_until(1_000 * MS, "the news", |world| {
        world.flights.values().filter(|flight| removed(flight)).count() == 2
    });
    assert_eq!(world.take(removed).len(), 2);
    world.run_until(5_000 * MS, "c to know", |world| was_told(world, 2));
    world.sent = Some(Vec::new());
    world.run_for(2_000 * MS);
    assert!(!world.sent.iter().flatten().any(asks_for_votes));
    assert_eq!((world.role(2), world.leaders()), (Some(RoleName::Removed), vec![0]));
}
