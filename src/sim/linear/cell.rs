//! A cell: one key of a key-value store, or what is kept under one id of a caller's.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;

use super::narrow::{Narrow, narrowed};
use super::patient::PatientState;
use super::report::report;
use super::search::search;
use super::{Call, Model, Verdict, WORK_LIMIT};

/// The model of a cell. It holds a value, at first none; and under the one id that
/// belongs to it, at first nothing was committed.
///
/// [`check_cell`] and [`check_cells`] are the way to use it. [`check`](super::check)
/// takes it too, knows nothing of values that are written once only, and so may give
/// up where they do not.
#[derive(Debug)]
pub struct Cell;

/// What is asked of a cell. See [`check_cell`] for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CellOperation {
    /// Sets it to this. Answered with [`Done`](CellAnswer::Done) or
    /// [`Was`](CellAnswer::Was).
    Write(u64),
    /// Compare and swap. Answered with [`Was`](CellAnswer::Was): it took effect if
    /// that is `expected`, and else changed nothing.
    Swap {
        /// It takes effect on a cell that holds this; `None`: on one without a value.
        expected: Option<u64>,
        /// What the cell is set to.
        value: u64,
    },
    /// Answered with [`Value`](CellAnswer::Value).
    Read,
    /// Sets the cell to `value` under the id that belongs to it. Answered with
    /// [`Settled`](CellAnswer::Settled). Only the first under an id takes effect; all
    /// others get its very answer and change nothing.
    Once {
        /// What the cell is set to.
        value: u64,
    },
    /// What was committed under the id? Answered with [`Missing`](CellAnswer::Missing),
    /// [`Found`](CellAnswer::Found) or [`Settled`](CellAnswer::Settled).
    Lookup,
}

/// What a cell answers. See [`check_cell`] for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CellAnswer {
    /// It was written; the store says nothing of what was there.
    Done,
    /// The cell held this before the operation.
    Was(Option<u64>),
    /// The cell holds this.
    Value(Option<u64>),
    /// The answer to the first operation under the id.
    Settled {
        /// Which entry of the log it was.
        index: u64,
        /// What the cell held before it.
        previous: Option<u64>,
    },
    /// An operation was committed under the id, and no more than this was said of it.
    Found {
        /// Which entry of the log it was.
        index: u64,
    },
    /// No operation was committed under the id.
    Missing,
}

/// What a cell holds. See [`check_cell`] for an example.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CellState {
    /// Its value.
    pub value: Option<u64>,
    /// The first operation under its id.
    pub first: Option<First>,
}

/// What is known of the first operation under an id. See [`check_cell`] for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct First {
    /// Which entry of the log it was; `None` until an answer says so.
    pub index: Option<u64>,
    /// What the cell held before it.
    pub previous: Option<u64>,
}

impl Model for Cell {
    type State = CellState;
    type Operation = CellOperation;
    type Answer = CellAnswer;

    fn start() -> CellState {
        CellState::default()
    }

    fn step(
        state: &CellState,
        operation: &CellOperation,
        answer: Option<&CellAnswer>,
    ) -> Option<CellState> {
        let set = |value| CellState { value: Some(value), ..*state };
        match (*operation, answer.copied()) {
            (CellOperation::Write(value), None | Some(CellAnswer::Done)) => Some(set(value)),
            (CellOperation::Write(value), Some(CellAnswer::Was(was))) => {
                (was == state.value).then(|| set(value))
            }
            (CellOperation::Swap { expected, value }, None) => {
                Some(if state.value == expected { set(value) } else { *state })
            }
            (CellOperation::Swap { expected, value }, Some(CellAnswer::Was(was))) => {
                (was == state.value).then(|| if was == expected { set(value) } else { *state })
            }
            (CellOperation::Read, None) => Some(*state),
            (CellOperation::Read, Some(CellAnswer::Value(value))) => {
                (value == state.value).then_some(*state)
            }
            (CellOperation::Once { value }, None | Some(CellAnswer::Settled { .. })) => {
                let first = First { index: None, previous: state.value };
                let settled = match state.first {
                    Some(_) => *state,
                    None => CellState { value: Some(value), first: Some(first) },
                };
                answer.map_or(Some(settled), |answer| settled.knowing(answer))
            }
            (CellOperation::Lookup, None) => Some(*state),
            (CellOperation::Lookup, Some(answer)) => state.knowing(&answer),
            _ => None,
        }
    }

    fn goes_first(operation: &CellOperation, answer: &CellAnswer) -> bool {
        match (*operation, *answer) {
            (CellOperation::Swap { expected, .. }, CellAnswer::Was(was)) => was != expected,
            // A lookup may be the first to tell the index; but that was settled before,
            // and to know it early is in nobody's way.
            (CellOperation::Read | CellOperation::Lookup, _) => true,
            _ => false,
        }
    }
}

impl CellState {
    /// The same, with what the answer says of the first operation under the id; or
    /// `None`, if that cannot be.
    fn knowing(&self, answer: &CellAnswer) -> Option<CellState> {
        let (told, previous) = match (*answer, self.first) {
            (CellAnswer::Missing, None) => return Some(*self),
            (CellAnswer::Found { index }, Some(first)) => (index, first.previous),
            (CellAnswer::Settled { index, previous }, Some(_)) => (index, previous),
            _ => return None,
        };
        let first = self.first?;
        let fits = first.index.is_none_or(|index| index == told) && first.previous == previous;
        fits.then_some(CellState { first: Some(First { index: Some(told), previous }), ..*self })
    }
}

/// Whether an order explains the history of one cell, to which no value is written
/// twice, found with at most [`WORK_LIMIT`](super::WORK_LIMIT) work. The calls may
/// stand in any order.
///
/// A cell that is used with an id is of that id alone: all `Once` and `Lookup` of
/// its history are of the same id.
///
/// An [order](Verdict::Linearizable) leaves out what need not have happened. Where
/// there is none, [`stuck`](Verdict::NotLinearizable) has also calls that could come
/// next but would replace a value that another must still see.
///
/// # Panics
///
/// If a call was answered before it was made, or two calls write the same value.
///
/// # Example
///
/// ```
/// use kontiki::sim::linear::{Call, CellAnswer, CellOperation, check_cell};
///
/// let written = Call {
///     client: 0,
///     operation: CellOperation::Write(7),
///     called: 10,
///     answered: Some((20, CellAnswer::Done)),
/// };
/// let read = |value| Call {
///     client: 1,
///     operation: CellOperation::Read,
///     called: 30,
///     answered: Some((40, CellAnswer::Value(value))),
/// };
/// assert!(check_cell(&[written, read(Some(7))]).is_linearizable());
/// assert!(!check_cell(&[written, read(None)]).is_linearizable()); // too old
/// ```
pub fn check_cell(history: &[Call<CellOperation, CellAnswer>]) -> Verdict {
    check_cell_within(history, WORK_LIMIT)
}

/// The same as [`check_cell`], with a limit of the caller's: any number, counted as
/// [`WORK_LIMIT`](super::WORK_LIMIT) says.
///
/// # Panics
///
/// If a call was answered before it was made, or two calls write the same value.
pub fn check_cell_within(history: &[Call<CellOperation, CellAnswer>], limit: u64) -> Verdict {
    let calls = narrowed(history);
    search(PatientState::before(&calls), calls.iter().map(Narrow::piece).collect(), limit)
}

/// Checks each key of a store by itself, as [`check_cell`] does.
///
/// # Errors
///
/// A report for a person to read, about the first key, in their order, that is not
/// linearizable: the first answer that no order explains, an order that explains
/// all answers before it, and what else was under way. Or, where there is no such
/// key, about the first one that could not be decided.
///
/// # Panics
///
/// If a call was answered before it was made, or two calls write the same value
/// to the same key.
pub fn check_cells(
    history: impl IntoIterator<Item = impl Borrow<(String, Call<CellOperation, CellAnswer>)>>,
) -> Result<(), String> {
    check_cells_within(history, WORK_LIMIT)
}

/// The same, with so much work for each key.
pub(super) fn check_cells_within(
    history: impl IntoIterator<Item = impl Borrow<(String, Call<CellOperation, CellAnswer>)>>,
    limit: u64,
) -> Result<(), String> {
    let mut cells: BTreeMap<String, Vec<Call<CellOperation, CellAnswer>>> = BTreeMap::new();
    for call in history {
        let (key, call) = call.borrow();
        cells.entry(key.clone()).or_default().push(*call);
    }
    let mut undecided = Ok(());
    for (key, calls) in cells {
        match check_cell_within(&calls, limit) {
            Verdict::Linearizable { .. } => {}
            Verdict::NotLinearizable { .. } => return Err(report(&key, &calls)),
            Verdict::Undecided { limit } if undecided.is_ok() => {
                undecided = Err(format!(
                    "{key:?} is undecided: its {} calls are too many at once to be judged with \
                     {limit} work",
                    calls.len()
                ));
            }
            Verdict::Undecided { .. } => {}
        }
    }
    undecided
}

/// As a person would say it: "swap 4 for 9".
impl fmt::Display for CellOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            CellOperation::Write(value) => write!(f, "write {value}"),
            CellOperation::Swap { expected, value } => {
                write!(f, "swap {} for {value}", Held(expected))
            }
            CellOperation::Read => write!(f, "read"),
            CellOperation::Once { value } => write!(f, "write {value} once"),
            CellOperation::Lookup => write!(f, "lookup"),
        }
    }
}

/// As a person would say it: "it was 4".
impl fmt::Display for CellAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            CellAnswer::Done => write!(f, "done"),
            CellAnswer::Was(value) => write!(f, "it was {}", Held(value)),
            CellAnswer::Value(value) => write!(f, "it is {}", Held(value)),
            CellAnswer::Settled { index, previous } => {
                write!(f, "settled at {index}, before which it was {}", Held(previous))
            }
            CellAnswer::Found { index } => write!(f, "settled at {index}"),
            CellAnswer::Missing => write!(f, "not found"),
        }
    }
}

/// What a cell holds, in words.
struct Held(Option<u64>);

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(value) => write!(f, "{value}"),
            None => write!(f, "nothing"),
        }
    }
}
