//! A snapshot on its way, piece by piece (Raft §7).
//!
//! ```text
//!   leader: Sending                             follower: Incoming
//!   first piece ───────────────────────────►    begins, or goes on with the same id
//!   ◄──────────────── received: all below       (so a transfer resumes where it stood)
//!   pieces within a window ────────────────►    put in place, in any order
//!   ◄──────────────── seq of the piece, received
//!   what is lost goes out again                 whole: opened, installed, durable
//!   ◄──────────────── Matched, as for entries
//! ```
//!
//! Each piece may be lost, repeated and late. A piece counts as lost when one that
//! left clearly later has been answered, or when nothing is answered for too long. The
//! follower keeps pieces that came early, within bounds, and forgets half a snapshot
//! only for another one that its present leader began later.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::snapshot::{Snapshot, SnapshotId};
use super::types::Time;

/// A piece is lost when one was answered that left so many pieces later.
const OVERTAKEN: u64 = 8;
/// A follower keeps pieces that lie at most so far ahead of what is missing.
const AHEAD_BYTES: u64 = 4 * 1024 * 1024;
/// It keeps at most so many of them, and no more bytes than those: they may overlap.
const EARLY_PIECES: usize = 4096;
/// All of it was answered, and the follower verifies less: after so long it has lost
/// it, in microseconds.
const FORGOTTEN_AFTER: u64 = 2_000_000;
/// It answers heartbeats and no piece: after so long all begins anew, in microseconds.
const UNHEARD_AFTER: u64 = 5_000_000;

/// One piece under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
struct Piece {
    seq: u64,
    /// The how many-eth piece of this transfer.
    number: u64,
    offset: u64,
    length: usize,
    at: Time,
}

/// A snapshot that a leader sends to one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub struct Sending {
    id: SnapshotId,
    data: Bytes,
    /// In the order in which they left.
    under_way: VecDeque<Piece>,
    bytes_under_way: usize,
    /// Where lost pieces begin, and how long they are.
    lost: BTreeMap<u64, usize>,
    /// The first byte that never left.
    next: u64,
    /// All below is there, the peer said.
    received: u64,
    /// How many pieces left.
    pieces: u64,
    /// Whether the peer has answered: before that one piece at a time leaves.
    answered: bool,
    /// Since when all of it has left and been answered. That the peer then has all of
    /// it need not be known: what it began anew, it answers as well.
    answered_since: Option<Time>,
    /// When a piece was answered last, or the first one left.
    heard_at: Option<Time>,
}

impl Sending {
    /// Nothing is sent yet.
    pub fn new(snapshot: &Snapshot) -> Sending {
        Sending {
            id: snapshot.id,
            data: snapshot.data.clone(),
            under_way: VecDeque::new(),
            bytes_under_way: 0,
            lost: BTreeMap::new(),
            next: 0,
            received: 0,
            pieces: 0,
            answered: false,
            answered_since: None,
            heard_at: None,
        }
    }

    /// Which snapshot.
    pub fn id(&self) -> SnapshotId {
        self.id
    }

    /// Whether another piece may leave while `window` bytes may be under way.
    pub fn may_send(&self, window: usize) -> bool {
        let free = match self.answered {
            true => self.bytes_under_way < window,
            false => self.under_way.is_empty(),
        };
        self.is_any_left() && free
    }

    /// Whether some of it never left, or is lost.
    fn is_any_left(&self) -> bool {
        self.next < self.id.length || !self.lost.is_empty()
    }

    /// The next piece, of at most `limit` bytes: where it begins, and its bytes.
    pub fn next_piece(&self, limit: usize) -> (u64, Bytes) {
        let (offset, length) = match self.lost.first_key_value() {
            Some((offset, length)) => (*offset, *length),
            None => (self.next, (self.id.length - self.next) as usize),
        };
        let start = offset as usize;
        (offset, self.data.slice(start..start + length.min(limit.max(1))))
    }

    /// That piece left as the leader's message `seq`.
    pub fn on_sent(&mut self, seq: u64, offset: u64, length: usize, now: Time) {
        if let Some(lost) = self.lost.remove(&offset) {
            if lost > length {
                self.lost.insert(offset + length as u64, lost - length);
            }
        } else {
            self.next = offset + length as u64;
        }
        self.pieces += 1;
        self.heard_at.get_or_insert(now);
        self.bytes_under_way += length;
        let number = self.pieces;
        self.under_way.push_back(Piece { seq, number, offset, length, at: now });
    }

    /// The peer has all below `received`, and what `seq` carried. Gives when that
    /// left, if it was under way, and whether anything is lost.
    pub fn on_answer(&mut self, seq: u64, received: u64, now: Time) -> (Option<Time>, bool) {
        self.answered = true;
        self.heard_at = Some(now);
        self.received = self.received.max(received);
        // Another leader, or an earlier transfer, has brought it that far.
        self.next = self.next.max(self.received);
        let answered = self.under_way.iter().find(|piece| piece.seq == seq).copied();
        let overtaken = answered.map_or(0, |piece| piece.number.saturating_sub(OVERTAKEN));
        let there = self.received;
        let mut lost = Vec::new();
        self.under_way.retain(|piece| {
            let known = piece.seq == seq || piece.offset + piece.length as u64 <= there;
            if !known && piece.number <= overtaken {
                lost.push(*piece);
            }
            !known && piece.number > overtaken
        });
        let any = !lost.is_empty();
        self.lose(lost);
        self.forget_lost_below(there);
        if self.under_way.is_empty() && !self.is_any_left() {
            self.answered_since.get_or_insert(now);
        }
        (answered.map(|piece| piece.at), any)
    }

    /// Nothing was answered for too long: all that is under way is lost.
    pub fn give_up(&mut self) {
        let lost = std::mem::take(&mut self.under_way);
        self.answered = false;
        self.lose(lost);
    }

    /// The peer verifies less than the snapshot's end. Says whether to begin anew,
    /// because it had all of it.
    pub fn is_forgotten(&self, now: Time) -> bool {
        self.answered_since.is_some_and(|since| now.since(since) >= FORGOTTEN_AFTER)
    }

    /// No piece was answered for so long that it cannot be loss, of a peer that answers
    /// other messages: what it keeps is not what it said.
    pub fn is_unheard(&self, now: Time) -> bool {
        let waits = self.is_any_left() || !self.under_way.is_empty();
        waits && self.heard_at.is_some_and(|at| now.since(at) >= UNHEARD_AFTER)
    }

    /// The oldest piece under way: as which message it left, and when.
    pub fn oldest_under_way(&self) -> Option<(u64, Time)> {
        self.under_way.front().map(|piece| (piece.seq, piece.at))
    }

    fn lose(&mut self, pieces: impl IntoIterator<Item = Piece>) {
        for piece in pieces {
            self.lost.insert(piece.offset, piece.length);
        }
        self.bytes_under_way = self.under_way.iter().map(|piece| piece.length).sum();
    }

    fn forget_lost_below(&mut self, there: u64) {
        while let Some((&offset, &length)) = self.lost.first_key_value() {
            let end = offset + length as u64;
            if offset >= there {
                break;
            }
            self.lost.remove(&offset);
            if end > there {
                self.lost.insert(there, (end - there) as usize);
            }
        }
    }
}

/// A snapshot that comes from the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub struct Incoming {
    id: SnapshotId,
    /// All up to here, without a gap.
    data: Vec<u8>,
    /// What came early, and how many bytes that is.
    early: BTreeMap<u64, Bytes>,
    early_bytes: usize,
}

impl Incoming {
    /// Nothing came yet.
    pub fn new(id: SnapshotId) -> Incoming {
        Incoming { id, data: Vec::new(), early: BTreeMap::new(), early_bytes: 0 }
    }

    /// Which snapshot.
    pub fn id(&self) -> SnapshotId {
        self.id
    }

    /// A piece came. False: it lies too far ahead to be kept, or too much is.
    pub fn take(&mut self, offset: u64, piece: Bytes) -> bool {
        let end = offset + piece.len() as u64;
        assert!(end <= self.id.length, "a piece up to {end} of {:?}", self.id);
        if offset > self.received() {
            return self.keep(offset, &piece);
        }
        self.extend(offset, &piece);
        while let Some(entry) =
            self.early.first_entry().filter(|e| *e.key() <= self.data.len() as u64)
        {
            let (offset, piece) = entry.remove_entry();
            self.early_bytes -= piece.len();
            self.extend(offset, &piece);
        }
        true
    }

    /// Keeps a piece that came early, in memory of its own: what it came in may be much
    /// larger.
    fn keep(&mut self, offset: u64, piece: &[u8]) -> bool {
        let known = self.early.get(&offset).map_or(0, Bytes::len);
        if piece.len() <= known {
            return true;
        }
        let bytes = self.early_bytes - known + piece.len();
        let near = offset <= self.received() + AHEAD_BYTES;
        let room = bytes as u64 <= AHEAD_BYTES && (known > 0 || self.early.len() < EARLY_PIECES);
        if near && room {
            self.early.insert(offset, Bytes::copy_from_slice(piece));
            self.early_bytes = bytes;
        }
        near && room
    }

    /// How much is kept that came early.
    #[cfg(any(test, feature = "sim"))]
    pub fn early_bytes(&self) -> usize {
        self.early_bytes
    }

    fn extend(&mut self, offset: u64, piece: &[u8]) {
        let known = (self.received() - offset) as usize;
        if let Some(new) = piece.get(known..) {
            self.data.extend_from_slice(new);
        }
    }

    /// All below is there.
    pub fn received(&self) -> u64 {
        self.data.len() as u64
    }

    /// Whether it is whole.
    pub fn is_complete(&self) -> bool {
        self.received() == self.id.length
    }

    /// The whole.
    pub fn into_data(self) -> Bytes {
        Bytes::from(self.data)
    }
}

#[cfg(test)]
mod tests {
    use super::super::membership::Membership;
    use super::super::rng::Rng;
    use super::super::types::{ClusterId, Index, Term};
    use super::*;

    fn snapshot(length: usize) -> Snapshot {
        let data: Vec<u8> = (0..length).map(|at| (at * 7 + at / 256) as u8).collect();
        let id = SnapshotId {
            index: Index(9),
            term: Term(2),
            length: length as u64,
            checksum: length as u32,
        };
        let members = Membership::new(ClusterId(1), Vec::new());
        Snapshot {
            id,
            members_index: Index(1),
            members,
            verdicts: Default::default(),
            data: Bytes::from(data),
        }
    }

    /// A path that loses, repeats and reorders pieces and answers alike.
    fn arrives(seed: u64, length: usize, limit: usize, incoming: &mut Incoming) -> u64 {
        let mut rng = Rng::new(seed);
        let snapshot = snapshot(length);
        let mut sending = Sending::new(&snapshot);
        let mut pieces: Vec<(u64, u64, Bytes)> = Vec::new();
        let mut answers: Vec<(u64, u64)> = Vec::new();
        let (mut seq, mut now) = (0, 0);
        for _ in 0..1_000_000 {
            if incoming.is_complete() {
                return seq;
            }
            now += rng.between(1, 500);
            while sending.may_send(10 * limit) {
                let (offset, piece) = sending.next_piece(limit);
                seq += rng.between(1, 3);
                sending.on_sent(seq, offset, piece.len(), Time(now));
                pieces.push((seq, offset, piece));
            }
            if sending.oldest_under_way().is_some_and(|(_, since)| now - since.0 > 20_000) {
                sending.give_up();
            }
            if !pieces.is_empty() {
                let at = rng.between(0, pieces.len() as u64 - 1) as usize;
                let (seq, offset, piece) = match rng.between(0, 9) {
                    0 => pieces[at].clone(),
                    1 | 2 => {
                        pieces.swap_remove(at);
                        continue;
                    }
                    _ => pieces.remove(at.min(3).min(pieces.len() - 1)),
                };
                if incoming.take(offset, piece) {
                    answers.push((seq, incoming.received()));
                }
            }
            if !answers.is_empty() && rng.between(0, 2) > 0 {
                let at = rng.between(0, answers.len() as u64 - 1) as usize;
                let (seq, received) = answers.remove(at);
                if rng.between(0, 9) > 1 {
                    sending.on_answer(seq, received, Time(now));
                }
            }
            let sum: usize = sending.under_way.iter().map(|piece| piece.length).sum();
            assert_eq!(sum, sending.bytes_under_way);
        }
        panic!("seed {seed}: {} of {length} bytes came", incoming.received());
    }

    /// Pitfall 36: pieces lost, repeated and reordered.
    #[test]
    fn pieces_in_any_order_make_the_same_snapshot() {
        for seed in 0..200 {
            let length = 1 + (seed as usize * 37) % 5_000;
            let mut incoming = Incoming::new(snapshot(length).id);
            arrives(seed, length, 1 + seed as usize % 97, &mut incoming);
            assert_eq!(incoming.into_data(), snapshot(length).data, "seed {seed}");
        }
    }

    /// Half of it came from an earlier leader: the rest is all that leaves.
    #[test]
    fn a_transfer_goes_on_where_it_stood() {
        let snapshot = snapshot(10_000);
        let mut incoming = Incoming::new(snapshot.id);
        assert!(incoming.take(0, snapshot.data.slice(..6_000)));
        let mut sending = Sending::new(&snapshot);
        let (offset, piece) = sending.next_piece(1_000);
        sending.on_sent(1, offset, piece.len(), Time(0));
        assert!(!sending.may_send(100_000), "one piece until something is known");
        incoming.take(offset, piece);
        sending.on_answer(1, incoming.received(), Time(5));
        let mut left = Vec::new();
        while sending.may_send(100_000) {
            let (offset, piece) = sending.next_piece(1_000);
            sending.on_sent(2 + left.len() as u64, offset, piece.len(), Time(6));
            left.push(offset);
            incoming.take(offset, piece);
        }
        assert_eq!(left, [6_000, 7_000, 8_000, 9_000]);
        assert_eq!(incoming.into_data(), snapshot.data);
    }

    #[test]
    fn what_lies_too_far_ahead_is_not_kept() {
        let id = SnapshotId { length: 1 << 30, ..snapshot(1).id };
        let mut incoming = Incoming::new(id);
        assert!(!incoming.take(AHEAD_BYTES + 1, Bytes::from_static(b"far")));
        assert!(incoming.take(AHEAD_BYTES, Bytes::from_static(b"near")));
        assert!(incoming.take(AHEAD_BYTES, Bytes::from_static(b"nearer")));
        assert_eq!((incoming.received(), incoming.early.len()), (0, 1));
    }

    /// Whatever overlaps, and however small it is cut, memory stays within bounds, and
    /// what is missing still finds its place.
    #[test]
    fn what_came_early_is_bounded() {
        let id = SnapshotId { length: 1 << 20, ..snapshot(1).id };
        let data = Bytes::from(vec![7; 1 << 20]);
        let mut incoming = Incoming::new(id);
        for (from, length) in [(1, 100_000), (500_000, 1)] {
            for offset in from..from + 100_000 {
                incoming.take(offset as u64, data.slice(offset..offset + length));
            }
        }
        assert!(incoming.early.len() <= EARLY_PIECES, "{} pieces", incoming.early.len());
        let bytes: usize = incoming.early.values().map(Bytes::len).sum();
        assert!(bytes as u64 <= AHEAD_BYTES, "{bytes} bytes");
        assert_eq!(bytes, incoming.early_bytes());
        assert!(incoming.take(0, data.clone()));
        assert!(incoming.is_complete() && incoming.early_bytes() == 0);
    }

    /// Pieces that overlap count once: two leaders cut the same snapshot differently.
    #[test]
    fn pieces_of_two_sizes_fit_together() {
        let snapshot = snapshot(1_000);
        let mut incoming = Incoming::new(snapshot.id);
        for (offset, end) in [(300, 700), (300, 400), (0, 350), (650, 1_000), (100, 200)] {
            incoming.take(offset as u64, snapshot.data.slice(offset..end));
        }
        assert_eq!(incoming.into_data(), snapshot.data);
    }
}
