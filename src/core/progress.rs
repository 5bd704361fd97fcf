//! What the leader knows of one peer's log, and how much it dares to send.
//!
//! ```text
//!            a reply that matches
//!   Probe ─────────────────────────► Replicate ◄──────────────┐
//!     ▲ │                                │                    │ it is installed
//!     └─┼────────────────────────────────┘                    │
//!       │ a mismatch, a loss, a new run                       │
//!       └─────────────────────────────────────────────────► Snapshot
//!         what is needed next is not in the log any more
//! ```
//!
//! *Probe*: one append under way, to find where the logs agree. *Replicate*:
//! appends are sent one after the other without waiting, within a window. A lost
//! datagram shows in three ways: the next append does not fit (mismatch), a later
//! heartbeat finds less than was sent, or nothing comes back for several round
//! trips. Each leads back to probing from what is known to match, with the window
//! halved. *Snapshot*: pieces of a snapshot are sent within the same window, until the
//! peer's log is found to reach its end (`transfer`). After two unanswered probes in a row nothing more is sent until the
//! peer is heard again, so that a dead peer costs heartbeats and nothing else.

use std::collections::VecDeque;

use bytes::Bytes;

use super::detector::Watch;
use super::news::News;
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
/// At most so many appends are under way to one peer.
const APPENDS_MOST: usize = 1024;
/// A reply is awaited at least and at most so long, in microseconds.
const PATIENCE_LEAST: u64 = 10_000;
const PATIENCE_MOST: u64 = 400_000;
/// After so many unanswered probes in a row only a sign of life sends another.
const PROBES_UNANSWERED: u32 = 2;

/// One append under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
struct Sent {
    seq: u64,
    last: Index,
    bytes: usize,
    at: Time,
}

#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
enum State {
    Probe { under_way: Option<Sent> },
    Replicate { under_way: VecDeque<Sent>, bytes: usize },
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

    /// Whether an append may leave now; `pending` says whether there are entries
    /// from `next_index` on.
    pub fn may_send(&self, pending: bool) -> bool {
        match &self.state {
            State::Probe { under_way } => {
                under_way.is_none() && self.unanswered < PROBES_UNANSWERED
            }
            State::Replicate { under_way, bytes } => {
                pending
                    && under_way.len() < APPENDS_MOST
                    && (*bytes < self.window || under_way.is_empty())
            }
            State::Snapshot(_) => false,
        }
    }

    /// An append with `seq` left, ending at `last`.
    pub fn on_sent(&mut self, seq: u64, last: Index, size_bytes: usize, now: Time) {
        let sent = Sent { seq, last, bytes: size_bytes, at: now };
        match &mut self.state {
            State::Probe { under_way } => *under_way = Some(sent),
            State::Replicate { under_way, bytes } => {
                under_way.push_back(sent);
                *bytes += size_bytes;
                self.next_index = last.next();
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
            State::Replicate { under_way, bytes } => {
                let mut freed = 0;
                while let Some(sent) = under_way.front() {
                    if sent.last > self.match_index {
                        break;
                    }
                    freed += sent.bytes;
                    if sent.seq == seq {
                        measured = Some(now.since(sent.at));
                    }
                    under_way.pop_front();
                }
                *bytes -= freed;
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
        let expected = match &self.state {
            // The answer to an earlier probe of the same place is as good.
            State::Probe { .. } => refused == self.next_index.previous(),
            State::Replicate { under_way, .. } => under_way.iter().any(|sent| sent.seq == seq),
            State::Snapshot(_) => false,
        };
        self.measure_given_up(seq, now);
        if !expected || refused <= self.match_index {
            return false;
        }
        if matches!(self.state, State::Replicate { .. }) {
            self.halve_window();
        }
        self.unanswered = 0;
        self.become_probe(agree.next());
        true
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
            State::Replicate { under_way, .. } => {
                let lost =
                    under_way.front().is_some_and(|sent| sent.seq < seq && sent.last > verified);
                // It stood for election meanwhile, and has to verify once more what
                // it has: until then it commits nothing of it.
                let forgotten = under_way.is_empty() && verified < self.match_index;
                if lost {
                    self.halve_window();
                    self.become_probe(verified.next());
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
            State::Replicate { under_way, .. } => under_way.front().map(|sent| sent.at),
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
            State::Replicate { under_way, .. } => {
                self.given_up = under_way.front().copied();
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
        self.state = State::Replicate { under_way: VecDeque::new(), bytes: 0 };
        self.next_index = self.match_index.next();
        self.check();
    }

    /// For the exploration: what measures time and room begins anew, and what is under way
    /// bears the numbers that `number` gives.
    #[cfg(test)]
    pub fn settle(&mut self, number: impl Fn(u64) -> u64) {
        self.window = WINDOW_START;
        self.given_up = None;
        self.round_trip = None;
        self.acked_seq = 0;
        match &mut self.state {
            State::Probe { under_way } => {
                under_way.iter_mut().for_each(|sent| sent.seq = number(sent.seq));
            }
            State::Replicate { under_way, .. } => {
                under_way.iter_mut().for_each(|sent| sent.seq = number(sent.seq));
            }
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

#[cfg(test)]
mod tests {
    use super::super::membership::Membership;
    use super::super::types::ClusterId;
    use super::*;

    fn replicating() -> Progress {
        let mut progress = Progress::new(Index(0), Time(0));
        progress.on_sent(1, Index(0), 50, Time(0));
        progress.on_matched(1, Index(0), Time(1_000));
        progress
    }

    /// Pitfall 21: late, repeated and reordered replies never move match_index
    /// back, and next_index stays above it (pitfall 28). Every order of five
    /// replies, each given twice.
    #[test]
    fn replies_in_any_order_and_twice_end_at_the_same_place() {
        fn orders(rest: Vec<u64>) -> Vec<Vec<u64>> {
            if rest.is_empty() {
                return vec![vec![]];
            }
            let mut all = vec![];
            for (place, &first) in rest.iter().enumerate() {
                let mut others = rest.clone();
                others.remove(place);
                for mut order in orders(others) {
                    order.insert(0, first);
                    all.push(order);
                }
            }
            all
        }
        for order in orders(vec![2, 3, 4, 5, 6]) {
            let mut progress = replicating();
            for seq in 2..=6 {
                progress.on_sent(seq, Index(seq), 100, Time(2_000));
            }
            let mut highest = Index(0);
            for seq in order.iter().chain(order.iter().rev()) {
                progress.on_matched(*seq, Index(*seq), Time(3_000));
                highest = highest.max(Index(*seq));
                assert_eq!(progress.match_index(), highest);
            }
            assert_eq!(progress.next_index(), Index(7));
            assert_eq!(progress.deadline(), None, "nothing is left under way");
        }
    }

    /// Whatever is sent, answered, refused, lost and given up, in any order: what is
    /// under way is what a naive list says, and it stays within the window.
    #[test]
    fn what_is_under_way_is_what_a_naive_list_says() {
        for seed in 0..500 {
            let mut rng = crate::core::rng::Rng::new(seed);
            let mut progress = Progress::new(Index(0), Time(0));
            let (mut seq, mut end, mut now) = (0, 0, 0);
            // All that ever left, and what of it nobody has answered or given up.
            let mut left: Vec<Sent> = Vec::new();
            let mut list: Vec<Sent> = Vec::new();
            for _ in 0..200 {
                now += rng.between(0, 40_000);
                let probing = matches!(progress.state, State::Probe { .. });
                match rng.between(0, 5) {
                    0 | 1 => {
                        end += rng.between(0, 3);
                        if progress.may_send(progress.next_index() <= Index(end)) {
                            seq += 1;
                            let bytes = rng.between(1, 60_000) as usize;
                            let last = Index(end.max(progress.next_index().previous().0));
                            let sent = Sent { seq, last, bytes, at: Time(now) };
                            progress.on_sent(seq, last, bytes, Time(now));
                            left.push(sent);
                            list.push(sent);
                        }
                    }
                    2 | 3 if !left.is_empty() => {
                        let sent = left[rng.between(0, left.len() as u64 - 1) as usize];
                        let before = progress.match_index();
                        progress.on_matched(sent.seq, sent.last, Time(now));
                        assert_eq!(progress.match_index(), before.max(sent.last));
                        let replicates = matches!(progress.state, State::Replicate { .. });
                        list.retain(|other| other.last > progress.match_index());
                        if probing && replicates {
                            list.clear();
                        }
                    }
                    4 if !left.is_empty() => {
                        let sent = left[rng.between(0, left.len() as u64 - 1) as usize];
                        let agree = progress.match_index();
                        if progress.on_mismatch(sent.seq, sent.last, agree, Time(now)) {
                            list.clear();
                        }
                    }
                    _ if progress.on_tick(Time(now)) => list.clear(),
                    _ => {}
                }
                if let State::Replicate { under_way, bytes } = &progress.state {
                    assert_eq!(under_way.iter().copied().collect::<Vec<_>>(), list, "seed {seed}");
                    assert_eq!(
                        *bytes,
                        list.iter().map(|sent| sent.bytes).sum::<usize>(),
                        "seed {seed}"
                    );
                    assert!(*bytes < WINDOW_MOST + 60_000, "seed {seed}: {bytes} under way");
                }
                progress.check();
            }
        }
    }

    /// A probe that nobody answers is repeated where it was: it does not go back to the
    /// start of the log.
    #[test]
    fn an_unanswered_probe_asks_the_same_again() {
        let mut progress = Progress::new(Index(1_000), Time(0));
        progress.on_sent(1, Index(1_001), 50, Time(0));
        assert!(progress.on_tick(progress.deadline().expect("an answer is awaited")));
        assert_eq!(progress.next_index(), Index(1_001));
    }

    /// A path that became slow is measured by the answers to what was given up: else
    /// each append would be given up for ever.
    #[test]
    fn a_path_that_became_slow_is_measured() {
        let mut progress = Progress::new(Index(0), Time(0));
        progress.on_sent(1, Index(1), 50, Time(0));
        progress.on_matched(1, Index(1), Time(1_000));
        progress.on_sent(2, Index(2), 50, Time(10_000));
        assert!(progress.on_tick(Time(60_000)), "it was quick before");
        progress.on_sent(3, Index(2), 50, Time(60_000));
        progress.on_matched(2, Index(2), Time(90_000));
        progress.on_sent(4, Index(3), 50, Time(100_000));
        let patience = progress.deadline().expect("an answer is awaited").since(Time(100_000));
        assert!(patience > 80_000, "an answer takes 80 ms, {patience} us are waited");
    }

    /// Pitfall 22: a stale rejection winds progress back after a later success.
    #[test]
    fn a_rejection_of_what_is_no_longer_under_way_changes_nothing() {
        let mut progress = replicating();
        progress.on_sent(2, Index(5), 100, Time(0));
        progress.on_sent(3, Index(9), 100, Time(0));
        progress.on_matched(3, Index(9), Time(1_000));
        assert!(!progress.on_mismatch(2, Index(0), Index(0), Time(2_000)));
        assert!(!progress.on_mismatch(7, Index(20), Index(3), Time(2_000)), "never sent");
        assert_eq!((progress.match_index(), progress.next_index()), (Index(9), Index(10)));
    }

    fn sent_a_snapshot() -> (Progress, SnapshotId) {
        let id = SnapshotId { index: Index(9), length: 10_000, ..SnapshotId::default() };
        let members = Membership::new(ClusterId(1), Vec::new());
        let data = Bytes::from(vec![7; 10_000]);
        let snapshot =
            Snapshot { id, members_index: Index(1), members, verdicts: Default::default(), data };
        let mut progress = Progress::new(Index(9), Time(0));
        progress.become_snapshot(&snapshot);
        (progress, id)
    }

    /// The same for pieces of a snapshot: else one at a time would travel for ever.
    #[test]
    fn a_path_that_became_slow_is_measured_by_pieces() {
        let (mut progress, id) = sent_a_snapshot();
        progress.next_piece(1_000, 1, Time(0)).expect("a piece");
        progress.on_received(1, id, 1_000, Time(1_000));
        progress.next_piece(1_000, 2, Time(10_000)).expect("a piece");
        assert!(progress.on_tick(Time(60_000)), "it was quick before");
        progress.next_piece(1_000, 3, Time(60_000)).expect("the same piece");
        progress.on_received(2, id, 2_000, Time(90_000));
        progress.next_piece(1_000, 4, Time(100_000)).expect("the next piece");
        let patience = progress.deadline().expect("an answer is awaited").since(Time(100_000));
        assert!(patience > 80_000, "an answer takes 80 ms, {patience} us are waited");
    }

    /// A peer that answers heartbeats and no piece of its snapshot is asked anew what it
    /// has; else the transfer would wait for ever for what the peer does not keep.
    #[test]
    fn a_transfer_of_which_nothing_is_heard_begins_anew() {
        let (mut progress, id) = sent_a_snapshot();
        progress.next_piece(1_000, 1, Time(0)).expect("a piece");
        progress.on_received(1, id, 1_000, Time(1_000));
        progress.next_piece(1_000, 2, Time(1_000)).expect("a piece");
        let mut now = 1_000;
        while now < 5_000_000 {
            now += 30_000;
            progress.on_tick(Time(now));
            assert!(matches!(progress.state, State::Snapshot(_)), "after {now} us");
            progress.on_heartbeat_answer(1, Index(0), Time(now - 30_000));
            while progress.next_piece(1_000, 3, Time(now)).is_some() {}
        }
        progress.on_heartbeat_answer(1, Index(0), Time(now + 30_000));
        assert!(matches!(progress.state, State::Probe { .. }));
        assert_eq!(progress.next_index(), Index(10));
    }

    /// An answer that comes again is no news: it makes no room for more.
    #[test]
    fn a_repeated_answer_to_a_piece_widens_nothing() {
        let (mut progress, id) = sent_a_snapshot();
        let before = progress.window;
        for (seq, offset) in [(1, 0), (2, 1_000)] {
            let (_, at, piece) = progress.next_piece(1_000, seq, Time(0)).expect("a piece");
            assert_eq!((at, piece.len()), (offset, 1_000));
            for _ in 0..100 {
                progress.on_received(seq, id, offset + 1_000, Time(500));
            }
        }
        assert_eq!(progress.window, before + 2 * WINDOW_STEP);
    }

    /// A probe that was taken and is being written is not sent again.
    #[test]
    fn what_a_probe_carried_is_sent_once() {
        let mut progress = Progress::new(Index(5), Time(0));
        progress.on_sent(1, Index(8), 300, Time(0));
        progress.on_matched(1, Index(5), Time(1_000));
        assert_eq!((progress.match_index(), progress.next_index()), (Index(5), Index(9)));
        progress.on_matched(1, Index(8), Time(2_000));
        assert_eq!((progress.match_index(), progress.next_index()), (Index(8), Index(9)));
        assert_eq!(progress.deadline(), None);
    }

    #[test]
    fn the_window_bounds_what_is_under_way() {
        let mut progress = replicating();
        let mut sent = 0;
        while progress.may_send(true) {
            sent += 1;
            progress.on_sent(1 + sent, Index(sent), 60_000, Time(0));
        }
        assert!(sent as usize * 60_000 <= WINDOW_START + 60_000, "{sent} datagrams");
        assert!(!progress.may_send(false));
        progress.on_matched(2, Index(1), Time(500));
        assert!(progress.may_send(true), "an answer makes room");
    }

    #[test]
    fn a_dead_peer_is_probed_twice_and_then_only_when_it_is_heard() {
        let mut progress = replicating();
        progress.on_sent(2, Index(1), 100, Time(0));
        assert!(progress.on_tick(Time(1_000_000)));
        assert!(progress.may_send(true));
        progress.on_sent(3, Index(1), 100, Time(1_000_000));
        assert!(progress.on_tick(Time(2_000_000)));
        assert!(!progress.may_send(true), "nobody answers");
        assert_eq!(progress.deadline(), None);
        progress.on_heartbeat_answer(9, Index(0), Time(0));
        assert!(progress.may_send(true), "it lives");
    }

    #[test]
    fn a_heartbeat_shows_what_was_lost_before_it() {
        let mut progress = replicating();
        progress.on_sent(2, Index(4), 100, Time(0));
        assert!(
            !progress.on_heartbeat_answer(3, Index(4), Time(0)),
            "it is there, if not yet durable"
        );
        assert!(progress.on_heartbeat_answer(4, Index(2), Time(0)));
        assert_eq!(progress.next_index(), Index(3));
    }

    #[test]
    fn who_has_all_and_verified_less_is_probed() {
        let mut progress = replicating();
        progress.on_sent(2, Index(4), 100, Time(0));
        progress.on_matched(2, Index(4), Time(1_000));
        assert!(!progress.may_send(false), "nothing to say");
        assert!(!progress.on_heartbeat_answer(3, Index(0), Time(0)), "nothing was lost");
        assert!(progress.may_send(false), "the logs are compared again");
        assert_eq!((progress.match_index(), progress.next_index()), (Index(4), Index(5)));
    }
}
