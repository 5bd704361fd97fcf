//! The reassembler: a sender that behaves, a network, and a liar before one
//! receiver.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use crate::core::types::Time;
use crate::wire::fragment::{
    self, FRAGMENT_LEAST_BYTES, Fragment, FragmentAck, Incoming, KIND_FRAGMENT, Outgoing,
};

use super::Feed;

/// The sender's datagrams hold parts of so many bytes: a small message takes several.
const PART_BYTES: usize = 400;
/// Both sides hold so many bytes: a message may have more fragments than are taken
/// ahead of a missing one.
const LIMIT_BYTES: usize = 40_000;
const AGE_US: u64 = 1_000_000;
/// A longer input is not more of a story.
const STEPS_MOST: usize = 400;
/// The network holds no more than this.
const FLIGHT_MOST: usize = 64;
/// What was lost is sent again within this time; what is too old by then is given up
/// by right.
const REPEATED_WITHIN_US: u64 = 400_000;
/// The liar's own messages have ids from here on, where the sender never comes.
const LIARS_IDS: u64 = 1 << 40;
/// Within so many completed messages none is given out twice.
const GIVEN_ONCE: usize = 64;

/// Two sides of the carriage of long messages, whatever comes to either: fragments
/// and acknowledgements late, lost, twice, out of order, and any that a liar makes
/// up. Neither side goes beyond its bounds in bytes, messages and age or asks to be
/// called at once for ever. What is given out is made of bytes that came for it, in
/// their places, and is given out once. What a sender that behaves has sent comes out
/// as it was put in, and comes out, unless the liar spoke in its name.
pub fn reassembler(input: &[u8]) {
    let mut feed = Feed::new(input);
    let mut world = World::new();
    for _ in 0..STEPS_MOST {
        if feed.is_empty() {
            break;
        }
        world.step(&mut feed);
        world.outgoing.check_bounds();
        world.incoming.check_bounds();
    }
    world.settle();
}

/// Which message of which shape, and which of its fragments.
type Place = (u64, u64, u64, u64);

struct World {
    outgoing: Outgoing,
    incoming: Incoming,
    now: Time,
    /// Parts of the sender on their way.
    flight: Vec<Vec<u8>>,
    /// What the sender put in, by id.
    sent: BTreeMap<u64, Bytes>,
    /// All fragments that the receiver took.
    taken: BTreeMap<Place, Vec<Vec<u8>>>,
    /// The ids of what came out last.
    given: VecDeque<u64>,
    delivered: BTreeSet<u64>,
    /// Whether the liar spoke in the sender's or in the receiver's name.
    forged: bool,
}

impl World {
    fn new() -> World {
        World {
            outgoing: Outgoing::new(PART_BYTES, LIMIT_BYTES, AGE_US),
            incoming: Incoming::new(LIMIT_BYTES, AGE_US),
            now: Time(AGE_US),
            flight: Vec::new(),
            sent: BTreeMap::new(),
            taken: BTreeMap::new(),
            given: VecDeque::new(),
            delivered: BTreeSet::new(),
            forged: false,
        }
    }

    fn step(&mut self, feed: &mut Feed<'_>) {
        match feed.below(12) {
            0 => self.push(feed.below(5_000) + 1, feed.byte()),
            1 => self.poll(),
            2 => self.arrive(feed, false),
            3 => self.arrive(feed, true),
            4 => self.acknowledge(),
            5 => {
                self.now = self.now.plus(1 << (feed.byte() % 18));
                self.expire();
            }
            6 | 7 => self.lie(feed),
            8 => self.flood(feed),
            9 => self.raw(feed),
            10 => self.lie_of_arrivals(feed),
            _ => {
                let place = feed.below(FLIGHT_MOST);
                if place < self.flight.len() {
                    self.flight.swap_remove(place);
                }
            }
        }
    }

    /// The sender gets a message: its bytes differ from place to place.
    fn push(&mut self, length: usize, number: u8) {
        let bytes: Bytes =
            (0..length).map(|at| ((at * 7) >> 2) as u8 ^ number).collect::<Vec<u8>>().into();
        if self.outgoing.push(u64::from(number), bytes.clone()) {
            self.sent.insert(self.sent.len() as u64 + 1, bytes);
        }
    }

    fn poll(&mut self) {
        self.outgoing.poll(self.now, &mut |part| {
            assert!(part.len() <= PART_BYTES, "a part of {} bytes", part.len());
            if self.flight.len() < FLIGHT_MOST {
                self.flight.push(part.to_vec());
            }
        });
        let deadline = self.outgoing.deadline();
        assert!(deadline.is_none_or(|at| at > self.now), "it would be polled for ever");
        assert_eq!(self.outgoing.is_empty(), deadline.is_none());
    }

    fn arrive(&mut self, feed: &mut Feed<'_>, stays: bool) {
        let place = feed.below(FLIGHT_MOST);
        if place < self.flight.len() {
            let part = self.flight[place].clone();
            if !stays {
                self.flight.swap_remove(place);
            }
            self.fragment(&part);
        }
    }

    fn acknowledge(&mut self) {
        let Self { incoming, outgoing, now, .. } = self;
        let mut last = 0;
        incoming.poll_acks(&mut |part| {
            let ack = fragment::decode_ack(part).expect("the receiver's own");
            assert!(ack.number > last, "acknowledgements are out of order");
            last = ack.number;
            outgoing.on_ack(*now, &ack);
        });
    }

    fn expire(&mut self) {
        self.incoming.expire(self.now);
        let deadline = self.incoming.deadline();
        assert!(deadline.is_none_or(|at| at > self.now), "what is too old is not forgotten");
    }

    /// A fragment of a form that can be, of a message of the liar's or the sender's.
    fn lie(&mut self, feed: &mut Feed<'_>) {
        let id = self.some_id(feed);
        let fragment_bytes = (FRAGMENT_LEAST_BYTES + 8 * feed.below(64)) as u64;
        let total_bytes = feed.number(&[fragment_bytes, 4 * fragment_bytes, LIMIT_BYTES as u64]);
        let count = total_bytes.div_ceil(fragment_bytes);
        let index = if feed.flag() { feed.number(&[count]) } else { u64::from(feed.byte()) };
        let before = index.saturating_mul(fragment_bytes);
        let length = fragment_bytes.min(total_bytes.saturating_sub(before)) as usize;
        let bytes = vec![feed.byte(); length];
        let lie = Fragment { id, total_bytes, fragment_bytes, index, bytes: &bytes };
        let mut part = Vec::new();
        fragment::put_fragment(&lie, &mut part);
        // What may be said again will be.
        if self.flight.len() < FLIGHT_MOST && feed.flag() {
            self.flight.push(part.clone());
        }
        self.fragment(&part);
    }

    /// First fragments of messages that are never completed, or of small ones that are.
    fn flood(&mut self, feed: &mut Feed<'_>) {
        let first = LIARS_IDS + 1_000 * (1 + u64::from(feed.byte()));
        let fragment_bytes = (FRAGMENT_LEAST_BYTES + 8 * feed.below(512)) as u64;
        let total_bytes = if feed.flag() { fragment_bytes } else { LIMIT_BYTES as u64 };
        let bytes = vec![feed.byte(); fragment_bytes as usize];
        for id in first..first + feed.below(100) as u64 {
            let lie = Fragment { id, total_bytes, fragment_bytes, index: 0, bytes: &bytes };
            let mut part = Vec::new();
            fragment::put_fragment(&lie, &mut part);
            self.fragment(&part);
            self.incoming.check_bounds();
        }
    }

    /// Any bytes in place of a fragment. By some accident they may be one of the sender's.
    fn raw(&mut self, feed: &mut Feed<'_>) {
        let mut part = vec![KIND_FRAGMENT];
        let count = feed.below(64);
        part.extend_from_slice(feed.take(count));
        let more = feed.below(600);
        part.resize(part.len() + more, 0x5a);
        if fragment::decode_fragment(&part).is_ok_and(|fragment| fragment.id < LIARS_IDS) {
            self.forged = true;
        }
        self.fragment(&part);
        if let Ok(ack) = fragment::decode_ack(&part) {
            self.forged = true;
            self.outgoing.on_ack(self.now, &ack);
        }
    }

    /// An acknowledgement that the receiver never gave.
    fn lie_of_arrivals(&mut self, feed: &mut Feed<'_>) {
        let sent = self.sent.len() as u64;
        let id = feed.number(&[sent]);
        let [number, prefix] = [(); 2].map(|()| feed.number(&[sent]));
        let following = u128::from(feed.u64()) << (feed.byte() % 65);
        self.forged |= self.sent.contains_key(&id);
        self.outgoing.on_ack(self.now, &FragmentAck { id, number, prefix, following });
    }

    fn some_id(&mut self, feed: &mut Feed<'_>) -> u64 {
        let number = u64::from(feed.byte());
        if number >= 32 {
            return LIARS_IDS + number % 8;
        }
        self.forged = true;
        number % 8
    }

    /// The receiver gets a part; what it gives out is judged.
    fn fragment(&mut self, part: &[u8]) {
        let Ok(fragment) = fragment::decode_fragment(part) else { return };
        let Fragment { id, total_bytes, fragment_bytes, index, bytes } = fragment;
        let Ok(given) = self.incoming.on_fragment(self.now, &fragment) else { return };
        let place = (id, total_bytes, fragment_bytes, index);
        self.taken.entry(place).or_default().push(bytes.to_vec());
        let Some(message) = given else { return };
        assert!(!self.given.contains(&id), "message {id} came out twice");
        if self.given.len() == GIVEN_ONCE {
            self.given.pop_front();
        }
        self.given.push_back(id);
        self.delivered.insert(id);
        assert_eq!(message.len() as u64, total_bytes);
        for (index, piece) in (0..).zip(message.chunks(fragment_bytes as usize)) {
            let came = self.taken.get(&(id, total_bytes, fragment_bytes, index));
            let is_there = came.is_some_and(|came| came.iter().any(|bytes| bytes == piece));
            assert!(is_there, "fragment {index} of message {id} never came so");
        }
        if !self.forged && id < LIARS_IDS {
            assert_eq!(self.sent.get(&id), Some(&message), "message {id} is another now");
        }
    }

    /// The liar falls silent and the network loses nothing: all that the sender still
    /// has arrives, or is given up if somebody lied about it.
    fn settle(&mut self) {
        self.flight.clear();
        let in_time = self.now.plus(REPEATED_WITHIN_US);
        let mut given_up = 0;
        for _ in 0..2_000 {
            self.poll();
            if self.now <= in_time {
                given_up = self.outgoing.given_up();
            }
            for part in std::mem::take(&mut self.flight) {
                self.fragment(&part);
            }
            self.acknowledge();
            self.outgoing.check_bounds();
            self.incoming.check_bounds();
            let Some(deadline) = self.outgoing.deadline() else { break };
            self.now = self.now.max(deadline);
            self.expire();
        }
        assert!(self.outgoing.is_empty(), "it is sent for ever");
        if !self.forged {
            assert_eq!(self.outgoing.given_up(), given_up, "a message did not arrive");
            let lost = self.sent.keys().filter(|id| !self.delivered.contains(id)).count() as u64;
            assert!(lost <= given_up, "{lost} messages are lost, {given_up} given up");
        }
        self.now = self.now.plus(AGE_US);
        self.expire();
        assert_eq!(self.incoming.deadline(), None, "something is held for ever");
    }
}
