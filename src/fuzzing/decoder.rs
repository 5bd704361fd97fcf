//! The decoder: datagrams, parts, messages, operations.

use std::mem::size_of;

use bytes::Bytes;

use crate::core::membership::{Member, Membership};
use crate::core::message::{Envelope, Message};
use crate::core::types::{ClusterId, Entry, Incarnation, Life, Payload, Protocol, Run};
use crate::operation;
use crate::secret::Secrets;
use crate::wire::frame::{
    self, Closing, FrameWriter, HEADER_BYTES, Header, PARTS_LIMIT, SEALED_HEADER_BYTES,
};
use crate::wire::seal::Seal;
use crate::wire::{Part, codec, decode_part, fragment};

/// What has been decoded takes at most so many bytes of memory for each byte that
/// came: an empty entry is one byte there and `size_of::<Entry>()` here, in a list
/// that may be twice as long as it is full.
const MEMORY_A_BYTE: usize = 2 * size_of::<Entry>();
/// And so many where next to nothing came.
const MEMORY_LEAST: usize = 256;

/// Any bytes are refused, or are the one spelling of what they are decoded to, and
/// what they are decoded to takes memory in proportion to them. The bytes are
/// taken as a datagram, as one whose checksum is right, as all that stands behind a
/// good header or a good seal, as a part, and as a client's operation.
pub fn decoder(input: &[u8]) {
    opened(input);
    if input.len() >= HEADER_BYTES {
        let mut repaired = input.to_vec();
        frame::close(&mut repaired);
        opened(&repaired);
    }
    opened(&behind_a_header(input));
    unsealed(input);
    sealed(input);
    part(input);
    operation::check_one_form(input);
}

/// A datagram with a good header, these bytes behind it, and the right checksum.
pub(super) fn behind_a_header(body: &[u8]) -> Vec<u8> {
    let nobody = Envelope::ANYONE;
    let header = Header { cluster: ClusterId(7), from: nobody, to: nobody };
    let mut writer = FrameWriter::new();
    writer.begin(&header, HEADER_BYTES + 2, Closing::Checksum);
    assert!(writer.push(&[1]));
    let mut datagram = writer.finish()[..HEADER_BYTES].to_vec();
    datagram.extend_from_slice(body);
    frame::close(&mut datagram);
    datagram
}

fn secrets() -> Secrets {
    let secrets = [1, 2].map(|number| format!("{number:02x}").repeat(31) + "00");
    Secrets::parse(secrets.iter().map(String::as_str)).expect("secrets")
}

/// Nobody without the secret makes a datagram that opens, and what does not open is as it
/// was. Also where all is right but the seal.
fn unsealed(input: &[u8]) {
    let own = Life { incarnation: Incarnation(3), run: Run(4) };
    let mut seal = Seal::new(Some(&secrets()), own);
    let mut good = behind_a_seal(&[1, 1]);
    for datagram in [&mut input.to_vec(), &mut [&good[..SEALED_HEADER_BYTES], input].concat()] {
        let before = datagram.clone();
        if before != good {
            assert!(seal.open(datagram, |_| false).is_err(), "a forgery is taken");
            assert_eq!(*datagram, before, "what does not open is changed");
        }
    }
    assert!(seal.open(&mut good, |_| false).is_ok());
}

/// Behind a good seal may stand what can stand behind a good checksum.
fn sealed(input: &[u8]) {
    let own = Life { incarnation: Incarnation(3), run: Run(4) };
    let mut seal = Seal::new(Some(&secrets()), own);
    let mut datagram = behind_a_seal(input);
    let clear = behind_a_header(input);
    let expected = frame::open(&clear).map(|frame| frame.parts.collect::<Vec<_>>());
    let found = seal.open(&mut datagram, |_| false).map(|frame| frame.parts.collect::<Vec<_>>());
    assert_eq!(found, expected, "a seal changes what is sealed");
}

/// A datagram of a run that holds the secret, with these bytes behind its header.
fn behind_a_seal(body: &[u8]) -> Vec<u8> {
    let [from, to] = [1, 3].map(|n| Life { incarnation: Incarnation(n), run: Run(n + 1) });
    let mut seal = Seal::new(Some(&secrets()), from);
    let header = Header { cluster: ClusterId(7), from, to };
    let mut writer = FrameWriter::new();
    writer.begin(&header, SEALED_HEADER_BYTES + 100, Closing::Seal);
    assert!(writer.push(&[1]));
    let mut datagram = writer.take(Vec::new());
    datagram.truncate(SEALED_HEADER_BYTES);
    datagram.extend_from_slice(body);
    seal.close(&mut datagram);
    datagram
}

/// A datagram is refused, or written anew it is the same.
fn opened(datagram: &[u8]) {
    let Ok(frame) = frame::open(datagram) else { return };
    assert!((1..=PARTS_LIMIT).contains(&frame.parts.clone().count()));
    let mut writer = FrameWriter::new();
    writer.begin(&frame.header, datagram.len(), Closing::Checksum);
    for bytes in frame.parts {
        assert!(writer.push(bytes), "a part that came does not fit where it came from");
        part(bytes);
    }
    assert_eq!(writer.finish(), datagram, "a datagram has two spellings");
}

/// A part is refused, or encoded anew it is the same.
fn part(bytes: &[u8]) {
    let mut again = Vec::new();
    match decode_part(bytes) {
        Err(_) => return,
        Ok(Part::Message(message)) => {
            codec::encode_message(&message, &mut again);
            whole_message(bytes, &message);
        }
        Ok(Part::Fragment(piece)) => {
            assert!(piece.bytes.len() < bytes.len() && piece.index < piece.total_bytes);
            fragment::put_fragment(&piece, &mut again);
        }
        Ok(Part::FragmentAck(ack)) => fragment::put_ack(&ack, &mut again),
    }
    assert_eq!(again, bytes, "a part has two spellings");
}

/// What is true of a message that was decoded from these bytes.
fn whole_message(bytes: &[u8], message: &Message) {
    let shared = Bytes::copy_from_slice(bytes);
    assert_eq!(codec::decode_shared(&shared).as_ref(), Ok(message), "shared bytes say another");
    let longer = [bytes, &[0]].concat();
    assert!(codec::decode_message(&longer).is_err(), "more may stand behind a message");
    let shorter = &bytes[..bytes.len() - 1];
    assert!(codec::decode_message(shorter).is_err(), "a message need not be there to its end");
    let taken = memory_of(message);
    let limit = MEMORY_A_BYTE * bytes.len() + MEMORY_LEAST;
    assert!(taken <= limit, "{taken} bytes of memory for {} that came", bytes.len());
    operations(message).for_each(|bytes| operation::check_one_form(bytes));
}

/// The clients' bytes in a message.
fn operations(message: &Message) -> impl Iterator<Item = &Bytes> {
    let (entries, operations): (&[Entry], &[Bytes]) = match message {
        Message::AppendEntries(append) => (&append.entries, &[]),
        Message::Propose(propose) => (&[], &propose.operations),
        _ => (&[], &[]),
    };
    let of_entries = entries.iter().filter_map(|entry| match &entry.payload {
        Payload::Client(bytes) => Some(bytes),
        Payload::Protocol(Protocol::Empty)
        | Payload::Protocol(Protocol::Members(_))
        | Payload::Protocol(Protocol::Verdict(_)) => None,
    });
    of_entries.chain(operations)
}

/// How much memory a message holds beside itself. The clients' bytes in it share
/// one copy of what came.
fn memory_of(message: &Message) -> usize {
    let memory_of_members = |members: &Membership| {
        let names: usize = members.members.iter().map(|member| member.name.capacity()).sum();
        names + size_of::<Membership>() + members.members.capacity() * size_of::<Member>()
    };
    match message {
        Message::Hello(hello) => hello.name.capacity(),
        Message::Found(found) => memory_of_members(&found.members),
        Message::AppendEntries(append) => {
            let members = append.entries.iter().map(|entry| match &entry.payload {
                Payload::Protocol(Protocol::Members(members)) => memory_of_members(members),
                Payload::Protocol(Protocol::Empty)
                | Payload::Client(_)
                | Payload::Protocol(Protocol::Verdict(_)) => 0,
            });
            append.entries.capacity() * size_of::<Entry>() + members.sum::<usize>()
        }
        Message::Propose(propose) => propose.operations.capacity() * size_of::<Bytes>(),
        _ => 0,
    }
}
