//! The replicated state as bytes, and back: what stands in for the log in a
//! snapshot (Raft §7). Sessions and ids are in it, or what is repeated after a
//! snapshot would be applied again (thesis §6.3).
//!
//! `n` is a varint (`encoding::cursor`); a figure is a field of so many bytes,
//! little endian where it is a number.
//!
//! ```text
//!   1 version (1)
//!   n applied, n its term, n client entries, n how many of them were unreadable
//!   newest     n index (0: none, and no more of it), n term,
//!              n length (0: without an id), id, n length, JSON
//!   values     n number of the first, n count, then each in order:
//!              n length (0: nobody holds it any more), JSON
//!   sessions   n count, then each in order of its id:
//!              n id, 8 incarnation, 8 run, n touched, n floor,
//!              n places, then each from the floor on: 0 if it is free, or an answer
//!   ids        n number of the first, n count, then each in order of the log:
//!              n length, id, n which client entry, answer
//!   1 machine  0  the node had none; the end
//!              1  the machine's own snapshot, to the end
//!
//!   answer     n index (never 0), n term, n value
//!   value      0  Null
//!              1  not kept
//!              else its number plus 1; below the first it fell to the bound
//! ```
//!
//! Nothing of the node's own is in it, and a state has exactly one form: nodes in
//! the same state give the same bytes, if their machines do.
//!
//! What can be counted is not written: who holds a value, how many bytes and places
//! are taken. Bytes that say what no log can make of a state are refused, whatever
//! they are; what is taken breaks no assertion later. The bounds are constants of
//! the format, so a snapshot has none.

use std::num::NonZeroU64;

use bytes::Bytes;
use thiserror::Error;

use crate::committed::Entry;
use crate::core::types::{Index, Term};
use crate::encoding::Refusal;
use crate::encoding::cursor::{Cursor, put_varint};
use crate::error::BoxError;
use crate::guard;
use crate::operation::ID_LIMIT_BYTES;

use super::ids::Ids;
use super::sessions::Sessions;
use super::values::{ValueRef, Values};
use super::{Answer, Limits, Outcome, Replica, State};

const VERSION: u8 = 1;

/// No log gets so far; numbers below may be added without care.
const INDEX_LIMIT: u64 = 1 << 62;

const OTHER_WITHOUT_MACHINE: &str = "the snapshot is of a node without a state machine, and this \
     one has one: all nodes must be given the same";
const HERE_WITHOUT_MACHINE: &str = "the snapshot is of a node with a state machine, and this one \
     has none: all nodes must be given the same";

/// Why bytes are no snapshot.
#[derive(Debug, Error)]
pub(super) enum Unsound {
    #[error("the snapshot cannot be read: {}", .0.name())]
    Unreadable(Refusal),
    #[error("the snapshot holds a state that no log makes: {0}")]
    Impossible(String),
}

impl From<Refusal> for Unsound {
    fn from(refusal: Refusal) -> Unsound {
        Unsound::Unreadable(refusal)
    }
}

/// Refuses bytes that say what cannot be.
pub(super) fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), Unsound> {
    if holds { Ok(()) } else { Err(Unsound::Impossible(what())) }
}

impl Replica {
    /// The state as it is, with the machine's own snapshot if there is a machine.
    ///
    /// Fails if the machine does, and while a machine with a disk of its own is
    /// ahead of the log: its bytes would be of a later entry than all else, and who
    /// restored them would apply the entries between a second time. Nothing has
    /// changed then.
    pub fn snapshot(&self) -> Result<Vec<u8>, BoxError> {
        let applied = self.state.applied;
        let machines = match &self.machine {
            None => None,
            Some(_) if self.machine_has > applied.0 => {
                let has = self.machine_has;
                let why =
                    format!("the state machine has entry {has}, the log only entry {applied}");
                return Err(why.into());
            }
            Some(machine) => {
                let _guard = guard::enter();
                Some(machine.snapshot()?)
            }
        };
        let room = machines.as_ref().map_or(0, Vec::len);
        let mut bytes = Vec::with_capacity(self.state.size_bytes() + room);
        bytes.push(VERSION);
        self.state.put(&mut bytes);
        bytes.push(u8::from(machines.is_some()));
        bytes.extend_from_slice(&machines.unwrap_or_default());
        Ok(bytes)
    }

    /// Replaces the state by that of a snapshot, which lies not behind it, and adds
    /// to `outcomes` what the entries in between mean for this node's own requests.
    ///
    /// Whatever the bytes are: they are refused, or the state is one that a log can
    /// make. A machine that came with as much or more keeps what it has. Those who
    /// watch are not told of the entries in between.
    ///
    /// On an error the state is as it was. The machine may not be, if the error is
    /// its own: the node has to stop.
    pub fn restore(&mut self, bytes: &[u8], outcomes: &mut Vec<Outcome>) -> Result<(), BoxError> {
        let (state, machines) = take(bytes, &self.limits)?;
        let State { applied, term, .. } = self.state;
        let is_here = (state.applied, state.term) == (applied, term);
        if !is_here && (state.applied <= applied || state.term < term) {
            let (index, its) = (state.applied, state.term);
            let here = format!("entry {applied} of term {term} is applied here already");
            return Err(
                format!("the snapshot ends with entry {index} of term {its}, and {here}").into()
            );
        }
        match (&mut self.machine, machines) {
            (None, None) => {}
            (Some(machine), Some(machines)) => {
                if self.machine_has < state.applied.0 {
                    let _guard = guard::enter();
                    machine.restore(machines)?;
                }
            }
            (Some(_), None) => return Err(OTHER_WITHOUT_MACHINE.into()),
            (None, Some(_)) => return Err(HERE_WITHOUT_MACHINE.into()),
        }
        self.state = state;
        self.report_own(outcomes);
        Ok(())
    }

    /// Reports what a restored state says of this run's requests, in the order of
    /// the log: a session ends before its life opens the next.
    fn report_own(&mut self, outcomes: &mut Vec<Outcome>) {
        for &session in self.own_sessions.iter().rev() {
            if self.state.sessions.touched(session).is_none() {
                outcomes.push(Outcome::Expired { session });
            }
        }
        let Some(session) = self.state.sessions.of(self.own) else {
            return;
        };
        self.opened(session, outcomes);
        for (seq, answer) in self.state.sessions.replies(session) {
            let reply = self.state.reply(answer);
            outcomes.push(Outcome::Replied { session, seq, reply });
        }
    }
}

/// The state in a snapshot, and the machine's own part.
fn take<'a>(bytes: &'a [u8], limits: &Limits) -> Result<(State, Option<&'a [u8]>), Unsound> {
    let mut from = Cursor::over(bytes);
    if from.u8()? != VERSION {
        return Err(Refusal::Version.into());
    }
    let state = State::take(&mut from, limits)?;
    let machines = if from.flag()? { Some(from.rest()) } else { None };
    from.finish()?;
    Ok((state, machines))
}

impl State {
    /// About how many bytes `put` writes, so that they are not moved as they grow.
    fn size_bytes(&self) -> usize {
        let newest = self.newest.as_ref().map_or(0, |entry| entry.json().len() + ID_LIMIT_BYTES);
        128 + newest + self.values.size_bytes() + self.sessions.size_bytes() + self.ids.size_bytes()
    }

    fn put(&self, out: &mut Vec<u8>) {
        let State { applied, term, client_entries, unreadable, newest, sessions, ids, values } =
            self;
        for number in [applied.0, term.0, *client_entries, *unreadable] {
            put_varint(out, number);
        }
        put_newest(newest.as_ref(), out);
        values.put(out);
        sessions.put(out);
        ids.put(out);
    }

    fn take(from: &mut Cursor<'_>, limits: &Limits) -> Result<State, Unsound> {
        let mut state = State::new(limits);
        state.applied = Index(from.varint()?);
        state.term = Term(from.varint()?);
        state.client_entries = from.varint()?;
        state.unreadable = from.varint()?;
        let State { applied, term, client_entries, unreadable, .. } = state;
        let numbers = applied.0 < INDEX_LIMIT
            && client_entries <= applied.0
            && unreadable <= client_entries
            && (applied.0 > 0 || term.0 == 0);
        ensure(numbers, || {
            format!(
                "{client_entries} client entries, {unreadable} of them unreadable, \
                 up to {applied} of term {term}"
            )
        })?;
        state.newest = take_newest(from, applied, term)?;
        // First what may be referred to, then who refers to it.
        state.values = Values::take(from, client_entries, limits.kept_bytes)?;
        state.sessions = Sessions::take(from, &mut state, limits)?;
        state.ids = Ids::take(from, &mut state, limits.ids_span)?;
        state.values.check_holders()?;
        Ok(state)
    }

    /// Takes an answer, and hold of its value; `None` where there is none.
    pub(super) fn take_answer(&mut self, from: &mut Cursor<'_>) -> Result<Option<Answer>, Unsound> {
        let Some(index) = NonZeroU64::new(from.varint()?) else {
            return Ok(None);
        };
        let term = Term(from.varint()?);
        let value = ValueRef::take(from)?;
        let newest = self.newest.as_ref().map_or((0, 0), |entry| (entry.index, entry.term));
        ensure(index.get() <= newest.0 && term.0 <= newest.1, || {
            format!("an answer of {index} in term {term}, and the newest is {newest:?}")
        })?;
        ensure(self.values.claim(value), || format!("{value:?} is not there"))?;
        Ok(Some(Answer { index, term, value }))
    }
}

pub(super) fn put_answer(answer: Answer, out: &mut Vec<u8>) {
    put_varint(out, answer.index.get());
    put_varint(out, answer.term.0);
    answer.value.put(out);
}

pub(super) fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Takes a length and so many bytes of text.
pub(super) fn take_text<'a>(from: &mut Cursor<'a>) -> Result<&'a str, Unsound> {
    let length = from.length()?;
    Ok(str::from_utf8(from.take(length)?).map_err(|_| Refusal::Malformed)?)
}

/// Of a command all that an entry tells: who sent it, and as which number, is in
/// the sessions.
fn put_newest(newest: Option<&Entry>, out: &mut Vec<u8>) {
    let Some(entry) = newest else {
        return put_varint(out, 0);
    };
    put_varint(out, entry.index);
    put_varint(out, entry.term);
    put_bytes(entry.id().unwrap_or_default().as_bytes(), out);
    put_bytes(entry.json().as_bytes(), out);
}

fn take_newest(
    from: &mut Cursor<'_>,
    applied: Index,
    applied_term: Term,
) -> Result<Option<Entry>, Unsound> {
    let index = from.varint()?;
    if index == 0 {
        return Ok(None);
    }
    let term = from.varint()?;
    let (id, json) = (take_text(from)?, take_text(from)?);
    let sound = index <= applied.0
        && term <= applied_term.0
        && id.len() <= ID_LIMIT_BYTES
        && !json.is_empty();
    ensure(sound, || {
        let (id, json) = (id.len(), json.len());
        format!("the newest at {index} of term {term}, {id} bytes of id and {json} of JSON")
    })?;
    let payload = Bytes::from([id, json].concat());
    let (id, json) = (0..id.len(), id.len()..payload.len());
    Ok(Some(Entry::from_parts(index, term, payload, id, json)))
}
