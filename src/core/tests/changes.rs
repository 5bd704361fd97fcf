//! Members that come and go by request: what scripts show only clumsily.

use super::super::effect::{Note, RoleName};
use super::super::message::{ChangeOutcome, Message, WhyNot, Wish};
use super::super::types::{ClusterId, Index};
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
