//! A snapshot: what the log up to an index came to, in place of the log (Raft §7).
//!
//! The core carries the bytes and does not look inside. Two snapshots with the same
//! `SnapshotId` are the same bytes, so that a transfer may go on with another's.

use bytes::Bytes;

use super::membership::Membership;
use super::types::{Index, Term};
use super::verdicts::Verdicts;

/// A snapshot is at most so long, in bytes: it is held in memory as a whole.
pub const SNAPSHOT_LIMIT_BYTES: u64 = 1 << 36;

/// Which snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId {
    /// The last entry that it covers.
    pub index: Index,
    /// That entry's term.
    pub term: Term,
    /// How many bytes it has.
    pub length: u64,
    /// The checksum of the bytes (CRC-32, as of datagrams).
    pub checksum: u32,
}

/// A snapshot with all that it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub struct Snapshot {
    /// Which it is.
    pub id: SnapshotId,
    /// Where the members were stated that were in force at its index.
    pub members_index: Index,
    /// Those members.
    pub members: Membership,
    /// Who of them was up, as far as that was agreed.
    pub verdicts: Verdicts,
    /// The state, members included, as it travels and as it stands on the disk.
    pub data: Bytes,
}
