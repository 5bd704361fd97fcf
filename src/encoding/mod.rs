//! Bytes that may say anything, and what datagrams, the log on disk and snapshots
//! have in common.
//!
//! - `cursor` reads, never past the end, and writes varints.
//! - `entry` has an entry of the log and the members as bytes.
//! - `snapshot` has a snapshot as it travels and as it stands on the disk.
//!
//! Bytes from outside are never believed: what does not decode ends as a `Refusal`;
//! no bytes make a decoder panic or allocate beyond a small multiple of their own
//! number. Each value has exactly one spelling.

pub mod cursor;
pub mod entry;
pub mod snapshot;

/// Why bytes were not taken. Each reason is counted by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// The bytes end before what they announce.
    TooShort,
    /// The datagram does not begin as ours do.
    Magic,
    /// A format version that this build does not speak.
    Version,
    /// It is not closed as this node closes its own: a checksum where a seal must be, or
    /// a seal where there is no secret.
    Closing,
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
    /// Sealed by a secret that this node does not have.
    Secret,
    /// Not sealed by whom it says: the seal is broken.
    Forged,
    /// Sealed by whom it says, and taken before.
    Replayed,
    /// Sealed for another node.
    Addressee,
}

impl Refusal {
    /// Every reason, in the order of their numbers (`refusal as usize`).
    pub const ALL: [Refusal; 16] = [
        Refusal::TooShort,
        Refusal::Magic,
        Refusal::Version,
        Refusal::Closing,
        Refusal::Checksum,
        Refusal::Empty,
        Refusal::Kind,
        Refusal::Varint,
        Refusal::Malformed,
        Refusal::TooMany,
        Refusal::TooLarge,
        Refusal::Trailing,
        Refusal::Secret,
        Refusal::Forged,
        Refusal::Replayed,
        Refusal::Addressee,
    ];

    /// The name to count it by.
    pub fn name(self) -> &'static str {
        match self {
            Refusal::TooShort => "too_short",
            Refusal::Magic => "magic",
            Refusal::Version => "version",
            Refusal::Closing => "closing",
            Refusal::Checksum => "checksum",
            Refusal::Empty => "empty",
            Refusal::Kind => "kind",
            Refusal::Varint => "varint",
            Refusal::Malformed => "malformed",
            Refusal::TooMany => "too_many",
            Refusal::TooLarge => "too_large",
            Refusal::Trailing => "trailing",
            Refusal::Secret => "secret",
            Refusal::Forged => "forged",
            Refusal::Replayed => "replayed",
            Refusal::Addressee => "addressee",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_number_and_a_name_of_its_own() {
        for (number, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusal as usize, number);
            let same = Refusal::ALL.iter().filter(|other| other.name() == refusal.name());
            assert_eq!(same.count(), 1, "{refusal:?}");
        }
    }
}
