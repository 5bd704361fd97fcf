//! What passes between nodes, as bytes.
//!
//! ```text
//!   Message ─► codec ─┬─ fits ─────────────────────► frame ─► udp ─► the other node
//!                     └─ too long ─► fragment ─────►
//!
//!   datagram ─► frame::open ─► part ─► decode_part ─┬─ a message ────────────► core
//!                                                   ├─ a fragment ─► Incoming ─► whole message ─► core
//!                                                   └─ fragments have arrived ─► Outgoing
//! ```
//!
//! - `cursor` reads bytes that may say anything, and writes varints.
//! - `codec` turns a message into a kind byte and a body, and back.
//! - `frame` puts parts into one datagram under one header and one checksum.
//! - `fragment` carries a message that is longer than a datagram.
//! - `udp` makes the socket and says what a failed send means: a lost datagram.
//!
//! All but `udp` is pure: no socket, no clock, no chance. Times come in as
//! values, and what should be sent goes out as bytes.
//!
//! Bytes from outside are never believed (`pitfall 64`). What does not open or
//! decode ends as a `Refusal`, which is counted and answered by nothing; no
//! bytes make a decoder panic or allocate beyond a small multiple of their own
//! number. Each message has exactly one spelling: numbers are as short as they
//! can be, unused bits are zero and nothing follows the end.

pub mod codec;
mod cursor;
pub mod fragment;
pub mod frame;
pub mod udp;

use crate::core::message::Message;

use self::fragment::{Fragment, FragmentAck};

/// Why bytes were not taken. Each reason is counted by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// The bytes end before what they announce.
    TooShort,
    /// The datagram does not begin as ours do.
    Magic,
    /// A format version that this build does not speak.
    Version,
    /// A way of sealing that this build does not speak.
    Seal,
    /// The checksum is not that of the bytes.
    Checksum,
    /// A frame without a part, or a part without a byte.
    Empty,
    /// A kind byte that stands for nothing.
    Kind,
    /// A number that is not spelled as we spell it, or does not fit in 64 bits.
    Varint,
    /// A value that can not stand where it stands.
    Malformed,
    /// More parts, members, entries or operations than are taken at once.
    TooMany,
    /// A fragment of a message that is longer than is taken.
    TooLarge,
    /// Bytes follow where the message ends.
    Trailing,
}

impl Refusal {
    /// Every reason, in the order of their numbers (`refusal as usize`).
    pub const ALL: [Refusal; 12] = [
        Refusal::TooShort,
        Refusal::Magic,
        Refusal::Version,
        Refusal::Seal,
        Refusal::Checksum,
        Refusal::Empty,
        Refusal::Kind,
        Refusal::Varint,
        Refusal::Malformed,
        Refusal::TooMany,
        Refusal::TooLarge,
        Refusal::Trailing,
    ];

    /// The name to count it by.
    pub fn name(self) -> &'static str {
        match self {
            Refusal::TooShort => "too_short",
            Refusal::Magic => "magic",
            Refusal::Version => "version",
            Refusal::Seal => "seal",
            Refusal::Checksum => "checksum",
            Refusal::Empty => "empty",
            Refusal::Kind => "kind",
            Refusal::Varint => "varint",
            Refusal::Malformed => "malformed",
            Refusal::TooMany => "too_many",
            Refusal::TooLarge => "too_large",
            Refusal::Trailing => "trailing",
        }
    }
}

/// One part of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// A message, whole.
    Message(Message),
    /// A piece of a message that is longer than a datagram.
    Fragment(Fragment<'a>),
    /// Which pieces of a long message have arrived.
    FragmentAck(FragmentAck),
}

/// What a part of a frame says. A message with clients' bytes costs one copy of
/// the part, which all of them share; any other message copies nothing.
pub fn decode_part(part: &[u8]) -> Result<Part<'_>, Refusal> {
    match *part.first().ok_or(Refusal::Empty)? {
        fragment::KIND_FRAGMENT => fragment::decode_fragment(part).map(Part::Fragment),
        fragment::KIND_FRAGMENT_ACK => fragment::decode_ack(part).map(Part::FragmentAck),
        _ => codec::decode_message(part).map(Part::Message),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_reason_has_its_number_and_a_name_of_its_own() {
        for (number, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusal as usize, number);
            let same = Refusal::ALL.iter().filter(|other| other.name() == refusal.name());
            assert_eq!(same.count(), 1, "{refusal:?}");
        }
    }

    proptest! {
        #[test]
        fn any_part_is_taken_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode_part(&bytes);
        }
    }
}
