//! A node's own clock: it may run fast or slow, and jump ahead; never back.

use crate::core::types::Time;

/// So many parts has a clock's rate: this one runs as the world does.
pub(super) const TRUE_RATE: u64 = 1_000_000;

/// What a node takes for the time, given the world's in microseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// At this moment of the world it showed `shown`.
    set_at: u64,
    shown: u64,
    /// How many millionths of a microsecond it moves in one of the world's.
    rate: u64,
}

impl Clock {
    /// One that begins now, as a process's clock does.
    pub(super) fn starting(now: u64, rate: u64) -> Clock {
        Clock { set_at: now, shown: 1, rate }
    }

    /// What it shows.
    pub(super) fn shows(&self, now: u64) -> Time {
        let since = u128::from(now - self.set_at) * u128::from(self.rate);
        Time(self.shown + (since / u128::from(TRUE_RATE)) as u64)
    }

    /// When, by the world's time, it will show this; `u64::MAX` if never.
    pub(super) fn when(&self, time: Time) -> u64 {
        let Some(left) = time.0.checked_sub(self.shown) else { return self.set_at };
        let world = (u128::from(left) * u128::from(TRUE_RATE)).div_ceil(u128::from(self.rate));
        self.set_at.saturating_add(u64::try_from(world).unwrap_or(u64::MAX))
    }

    /// It jumps ahead.
    pub(super) fn jump(&mut self, now: u64, micros: u64) {
        *self = Clock { set_at: now, shown: self.shows(now).0 + micros, rate: self.rate };
    }

    /// It runs at another rate from now on.
    pub(super) fn set_rate(&mut self, now: u64, rate: u64) {
        *self = Clock { set_at: now, shown: self.shows(now).0, rate };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_never_goes_back_and_says_when_it_will_show_a_time() {
        let mut clock = Clock::starting(1_000, TRUE_RATE / 2);
        assert_eq!(clock.shows(1_000), Time(1));
        assert_eq!(clock.shows(3_000), Time(1_001));
        for time in [2, 3, 1_001, 777_777] {
            let when = clock.when(Time(time));
            assert!(clock.shows(when) >= Time(time) && clock.shows(when - 1) < Time(time));
        }
        clock.jump(3_000, 500);
        assert_eq!(clock.shows(3_000), Time(1_501));
        clock.set_rate(3_000, TRUE_RATE * 2);
        assert_eq!(clock.shows(3_010), Time(1_521));
        assert_eq!(clock.when(Time(5)), 3_000, "what is past is due at once");
    }
}
