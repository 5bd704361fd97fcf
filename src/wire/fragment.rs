//! Messages longer than a datagram.
//!
//! Raft's own messages are sent again as a whole when they are lost. For one of
//! a thousand datagrams that never ends: with one datagram in a hundred lost,
//! none of its sendings arrives whole. So a long message goes in fragments, each
//! of which is acknowledged, and only those that are lost are sent again.
//!
//! ```text
//!   fragment          1 kind 0x40, n message id, n total bytes, n fragment bytes,
//!                     n index, then the bytes of the fragment up to the part's end
//!   acknowledgement   1 kind 0x41, n message id, n number, n prefix,
//!                     then 0 to 16 bytes of bits up to the part's end
//! ```
//!
//! `n` is a varint. The id counts the long messages of the sender's run. All
//! fragments of a message have `fragment bytes` bytes, but the last, which has
//! what is left; so how many there are and where each belongs follows from any
//! of them. An acknowledgement says all that is held of the message: the first
//! `prefix` fragments, and of the 128 behind the missing one those whose bit is
//! set (bit 0 of the first byte is fragment `prefix + 1`; the last byte is not
//! zero). `number` rises with each acknowledgement of a run: the newest one is
//! the truth, even if it takes back what an older one said, for a receiver that
//! had to make room has forgotten a message and says so.
//!
//! `Outgoing` sends, `Incoming` receives; there is one of each for each run of a
//! peer. Both are bounded in messages, bytes and age, whatever the other side
//! does (`pitfall 65`).

mod incoming;
mod outgoing;
#[cfg(test)]
mod tests;

pub use incoming::Incoming;
pub use outgoing::Outgoing;

use super::Refusal;
use crate::encoding::cursor::{Cursor, put_varint};

/// The kind byte of a fragment. Messages have the smaller ones.
pub const KIND_FRAGMENT: u8 = 0x40;
/// The kind byte of an acknowledgement of fragments.
pub const KIND_FRAGMENT_ACK: u8 = 0x41;

/// Fragments, the last one of a message excepted, have so many bytes or more, so
/// that what is kept beside each is small against it.
pub const FRAGMENT_LEAST_BYTES: usize = 256;
/// So far behind the first missing fragment are others sent and kept: as far as
/// the bits of an acknowledgement reach.
const AHEAD_LIMIT: u64 = 128;

/// One fragment, as it is after decoding: its length and its place fit the
/// message that it says it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment<'a> {
    /// Which long message of the sender's run this is.
    pub id: u64,
    /// How long the whole message is, 1 or more.
    pub total_bytes: u64,
    /// How long each fragment but the last is.
    pub fragment_bytes: u64,
    /// Which fragment this is, from 0.
    pub index: u64,
    /// Its bytes.
    pub bytes: &'a [u8],
}

impl Fragment<'_> {
    /// How many fragments the message has.
    fn count(&self) -> u64 {
        self.total_bytes.div_ceil(self.fragment_bytes)
    }
}

/// All that a receiver holds of a long message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentAck {
    /// Which long message of the addressee's run is meant.
    pub id: u64,
    /// Which acknowledgement of the sender's run this is; the newest counts.
    pub number: u64,
    /// So many fragments from the first on are there.
    pub prefix: u64,
    /// Bit `i` is set if fragment `prefix + 1 + i` is there.
    pub following: u128,
}

/// Appends the fragment, kind byte and all.
pub fn put_fragment(fragment: &Fragment<'_>, out: &mut Vec<u8>) {
    out.push(KIND_FRAGMENT);
    let place = [fragment.id, fragment.total_bytes, fragment.fragment_bytes, fragment.index];
    for number in place {
        put_varint(out, number);
    }
    out.extend_from_slice(fragment.bytes);
}

/// Decodes a part that is a fragment.
pub fn decode_fragment(part: &[u8]) -> Result<Fragment<'_>, Refusal> {
    let mut cursor = Cursor::over(part);
    if cursor.u8()? != KIND_FRAGMENT {
        return Err(Refusal::Kind);
    }
    let fragment = Fragment {
        id: cursor.varint()?,
        total_bytes: cursor.varint()?,
        fragment_bytes: cursor.varint()?,
        index: cursor.varint()?,
        bytes: cursor.rest(),
    };
    if fragment.fragment_bytes < FRAGMENT_LEAST_BYTES as u64 || fragment.index >= fragment.count() {
        return Err(Refusal::Malformed);
    }
    let before = fragment.index * fragment.fragment_bytes;
    let length = fragment.fragment_bytes.min(fragment.total_bytes - before);
    if fragment.bytes.len() as u64 != length {
        return Err(Refusal::Malformed);
    }
    Ok(fragment)
}

/// Appends the acknowledgement, kind byte and all.
pub fn put_ack(ack: &FragmentAck, out: &mut Vec<u8>) {
    out.push(KIND_FRAGMENT_ACK);
    for number in [ack.id, ack.number, ack.prefix] {
        put_varint(out, number);
    }
    let zeros = (ack.following.leading_zeros() / 8) as usize;
    out.extend_from_slice(&ack.following.to_le_bytes()[..16 - zeros]);
}

/// Decodes a part that is an acknowledgement of fragments.
pub fn decode_ack(part: &[u8]) -> Result<FragmentAck, Refusal> {
    let mut cursor = Cursor::over(part);
    if cursor.u8()? != KIND_FRAGMENT_ACK {
        return Err(Refusal::Kind);
    }
    let (id, number, prefix) = (cursor.varint()?, cursor.varint()?, cursor.varint()?);
    let bits = cursor.rest();
    if bits.len() > 16 {
        return Err(Refusal::Trailing);
    }
    if bits.last() == Some(&0) {
        return Err(Refusal::Malformed);
    }
    let mut following = [0; 16];
    following[..bits.len()].copy_from_slice(bits);
    Ok(FragmentAck { id, number, prefix, following: u128::from_le_bytes(following) })
}
