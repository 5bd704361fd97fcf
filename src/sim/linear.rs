//! Whether what clients saw of an object can be explained by one order: a checker of
//! linearizability.
//!
//! A *history* says of each call when it was made, when it was answered, and with
//! what. It is linearizable (Herlihy and Wing, "Linearizability: a correctness
//! condition for concurrent objects", 1990) if each call can be given one moment
//! between its call and its answer at which it took effect, such that the object,
//! doing one operation after the other in the order of these moments, would have
//! given just these answers.
//!
//! ```text
//!   client 0   ├── write 1 ────┤       ├──── write 2 ──────┤
//!   client 1         ├── read: 1 ────┤     ├──── read: 2 ──────┤
//!                  ▲    ▲                      ▲     ▲
//!               write 1, read 1             write 2, read 2: such moments
//! ```
//!
//! # How it is found
//!
//! The search is that of Wing and Gong ("Testing and verifying concurrent objects",
//! 1993): whichever call comes first in the order, it was made before any call was
//! answered. So try each of these in turn; where the model says that the object
//! could have given that answer, take the call out of the history and go on with
//! what is left; where nothing fits, put the last one back and try the next. Lowe
//! ("Testing for linearizability", 2017) made it quick: after two orders of the same
//! calls that lead to the same state, the rest of the search is the same too, so
//! each pair of (calls placed, state) is gone into once. Here are also:
//!
//! - *Calls without an answer*: they may take effect at any moment after the call,
//!   or never. They can be placed, and need not be.
//! - *Calls that change nothing* ([`Model::goes_first`]): placed as soon as their
//!   answer fits, and no other place is tried.
//! - *Cells*: in a key of a key-value store to which no value is written twice
//!   ([`Cell`]), an answer tells which call it saw, and that tells much of when. Each
//!   call's span is narrowed before the search, and no value is replaced before all
//!   have seen it who must. So some hundred requests of unknown fate are no burden,
//!   and 5,000 calls of eight clients at once take some 10 ms in a release build.
//!
//! A history of many objects is linearizable if that of each of them is (locality,
//! Herlihy and Wing §3.3). So [`check_cells`] judges key by key.
//!
//! # Times
//!
//! All times of one history are of one clock; microseconds, or any other count that
//! never goes back. An answer and a call at the same time overlap: the clock cannot
//! say which came first, so the checker accuses nobody over it.
//!
//! # What it does not do
//!
//! To decide this is hard in general (NP-complete: Gibbons and Korach, "Testing shared
//! memories", 1997), so the search gives up after so much work and says so:
//! [`Verdict::Undecided`] is neither good nor bad. And it trusts the history: a
//! request that was answered with a refusal (it did not and will not take effect)
//! belongs left out, one that may still take effect belongs in, without an answer.

mod cell;
mod narrow;
mod patient;
mod report;
mod search;
#[cfg(test)]
mod tests;

use std::hash::Hash;

pub use cell::{
    Cell, CellAnswer, CellOperation, CellState, First, check_cell, check_cell_within, check_cells,
};

use search::{Piece, search};

/// [`check`] gives up after so much work: each operation tried counts one, and each
/// point of the search that is remembered, in order not to go into it again, 16 and
/// one for each 64 calls under way there. All of it is a second or two in a release
/// build, and some hundred megabytes. [`Model`] has an example of [`check_within`], which is
/// given another.
pub const WORK_LIMIT: u64 = 20_000_000;

/// What an object does, one operation at a time: what a history is held against.
///
/// ```
/// use kontiki::sim::linear::{Call, Model, Verdict, check, check_within};
///
/// /// A counter: each operation adds to it and is answered with the sum.
/// struct Counter;
///
/// impl Model for Counter {
///     type State = u64;
///     type Operation = u64;
///     type Answer = u64;
///
///     fn start() -> u64 {
///         0
///     }
///
///     fn step(sum: &u64, added: &u64, answer: Option<&u64>) -> Option<u64> {
///         let sum = sum + added;
///         answer.is_none_or(|&answer| answer == sum).then_some(sum)
///     }
/// }
///
/// let call = |added, called, answered| Call { client: 0, operation: added, called, answered };
/// // They overlap, and the one that was called later came first.
/// let history = [call(2, 10, Some((40, 5))), call(3, 20, Some((30, 3)))];
/// assert!(check::<Counter>(&history).is_linearizable());
/// // One after the other, they must add up in that order.
/// let history = [call(2, 10, Some((20, 5))), call(3, 30, Some((40, 3)))];
/// let Verdict::NotLinearizable { placed, stuck } = check::<Counter>(&history) else { panic!() };
/// assert_eq!((placed, stuck), (vec![], vec![0])); // the first says 5, and can only be 2
/// // So little work decides nothing.
/// assert_eq!(check_within::<Counter>(&history, 0), Verdict::Undecided { limit: 0 });
/// ```
pub trait Model {
    /// All that decides what the object does from here on.
    type State: Clone + Eq + Hash;
    /// What can be asked of the object.
    type Operation;
    /// What it can answer.
    type Answer;

    /// The state before the first operation.
    fn start() -> Self::State;

    /// The state after `operation`, if in `state` it could have given this answer;
    /// else `None`. Where `answer` is `None`, nobody knows what it gave, and any
    /// answer will do.
    fn step(
        state: &Self::State,
        operation: &Self::Operation,
        answer: Option<&Self::Answer>,
    ) -> Option<Self::State>;

    /// Whether a call with this answer may go before all others, wherever the answer
    /// fits: whenever an order explains it and the others, so does one that begins
    /// with it. That is so for one that changes nothing whatever the state is: a
    /// read, say.
    ///
    /// Such a call is placed as soon as its answer fits, and no other place is tried.
    /// `false`, as it is unless a model says otherwise, is always right, and slower. With reads
    /// among the operations of [`Model`]'s example it would be
    ///
    /// ```
    /// # enum Operation { Add(u64), Read }
    /// # struct Counter;
    /// # impl Counter {
    /// fn goes_first(operation: &Operation, _sum: &u64) -> bool {
    ///     matches!(operation, Operation::Read | Operation::Add(0))
    /// }
    /// # }
    /// # assert!(Counter::goes_first(&Operation::Read, &0) && !Counter::goes_first(&Operation::Add(1), &1));
    /// ```
    fn goes_first(operation: &Self::Operation, answer: &Self::Answer) -> bool {
        let _ = (operation, answer);
        false
    }
}

/// One call of a history. See [`Model`] for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call<O, A> {
    /// Who called; any number, for reports only. One client may have many calls
    /// under way at once.
    pub client: usize,
    /// What was asked.
    pub operation: O,
    /// When it was called, in microseconds or any other count that never goes back.
    pub called: u64,
    /// When it was answered, not before `called`, and with what. `None`: it was not,
    /// or the answer was that nobody knows; then it may take effect at any time after
    /// the call, or never.
    pub answered: Option<(u64, A)>,
}

impl<O, A> Call<O, A> {
    /// When it was called and, if so, when it was answered.
    fn span(&self) -> (u64, Option<u64>) {
        let Call { client, called, .. } = *self;
        let answered = self.answered.as_ref().map(|&(at, _)| at);
        if let Some(at) = answered {
            assert!(at >= called, "client {client} was answered at {at}, but called at {called}");
        }
        (called, answered)
    }
}

/// What [`check`] found. Calls are named by their place in the history, from 0. See [`Model`]
/// for an example.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// There is an order that explains every answer.
    Linearizable {
        /// Such an order: all calls that were answered, and those without an answer
        /// that were taken to have had an effect.
        order: Vec<usize>,
    },
    /// No order explains every answer.
    NotLinearizable {
        /// The longest beginning of an order that was found: it explains all that it
        /// holds, and the first answer that came after it stands for what is missing.
        placed: Vec<usize>,
        /// One of these would have to come next, and none can: the calls, in the order
        /// in which they were made, that came before the first answer to a call that
        /// is not in `placed`. Never empty.
        stuck: Vec<usize>,
    },
    /// The work reached its limit, and either may be true.
    Undecided {
        /// The limit, as in [`WORK_LIMIT`].
        limit: u64,
    },
}

impl Verdict {
    /// Whether an order was found. Not so when the search gave up.
    pub fn is_linearizable(&self) -> bool {
        matches!(self, Verdict::Linearizable { .. })
    }
}

/// Whether an order explains the history of one object, found with at most
/// [`WORK_LIMIT`] work. The calls may stand in any order. See [`Model`] for an example.
///
/// # Panics
///
/// If a call was answered before it was made.
pub fn check<M: Model>(history: &[Call<M::Operation, M::Answer>]) -> Verdict {
    check_within::<M>(history, WORK_LIMIT)
}

/// The same as [`check`], with a limit of the caller's: any number, counted as
/// [`WORK_LIMIT`] says. See [`Model`] for an example.
///
/// # Panics
///
/// If a call was answered before it was made.
pub fn check_within<M: Model>(history: &[Call<M::Operation, M::Answer>], limit: u64) -> Verdict {
    let pieces = history.iter().enumerate().map(|(number, call)| Piece::of(number, call));
    search::<M>(M::start(), pieces.collect(), limit)
}
