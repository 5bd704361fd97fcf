//! Who joins: when it votes, how many may, and how it is found.

use std::collections::VecDeque;

use super::super::effect::{Note, Waiting};
use super::super::membership::{Standing, VOTERS_LIMIT};
use super::super::message::{ChangeOutcome, Message, WhyNot, Wish};
use super::changes::{answered, done, three_and};
use super::world::{Flight, MS, Plan, World};

fn standing(world: &World, name: &str) -> Option<Standing> {
    let members = world.core(world.leader()?).members()?;
    members.named(name).map(|member| member.standing)
}

/// Thesis §4.2.1: a newcomer that gets the log late follows no round of the log within an
/// election timeout; as a voter it would hold up what is committed.
#[test]
fn who_follows_slowly_gets_no_vote() {
    let mut world = three_and(1);
    world.start(3);
    let wish = world.adding(3, true);
    assert!(world.wish(0, wish));
    let joins = |world: &World| standing(world, "d") == Some(Standing::Joining);
    world.run_until(1_000 * MS, "d to join", joins);
    let late = |flight: &Flight| {
        flight.to == 3 && matches!(flight.envelope.message, Message::AppendEntries(_))
    };
    // Heartbeats pass; what is sent to it of the log arrives half a second later.
    let mut held = VecDeque::new();
    for turn in 0..400 {
        world.propose(0, &format!("{turn}"));
        let end = world.now + 10 * MS;
        while world.now < end {
            world.advance(end);
            let now = world.now;
            held.extend(world.take(late).into_iter().map(|flight| (now + 500 * MS, flight)));
        }
        while held.front().is_some_and(|(due, _)| *due <= world.now) {
            world.arrive(held.pop_front().expect("there is one").1);
        }
        assert_eq!(standing(&world, "d"), Some(Standing::Joining), "turn {turn}");
    }
    done(&mut world, 0);
    assert_eq!(standing(&world, "d"), Some(Standing::Voter));
}

/// Those that join count: when they have caught up no more vote than may.
#[test]
fn no_more_are_promised_a_vote_than_may_vote() {
    let mut world = World::new(Plan::voters(VOTERS_LIMIT - 1).spares(2));
    let (last, more) = (VOTERS_LIMIT - 1, VOTERS_LIMIT);
    (0..more + 1).for_each(|place| world.start(place));
    world.run_until(3_000 * MS, "a leader", |world| {
        world.leader().is_some_and(|leader| world.core(leader).commit_index().0 > 1)
    });
    let leader = world.leader().unwrap();
    let name = world.nodes[last].name.clone();
    let wish = world.adding(last, true);
    assert!(world.wish(leader, wish));
    world.run_until(1_000 * MS, "it to join", |world| standing(world, &name).is_some());
    world.cut.insert((last, leader));
    let other = (leader + 1) % last;
    world.run_for(100 * MS);
    let wish = world.adding(more, true);
    assert!(world.wish(other, wish));
    assert_eq!(answered(&mut world, other), ChangeOutcome::Refused(WhyNot::TooMany));
    assert_eq!(standing(&world, &name), Some(Standing::Joining));
    let wish = world.adding(more, false);
    assert!(world.wish(other, wish));
    done(&mut world, other);
}

/// A member was cut off while one came that leads now: it hears a stranger, and asks those
/// that it has known all along who that is. Nobody else has a reason to tell it.
#[test]
fn who_hears_a_stranger_asks_around() {
    let mut world = three_and(1);
    world.run_for(1_000 * MS);
    world.start(3);
    world.isolate(&[2]);
    let wish = world.adding(3, true);
    assert!(world.wish(0, wish));
    done(&mut world, 0);
    assert!(world.wish(0, Wish::Transfer { to: "d".to_string() }));
    world.run_until(1_000 * MS, "d to lead", |world| world.leader() == Some(3));
    world.cut.clear();
    world.run_until(2_000 * MS, "c to follow", World::is_settled);
    assert_eq!(world.leaders(), [3]);
}

/// A hundred learners that ask each other who they are would hear nothing else; they need
/// those that vote, and each other only where nobody else is left.
#[test]
fn learners_leave_each_other_alone() {
    let mut world = World::new(Plan::voters(3).learners(20));
    world.sent = Some(Vec::new());
    (0..23).for_each(|place| world.start(place));
    world.run_until(2_000 * MS, "a leader, followed by all", World::is_settled);
    world.run_for(10_000 * MS);
    let between = |flight: &&Flight| flight.from >= 3 && flight.to >= 3;
    assert_eq!(world.sent.iter().flatten().filter(between).count(), 0);
    // The last that remembers is a learner, and another one has forgotten.
    (0..4).for_each(|place| world.crash(place));
    world.forget(3);
    world.start(3);
    // All of them: it asks, and so does each that remembers and misses a leader.
    let rest: Vec<String> = (4..23).map(|place| world.nodes[place].name.clone()).collect();
    world.run_until(20_000 * MS, "it to hear that there is a cluster", |world| {
        world.core(3).waiting(world.clock(3)) == Some(Waiting::ForAdmission(rest.clone()))
    });
}

/// Pitfall 47: a learner may be the last that remembers. It is a little slower to speak
/// than the voters, which have all forgotten; they wait for it, and found nothing.
#[test]
fn voters_that_forgot_ask_the_learner_first() {
    let mut world = World::founded(Plan::voters(3).learners(1));
    (0..4).for_each(|place| world.crash(place));
    (0..3).for_each(|place| world.forget(place));
    world.isolate(&[3]);
    (0..4).for_each(|place| world.start(place));
    world.run_for(150 * MS);
    world.cut.clear();
    world.run_for(3_000 * MS);
    for place in 0..3 {
        assert_eq!(world.core(place).hard().cluster, None, "{place} belongs to nothing");
    }
}

/// Who was away while most voters came back as other lives takes nobody's majority for
/// lost: it is behind, and hears so in a moment.
#[test]
fn who_is_behind_does_not_cry_that_a_majority_is_lost() {
    for runs in [false, true] {
        let mut world = World::founded(Plan::voters(5));
        let leader = world.leaders()[0];
        let away = (leader + 4) % 5;
        match runs {
            true => world.isolate(&[away]),
            false => world.crash(away),
        }
        for place in (1..4).map(|on| (leader + on) % 5) {
            world.crash(place);
            world.forget(place);
            world.start(place);
            world.run_until(3_000 * MS, "its vote back", |world| {
                let members = world.core(leader).members().unwrap();
                members.is_voter(world.nodes[place].incarnation)
            });
        }
        world.run_for(5_000 * MS);
        world.cut.clear();
        if !runs {
            world.start(away);
        }
        // The leader is the last that it hears.
        world.cut.insert((leader, away));
        world.run_for(150 * MS);
        world.cut.clear();
        world.run_until(3_000 * MS, "its return", World::is_settled);
        let cries = |(_, _, note): &(_, _, Note)| matches!(note, Note::MajorityLost(_));
        assert!(!world.nodes[away].notes.iter().any(cries), "it ran: {runs}");
    }
}
