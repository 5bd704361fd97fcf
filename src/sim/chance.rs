//! Chance, all of it from the seed.

use std::time::Duration;

use crate::core::rng::Rng;

/// A source of chance that gives the same from the same seed, on any machine.
///
/// A simulation's clients draw from it what they ask, so that the seed alone decides
/// what happens.
///
/// ```
/// use kontiki::sim::Chance;
///
/// let (mut one, mut other) = (Chance::new(7), Chance::new(7));
/// assert_eq!(one.between(1, 6), other.between(1, 6));
/// assert_eq!(one.permille(500), other.permille(500));
/// assert!(["heads", "tails"].contains(one.pick(&["heads", "tails"])));
/// ```
#[derive(Clone, Debug)]
pub struct Chance(Rng);

impl Chance {
    /// The chance of this seed.
    pub fn new(seed: u64) -> Chance {
        Chance(Rng::new(seed))
    }

    /// A number from `low` to `high`, both included. Panics if `low` is above `high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0.between(low, high)
    }

    /// True `times` times of a thousand.
    pub fn permille(&mut self, times: u32) -> bool {
        // What never or always happens draws nothing: one fault more or less in a plan
        // leaves the rest of its run alone as far as can be.
        match times {
            0 => false,
            1000.. => true,
            _ => self.0.between(0, 999) < u64::from(times),
        }
    }

    /// One of these. Panics if there is none.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        assert!(!of.is_empty(), "nothing to pick from");
        &of[self.0.between(0, of.len() as u64 - 1) as usize]
    }

    /// One of these places, each as often as its weight says; `None` if all are 0.
    pub(super) fn weighed(&mut self, weights: &[u32]) -> Option<usize> {
        let all: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        let mut left = self.0.between(1, all.max(1));
        let reached = |weight: &u32| {
            left = left.saturating_sub(u64::from(*weight));
            left == 0
        };
        if all == 0 { None } else { weights.iter().position(reached) }
    }

    /// So many microseconds, from none to `most`.
    pub(super) fn micros(&mut self, most: Duration) -> u64 {
        self.0.between(0, micros(most))
    }

    /// Chance for one part, that the others' draws do not change.
    pub(super) fn branch(&mut self) -> Chance {
        Chance(Rng::new(self.0.next()))
    }

    /// A random number that is not 0.
    pub(super) fn nonzero(&mut self) -> u64 {
        self.0.next_nonzero()
    }

    /// Any number.
    pub(super) fn number(&mut self) -> u64 {
        self.0.next()
    }
}

/// A duration as the simulation counts.
pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
