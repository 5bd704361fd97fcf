//! Founding: once, by all voters, and never a second time over the first.

use super::super::message::Message;
use super::super::types::Index;
use super::world::{Flight, MS, Plan, World};

/// All have started, and the founder has just written its record; whatever it
/// sent since is still under way.
fn just_founded(plan: Plan) -> World {
    let mut world = World::new(plan);
    for place in 0..world.nodes.len() {
        world.start(place);
    }
    let wrote = |world: &World| !world.disks[&world.nodes[0].incarnation].entries.is_empty();
    world.run_until(1_000 * MS, "the founding record", wrote);
    world
}

fn is_found(flight: &Flight) -> bool {
    matches!(flight.envelope.message, Message::Found(_))
}

/// Pitfall 45: two of five lose their memory. The first founder told one node and
/// died; that one made a majority of the others agree, led, and died, too, while
/// the second founder still had the others' word, given before, that they are
/// fresh.
#[test]
fn who_said_that_it_is_fresh_may_have_agreed_since() {
    let mut world = just_founded(Plan::voters(5));
    let (a, b, c, d, e) = (0, 1, 2, 3, 4);
    let told = world.take(is_found).into_iter().find(|flight| flight.to == c).unwrap();
    world.flights.clear();
    world.arrive(told);
    world.crash(a);
    world.forget(a);
    // The new founder hears b, d and e, and not c.
    world.isolate(&[c]);
    world.start(a);
    world.run_for(300 * MS);
    let fresh = |world: &World| world.core(a).peers().iter().filter(|peer| peer.fresh).count();
    assert_eq!(fresh(&world), 3);
    // Then c speaks to b and d, and founds its cluster with them.
    world.cut.clear();
    world.isolate(&[a]);
    world.isolate(&[e]);
    world.run_until(250 * MS, "the record at b and d", |world| {
        [b, d].iter().all(|&place| world.core(place).log().last_index() > Index(0))
    });
    world.timeout(c);
    world.run_until(100 * MS, "a leader", |world| world.leaders() == [c]);
    assert!(world.propose(c, "precious"));
    world.run_until(100 * MS, "a commit", |world| world.history.times_committed(b"precious") == 1);
    world.crash(c);
    world.forget(c);
    // The second founder hears the new c, and still holds the word of the others.
    world.cut.clear();
    world.isolate(&[b, d]);
    world.start(c);
    world.run_for(2_000 * MS);
    assert_eq!(world.history.times_committed(b"precious"), 1);
    assert_eq!(world.leaders(), [] as [usize; 0], "a, c and e are strangers to a majority");
    // All meet again: b, d and e go on, and a and c come back as learners.
    world.cut.clear();
    world.run_until(5_000 * MS, "healing", World::is_settled);
    assert_eq!(world.history.times_committed(b"precious"), 1);
}

/// A pre-vote whose record was lost makes nobody belong to a cluster: if its founder
/// forgot everything then, all would be fresh or bound to what nobody knows.
#[test]
fn a_pre_vote_without_the_record_makes_nobody_belong() {
    let mut world = just_founded(Plan::voters(3));
    assert_eq!(world.take(is_found).len(), 2);
    world.deliver(|flight| matches!(flight.envelope.message, Message::PreVote(_)));
    world.crash(0);
    world.forget(0);
    world.flights.clear();
    world.start(0);
    world.run_until(3_000 * MS, "another founding", World::is_settled);
}
