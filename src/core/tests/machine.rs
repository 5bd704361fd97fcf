//! The replicated state of this world, and snapshots of it, as an engine takes, opens
//! and installs them.
//!
//! The state has a mark for each entry that it came from, so a snapshot that stands for
//! anything but the log up to its index is found out.

use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;

use super::super::properties::{SNAPSHOT_COMMITTED, Verdict, ensure};
use super::super::snapshot::{Snapshot, SnapshotId};
use super::super::types::{ClusterId, Entry, Index};
use super::world::{World, expect};
use crate::encoding::snapshot;

/// Each state begins with so many bytes, so that it travels in several pieces.
const HEAD_BYTES: usize = 3_000;

/// The state before the first entry.
fn empty_state() -> Vec<u8> {
    (0..HEAD_BYTES).map(|at| (at * 31 + at / 256) as u8).collect()
}

/// An entry is applied.
fn apply(state: &mut Vec<u8>, index: Index, entry: &Entry) {
    let mut hasher = DefaultHasher::new();
    (index, entry).hash(&mut hasher);
    state.extend_from_slice(&hasher.finish().to_le_bytes());
}

impl World {
    /// A node takes a snapshot of all that may be applied there, makes it durable and
    /// compacts its log. False: it has that already, or nothing is applied.
    pub fn compact(&mut self, place: usize) -> bool {
        let Some(snapshot) = self.take_snapshot(place) else { return false };
        self.save(place, snapshot);
        true
    }

    /// What a node's state comes to, as of all that may be applied there.
    pub fn take_snapshot(&self, place: usize) -> Option<Snapshot> {
        let core = self.nodes[place].core.as_ref()?;
        let index = core.applicable();
        let (covered, mut state) = match core.snapshot() {
            Some(known) => (known.id.index, snapshot::state(known).to_vec()),
            None => (Index(0), empty_state()),
        };
        if index <= covered {
            return None;
        }
        for (index, entry) in core.log().from(covered.next()).take_while(|(at, _)| *at <= index) {
            apply(&mut state, index, entry);
        }
        let term = core.log().term_at(index).expect("what is applicable is in the log");
        let (stated, members) = core.members_at(index).expect("its members are known");
        Some(snapshot::make((index, term), (*stated, members), &core.verdicts_at(index), &state))
    }

    /// A snapshot that a node took is durable, and its core is told: that may have
    /// taken longer than the leader's snapshot took to come.
    pub fn save(&mut self, place: usize, snapshot: Snapshot) {
        let cluster = self.core(place).hard().cluster.unwrap_or_default();
        let verdict = self.check_state(cluster, &snapshot);
        expect(verdict, &self.plan, self.now, &self.nodes[place].name);
        let incarnation = self.nodes[place].incarnation;
        let disk = self.disks.get_mut(&incarnation).expect("a disk");
        disk.compacted(&snapshot, disk.base.0);
        self.step(place, |core, now| core.compact(snapshot.clone(), now));
        // What of the log may go is the core's to say, unless it knows of a snapshot
        // that is not on the disk yet.
        let core = self.core(place);
        if core.snapshot() == Some(&snapshot) {
            let base = core.log().base_index();
            self.disks.get_mut(&incarnation).expect("a disk").compacted(&snapshot, base);
        }
    }

    /// A snapshot has come whole at a node. What does not open is as good as lost.
    pub(super) fn open_and_install(&mut self, place: usize, id: SnapshotId, data: Bytes) {
        let node = &mut self.nodes[place];
        let mut data = data;
        if node.spoils > 0 {
            node.spoils -= 1;
            let mut bytes = data.to_vec();
            *bytes.last_mut().expect("no snapshot is empty") ^= 1;
            data = Bytes::from(bytes);
        }
        let Ok(opened) = snapshot::open(id, data) else { return };
        let verdict = self.check_state(opened.members.cluster, &opened);
        expect(verdict, &self.plan, self.now, &self.nodes[place].name);
        let core = self.nodes[place].core.as_mut().expect("the node runs");
        match core.install(opened) {
            Ok(()) => self.installs += 1,
            Err(refused) => *self.refused.entry(refused).or_default() += 1,
        }
    }

    /// The state is that of the committed log up to the snapshot's index, entry by
    /// entry.
    fn check_state(&self, cluster: ClusterId, snapshot: &Snapshot) -> Verdict {
        let committed = self.history.committed_in(cluster);
        let mut state = empty_state();
        let reached = snapshot.id.index.0 as usize;
        for (at, (entry, _)) in committed.iter().take(reached).enumerate() {
            apply(&mut state, Index(at as u64 + 1), entry);
        }
        let same = snapshot::state(snapshot) == state && committed.len() >= reached;
        ensure(&SNAPSHOT_COMMITTED, same, || {
            format!("the state in {:?} is not that of the log", snapshot.id)
        })
    }
}
