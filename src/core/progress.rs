//! What the leader knows of one peer's log, and how much it dares to send.
//!
//! ```text
//!            a reply that matches
//!   Probe ─────────────────────────► Replicate ◄──────────────┐
//!     ▲ │                                │                    │ it is installed
//!     └─┼────────────────────────────────┘                    │
//!       │ a mismatch, silence, a new run                      │
//!       └─────────────────────────────────────────────────► Snapshot
//!         what is needed next is not in the log any more
//! ```
//!
//! *Probe*: one append under way, to find where the logs agree. *Replicate*:
//! appends are sent one after the other without waiting, within a window. A lost
//! datagram shows in three ways: a later append does not fit (mismatch), a later
//! heartbeat finds less than was sent, or nothing comes back for several round
//! trips. The first two have the lost appends sent again, and those alone (`pipeline`);
//! the third leads back to probing from what is known to match. Losses of one round trip
//! take a quarter of the window together, silence takes half of it. *Snapshot*: pieces of a
//! snapshot are sent within the same window, until the peer's log is found to reach its end
//! (`transfer`). After two unanswered probes in a row nothing more is sent until the peer is
//! heard again, so that a dead peer costs heartbeats and nothing else.

#[cfg(test)]
mod tests;

use bytes::Bytes;

use super::detector::Watch;
use super::news::News;
use super::pipeline::{Pipeline, Sent};
use super::snapshot::{Snapshot, SnapshotId};
use super::transfer::Sending;
use super::types::{Index, Time};

/// The window at the start of a leadership, in bytes.
const WINDOW_START: usize = 256 * 1024;
/// The window's bounds, in bytes: one full datagram, and what a socket's buffer
/// of 4 MiB may hold without overflowing.
const WINDOW_LEAST: usize = 64 * 1024;
const WINDOW_MOST: usize = 1024 * 1024;
/// It grows by so much for each piece of a snapshot that arrives.
const WINDOW_STEP: usize = 1024;
/// A reply is awaited at least and at most so long, in microseconds.
const PATIENCE_LEAST: u64 = 10_000;
const PATIENCE_MOST: u64 = 400_000;
/// After so many unanswered probes in a row only a sign of life sends another.
const PROBES_UNANSWERED: u32 = 2;

#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
enum State {
    Probe { under_way: Option<Sent> },
    Replicate(Pipeline),
    Snapshot(Box<Sending>),
}

/// One peer, as its leader sees it.
#[derive(Clone, Debug)]
#[cfg_attr(test, derive(Hash))]
pub struct Progress {
    match_index: Index,
    next_index: Index,
    state: State,
    window: usize,
    /// A loss among what left before this number has narrowed the window already.
    narrowed_before: u64,
    /// The last append or piece that was given up: its late answer tells how long an
    /// answer takes, or a slow path would never be measured.
    given_up: Option<Sent>,
    /// Unanswered probes in a row.
    unanswered: u32,
    /// Smoothed round trip and its mean deviation (RFC 6298), in microseconds.
    round_trip: Option<(u64, u64)>,
    /// The newest of the leader's messages that the peer has answered.
    pub acked_seq: u64,
    /// When the newest round that the peer has answered began.
    pub contact_at: Time,
    /// What it was told of commits.
    pub news: News,
    /// Whether it is up.
    pub watch: Watch,
}

impl Progress {
    /// A peer of which nothing is known but that it should continue a log that
    /// ends at `last_index`.
    pub fn new(last_index: Index, now: Time) -> Progress {
        Progress {
            match_index: Index(0),
            next_index: last_index.next(),
            state: State::Probe { under_way: None },
            window: WINDOW_START,
            narrowed_before: 0,
            given_up: None,
            unanswered: 0,
            round_trip: None,
            acked_seq: 0,
            contact_at: now,
            news: News::new(last_index.next()),
            watch: Watch::new(now),
        }
    }

    /// Up to here the peer's log is the leader's, durably.
    pub fn match_index(&self) -> Index {
        self.match_index
    }

    /// The next entry to send.
    pub fn next_index(&self) -> Index {
        self.next_index
    }

    /// What an append is to carry now: from which entry on, and through which if it is
    /// sent again.
    pub fn next_append(&self) -> (Index, Option<Index>) {
        let lost = match &self.state {
            State::Replicate(pipeline) => pipeline.first_lost(self.match_index),
            State::Probe { .. } | State::Snapshot(_) => None,
        };
        lost.map_or((self.next_index, None), |(first, last)| (first, Some(last)))
    }

    /// Whether an append may leave now; `pending` says whether there are entries
    /// from `next_index` on. What is lost has had its room since it first left.
    pub fn may_send(&self, pending: bool) -> bool {
        match &self.state {
            State::Probe { under_way } => {
                under_way.is_none() && self.unanswered < PROBES_UNANSWERED
            }
            State::Replicate(pipeline) => {
                pipeline.has_lost() || pending && pipeline.has_room(self.window)
            }
            State::Snapshot(_) => false,
        }
    }

    /// An append with `seq` left, ending at `last`.
    pub fn on_sent(&mut self, seq: u64, last: Index, size_bytes: usize, now: Time) {
        let sent = Sent { seq, last, bytes: size_bytes, at: now };
        match &mut self.state {
            State::Probe { under_way } => *under_way = Some(sent),
            State::Replicate(pipeline) => {
                if pipeline.on_sent(sent) {
                    self.next_index = last.next();
                }
            }
            State::Snapshot(_) => panic!("an append left while a snapshot is sent"),
        }
    }

    /// The log that the peer needs is gone: it gets this snapshot.
    pub fn become_snapshot(&mut self, snapshot: &Snapshot) {
        assert!(
            snapshot.id.index > self.match_index,
            "a snapshot at {} for a peer that matches up to {}",
            snapshot.id.index,
            self.match_index
        );
        self.state = State::Snapshot(Box::new(Sending::new(snapshot)));
    }

    /// The next piece of the snapshot that is sent, if one may leave: it leaves as the
    /// leader's message `seq`.
    pub fn next_piece(
        &mut self,
        limit: usize,
        seq: u64,
        now: Time,
    ) -> Option<(SnapshotId, u64, Bytes)> {
        let State::Snapshot(sending) = &mut self.state else { return None };
        if self.unanswered >= PROBES_UNANSWERED || !sending.may_send(self.window) {
            return None;
        }
        let (offset, piece) = sending.next_piece(limit);
        sending.on_sent(seq, offset, piece.len(), now);
        Some((sending.id(), offset, piece))
    }

    /// The peer has all of that snapshot below `received`, and the piece `seq`.
    pub fn on_received(&mut self, seq: u64, id: SnapshotId, received: u64, now: Time) {
        let State::Snapshot(sending) = &mut self.state else { return };
        if sending.id() != id {
            return;
        }
        let (left_at, lost) = sending.on_answer(seq, received, now);
        self.unanswered = 0;
        match left_at {
            // It came again, or after it was given up.
            None => self.measure_given_up(seq, now),
            Some(at) => {
                self.on_round_trip(now.since(at));
                self.window = (self.window + WINDOW_STEP).min(WINDOW_MOST);
            }
        }
        if lost {
            self.halve_window();
        }
    }

    /// Behind this index the log must be kept for this peer to go on; `None` while
    /// nothing is known of it.
    pub fn wants_after(&self) -> Option<Index> {
        match &self.state {
            State::Snapshot(sending) => Some(sending.id().index),
            _ => Some(self.match_index).filter(|matched| *matched > Index(0)),
        }
    }

    /// The peer answered the leader's message `seq`.
    pub fn on_answer(&mut self, seq: u64, began_at: Option<Time>) {
        self.acked_seq = self.acked_seq.max(seq);
        if let Some(at) = began_at {
            self.contact_at = self.contact_at.max(at);
        }
    }

    /// The peer's log matches up to `index`, it says in answer to `seq`.
    pub fn on_matched(&mut self, seq: u64, index: Index, now: Time) {
        self.match_index = self.match_index.max(index);
        self.next_index = self.next_index.max(self.match_index.next());
        self.measure_given_up(seq, now);
        let mut measured = None;
        match &mut self.state {
            State::Probe { under_way } => {
                // A late answer to something older raises what matches and leaves
                // the probe its turn.
                let Some(sent) = *under_way else { return };
                if seq < sent.seq && self.match_index < sent.last {
                    return;
                }
                let taken = seq == sent.seq;
                if taken {
                    measured = Some(now.since(sent.at));
                }
                self.become_replicate();
                // The peer has what the probe carried and is still writing it.
                if taken && sent.last > self.match_index {
                    self.on_sent(sent.seq, sent.last, sent.bytes, sent.at);
                }
            }
            State::Replicate(pipeline) => {
                let (freed, left_at) = pipeline.on_matched(seq, self.match_index);
                measured = left_at.map(|at| now.since(at));
                self.window = (self.window + freed / 4).min(WINDOW_MOST);
            }
            State::Snapshot(sending) => {
                if self.match_index >= sending.id().index {
                    self.become_replicate();
                }
            }
        }
        self.unanswered = 0;
        if let Some(sample) = measured {
            self.on_round_trip(sample);
        }
        self.check();
    }

    /// The append `seq` did not fit on the peer's log; the logs can agree at most
    /// up to `agree`. Says whether this was news: an answer to what is no longer
    /// under way, or below what matches, changes nothing.
    pub fn on_mismatch(&mut self, seq: u64, refused: Index, agree: Index, now: Time) -> bool {
        self.measure_given_up(seq, now);
        if refused <= self.match_index {
            return false;
        }
        match &mut self.state {
            // The answer to an earlier probe of the same place is as good.
            State::Probe { .. } if refused == self.next_index.previous() => {
                self.become_probe(agree.next());
            }
            State::Replicate(pipeline) => {
                let Some((left_at, overtook)) = pipeline.on_refused(seq) else { return false };
                if overtook {
                    self.on_round_trip(now.since(left_at));
                    self.on_overtaken(seq, agree);
                } else {
                    self.halve_window();
                    self.become_probe(agree.next());
                }
            }
            State::Probe { .. } | State::Snapshot(_) => return false,
        }
        self.unanswered = 0;
        true
    }

    /// Where nothing is missing before it, the peer does not hold what it refused.
    fn doubt_refused(&mut self) {
        if let State::Replicate(pipeline) = &mut self.state {
            pipeline.doubt_refused();
        }
    }

    /// What left before `seq` and lies above `there` is lost, if it was not refused.
    fn on_overtaken(&mut self, seq: u64, there: Index) {
        let State::Replicate(pipeline) = &mut self.state else { return };
        let Some((newest_lost, newest)) = pipeline.on_overtaken(seq, there) else { return };
        if newest_lost >= self.narrowed_before {
            self.narrowed_before = newest + 1;
            // Half would be too much for a path that loses by chance: it carries no more
            // for being sent less, and only what is lost burdens it again.
            self.window = (self.window * 3 / 4).max(WINDOW_LEAST);
        }
    }

    /// The peer answered heartbeat `seq`: of the leader's log it has verified
    /// what lies at or below `verified`. What was sent before and lies above is
    /// lost. Says whether something was.
    pub fn on_heartbeat_answer(&mut self, seq: u64, verified: Index, now: Time) -> bool {
        match &self.state {
            State::Probe { under_way } => {
                if under_way.is_none_or(|sent| sent.seq < seq && sent.last > verified) {
                    self.unanswered = 0;
                    self.state = State::Probe { under_way: None };
                }
                false
            }
            State::Replicate(pipeline) => {
                let front = pipeline.front();
                let lost = front.is_some_and(|sent| sent.seq < seq && sent.last > verified);
                // It stood for election meanwhile, and has to verify once more what
                // it has: until then it commits nothing of it.
                let forgotten = front.is_none() && verified < self.match_index;
                if lost {
                    self.doubt_refused();
                    self.on_overtaken(seq, verified);
                } else if forgotten {
                    self.become_probe(self.match_index.next());
                }
                lost
            }
            State::Snapshot(sending) => {
                self.unanswered = 0;
                // It had all of it, and could not use it; or it answers, and not to this.
                let unused = verified < sending.id().index && sending.is_forgotten(now);
                if unused || sending.is_unheard(now) {
                    // Perhaps it has it by now: its answer says where its log ends.
                    self.become_probe(sending.id().index.next());
                }
                false
            }
        }
    }

    /// When to give up waiting for what is under way; `None` if nothing is.
    pub fn deadline(&self) -> Option<Time> {
        let since = match &self.state {
            State::Probe { under_way } => under_way.as_ref().map(|sent| sent.at),
            State::Replicate(pipeline) => pipeline.front().map(|sent| sent.at),
            State::Snapshot(sending) => sending.oldest_under_way().map(|(_, at)| at),
        }?;
        Some(since.plus(self.patience()))
    }

    /// Time passed; says whether something under way was given up.
    pub fn on_tick(&mut self, now: Time) -> bool {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return false;
        }
        self.unanswered += 1;
        match &mut self.state {
            // The next probe asks the same: only an answer moves it.
            State::Probe { under_way } => {
                self.given_up = *under_way;
                self.state = State::Probe { under_way: None };
            }
            State::Replicate(pipeline) => {
                self.given_up = pipeline.front();
                self.halve_window();
                self.become_probe(self.match_index.next());
            }
            State::Snapshot(sending) => {
                let oldest = sending.oldest_under_way();
                self.given_up = oldest.map(|(seq, at)| Sent { seq, last: Index(0), bytes: 0, at });
                sending.give_up();
                self.halve_window();
            }
        }
        true
    }

    /// The peer started anew: what was under way will not be answered. Where the log
    /// from `base` to `last_index` does not hold what the peer is known to have, it is
    /// asked, as at an election, whether it continues a log that ends at `last_index`:
    /// its answer says where its own ends.
    pub fn on_new_run(&mut self, base: Index, last_index: Index) {
        self.unanswered = 0;
        let known = self.match_index > Index(0) && self.match_index >= base;
        self.become_probe(if known { self.match_index } else { last_index }.next());
    }

    /// The log now begins behind the snapshot that is sent, if one is: another is
    /// needed.
    pub fn snapshot_is_outdated(&mut self, base: Index) {
        if let State::Snapshot(sending) = &self.state
            && sending.id().index < base
        {
            self.become_probe(self.match_index.next());
        }
    }

    /// How long an answer is awaited, in microseconds.
    fn patience(&self) -> u64 {
        let patience = match self.round_trip {
            Some((smoothed, deviation)) => 2 * smoothed + 4 * deviation,
            // Heartbeats show a loss before this is over.
            None => PATIENCE_MOST,
        };
        (patience << self.unanswered.min(4)).clamp(PATIENCE_LEAST, PATIENCE_MOST)
    }

    fn measure_given_up(&mut self, seq: u64, now: Time) {
        if let Some(sent) = self.given_up.take_if(|sent| sent.seq == seq) {
            self.on_round_trip(now.since(sent.at));
        }
    }

    fn on_round_trip(&mut self, sample: u64) {
        self.round_trip = Some(match self.round_trip {
            None => (sample, sample / 2),
            Some((smoothed, deviation)) => {
                ((smoothed * 7 + sample) / 8, (deviation * 3 + smoothed.abs_diff(sample)) / 4)
            }
        });
    }

    fn halve_window(&mut self) {
        self.window = (self.window / 2).max(WINDOW_LEAST);
    }

    fn become_probe(&mut self, next_index: Index) {
        self.state = State::Probe { under_way: None };
        self.next_index = next_index.max(self.match_index.next());
        self.check();
    }

    fn become_replicate(&mut self) {
        self.state = State::Replicate(Pipeline::default());
        self.next_index = self.match_index.next();
        self.check();
    }

    /// For the exploration: what measures time and room begins anew, and what is under way
    /// bears the numbers that `number` gives.
    #[cfg(test)]
    pub fn settle(&mut self, number: impl Fn(u64) -> u64) {
        self.window = WINDOW_START;
        self.narrowed_before = 0;
        self.given_up = None;
        self.round_trip = None;
        self.acked_seq = 0;
        match &mut self.state {
            State::Probe { under_way } => {
                under_way.iter_mut().for_each(|sent| sent.seq = number(sent.seq));
            }
            State::Replicate(pipeline) => pipeline.number(number),
            State::Snapshot(_) => {}
        }
    }

    /// Pitfall 28: what is sent next lies above what matches, always.
    fn check(&self) {
        assert!(
            self.next_index > self.match_index,
            "next_index {} at or below match_index {}",
            self.next_index,
            self.match_index
        );
    }
}
