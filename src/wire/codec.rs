//! Messages as bytes: a kind byte and a body.
//!
//! `n` is a varint (`cursor`); a figure is a field of so many bytes, little
//! endian where it is a number. Random numbers have eight bytes, for a varint
//! would need ten; what counts up is a varint.
//!
//! ```text
//!    1  Hello               1 fresh, 8 ask, 8 echo, name
//!    2  Found               membership
//!    3  PreVote             n round, n term, n last_log_index, n last_log_term
//!    4  PreVoteReply        n round, n term, 1 granted
//!    5  RequestVote         n term, n last_log_index, n last_log_term
//!    6  RequestVoteReply    n term, 1 granted
//!    7  AppendEntries       n term, n seq, n prev_log_index, n prev_log_term,
//!                           n leader_commit, n count, then each entry
//!    8  AppendEntriesReply  n term, n seq, 1 outcome:
//!                             0  Matched    n index
//!                             1  Mismatch   n prev_log_index, n hint_index, n hint_term
//!                             2  Stale
//!    9  Heartbeat           n term, n seq, n leader_commit, n quorum_age_us
//!   10  HeartbeatReply      n term, n seq, n matched, n verified
//!   11  Commit              n term, n leader_commit
//!   12  ReadIndex           n id
//!   13  ReadIndexReply      n id, n index
//!   14  Propose             1 retry, n count, then each operation: n length, bytes
//!
//!   entry        1 head: bits 0 and 1 the payload, bit 2: a term follows
//!                n term, only with bit 2; else it is that of the entry before,
//!                  for the first one that of the message
//!                payload 0  Empty
//!                        1  Members  membership
//!                        2  Client   n length, bytes
//!   membership   8 cluster, n count, then each member, in order
//!   member       1 head: bit 0 votes, bit 1 IPv6, bit 2 has an incarnation
//!                name
//!                4 address, 2 port; with IPv6: 16 address, 2 port, n flow, n scope
//!                8 incarnation, only with bit 2, never 0
//!   name         1 length (1 to 64), UTF-8
//! ```
//!
//! So an entry of a leader's own term costs its payload, a head and a length.
//!
//! What is decoded has the shape of its type and no more: a name is a name and
//! members are in order, but terms and indexes are whatever the sender says.
//! The core judges those. A decoded operation is a slice of the bytes it came
//! in: those of one message share one allocation.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use bytes::Bytes;

use crate::core::membership::{MEMBERS_LIMIT, Member, Membership};
use crate::core::message::{
    AppendEntries, AppendEntriesReply, AppendOutcome, Commit, Found, Heartbeat, HeartbeatReply,
    Hello, Message, PreVote, PreVoteReply, Propose, ReadIndex, ReadIndexReply, RequestVote,
    RequestVoteReply,
};
use crate::core::types::{ClusterId, Entry, Incarnation, Index, Payload, Term};

use super::Refusal;
use super::cursor::{Cursor, put_varint};
#[cfg(test)]
use super::cursor::{VARINT_LIMIT_BYTES, varint_len};

/// A member's name has at most so many bytes, and at least one.
pub const NAME_LIMIT_BYTES: usize = 64;
/// A message has at most so many entries or operations. That is more than fit
/// in a datagram, and keeps a long message of empty entries, which take a byte
/// on the wire and 48 in memory, from growing without bound.
pub const ENTRIES_LIMIT: usize = 65_536;
/// Room for so many entries or operations is made because a message announces
/// them; for more, as they turn up.
const BELIEVED_COUNT: usize = 1_024;
#[cfg(test)]
/// An `AppendEntries` without its entries takes at most so many bytes.
pub const APPEND_LIMIT_BYTES: usize = 1 + 6 * VARINT_LIMIT_BYTES;

const KIND_HELLO: u8 = 1;
const KIND_FOUND: u8 = 2;
const KIND_PRE_VOTE: u8 = 3;
const KIND_PRE_VOTE_REPLY: u8 = 4;
const KIND_REQUEST_VOTE: u8 = 5;
const KIND_REQUEST_VOTE_REPLY: u8 = 6;
const KIND_APPEND_ENTRIES: u8 = 7;
const KIND_APPEND_ENTRIES_REPLY: u8 = 8;
const KIND_HEARTBEAT: u8 = 9;
const KIND_HEARTBEAT_REPLY: u8 = 10;
const KIND_COMMIT: u8 = 11;
const KIND_READ_INDEX: u8 = 12;
const KIND_READ_INDEX_REPLY: u8 = 13;
const KIND_PROPOSE: u8 = 14;

const OUTCOME_MATCHED: u8 = 0;
const OUTCOME_MISMATCH: u8 = 1;
const OUTCOME_STALE: u8 = 2;

const PAYLOAD_EMPTY: u8 = 0;
const PAYLOAD_MEMBERS: u8 = 1;
const PAYLOAD_CLIENT: u8 = 2;
const PAYLOAD_BITS: u8 = 0b011;
const ENTRY_HAS_TERM: u8 = 0b100;

const MEMBER_VOTES: u8 = 0b001;
const MEMBER_IPV6: u8 = 0b010;
const MEMBER_HAS_INCARNATION: u8 = 0b100;

/// Appends the message, kind byte and body. It panics on what no node would
/// take: a name or a number of things beyond its limit, members out of order.
pub fn encode_message(message: &Message, out: &mut Vec<u8>) {
    match message {
        Message::Hello(hello) => {
            out.extend_from_slice(&[KIND_HELLO, u8::from(hello.fresh)]);
            out.extend_from_slice(&hello.ask.to_le_bytes());
            out.extend_from_slice(&hello.echo.to_le_bytes());
            put_name(&hello.name, out);
        }
        Message::Found(found) => {
            out.push(KIND_FOUND);
            put_membership(&found.members, out);
        }
        Message::PreVote(ask) => put_numbers(
            KIND_PRE_VOTE,
            [ask.round, ask.term.0, ask.last_log_index.0, ask.last_log_term.0],
            out,
        ),
        Message::PreVoteReply(reply) => {
            put_numbers(KIND_PRE_VOTE_REPLY, [reply.round, reply.term.0], out);
            out.push(u8::from(reply.granted));
        }
        Message::RequestVote(ask) => put_numbers(
            KIND_REQUEST_VOTE,
            [ask.term.0, ask.last_log_index.0, ask.last_log_term.0],
            out,
        ),
        Message::RequestVoteReply(reply) => {
            put_numbers(KIND_REQUEST_VOTE_REPLY, [reply.term.0], out);
            out.push(u8::from(reply.granted));
        }
        Message::AppendEntries(append) => put_append_entries(append, out),
        Message::AppendEntriesReply(reply) => put_append_entries_reply(reply, out),
        Message::Heartbeat(beat) => put_numbers(
            KIND_HEARTBEAT,
            [beat.term.0, beat.seq, beat.leader_commit.0, beat.quorum_age_us],
            out,
        ),
        Message::HeartbeatReply(reply) => put_numbers(
            KIND_HEARTBEAT_REPLY,
            [reply.term.0, reply.seq, reply.matched.0, reply.verified.0],
            out,
        ),
        Message::Commit(commit) => {
            put_numbers(KIND_COMMIT, [commit.term.0, commit.leader_commit.0], out);
        }
        Message::ReadIndex(ask) => put_numbers(KIND_READ_INDEX, [ask.id], out),
        Message::ReadIndexReply(reply) => {
            put_numbers(KIND_READ_INDEX_REPLY, [reply.id, reply.index.0], out);
        }
        Message::Propose(propose) => put_propose(propose, out),
    }
}

/// Decodes a message that lies in a buffer which will be used again. Only one
/// that holds clients' bytes copies the part, once; of the others, those without
/// a name or members allocate nothing.
pub fn decode_message(part: &[u8]) -> Result<Message, Refusal> {
    decode(Cursor::over(part))
}

/// Decodes a message whose bytes can be shared as they are: one that was put
/// together from fragments.
pub fn decode_shared(message: &Bytes) -> Result<Message, Refusal> {
    decode(Cursor::shared(message))
}

#[cfg(test)]
/// How many bytes the entry takes in an `AppendEntries` at most.
pub fn entry_len(entry: &Entry) -> usize {
    let payload_len = match &entry.payload {
        Payload::Empty => 0,
        Payload::Members(membership) => membership_len(membership),
        Payload::Client(bytes) => operation_len(bytes),
    };
    1 + varint_len(entry.term.0) + payload_len
}

#[cfg(test)]
/// How many bytes the operation takes in a `Propose`, which itself takes 12 at
/// most.
pub fn operation_len(operation: &Bytes) -> usize {
    varint_len(operation.len() as u64) + operation.len()
}

fn decode(mut cursor: Cursor<'_>) -> Result<Message, Refusal> {
    let from = &mut cursor;
    let message = match from.u8()? {
        KIND_HELLO => {
            let fresh = from.flag()?;
            let (ask, echo) = (from.u64()?, from.u64()?);
            Message::Hello(Hello { name: take_name(from)?.to_string(), ask, echo, fresh })
        }
        KIND_FOUND => Message::Found(Found { members: take_membership(from)? }),
        KIND_PRE_VOTE => Message::PreVote(PreVote {
            round: from.varint()?,
            term: take_term(from)?,
            last_log_index: take_index(from)?,
            last_log_term: take_term(from)?,
        }),
        KIND_PRE_VOTE_REPLY => Message::PreVoteReply(PreVoteReply {
            round: from.varint()?,
            term: take_term(from)?,
            granted: from.flag()?,
        }),
        KIND_REQUEST_VOTE => Message::RequestVote(RequestVote {
            term: take_term(from)?,
            last_log_index: take_index(from)?,
            last_log_term: take_term(from)?,
        }),
        KIND_REQUEST_VOTE_REPLY => Message::RequestVoteReply(RequestVoteReply {
            term: take_term(from)?,
            granted: from.flag()?,
        }),
        KIND_APPEND_ENTRIES => Message::AppendEntries(take_append_entries(from)?),
        KIND_APPEND_ENTRIES_REPLY => Message::AppendEntriesReply(AppendEntriesReply {
            term: take_term(from)?,
            seq: from.varint()?,
            outcome: take_outcome(from)?,
        }),
        KIND_HEARTBEAT => Message::Heartbeat(Heartbeat {
            term: take_term(from)?,
            seq: from.varint()?,
            leader_commit: take_index(from)?,
            quorum_age_us: from.varint()?,
        }),
        KIND_HEARTBEAT_REPLY => Message::HeartbeatReply(HeartbeatReply {
            term: take_term(from)?,
            seq: from.varint()?,
            matched: take_index(from)?,
            verified: take_index(from)?,
        }),
        KIND_COMMIT => {
            Message::Commit(Commit { term: take_term(from)?, leader_commit: take_index(from)? })
        }
        KIND_READ_INDEX => Message::ReadIndex(ReadIndex { id: from.varint()? }),
        KIND_READ_INDEX_REPLY => {
            Message::ReadIndexReply(ReadIndexReply { id: from.varint()?, index: take_index(from)? })
        }
        KIND_PROPOSE => Message::Propose(take_propose(from)?),
        _ => return Err(Refusal::Kind),
    };
    cursor.finish()?;
    Ok(message)
}

fn take_term(from: &mut Cursor<'_>) -> Result<Term, Refusal> {
    from.varint().map(Term)
}

fn take_index(from: &mut Cursor<'_>) -> Result<Index, Refusal> {
    from.varint().map(Index)
}

/// A kind byte and varints: all that most messages are.
fn put_numbers<const COUNT: usize>(kind: u8, numbers: [u64; COUNT], out: &mut Vec<u8>) {
    out.push(kind);
    for number in numbers {
        put_varint(out, number);
    }
}

fn put_append_entries(append: &AppendEntries, out: &mut Vec<u8>) {
    let count = append.entries.len();
    assert!(count <= ENTRIES_LIMIT, "{count} entries in a message that takes {ENTRIES_LIMIT}");
    let numbers = [
        append.term.0,
        append.seq,
        append.prev_log_index.0,
        append.prev_log_term.0,
        append.leader_commit.0,
        count as u64,
    ];
    put_numbers(KIND_APPEND_ENTRIES, numbers, out);
    let mut term_before = append.term;
    for entry in &append.entries {
        put_entry(entry, term_before, out);
        term_before = entry.term;
    }
}

fn take_append_entries(from: &mut Cursor<'_>) -> Result<AppendEntries, Refusal> {
    let mut append = AppendEntries {
        term: take_term(from)?,
        seq: from.varint()?,
        prev_log_index: take_index(from)?,
        prev_log_term: take_term(from)?,
        leader_commit: take_index(from)?,
        entries: Vec::new(),
    };
    let count = from.count(ENTRIES_LIMIT)?;
    append.entries.reserve_exact(count.min(BELIEVED_COUNT));
    let mut term_before = append.term;
    for _ in 0..count {
        let entry = take_entry(from, term_before)?;
        term_before = entry.term;
        append.entries.push(entry);
    }
    Ok(append)
}

fn put_entry(entry: &Entry, term_before: Term, out: &mut Vec<u8>) {
    let payload = match &entry.payload {
        Payload::Empty => PAYLOAD_EMPTY,
        Payload::Members(_) => PAYLOAD_MEMBERS,
        Payload::Client(_) => PAYLOAD_CLIENT,
    };
    if entry.term == term_before {
        out.push(payload);
    } else {
        out.push(payload | ENTRY_HAS_TERM);
        put_varint(out, entry.term.0);
    }
    match &entry.payload {
        Payload::Empty => {}
        Payload::Members(membership) => put_membership(membership, out),
        Payload::Client(bytes) => put_operation(bytes, out),
    }
}

fn take_entry(from: &mut Cursor<'_>, term_before: Term) -> Result<Entry, Refusal> {
    let head = from.u8()?;
    if head & !(PAYLOAD_BITS | ENTRY_HAS_TERM) != 0 {
        return Err(Refusal::Malformed);
    }
    let term = if head & ENTRY_HAS_TERM == 0 { term_before } else { take_term(from)? };
    if head & ENTRY_HAS_TERM != 0 && term == term_before {
        return Err(Refusal::Malformed); // there is a shorter spelling
    }
    let payload = match head & PAYLOAD_BITS {
        PAYLOAD_EMPTY => Payload::Empty,
        PAYLOAD_MEMBERS => Payload::Members(Box::new(take_membership(from)?)),
        PAYLOAD_CLIENT => Payload::Client(take_operation(from)?),
        _ => return Err(Refusal::Malformed),
    };
    Ok(Entry { term, payload })
}

fn put_append_entries_reply(reply: &AppendEntriesReply, out: &mut Vec<u8>) {
    put_numbers(KIND_APPEND_ENTRIES_REPLY, [reply.term.0, reply.seq], out);
    match &reply.outcome {
        AppendOutcome::Matched { index } => put_numbers(OUTCOME_MATCHED, [index.0], out),
        AppendOutcome::Mismatch { prev_log_index, hint_index, hint_term } => {
            put_numbers(OUTCOME_MISMATCH, [prev_log_index.0, hint_index.0, hint_term.0], out);
        }
        AppendOutcome::Stale => out.push(OUTCOME_STALE),
    }
}

fn take_outcome(from: &mut Cursor<'_>) -> Result<AppendOutcome, Refusal> {
    match from.u8()? {
        OUTCOME_MATCHED => Ok(AppendOutcome::Matched { index: take_index(from)? }),
        OUTCOME_MISMATCH => Ok(AppendOutcome::Mismatch {
            prev_log_index: take_index(from)?,
            hint_index: take_index(from)?,
            hint_term: take_term(from)?,
        }),
        OUTCOME_STALE => Ok(AppendOutcome::Stale),
        _ => Err(Refusal::Malformed),
    }
}

fn put_propose(propose: &Propose, out: &mut Vec<u8>) {
    let count = propose.operations.len();
    assert!(count <= ENTRIES_LIMIT, "{count} operations in a message that takes {ENTRIES_LIMIT}");
    out.extend_from_slice(&[KIND_PROPOSE, u8::from(propose.retry)]);
    put_varint(out, count as u64);
    for operation in &propose.operations {
        put_operation(operation, out);
    }
}

fn take_propose(from: &mut Cursor<'_>) -> Result<Propose, Refusal> {
    let retry = from.flag()?;
    let count = from.count(ENTRIES_LIMIT)?;
    let mut operations = Vec::with_capacity(count.min(BELIEVED_COUNT));
    for _ in 0..count {
        operations.push(take_operation(from)?);
    }
    Ok(Propose { retry, operations })
}

fn put_operation(operation: &Bytes, out: &mut Vec<u8>) {
    put_varint(out, operation.len() as u64);
    out.extend_from_slice(operation);
}

fn take_operation(from: &mut Cursor<'_>) -> Result<Bytes, Refusal> {
    let length = from.length()?;
    from.take_shared(length)
}

fn put_name(name: &str, out: &mut Vec<u8>) {
    let is_name = (1..=NAME_LIMIT_BYTES).contains(&name.len());
    assert!(is_name, "a name has 1 to {NAME_LIMIT_BYTES} bytes, not {}", name.len());
    out.push(name.len() as u8);
    out.extend_from_slice(name.as_bytes());
}

fn take_name<'a>(from: &mut Cursor<'a>) -> Result<&'a str, Refusal> {
    let length = usize::from(from.u8()?);
    if !(1..=NAME_LIMIT_BYTES).contains(&length) {
        return Err(Refusal::Malformed);
    }
    std::str::from_utf8(from.take(length)?).map_err(|_| Refusal::Malformed)
}

/// Whether `later` may stand behind `earlier`: by name, a name's voter first,
/// each at most once.
fn in_order(earlier: &Member, later: &Member) -> bool {
    (&earlier.name, !earlier.voter) < (&later.name, !later.voter)
}

fn put_membership(membership: &Membership, out: &mut Vec<u8>) {
    let members = &membership.members;
    let count = members.len();
    assert!(count <= MEMBERS_LIMIT, "{count} members in a cluster that takes {MEMBERS_LIMIT}");
    assert!(members.is_sorted_by(in_order), "members are out of order: {members:?}");
    out.extend_from_slice(&membership.cluster.0.to_le_bytes());
    put_varint(out, count as u64);
    for member in members {
        put_member(member, out);
    }
}

fn take_membership(from: &mut Cursor<'_>) -> Result<Membership, Refusal> {
    let cluster = ClusterId(from.u64()?);
    let count = from.count(MEMBERS_LIMIT)?;
    let mut members: Vec<Member> = Vec::with_capacity(count);
    for _ in 0..count {
        let member = take_member(from)?;
        if members.last().is_some_and(|before| !in_order(before, &member)) {
            return Err(Refusal::Malformed);
        }
        members.push(member);
    }
    Ok(Membership { cluster, members })
}

#[cfg(test)]
fn membership_len(membership: &Membership) -> usize {
    let member_len = |member: &Member| {
        let address_len = match member.address {
            SocketAddr::V4(_) => 4 + 2,
            SocketAddr::V6(address) => {
                16 + 2
                    + varint_len(u64::from(address.flowinfo()))
                    + varint_len(u64::from(address.scope_id()))
            }
        };
        1 + 1 + member.name.len() + address_len + member.incarnation.map_or(0, |_| 8)
    };
    let count_len = varint_len(membership.members.len() as u64);
    8 + count_len + membership.members.iter().map(member_len).sum::<usize>()
}

fn put_member(member: &Member, out: &mut Vec<u8>) {
    let mut head = 0;
    if member.voter {
        head |= MEMBER_VOTES;
    }
    if member.address.is_ipv6() {
        head |= MEMBER_IPV6;
    }
    if member.incarnation.is_some() {
        head |= MEMBER_HAS_INCARNATION;
    }
    out.push(head);
    put_name(&member.name, out);
    let port = member.address.port().to_le_bytes();
    match member.address {
        SocketAddr::V4(address) => {
            out.extend_from_slice(&address.ip().octets());
            out.extend_from_slice(&port);
        }
        SocketAddr::V6(address) => {
            out.extend_from_slice(&address.ip().octets());
            out.extend_from_slice(&port);
            put_varint(out, u64::from(address.flowinfo()));
            put_varint(out, u64::from(address.scope_id()));
        }
    }
    if let Some(incarnation) = member.incarnation {
        assert_ne!(incarnation.0, 0, "the incarnation of {} is zero", member.name);
        out.extend_from_slice(&incarnation.0.to_le_bytes());
    }
}

fn take_member(from: &mut Cursor<'_>) -> Result<Member, Refusal> {
    let head = from.u8()?;
    if head & !(MEMBER_VOTES | MEMBER_IPV6 | MEMBER_HAS_INCARNATION) != 0 {
        return Err(Refusal::Malformed);
    }
    let name = take_name(from)?;
    let address = if head & MEMBER_IPV6 == 0 {
        let ip = Ipv4Addr::from(from.array::<4>()?);
        SocketAddr::new(IpAddr::V4(ip), from.u16()?)
    } else {
        let ip = Ipv6Addr::from(from.array::<16>()?);
        let port = from.u16()?;
        let flow = u32::try_from(from.varint()?).map_err(|_| Refusal::Malformed)?;
        let scope = u32::try_from(from.varint()?).map_err(|_| Refusal::Malformed)?;
        SocketAddr::V6(SocketAddrV6::new(ip, port, flow, scope))
    };
    let incarnation = if head & MEMBER_HAS_INCARNATION == 0 {
        None
    } else {
        let incarnation = Incarnation(from.u64()?);
        if incarnation.0 == 0 {
            return Err(Refusal::Malformed);
        }
        Some(incarnation)
    };
    let voter = head & MEMBER_VOTES != 0;
    Ok(Member { name: name.to_string(), address, incarnation, voter })
}

#[cfg(test)]
mod tests;
