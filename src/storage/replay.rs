//! What the journal comes to: its records carried out one after the other, each
//! checked against what was before it.

use crate::core::Hard;
use crate::core::log::Log;
use crate::core::snapshot::SnapshotId;

use super::format::Checkpoint;
use super::record::{Change, Journaled};

/// Term, vote, cluster and log up to some place in the journal.
#[derive(Debug)]
pub(super) struct Replay {
    pub(super) hard: Hard,
    pub(super) log: Log,
    /// The last snapshot that took the place of the log.
    pub(super) installed: Option<SnapshotId>,
}

impl Replay {
    /// Begins with what a segment says was before it.
    pub(super) fn new(checkpoint: &Checkpoint) -> Replay {
        let Checkpoint { hard, last_index, last_term } = checkpoint;
        let log = Log::with_base(*last_index, *last_term);
        Replay { hard: hard.clone(), log, installed: None }
    }

    /// What a segment that is begun now says.
    pub(super) fn checkpoint(&self) -> Checkpoint {
        let (last_index, last_term) = (self.log.last_index(), self.log.last_term());
        Checkpoint { hard: self.hard.clone(), last_index, last_term }
    }

    /// Carries out one record. An error says what in it cannot be.
    pub(super) fn apply(&mut self, record: Journaled) -> Result<(), String> {
        if let Some(hard) = record.hard {
            if hard.term < self.hard.term {
                return Err(format!("the term falls from {} to {}", self.hard.term, hard.term));
            }
            self.hard = hard;
        }
        if let Some(id) = record.install {
            if id.term > self.hard.term {
                let (term, current) = (id.term, self.hard.term);
                return Err(format!("a snapshot of term {term} while the term is {current}"));
            }
            self.log = Log::with_base(id.index, id.term);
            self.installed = Some(id);
        }
        record.change.map_or(Ok(()), |change| self.change(change))
    }

    fn change(&mut self, change: Change) -> Result<(), String> {
        let Change { prev_index, prev_term, entries } = change;
        if prev_index < self.log.base_index() {
            // What was below came with segments that are gone. They went because all
            // that is committed there is in a snapshot, and so is this entry.
            self.log = Log::with_base(prev_index, prev_term);
        }
        let term_here = self.log.term_at(prev_index);
        if term_here != Some(prev_term) {
            let here = match term_here {
                Some(term) => format!("has term {term}"),
                None => format!("is missing: the log ends at {}", self.log.last_index()),
            };
            return Err(format!(
                "it follows on entry {prev_index} of term {prev_term}, which {here}"
            ));
        }
        if prev_index < self.log.last_index() {
            self.log.truncate_from(prev_index.next());
        }
        for entry in entries {
            let (index, term) = (self.log.last_index().next(), entry.term);
            if term < self.log.last_term() {
                let before = self.log.last_term();
                return Err(format!("entry {index} has term {term}, the one before it {before}"));
            }
            if term > self.hard.term {
                let current = self.hard.term;
                return Err(format!("entry {index} has term {term} while the term is {current}"));
            }
            self.log.append(entry);
        }
        Ok(())
    }
}
