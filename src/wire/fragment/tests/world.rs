//! A sender, a receiver and a bad network between them, for the tests of this folder.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::super::*;
use super::{PATIENCE_US, SECOND_US};
use crate::core::rng::Rng;
use crate::core::types::Time;

/// What the network between the two does to each part.
#[derive(Clone, Copy)]
pub(super) struct Faults {
    pub(super) lost_percent: u64,
    pub(super) twice_percent: u64,
    pub(super) delay_us: (u64, u64),
}

pub(super) const CLEAN: Faults = Faults { lost_percent: 0, twice_percent: 0, delay_us: (100, 100) };

/// A sender, a receiver and a bad network between them, in virtual time.
pub(super) struct World {
    pub(super) outgoing: Outgoing,
    pub(super) incoming: Incoming,
    pub(super) faults: Faults,
    pub(super) rng: Rng,
    pub(super) now: Time,
    /// Parts on their way, in the order of arrival.
    pub(super) flying: BTreeMap<(Time, u64), Vec<u8>>,
    pub(super) flown: u64,
    /// Fragments that were sent, and their bytes.
    pub(super) sent: u64,
    pub(super) sent_bytes: u64,
    pub(super) delivered: Vec<Bytes>,
}

impl World {
    pub(super) fn new(part_bytes: usize, limit_bytes: usize, faults: Faults, seed: u64) -> World {
        World {
            outgoing: Outgoing::new(part_bytes, limit_bytes, PATIENCE_US),
            incoming: Incoming::new(limit_bytes, PATIENCE_US),
            faults,
            rng: Rng::new(seed),
            now: Time(SECOND_US),
            flying: BTreeMap::new(),
            flown: 0,
            sent: 0,
            sent_bytes: 0,
            delivered: Vec::new(),
        }
    }

    fn happens(&mut self, percent: u64) -> bool {
        self.rng.between(0, 99) < percent
    }

    pub(super) fn fly(&mut self, part: Vec<u8>) {
        if self.happens(self.faults.lost_percent) {
            return;
        }
        let copies = 1 + u32::from(self.happens(self.faults.twice_percent));
        for _ in 0..copies {
            let delay_us = self.rng.between(self.faults.delay_us.0, self.faults.delay_us.1);
            self.flown += 1;
            self.flying.insert((self.now.plus(delay_us), self.flown), part.clone());
        }
    }

    /// Lets both sides say all that they have to say now.
    pub(super) fn drain(&mut self) {
        let mut parts = Vec::new();
        self.outgoing.poll(self.now, &mut |part| parts.push(part.to_vec()));
        self.sent += parts.len() as u64;
        self.sent_bytes += parts.iter().map(|part| part.len() as u64).sum::<u64>();
        self.incoming.expire(self.now);
        self.incoming.poll_acks(&mut |part| parts.push(part.to_vec()));
        for part in parts {
            self.fly(part);
        }
        // A deadline that stays in the past would make its caller spin.
        for deadline in [self.outgoing.deadline(), self.incoming.deadline()].into_iter().flatten() {
            assert!(deadline > self.now, "{deadline:?} at {:?}", self.now);
        }
        assert_eq!(self.outgoing.is_empty(), self.outgoing.deadline().is_none());
    }

    /// The next thing that happens; `false` if nothing will.
    pub(super) fn step(&mut self) -> bool {
        self.drain();
        let arrival = self.flying.keys().next().map(|(at, _)| *at);
        let deadlines = [self.outgoing.deadline(), self.incoming.deadline()];
        let Some(next) = deadlines.into_iter().flatten().chain(arrival).min() else {
            return false;
        };
        self.now = next;
        while let Some(entry) = self.flying.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            let part = entry.remove();
            if part[0] == KIND_FRAGMENT {
                let fragment = decode_fragment(&part).unwrap();
                self.delivered.extend(self.incoming.on_fragment(self.now, &fragment).unwrap());
            } else {
                self.outgoing.on_ack(self.now, &decode_ack(&part).unwrap());
            }
        }
        true
    }

    /// Until the sender has nothing left; gives the microseconds it took.
    pub(super) fn run(&mut self) -> u64 {
        let start = self.now;
        while !self.outgoing.is_empty() {
            assert!(self.step() || self.outgoing.is_empty(), "nothing will ever happen");
        }
        self.now.since(start)
    }
}

/// Bytes that differ from place to place and from message to message.
pub(super) fn message(number: u8, length: usize) -> Bytes {
    (0..length).map(|at| (at.wrapping_mul(31) >> 3) as u8 ^ number).collect::<Vec<u8>>().into()
}

/// The parts that a sender gives out for a message when each is acknowledged.
pub(super) fn parts_of(outgoing: &mut Outgoing, bytes: Bytes) -> Vec<Vec<u8>> {
    let mut incoming = Incoming::new(bytes.len(), PATIENCE_US);
    assert!(outgoing.push(0, bytes));
    let mut all = Vec::new();
    while !outgoing.is_empty() {
        let start = all.len();
        outgoing.poll(Time(1), &mut |part| all.push(part.to_vec()));
        for part in &all[start..] {
            incoming.on_fragment(Time(1), &decode_fragment(part).unwrap()).unwrap();
        }
        let mut acks = Vec::new();
        incoming.poll_acks(&mut |part| acks.push(decode_ack(part).unwrap()));
        for ack in acks {
            outgoing.on_ack(Time(1), &ack);
        }
    }
    all
}
