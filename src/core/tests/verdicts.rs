//! Verdicts as entries of the log: what waits for a commit, whose life is meant, and what
//! snapshots say.

use super::super::message::{Message, Wish};
use super::detector::{all_up, is_up, turns, turns_of, until};
use super::world::{MS, Plan, World};

/// These answer, and write nothing, until `let_write`.
fn hold_writes(world: &mut World, places: &[usize]) {
    places.iter().for_each(|&place| world.nodes[place].holds_writes = true);
}

fn let_write(world: &mut World) {
    for place in 0..world.nodes.len() {
        world.nodes[place].holds_writes = false;
        while world.complete(place) {}
    }
}

fn others(leader: usize) -> [usize; 2] {
    [(leader + 1) % 3, (leader + 2) % 3]
}

/// While a verdict waits for its commit none is proposed of the same member.
#[test]
fn a_verdict_that_waits_is_not_repeated() {
    let mut world = all_up(Plan::voters(3).learners(1));
    let leader = world.leaders()[0];
    let before = world.core(leader).log().last_index();
    hold_writes(&mut world, &others(leader));
    world.crash(3);
    world.run_for(1_000 * MS);
    assert_eq!(is_up(&world, leader, 3), Some(true), "that is not committed");
    assert_eq!(world.core(leader).log().last_index(), before.next());
    let_write(&mut world);
    until(&mut world, 3, false);
}

/// Before it has committed in its own term a leader may not know what is agreed: it
/// proposes nothing.
#[test]
fn who_has_committed_nothing_judges_nobody() {
    let mut world = all_up(Plan::voters(3).learners(1));
    let dead = world.leaders()[0];
    world.crash(dead);
    world.run_until(2_000 * MS, "another leader", |world| !world.leaders().is_empty());
    let leader = world.leaders()[0];
    let before = world.core(leader).log().last_index();
    hold_writes(&mut world, &[3 - dead - leader]);
    world.crash(3);
    world.run_for(1_000 * MS);
    assert_eq!(world.leaders(), [leader]);
    assert_eq!(world.core(leader).log().last_index(), before);
    let_write(&mut world);
    for of in [dead, 3] {
        until(&mut world, of, false);
    }
}

/// Nor while it hands over: its successor has the log by then, and would be behind.
#[test]
fn who_hands_over_judges_nobody() {
    let mut world = all_up(Plan::voters(3).learners(1));
    let leader = world.leaders()[0];
    let before = world.core(leader).log().last_index();
    world.crash(3);
    world.run_for(150 * MS);
    let [to, _] = others(leader);
    let to = world.nodes[to].name.clone();
    assert!(world.wish(leader, Wish::Transfer { to }));
    let start = world.now;
    while world.answer(leader).is_none() {
        assert_eq!(world.core(leader).log().last_index(), before);
        // That it is asked to stand is lost, each time.
        world.take(|flight| matches!(flight.envelope.message, Message::TimeoutNow(_)));
        world.run_for(MS / 2);
    }
    assert!(world.now - start >= 150 * MS, "its silence was complete long before");
    assert_eq!(world.leaders(), [leader]);
    assert!(until(&mut world, 3, false) <= 50 * MS);
}

/// Another life is to have a name: as long as that is not committed neither of the two is
/// judged under it.
#[test]
fn nobody_is_judged_while_the_name_changes_hands() {
    let mut world = all_up(Plan::voters(3));
    let leader = world.leaders()[0];
    let [lost, other] = others(leader);
    let before = turns_of(&world, leader, lost).len();
    hold_writes(&mut world, &[other]);
    world.crash(lost);
    world.forget(lost);
    world.start(lost);
    let incarnation = world.nodes[lost].incarnation;
    world.run_until(1_000 * MS, "its comeback", |world| {
        world.core(leader).members().is_some_and(|members| members.names(incarnation))
    });
    let stated = world.core(leader).log().last_index();
    world.run_for(1_000 * MS);
    assert_eq!(world.core(leader).log().last_index(), stated);
    let_write(&mut world);
    world.run_until(2_000 * MS, "the new life to be up", |world| {
        turns_of(world, leader, lost)[before..] == [false, true]
    });
}

/// A member is not up by what an earlier run of it has answered: this one has said hello,
/// and is not heard.
#[test]
fn each_run_answers_for_itself() {
    let mut world = World::with_logs(Plan::voters(3).judging(), &[&[1], &[1], &[1]], 1);
    world.timeout(0);
    world.run_until(20 * MS, "a leader", |world| world.leaders() == [0]);
    hold_writes(&mut world, &[1, 2]);
    world.run_for(100 * MS);
    assert!(world.core(0).verdicts().iter().next().is_none(), "nothing is committed");
    world.crash(2);
    world.start(2);
    let restarted = world.core(2).me();
    world.run_until(1_000 * MS, "its hello", |world| {
        let known = world.core(0).lives.by_incarnation(restarted.incarnation);
        known.is_some_and(|known| known.believed == Some(restarted))
    });
    world.cut.insert((2, 0));
    let_write(&mut world);
    world.run_until(1_000 * MS, "a verdict", |world| is_up(world, 0, 2).is_some());
    assert_eq!(is_up(&world, 0, 2), Some(false));
    world.cut.clear();
    until(&mut world, 2, true);
    assert_eq!(turns_of(&world, 0, 2), [false, true]);
}

/// To be elected makes nobody forget how often the new leader was down of late.
#[test]
fn a_leader_keeps_its_relapses() {
    let mut world = all_up(Plan::voters(3));
    let (leader, next) = (world.leaders()[0], (world.leaders()[0] + 1) % 3);
    let relapses = |world: &World| {
        world.core(leader).verdicts().of(&world.nodes[next].name).map(|agreed| agreed.relapses)
    };
    for _ in 0..3 {
        world.crash(next);
        until(&mut world, next, false);
        world.start(next);
        until(&mut world, next, true);
    }
    assert_eq!(relapses(&world), Some(2));
    world.crash(next);
    until(&mut world, next, false);
    world.start(next);
    let to = world.nodes[next].name.clone();
    assert!(world.wish(leader, Wish::Transfer { to }));
    world.run_until(150 * MS, "it to lead", |world| world.leaders() == [next]);
    until(&mut world, next, true);
    assert_eq!(relapses(&world), Some(3));
}

/// A node that restarts knows, and tells, what its snapshot says, before it hears anybody.
#[test]
fn a_restart_begins_with_what_the_snapshot_says() {
    let mut world = all_up(Plan::voters(3).learners(1));
    let leader = world.leaders()[0];
    world.crash(3);
    until(&mut world, 3, false);
    let [place, _] = others(leader);
    assert!(world.compact(place));
    let known = world.core(place).verdicts().clone();
    let told = turns(&world, place).len();
    world.crash(place);
    world.isolate(&[place]);
    world.start(place);
    assert_eq!(*world.core(place).verdicts(), known);
    assert_eq!(world.core(place).up_since(), None, "that was another run");
    let told: Vec<_> = turns(&world, place).split_off(told);
    assert_eq!(told.len(), 4);
    assert_eq!(told[3].0, world.nodes[3].name);
    assert!(!told[3].1, "the newest of them: {told:?}");
}

/// A snapshot may cover less than is committed by now: it says who was up as of its last
/// entry, whether the log or an earlier snapshot knows that.
#[test]
fn a_snapshot_says_who_was_up_at_its_index() {
    for compacts in [false, true] {
        let mut world = all_up(Plan::voters(3).learners(1));
        let leader = world.leaders()[0];
        let mut passed = Vec::new();
        for up in [false, true] {
            if compacts && !up {
                assert!(world.compact(leader));
            }
            let core = world.core(leader);
            passed.push((core.commit_index(), core.verdicts().clone()));
            if up {
                world.start(3)
            } else {
                world.crash(3)
            }
            until(&mut world, 3, up);
        }
        for (index, verdicts) in passed {
            assert_eq!(world.core(leader).verdicts_at(index), verdicts, "at {index}");
        }
        let core = world.core(leader);
        assert_eq!(core.verdicts_at(core.commit_index()), *core.verdicts());
    }
}
