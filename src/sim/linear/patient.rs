//! The model that the calls of one cell are searched with: a cell that keeps each
//! value until all have found it who must.
//!
//! No value is written twice, so one that was replaced never comes back; and the
//! answers tell beforehand how many calls find each. To replace a value that a call
//! must still find leads nowhere, and the search would only learn that when it
//! stands before that call's answer, after it has tried all there is to try in
//! between. This model refuses it at once, and refuses nothing else that [`Cell`]
//! allows.

use super::Model;
use super::cell::{Cell, CellOperation, CellState};
use super::narrow::{Finders, Narrow};

pub(super) struct Patient;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct PatientState {
    pub cell: CellState,
    /// So many calls must find the value that is there, and have not yet.
    pub awaited: usize,
}

impl PatientState {
    /// The state before the calls of this history.
    pub fn before(calls: &[Narrow]) -> PatientState {
        let awaited = calls.iter().filter(|call| call.found() == Some(None)).count();
        PatientState { cell: Cell::start(), awaited }
    }
}

impl Model for Patient {
    type State = PatientState;
    type Operation = Narrow;
    type Answer = ();

    fn start() -> PatientState {
        PatientState::before(&[])
    }

    fn step(state: &PatientState, call: &Narrow, _: Option<&()>) -> Option<PatientState> {
        let cell = Cell::step(&state.cell, &call.operation, call.answer.as_ref())?;
        let awaited = state.awaited - usize::from(call.found().is_some());
        match (cell.value == state.cell.value, awaited) {
            (true, awaited) => Some(PatientState { cell, awaited }),
            (false, 0) => Some(PatientState { cell, awaited: call.finders.count }),
            (false, _) => None,
        }
    }

    /// Three kinds of call may go before all others, wherever the model lets them come.
    ///
    /// - One that finds what is there. If it only looks, it is in nobody's way. If it
    ///   sets the cell, it is the last that must find the value, and until it comes
    ///   no other may set the cell.
    /// - A lookup, as for [`Cell`].
    /// - A write that finds nothing itself, if all that find its value have been called
    ///   and none of them sets the cell. Then they all may come now, right behind it.
    ///   In an order that has them later they stand together too. Before them stands
    ///   a value that all have found, and behind them a call that sets the cell
    ///   without a look; so does the one that comes next now, for what is there was
    ///   found by all. So they may as well be taken out there and put here. (But not
    ///   in a cell of an id: what the first answer under it tells of the cell before
    ///   is not counted as found.)
    fn goes_first(call: &Narrow, (): &()) -> bool {
        let Finders { last_called, one_sets, .. } = call.finders;
        match call.operation {
            _ if call.found().is_some() => true,
            CellOperation::Lookup => true,
            CellOperation::Write(_) => !call.is_of_an_id && !one_sets && last_called <= call.from,
            _ => false,
        }
    }
}
