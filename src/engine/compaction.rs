//! When the state is written down as a snapshot, and the log behind it let go.
//!
//! ```text
//!   enough entries were handed out ─► a job asks for a snapshot ─► it is made
//!        ▲                                                            │
//!        │                            on a disk ─► saved ─► the core compacts its log
//!        └── counted anew             in memory ───────────►┘
//! ```
//!
//! One snapshot is under way at a time. What is written for snapshots stays within a
//! small multiple of what is written for the log: a state that has grown large is
//! written down less often.

use crate::core::snapshot::Snapshot;
use crate::core::types::{Index, Time};

use super::{Engine, Keeps, Output};

/// The log behind the last snapshot may have so many bytes, however few entries.
const LOG_BYTES: u64 = 64 * 1024 * 1024;
/// A snapshot of at least so many bytes is large: the log since the last one has at
/// least a part of its size before the next.
const LARGE_BYTES: u64 = 1024 * 1024;
const LARGE_PART: u64 = 4;
/// A snapshot that is not on the disk after so long is told, in microseconds.
const SAVING_LONG: u64 = 30_000_000;

/// What has been handed out since the last snapshot.
#[derive(Debug)]
pub(super) struct Compaction {
    every: u64,
    /// The last entry of the newest snapshot, or of the one that is being made.
    at: Index,
    /// How long that was, or the one before it.
    length: u64,
    /// Bytes of entries handed out since.
    bytes: u64,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Idle,
    /// The state is being written down.
    Asked,
    /// It was, or could not be.
    Made(Result<Snapshot, String>),
    /// It goes to the disk, since then; whether it was told that this takes long.
    Saving(Box<Snapshot>, Time, bool),
}

impl Compaction {
    pub(super) fn new(every: u64, known: Option<&Snapshot>) -> Compaction {
        let (at, length) = known.map_or((Index(0), 0), |s| (s.id.index, s.id.length));
        Compaction { every, at, length, bytes: 0, stage: Stage::Idle }
    }

    /// Entries of so many bytes were handed out.
    pub(super) fn handed(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// Whether the state should be written down once `index` is applied.
    pub(super) fn is_due(&self, index: Index) -> bool {
        let entries = index.0.saturating_sub(self.at.0) >= self.every;
        let worth = self.length < LARGE_BYTES || self.bytes >= self.length / LARGE_PART;
        let long = self.bytes >= LOG_BYTES.max(self.length);
        matches!(self.stage, Stage::Idle) && index > self.at && (entries && worth || long)
    }

    /// The state is being written down, as of `index`.
    pub(super) fn ask(&mut self, index: Index) {
        (self.stage, self.at, self.bytes) = (Stage::Asked, index, 0);
    }

    /// It was, or could not be.
    pub(super) fn made(&mut self, made: Result<Snapshot, String>) {
        self.stage = Stage::Made(made);
    }

    /// A snapshot that came from elsewhere stands for the log up to there.
    pub(super) fn restored(&mut self, snapshot: &Snapshot) {
        if snapshot.id.index > self.at {
            (self.at, self.length, self.bytes) = (snapshot.id.index, snapshot.id.length, 0);
        }
    }
}

impl<T> Engine<T> {
    /// Carries a snapshot that was made one step on.
    pub(super) fn drive_compaction(&mut self, output: &mut Output<T>, now: Time) {
        let stage = std::mem::replace(&mut self.compaction.stage, Stage::Idle);
        match stage {
            Stage::Made(Ok(snapshot)) => {
                self.compaction.length = snapshot.id.length;
                match self.keeps {
                    Keeps::InMemory => self.core.compact(snapshot, now),
                    Keeps::OnDisk => {
                        output.save = Some(snapshot.clone());
                        self.compaction.stage = Stage::Saving(Box::new(snapshot), now, false);
                    }
                }
            }
            Stage::Made(Err(reason)) => {
                let every = self.compaction.every;
                self.core.warn(format!(
                    "the state machine gave no snapshot, and is asked again after {every} entries: \
                     {reason}"
                ));
            }
            Stage::Saving(snapshot, since, false) if now.since(since) > SAVING_LONG => {
                self.core.warn(format!(
                    "the snapshot at {} is not on the disk after {} s, and the log grows",
                    snapshot.id.index,
                    now.since(since) / 1_000_000
                ));
                self.compaction.stage = Stage::Saving(snapshot, since, true);
            }
            other => self.compaction.stage = other,
        }
        let base = self.core.log().base_index();
        let durable = base <= self.core.applicable();
        if self.keeps == Keeps::OnDisk && self.trimmed.is_none_or(|known| base > known) && durable {
            self.trimmed = Some(base);
            output.trim = Some(base);
        }
    }

    /// The snapshot that went to the disk is durable there.
    pub(crate) fn saved(&mut self, now: Time) {
        let stage = std::mem::replace(&mut self.compaction.stage, Stage::Idle);
        if let Stage::Saving(snapshot, ..) = stage {
            self.core.compact(*snapshot, now);
            // The ones before it are not needed any more, wherever the log begins.
            self.trimmed = None;
        }
    }

    /// There was no room for it: the log stays as long as it is.
    pub(crate) fn not_saved(&mut self, why: &str) {
        self.compaction.stage = Stage::Idle;
        let every = self.compaction.every;
        self.core.warn(format!(
            "its snapshot was not kept, and another is taken after {every} entries: {why}"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compaction(every: u64, at: u64, length: u64) -> Compaction {
        Compaction { every, at: Index(at), length, bytes: 0, stage: Stage::Idle }
    }

    #[test]
    fn a_snapshot_is_due_after_so_many_entries() {
        let mut small = compaction(100, 1_000, 500);
        assert!(!small.is_due(Index(1_099)));
        assert!(small.is_due(Index(1_100)));
        small.ask(Index(1_100));
        assert!(!small.is_due(Index(5_000)), "one at a time");
    }

    #[test]
    fn a_large_state_is_written_down_less_often() {
        let mut large = compaction(100, 1_000, 80 << 20);
        large.handed(10 << 20);
        assert!(!large.is_due(Index(50_000)));
        large.handed(10 << 20);
        assert!(large.is_due(Index(50_000)));
    }

    #[test]
    fn few_large_entries_are_as_good_as_many_small_ones() {
        let mut log = compaction(1_000_000, 10, 500);
        log.handed(LOG_BYTES as usize - 1);
        assert!(!log.is_due(Index(20)));
        log.handed(1);
        assert!(log.is_due(Index(20)));
        assert!(!log.is_due(Index(10)), "nothing is new");
    }
}
