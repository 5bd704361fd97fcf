//! Sends the long messages to one run of a peer, and the lost fragments again.
//!
//! The messages go in order, a few at a time, so that the next one is under way
//! while the last fragments of the one before are acknowledged. Altogether a
//! window of fragments is under way, which grows with what arrives and is halved
//! by a loss. A fragment counts as lost when its time has run out, or when others
//! that were sent a while after it have arrived: so on a path with traffic a loss
//! costs about a round trip, not a timeout.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::core::types::Time;
use crate::encoding::cursor::varint_len;

use super::{AHEAD_LIMIT, FRAGMENT_LEAST_BYTES, Fragment, FragmentAck, put_fragment};

/// At most so many messages wait or are under way.
pub(super) const QUEUE_LIMIT: usize = 64;
/// So many messages are under way at once; fewer than a receiver takes.
const UNDER_WAY_LIMIT: usize = 4;
/// The bytes of a full window: about 8 datagrams between loopback addresses.
const WINDOW_BYTES: usize = 480_000;
/// The window's bounds in fragments. The upper one is for the short datagrams of
/// other paths.
const WINDOW_LEAST: u64 = 2;
const WINDOW_FIRST: u64 = 16;
const WINDOW_MOST: u64 = 64;
/// A fragment is overtaken when one that was sent so many later has arrived; less
/// is a network that changes the order.
const OVERTAKEN_BY: u64 = 3;
/// How long an acknowledgement is waited for, before round trips were measured
/// and at least and at most after.
const TIMEOUT_FIRST_US: u64 = 50_000;
const TIMEOUT_LEAST_US: u64 = 10_000;
const TIMEOUT_MOST_US: u64 = 200_000;
/// An acknowledgement may be so much later than the last ones were.
const ROOM_LEAST_US: u64 = 5_000;
/// So long after a message has arrived nobody need send the same once more.
const LATELY_US: u64 = 200_000;
/// A part must have room for a fragment and for what stands before its bytes.
const PART_LEAST_BYTES: usize = FRAGMENT_LEAST_BYTES + 64;

/// What became of a fragment that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It is under way, as far as we know.
    Sent,
    /// It has to be sent again.
    Lost,
    /// The receiver has it.
    Arrived,
}

/// A fragment that was sent at least once.
#[derive(Clone, Copy, Debug)]
struct Sending {
    state: State,
    /// When it was sent last.
    sent_at: Time,
    /// The place of its last sending among those of all fragments.
    order: u64,
    /// How often it was sent.
    tries: u32,
}

/// A message that waits or is under way.
#[derive(Debug)]
struct Letter {
    id: u64,
    tag: u64,
    bytes: Bytes,
    fragment_bytes: usize,
    count: u64,
    /// The fragments before this one have arrived.
    prefix: u64,
    /// Those from `prefix` on that were sent, without a gap.
    sendings: VecDeque<Sending>,
    /// The fragments before this one were sent at some time: a receiver that forgot
    /// the first of them may hold later ones that are to be sent anew.
    sent_end: u64,
    /// The newest acknowledgement that was taken.
    ack_number: u64,
    /// The most fragments that had arrived at any time.
    arrived: u64,
    /// When that last grew, or the first fragment was sent.
    progress_at: Option<Time>,
}

impl Letter {
    fn new(id: u64, tag: u64, bytes: Bytes, part_bytes: usize) -> Letter {
        let total = bytes.len() as u64;
        // A fragment is at least half a part, so there are no more than these.
        let count_most = total.div_ceil(part_bytes as u64 / 2);
        let place = [id, total, part_bytes as u64, count_most];
        let head_bytes = 1 + place.into_iter().map(varint_len).sum::<usize>();
        let fragment_bytes = part_bytes - head_bytes;
        Letter {
            id,
            tag,
            fragment_bytes,
            count: total.div_ceil(fragment_bytes as u64),
            bytes,
            prefix: 0,
            sendings: VecDeque::new(),
            sent_end: 0,
            ack_number: 0,
            arrived: 0,
            progress_at: None,
        }
    }

    /// Whether a fragment that was not sent yet may go.
    fn has_new(&self) -> bool {
        let sent = self.sendings.len() as u64;
        sent < AHEAD_LIMIT && self.prefix + sent < self.count
    }

    fn has_due(&self) -> bool {
        self.has_new() || self.sendings.iter().any(|sending| sending.state == State::Lost)
    }

    fn under_way(&self) -> u64 {
        self.sendings.iter().filter(|sending| sending.state == State::Sent).count() as u64
    }

    /// Writes the fragment at this place behind the prefix.
    fn put(&self, at: usize, part: &mut Vec<u8>) {
        let index = self.prefix + at as u64;
        let start = index as usize * self.fragment_bytes;
        let end = self.bytes.len().min(start + self.fragment_bytes);
        let fragment = Fragment {
            id: self.id,
            total_bytes: self.bytes.len() as u64,
            fragment_bytes: self.fragment_bytes as u64,
            index,
            bytes: &self.bytes[start..end],
        };
        put_fragment(&fragment, part);
    }

    /// Takes what the receiver holds now; gives those sendings that are known to
    /// have arrived only since this. `None` if the acknowledgement is an old one
    /// or speaks of fragments that were never sent.
    fn take_ack(&mut self, ack: &FragmentAck) -> Option<Vec<Sending>> {
        if ack.prefix >= self.count {
            self.prefix = self.count;
            return Some(self.sendings.drain(..).filter(|s| s.state != State::Arrived).collect());
        }
        self.sent_end = self.sent_end.max(self.prefix + self.sendings.len() as u64);
        if ack.number <= self.ack_number || ack.prefix > self.sent_end {
            return None;
        }
        self.ack_number = ack.number;
        if ack.prefix < self.prefix {
            // The receiver had to forget the message: all behind is sent again.
            self.prefix = ack.prefix;
            self.sendings.clear();
            return Some(Vec::new());
        }
        let new = self.sendings.len().min((ack.prefix - self.prefix) as usize);
        let mut arrived: Vec<Sending> =
            self.sendings.drain(..new).filter(|s| s.state != State::Arrived).collect();
        self.prefix = ack.prefix;
        // The first one behind the prefix is the missing one.
        let bits = (0..).map(|at: u32| at > 0 && ack.following >> (at - 1) & 1 == 1);
        for (sending, is_there) in self.sendings.iter_mut().zip(bits) {
            if is_there && sending.state != State::Arrived {
                arrived.push(*sending);
                sending.state = State::Arrived;
            } else if !is_there && sending.state == State::Arrived {
                sending.state = State::Lost; // forgotten
            }
        }
        Some(arrived)
    }
}

/// How many fragments may be under way.
#[derive(Debug)]
struct Window {
    fragments: u64,
    most: u64,
    /// Arrivals that have not made it grow yet.
    credit: u64,
    /// A loss among the sendings before this one was answered already.
    halved_before: u64,
}

impl Window {
    fn new(part_bytes: usize) -> Window {
        let most = (WINDOW_BYTES / part_bytes).clamp(8, WINDOW_MOST as usize) as u64;
        Window { fragments: WINDOW_FIRST.min(most), most, credit: 0, halved_before: 0 }
    }

    /// Four fragments more for a window that has arrived.
    fn on_arrived(&mut self, count: u64) {
        self.credit += count;
        let price = (self.fragments / 4).max(1);
        let growth = self.credit / price;
        self.credit %= price;
        self.fragments = (self.fragments + growth).min(self.most);
    }

    /// Once for each window that was sent, however many of it are lost.
    fn on_lost(&mut self, order: u64, next_order: u64) {
        if order >= self.halved_before {
            self.fragments = (self.fragments / 2).max(WINDOW_LEAST);
            self.credit = 0;
            self.halved_before = next_order;
        }
    }
}

/// How long an acknowledgement takes (the estimator of TCP, RFC 6298).
#[derive(Debug, Default)]
struct RoundTrip {
    measured: bool,
    smoothed_us: u64,
    variation_us: u64,
}

impl RoundTrip {
    fn measure(&mut self, sample_us: u64) {
        if self.measured {
            let error_us = self.smoothed_us.abs_diff(sample_us);
            self.variation_us = (self.variation_us * 3 + error_us) / 4;
            self.smoothed_us = (self.smoothed_us * 7 + sample_us) / 8;
        } else {
            *self =
                RoundTrip { measured: true, smoothed_us: sample_us, variation_us: sample_us / 2 };
        }
    }

    /// How long a fragment is waited for that was sent so often: each time twice
    /// as long.
    fn timeout_us(&self, tries: u32) -> u64 {
        let base_us = if self.measured {
            // A path without variation still varies: without room for that, each
            // acknowledgement that is a little late would be taken for a loss.
            let room_us = (4 * self.variation_us).max(self.smoothed_us / 4).max(ROOM_LEAST_US);
            (self.smoothed_us + room_us).clamp(TIMEOUT_LEAST_US, TIMEOUT_MOST_US)
        } else {
            TIMEOUT_FIRST_US
        };
        (base_us << tries.saturating_sub(1).min(8)).min(TIMEOUT_MOST_US)
    }

    /// How long one is waited for that others have overtaken.
    fn overtaken_us(&self) -> u64 {
        self.smoothed_us + self.smoothed_us / 8
    }
}

/// The long messages that this node sends to one run of a peer.
#[derive(Debug)]
pub struct Outgoing {
    part_bytes: usize,
    limit_bytes: usize,
    give_up_us: u64,
    queue: VecDeque<Letter>,
    queued_bytes: usize,
    next_id: u64,
    next_order: u64,
    /// The newest sending that is known to have arrived.
    newest_arrived: u64,
    window: Window,
    round_trip: RoundTrip,
    /// When anything last arrived that was not there before.
    progress_at: Time,
    given_up: u64,
    /// The tags of the last messages that have arrived, and when.
    arrived: VecDeque<(u64, Time)>,
    part: Vec<u8>,
}

impl Outgoing {
    /// Sends in parts of at most `part_bytes` (`frame::part_limit` of the path);
    /// keeps at most `limit_bytes` of messages; gives a message up after
    /// `give_up_us` microseconds without any progress.
    pub fn new(part_bytes: usize, limit_bytes: usize, give_up_us: u64) -> Outgoing {
        assert!(
            part_bytes >= PART_LEAST_BYTES,
            "parts of {part_bytes} bytes are too short for fragments"
        );
        Outgoing {
            part_bytes,
            limit_bytes,
            give_up_us,
            queue: VecDeque::new(),
            queued_bytes: 0,
            next_id: 1,
            next_order: 1,
            newest_arrived: 0,
            window: Window::new(part_bytes),
            round_trip: RoundTrip::default(),
            progress_at: Time(0),
            given_up: 0,
            arrived: VecDeque::new(),
            part: Vec::new(),
        }
    }

    /// Adds a message, to be sent after those that are there. `tag` is the
    /// caller's, for `has_tag`. `false`: there is no room, and nothing changed.
    pub fn push(&mut self, tag: u64, bytes: Bytes) -> bool {
        assert!(!bytes.is_empty(), "a message has a kind byte");
        let is_full = self.queue.len() >= QUEUE_LIMIT
            || self.queued_bytes.saturating_add(bytes.len()) > self.limit_bytes;
        if is_full {
            return false;
        }
        self.queued_bytes += bytes.len();
        self.queue.push_back(Letter::new(self.next_id, tag, bytes, self.part_bytes));
        self.next_id += 1;
        true
    }

    /// Whether a message with this tag waits or is under way.
    pub fn has_tag(&self, tag: u64) -> bool {
        self.queue.iter().any(|letter| letter.tag == tag)
    }

    /// Whether a message with this tag has arrived so lately that what it brings
    /// about may still be on its way back.
    pub fn has_arrived(&self, tag: u64, now: Time) -> bool {
        self.arrived.iter().any(|(arrived, at)| *arrived == tag && now.since(*at) < LATELY_US)
    }

    /// What has arrived was of no use to the peer: it may be sent again at once.
    pub fn forget_arrived(&mut self) {
        self.arrived.clear();
    }

    /// How many bytes of messages are held.
    #[cfg(any(test, feature = "sim"))]
    pub fn held_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Whether there is nothing to send and nothing to wait for.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    #[cfg(any(test, fuzzing))]
    /// How many messages were given up.
    pub fn given_up(&self) -> u64 {
        self.given_up
    }

    /// Forgets all messages, without counting them as given up: the peer began
    /// another run. The ids go on, so that a peer that turns up again in a run
    /// that it was known in does not take a new message for one it has had.
    pub fn clear(&mut self) {
        self.queue.clear();
        self.arrived.clear();
        self.queued_bytes = 0;
    }

    /// Gives out the fragments that should be sent now, each as the part of a
    /// frame, and gives up what has waited too long.
    pub fn poll(&mut self, now: Time, emit: &mut dyn FnMut(&[u8])) {
        if self.queue.is_empty() {
            return;
        }
        self.give_up(now);
        self.find_lost(now);
        let mut room = self.window.fragments.saturating_sub(self.under_way());
        for letter in self.queue.iter_mut().take(UNDER_WAY_LIMIT) {
            let mut at = 0;
            while room > 0 {
                match letter.sendings.get(at).map(|sending| (sending.state, sending.tries)) {
                    Some((State::Sent | State::Arrived, _)) => {
                        at += 1;
                        continue;
                    }
                    Some((State::Lost, tries)) => {
                        letter.sendings[at] = sending(now, self.next_order, tries + 1);
                    }
                    None if letter.has_new() => {
                        letter.sendings.push_back(sending(now, self.next_order, 1));
                    }
                    None => break,
                }
                letter.progress_at.get_or_insert(now);
                self.next_order += 1;
                self.part.clear();
                letter.put(at, &mut self.part);
                assert!(self.part.len() <= self.part_bytes, "a part of {}", self.part.len());
                emit(&self.part);
                room -= 1;
                at += 1;
            }
        }
    }

    /// Takes an acknowledgement. What it says of messages that are not under way,
    /// or of fragments that were not sent, is passed over. `poll` afterwards:
    /// there may be room to send.
    pub fn on_ack(&mut self, now: Time, ack: &FragmentAck) {
        let under_way = self.queue.iter().take(UNDER_WAY_LIMIT);
        let Some(place) = under_way.into_iter().position(|letter| letter.id == ack.id) else {
            return;
        };
        let letter = &mut self.queue[place];
        let Some(arrived) = letter.take_ack(ack) else { return };
        let count = letter.prefix + u64::from(ack.following.count_ones());
        if count > letter.arrived {
            letter.arrived = count;
            letter.progress_at = Some(now);
            self.progress_at = now;
        }
        if letter.prefix == letter.count {
            if self.arrived.len() == QUEUE_LIMIT {
                self.arrived.pop_front();
            }
            self.arrived.push_back((letter.tag, now));
            self.remove(place);
        }
        if let Some(newest) = arrived.iter().max_by_key(|sending| sending.order) {
            self.newest_arrived = self.newest_arrived.max(newest.order);
            // Of one sent twice nobody knows which sending has arrived.
            if newest.tries == 1 {
                self.round_trip.measure(now.since(newest.sent_at));
            }
        }
        self.window.on_arrived(arrived.len() as u64);
    }

    /// When `poll` has something to do next; zero if that is at once.
    pub fn deadline(&self) -> Option<Time> {
        if self.queue.is_empty() {
            return None;
        }
        let letters = || self.queue.iter().take(UNDER_WAY_LIMIT);
        if self.under_way() < self.window.fragments && letters().any(Letter::has_due) {
            return Some(Time(0));
        }
        let sendings = letters().flat_map(|letter| &letter.sendings);
        let waiting = sendings.filter(|sending| sending.state == State::Sent);
        let losses = waiting.map(|sending| self.lost_at(sending));
        let ends = letters().filter_map(|letter| Some(letter.progress_at?.plus(self.give_up_us)));
        losses.chain(ends).min()
    }

    fn under_way(&self) -> u64 {
        self.queue.iter().take(UNDER_WAY_LIMIT).map(Letter::under_way).sum()
    }

    /// When a fragment under way counts as lost.
    fn lost_at(&self, sending: &Sending) -> Time {
        let timeout_us = self.round_trip.timeout_us(sending.tries);
        let is_overtaken = sending.order + OVERTAKEN_BY <= self.newest_arrived;
        let wait_us =
            if is_overtaken { timeout_us.min(self.round_trip.overtaken_us()) } else { timeout_us };
        sending.sent_at.plus(wait_us)
    }

    fn find_lost(&mut self, now: Time) {
        let mut newest_lost = None;
        for place in 0..self.queue.len().min(UNDER_WAY_LIMIT) {
            for at in 0..self.queue[place].sendings.len() {
                let sending = self.queue[place].sendings[at];
                if sending.state == State::Sent && self.lost_at(&sending) <= now {
                    self.queue[place].sendings[at].state = State::Lost;
                    newest_lost = newest_lost.max(Some(sending.order));
                }
            }
        }
        if let Some(order) = newest_lost {
            self.window.on_lost(order, self.next_order);
        }
    }

    /// Gives up the messages of which nothing new has arrived for too long, and
    /// all that wait behind them if nothing at all has: the peer is gone, or will
    /// be told anew what it needs.
    fn give_up(&mut self, now: Time) {
        let is_over = |since: Time| now >= since.plus(self.give_up_us);
        let over: Vec<usize> = (0..self.queue.len())
            .filter(|place| self.queue[*place].progress_at.is_some_and(is_over))
            .collect();
        if over.is_empty() {
            return;
        }
        if is_over(self.progress_at) {
            self.given_up += self.queue.len() as u64;
            self.clear();
            return;
        }
        for place in over.into_iter().rev() {
            self.given_up += 1;
            self.remove(place);
        }
    }

    fn remove(&mut self, place: usize) {
        if let Some(letter) = self.queue.remove(place) {
            self.queued_bytes -= letter.bytes.len();
        }
    }
}

fn sending(now: Time, order: u64, tries: u32) -> Sending {
    Sending { state: State::Sent, sent_at: now, order, tries }
}

#[cfg(any(test, fuzzing))]
impl Outgoing {
    /// Every bound that a peer must not be able to break.
    pub fn check_bounds(&self) {
        let queued_bytes: usize = self.queue.iter().map(|letter| letter.bytes.len()).sum();
        assert_eq!(queued_bytes, self.queued_bytes, "the bytes are counted wrongly");
        assert!(queued_bytes <= self.limit_bytes, "{queued_bytes} bytes are queued");
        assert!(self.queue.len() <= QUEUE_LIMIT, "{} messages", self.queue.len());
        assert!(self.arrived.len() <= QUEUE_LIMIT, "{} arrived", self.arrived.len());
        let window = self.window.fragments;
        assert!((WINDOW_LEAST..=self.window.most).contains(&window), "a window of {window}");
        for letter in &self.queue {
            let sent = letter.sendings.len() as u64;
            assert!(sent <= AHEAD_LIMIT, "{sent} sent ahead of message {}", letter.id);
            assert!(letter.prefix + sent <= letter.count, "more than message {} has", letter.id);
        }
    }
}
