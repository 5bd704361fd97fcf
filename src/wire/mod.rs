//! What passes between nodes, as bytes.
//!
//! ```text
//!   Message ─► codec ─┬─ fits ─────────────────────► frame ─► seal ─► udp ─► the other node
//!                     └─ too long ─► fragment ─────►
//!
//!   datagram ─► seal ─► frame ─► part ─► decode_part ─┬─ a message ────────────► core
//!                                                     ├─ a fragment ─► Incoming ─► whole message ─► core
//!                                                     └─ fragments have arrived ─► Outgoing
//! ```
//!
//! - `codec` turns a message into a kind byte and a body, and back.
//! - `frame` puts parts into one datagram under one header.
//! - `seal` closes a frame so that only who belongs can have made it; without a secret, by
//!   a checksum.
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
pub mod fragment;
pub mod frame;
pub mod seal;
pub mod udp;

use crate::core::message::Message;

use self::fragment::{Fragment, FragmentAck};

pub use crate::encoding::Refusal;

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

    proptest! {
        #[test]
        fn any_part_is_taken_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode_part(&bytes);
        }
    }
}
