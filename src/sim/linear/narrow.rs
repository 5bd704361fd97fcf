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
//! A swap that took effect found what it expected; so whoever wrote that did so no
//! later, and so on back.
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
//! **What was seen begins no earlier than who saw it.** Take an order that explains
//! the history, and in it a write of a value that calls found. Between it and the
//! first of these stands nothing: each call of the narrowed history either sets the
//! cell, and then the value would be gone for good, or finds what is there. (That is
//! why the rule is only for cells without an id: a lookup does neither.) So
//! nothing hinders that the write took effect right before it, or at its own end if
//! that comes first; in no case before the first call of one who found the value.
//! Going through the order from its end, this can be done to all writes at once, so
//! a swap that was moved moves what it found in turn. With this, a write of unknown
//! fate that shows an hour later has not been in the search's way for an hour.
//!
//! **Under an id, one takes effect.** Which one is told by its value if that was seen,
//! and by nothing else: all get the same answer. The first answer of any `Once`, or of a lookup that
//! finds it, or one that speaks of its value, ends the one that took effect. Of those
//! that were never answered:
//!
//! - Without such an answer none is needed, for nobody noticed.
//! - If the value of some `Once` was seen, that one took effect. The others without an
//!   answer changed nothing and were told nobody.
//! - Else, if one without an answer took effect, the one that was called earliest can
//!   have done so at that very moment instead, for nobody saw the value. And if it
//!   did not take effect itself it may be placed after whichever did, before that
//!   same first answer. So this one is kept, to end there, and the others are not.

use std::collections::BTreeMap;

use super::cell::{Cell, CellAnswer, CellOperation};
use super::search::Piece;

type Call = super::Call<CellOperation, CellAnswer>;

/// A call that must be explained, within as short a span as can be told.
pub(super) struct Narrow {
    /// Its place in the history.
    number: usize,
    operation: CellOperation,
    /// What it gave, if that is known.
    answer: Option<CellAnswer>,
    from: u64,
    until: u64,
}

/// The calls of one cell's history that must be explained.
pub(super) fn narrowed(history: &[Call]) -> Vec<Narrow> {
    let seen = Seen::new(history);
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
        })
    };
    let mut calls: Vec<Narrow> = history.iter().enumerate().filter_map(narrow).collect();
    let is_of_an_id =
        |call: &Call| matches!(call.operation, CellOperation::Once { .. } | CellOperation::Lookup);
    if !history.iter().any(is_of_an_id) {
        begin_late(&mut calls);
    }
    calls
}

impl Narrow {
    /// The call as the search takes it.
    pub fn piece(&self) -> Piece<'_, Cell> {
        Piece {
            number: self.number,
            from: self.from,
            until: Some(self.until),
            operation: &self.operation,
            answer: self.answer.as_ref(),
        }
    }

    /// The value that it wrote.
    fn wrote(&self) -> Option<u64> {
        match (self.operation, self.answer) {
            (CellOperation::Swap { expected, .. }, Some(CellAnswer::Was(was)))
                if was != expected =>
            {
                None
            }
            (operation, _) => value_of(operation),
        }
    }

    /// The value that it found.
    fn found(&self) -> Option<u64> {
        match self.answer {
            Some(CellAnswer::Was(value) | CellAnswer::Value(value)) => value,
            _ => None,
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
    /// The `Once` without an answer that stands for all such.
    stand_in: Option<usize>,
}

impl Seen {
    fn new(history: &[Call]) -> Seen {
        let writers = writers(history);
        let values = values_seen(history, &writers);
        let onces: Vec<usize> = (0..history.len())
            .filter(|&number| matches!(history[number].operation, CellOperation::Once { .. }))
            .collect();
        let shown = onces.iter().filter_map(|&number| {
            value_of(history[number].operation).and_then(|value| values.get(&value).copied())
        });
        let first_shown = shown.min();
        let told = history.iter().filter_map(|call| match call.answered {
            Some((at, CellAnswer::Settled { .. } | CellAnswer::Found { .. })) => Some(at),
            _ => None,
        });
        let unanswered = onces.iter().copied().filter(|&number| history[number].answered.is_none());
        Seen {
            settled: told.chain(first_shown).min(),
            stand_in: unanswered
                .filter(|_| first_shown.is_none())
                .min_by_key(|&number| history[number].called),
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
        // Earlier answers came first, so what is known stays; and with it is known
        // whatever swaps had to find for it to be there.
        while let Some(value) = next.filter(|value| !seen.contains_key(value)) {
            seen.insert(value, at);
            next = writers.get(&value).and_then(|writer| match writer.operation {
                CellOperation::Swap { expected, .. } => expected,
                _ => None,
            });
        }
    }
    seen
}

/// Lets each write whose value was found begin where the first call begins that
/// found it, or where it must end itself.
fn begin_late(calls: &mut [Narrow]) {
    // Who wrote a value, and what began first of all that found it.
    let mut writers = BTreeMap::new();
    let mut first_look: BTreeMap<u64, u64> = BTreeMap::new();
    for (place, call) in calls.iter().enumerate() {
        match call.wrote() {
            Some(value) => _ = writers.insert(value, place),
            None => look(&mut first_look, call),
        }
    }
    // Back from each write that no other write found: so what found a value has
    // been moved before what wrote it. (Two writes that both found one value cannot
    // be explained, and neither can a ring of them.)
    let mut is_found = vec![false; calls.len()];
    for &place in writers.values() {
        if let Some(&writer) = calls[place].found().and_then(|value| writers.get(&value)) {
            is_found[writer] = true;
        }
    }
    let mut is_done = vec![false; calls.len()];
    for place in writers.values().copied().filter(|&place| !is_found[place]) {
        let mut next = Some(place);
        while let Some(place) = next.filter(|&place| !is_done[place]) {
            is_done[place] = true;
            let call = &mut calls[place];
            if let Some(&from) = call.wrote().and_then(|value| first_look.get(&value)) {
                call.from = call.from.max(from.min(call.until));
            }
            look(&mut first_look, call);
            next = call.found().and_then(|value| writers.get(&value).copied());
        }
    }
}

/// Notes when the call began that found a value.
fn look(first_look: &mut BTreeMap<u64, u64>, call: &Narrow) {
    if let Some(value) = call.found() {
        let first = first_look.entry(value).or_insert(call.from);
        *first = call.from.min(*first);
    }
}
