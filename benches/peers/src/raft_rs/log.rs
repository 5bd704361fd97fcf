//! What raft-rs keeps, in memory: its log, its hard state and the newest value applied.
//!
//! It belongs to its node, so nothing is locked. Entries share their values' bytes.

use std::collections::VecDeque;

use bytes::Bytes;
use protobuf::Message as _;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Storage, StorageError};

use crate::cluster::KEPT_ENTRIES;

#[derive(Default)]
pub struct Log {
    pub hard: HardState,
    conf: ConfState,
    /// The entry before the first, and its term.
    before: (u64, u64),
    entries: VecDeque<Entry>,
    applied: u64,
    newest: Bytes,
    pub compacts: bool,
}

impl Log {
    /// An empty log of a cluster of these.
    pub fn new(voters: Vec<u64>, compacts: bool) -> Log {
        Log { conf: ConfState { voters, ..ConfState::default() }, compacts, ..Log::default() }
    }

    pub fn applied(&self) -> u64 {
        self.applied
    }

    fn first(&self) -> u64 {
        self.before.0 + 1
    }

    fn last(&self) -> u64 {
        self.before.0 + self.entries.len() as u64
    }

    /// Puts entries behind those that they follow, in the place of what stood there.
    pub fn append(&mut self, entries: Vec<Entry>) {
        if let Some(first) = entries.first() {
            assert!(self.first() <= first.index && first.index <= self.last() + 1, "a gap");
            self.entries.truncate((first.index - self.first()) as usize);
            self.entries.extend(entries);
        }
    }

    pub fn apply(&mut self, index: u64, value: Bytes) {
        // A new leader's own entry is empty.
        if !value.is_empty() {
            self.newest = value;
        }
        self.applied = index;
        if self.compacts && index + 1 >= self.first() + 2 * KEPT_ENTRIES {
            let to = index - KEPT_ENTRIES;
            let term = self.term(to).expect("it is in the log");
            self.entries.drain(..(to + 1 - self.first()) as usize);
            self.before = (to, term);
        }
    }

    pub fn install(&mut self, mut snapshot: Snapshot) {
        let meta = snapshot.take_metadata();
        self.before = (meta.index, meta.term);
        self.entries.clear();
        self.applied = meta.index;
        self.newest = snapshot.data;
        self.hard.term = self.hard.term.max(meta.term);
        self.hard.commit = meta.index;
        self.conf = meta.conf_state.unwrap_or_default();
    }
}

impl Storage for Log {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard.clone(), self.conf.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        most_bytes: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low < self.first() {
            return Err(Error::Store(StorageError::Compacted));
        }
        let place = |index| (index - self.first()) as usize;
        let range = self.entries.range(place(low)..place(high));
        let most_bytes = most_bytes.into().unwrap_or(u64::MAX);
        if most_bytes == u64::MAX {
            return Ok(range.cloned().collect());
        }
        let mut bytes = 0;
        let fits = |entry: &&Entry| {
            let is_first = bytes == 0;
            bytes += u64::from(entry.compute_size());
            is_first || bytes <= most_bytes
        };
        Ok(range.take_while(fits).cloned().collect())
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        match index.checked_sub(self.first()) {
            None if index == self.before.0 => Ok(self.before.1),
            None => Err(Error::Store(StorageError::Compacted)),
            Some(place) => match self.entries.get(place as usize) {
                Some(entry) => Ok(entry.term),
                None => Err(Error::Store(StorageError::Unavailable)),
            },
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        if self.applied < request_index {
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        let mut snapshot = Snapshot { data: self.newest.clone(), ..Snapshot::default() };
        let meta = snapshot.mut_metadata();
        meta.index = self.applied;
        meta.term = self.term(self.applied)?;
        meta.set_conf_state(self.conf.clone());
        Ok(snapshot)
    }
}
