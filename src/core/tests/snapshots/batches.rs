//! Inputs that come in one go: whoever runs the core gives it all that is ready before
//! it lets anything out.

use super::super::super::effect::{Effects, RoleName};
use super::super::super::membership::Standing;
use super::super::super::message::{Envelope, Message};
use super::super::super::types::{Index, Time};
use super::super::world::{MS, Plan};
use super::{bounds, entries, envelope, left_behind, whole};
use crate::encoding::snapshot;

/// Pitfall 34: the last piece comes, and before anything is made of it the entries
/// themselves, of the next leader: they stay, and what follows them stays, too.
#[test]
fn entries_that_came_before_the_install_stay() {
    let mut world = left_behind(Plan::voters(3), 9);
    world.propose(0, "y");
    world.propose(0, "z");
    world.run_for(5 * MS);
    let term = world.core(0).term();
    let snapshot = world.core(0).snapshot().expect("a has one").clone();
    let piece = envelope(&world, 0, 2, whole(term, 50, &snapshot));
    let append = entries(world.core(1), 4, 11, term.next());
    let append = envelope(&world, 1, 2, Message::AppendEntries(append));
    world.step(2, |core, now| {
        core.receive(piece, now).expect("it is of the leader");
        core.receive(append, now).expect("it is of the next leader");
    });
    assert_eq!(bounds(&world, 2), (0, 11));
    let core = world.core(2);
    assert_eq!(core.commit_index(), Index(9), "as the snapshot says");
    assert_eq!(core.durability.durable(), Index(11));
}

/// The record of a write is taken from the log as it was when the write was issued: no
/// snapshot is given out to be installed before that.
#[test]
fn a_snapshot_to_install_never_comes_with_a_write() {
    let world = left_behind(Plan::voters(3), 9);
    let snapshot = world.core(0).snapshot().expect("a has one").clone();
    let term = world.core(0).term();
    let append = entries(world.core(1), 4, 4, term);
    let append = envelope(&world, 0, 2, Message::AppendEntries(append));
    let piece = envelope(&world, 0, 2, whole(term, 50, &snapshot));
    let mut core = world.core(2).clone();
    let (now, mut effects) = (Time(world.now), Effects::default());
    core.receive(append, now).unwrap();
    core.receive(piece, now).unwrap();
    core.flush(now, &mut effects);
    assert!(effects.write.is_some() && effects.assembled.is_none());
    core.flush(now, &mut effects);
    assert!(effects.write.is_none() && effects.assembled.is_some());
}

/// A node that stands for election when a snapshot has come stands no longer: in the
/// members that came with it, it may be no voter.
#[test]
fn who_stands_for_election_and_lacks_what_is_committed_stands_no_longer() {
    let world = left_behind(Plan::voters(3), 9);
    let known = world.core(0).snapshot().expect("a has one");
    let mut members = known.members.clone();
    members.members[2].standing = Standing::Learner;
    let at = (known.id.index, known.id.term);
    let without_c = snapshot::make(at, (Index(8), &members), &Default::default(), b"");
    let mut core = world.core(2).clone();
    let (now, mut effects) = (Time(world.now), Effects::default());
    core.flush(now, &mut effects);
    core.campaign(now);
    core.flush(now, &mut effects);
    assert_eq!(core.role(), RoleName::PreCandidate);
    core.install(without_c).expect("it is newer");
    core.flush(now, &mut effects);
    assert_eq!(core.role(), RoleName::Learner);
}

/// Of two that come whole in one go the newer one counts, and both do no harm.
#[test]
fn two_snapshots_in_one_go() {
    let mut world = left_behind(Plan::voters(3), 9);
    let first = world.core(0).snapshot().expect("a has one").clone();
    world.propose(0, "y");
    world.run_for(5 * MS);
    assert!(world.compact(0));
    let second = world.core(0).snapshot().expect("and another").clone();
    let term = world.core(0).term();
    let pieces: Vec<Envelope> = [(8, &first), (9, &second), (7, &first)]
        .map(|(seq, snapshot)| envelope(&world, 0, 2, whole(term, seq, snapshot)))
        .into();
    for order in [[0, 1, 2], [1, 0, 2], [1, 2, 0]] {
        let mut core = world.core(2).clone();
        let (now, mut effects) = (Time(world.now), Effects::default());
        for place in order {
            core.receive(pieces[place].clone(), now).unwrap();
        }
        let mut installed = Vec::new();
        for _ in 0..5 {
            core.flush(now, &mut effects);
            if let Some((id, data)) = effects.assembled.take() {
                installed.push(id.index);
                core.install(snapshot::open(id, data).unwrap()).unwrap();
            }
        }
        assert!(!installed.is_empty(), "{order:?}");
        assert_eq!(core.log().base_index(), *installed.last().unwrap());
    }
    // The leader goes on with whatever it was.
    world.cut.clear();
    world.run_until(1_000 * MS, "a snapshot", super::World::is_settled);
}
