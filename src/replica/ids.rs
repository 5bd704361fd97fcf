//! The callers' own ids among the last so many client entries, and what the
//! command that first carried each came to.
//!
//! An id counts from the entry that was applied with it; a later entry that
//! repeats it gets the first one's reply and does not make it younger. So an id is
//! forgotten exactly when so many client entries have followed on that one.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::Answer;
use super::values::Values;

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
        let id: Arc<str> = Arc::from(id);
        let number = self.first + self.seen.len() as u64;
        let known = self.numbers.insert(Arc::clone(&id), number);
        assert!(known.is_none(), "the id {id:?} was applied twice within its span");
        self.seen.push_back(Seen { id, at, answer });
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
