//! The network: what becomes of a datagram.

use std::collections::BTreeSet;

use super::chance::{Chance, micros};
use super::faults::Faults;

/// A datagram that arrives, and when.
pub(super) struct Arrival {
    pub(super) at: u64,
    pub(super) bytes: Vec<u8>,
}

/// The links between all nodes, by their places.
#[derive(Debug)]
pub(super) struct Network {
    /// Directions in which nothing arrives.
    cut: BTreeSet<(usize, usize)>,
    chance: Chance,
    /// How much went wrong.
    pub(super) faults: u64,
}

impl Network {
    pub(super) fn new(chance: Chance) -> Network {
        Network { cut: BTreeSet::new(), chance, faults: 0 }
    }

    /// Nothing arrives in this direction any more.
    pub(super) fn cut(&mut self, from: usize, to: usize) {
        self.cut.insert((from, to));
    }

    /// What leaves in this direction arrives again.
    pub(super) fn join(&mut self, from: usize, to: usize) {
        self.cut.remove(&(from, to));
    }

    /// All that leaves arrives again.
    pub(super) fn mend(&mut self) {
        self.cut.clear();
    }

    /// Whether a datagram would arrive.
    pub(super) fn is_open(&self, from: usize, to: usize) -> bool {
        !self.cut.contains(&(from, to))
    }

    /// A datagram leaves: the copies of it that will arrive.
    pub(super) fn send(
        &mut self,
        now: u64,
        (from, to): (usize, usize),
        bytes: &[u8],
        faults: &Faults,
    ) -> Vec<Arrival> {
        if !self.is_open(from, to) || self.happens(faults.lost) {
            self.faults += 1;
            return Vec::new();
        }
        let copies = if self.happens(faults.repeated) { 2 } else { 1 };
        let mut arrivals = Vec::with_capacity(copies);
        for _ in 0..copies {
            let (least, most) = (micros(faults.delay.0), micros(faults.delay.1));
            let mut at = now + self.chance.between(least, most.max(least));
            if self.happens(faults.late) {
                // Twice at chance: half of the late ones are late by less than a quarter.
                let most = self.chance.micros(faults.late_by);
                at += self.chance.between(0, most);
            }
            let mut bytes = bytes.to_vec();
            if self.happens(faults.damaged) {
                self.damage(&mut bytes);
            }
            arrivals.push(Arrival { at, bytes });
        }
        arrivals
    }

    fn happens(&mut self, permille: u32) -> bool {
        let happens = self.chance.permille(permille);
        self.faults += u64::from(happens);
        happens
    }

    fn damage(&mut self, bytes: &mut Vec<u8>) {
        let last = bytes.len() as u64 - 1;
        match self.chance.between(0, 3) {
            0 => bytes.truncate(self.chance.between(0, last) as usize),
            1 => bytes.extend((0..self.chance.between(1, 8)).map(|byte| byte as u8)),
            _ => {
                for _ in 0..self.chance.between(1, 3) {
                    let place = self.chance.between(0, last) as usize;
                    bytes[place] ^= 1 << self.chance.between(0, 7);
                }
            }
        }
    }
}
