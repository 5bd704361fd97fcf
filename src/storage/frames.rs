//! The frames of one segment: put together before they are written, and walked
//! through when they are read.

use super::format::{
    End, FRAME_ALIGNMENT, FRAME_HEAD_BYTES, FRAMES_AT, FrameHead, Salt, chain_of_head, chain_on,
};

/// Records on their way into a segment. Where they will stand is known only when
/// all of them are there: their heads are filled in last.
#[derive(Debug, Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    /// Each record: where its frame begins in `bytes`, and where its payload ends.
    records: Vec<(usize, usize)>,
    /// So many zeros stand behind the frames.
    zeros: usize,
}

/// Memory that one large batch took is given back.
const KEPT_BYTES: usize = 1 << 20;

impl Batch {
    /// Empties it for another use.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES);
        self.records.clear();
        self.zeros = 0;
    }

    /// Adds the record whose payload `put` appends.
    pub(super) fn add(&mut self, put: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        self.bytes.resize(start + FRAME_HEAD_BYTES, 0);
        put(&mut self.bytes);
        let end = self.bytes.len();
        assert!(end > start + FRAME_HEAD_BYTES, "a record without a byte");
        self.records.push((start, end));
        self.bytes.resize(end.next_multiple_of(FRAME_ALIGNMENT), 0);
    }

    /// How many bytes the frames take.
    pub(super) fn len(&self) -> u64 {
        (self.bytes.len() - self.zeros) as u64
    }

    /// Adds zeros behind the frames, so that so many bytes are written.
    pub(super) fn extend_by_zeros(&mut self, len: u64) {
        let frames = self.bytes.len();
        assert!(len >= frames as u64, "{frames} bytes cut to {len}");
        self.bytes.resize(len as usize, 0);
        self.zeros = self.bytes.len() - frames;
    }

    /// The frames as they stand behind `end` in a segment of which all up to
    /// `synced` is durable, and where they end.
    pub(super) fn seal(&mut self, salt: &Salt, end: End, synced: u64) -> (&[u8], End) {
        let mut chain = end.chain;
        for &(start, payload_end) in &self.records {
            let place = end.at + start as u64;
            let (before, payload) =
                self.bytes[..payload_end].split_at_mut(start + FRAME_HEAD_BYTES);
            let head = FrameHead {
                payload_len: payload.len() as u64,
                payload_checksum: salt.checksum(place, payload),
                synced,
            };
            let head = head.encode(salt, place);
            before[start..].copy_from_slice(&head);
            chain = chain_on(chain, &head);
        }
        let at = end.at + self.len();
        (&self.bytes, End { at, chain })
    }
}

/// A frame that is sound.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame<'a> {
    /// Where it stands.
    pub(super) at: u64,
    pub(super) head: FrameHead,
    pub(super) payload: &'a [u8],
}

/// Goes through the frames of a segment, from its head on, as far as they are sound.
pub(super) struct Walk<'a> {
    bytes: &'a [u8],
    salt: Salt,
    end: End,
    synced: u64,
}

impl<'a> Walk<'a> {
    /// `bytes` begin with the segment's head, which was read.
    pub(super) fn new(bytes: &'a [u8], salt: Salt) -> Walk<'a> {
        let end = End { at: FRAMES_AT, chain: chain_of_head(bytes) };
        Walk { bytes, salt, end, synced: end.at }
    }

    /// Where the next frame stands, or should; and the chain up to there.
    pub(super) fn end(&self) -> End {
        self.end
    }

    /// Up to here all was durable when the last of the frames was written.
    pub(super) fn synced(&self) -> u64 {
        self.synced
    }

    /// The next frame; `None` if what stands there is not sound, or nothing does.
    pub(super) fn next(&mut self) -> Option<Frame<'a>> {
        let rest = self.bytes.get(self.end.at as usize..)?;
        let (head_bytes, rest) = rest.split_first_chunk::<FRAME_HEAD_BYTES>()?;
        let head = FrameHead::decode(head_bytes, &self.salt, self.end.at)?;
        let payload_len = usize::try_from(head.payload_len).ok()?;
        let padded_len = payload_len.checked_next_multiple_of(FRAME_ALIGNMENT)?;
        let (payload, padding) = rest.get(..padded_len)?.split_at(payload_len);
        let is_sound = self.salt.checksum(self.end.at, payload) == head.payload_checksum;
        // The padding was written as zeros: anything else is damage as well.
        if !is_sound || padding.iter().any(|byte| *byte != 0) {
            return None;
        }
        let frame = Frame { at: self.end.at, head, payload };
        self.end = End {
            at: self.end.at + (FRAME_HEAD_BYTES + padded_len) as u64,
            chain: chain_on(self.end.chain, head_bytes),
        };
        self.synced = self.synced.max(head.synced);
        Some(frame)
    }
}

/// The heads of frames that stand at or behind `from`, whatever stands between them.
pub(super) fn heads_from(
    bytes: &[u8],
    salt: Salt,
    from: u64,
) -> impl Iterator<Item = (u64, FrameHead)> + '_ {
    let first = (from as usize).next_multiple_of(FRAME_ALIGNMENT);
    (first..bytes.len()).step_by(FRAME_ALIGNMENT).filter_map(move |at| {
        let head = bytes[at..].first_chunk::<FRAME_HEAD_BYTES>()?;
        Some((at as u64, FrameHead::decode(head, &salt, at as u64)?))
    })
}
