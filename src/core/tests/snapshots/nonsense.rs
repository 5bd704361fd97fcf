//! What an authenticated peer could say that makes no sense.

use bytes::Bytes;

use super::super::super::effect::Effects;
use super::super::super::message::{
    AppendEntriesReply, AppendOutcome, HeartbeatReply, InstallSnapshot, InstallSnapshotReply,
    Message,
};
use super::super::super::properties::check_bounds;
use super::super::super::rng::Rng;
use super::super::super::snapshot::{SNAPSHOT_LIMIT_BYTES, SnapshotId};
use super::super::super::state::Refused;
use super::super::super::types::{Index, Term, Time};
use super::super::world::{Plan, World};
use super::{envelope, left_behind};

/// A small number, or one from the ends.
fn number(rng: &mut Rng) -> u64 {
    let most = [3, 12, 5_000, u64::MAX][rng.between(0, 3) as usize];
    rng.between(most.saturating_sub(12), most)
}

fn id(rng: &mut Rng) -> SnapshotId {
    SnapshotId {
        index: Index(number(rng)),
        term: Term(number(rng)),
        length: number(rng),
        checksum: number(rng) as u32,
    }
}

fn outcome(rng: &mut Rng) -> AppendOutcome {
    match rng.between(0, 2) {
        0 => AppendOutcome::Matched { index: Index(number(rng)) },
        1 => AppendOutcome::Mismatch {
            prev_log_index: Index(number(rng)),
            hint_index: Index(number(rng)),
            hint_term: Term(number(rng)),
        },
        _ => AppendOutcome::Stale,
    }
}

/// An answer to a leader of that term that nobody would give.
fn answer(rng: &mut Rng, term: Term) -> Message {
    let seq = number(rng);
    match rng.between(0, 2) {
        0 => Message::AppendEntriesReply(AppendEntriesReply { term, seq, outcome: outcome(rng) }),
        1 => {
            let (matched, verified) = (Index(number(rng)), Index(number(rng)));
            Message::HeartbeatReply(HeartbeatReply { term, seq, matched, verified })
        }
        _ => {
            let (id, received) = (id(rng), number(rng));
            Message::InstallSnapshotReply(InstallSnapshotReply { term, seq, id, received })
        }
    }
}

fn sends_snapshots(effects: &Effects) -> bool {
    let mut messages = effects.sends.iter().map(|outgoing| &outgoing.envelope.message);
    messages.any(|message| matches!(message, Message::InstallSnapshot(_)))
}

/// Pitfall 39: a leader that never compacted its log is asked for no snapshot, whatever
/// its followers say; and one that did can be made to send it, and nothing worse.
#[test]
fn a_leader_without_a_snapshot_is_never_asked_for_one() {
    let mut whole = World::founded(Plan::voters(3));
    let leader = whole.leaders()[0];
    whole.propose(leader, "x");
    let compacted = left_behind(Plan::voters(3), 9);
    let mut sent = 0;
    for (world, leader) in [(&whole, leader), (&compacted, 0)] {
        for seed in 0..300 {
            let mut rng = Rng::new(seed);
            let mut core = world.core(leader).clone();
            let (mut now, mut effects) = (world.now, Effects::default());
            for _ in 0..50 {
                let follower = (leader + rng.between(1, 2) as usize) % 3;
                let message = answer(&mut rng, core.term());
                let _ = core.receive(envelope(world, follower, leader, message), Time(now));
                now += rng.between(0, 30_000);
                core.tick(Time(now));
                core.flush(Time(now), &mut effects);
                let sends = sends_snapshots(&effects);
                assert!(!sends || core.log().base_index() > Index(0), "seed {seed}");
                sent += u64::from(sends);
                check_bounds(&core).unwrap();
            }
        }
    }
    assert!(sent > 0, "a leader that has one sends it");
}

/// Pitfall 36: a piece that cannot be one of its snapshot is refused, and nothing is
/// kept of it.
#[test]
fn a_piece_that_cannot_be_one_is_refused() {
    let world = left_behind(Plan::voters(3), 9);
    let good = world.core(0).snapshot().expect("a has one").clone();
    let term = world.core(0).term();
    let piece = InstallSnapshot { term, seq: 20, id: good.id, offset: 0, data: good.data.clone() };
    let long = SnapshotId { length: SNAPSHOT_LIMIT_BYTES + 1, ..good.id };
    let later = SnapshotId { term: term.next(), ..good.id };
    let nowhere = SnapshotId { index: Index(0), ..good.id };
    let last = SnapshotId { index: Index(u64::MAX), ..good.id };
    let bad = [
        InstallSnapshot { offset: 1, ..piece.clone() },
        InstallSnapshot { offset: u64::MAX, ..piece.clone() },
        InstallSnapshot { data: Bytes::new(), ..piece.clone() },
        InstallSnapshot { id: long, ..piece.clone() },
        InstallSnapshot { id: later, ..piece.clone() },
        InstallSnapshot { id: nowhere, ..piece.clone() },
        InstallSnapshot { id: last, ..piece.clone() },
    ];
    for piece in bad {
        let mut core = world.core(2).clone();
        let m = envelope(&world, 0, 2, Message::InstallSnapshot(piece.clone()));
        assert_eq!(core.receive(m, Time(world.now)), Err(Refused::Malformed), "{piece:?}");
        assert!(core.incoming.is_none() && core.leader().is_none());
    }
}

/// Whatever a leader sends, or whoever passes for one: a follower keeps pieces of one
/// snapshot, within bounds. So does one that was removed in the middle of it.
#[test]
fn pieces_of_many_snapshots_stay_within_bounds() {
    let world = left_behind(Plan::voters(3), 9);
    let data = Bytes::from(vec![7; 60_000]);
    let mut core = world.core(2).clone();
    let (mut now, mut effects) = (world.now, Effects::default());
    let mut rng = Rng::new(1);
    for seq in 1..20_000 {
        let most = [1 << 10, 1 << 20, SNAPSHOT_LIMIT_BYTES][rng.between(0, 2) as usize];
        let id = SnapshotId {
            index: Index(rng.between(10, 13)),
            term: Term(rng.between(1, 2)),
            length: most,
            checksum: rng.between(0, 1) as u32,
        };
        // Never the first byte: nothing is ever whole.
        let offset = rng.between(1, most - 1);
        let data = data.slice(..(most - offset).min(60_000) as usize);
        let piece = InstallSnapshot { term: core.term(), seq, id, offset, data };
        let m = envelope(&world, 0, 2, Message::InstallSnapshot(piece));
        let taken = core.receive(m, Time(now));
        assert!(matches!(taken, Ok(()) | Err(Refused::Full)), "{taken:?}");
        check_bounds(&core).unwrap();
        now += 10;
        core.flush(Time(now), &mut effects);
        assert!(effects.assembled.is_none());
    }
    let (incoming, _) = core.incoming.as_ref().expect("one of them");
    assert_eq!(incoming.received(), 0);
}
