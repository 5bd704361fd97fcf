//! A record of the journal as bytes.
//!
//! `n` is a varint (`encoding::cursor`).
//!
//! ```text
//!   record     1 what follows, in this order: bit 0 hard, bit 1 install, bit 2 change
//!   hard       n term, 8 cluster or 0, 8 incarnation that has the vote or 0
//!   install    the whole log is replaced by this snapshot, which has a file:
//!              n index, n term, n length, 4 checksum
//!   change     the log is cut after this entry: n index, n term
//!              n count, entries that follow on it (`encoding::entry`)
//! ```

use crate::core::snapshot::SnapshotId;
use crate::core::types::{Entry, Index, Term};
use crate::core::{Hard, Record};
use crate::encoding::Refusal;
use crate::encoding::cursor::{Cursor, put_varint};
use crate::encoding::entry::{put_entry, take_entry, take_term};

use super::format::{cluster_number, hard_of, vote_number};

const HAS_HARD: u8 = 0b001;
const HAS_INSTALL: u8 = 0b010;
const HAS_CHANGE: u8 = 0b100;

/// A record as the journal has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Journaled {
    /// Term, vote and cluster from here on.
    pub(super) hard: Option<Hard>,
    /// What takes the place of the whole log, first.
    pub(super) install: Option<SnapshotId>,
    /// What happens to the log, then.
    pub(super) change: Option<Change>,
}

/// A change of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// The log is cut after this entry.
    pub(super) prev_index: Index,
    /// Its term.
    pub(super) prev_term: Term,
    /// What follows on it.
    pub(super) entries: Vec<Entry>,
}

/// Appends a record; `prev` is the entry before its first one.
pub(super) fn put_record(record: &Record, prev: Option<(Index, Term)>, out: &mut Vec<u8>) {
    let mut head = 0;
    if record.hard.is_some() {
        head |= HAS_HARD;
    }
    if record.install.is_some() {
        head |= HAS_INSTALL;
    }
    if prev.is_some() {
        head |= HAS_CHANGE;
    }
    out.push(head);
    if let Some(hard) = &record.hard {
        put_varint(out, hard.term.0);
        out.extend_from_slice(&cluster_number(hard).to_le_bytes());
        out.extend_from_slice(&vote_number(hard).to_le_bytes());
    }
    if let Some(snapshot) = &record.install {
        let SnapshotId { index, term, length, checksum } = snapshot.id;
        for number in [index.0, term.0, length] {
            put_varint(out, number);
        }
        out.extend_from_slice(&checksum.to_le_bytes());
    }
    if let Some((prev_index, prev_term)) = prev {
        for number in [prev_index.0, prev_term.0, record.entries.len() as u64] {
            put_varint(out, number);
        }
        let mut term_before = prev_term;
        for entry in &record.entries {
            put_entry(entry, term_before, out);
            term_before = entry.term;
        }
    }
}

/// The record that these bytes are.
pub(super) fn take_record(payload: &[u8]) -> Result<Journaled, Refusal> {
    let mut from = Cursor::over(payload);
    let head = from.u8()?;
    if head & !(HAS_HARD | HAS_INSTALL | HAS_CHANGE) != 0 {
        return Err(Refusal::Malformed);
    }
    let has = |part: u8| head & part != 0;
    let hard = if has(HAS_HARD) { Some(take_hard(&mut from)?) } else { None };
    let install = if has(HAS_INSTALL) { Some(take_id(&mut from)?) } else { None };
    let change = if has(HAS_CHANGE) { Some(take_change(&mut from)?) } else { None };
    from.finish()?;
    Ok(Journaled { hard, install, change })
}

fn take_hard(from: &mut Cursor<'_>) -> Result<Hard, Refusal> {
    let term = take_term(from)?;
    let (cluster, vote) = (from.u64()?, from.u64()?);
    Ok(hard_of(vote, cluster, term))
}

fn take_id(from: &mut Cursor<'_>) -> Result<SnapshotId, Refusal> {
    let (index, term) = (Index(from.varint()?), take_term(from)?);
    Ok(SnapshotId { index, term, length: from.varint()?, checksum: from.u32()? })
}

fn take_change(from: &mut Cursor<'_>) -> Result<Change, Refusal> {
    let (prev_index, prev_term) = (Index(from.varint()?), take_term(from)?);
    // An entry takes a byte or more, so `count` is bounded by what is there.
    let count = from.count(usize::MAX)?;
    let mut entries = Vec::new();
    let mut term_before = prev_term;
    for _ in 0..count {
        let entry = take_entry(from, term_before)?;
        term_before = entry.term;
        entries.push(entry);
    }
    Ok(Change { prev_index, prev_term, entries })
}
