//! Snapshots, claim by claim (Raft §7): here what they are built from, and what a node
//! makes of one that has come. `travel` has the way there, `crashes` what a disk holds
//! in the middle of it, `batches` what comes together with one, `nonsense` what nobody should say,
//! and `planted` bugs that the properties find.

mod batches;
mod comebacks;
mod crashes;
mod nonsense;
mod planted;
mod travel;

use super::super::Core;
use super::super::message::{
    AppendEntries, Envelope, InstallSnapshot, Message, PreVote, RequestVote, RequestVoteReply,
};
use super::super::snapshot::{Snapshot, SnapshotId};
use super::super::state::{Failure, Refused};
use super::super::types::{Entry, Index, Term};
use super::world::{Flight, MS, Plan, World};

/// A cluster of three under a that c has not heard since entry 3: a and b have gone on
/// to entry `last`, and a has compacted its log.
fn left_behind(plan: Plan, last: u64) -> World {
    let mut world = World::with_logs(plan, &[&[1], &[1], &[1]], 1);
    world.timeout(0);
    world.run_until(2_000 * MS, "a leader, followed by all", World::is_settled);
    assert_eq!(world.leaders(), [0]);
    world.isolate(&[2]);
    // So long is the log kept for a member that is silent.
    world.run_for(3_100 * MS);
    while world.core(0).log().last_index() < Index(last) {
        world.propose(0, "x");
    }
    world.run_until(100 * MS, "a commit", |world| world.core(0).commit_index() == Index(last));
    world.run_for(5 * MS);
    assert!(world.compact(0));
    assert_eq!(world.core(0).log().base_index(), Index(last));
    world
}

fn is_piece(flight: &Flight) -> bool {
    matches!(flight.envelope.message, Message::InstallSnapshot(_))
}

/// How much of a snapshot has come there.
fn received(world: &World, place: usize) -> u64 {
    world.core(place).incoming.as_ref().map_or(0, |(incoming, _)| incoming.received())
}

/// A message from one node to another, as the two know each other.
fn envelope(world: &World, from: usize, to: usize, message: Message) -> Envelope {
    let (sender, addressee) = (world.core(from), world.core(to));
    let cluster = sender.hard().cluster.expect("of a cluster");
    Envelope { cluster, from: sender.me(), to: addressee.me(), message }
}

/// A snapshot in one piece.
fn whole(term: Term, seq: u64, snapshot: &Snapshot) -> Message {
    let (id, data) = (snapshot.id, snapshot.data.clone());
    Message::InstallSnapshot(InstallSnapshot { term, seq, id, offset: 0, data })
}

/// The entries of a node's log from one to another, as a leader of that term sends
/// them.
fn entries(core: &Core, from: u64, to: u64, term: Term) -> AppendEntries {
    let prev_log_index = Index(from).previous();
    let entries: Vec<Entry> = core
        .log()
        .from(Index(from))
        .take_while(|(index, _)| *index <= Index(to))
        .map(|(_, entry)| entry.clone())
        .collect();
    AppendEntries {
        term,
        seq: 1,
        prev_log_index,
        prev_log_term: core.log().term_at(prev_log_index).expect("it is there"),
        leader_commit: Index(0),
        entries,
    }
}

/// The leader is cut off from all others, and this one is elected by them.
fn elect_instead(world: &mut World, place: usize) {
    let leader = world.leader().expect("a leader");
    world.flights.clear();
    world.isolate(&[leader]);
    world.silence();
    world.timeout(place);
    world.run_until(20 * MS, "another leader", |world| world.leader() == Some(place));
}

/// A log as (base, last).
fn bounds(world: &World, place: usize) -> (u64, u64) {
    let log = world.core(place).log();
    (log.base_index().0, log.last_index().0)
}

/// Pitfall 5: a voter that has nothing but a snapshot at entry 100 of term 7 knows by
/// that whose log is as up to date as its own (Raft §5.4.1).
#[test]
fn a_snapshot_says_how_far_a_log_reaches() {
    let older = [6; 98];
    let mut world = World::with_logs(Plan::voters(3), &[&older, &older, &older], 6);
    world.timeout(0);
    world.run_until(2_000 * MS, "a leader, followed by all", World::is_settled);
    assert!(world.compact(1));
    world.crash(1);
    world.isolate(&[0]);
    world.start(1);
    world.run_for(10 * MS);
    assert_eq!(bounds(&world, 1), (100, 100));
    let asks = [
        ((99, 7), false),
        ((100, 6), false),
        ((500, 6), false),
        ((100, 7), true),
        ((101, 7), true),
        ((2, 8), true),
    ];
    for (number, (last, granted)) in asks.into_iter().enumerate() {
        let (last_log_index, last_log_term) = (Index(last.0), Term(last.1));
        let term = Term(20 + number as u64);
        world.sent = Some(Vec::new());
        let ask = RequestVote { term, last_log_index, last_log_term, handed_over: false };
        world.forge(2, 1, Message::RequestVote(ask)).unwrap();
        let round = 1 + number as u64;
        let ask = PreVote { round, term: term.next(), last_log_index, last_log_term };
        world.forge(2, 1, Message::PreVote(ask)).unwrap();
        let answers: Vec<bool> = world
            .sent
            .iter()
            .flatten()
            .filter_map(|flight| match &flight.envelope.message {
                Message::RequestVoteReply(RequestVoteReply { granted, .. }) => Some(*granted),
                Message::PreVoteReply(reply) => Some(reply.granted),
                _ => None,
            })
            .collect();
        assert_eq!(answers, [granted, granted], "to {last:?}");
    }
}

/// Pitfall 32: a snapshot that covers no more than what is committed here changes
/// nothing, whether it comes in pieces or was opened late. That it is there is
/// acknowledged: the leader waits for it.
#[test]
fn an_older_snapshot_than_what_is_committed_is_not_installed() {
    let mut world = left_behind(Plan::voters(3), 9);
    let older = world.core(0).snapshot().expect("a has one").clone();
    world.propose(0, "y");
    world.run_for(5 * MS);
    assert_eq!(bounds(&world, 1), (0, 10));
    let term = world.core(0).term();
    world.sent = Some(Vec::new());
    world.forge(0, 1, whole(term, 20, &older)).unwrap();
    world.step(1, |core, _| core.install(older.clone())).unwrap().unwrap();
    assert_eq!(bounds(&world, 1), (0, 10));
    assert!(world.core(1).snapshot().is_none() && world.core(1).incoming.is_none());
    assert_eq!(world.installs, 0);
    let acknowledged =
        |flight: &Flight| matches!(flight.envelope.message, Message::AppendEntriesReply(_));
    assert!(world.sent.iter().flatten().any(acknowledged));
}

/// Pitfall 32: so it is where the log holds none of those entries any more.
#[test]
fn an_older_snapshot_than_the_log_reaches_back_to_is_not_installed() {
    let mut world = left_behind(Plan::voters(3), 9);
    let older = world.take_snapshot(2).expect("of three entries");
    assert_eq!(older.id.index, Index(3));
    world.cut.clear();
    world.run_until(1_000 * MS, "a snapshot", World::is_settled);
    let term = world.core(0).term();
    world.forge(0, 2, whole(term, 200, &older)).unwrap();
    world.step(2, |core, _| core.install(older.clone())).unwrap().unwrap();
    assert_eq!(bounds(&world, 2), (9, 9));
    assert!(world.core(2).incoming.is_none());
    assert_eq!((world.installs, world.core(2).commit_index()), (1, Index(9)));
}

/// Pitfall 32: a snapshot of another entry than the one that is committed at its index
/// proves that safety is broken. Below the log nothing is known of any entry.
#[test]
fn a_snapshot_of_another_term_at_the_same_index_is_refused() {
    let id =
        |index, term| SnapshotId { index: Index(index), term: Term(term), length: 4, checksum: 1 };
    let piece = |id, term| {
        let data = bytes::Bytes::from_static(b"some");
        Message::InstallSnapshot(InstallSnapshot { term, seq: 9, id, offset: 0, data })
    };
    // b has its log, c nothing but a snapshot at 9.
    let mut world = left_behind(Plan::voters(3), 9);
    world.cut.clear();
    world.run_until(1_000 * MS, "a snapshot", World::is_settled);
    for (place, index, fails) in
        [(1, 9, true), (1, 5, true), (2, 9, true), (2, 5, false), (1, 8, true)]
    {
        let mut core = world.core(place).clone();
        let term = core.term();
        let m = envelope(&world, 0, place, piece(id(index, 1), term));
        let taken = core.receive(m, world.clock(place));
        assert_eq!(taken, if fails { Err(Refused::Failed) } else { Ok(()) }, "{place}, {index}");
        let contradicted =
            Failure::CommittedContradicted { leader: "a".to_string(), index: Index(index) };
        assert_eq!(core.failure(), Some(&contradicted).filter(|_| fails));
    }
}

/// Pitfall 33: the entry at the snapshot's index is of another leader: it goes, and all
/// that follows it. One install is enough.
#[test]
fn a_tail_behind_a_conflict_goes_with_it() {
    let mut world = World::with_logs(Plan::voters(3), &[&[1, 3], &[1, 3], &[1, 2, 2, 2, 2, 2]], 3);
    world.isolate(&[2]);
    world.timeout(0);
    world.run_for(3_100 * MS);
    assert_eq!(world.leaders(), [0]);
    assert!(world.compact(0));
    let base = world.core(0).log().base_index();
    assert!(base < world.core(2).log().last_index());
    world.cut.clear();
    world.run_until(1_000 * MS, "a snapshot", World::is_settled);
    world.run_for(3_000 * MS);
    assert_eq!(world.installs, 1);
    assert_eq!(bounds(&world, 2), (base.0, base.0));
    world.propose(2, "x");
    world.run_until(100 * MS, "a commit", World::is_settled);
    assert_eq!(world.installs, 1);
}

/// Pitfall 34: what a leader sent before its snapshot, and comes behind it: what the
/// snapshot covers is left alone and acknowledged, what follows it is taken.
#[test]
fn appends_that_overlap_a_snapshot_are_answered() {
    let mut world = left_behind(Plan::voters(3), 9);
    world.cut.clear();
    world.run_until(1_000 * MS, "a snapshot", World::is_settled);
    world.isolate(&[2]);
    world.propose(0, "y");
    world.propose(0, "z");
    world.run_for(5 * MS);
    assert_eq!((bounds(&world, 1), bounds(&world, 2)), ((0, 11), (9, 9)));
    let term = world.core(0).term();
    // From, to, and where the log ends then.
    for (from, to, last) in [(2, 3, 9), (4, 8, 9), (4, 9, 9), (9, 9, 9), (6, 10, 10), (10, 11, 11)]
    {
        world.sent = Some(Vec::new());
        let append = entries(world.core(1), from, to, term);
        world.forge(0, 2, Message::AppendEntries(append)).unwrap();
        assert_eq!(bounds(&world, 2), (9, last), "entries {from} to {to}");
        let matched =
            world.sent.iter().flatten().find_map(|flight| match &flight.envelope.message {
                Message::AppendEntriesReply(reply) => Some(reply.outcome.clone()),
                _ => None,
            });
        let expected = super::super::message::AppendOutcome::Matched { index: Index(last) };
        assert_eq!(matched, Some(expected), "entries {from} to {to}");
    }
}

/// Pitfall 34, the other way round: who contradicts the snapshot's own entry
/// contradicts what is committed.
#[test]
fn an_append_that_contradicts_the_base_proves_that_safety_is_broken() {
    let mut world = left_behind(Plan::voters(3), 9);
    world.cut.clear();
    world.run_until(1_000 * MS, "a snapshot", World::is_settled);
    let term = world.core(0).term();
    let mut across = entries(world.core(1), 8, 9, term);
    across.entries[1].term = term.next();
    across.term = term.next();
    let mut behind = entries(world.core(1), 9, 9, term);
    (behind.prev_log_index, behind.prev_log_term) = (Index(9), Term(1));
    for append in [across, behind] {
        let mut core = world.core(2).clone();
        let m = envelope(&world, 0, 2, Message::AppendEntries(append));
        assert_eq!(core.receive(m, world.clock(2)), Err(Refused::Failed));
        let contradicted =
            Failure::CommittedContradicted { leader: "a".to_string(), index: Index(9) };
        assert_eq!(core.failure(), Some(&contradicted));
    }
}
