//! One datagram: a header that says who speaks to whom, and parts. Numbers are
//! little endian.
//!
//! ```text
//!    0  4  magic               "KTKI"
//!    4  1  format version      3
//!    5  1  closing             0: a checksum; 1: a seal
//!    6  8  cluster             0 while the sender is fresh
//!   14  8  from, incarnation   the sender's log
//!   22  8  from, run           the sender's start
//!   30  8  to, incarnation     the addressee as the sender knows it,
//!   38  8  to, run             zeros in a hello to a stranger
//!  with a checksum:
//!   46  4  CRC-32 (IEEE) over all other bytes of the datagram
//!   50  .. parts, up to the end of the datagram
//!  with a seal (`seal`):
//!   46  4  by which secret
//!   50  8  the sender's counter
//!   58  .. parts, encrypted
//!   -16 16 the tag, over all that stands before it
//!
//!  parts, one or more:
//!       varint  length of the part, 1 or more
//!       ..      a kind byte and a body: a message (`codec`), a fragment or an
//!               acknowledgement of fragments (`fragment`)
//! ```
//!
//! The checksum keeps out what a network corrupts, not what somebody forges; a seal
//! keeps out both.
//!
//! All parts are walked over before the first one is given out: a frame is taken as a
//! whole or not at all.

use std::net::SocketAddr;

use crate::core::types::{ClusterId, Incarnation, Life, Run};

use super::Refusal;
use crate::encoding::cursor::{Cursor, put_varint, varint_len};

/// The first bytes of each datagram.
const MAGIC: [u8; 4] = *b"KTKI";
/// The version of the format drawn above.
const VERSION: u8 = 3;
/// Where the header ends that all frames have, and a checksum or a seal begins.
pub(super) const CLOSING_AT: usize = 46;
/// Where the first part stands in a frame with a checksum.
pub const HEADER_BYTES: usize = CLOSING_AT + 4;
/// Where the first part stands in a sealed frame.
pub const SEALED_HEADER_BYTES: usize = CLOSING_AT + 12;
/// What stands behind the parts of a sealed frame.
pub(super) const TAG_BYTES: usize = 16;
/// What stands around the parts at most.
const AROUND_PARTS: usize = SEALED_HEADER_BYTES + TAG_BYTES;

/// At most so many parts does a frame have.
pub const PARTS_LIMIT: usize = 4_096;
/// How long a datagram may be between two loopback addresses.
pub const LOOPBACK_DATAGRAM: usize = 60_000;
/// How long a datagram may be on any other path: it fits in an Ethernet frame
/// below the headers of IPv6, UDP and a tunnel, so IP never has to cut it.
pub const PATH_DATAGRAM: usize = 1_400;

/// How long a datagram from one address to the other should be at most, bytes.
pub fn datagram_bytes(from: SocketAddr, to: SocketAddr) -> usize {
    if crate::core::is_near(from, to) { LOOPBACK_DATAGRAM } else { PATH_DATAGRAM }
}

/// The longest part that fits in a frame of `capacity` bytes with nothing else, sealed or
/// not.
pub const fn part_limit(capacity: usize) -> usize {
    largest_part(capacity.saturating_sub(AROUND_PARTS))
}

/// What keeps a frame from being changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Closing {
    /// A checksum.
    #[default]
    Checksum,
    /// A seal.
    Seal,
}

impl Closing {
    /// Where the parts begin.
    const fn parts_at(self) -> usize {
        match self {
            Closing::Checksum => HEADER_BYTES,
            Closing::Seal => SEALED_HEADER_BYTES,
        }
    }

    /// How much comes behind the parts.
    const fn behind_parts(self) -> usize {
        match self {
            Closing::Checksum => 0,
            Closing::Seal => TAG_BYTES,
        }
    }
}

/// The longest part that fits in `room` bytes together with its own length.
const fn largest_part(room: usize) -> usize {
    if room < 2 {
        return 0;
    }
    // The length of the length depends on the length: the room's own is at most
    // a byte too long, which is then tried for.
    let part = room - varint_len(room as u64);
    if part + 1 + varint_len(part as u64 + 1) <= room { part + 1 } else { part }
}

/// Who speaks to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The sender's cluster; 0 while the sender is fresh.
    pub cluster: ClusterId,
    /// Who sent it.
    pub from: Life,
    /// For whom it is meant, as the sender knows it.
    pub to: Life,
}

/// Writes frames into one buffer, one after the other.
#[derive(Debug, Default)]
pub struct FrameWriter {
    buffer: Vec<u8>,
    /// Where the parts end at the latest.
    capacity: usize,
    parts: usize,
    closing: Closing,
}

impl FrameWriter {
    /// A writer with nothing in it.
    pub fn new() -> FrameWriter {
        FrameWriter::default()
    }

    /// Begins a frame of at most `capacity` bytes that will be closed in this way; what
    /// was there is forgotten.
    pub fn begin(&mut self, header: &Header, capacity: usize, closing: Closing) {
        self.buffer.clear();
        self.capacity = capacity.saturating_sub(closing.behind_parts());
        let least = closing.parts_at() + 2;
        assert!(self.capacity >= least, "no part fits in a datagram of {capacity} bytes");
        self.parts = 0;
        self.closing = closing;
        self.buffer.extend_from_slice(&MAGIC);
        self.buffer.extend_from_slice(&[VERSION, closing as u8]);
        let lives = [header.from, header.to].map(|life| [life.incarnation.0, life.run.0]);
        for number in [header.cluster.0].into_iter().chain(lives.into_iter().flatten()) {
            self.buffer.extend_from_slice(&number.to_le_bytes());
        }
        assert_eq!(self.buffer.len(), CLOSING_AT, "the header is not as it is drawn");
        self.buffer.resize(closing.parts_at(), 0);
    }

    /// The longest part that still fits; 0 if none does.
    pub fn room(&self) -> usize {
        if self.parts >= PARTS_LIMIT {
            return 0;
        }
        largest_part(self.capacity.saturating_sub(self.buffer.len()))
    }

    /// So many bytes are going to be added.
    pub fn reserve(&mut self, bytes: usize) {
        self.buffer.reserve(bytes);
    }

    /// Adds a part, if it fits. If it does not, nothing has changed.
    pub fn push(&mut self, part: &[u8]) -> bool {
        assert!(!part.is_empty(), "a part has a kind byte");
        if part.len() > self.room() {
            return false;
        }
        put_varint(&mut self.buffer, part.len() as u64);
        self.buffer.extend_from_slice(part);
        self.parts += 1;
        true
    }

    /// Adds the part that `write` puts behind what is there, which saves a copy. If it
    /// does not fit, the frame is as before and the part is in `spill`.
    pub fn write(&mut self, spill: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        /// The length of the longest part of a datagram takes so many bytes.
        const LENGTH_BYTES: usize = 3;
        let (start, room) = (self.buffer.len(), self.room());
        let part = start + LENGTH_BYTES;
        self.buffer.resize(part, 0);
        write(&mut self.buffer);
        let length = self.buffer.len() - part;
        assert!(length > 0, "a part has a kind byte");
        if length > room {
            spill.clear();
            spill.extend_from_slice(&self.buffer[part..]);
            self.buffer.truncate(start);
            return false;
        }
        // The length goes in front, in as many bytes as it takes; a long part, which all
        // of this is for, stays where it is.
        let end = self.buffer.len();
        put_varint(&mut self.buffer, length as u64);
        let taken = self.buffer.len() - end;
        self.buffer.copy_within(end.., start);
        if taken < LENGTH_BYTES {
            self.buffer.copy_within(part..end, start + taken);
        }
        self.buffer.truncate(start + taken + length);
        self.parts += 1;
        true
    }

    /// Whether the frame has no part yet.
    pub fn is_empty(&self) -> bool {
        self.parts == 0
    }

    /// The frame, complete but for what closes it, for another buffer to write the next
    /// one in. It needs a part; `begin` starts the next one.
    pub fn take(&mut self, next: Vec<u8>) -> Vec<u8> {
        assert!(self.parts > 0, "a frame without a part would be refused");
        std::mem::replace(&mut self.buffer, next)
    }

    /// The frame, with its checksum.
    #[cfg(any(test, fuzzing))]
    pub fn finish(&mut self) -> &[u8] {
        assert!(self.parts > 0, "a frame without a part would be refused");
        assert_eq!(self.closing, Closing::Checksum, "only its seal closes it");
        close(&mut self.buffer);
        &self.buffer
    }
}

/// The checksum of a datagram that is at least a header long.
fn checksum(datagram: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&datagram[..CLOSING_AT]);
    hasher.update(&datagram[HEADER_BYTES..]);
    hasher.finalize()
}

/// Puts the right checksum on a datagram, which must be a header long.
pub fn close(datagram: &mut [u8]) {
    let sum = checksum(datagram);
    datagram[CLOSING_AT..HEADER_BYTES].copy_from_slice(&sum.to_le_bytes());
}

/// A datagram that was opened: its checksum holds and its parts are whole.
#[derive(Clone, Debug)]
pub struct Frame<'a> {
    /// Who speaks to whom.
    pub header: Header,
    /// The kind byte and body of each part.
    pub parts: Parts<'a>,
}

/// Opens a datagram with a checksum: checks everything but what the parts say
/// (`pitfall 64`).
pub fn open(datagram: &[u8]) -> Result<Frame<'_>, Refusal> {
    let (header, mut cursor) = read_header(datagram, Closing::Checksum)?;
    if cursor.u32()? != checksum(datagram) {
        return Err(Refusal::Checksum);
    }
    Frame::of(header, cursor.rest())
}

/// The header of a datagram that says it is closed in this way, and what is behind it.
pub(super) fn read_header(
    datagram: &[u8],
    closing: Closing,
) -> Result<(Header, Cursor<'_>), Refusal> {
    let mut cursor = Cursor::over(datagram);
    if cursor.array()? != MAGIC {
        return Err(Refusal::Magic);
    }
    if cursor.u8()? != VERSION {
        return Err(Refusal::Version);
    }
    if cursor.u8()? != closing as u8 {
        return Err(Refusal::Closing);
    }
    let header = Header {
        cluster: ClusterId(cursor.u64()?),
        from: Life { incarnation: Incarnation(cursor.u64()?), run: Run(cursor.u64()?) },
        to: Life { incarnation: Incarnation(cursor.u64()?), run: Run(cursor.u64()?) },
    };
    Ok((header, cursor))
}

impl Frame<'_> {
    /// A frame of parts of which nobody has changed a bit.
    pub(super) fn of(header: Header, rest: &[u8]) -> Result<Frame<'_>, Refusal> {
        if rest.is_empty() {
            return Err(Refusal::Empty);
        }
        let mut unchecked = rest;
        let mut parts = 0;
        while !unchecked.is_empty() {
            parts += 1;
            if parts > PARTS_LIMIT {
                return Err(Refusal::TooMany);
            }
            unchecked = split(unchecked)?.1;
        }
        Ok(Frame { header, parts: Parts { rest } })
    }
}

/// The first part of some parts, and the others.
fn split(parts: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    let mut cursor = Cursor::over(parts);
    let length = cursor.length()?;
    if length == 0 {
        return Err(Refusal::Empty);
    }
    Ok((cursor.take(length)?, cursor.rest()))
}

/// Goes over the parts of a frame.
#[derive(Clone, Debug)]
pub struct Parts<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Parts<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        // `open` went over all of them, so the first error is the end.
        let (part, rest) = split(self.rest).ok()?;
        self.rest = rest;
        Some(part)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header() -> Header {
        Header {
            cluster: ClusterId(0x1122_3344_5566_7788),
            from: Life { incarnation: Incarnation(1), run: Run(2) },
            to: Life { incarnation: Incarnation(3), run: Run(u64::MAX) },
        }
    }

    fn frame_of(parts: &[Vec<u8>], capacity: usize) -> Vec<u8> {
        let mut writer = FrameWriter::new();
        writer.begin(&header(), capacity, Closing::Checksum);
        for part in parts {
            assert!(writer.push(part));
        }
        writer.finish().to_vec()
    }

    proptest! {
        #[test]
        fn a_part_is_the_same_however_it_was_put_in(
            first in 0..300usize,
            length in 1..40_000usize,
            capacity in 500..50_000usize,
        ) {
            let part = vec![7; length];
            let [mut pushed, mut written] = [(); 2].map(|()| {
                let mut writer = FrameWriter::new();
                writer.begin(&header(), capacity, Closing::Checksum);
                assert!(writer.push(&vec![1; first + 1]));
                writer
            });
            let mut spill = Vec::new();
            let fits = pushed.push(&part);
            prop_assert_eq!(written.write(&mut spill, |out| out.extend_from_slice(&part)), fits);
            prop_assert_eq!(written.finish(), pushed.finish());
            prop_assert_eq!(spill, if fits { Vec::new() } else { part });
        }
    }

    fn with_checksum(mut datagram: Vec<u8>) -> Vec<u8> {
        close(&mut datagram);
        datagram
    }

    /// A frame with this behind its header, whatever it is.
    fn with_body(body: &[u8]) -> Vec<u8> {
        let mut datagram = frame_of(&[vec![1]], 100);
        datagram.truncate(HEADER_BYTES);
        datagram.extend_from_slice(body);
        with_checksum(datagram)
    }

    #[test]
    fn the_header_is_as_it_is_drawn() {
        let datagram = frame_of(&[vec![0xaa, 0xbb]], 100);
        assert_eq!(&datagram[..6], b"KTKI\x03\x00");
        assert_eq!(&datagram[6..14], &0x1122_3344_5566_7788u64.to_le_bytes());
        assert_eq!(&datagram[14..22], &1u64.to_le_bytes());
        assert_eq!(&datagram[22..30], &2u64.to_le_bytes());
        assert_eq!(&datagram[30..38], &3u64.to_le_bytes());
        assert_eq!(&datagram[38..46], &u64::MAX.to_le_bytes());
        assert_eq!(&datagram[50..], &[2, 0xaa, 0xbb]);
    }

    /// `pitfall 64`
    #[test]
    fn every_flipped_bit_is_refused() {
        let datagram = frame_of(&[vec![1; 3], vec![2; 200], vec![3]], 1_400);
        assert!(open(&datagram).is_ok());
        for bit in 0..datagram.len() * 8 {
            let mut flipped = datagram.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&flipped).is_err(), "bit {bit}");
        }
    }

    /// `pitfall 64`
    #[test]
    fn every_shorter_datagram_is_refused() {
        let datagram = frame_of(&[vec![1; 3], vec![2; 200], vec![3]], 1_400);
        for length in 0..datagram.len() {
            assert!(open(&datagram[..length]).is_err(), "{length} bytes");
        }
        let mut longer = datagram;
        longer.push(0);
        assert_eq!(open(&longer).unwrap_err(), Refusal::Checksum);
    }

    #[test]
    fn each_refusal_names_its_reason() {
        let good = frame_of(&[vec![1]], 100);
        let changed = |at: usize, to: u8| {
            let mut datagram = good.clone();
            datagram[at] = to;
            open(&with_checksum(datagram)).unwrap_err()
        };
        assert_eq!(changed(0, b'X'), Refusal::Magic);
        assert_eq!(changed(4, 1), Refusal::Version);
        assert_eq!(changed(5, 1), Refusal::Closing);
        assert_eq!(open(&good[..49]).unwrap_err(), Refusal::TooShort);
        assert_eq!(open(&with_body(&[])).unwrap_err(), Refusal::Empty);
        assert_eq!(open(&with_body(&[0])).unwrap_err(), Refusal::Empty);
        assert_eq!(open(&with_body(&[1, 9, 0])).unwrap_err(), Refusal::Empty);
        assert_eq!(open(&with_body(&[3, 9, 9])).unwrap_err(), Refusal::TooShort);
        assert_eq!(open(&with_body(&[0x81, 0, 9])).unwrap_err(), Refusal::Varint);
        assert_eq!(
            open(&with_body(&[1, 9].repeat(PARTS_LIMIT + 1))).unwrap_err(),
            Refusal::TooMany
        );
        assert_eq!(
            open(&with_body(&[1, 9].repeat(PARTS_LIMIT))).unwrap().parts.count(),
            PARTS_LIMIT
        );
    }

    #[test]
    fn the_longest_part_fits_and_a_longer_one_does_not() {
        for capacity in (76..700).chain(16_380..16_500).chain([PATH_DATAGRAM, LOOPBACK_DATAGRAM]) {
            for closing in [Closing::Checksum, Closing::Seal] {
                let mut writer = FrameWriter::new();
                writer.begin(&header(), capacity, closing);
                let room = writer.room();
                assert!(!writer.push(&vec![1; room + 1]));
                assert!(writer.is_empty());
                assert!(writer.push(&vec![1; room]));
                let limit = part_limit(capacity);
                assert!(if closing == Closing::Seal { room == limit } else { room > limit });
                assert!(writer.take(Vec::new()).len() + closing.behind_parts() <= capacity);
            }
        }
    }

    #[test]
    fn a_full_frame_takes_no_more_parts() {
        let mut writer = FrameWriter::new();
        writer.begin(&header(), LOOPBACK_DATAGRAM, Closing::Checksum);
        for _ in 0..PARTS_LIMIT {
            assert!(writer.push(&[1]));
        }
        assert!(!writer.push(&[1]));
        assert_eq!(open(writer.finish()).unwrap().parts.count(), PARTS_LIMIT);
        writer.begin(&header(), LOOPBACK_DATAGRAM, Closing::Checksum);
        assert!(writer.is_empty() && writer.push(&[1]));
    }

    #[test]
    fn only_loopback_to_loopback_takes_long_datagrams() {
        let bytes =
            |from: &str, to: &str| datagram_bytes(from.parse().unwrap(), to.parse().unwrap());
        assert_eq!(bytes("127.0.0.1:1", "127.8.0.1:2"), LOOPBACK_DATAGRAM);
        assert_eq!(bytes("[::1]:1", "[::1]:2"), LOOPBACK_DATAGRAM);
        assert_eq!(bytes("[::ffff:127.0.0.1]:1", "127.0.0.1:2"), LOOPBACK_DATAGRAM);
        assert_eq!(bytes("127.0.0.1:1", "10.0.0.1:2"), PATH_DATAGRAM);
        assert_eq!(bytes("0.0.0.0:1", "127.0.0.1:2"), PATH_DATAGRAM);
    }

    proptest! {
        #[test]
        fn parts_come_back(
            numbers in any::<[u64; 5]>(),
            parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 1..20),
        ) {
            let header = Header {
                cluster: ClusterId(numbers[0]),
                from: Life { incarnation: Incarnation(numbers[1]), run: Run(numbers[2]) },
                to: Life { incarnation: Incarnation(numbers[3]), run: Run(numbers[4]) },
            };
            let mut writer = FrameWriter::new();
            writer.begin(&header, LOOPBACK_DATAGRAM, Closing::Checksum);
            for part in &parts {
                prop_assert!(writer.push(part));
            }
            let frame = open(writer.finish()).unwrap();
            prop_assert_eq!(frame.header, header);
            prop_assert_eq!(frame.parts.map(<[u8]>::to_vec).collect::<Vec<_>>(), parts);
        }

        #[test]
        fn any_bytes_are_taken_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = open(&bytes);
            // And the same where only the checksum is right.
            if let Ok(frame) = open(&with_body(&bytes)) {
                let taken: usize = frame.parts.map(|part| part.len() + varint_len(part.len() as u64)).sum();
                prop_assert_eq!(taken, bytes.len());
            }
        }
    }
}
