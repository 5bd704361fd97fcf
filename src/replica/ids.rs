//! The callers' own ids among the last so many client entries, and what the
//! command that first carried each came to.
//!
//! An id counts from the entry that was applied with it; a later entry that
//! repeats it gets the first one's reply and does not make it younger. So an id is
//! forgotten exactly when so many client entries have followed on that one.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::encoding::Refusal;
use crate::encoding::cursor::{Cursor, put_varint};
use crate::operation::ID_LIMIT_BYTES;

use super::snapshot::{Unsound, ensure, put_answer, put_bytes, take_text};
use super::values::Values;
use super::{Answer, State};

/// The ids that are remembered.
pub(super) struct Ids {
    /// An id is remembered among the last so many client entries.
    span: u64,
    /// In the order of the log.
    seen: VecDeque<Seen>,
    /// The number of the first in `seen`; numbers count all ids that ever were.
    first: u64,
    /// The number of each id. For finding only: its order is never looked at.
    numbers: HashMap<Arc<str>, u64>,
}

#[derive(Debug)]
struct Seen {
    id: Arc<str>,
    /// Which client entry it was, counted from 1.
    at: u64,
    answer: Answer,
}

impl Ids {
    pub fn new(span: u64) -> Ids {
        Ids { span, seen: VecDeque::new(), first: 0, numbers: HashMap::new() }
    }

    /// What the command with this id came to.
    pub fn find(&self, id: &str) -> Option<Answer> {
        let number = self.numbers.get(id)?;
        let place = usize::try_from(number - self.first).ok()?;
        Some(self.seen.get(place)?.answer)
    }

    /// Remembers an id that was not known, carried by client entry number `at`.
    /// The caller has taken hold of the answer's value.
    pub fn remember(&mut self, id: &str, at: u64, answer: Answer) {
        let is_new = self.add(id, at, answer);
        assert!(is_new, "the id {id:?} was applied twice within its span");
    }

    /// False if the id was known.
    fn add(&mut self, id: &str, at: u64, answer: Answer) -> bool {
        let id: Arc<str> = Arc::from(id);
        let number = self.first + self.seen.len() as u64;
        let known = self.numbers.insert(Arc::clone(&id), number);
        self.seen.push_back(Seen { id, at, answer });
        known.is_none()
    }

    /// Forgets the ids that are not among the last entries up to number `now`.
    pub fn forget(&mut self, now: u64, values: &mut Values) {
        while self.seen.front().is_some_and(|seen| now - seen.at >= self.span) {
            let Some(seen) = self.seen.pop_front() else {
                break;
            };
            self.first += 1;
            self.numbers.remove(&seen.id);
            values.release(seen.answer.value);
        }
    }

    /// Appends the ids as snapshots have them.
    pub fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, self.first);
        put_varint(out, self.seen.len() as u64);
        for seen in &self.seen {
            put_bytes(seen.id.as_bytes(), out);
            put_varint(out, seen.at);
            put_answer(seen.answer, out);
        }
    }

    /// About how many bytes `put` writes.
    pub fn size_bytes(&self) -> usize {
        self.seen.iter().map(|seen| seen.id.len() + 16).sum()
    }

    /// Reads the ids of a state whose values are there.
    pub fn take(from: &mut Cursor<'_>, state: &mut State, span: u64) -> Result<Ids, Unsound> {
        let now = state.client_entries;
        let mut ids = Ids::new(span);
        ids.first = from.varint()?;
        let count = from.count(usize::try_from(span).unwrap_or(usize::MAX))?;
        // Each client entry carries at most one.
        ensure(ids.first <= now.saturating_sub(count as u64), || {
            format!("ids {} and on, {count} of {now} entries", ids.first)
        })?;
        let mut before = (0, 0);
        for _ in 0..count {
            let id = take_text(from)?;
            let at = from.varint()?;
            let answer = state.take_answer(from)?.ok_or(Refusal::Malformed)?;
            let place = (at, answer.index.get());
            let sound = (1..=ID_LIMIT_BYTES).contains(&id.len())
                && (before.0 < place.0 && before.1 < place.1 && place.0 <= place.1)
                && (at <= now && now - at < span);
            ensure(sound, || format!("the id {id:?} at {place:?}, behind {before:?}, of {now}"))?;
            ensure(ids.add(id, at, answer), || format!("the id {id:?} twice"))?;
            before = place;
        }
        Ok(ids)
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        assert_eq!(self.seen.len(), self.numbers.len());
        self.seen.len()
    }

    #[cfg(test)]
    pub fn digest(&self) -> String {
        format!("{} {:?}", self.first, self.seen)
    }
}
