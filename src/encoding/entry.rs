//! An entry of the log and the members as bytes, in datagrams and on the disk.
//!
//! `n` is a varint (`cursor`); a figure is a field of so many bytes, little endian
//! where it is a number.
//!
//! ```text
//!   entry        1 head: bits 0 and 1 the payload, bit 2: a term follows
//!                n term, only with bit 2; else it is that of the entry before,
//!                  for the first one that of the message
//!                payload 0  Empty
//!                        1  Members  membership
//!                        2  Client   n length, bytes
//!                        3  Verdict  1 head: bit 0 up, bits 1 to 3 relapses (to 5);
//!                           8 incarnation, 8 run
//!   membership   8 cluster, n count, then each member, in order of name, no
//!                incarnation twice
//!                n count, then each former member, with an incarnation
//!   member       1 head: bit 0 votes, bit 1 IPv6, bit 2 has an incarnation,
//!                  bit 3 joins, which excludes bit 0; of a former one neither
//!                name
//!                4 address, 2 port; with IPv6: 16 address, 2 port, n flow, n scope
//!                8 incarnation, only with bit 2, never 0
//!   name         1 length (1 to 64), UTF-8
//! ```

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use bytes::Bytes;

use crate::core::membership::{FORMER_LIMIT, Former, MEMBERS_LIMIT, Member, Membership, Standing};
use crate::core::types::{
    ClusterId, Entry, Incarnation, Life, Payload, Protocol, Run, Term, Verdict,
};
use crate::core::verdicts::RELAPSES_MOST;

use super::Refusal;
#[cfg(test)]
use super::cursor::varint_len;
use super::cursor::{Cursor, put_varint};

/// A member's name has at most so many bytes, and at least one.
pub const NAME_LIMIT_BYTES: usize = 64;
const PAYLOAD_EMPTY: u8 = 0;
const PAYLOAD_MEMBERS: u8 = 1;
const PAYLOAD_CLIENT: u8 = 2;
const PAYLOAD_VERDICT: u8 = 3;
const PAYLOAD_BITS: u8 = 0b011;
/// The bit of an entry's head that says that its term follows.
pub const ENTRY_HAS_TERM: u8 = 0b100;

const MEMBER_VOTES: u8 = 0b001;
const MEMBER_IPV6: u8 = 0b010;
const MEMBER_HAS_INCARNATION: u8 = 0b100;
const MEMBER_JOINS: u8 = 0b1000;

/// Appends an entry; `term_before` is the term of the one before it.
pub fn put_entry(entry: &Entry, term_before: Term, out: &mut Vec<u8>) {
    let payload = match &entry.payload {
        Payload::Protocol(Protocol::Empty) => PAYLOAD_EMPTY,
        Payload::Protocol(Protocol::Members(_)) => PAYLOAD_MEMBERS,
        Payload::Client(_) => PAYLOAD_CLIENT,
        Payload::Protocol(Protocol::Verdict(_)) => PAYLOAD_VERDICT,
    };
    if entry.term == term_before {
        out.push(payload);
    } else {
        out.push(payload | ENTRY_HAS_TERM);
        put_varint(out, entry.term.0);
    }
    match &entry.payload {
        Payload::Protocol(Protocol::Empty) => {}
        Payload::Protocol(Protocol::Members(membership)) => put_membership(membership, out),
        Payload::Client(bytes) => put_operation(bytes, out),
        Payload::Protocol(Protocol::Verdict(verdict)) => put_verdict(*verdict, out),
    }
}

/// The entry that follows on one of `term_before`.
pub fn take_entry(from: &mut Cursor<'_>, term_before: Term) -> Result<Entry, Refusal> {
    let head = from.u8()?;
    if head & !(PAYLOAD_BITS | ENTRY_HAS_TERM) != 0 {
        return Err(Refusal::Malformed);
    }
    let term = if head & ENTRY_HAS_TERM == 0 { term_before } else { take_term(from)? };
    if head & ENTRY_HAS_TERM != 0 && term == term_before {
        return Err(Refusal::Malformed); // there is a shorter spelling
    }
    let payload = match head & PAYLOAD_BITS {
        PAYLOAD_EMPTY => Payload::Protocol(Protocol::Empty),
        PAYLOAD_MEMBERS => Payload::Protocol(Protocol::Members(Box::new(take_membership(from)?))),
        PAYLOAD_CLIENT => Payload::Client(take_operation(from)?),
        _ => Payload::Protocol(Protocol::Verdict(take_verdict(from)?)),
    };
    Ok(Entry { term, payload })
}

/// Appends what is said of a life.
pub fn put_verdict(verdict: Verdict, out: &mut Vec<u8>) {
    let Verdict { life, up, relapses } = verdict;
    assert!(relapses <= RELAPSES_MOST, "{relapses} relapses are counted");
    out.push(u8::from(up) | relapses << 1);
    out.extend_from_slice(&life.incarnation.0.to_le_bytes());
    out.extend_from_slice(&life.run.0.to_le_bytes());
}

/// What is said of a life.
pub fn take_verdict(from: &mut Cursor<'_>) -> Result<Verdict, Refusal> {
    let head = from.u8()?;
    let relapses = head >> 1;
    let life = Life { incarnation: Incarnation(from.u64()?), run: Run(from.u64()?) };
    if relapses > RELAPSES_MOST || life.incarnation.0 == 0 {
        return Err(Refusal::Malformed);
    }
    Ok(Verdict { life, up: head & 1 == 1, relapses })
}

/// Appends a length and so many bytes.
pub fn put_operation(operation: &Bytes, out: &mut Vec<u8>) {
    put_varint(out, operation.len() as u64);
    out.extend_from_slice(operation);
}

/// A length and so many bytes, to be kept.
pub fn take_operation(from: &mut Cursor<'_>) -> Result<Bytes, Refusal> {
    let length = from.length()?;
    from.take_shared(length)
}

/// Appends a name. Panics if it is none.
pub fn put_name(name: &str, out: &mut Vec<u8>) {
    let is_name = (1..=NAME_LIMIT_BYTES).contains(&name.len());
    assert!(is_name, "a name has 1 to {NAME_LIMIT_BYTES} bytes, not {}", name.len());
    out.push(name.len() as u8);
    out.extend_from_slice(name.as_bytes());
}

/// A name.
pub fn take_name<'a>(from: &mut Cursor<'a>) -> Result<&'a str, Refusal> {
    let length = usize::from(from.u8()?);
    if !(1..=NAME_LIMIT_BYTES).contains(&length) {
        return Err(Refusal::Malformed);
    }
    std::str::from_utf8(from.take(length)?).map_err(|_| Refusal::Malformed)
}

/// Whether `later` may stand behind `earlier`: by name, each once.
fn in_order(earlier: &Member, later: &Member) -> bool {
    earlier.name < later.name
}

/// Appends members. Panics if they are too many or out of order.
pub fn put_membership(membership: &Membership, out: &mut Vec<u8>) {
    let members = &membership.members;
    let count = members.len();
    assert!(count <= MEMBERS_LIMIT, "{count} members in a cluster that takes {MEMBERS_LIMIT}");
    assert!(members.is_sorted_by(in_order), "members are out of order: {members:?}");
    out.extend_from_slice(&membership.cluster.0.to_le_bytes());
    put_varint(out, count as u64);
    for member in members {
        put_member(member, out);
    }
    let former = &membership.former;
    assert!(former.len() <= FORMER_LIMIT, "{} former members are remembered", former.len());
    put_varint(out, former.len() as u64);
    for former in former {
        put_member(&as_member(former), out);
    }
}

/// A former member has the fields of one that neither votes nor joins.
fn as_member(former: &Former) -> Member {
    Member {
        name: former.name.clone(),
        address: former.address,
        incarnation: Some(former.incarnation),
        standing: Standing::Learner,
    }
}

/// Members.
pub fn take_membership(from: &mut Cursor<'_>) -> Result<Membership, Refusal> {
    let cluster = ClusterId(from.u64()?);
    let count = from.count(MEMBERS_LIMIT)?;
    let mut members: Vec<Member> = Vec::with_capacity(count);
    let mut incarnations = BTreeSet::new();
    for _ in 0..count {
        let member = take_member(from)?;
        if members.last().is_some_and(|before| !in_order(before, &member)) {
            return Err(Refusal::Malformed);
        }
        // One log under two names would count twice.
        if member.incarnation.is_some_and(|of| !incarnations.insert(of)) {
            return Err(Refusal::Malformed);
        }
        members.push(member);
    }
    let count = from.count(FORMER_LIMIT)?;
    let mut former = Vec::with_capacity(count);
    for _ in 0..count {
        let Member { name, address, incarnation, standing } = take_member(from)?;
        match (incarnation, standing) {
            (Some(incarnation), Standing::Learner) => {
                former.push(Former { name, address, incarnation });
            }
            _ => return Err(Refusal::Malformed),
        }
    }
    Ok(Membership { cluster, members, former })
}

/// How many bytes the members take.
#[cfg(test)]
pub fn membership_len(membership: &Membership) -> usize {
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
    let former_len = varint_len(membership.former.len() as u64);
    8 + count_len
        + membership.members.iter().map(member_len).sum::<usize>()
        + former_len
        + membership.former.iter().map(|former| member_len(&as_member(former))).sum::<usize>()
}

/// Appends a member.
pub fn put_member(member: &Member, out: &mut Vec<u8>) {
    let mut head = 0;
    match member.standing {
        Standing::Voter => head |= MEMBER_VOTES,
        Standing::Joining => head |= MEMBER_JOINS,
        Standing::Learner => {}
    }
    if member.address.is_ipv6() {
        head |= MEMBER_IPV6;
    }
    if member.incarnation.is_some() {
        head |= MEMBER_HAS_INCARNATION;
    }
    out.push(head);
    put_name(&member.name, out);
    put_address(member.address, out);
    if let Some(incarnation) = member.incarnation {
        assert_ne!(incarnation.0, 0, "the incarnation of {} is zero", member.name);
        out.extend_from_slice(&incarnation.0.to_le_bytes());
    }
}

/// Appends an address, of a kind that is told elsewhere.
pub fn put_address(address: SocketAddr, out: &mut Vec<u8>) {
    let port = address.port().to_le_bytes();
    match address {
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
}

/// An address of that kind.
pub fn take_address(from: &mut Cursor<'_>, is_ipv6: bool) -> Result<SocketAddr, Refusal> {
    if !is_ipv6 {
        let ip = Ipv4Addr::from(from.array::<4>()?);
        return Ok(SocketAddr::new(IpAddr::V4(ip), from.u16()?));
    }
    let ip = Ipv6Addr::from(from.array::<16>()?);
    let port = from.u16()?;
    let flow = u32::try_from(from.varint()?).map_err(|_| Refusal::Malformed)?;
    let scope = u32::try_from(from.varint()?).map_err(|_| Refusal::Malformed)?;
    Ok(SocketAddr::V6(SocketAddrV6::new(ip, port, flow, scope)))
}

fn take_member(from: &mut Cursor<'_>) -> Result<Member, Refusal> {
    let head = from.u8()?;
    if head & !(MEMBER_VOTES | MEMBER_IPV6 | MEMBER_HAS_INCARNATION | MEMBER_JOINS) != 0 {
        return Err(Refusal::Malformed);
    }
    let name = take_name(from)?;
    let address = take_address(from, head & MEMBER_IPV6 != 0)?;
    let incarnation = if head & MEMBER_HAS_INCARNATION == 0 {
        None
    } else {
        let incarnation = Incarnation(from.u64()?);
        if incarnation.0 == 0 {
            return Err(Refusal::Malformed);
        }
        Some(incarnation)
    };
    let standing = match (head & MEMBER_VOTES != 0, head & MEMBER_JOINS != 0) {
        (true, false) => Standing::Voter,
        (false, true) => Standing::Joining,
        (false, false) => Standing::Learner,
        (true, true) => return Err(Refusal::Malformed),
    };
    Ok(Member { name: name.to_string(), address, incarnation, standing })
}

/// A varint that is a term.
pub fn take_term(from: &mut Cursor<'_>) -> Result<Term, Refusal> {
    from.varint().map(Term)
}

/// How many bytes the entry takes at most, among others.
#[cfg(test)]
pub fn entry_len(entry: &Entry) -> usize {
    let payload_len = match &entry.payload {
        Payload::Protocol(Protocol::Empty) => 0,
        Payload::Protocol(Protocol::Members(membership)) => membership_len(membership),
        Payload::Client(bytes) => operation_len(bytes),
        Payload::Protocol(Protocol::Verdict(_)) => 17,
    };
    1 + varint_len(entry.term.0) + payload_len
}

/// How many bytes the operation takes.
#[cfg(test)]
pub fn operation_len(operation: &Bytes) -> usize {
    varint_len(operation.len() as u64) + operation.len()
}
