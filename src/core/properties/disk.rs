//! A disk as the properties see it: what of one log a crash leaves behind.

use super::super::Core;
use super::super::state::{Hard, Record, Saved};
use super::super::types::{Entry, Incarnation, Index, Term};
use crate::core::log::Log;

/// What one log has on its disk: completed writes only. A disk whose node was
/// wiped is kept, to tell what was true once.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    /// Term, vote and cluster.
    pub hard: Hard,
    /// The entries, the first of them at index 1.
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
        if let Some(from) = record.from {
            self.entries.truncate(from.0 as usize - 1);
            assert_eq!(self.entries.len() as u64 + 1, from.0, "a write without a gap");
            self.entries.extend(record.entries.iter().cloned());
        }
    }

    /// The memory of a node that has no disk is as good as one as long as the node
    /// is: it holds what `core` holds.
    pub fn mirror(&mut self, core: &Core) {
        self.ended = self.last_index();
        let log = core.log();
        let mut same = self.entries.len().min(log.last_index().0 as usize);
        while same > 0 && log.entry(Index(same as u64)) != self.entries.get(same - 1) {
            same -= 1;
        }
        self.entries.truncate(same);
        self.entries.extend(log.from(Index(same as u64 + 1)).map(|(_, entry)| entry.clone()));
        if self.hard != *core.hard() {
            self.hard = core.hard().clone();
        }
    }

    /// What a node finds that starts with this disk.
    pub fn saved(&self, incarnation: Incarnation) -> Saved {
        let mut log = Log::new();
        for entry in &self.entries {
            log.append(entry.clone());
        }
        Saved { incarnation, hard: self.hard.clone(), log }
    }

    /// The end of the log.
    pub fn last_index(&self) -> Index {
        Index(self.entries.len() as u64)
    }

    /// The term of an entry; 0 before the first, `None` behind the last.
    pub fn term_at(&self, index: Index) -> Option<Term> {
        match index.0.checked_sub(1) {
            None => Some(Term(0)),
            Some(place) => self.entries.get(place as usize).map(|entry| entry.term),
        }
    }
}
