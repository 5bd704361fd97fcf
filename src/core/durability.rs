//! What is durable: writes numbered, and what each of them makes sure of.
//!
//! The core says what to write and goes on; a write is done when `complete` says
//! so, be it at once (a volatile node) or after a disk. Writes complete in order.
//! Each remembers the end of the log that it makes durable. A truncation at k
//! lowers every outstanding one, and what is durable, to k-1: the completion of a
//! write of a suffix that is gone says nothing about what replaced it.

use std::collections::VecDeque;

use super::types::{Index, Time, WriteNumber};

/// One write: the log from `from` on replaced by what now stands there, and term,
/// vote and cluster if `hard`, in one atomic record; with a snapshot in place of all
/// that was before if `install`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    /// Its number; completions name it.
    pub number: WriteNumber,
    /// Whether term, vote or cluster changed.
    pub hard: bool,
    /// Whether a snapshot takes the place of the log, before what is new.
    pub install: bool,
    /// The first index that is new; `None` if the log did not change.
    pub from: Option<Index>,
}

/// The writes under way.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone, Hash))]
pub struct Durability {
    issued: WriteNumber,
    completed: WriteNumber,
    durable: Index,
    outstanding: VecDeque<Outstanding>,
    /// When a write was last completed.
    completed_at: Time,
    unwritten_from: Option<Index>,
    installed: bool,
    hard_dirty: bool,
    hard_in: WriteNumber,
}

/// A write under way.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(test, derive(Hash))]
struct Outstanding {
    number: WriteNumber,
    /// The end of the log that it makes durable.
    end: Index,
    issued_at: Time,
}

impl Durability {
    /// A log that was read back, durable up to its end.
    pub fn recovered(last_index: Index) -> Durability {
        Durability { durable: last_index, ..Durability::default() }
    }

    /// The end of the log that survives a crash now.
    pub fn durable(&self) -> Index {
        self.durable
    }

    /// Term, vote or cluster changed.
    pub fn hard_changed(&mut self) {
        self.hard_dirty = true;
    }

    /// The write after which term, vote and cluster as they are now are durable.
    pub fn hard_gate(&self) -> WriteNumber {
        if self.hard_dirty { WriteNumber(self.issued.0 + 1) } else { self.hard_in }
    }

    /// As `bugs` has it: more is durable than was written.
    #[cfg(test)]
    pub fn bug_says_durable(&mut self, index: Index) {
        self.durable = self.durable.max(index);
    }

    /// Whether that write is done.
    pub fn is_completed(&self, number: WriteNumber) -> bool {
        self.completed >= number
    }

    /// The log was extended from `from` on.
    pub fn appended(&mut self, from: Index) {
        let lowest = self.unwritten_from.map_or(from, |unwritten| unwritten.min(from));
        self.unwritten_from = Some(lowest);
    }

    /// The log was cut: nothing at or above `from` is durable, whatever is still
    /// under way.
    pub fn truncated(&mut self, from: Index) {
        self.durable = self.durable.min(from.previous());
        for write in &mut self.outstanding {
            write.end = write.end.min(from.previous());
        }
        self.appended(from);
    }

    /// A snapshot takes the place of the log, of which nothing above `kept` is also
    /// in the snapshot.
    pub fn installed(&mut self, kept: Index) {
        self.truncated(kept.next());
        self.unwritten_from = None;
        self.installed = true;
    }

    /// Since when nothing was completed although a write is under way. A disk that is
    /// behind, and works, is none that hangs.
    pub fn waiting_since(&self) -> Option<Time> {
        self.outstanding.front().map(|write| write.issued_at.max(self.completed_at))
    }

    /// The next write, if there is anything to write; the log ends at `last_index`.
    pub fn issue(&mut self, last_index: Index, now: Time) -> Option<Write> {
        if !self.hard_dirty && !self.installed && self.unwritten_from.is_none() {
            return None;
        }
        self.issued.0 += 1;
        let write = Write {
            number: self.issued,
            hard: self.hard_dirty,
            install: std::mem::take(&mut self.installed),
            from: self.unwritten_from.take(),
        };
        if write.hard {
            self.hard_in = write.number;
            self.hard_dirty = false;
        }
        let (number, issued_at) = (write.number, now);
        self.outstanding.push_back(Outstanding { number, end: last_index, issued_at });
        Some(write)
    }

    /// All writes up to `number` are done. Says whether more is durable now.
    pub fn complete(&mut self, number: WriteNumber, now: Time) -> bool {
        assert!(number <= self.issued, "write {number:?} was never issued");
        let before = self.durable;
        while let Some(&Outstanding { number: done, end, .. }) = self.outstanding.front() {
            if done > number {
                break;
            }
            self.outstanding.pop_front();
            // Ends lie in order but for truncations, which lower all of them; a
            // later write that only cut the log must not lower what is durable
            // twice, so the end of each write stands as it is.
            self.durable = end;
        }
        self.completed = self.completed.max(number);
        self.completed_at = now;
        self.durable > before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pitfall 25: late completions of a truncated suffix acknowledge its
    /// successor.
    #[test]
    fn the_write_of_a_suffix_that_is_gone_does_not_make_its_successor_durable() {
        let mut durability = Durability::recovered(Index(5));
        durability.appended(Index(6));
        let first = durability.issue(Index(9), Time(0)).unwrap();
        durability.truncated(Index(7));
        durability.appended(Index(7));
        let second = durability.issue(Index(10), Time(0)).unwrap();
        assert_eq!(durability.durable(), Index(5));

        durability.complete(first.number, Time(9));
        assert_eq!(durability.durable(), Index(6), "7 to 9 of the first write are gone");
        durability.complete(second.number, Time(9));
        assert_eq!(durability.durable(), Index(10));
    }

    #[test]
    fn a_truncation_takes_back_what_was_durable() {
        let mut durability = Durability::recovered(Index(5));
        durability.truncated(Index(3));
        assert_eq!(durability.durable(), Index(2));
        let write = durability.issue(Index(2), Time(0)).unwrap();
        assert_eq!(write.from, Some(Index(3)));
        assert!(!durability.complete(write.number, Time(9)));
        assert_eq!(durability.durable(), Index(2));
    }

    /// Pitfall 34: what was under way when a snapshot took the log's place.
    #[test]
    fn the_write_of_a_log_that_a_snapshot_replaced_says_nothing_about_what_follows() {
        let mut durability = Durability::recovered(Index(5));
        durability.appended(Index(6));
        let old = durability.issue(Index(9), Time(7)).unwrap();
        assert_eq!(durability.waiting_since(), Some(Time(7)));
        durability.appended(Index(10));
        durability.installed(Index(4));
        durability.appended(Index(101));
        let new = durability.issue(Index(101), Time(8)).unwrap();
        assert_eq!((new.install, new.from), (true, Some(Index(101))));
        assert_eq!(durability.durable(), Index(4));
        durability.complete(old.number, Time(9));
        assert_eq!(durability.durable(), Index(4));
        durability.complete(new.number, Time(9));
        assert_eq!(durability.durable(), Index(101));
        assert_eq!(durability.waiting_since(), None);
        assert_eq!(durability.issue(Index(101), Time(9)), None);
    }

    #[test]
    fn the_gate_of_a_vote_is_the_write_that_carries_it() {
        let mut durability = Durability::default();
        assert!(durability.is_completed(durability.hard_gate()));
        durability.hard_changed();
        let gate = durability.hard_gate();
        assert!(!durability.is_completed(gate));
        let write = durability.issue(Index(0), Time(0)).unwrap();
        assert_eq!((write.number, write.hard, write.from), (gate, true, None));
        assert_eq!(durability.hard_gate(), gate);
        durability.complete(gate, Time(9));
        assert!(durability.is_completed(gate));
        assert_eq!(durability.issue(Index(0), Time(0)), None);
    }
}
