//! What can be said of the calls of one cell before any search, because no value is
//! written to it twice: which requests of unknown fate had an effect, and when it
//! must have been.
//!
//! An order explains the calls as narrowed here if and only if one explains them as
//! they were. That is argued for each rule below; that an order of the narrowed ones
//! explains the others is plain, for spans only get shorter and what is left out need
//! not have happened. For short, a call *finds* a value if the cell holds it at the
//! moment of the call, and the call's answer hangs on that.
//!
//! **What was seen ends what wrote it.** An answer that speaks of a value was given
//! after the value was written, and only one call writes it. So this call took effect,
//! by the time of that answer at the latest, even if it was never answered itself.
//! A swap that took effect found what it expected, and a write what its answer says;
//! so whoever wrote that did so no later, and so on back.
//!
//! **What was not seen never was.** Take an order that explains the history, and in
//! it a write (or swap) that was never answered and whose value no answer speaks of.
//! Leave it out. Only calls after it could notice, up to the next one that sets the
//! cell anew. Were there one among them whose answer hangs on the value, the value
//! would have been seen: by its answer, or, if it is a swap without an answer that
//! took effect, as what that expected (and where that is not seen either, leave it
//! out first). So nobody notices, and a request of unknown fate that was not seen is
//! no work for the search. Reads and lookups without an answer explain nothing and
//! hinder nothing: they are left out too.
//!
//! **What was seen begins no earlier than the last who saw it.** All that times ask of
//! an order is that no call stands behind one that began after it had ended. Take an
//! order that explains the history, and in it a write of a value that calls found.
//! Whatever else sets the cell stands behind all of these, or they would not have
//! found it. So what stands behind the write is one of them, and did not end before
//! the write must; or it stands behind the last of them, and did not end before that
//! began. (Or it is a lookup, or repeats what was settled under the id. If it tells
//! of this very call, then it did not end before the write must, either; else it may
//! as well stand before it.) Hence it makes no difference if the write begins only
//! when the last call began that found its value, or when it must end itself if that
//! is sooner. With this, a write of unknown fate that shows an hour later was not in
//! the way of the search for an hour.
//!
//! **Under an id, one takes effect.** Its value tells which, if that was seen; answers
//! under the id do not, for all get the same. The first sign that one did is the first
//! answer of a `Once`, or of a lookup that finds it, or that speaks of its value; the
//! one that took effect did so by then. Of those that were never answered:
//!
//! - Where there is no such sign, none is needed: nobody noticed.
//! - If the value of a `Once` was seen, that one took effect. The others changed nothing
//!   and told nobody.
//! - Else, if one of them took effect, the one that was called first can have done so
//!   at that moment in its stead, for nobody saw the value. And if an answered one
//!   took effect, then this one can stand behind it, and still before the sign was
//!   given or in its own first moment. So it is kept, to end with the sign, and stands
//!   in for the others.

use std::collections::BTreeMap;

use super::cell::{CellAnswer, CellOperation};
use super::patient::Patient;
use super::search::Piece;

type Call = super::Call<CellOperation, CellAnswer>;

/// A call that must be explained, within as short a span as can be told.
pub(super) struct Narrow {
    /// Its place in the history.
    pub number: usize,
    pub operation: CellOperation,
    /// What it gave, if that is known.
    pub answer: Option<CellAnswer>,
    pub from: u64,
    pub until: u64,
    /// Those that find the value that it writes.
    pub finders: Finders,
    /// Whether the cell is one that an id belongs to.
    pub is_of_an_id: bool,
}

/// The calls that find a value.
#[derive(Clone, Copy, Default)]
pub(super) struct Finders {
    pub count: usize,
    pub last_called: u64,
    /// Whether one of them sets the cell.
    pub one_sets: bool,
}

/// The calls of one cell's history that must be explained.
pub(super) fn narrowed(history: &[Call]) -> Vec<Narrow> {
    let seen = Seen::new(history);
    let is_of_an_id = history
        .iter()
        .any(|call| matches!(call.operation, CellOperation::Once { .. } | CellOperation::Lookup));
    let narrow = |(number, call): (usize, &Call)| {
        let (called, answered) = call.span();
        let until = answered.into_iter().chain(seen.until(number, call)).min()?;
        Some(Narrow {
            number,
            operation: call.operation,
            answer: call.answered.map(|(_, answer)| answer).or(match call.operation {
                CellOperation::Swap { expected, .. } => Some(CellAnswer::Was(expected)),
                _ => None,
            }),
            from: called,
            // What was seen before it was called is beyond explaining. The search
            // finds that, if only the span is one.
            until: until.max(called),
            finders: Finders::default(),
            is_of_an_id,
        })
    };
    let mut calls: Vec<Narrow> = history.iter().enumerate().filter_map(narrow).collect();
    await_finders(&mut calls);
    calls
}

/// Tells each call who finds what it writes, and lets it begin no earlier than the
/// last of them.
fn await_finders(calls: &mut [Narrow]) {
    let mut finders: BTreeMap<u64, Finders> = BTreeMap::new();
    for call in calls.iter() {
        if let Some(Some(value)) = call.found() {
            let finders = finders.entry(value).or_default();
            finders.count += 1;
            finders.last_called = call.from.max(finders.last_called);
            finders.one_sets |= call.sets();
        }
    }
    for call in calls {
        if let Some(&found) = value_of(call.operation).and_then(|value| finders.get(&value)) {
            call.finders = found;
            call.from = call.from.max(found.last_called.min(call.until));
        }
    }
}

impl Narrow {
    /// The call as the search takes it.
    pub fn piece(&self) -> Piece<'_, Patient> {
        let until = Some(self.until);
        Piece { number: self.number, from: self.from, until, operation: self, answer: Some(&()) }
    }

    /// What it found in the cell, where its answer hangs on that.
    pub fn found(&self) -> Option<Option<u64>> {
        match self.answer {
            Some(CellAnswer::Was(value) | CellAnswer::Value(value)) => Some(value),
            _ => None,
        }
    }

    /// Whether it set the cell.
    fn sets(&self) -> bool {
        match (self.operation, self.answer) {
            (CellOperation::Swap { expected, .. }, Some(CellAnswer::Was(was))) => was == expected,
            (operation, _) => value_of(operation).is_some(),
        }
    }
}

/// The value that an operation writes if it takes effect.
pub(super) fn value_of(operation: CellOperation) -> Option<u64> {
    match operation {
        CellOperation::Write(value)
        | CellOperation::Swap { value, .. }
        | CellOperation::Once { value } => Some(value),
        CellOperation::Read | CellOperation::Lookup => None,
    }
}

/// The value that was written before this answer, as it says.
pub(super) fn told(answer: CellAnswer) -> Option<u64> {
    match answer {
        CellAnswer::Was(value)
        | CellAnswer::Value(value)
        | CellAnswer::Settled { previous: value, .. } => value,
        CellAnswer::Done | CellAnswer::Found { .. } | CellAnswer::Missing => None,
    }
}

/// What the answers of a history tell of other calls than their own.
struct Seen {
    /// When a value was first known to have been written.
    values: BTreeMap<u64, u64>,
    /// When something was first known to have been committed under the id.
    settled: Option<u64>,
    /// The `Once` without an answer that stands in for all such.
    stand_in: Option<usize>,
}

impl Seen {
    fn new(history: &[Call]) -> Seen {
        let writers = writers(history);
        let values = values_seen(history, &writers);
        let onces = || {
            history.iter().enumerate().filter_map(|(number, call)| match call.operation {
                CellOperation::Once { value } => Some((number, value, call)),
                _ => None,
            })
        };
        let shown = onces().filter_map(|(_, value, _)| values.get(&value).copied()).min();
        let answers = history.iter().filter_map(|call| call.answered);
        let told = answers.filter_map(|(at, answer)| match answer {
            CellAnswer::Settled { .. } | CellAnswer::Found { .. } => Some(at),
            _ => None,
        });
        let unanswered = onces().filter(|(_, _, call)| call.answered.is_none());
        let earliest = unanswered.min_by_key(|(_, _, call)| call.called);
        Seen {
            settled: told.chain(shown).min(),
            stand_in: earliest.map(|(number, ..)| number).filter(|_| shown.is_none()),
            values,
        }
    }

    /// When others' answers show that this call had taken effect, if they do.
    fn until(&self, number: usize, call: &Call) -> Option<u64> {
        let shown = value_of(call.operation).and_then(|value| self.values.get(&value).copied());
        match call.operation {
            CellOperation::Once { .. } if shown.is_some() || self.stand_in == Some(number) => {
                self.settled
            }
            _ => shown,
        }
    }
}

/// Which call may have written a value.
fn writers(history: &[Call]) -> BTreeMap<u64, &Call> {
    let mut writers = BTreeMap::new();
    for call in history {
        if let Some(value) = value_of(call.operation) {
            let other = writers.insert(value, call);
            assert!(other.is_none(), "{value} was written twice, so nothing tells by whom");
        }
    }
    writers
}

/// When each value that was seen was first known to have been written.
fn values_seen(history: &[Call], writers: &BTreeMap<u64, &Call>) -> BTreeMap<u64, u64> {
    let answers = history.iter().filter_map(|call| call.answered);
    let mut answers: Vec<(u64, u64)> =
        answers.filter_map(|(at, answer)| Some((at, told(answer)?))).collect();
    answers.sort_unstable();
    let mut seen = BTreeMap::new();
    for (at, value) in answers {
        let mut next = Some(value);
        // Earlier answers came first, so what is known stays. And with it is known
        // what had to be found for it to be written.
        while let Some(value) = next.filter(|value| !seen.contains_key(value)) {
            seen.insert(value, at);
            next =
                writers.get(&value).and_then(|writer| match (writer.operation, writer.answered) {
                    (CellOperation::Swap { expected, .. }, _) => expected,
                    (CellOperation::Write(_), Some((_, CellAnswer::Was(was)))) => was,
                    _ => None,
                });
        }
    }
    seen
}
