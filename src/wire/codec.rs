//! Messages as bytes: a kind byte and a body.
//!
//! `n` is a varint (`cursor`); a figure is a field of so many bytes, little
//! endian where it is a number. Random numbers have eight bytes, for a varint
//! would need ten; what counts up is a varint.
//!
//! ```text
//!    1  Hello               1 fresh, 8 ask, 8 echo, name, n members
//!    2  Found               1 first, membership
//!    3  PreVote             n round, n term, n last_log_index, n last_log_term
//!    4  PreVoteReply        n round, n term, 1 granted
//!    5  RequestVote         n term, n last_log_index, n last_log_term, 1 handed_over
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
//!   15  InstallSnapshot     n term, n seq, snapshot, n offset, n length, bytes
//!   16  InstallSnapshotReply  n term, n seq, snapshot, n received
//!   17  TimeoutNow          n term
//!   18  Removed             n index
//!   19  Change              n id, 1 retry, 1 wish:
//!                             0  Add        1 voter, 1 IPv6, name, address
//!                             1  Remove     name
//!                             2  Transfer   name
//!   20  ChangeReply         n id, 1 outcome:
//!                             0  Done       n index, n term, membership
//!                             1  Refused    1 why not, in the order of `WHY_NOT`
//!   21  Introduction        n index, membership
//!
//!   snapshot     n index, n term, n length, 4 checksum
//! ```
//!
//! Entries and members are as `encoding::entry` has them.
//!
//! So an entry of a leader's own term costs its payload, a head and a length.
//!
//! What is decoded has the shape of its type and no more: a name is a name and
//! members are in order, but terms and indexes are whatever the sender says.
//! The core judges those. A decoded operation is a slice of the bytes it came
//! in: those of one message share one allocation.

use bytes::Bytes;

use crate::core::message::{
    AppendEntries, AppendEntriesReply, AppendOutcome, Change, ChangeOutcome, ChangeReply, Commit,
    Found, Heartbeat, HeartbeatReply, Hello, InstallSnapshot, InstallSnapshotReply, Introduction,
    Message, PreVote, PreVoteReply, Propose, ReadIndex, ReadIndexReply, Removed, RequestVote,
    RequestVoteReply, TimeoutNow, WhyNot, Wish,
};
use crate::core::snapshot::SnapshotId;
use crate::core::types::Index;
use crate::encoding::cursor::{Cursor, put_varint};
use crate::encoding::entry::{
    put_address, put_entry, put_membership, put_name, put_operation, take_address, take_entry,
    take_membership, take_name, take_operation, take_term,
};

use super::Refusal;
#[cfg(test)]
use crate::encoding::cursor::VARINT_LIMIT_BYTES;

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
const KIND_INSTALL_SNAPSHOT: u8 = 15;
const KIND_INSTALL_SNAPSHOT_REPLY: u8 = 16;
const KIND_TIMEOUT_NOW: u8 = 17;
const KIND_REMOVED: u8 = 18;
const KIND_CHANGE: u8 = 19;
const KIND_CHANGE_REPLY: u8 = 20;
const KIND_INTRODUCTION: u8 = 21;

const WISH_ADD: u8 = 0;
const WISH_REMOVE: u8 = 1;
const WISH_TRANSFER: u8 = 2;

const CHANGE_DONE: u8 = 0;
const CHANGE_REFUSED: u8 = 1;

/// A refusal is written as its place in here.
const WHY_NOT: [WhyNot; 12] = [
    WhyNot::AlreadyMember,
    WhyNot::UnknownName,
    WhyNot::AnotherChange,
    WhyNot::NoVoterLeft,
    WhyNot::NoMajorityLeft,
    WhyNot::Unreachable,
    WhyNot::Foreign,
    WhyNot::TooMany,
    WhyNot::AddressTaken,
    WhyNot::NotAVoter,
    WhyNot::LeadsAlready,
    WhyNot::NotTakenOver,
];

const OUTCOME_MATCHED: u8 = 0;
const OUTCOME_MISMATCH: u8 = 1;
const OUTCOME_STALE: u8 = 2;

/// Appends the message, kind byte and body. It panics on what no node would
/// take: a name or a number of things beyond its limit, members out of order.
pub fn encode_message(message: &Message, out: &mut Vec<u8>) {
    match message {
        Message::Hello(hello) => {
            out.extend_from_slice(&[KIND_HELLO, u8::from(hello.fresh)]);
            out.extend_from_slice(&hello.ask.to_le_bytes());
            out.extend_from_slice(&hello.echo.to_le_bytes());
            put_name(&hello.name, out);
            put_varint(out, hello.members.0);
        }
        Message::Found(found) => {
            out.extend_from_slice(&[KIND_FOUND, u8::from(found.first)]);
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
        Message::RequestVote(ask) => {
            let numbers = [ask.term.0, ask.last_log_index.0, ask.last_log_term.0];
            put_numbers(KIND_REQUEST_VOTE, numbers, out);
            out.push(u8::from(ask.handed_over));
        }
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
        Message::InstallSnapshot(piece) => {
            put_numbers(KIND_INSTALL_SNAPSHOT, [piece.term.0, piece.seq], out);
            put_snapshot_id(&piece.id, out);
            put_varint(out, piece.offset);
            put_operation(&piece.data, out);
        }
        Message::InstallSnapshotReply(reply) => {
            put_numbers(KIND_INSTALL_SNAPSHOT_REPLY, [reply.term.0, reply.seq], out);
            put_snapshot_id(&reply.id, out);
            put_varint(out, reply.received);
        }
        Message::TimeoutNow(ask) => put_numbers(KIND_TIMEOUT_NOW, [ask.term.0], out),
        Message::Removed(removed) => put_numbers(KIND_REMOVED, [removed.index.0], out),
        Message::Introduction(told) => {
            put_numbers(KIND_INTRODUCTION, [told.index.0], out);
            put_membership(&told.members, out);
        }
        Message::Change(change) => {
            put_numbers(KIND_CHANGE, [change.id], out);
            out.push(u8::from(change.retry));
            put_wish(&change.wish, out);
        }
        Message::ChangeReply(reply) => {
            put_numbers(KIND_CHANGE_REPLY, [reply.id], out);
            put_change_outcome(&reply.outcome, out);
        }
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

fn decode(mut cursor: Cursor<'_>) -> Result<Message, Refusal> {
    let from = &mut cursor;
    let message = match from.u8()? {
        KIND_HELLO => {
            let fresh = from.flag()?;
            let (ask, echo) = (from.u64()?, from.u64()?);
            let name = take_name(from)?.to_string();
            Message::Hello(Hello { name, ask, echo, fresh, members: take_index(from)? })
        }
        KIND_FOUND => {
            Message::Found(Found { first: from.flag()?, members: take_membership(from)? })
        }
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
            handed_over: from.flag()?,
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
        KIND_INSTALL_SNAPSHOT => Message::InstallSnapshot(InstallSnapshot {
            term: take_term(from)?,
            seq: from.varint()?,
            id: take_snapshot_id(from)?,
            offset: from.varint()?,
            data: take_operation(from)?,
        }),
        KIND_INSTALL_SNAPSHOT_REPLY => Message::InstallSnapshotReply(InstallSnapshotReply {
            term: take_term(from)?,
            seq: from.varint()?,
            id: take_snapshot_id(from)?,
            received: from.varint()?,
        }),
        KIND_TIMEOUT_NOW => Message::TimeoutNow(TimeoutNow { term: take_term(from)? }),
        KIND_INTRODUCTION => Message::Introduction(Introduction {
            index: take_index(from)?,
            members: take_membership(from)?,
        }),
        KIND_REMOVED => Message::Removed(Removed { index: take_index(from)? }),
        KIND_CHANGE => Message::Change(Change {
            id: from.varint()?,
            retry: from.flag()?,
            wish: take_wish(from)?,
        }),
        KIND_CHANGE_REPLY => Message::ChangeReply(ChangeReply {
            id: from.varint()?,
            outcome: take_change_outcome(from)?,
        }),
        _ => return Err(Refusal::Kind),
    };
    cursor.finish()?;
    Ok(message)
}

fn take_index(from: &mut Cursor<'_>) -> Result<Index, Refusal> {
    from.varint().map(Index)
}

fn put_snapshot_id(id: &SnapshotId, out: &mut Vec<u8>) {
    put_varint(out, id.index.0);
    put_varint(out, id.term.0);
    put_varint(out, id.length);
    out.extend_from_slice(&id.checksum.to_le_bytes());
}

fn take_snapshot_id(from: &mut Cursor<'_>) -> Result<SnapshotId, Refusal> {
    Ok(SnapshotId {
        index: take_index(from)?,
        term: take_term(from)?,
        length: from.varint()?,
        checksum: from.u32()?,
    })
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

fn put_wish(wish: &Wish, out: &mut Vec<u8>) {
    match wish {
        Wish::Add { name, address, voter } => {
            out.extend_from_slice(&[WISH_ADD, u8::from(*voter), u8::from(address.is_ipv6())]);
            put_name(name, out);
            put_address(*address, out);
        }
        Wish::Remove { name } => {
            out.push(WISH_REMOVE);
            put_name(name, out);
        }
        Wish::Transfer { to } => {
            out.push(WISH_TRANSFER);
            put_name(to, out);
        }
    }
}

fn take_wish(from: &mut Cursor<'_>) -> Result<Wish, Refusal> {
    Ok(match from.u8()? {
        WISH_ADD => {
            let (voter, is_ipv6) = (from.flag()?, from.flag()?);
            let name = take_name(from)?.to_string();
            Wish::Add { name, address: take_address(from, is_ipv6)?, voter }
        }
        WISH_REMOVE => Wish::Remove { name: take_name(from)?.to_string() },
        WISH_TRANSFER => Wish::Transfer { to: take_name(from)?.to_string() },
        _ => return Err(Refusal::Malformed),
    })
}

fn put_change_outcome(outcome: &ChangeOutcome, out: &mut Vec<u8>) {
    match outcome {
        ChangeOutcome::Done { index, term, members } => {
            put_numbers(CHANGE_DONE, [index.0, term.0], out);
            put_membership(members, out);
        }
        ChangeOutcome::Refused(why) => {
            let place = WHY_NOT.iter().position(|of| of == why).expect("all are listed");
            out.extend_from_slice(&[CHANGE_REFUSED, place as u8]);
        }
    }
}

fn take_change_outcome(from: &mut Cursor<'_>) -> Result<ChangeOutcome, Refusal> {
    match from.u8()? {
        CHANGE_DONE => Ok(ChangeOutcome::Done {
            index: take_index(from)?,
            term: take_term(from)?,
            members: take_membership(from)?,
        }),
        CHANGE_REFUSED => {
            let why = WHY_NOT.get(usize::from(from.u8()?)).ok_or(Refusal::Malformed)?;
            Ok(ChangeOutcome::Refused(*why))
        }
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

#[cfg(test)]
mod tests;
