//! A client's operation, as bytes: what an entry of the log carries for clients.
//! The core carries these bytes and does not look inside; they are the same on
//! the wire, in the log and on the disk.
//!
//! ```text
//! open     1 | incarnation, 8 bytes | run, 8 bytes
//! command  2 | session | seq | seq - floor | JSON, to the end
//!          3 | session | seq | seq - floor | length of id | id | JSON, to the end
//! renew    4 | session | floor
//! ```
//!
//! The first byte is the kind. Numbers of 8 bytes are little endian; all others
//! are varints (`encoding::cursor`). A command states its floor as the
//! distance below its own number, so that a floor above it cannot be written. An
//! id is 1 to 256 bytes of UTF-8, and the JSON is UTF-8 and not empty; whether it
//! is JSON is checked where it comes in, not again at each node.
//!
//! Each operation has exactly one form in bytes, and bytes that are not that form
//! are no operation: `decode` gives `None` for them, never a panic. As the bytes
//! are in the log, every node finds the same.

use std::ops::Range;

use bytes::Bytes;

use crate::core::types::{Incarnation, Index, Run};
use crate::encoding::cursor::{VARINT_LIMIT_BYTES, each_varint_byte, put_varint, take_varint};
use crate::request::Draft;

/// A caller's id is at most so many bytes long, and at least one.
pub(crate) const ID_LIMIT_BYTES: usize = 256;

const OPEN: u8 = 1;
const COMMAND: u8 = 2;
const COMMAND_WITH_ID: u8 = 3;
const RENEW: u8 = 4;

/// A kind and three numbers.
const HEAD_LIMIT: usize = 1 + 3 * VARINT_LIMIT_BYTES;

/// What a client's entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operation<'a> {
    /// Opens a session for a run of a node; the entry's index is its id.
    Open {
        /// The node's log.
        incarnation: Incarnation,
        /// The node's run.
        run: Run,
    },
    /// Asks for a value to be committed, once.
    Command(Command<'a>),
    /// Keeps a session alive and raises its floor.
    Renew {
        /// The session.
        session: Index,
        /// All of the session's numbers below are settled.
        floor: u64,
    },
}

/// A command: a value to be committed, once in its session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Command<'a> {
    /// The session in which it is numbered.
    pub session: Index,
    /// Its number there.
    pub seq: u64,
    /// All of the session's numbers below are settled; at most `seq`.
    pub floor: u64,
    /// The caller's own id.
    pub id: Option<&'a str>,
    /// Where the id stands in the bytes; empty without one.
    pub id_range: Range<usize>,
    /// Where the JSON stands in the bytes.
    pub json_range: Range<usize>,
}

impl Operation<'_> {
    /// Reads an operation; `None` if the bytes are none.
    pub fn decode(bytes: &[u8]) -> Option<Operation<'_>> {
        let (&kind, mut rest) = bytes.split_first()?;
        match kind {
            OPEN => open_body(rest).map(|(incarnation, run)| Operation::Open { incarnation, run }),
            COMMAND | COMMAND_WITH_ID => command_body(bytes).map(Operation::Command),
            RENEW => {
                let session = Index(take_varint(&mut rest).ok()?);
                let floor = take_varint(&mut rest).ok()?;
                let exact = rest.is_empty();
                exact.then_some(Operation::Renew { session, floor })
            }
            _ => None,
        }
    }
}

/// The session and number of a command; `None` for all else. Looks only at the
/// head, so it may give an answer for bytes that are no operation.
pub(crate) fn session_and_seq(bytes: &[u8]) -> Option<(Index, u64)> {
    let (&kind, mut rest) = bytes.split_first()?;
    if kind != COMMAND && kind != COMMAND_WITH_ID {
        return None;
    }
    let session = Index(take_varint(&mut rest).ok()?);
    Some((session, take_varint(&mut rest).ok()?))
}

#[cfg(test)]
/// The life for which these bytes open a session; `None` for all else.
pub(crate) fn opened_by(bytes: &[u8]) -> Option<(Incarnation, Run)> {
    let (&kind, rest) = bytes.split_first()?;
    if kind == OPEN { open_body(rest) } else { None }
}

/// The operation that opens a session.
pub(crate) fn open(incarnation: Incarnation, run: Run) -> Bytes {
    assert!(
        incarnation.0 != 0 && run.0 != 0,
        "a session is opened by a life, not by {incarnation} in run {}",
        run.0
    );
    let mut bytes = Vec::with_capacity(17);
    bytes.push(OPEN);
    bytes.extend_from_slice(&incarnation.0.to_le_bytes());
    bytes.extend_from_slice(&run.0.to_le_bytes());
    Bytes::from(bytes)
}

/// The operation that keeps a session alive and raises its floor.
pub(crate) fn renew(session: Index, floor: u64) -> Bytes {
    let head = Head::new(RENEW).number(session.0).number(floor);
    Bytes::copy_from_slice(head.bytes())
}

/// A command. Without an id the value is not copied.
pub(crate) fn command(
    draft: Draft,
    id: Option<&str>,
    session: Index,
    seq: u64,
    floor: u64,
) -> Bytes {
    assert!(!draft.json().is_empty(), "a command has no value");
    assert!(floor <= seq, "floor {floor} lies above the command's own number {seq}");
    let kind = if id.is_some() { COMMAND_WITH_ID } else { COMMAND };
    let head = Head::new(kind).number(session.0).number(seq).number(seq - floor);
    let Some(id) = id else { return draft.behind(head.bytes()) };
    assert!((1..=ID_LIMIT_BYTES).contains(&id.len()), "an id of {} bytes was let in", id.len());
    let mut bytes = Vec::with_capacity(head.len + 2 + id.len() + draft.json().len());
    bytes.extend_from_slice(head.bytes());
    put_varint(&mut bytes, id.len() as u64);
    bytes.extend_from_slice(id.as_bytes());
    bytes.extend_from_slice(draft.json());
    Bytes::from(bytes)
}

/// What stands before a command's id and JSON, while it is put together.
struct Head {
    room: [u8; HEAD_LIMIT],
    len: usize,
}

impl Head {
    fn new(kind: u8) -> Head {
        let mut head = Head { room: [0; HEAD_LIMIT], len: 0 };
        head.push(kind);
        head
    }

    fn push(&mut self, byte: u8) {
        self.room[self.len] = byte;
        self.len += 1;
    }

    fn number(mut self, number: u64) -> Head {
        each_varint_byte(number, |byte| self.push(byte));
        self
    }

    fn bytes(&self) -> &[u8] {
        &self.room[..self.len]
    }
}

fn open_body(rest: &[u8]) -> Option<(Incarnation, Run)> {
    let (incarnation, run) = rest.split_first_chunk::<8>()?;
    let run: &[u8; 8] = run.try_into().ok()?;
    let life = (Incarnation(u64::from_le_bytes(*incarnation)), Run(u64::from_le_bytes(*run)));
    (life.0.0 != 0 && life.1.0 != 0).then_some(life)
}

fn command_body(bytes: &[u8]) -> Option<Command<'_>> {
    let (&kind, mut rest) = bytes.split_first()?;
    let session = Index(take_varint(&mut rest).ok()?);
    let seq = take_varint(&mut rest).ok()?;
    let floor = seq.checked_sub(take_varint(&mut rest).ok()?)?;
    let mut id = None;
    let mut id_range = 0..0;
    if kind == COMMAND_WITH_ID {
        let length = usize::try_from(take_varint(&mut rest).ok()?).ok()?;
        if !(1..=ID_LIMIT_BYTES).contains(&length) {
            return None;
        }
        let start = bytes.len() - rest.len();
        let (found, json) = rest.split_at_checked(length)?;
        id = Some(std::str::from_utf8(found).ok()?);
        id_range = start..start + length;
        rest = json;
    }
    // Most is ASCII, and that is found out in a fraction of the time.
    if rest.is_empty() || !(rest.is_ascii() || std::str::from_utf8(rest).is_ok()) {
        return None;
    }
    let json_range = bytes.len() - rest.len()..bytes.len();
    Some(Command { session, seq, floor, id, id_range, json_range })
}

/// Whatever these bytes are, they are no operation or the one form of what they say.
#[cfg(any(test, fuzzing))]
pub(crate) fn check_one_form(bytes: &[u8]) {
    let session_and_seq = session_and_seq(bytes);
    let again = match Operation::decode(bytes) {
        None => return,
        Some(Operation::Open { incarnation, run }) => open(incarnation, run),
        Some(Operation::Renew { session, floor }) => renew(session, floor),
        Some(Operation::Command(found)) => {
            assert_eq!(session_and_seq, Some((found.session, found.seq)));
            assert_eq!(found.id.map(str::as_bytes).unwrap_or_default(), &bytes[found.id_range]);
            let draft = Draft::new(&bytes[found.json_range]);
            command(draft, found.id, found.session, found.seq, found.floor)
        }
    };
    assert_eq!(&again[..], bytes, "an operation has two forms");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn draft(json: &str) -> Draft {
        Draft::new(json.as_bytes())
    }

    fn decoded(bytes: &[u8]) -> Command<'_> {
        match Operation::decode(bytes) {
            Some(Operation::Command(command)) => command,
            other => panic!("no command: {other:?}"),
        }
    }

    #[test]
    fn the_bytes_are_as_drawn() {
        assert_eq!(
            open(Incarnation(0x0102), Run(3))[..],
            [1, 2, 1, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]
        );
        assert_eq!(command(draft("7"), None, Index(300), 9, 4)[..], [2, 0xac, 0x02, 9, 5, b'7']);
        assert_eq!(
            command(draft("7"), Some("ab"), Index(1), 0, 0)[..],
            [3, 1, 0, 0, 2, b'a', b'b', b'7']
        );
        assert_eq!(renew(Index(5), 128)[..], [4, 5, 0x80, 1]);
    }

    #[test]
    fn what_is_not_the_one_form_is_no_operation() {
        let cases: [(&str, &[u8]); 17] = [
            ("nothing", &[]),
            ("kind 0", &[0]),
            ("an unknown kind", &[5, 1, 1]),
            ("half an open", &[1, 1, 0, 0, 0, 0, 0, 0, 0, 1]),
            ("a long open", &[1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
            ("an open by nobody", &[1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]),
            ("an open in no run", &[1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            ("a command without a value", &[2, 1, 1, 0]),
            ("a floor below 0", &[2, 1, 1, 2, b'7']),
            ("a value that is no UTF-8", &[2, 1, 1, 0, 0xff]),
            ("an empty id", &[3, 1, 1, 0, 0, b'7']),
            ("an id that is no UTF-8", &[3, 1, 1, 0, 1, 0xff, b'7']),
            ("an id beyond the end", &[3, 1, 1, 0, 9, b'a', b'7']),
            ("a renewal with more behind it", &[4, 1, 1, 0]),
            ("a number in two bytes that fits one", &[4, 0x81, 0, 1]),
            (
                "a number of 65 bits",
                &[4, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 1],
            ),
            ("a number that does not end", &[4, 0xff, 0xff]),
        ];
        for (what, bytes) in cases {
            assert_eq!(Operation::decode(bytes), None, "{what}");
        }
        let long = "x".repeat(ID_LIMIT_BYTES);
        let bytes = command(draft("7"), Some(&long), Index(1), 1, 1);
        assert_eq!(decoded(&bytes).id, Some(&long[..]));
        let mut longer = vec![3, 1, 1, 0, 0x81, 0x02];
        longer.extend_from_slice(&[b'x'; 258]);
        assert_eq!(Operation::decode(&longer), None, "an id of 257 bytes");
    }

    #[test]
    #[should_panic(expected = "floor 2 lies above")]
    fn a_floor_above_the_number_is_our_bug() {
        command(draft("7"), None, Index(1), 1, 2);
    }

    /// Numbers of every length in bytes.
    fn number() -> impl Strategy<Value = u64> {
        (any::<u64>(), 0..64u32).prop_map(|(number, shift)| number >> shift)
    }

    proptest! {
        #[test]
        fn commands_come_back(
            session in number(), seq in number(), below in number(),
            id in proptest::option::of("\\PC{1,64}"), json in "\\PC{1,80}",
        ) {
            let floor = seq.saturating_sub(below);
            let bytes = command(draft(&json), id.as_deref(), Index(session), seq, floor);
            let found = decoded(&bytes);
            prop_assert_eq!((found.session, found.seq, found.floor), (Index(session), seq, floor));
            prop_assert_eq!(found.id, id.as_deref());
            prop_assert_eq!(&bytes[found.id_range], id.as_deref().unwrap_or_default().as_bytes());
            prop_assert_eq!(&bytes[found.json_range], json.as_bytes());
            prop_assert_eq!(session_and_seq(&bytes), Some((Index(session), seq)));
            prop_assert_eq!(opened_by(&bytes), None);
        }

        #[test]
        fn opens_and_renewals_come_back(a in 1..=u64::MAX, b in 1..=u64::MAX, c in number(), d in number()) {
            let (incarnation, run, session) = (Incarnation(a), Run(b), Index(c));
            let opening = open(incarnation, run);
            prop_assert_eq!(Operation::decode(&opening), Some(Operation::Open { incarnation, run }));
            prop_assert_eq!(opened_by(&opening), Some((incarnation, run)));
            prop_assert_eq!(session_and_seq(&opening), None);
            let renewal = renew(session, d);
            prop_assert_eq!(Operation::decode(&renewal), Some(Operation::Renew { session, floor: d }));
            prop_assert_eq!(session_and_seq(&renewal), None);
        }

        /// Any bytes: no panic, and what decodes is the one form of what it says.
        #[test]
        fn any_bytes_are_one_form_or_nothing(
            kind in 0..6u8, tail in proptest::collection::vec(prop_oneof![0..4u8, any::<u8>()], 0..40),
        ) {
            let mut bytes = vec![kind];
            bytes.extend(tail);
            let _ = opened_by(&bytes);
            check_one_form(&bytes);
        }

        #[test]
        fn truncated_operations_do_not_panic(json in "\\PC{1,9}", cut in 0..60usize) {
            let bytes = command(draft(&json), Some("order-17"), Index(1 << 40), 1 << 20, 9);
            let _ = Operation::decode(&bytes[..cut.min(bytes.len())]);
        }
    }
}
