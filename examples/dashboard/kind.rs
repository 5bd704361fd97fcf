//! What a datagram carries, for the colour that it has on the page.
//!
//! A datagram is a header and parts, and a part begins with the kind of its message: as drawn
//! at the heads of the library's `src/wire/frame.rs` and `src/wire/codec.rs`. A version that is
//! not known here, or a datagram that is sealed, is of the kind `Other`: who has no secret sees
//! nothing in a seal. The nodes of this program have none, so theirs can be read.

/// Groups of messages, in the order in which one that carries several is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Votes and pre-votes, asked for and given.
    Vote,
    /// Entries, commits and snapshots, and their acknowledgements.
    Entries,
    /// Operations on their way to the leader, and reads.
    Request,
    /// That a leader lives, and its echo.
    Heartbeat,
    /// Who is who, and the pieces of what is too long for one datagram.
    Other,
}

impl Kind {
    /// As the page knows it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Vote => "vote",
            Kind::Entries => "entries",
            Kind::Request => "request",
            Kind::Heartbeat => "heartbeat",
            Kind::Other => "other",
        }
    }
}

const HEADER_BYTES: usize = 50;
/// Magic, version, and the seal of a datagram that is not encrypted.
const HEAD: [u8; 6] = *b"KTKI\x03\x00";

/// The first kind of all that the datagram carries.
pub fn of(datagram: &[u8]) -> Kind {
    let mut found = Kind::Other;
    let mut rest = match datagram.get(HEADER_BYTES..) {
        Some(parts) if datagram.starts_with(&HEAD) => parts,
        _ => return found,
    };
    while let Some((part, behind)) = take_part(rest) {
        found = found.min(part.first().map_or(Kind::Other, |kind| of_message(*kind)));
        rest = behind;
    }
    found
}

fn of_message(kind: u8) -> Kind {
    match kind {
        3..=6 | 17 => Kind::Vote,
        7 | 8 | 11 | 15 | 16 => Kind::Entries,
        9 | 10 => Kind::Heartbeat,
        12..=14 | 19 | 20 => Kind::Request,
        _ => Kind::Other,
    }
}

/// A part and what is behind it: its length, seven bits a byte, then so many bytes.
fn take_part(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut length = 0;
    for (place, byte) in bytes.iter().take(3).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return bytes[place + 1..].split_at_checked(length);
        }
    }
    None
}
