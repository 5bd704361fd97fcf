//! A disk as the properties see it: what of one log a crash leaves behind.

use super::super::Core;
#[cfg(test)]
use super::super::log::Log;
use super::super::snapshot::Snapshot;
#[cfg(test)]
use super::super::state::Saved;
use super::super::state::{Hard, Record};
#[cfg(test)]
use super::super::types::Incarnation;
use super::super::types::{Entry, Index, Term};

/// What one log has on its disk: completed writes only. A disk whose node was
/// wiped is kept, to tell what was true once.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    /// Term, vote and cluster.
    pub hard: Hard,
    /// What stands for the log up to its base, and perhaps for more.
    pub snapshot: Option<Snapshot>,
    /// What precedes the first entry, and its term.
    pub base: (Index, Term),
    /// The entries behind the base.
    pub entries: Vec<Entry>,
    /// Where the log ended before the last write.
    pub ended: Index,
}

impl Disk {
    /// A write reaches the disk.
    pub fn write(&mut self, record: &Record) {
        self.ended = self.last_index();
        if let Some(hard) = &record.hard {
            self.hard = hard.clone();
        }
        if let Some(snapshot) = &record.install {
            self.base = (snapshot.id.index, snapshot.id.term);
            self.entries.clear();
            self.snapshot = Some(snapshot.clone());
        }
        if let Some(from) = record.from {
            assert!(from > self.base.0, "a write from {from} into the base at {}", self.base.0);
            self.entries.truncate((from.0 - self.base.0.0) as usize - 1);
            assert_eq!(self.last_index().next(), from, "a write without a gap");
            self.entries.extend(record.entries.iter().cloned());
        }
    }

    /// A snapshot of the node's own reaches the disk, and the log up to `base` goes.
    pub fn compacted(&mut self, snapshot: &Snapshot, base: Index) {
        if self.snapshot.as_ref().is_none_or(|known| known.id.index < snapshot.id.index) {
            self.snapshot = Some(snapshot.clone());
        }
        if base > self.base.0 {
            let term = self.term_at(base).expect("only what is there is let go");
            self.entries.drain(..(base.0 - self.base.0.0) as usize);
            self.base = (base, term);
        }
    }

    /// The memory of a node that has no disk is as good as one as long as the node
    /// is: it holds what `core` holds.
    pub fn mirror(&mut self, core: &Core) {
        self.ended = self.last_index();
        let log = core.log();
        let base = (log.base_index(), log.base_term());
        if self.snapshot.as_ref().map(|s| s.id) != core.snapshot().map(|s| s.id) {
            self.snapshot = core.snapshot().cloned();
        }
        if self.base != base {
            match base.0 <= self.last_index() && self.term_at(base.0) == Some(base.1) {
                true => drop(self.entries.drain(..(base.0.0 - self.base.0.0) as usize)),
                false => self.entries.clear(),
            }
            self.base = base;
        }
        let mut same = self.last_index().min(log.last_index());
        while same > base.0 && log.entry(same) != self.entry(same) {
            same = same.previous();
        }
        self.entries.truncate((same.0 - base.0.0) as usize);
        self.entries.extend(log.from(same.next()).map(|(_, entry)| entry.clone()));
        if self.hard != *core.hard() {
            self.hard = core.hard().clone();
        }
    }

    /// What a node finds that starts with this disk.
    #[cfg(test)]
    pub fn saved(&self, incarnation: Incarnation) -> Saved {
        let mut log = Log::with_base(self.base.0, self.base.1);
        for entry in &self.entries {
            log.append(entry.clone());
        }
        Saved { incarnation, hard: self.hard.clone(), snapshot: self.snapshot.clone(), log }
    }

    /// The end of the log.
    pub fn last_index(&self) -> Index {
        Index(self.base.0.0 + self.entries.len() as u64)
    }

    fn entry(&self, index: Index) -> Option<&Entry> {
        self.entries.get((index.0.checked_sub(self.base.0.0 + 1)?) as usize)
    }

    /// The term of an entry; `None` behind the last, and before the base.
    pub fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.base.0 {
            return Some(self.base.1);
        }
        self.entry(index).map(|entry| entry.term)
    }

    /// Whether a snapshot stands for the entry at `index`.
    pub fn covers(&self, index: Index) -> bool {
        self.snapshot.as_ref().is_some_and(|snapshot| index <= snapshot.id.index)
    }

    /// Whether the entry at `index` is there and of `term`, or covered.
    pub fn has(&self, index: Index, term: Term) -> bool {
        self.term_at(index).map_or(self.covers(index), |there| there == term)
    }
}
