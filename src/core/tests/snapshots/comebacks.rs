//! Followers that come back: what they have is not sent once more.

use super::super::super::types::{Index, Term};
use super::super::world::{MS, Plan, World};
use super::{bounds, left_behind};
use crate::encoding::snapshot;

/// A follower starts again under a leader that has not heard it yet, and whose log
/// still reaches back to where the follower's ends: it is asked for that first.
#[test]
fn a_follower_within_the_tail_needs_no_snapshot() {
    let plan = Plan { tail_entries: 10, ..Plan::voters(3) };
    let logs = [1u64; 33];
    let mut world = World::with_logs(plan, &[&logs, &logs, &logs], 1);
    world.timeout(0);
    world.run_until(2_000 * MS, "a leader", World::is_settled);
    let had = world.core(2).log().last_index();
    world.crash(2);
    world.crash(0);
    world.start(0);
    world.run_for(10 * MS);
    world.silence();
    world.timeout(1);
    world.run_until(2_000 * MS, "b leads", |world| world.leader() == Some(1));
    for _ in 0..5 {
        world.run_for(20 * MS);
        world.propose(1, "x");
    }
    world.run_for(50 * MS);
    assert!(world.compact(1));
    let base = world.core(1).log().base_index();
    assert!(Index(0) < base && base < had, "the log begins after {base}, c had up to {had}");
    world.start(2);
    world.run_until(3_000 * MS, "healing", World::is_settled);
    assert_eq!(world.installs, 0);
}

/// Pitfall 40: a follower dies when its snapshot is installed and durable, and before
/// it said so. The log from there on is still kept for it.
#[test]
fn what_was_installed_and_never_said_is_not_sent_again() {
    let mut world = left_behind(Plan::voters(3), 9);
    world.cut.clear();
    world.nodes[2].holds_writes = true;
    world.run_until(1_000 * MS, "an install", |world| world.installs == 1);
    while world.write_reaches_disk(2).is_some() {}
    world.crash(2);
    world.nodes[2].holds_writes = false;
    for _ in 0..3 {
        world.propose(0, "more");
    }
    world.run_for(20 * MS);
    assert!(world.compact(0));
    assert_eq!(bounds(&world, 0).0, 9, "kept for c, which was in touch just now");
    world.start(2);
    world.run_until(3_000 * MS, "healing", World::is_settled);
    assert_eq!(world.installs, 1);
}

/// A snapshot that contradicts what its own leader has had verified comes from nobody
/// honest. It makes nothing panic.
#[test]
fn a_snapshot_against_what_is_verified_leaves_nothing_verified_beyond_it() {
    let logs: [&[u64]; 3] = [&[1, 1, 1], &[1, 1, 1], &[1, 1, 1]];
    let mut world = World::with_logs(Plan::voters(3), &logs, 1);
    world.timeout(0);
    world.run_until(2_000 * MS, "a leader", World::is_settled);
    world.cut.extend([(1, 0), (2, 0)]);
    for _ in 0..5 {
        world.propose(0, "x");
    }
    world.run_for(5 * MS);
    // By hand: the checks of the world would find the lie.
    let mut core = world.core(2).clone();
    let at = Index(core.log().last_index().0 - 2);
    let members = core.members().expect("it has members").clone();
    let made = snapshot::make((at, Term(1)), (Index(1), &members), &Default::default(), b"");
    assert_ne!(core.log().term_at(at), Some(Term(1)));
    core.install(made).expect("nothing speaks against it");
    let mut effects = Default::default();
    core.flush(super::super::super::types::Time(0), &mut effects);
    assert_eq!((core.log().base_index(), core.log().last_index()), (at, at));
}
