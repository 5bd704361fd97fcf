//! Bugs that are put in, and the property that finds each.

use super::super::super::Core;
use super::super::super::effect::Effects;
use super::super::super::message::Message;
use super::super::super::properties::logs::LOG_MATCHING;
use super::super::super::properties::said::DURABLE_FIRST;
use super::super::super::properties::{APPLY_DURABLE, Property, SNAPSHOT_COMMITTED};
use super::super::super::types::{Index, Run, Term};
use super::super::world::{MS, Plan, World};
use super::{bounds, entries, envelope, left_behind, whole};

/// What is found on a node that is as this one.
fn found(world: &mut World, core: &Core) -> Option<&'static Property> {
    let others: Vec<Core> = world.nodes.iter().filter_map(|node| node.core.clone()).collect();
    let verdict = world.history.check(core, &world.disks, others.iter());
    verdict.err().map(|broken| broken.property)
}

/// A snapshot that was taken, or one that came, is another than what is committed
/// (pitfall 38).
#[test]
fn a_snapshot_of_something_else_is_found() {
    let bugs: [fn(&mut Core); 2] = [
        Core::bug_mistakes_the_term_of_its_snapshot,
        Core::bug_forgets_the_newest_members_in_its_snapshot,
    ];
    let mut world = left_behind(Plan::voters(3), 9);
    world.cut.clear();
    world.run_until(1_000 * MS, "a snapshot", World::is_settled);
    assert!(world.compact(1));
    for place in [1, 2] {
        let mut core = world.core(place).clone();
        // A snapshot is looked at once in each run.
        core.me.run = Run(100);
        assert_eq!(found(&mut world, &core), None);
        for (number, bug) in bugs.into_iter().enumerate() {
            let mut core = core.clone();
            core.me.run = Run(101 + number as u64);
            bug(&mut core);
            assert_eq!(found(&mut world, &core), Some(&SNAPSHOT_COMMITTED));
        }
    }
}

/// A snapshot counts when it is installed, and its write hangs (pitfall 37).
#[test]
fn an_install_that_counts_too_early_is_found() {
    let mut world = left_behind(Plan::voters(3), 9);
    let term = world.core(0).term();
    let snapshot = world.core(0).snapshot().expect("a has one").clone();
    world.nodes[2].holds_writes = true;
    world.forge(0, 2, whole(term, 20, &snapshot)).unwrap();
    let mut core = world.core(2).clone();
    assert_eq!(found(&mut world, &core), None);
    core.bug_counts_a_snapshot_before_it_is_durable();
    assert_eq!(found(&mut world, &core), Some(&APPLY_DURABLE));
    // And what it says then.
    let mut effects = Effects::default();
    core.flush(world.clock(2), &mut effects);
    let mut said = effects.sends.iter().map(|outgoing| &outgoing.envelope);
    let said = said.find(|said| matches!(said.message, Message::AppendEntriesReply(_)));
    let disk = &world.disks[&world.nodes[2].incarnation];
    let verdict = world.history.check_outgoing(&core, disk, said.expect("an acknowledgement"));
    assert_eq!(verdict.map_err(|broken| broken.property), Err(&DURABLE_FIRST));
}

/// A snapshot takes the place of a log of another leader, and what followed there stays
/// (pitfall 33). The entry at its end is of an older term than what followed: a later
/// leader has committed it (Raft Figure 8).
#[test]
fn a_tail_that_stays_is_found() {
    let mut world = World::with_logs(Plan::voters(3), &[&[2], &[2], &[3, 3]], 3);
    world.isolate(&[2]);
    world.timeout(0);
    world.run_for(100 * MS);
    assert_eq!(world.leaders(), [0]);
    // b comes back, and has verified no more than entry 2 when it takes a snapshot.
    world.crash(1);
    world.start(1);
    let (leader, term) = (world.core(0).me().incarnation, world.core(0).term());
    let mut probe = entries(world.core(0), 3, 2, term);
    probe.leader_commit = Index(3);
    world.step(1, |core, now| core.on_append_entries(leader, probe, now)).unwrap().unwrap();
    assert!(world.compact(1));
    let snapshot = world.core(1).snapshot().expect("of two entries").clone();
    assert_eq!((snapshot.id.index, snapshot.id.term), (Index(2), Term(2)));
    let tail: Vec<_> = world.core(2).log().from(Index(3)).map(|(_, e)| e.clone()).collect();
    assert_eq!(tail.len(), 1);
    let piece = envelope(&world, 0, 2, whole(term, 20, &snapshot));
    world.step(2, |core, now| core.receive(piece, now)).unwrap().unwrap();
    assert_eq!(bounds(&world, 2), (2, 2));
    let mut core = world.core(2).clone();
    assert_eq!(found(&mut world, &core), None);
    core.bug_keeps_the_tail_behind_a_snapshot(tail);
    assert_eq!(found(&mut world, &core), Some(&LOG_MATCHING));
}
