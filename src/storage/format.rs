//! The fixed parts of the files as bytes: heads and frames.
//!
//! Numbers are little endian. Each head begins with eight bytes that name the kind
//! of file and four with the format version, and ends with the checksum (CRC-32) of
//! all before it; what is not named below is zero.
//!
//! ```text
//!   node       128 bytes, the whole file
//!              16  8 incarnation
//!              24  8 number of the first segment that is needed
//!              32  8 number of the newest one; 0 while the folder is being made
//!              40  1 length of the name, the name
//!
//!   segment    a block of 4096 bytes with a head of 128, a block with a mark, frames
//!              16  8 incarnation
//!              24  8 number
//!              32  8 how long the file is
//!              40  8 where the segment before ends
//!              48  8 incarnation that has the vote, or 0
//!              56  8 cluster, or 0
//!              64  8 current term
//!              72  8 index, 8 term of the log's end when the segment was begun
//!              88  4 the chain at the end of the segment before
//!
//!   mark        0  4 "KMRK"
//!               4  8 synced: up to here, in this segment, all is durable
//!              12  4 checksum
//!
//!   frame      a head of 32 bytes, a record, zeros up to a multiple of 8
//!               0  4 "KREC"
//!               4  4 checksum of the record
//!               8  8 length of the record
//!              16  8 synced: up to here all was durable when this was written
//!              24  4 zero
//!              28  4 checksum of this head
//!
//!   snapshot   a head of 64 bytes, then the snapshot
//!              12  4 1 taken here, 2 received from a leader
//!              16  8 incarnation
//!              24  8 index, 8 term, 8 length, 4 checksum: the snapshot's id
//! ```
//!
//! The checksums of marks and frames are salted with the incarnation, the segment's
//! number and their place: bytes that were copied or left over from elsewhere are none.
//! The mark is written over and over; it has a block of its own, so that whatever
//! becomes of it when power fails in the middle of that, nothing else is touched.
//! The *chain* is a checksum over the heads of all frames of a segment so far; the
//! next segment states it, so that a finished one cannot change unnoticed, nor end
//! earlier.

use crate::core::Hard;
use crate::core::snapshot::{SNAPSHOT_LIMIT_BYTES, SnapshotId};
use crate::core::types::{ClusterId, Incarnation, Index, Term};
use crate::encoding::Refusal;
use crate::encoding::cursor::Cursor;
use crate::encoding::entry::{put_name, take_name};

/// The format that this build writes, and the only one it reads.
const FORMAT_VERSION: u32 = 3;
const NODE_MAGIC: &[u8; 8] = b"KONTNODE";
const SEGMENT_MAGIC: &[u8; 8] = b"KONTILOG";
const SNAPSHOT_MAGIC: &[u8; 8] = b"KONTSNAP";
/// A node's file has so many bytes.
pub(super) const NODE_BYTES: usize = 128;
/// The head of a segment has so many bytes.
pub(super) const SEGMENT_HEAD_BYTES: usize = 128;
/// Where the mark of a segment stands.
pub(super) const MARK_AT: u64 = 4096;
/// Where the first frame of a segment stands.
pub(super) const FRAMES_AT: u64 = 8192;
/// A mark has so many bytes.
const MARK_BYTES: usize = 16;
/// The head of a snapshot's file has so many bytes.
pub(super) const SNAPSHOT_HEAD_BYTES: usize = 64;
/// The head of a frame has so many bytes.
pub(super) const FRAME_HEAD_BYTES: usize = 32;
/// Frames begin at multiples of this.
pub(super) const FRAME_ALIGNMENT: usize = 8;

const RECORD_MAGIC: &[u8; 4] = b"KREC";
const MARK_MAGIC: &[u8; 4] = b"KMRK";

/// Why a head was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unsound {
    /// Written by another version of the format.
    Version(u32),
    /// Not as it was written.
    Damaged(&'static str),
}

impl From<Refusal> for Unsound {
    fn from(_: Refusal) -> Unsound {
        Unsound::Damaged("its head makes no sense")
    }
}

fn begin_head(magic: &[u8; 8]) -> Vec<u8> {
    let mut head = Vec::with_capacity(NODE_BYTES);
    head.extend_from_slice(magic);
    head.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    head
}

fn put_u64s<const COUNT: usize>(head: &mut Vec<u8>, numbers: [u64; COUNT]) {
    for number in numbers {
        head.extend_from_slice(&number.to_le_bytes());
    }
}

/// Fills the head up with zeros and seals it with its checksum.
fn seal_head(mut head: Vec<u8>, size: usize) -> Vec<u8> {
    assert!(head.len() <= size - 4, "a head of {} bytes in {size}", head.len());
    head.resize(size - 4, 0);
    let checksum = crc32fast::hash(&head);
    head.extend_from_slice(&checksum.to_le_bytes());
    head
}

/// The fields of a sealed head.
fn open_head<'a>(bytes: &'a [u8], magic: &[u8; 8], size: usize) -> Result<Cursor<'a>, Unsound> {
    let Some(head) = bytes.get(..size) else {
        return Err(Unsound::Damaged("it is shorter than its head"));
    };
    let mut cursor = Cursor::over(&head[..size - 4]);
    if cursor.array()? != *magic {
        return Err(Unsound::Damaged("it does not begin as such a file does"));
    }
    // Before the checksum: another version may have it in another place.
    let version = cursor.u32()?;
    if version != FORMAT_VERSION {
        return Err(Unsound::Version(version));
    }
    if crc32fast::hash(&head[..size - 4]).to_le_bytes() != head[size - 4..] {
        return Err(Unsound::Damaged("the checksum of its head is wrong"));
    }
    Ok(cursor)
}

/// What a node's file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NodeFile {
    pub(super) incarnation: Incarnation,
    pub(super) name: String,
    /// The first segment that is needed.
    pub(super) first: u64,
    /// The segment that is written to; 0 while the folder is being made.
    pub(super) newest: u64,
}

impl NodeFile {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut head = begin_head(NODE_MAGIC);
        head.extend_from_slice(&[0; 4]);
        put_u64s(&mut head, [self.incarnation.0, self.first, self.newest]);
        put_name(&self.name, &mut head);
        seal_head(head, NODE_BYTES)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<NodeFile, Unsound> {
        let mut from = open_head(bytes, NODE_MAGIC, NODE_BYTES)?;
        if bytes.len() != NODE_BYTES {
            return Err(Unsound::Damaged("it is longer than it was made"));
        }
        from.take(4)?;
        let incarnation = Incarnation(from.u64()?);
        let (first, newest) = (from.u64()?, from.u64()?);
        let name = take_name(&mut from)?.to_string();
        if incarnation.0 == 0 || first == 0 || first > newest.saturating_add(1) {
            return Err(Refusal::Malformed.into());
        }
        Ok(NodeFile { incarnation, name, first, newest })
    }
}

/// Where a segment ends, and the chain there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct End {
    pub(super) at: u64,
    pub(super) chain: u32,
}

/// What the node held when a segment was begun.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Checkpoint {
    pub(super) hard: Hard,
    pub(super) last_index: Index,
    pub(super) last_term: Term,
}

/// The head of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SegmentHead {
    pub(super) incarnation: Incarnation,
    pub(super) number: u64,
    /// How long the file is.
    pub(super) len: u64,
    /// Where the segment before ends.
    pub(super) before: End,
    pub(super) checkpoint: Checkpoint,
}

impl SegmentHead {
    pub(super) fn encode(&self) -> Vec<u8> {
        let Checkpoint { hard, last_index, last_term } = &self.checkpoint;
        let mut head = begin_head(SEGMENT_MAGIC);
        head.extend_from_slice(&[0; 4]);
        put_u64s(&mut head, [self.incarnation.0, self.number, self.len, self.before.at]);
        put_u64s(&mut head, [vote_number(hard), cluster_number(hard), hard.term.0]);
        put_u64s(&mut head, [last_index.0, last_term.0]);
        head.extend_from_slice(&self.before.chain.to_le_bytes());
        seal_head(head, SEGMENT_HEAD_BYTES)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<SegmentHead, Unsound> {
        let mut from = open_head(bytes, SEGMENT_MAGIC, SEGMENT_HEAD_BYTES)?;
        from.take(4)?;
        let (incarnation, number) = (Incarnation(from.u64()?), from.u64()?);
        let (len, at) = (from.u64()?, from.u64()?);
        let (vote, cluster, term) = (from.u64()?, from.u64()?, Term(from.u64()?));
        let hard = hard_of(vote, cluster, term);
        let (last_index, last_term) = (Index(from.u64()?), Term(from.u64()?));
        let before = End { at, chain: from.u32()? };
        if len < FRAMES_AT {
            return Err(Refusal::Malformed.into());
        }
        let checkpoint = Checkpoint { hard, last_index, last_term };
        Ok(SegmentHead { incarnation, number, len, before, checkpoint })
    }

    /// What the checksums of its frames are salted with.
    pub(super) fn salt(&self) -> Salt {
        Salt::new(self.incarnation, self.number)
    }
}

/// The vote as a number, 0 for none.
pub(super) fn vote_number(hard: &Hard) -> u64 {
    assert_ne!(hard.voted_for, Some(Incarnation(0)), "no incarnation is 0");
    hard.voted_for.map_or(0, |incarnation| incarnation.0)
}

/// The cluster as a number, 0 for none.
pub(super) fn cluster_number(hard: &Hard) -> u64 {
    assert_ne!(hard.cluster, Some(ClusterId(0)), "no cluster is 0");
    hard.cluster.map_or(0, |cluster| cluster.0)
}

/// The same back.
pub(super) fn hard_of(vote: u64, cluster: u64, term: Term) -> Hard {
    let voted_for = (vote != 0).then_some(Incarnation(vote));
    Hard { cluster: (cluster != 0).then_some(ClusterId(cluster)), term, voted_for }
}

/// The chain before the first frame of a segment. As below it leaves out the head's
/// own checksum: the CRC of bytes that end with their CRC is the same whatever they
/// are, so the chain would say nothing.
pub(super) fn chain_of_head(head: &[u8]) -> u32 {
    crc32fast::hash(&head[..SEGMENT_HEAD_BYTES - 4])
}

/// The chain after a frame with this head.
pub(super) fn chain_on(chain: u32, head: &[u8; FRAME_HEAD_BYTES]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&chain.to_le_bytes());
    hasher.update(&head[..FRAME_HEAD_BYTES - 4]);
    hasher.finalize()
}

/// What makes the checksums of one segment unlike those of any other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Salt([u8; 16]);

impl Salt {
    pub(super) fn new(incarnation: Incarnation, number: u64) -> Salt {
        let mut salt = [0; 16];
        salt[..8].copy_from_slice(&incarnation.0.to_le_bytes());
        salt[8..].copy_from_slice(&number.to_le_bytes());
        Salt(salt)
    }

    /// The checksum of bytes that belong to the frame at this place.
    pub(super) fn checksum(&self, place: u64, bytes: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.0);
        hasher.update(&place.to_le_bytes());
        hasher.update(bytes);
        hasher.finalize()
    }
}

/// The mark that says that all up to `synced` is durable.
pub(super) fn encode_mark(salt: &Salt, synced: u64) -> [u8; MARK_BYTES] {
    let mut mark = [0; MARK_BYTES];
    mark[..4].copy_from_slice(MARK_MAGIC);
    mark[4..12].copy_from_slice(&synced.to_le_bytes());
    let checksum = salt.checksum(MARK_AT, &mark[..12]);
    mark[12..].copy_from_slice(&checksum.to_le_bytes());
    mark
}

/// What the mark of a segment says; `None` if there is none, or one that was torn.
pub(super) fn decode_mark(segment: &[u8], salt: &Salt) -> Option<u64> {
    let mark = segment.get(MARK_AT as usize..)?.first_chunk::<MARK_BYTES>()?;
    let checksum = salt.checksum(MARK_AT, &mark[..12]).to_le_bytes();
    let is_sound = mark[..4] == *MARK_MAGIC && mark[12..] == checksum;
    is_sound.then(|| u64::from_le_bytes(*mark[4..].first_chunk().expect("it has 12")))
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHead {
    pub(super) payload_len: u64,
    pub(super) payload_checksum: u32,
    /// Up to here all was durable when this was written.
    pub(super) synced: u64,
}

impl FrameHead {
    pub(super) fn encode(&self, salt: &Salt, place: u64) -> [u8; FRAME_HEAD_BYTES] {
        assert!(self.synced <= place, "a frame at {place} says that {} are synced", self.synced);
        let mut head = [0; FRAME_HEAD_BYTES];
        head[..4].copy_from_slice(RECORD_MAGIC);
        head[4..8].copy_from_slice(&self.payload_checksum.to_le_bytes());
        head[8..16].copy_from_slice(&self.payload_len.to_le_bytes());
        head[16..24].copy_from_slice(&self.synced.to_le_bytes());
        let checksum = salt.checksum(place, &head[..28]);
        head[28..].copy_from_slice(&checksum.to_le_bytes());
        head
    }

    /// The head that stands at this place; `None` if none does.
    pub(super) fn decode(head: &[u8; FRAME_HEAD_BYTES], salt: &Salt, place: u64) -> Option<Self> {
        // First what costs little: it is asked at many places.
        let is_sound = head[..4] == *RECORD_MAGIC
            && salt.checksum(place, &head[..28]).to_le_bytes() == head[28..];
        if !is_sound {
            return None;
        }
        let mut from = Cursor::over(&head[4..]);
        let payload_checksum = from.u32().ok()?;
        let (payload_len, synced) = (from.u64().ok()?, from.u64().ok()?);
        (synced <= place).then_some(FrameHead { payload_len, payload_checksum, synced })
    }
}

/// Where a snapshot came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Made by this node, of entries that its log holds.
    Taken,
    /// Sent by a leader.
    Received,
}

/// The head of a snapshot's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SnapshotHead {
    pub(super) incarnation: Incarnation,
    pub(super) origin: Origin,
    pub(super) id: SnapshotId,
}

impl SnapshotHead {
    pub(super) fn encode(&self) -> Vec<u8> {
        let SnapshotId { index, term, length, checksum } = self.id;
        let mut head = begin_head(SNAPSHOT_MAGIC);
        let origin: u32 = match self.origin {
            Origin::Taken => 1,
            Origin::Received => 2,
        };
        head.extend_from_slice(&origin.to_le_bytes());
        put_u64s(&mut head, [self.incarnation.0, index.0, term.0, length]);
        head.extend_from_slice(&checksum.to_le_bytes());
        seal_head(head, SNAPSHOT_HEAD_BYTES)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<SnapshotHead, Unsound> {
        let mut from = open_head(bytes, SNAPSHOT_MAGIC, SNAPSHOT_HEAD_BYTES)?;
        let origin = match from.u32()? {
            1 => Origin::Taken,
            2 => Origin::Received,
            _ => return Err(Refusal::Malformed.into()),
        };
        let incarnation = Incarnation(from.u64()?);
        let (index, term) = (Index(from.u64()?), Term(from.u64()?));
        let (length, checksum) = (from.u64()?, from.u32()?);
        if length > SNAPSHOT_LIMIT_BYTES {
            return Err(Refusal::TooLarge.into());
        }
        let id = SnapshotId { index, term, length, checksum };
        Ok(SnapshotHead { incarnation, origin, id })
    }
}
