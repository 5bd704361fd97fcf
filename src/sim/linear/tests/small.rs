//! Small histories, against a checker that tries every order on a cell that answers.

use std::collections::BTreeSet;

use super::*;

/// A cell as a store would have it. It is not the model's: that is given an answer
/// and says whether it fits, this one is asked and answers.
#[derive(Clone, Copy, Default)]
pub(super) struct Store {
    pub value: Option<u64>,
    first: Option<(u64, Option<u64>)>,
}

impl Store {
    /// Does the operation; were it to settle the id, at this index.
    pub fn answer(&mut self, operation: CellOperation, index: u64) -> CellAnswer {
        let previous = self.value;
        match operation {
            Write(value) => {
                self.value = Some(value);
                Was(previous)
            }
            Swap { expected, value } => {
                if previous == expected {
                    self.value = Some(value);
                }
                Was(previous)
            }
            Read => Value(previous),
            Once { value } => {
                if self.first.is_none() {
                    self.value = Some(value);
                }
                let (index, previous) = *self.first.get_or_insert((index, previous));
                Settled { index, previous }
            }
            Lookup => match self.first {
                Some((index, previous)) => Settled { index, previous },
                None => Missing,
            },
        }
    }
}

/// Whether the store's answer is what the client was told.
fn is_told(operation: CellOperation, answer: CellAnswer, told: CellAnswer) -> bool {
    match (operation, answer, told) {
        (Write(_), _, Done) => true,
        (Lookup, Settled { index, .. }, Found { index: told }) => index == told,
        _ => answer == told,
    }
}

/// The indexes that answers speak of, and one more.
fn indexes(history: &[CellCall]) -> Vec<u64> {
    let of = |call: &CellCall| match call.answered?.1 {
        Settled { index, .. } | Found { index } => Some(index),
        _ => None,
    };
    let indexes: BTreeSet<u64> = history.iter().filter_map(of).chain([0]).collect();
    indexes.into_iter().collect()
}

/// Whether some order explains a history of at most 32 calls.
pub(super) fn tries_every_order(history: &[CellCall]) -> bool {
    fn tries(history: &[CellCall], indexes: &[u64], taken: u32, store: Store) -> bool {
        let left = || (0..history.len()).filter(|number| taken >> number & 1 == 0);
        if left().all(|number| history[number].answered.is_none()) {
            return true;
        }
        left().any(|number| {
            let Call { operation, called, answered, .. } = history[number];
            let is_first =
                left().all(|other| history[other].answered.is_none_or(|(at, _)| at >= called));
            is_first
                && indexes.iter().any(|&index| {
                    let mut store = store;
                    let answer = store.answer(operation, index);
                    answered.is_none_or(|(_, told)| is_told(operation, answer, told))
                        && tries(history, indexes, taken | 1 << number, store)
                })
        })
    }
    tries(history, &indexes(history), 0, Store::default())
}

/// What a verdict says of the order of calls is so.
#[track_caller]
pub(super) fn holds_water(history: &[CellCall], verdict: &Verdict) {
    let (order, stuck) = match verdict {
        Verdict::Linearizable { order } => (order, None),
        Verdict::NotLinearizable { placed, stuck } => (placed, Some(stuck)),
        Verdict::Undecided { .. } => panic!("undecided: {history:?}"),
    };
    let answered_at = |number: usize| history[number].answered.map(|(at, _)| at);
    let placed: BTreeSet<usize> = order.iter().copied().collect();
    assert_eq!(placed.len(), order.len(), "placed twice: {order:?}");
    let left = || (0..history.len()).filter(|number| !placed.contains(number));
    // The earliest answer to a call that comes later, or not at all.
    let mut earliest = left().filter_map(answered_at).min();
    for &number in order.iter().rev() {
        let called = history[number].called;
        assert!(
            earliest.is_none_or(|at| at >= called),
            "{number} stands before what was answered before it was called: {verdict:?}"
        );
        earliest = earliest.into_iter().chain(answered_at(number)).min();
    }
    let explains = |&index: &u64| {
        let mut store = Store::default();
        order.iter().all(|&number| {
            let Call { operation, answered, .. } = history[number];
            let answer = store.answer(operation, index);
            answered.is_none_or(|(_, told)| is_told(operation, answer, told))
        })
    };
    assert!(indexes(history).iter().any(explains), "{order:?} explains nothing: {history:?}");
    match stuck {
        None => assert!(left().all(|number| answered_at(number).is_none()), "{verdict:?}"),
        Some(stuck) => {
            assert!(!stuck.is_empty());
            assert!(stuck.iter().all(|number| !placed.contains(number)), "{verdict:?}");
        }
    }
}

/// Which operations a random history is made of.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Values,
    Id,
    Both,
}

/// A history that a store gave, of so many calls at most. Each takes effect at some
/// time after its call and before its answer; some are not answered, and some of those
/// never take effect.
fn true_history(rng: &mut Rng, kind: Kind, most: u64) -> Vec<CellCall> {
    let calls = rng.between(1, most);
    let span = rng.between(4, 3 * most);
    let mut drawn: Vec<(u64, u64, CellCall)> = Vec::new();
    for number in 1..=calls {
        let called = rng.between(1, span);
        let answered = called + rng.between(0, 6);
        let is_open = rng.between(0, 3) == 0;
        let at = if is_open {
            rng.between(called, span + span / 2)
        } else {
            rng.between(called, answered)
        };
        let of_values = |rng: &mut Rng| match rng.between(0, 4) {
            0 | 1 => Write(number),
            2 => Swap { expected: rng.between(0, calls).checked_sub(1), value: number },
            _ => Read,
        };
        let of_id = |rng: &mut Rng| match rng.between(0, 4) {
            0 | 1 => Once { value: number },
            2 => Read,
            _ => Lookup,
        };
        let operation = match kind {
            Kind::Values => of_values(rng),
            Kind::Id => of_id(rng),
            Kind::Both if rng.between(0, 1) == 0 => of_values(rng),
            Kind::Both => of_id(rng),
        };
        let answered = (!is_open).then_some((answered, Done));
        let call = Call { client: number as usize, operation, called, answered };
        drawn.push((at, rng.next(), call));
    }
    drawn.sort_unstable_by_key(|&(at, tie, _)| (at, tie));
    let mut store = Store::default();
    let mut history = Vec::new();
    for (at, _, mut call) in drawn {
        // A swap that expects what is there is worth more than one that does not.
        if let (Swap { expected, .. }, 0..2) = (&mut call.operation, rng.between(0, 2)) {
            *expected = store.value;
        }
        if call.answered.is_none() && rng.between(0, 2) == 0 {
            history.push(call);
            continue;
        }
        let answer = store.answer(call.operation, at + 1);
        if let Some((_, told)) = &mut call.answered {
            *told = match (call.operation, answer, rng.between(0, 1)) {
                (Write(_), _, 0) => Done,
                (Lookup, Settled { index, .. }, 0) => Found { index },
                _ => answer,
            };
        }
        history.push(call);
    }
    // In what order they stand says nothing.
    let mut drawn: Vec<(u64, CellCall)> =
        history.into_iter().map(|call| (rng.next(), call)).collect();
    drawn.sort_unstable_by_key(|&(place, _)| place);
    drawn.into_iter().map(|(_, call)| call).collect()
}

/// Changes what one client was told.
fn tell_otherwise(rng: &mut Rng, history: &mut [CellCall]) {
    let calls = history.len() as u64;
    let call = &mut history[rng.between(0, calls - 1) as usize];
    let Some((at, told)) = &mut call.answered else {
        call.called += rng.between(0, 4);
        return;
    };
    let value = rng.between(0, calls).checked_sub(1);
    let index = rng.between(1, 12);
    *told = match (call.operation, rng.between(0, 3)) {
        (_, 0) => {
            *at -= rng.between(0, *at - call.called);
            return;
        }
        (Write(_) | Swap { .. }, _) => Was(value),
        (Read, _) => Value(value),
        (Once { .. }, 1) => Settled { index, previous: value },
        (Once { .. }, _) => Settled { index, previous: None },
        (Lookup, 1) => Missing,
        (Lookup, 2) => Found { index },
        (Lookup, _) => Settled { index, previous: None },
    };
}

#[test]
fn small_histories_are_judged_as_every_order_judges_them() {
    for (kind, seed) in [(Kind::Values, 1), (Kind::Id, 2), (Kind::Both, 3)] {
        let mut rng = Rng::new(seed);
        let (mut good, mut bad) = (0, 0);
        for _ in 0..4000 {
            let mut history = true_history(&mut rng, kind, 6);
            let lies = rng.between(0, 2);
            for _ in 0..lies {
                tell_otherwise(&mut rng, &mut history);
            }
            let is_linearizable = tries_every_order(&history);
            assert!(is_linearizable || lies > 0, "a store gave it: {history:?}");
            judged(&history, is_linearizable);
            if is_linearizable { good += 1 } else { bad += 1 }
        }
        assert!(good > 1000 && bad > 1000, "{kind:?}: {good} good, {bad} bad");
    }
}

/// Answers that mean nothing: far from what a store gives, and mostly refused.
#[test]
fn wild_histories_are_judged_as_every_order_judges_them() {
    let mut rng = Rng::new(4);
    let (mut good, mut bad) = (0, 0);
    for _ in 0..6000 {
        let kind = [Kind::Values, Kind::Id, Kind::Both][rng.between(0, 2) as usize];
        let mut history = true_history(&mut rng, kind, 6);
        for _ in 0..6 {
            tell_otherwise(&mut rng, &mut history);
        }
        let is_linearizable = tries_every_order(&history);
        judged(&history, is_linearizable);
        if is_linearizable { good += 1 } else { bad += 1 }
    }
    assert!(good > 1000 && bad > 1000, "{good} good, {bad} bad");
}

/// For larger ones, to try every order takes too long; but the search alone, which
/// knows nothing of values that are written once, still comes to an end.
#[test]
fn larger_histories_are_judged_as_the_plain_search_judges_them() {
    let mut rng = Rng::new(7);
    let (mut good, mut bad) = (0, 0);
    for _ in 0..1500 {
        let kind = [Kind::Values, Kind::Id, Kind::Both][rng.between(0, 2) as usize];
        let mut history = true_history(&mut rng, kind, 20);
        for _ in 0..rng.between(0, 2) {
            tell_otherwise(&mut rng, &mut history);
        }
        let verdict = check_cell(&history);
        holds_water(&history, &verdict);
        let is_linearizable = verdict.is_linearizable();
        assert_eq!(check::<Cell>(&history).is_linearizable(), is_linearizable, "{history:?}");
        if is_linearizable { good += 1 } else { bad += 1 }
    }
    assert!(good > 400 && bad > 400, "{good} good, {bad} bad");
}
