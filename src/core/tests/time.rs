//! Time in a world: from event to event, each by itself, or several in one go.

use std::collections::BTreeMap;

use super::super::Refused;
use super::world::{Flight, Node, World};

impl World {
    /// When the next thing happens by itself.
    fn next_event(&self) -> u64 {
        let flight = self.flights.first_key_value().map_or(u64::MAX, |((due, _), _)| *due);
        let node = |node: &Node| {
            let write = node.writes.front().filter(|_| !node.holds_writes);
            let write = write.map_or(u64::MAX, |write| write.due);
            let deadline = node.core.as_ref().map_or(u64::MAX, |core| core.deadline().0);
            write.min(deadline.saturating_sub(node.ahead))
        };
        self.nodes.iter().map(node).min().unwrap_or(u64::MAX).min(flight).max(self.now)
    }

    /// Moves time to the next event, at most to `end`, and lets it happen.
    pub fn advance(&mut self, end: u64) {
        let next = self.next_event();
        if next > end {
            self.now = end;
            return;
        }
        self.now = next;
        if self.faults.busy > 0 {
            self.now = end.min(next + self.rng.between(0, self.faults.busy));
            return self.catch_up();
        }
        while let Some(flight) = self.next_arrival() {
            self.arrive(flight);
        }
        for place in 0..self.nodes.len() {
            let Some(core) = &self.nodes[place].core else { continue };
            let due = core.deadline() <= self.clock(place);
            if self.is_write_due(place) {
                self.complete_due(place);
                self.after_step(place);
            }
            if due {
                self.tick(place);
            }
        }
    }

    /// What arrives by now.
    fn next_arrival(&mut self) -> Option<Flight> {
        let first = self.flights.first_entry().filter(|entry| entry.key().0 <= self.now);
        first.map(|entry| entry.remove())
    }

    /// Each node was busy, and takes all that has come meanwhile in one go, as whoever
    /// runs it may do.
    fn catch_up(&mut self) {
        let mut arrived: BTreeMap<usize, Vec<Flight>> = BTreeMap::new();
        while let Some(flight) = self.next_arrival() {
            if !self.cut.contains(&(flight.from, flight.to)) {
                arrived.entry(flight.to).or_default().push(flight);
            }
        }
        for place in 0..self.nodes.len() {
            if !self.is_up(place) {
                continue;
            }
            while self.is_write_due(place) {
                self.write_done(place);
            }
            let clock = self.clock(place);
            let core = self.nodes[place].core.as_mut().expect("it runs");
            for flight in arrived.remove(&place).unwrap_or_default() {
                let taken = core.receive(flight.envelope, clock);
                assert_ne!(taken, Err(Refused::Malformed), "from {}", flight.from);
            }
            if core.deadline() <= clock {
                core.tick(clock);
            }
            self.after_step(place);
        }
    }

    pub fn run_for(&mut self, micros: u64) {
        let end = self.now + micros;
        while self.now < end {
            self.advance(end);
        }
    }

    /// Runs until `done`, at most for so long; how long it took.
    pub fn run_until(&mut self, micros: u64, what: &str, done: impl Fn(&World) -> bool) -> u64 {
        let start = self.now;
        let seed = self.plan.seed;
        let happened = self.runs_until(micros, done);
        assert!(happened, "seed {seed}: waited {micros} us for {what}\n{}", self.describe());
        self.now - start
    }

    /// Runs until `done`, at most for so long; whether it came to that.
    pub fn runs_until(&mut self, micros: u64, done: impl Fn(&World) -> bool) -> bool {
        let end = self.now + micros;
        while !done(self) {
            if self.now >= end {
                return false;
            }
            self.advance(end);
        }
        true
    }
}
