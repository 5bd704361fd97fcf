//! The checker against histories that a person can judge, against one that tries
//! every order, and at full size.

use std::collections::{BTreeMap, BTreeSet};

use super::CellAnswer::{Done, Found, Missing, Settled, Value, Was};
use super::CellOperation::{Lookup, Once, Read, Swap, Write};
use super::*;
use crate::core::rng::Rng;

mod big;
mod small;

type CellCall = Call<CellOperation, CellAnswer>;

/// A call that was answered.
fn did(operation: CellOperation, called: u64, answered: u64, answer: CellAnswer) -> CellCall {
    Call { client: 0, operation, called, answered: Some((answered, answer)) }
}

/// A call that was not.
fn open(operation: CellOperation, called: u64) -> CellCall {
    Call { client: 0, operation, called, answered: None }
}

fn swap(expected: u64, value: u64) -> CellOperation {
    Swap { expected: Some(expected), value }
}

/// The first operation under the id of a cell that held nothing.
fn settled(index: u64) -> CellAnswer {
    Settled { index, previous: None }
}

/// All checkers say this of the history.
#[track_caller]
fn judged(history: &[CellCall], is_linearizable: bool) {
    assert_eq!(small::tries_every_order(history), is_linearizable, "every order: {history:?}");
    for (who, verdict) in [("search", check::<Cell>(history)), ("cell", check_cell(history))] {
        small::holds_water(history, &verdict);
        assert_eq!(verdict.is_linearizable(), is_linearizable, "{who}, {verdict:?}: {history:?}");
    }
}

#[track_caller]
fn good(history: &[CellCall]) {
    judged(history, true);
}

#[track_caller]
fn bad(history: &[CellCall]) {
    judged(history, false);
}

#[test]
fn one_after_the_other() {
    good(&[]);
    good(&[did(Read, 1, 2, Value(None))]);
    good(&[did(Write(1), 1, 2, Done), did(Read, 3, 4, Value(Some(1)))]);
    bad(&[did(Write(1), 1, 2, Done), did(Read, 3, 4, Value(None))]);
    bad(&[did(Read, 1, 2, Value(Some(1)))]);
    // The order in which they stand in the history says nothing.
    good(&[did(Read, 3, 4, Value(Some(1))), did(Write(1), 1, 2, Done)]);
    bad(&[did(Read, 3, 4, Value(None)), did(Write(1), 1, 2, Done)]);
    // What does not answer such an operation explains nothing.
    bad(&[did(Read, 1, 2, Done)]);
    bad(&[did(Lookup, 1, 2, Value(None))]);
}

#[test]
fn calls_that_overlap_have_either_order() {
    for seen in [None, Some(1)] {
        good(&[did(Write(1), 1, 10, Done), did(Read, 2, 5, Value(seen))]);
    }
    let two = [did(Write(1), 1, 10, Done), did(Write(2), 2, 9, Done)];
    for seen in [1, 2] {
        good(&[two[0], two[1], did(Read, 11, 12, Value(Some(seen)))]);
    }
    bad(&[two[0], two[1], did(Read, 11, 12, Value(None))]);
    // At the same time is at once.
    for seen in [None, Some(1)] {
        good(&[did(Write(1), 1, 2, Done), did(Read, 2, 3, Value(seen))]);
        good(&[did(Write(1), 2, 2, Done), did(Read, 2, 2, Value(seen))]);
    }
    good(&[did(Write(1), 2, 3, Done), did(Read, 1, 2, Value(Some(1)))]);
}

#[test]
fn a_stale_read() {
    bad(&[did(Write(1), 1, 2, Done), did(Write(2), 3, 4, Done), did(Read, 5, 6, Value(Some(1)))]);
}

#[test]
fn a_write_that_is_seen_before_it_was_called() {
    bad(&[did(Read, 1, 2, Value(Some(1))), did(Write(1), 3, 4, Done)]);
    bad(&[did(Read, 1, 2, Value(Some(1))), open(Write(1), 3)]);
    bad(&[did(Read, 1, 2, Value(Some(1))), open(Swap { expected: None, value: 1 }, 3)]);
    bad(&[did(Read, 1, 2, Value(Some(1))), open(Once { value: 1 }, 3)]);
}

#[test]
fn reads_that_go_back_in_time() {
    let write = did(Write(1), 1, 9, Done);
    good(&[write, did(Read, 2, 3, Value(None)), did(Read, 4, 5, Value(Some(1)))]);
    bad(&[write, did(Read, 2, 3, Value(Some(1))), did(Read, 4, 5, Value(None))]);
    // Two readers that disagree on which of two writes came first.
    let two = [did(Write(1), 1, 20, Done), did(Write(2), 1, 20, Done)];
    let reads = |a, b, c, d| {
        let read = |at, value| did(Read, at, at + 1, Value(Some(value)));
        [two[0], two[1], read(2, a), read(4, b), read(6, c), read(8, d)]
    };
    good(&reads(1, 1, 2, 2));
    bad(&reads(1, 2, 1, 2));
    bad(&reads(1, 2, 2, 1));
}

#[test]
fn an_update_that_is_lost() {
    bad(&[did(Write(1), 1, 2, Was(None)), did(Write(2), 3, 4, Was(None))]);
    // Both write, at once, and neither sees the other.
    bad(&[did(Write(1), 1, 5, Was(None)), did(Write(2), 1, 5, Was(None))]);
    good(&[did(Write(1), 1, 5, Was(Some(2))), did(Write(2), 1, 5, Was(None))]);
    bad(&[did(Write(1), 1, 5, Was(Some(2))), did(Write(2), 1, 5, Was(Some(1)))]);
    bad(&[
        did(Write(1), 1, 2, Done),
        did(swap(1, 2), 3, 4, Was(Some(1))),
        did(Read, 5, 6, Value(Some(1))),
    ]);
}

#[test]
fn two_swaps_of_one_value() {
    let write = did(Write(1), 1, 2, Done);
    let swaps = |first, second| {
        [write, did(swap(1, 2), 3, 9, Was(Some(first))), did(swap(1, 3), 3, 9, Was(Some(second)))]
    };
    bad(&swaps(1, 1));
    good(&swaps(1, 2));
    good(&swaps(3, 1));
    bad(&swaps(3, 2));
    // One that failed changed nothing, whatever it wanted to write.
    let failed = did(swap(7, 2), 3, 4, Was(Some(1)));
    good(&[write, failed, did(Read, 5, 6, Value(Some(1)))]);
    bad(&[write, failed, did(Read, 5, 6, Value(Some(2)))]);
    bad(&[write, did(swap(7, 2), 3, 4, Was(Some(7)))]);
    // On a cell without a value.
    let first = Swap { expected: None, value: 1 };
    good(&[did(first, 1, 2, Was(None)), did(Read, 3, 4, Value(Some(1)))]);
    bad(&[did(first, 1, 2, Was(None)), did(Read, 3, 4, Value(None))]);
}

/// What may go before all others is what leaves nothing to wait for.
#[test]
fn a_write_that_must_wait_for_another() {
    let (write, other) = (did(Write(1), 1, 10, Done), did(Write(3), 1, 10, Done));
    let (swap, read) = (did(swap(1, 2), 1, 10, Was(Some(1))), did(Read, 1, 10, Value(Some(1))));
    let last = did(Read, 20, 21, Value(Some(2)));
    // 3 comes first, or 2 would not be seen in the end.
    good(&[write, swap, read, other, last]);
    good(&[write, read, swap, other, last]);
    good(&[write, read, swap, did(Write(3), 1, 30, Done), last]);
    bad(&[write, read, swap, did(Write(3), 11, 12, Done), last]);
    // The same where the last read sees the first write.
    good(&[write, other, read, did(Read, 20, 21, Value(Some(1)))]);
    good(&[other, write, did(Read, 20, 21, Value(Some(1)))]);
    bad(&[write, did(Write(3), 11, 12, Done), did(Read, 20, 21, Value(Some(1)))]);
}

#[test]
fn what_is_unknown_may_happen_late_or_never() {
    let write = open(Write(1), 1);
    let read = |at, seen| did(Read, at, at + 1, Value(seen));
    good(&[write]);
    good(&[write, read(2, None)]);
    good(&[write, read(2, Some(1))]);
    good(&[write, read(2, None), read(4, Some(1))]);
    // Seen, then unseen.
    bad(&[write, read(2, Some(1)), read(4, None)]);
    bad(&[write, read(2, None), read(4, Some(1)), read(6, None)]);
    // It takes effect once.
    let other = did(Write(2), 4, 5, Done);
    good(&[write, read(2, Some(1)), other, read(6, Some(2))]);
    good(&[write, other, read(6, Some(2)), read(8, Some(1))]);
    bad(&[write, read(2, Some(1)), other, read(6, Some(2)), read(8, Some(1))]);
    // A read that was not answered says nothing.
    good(&[open(Read, 1), read(2, None), open(Lookup, 3)]);
}

#[test]
fn unknown_swaps_in_a_row() {
    let chain = [open(Write(1), 1), open(swap(1, 2), 1), open(swap(2, 3), 1)];
    let with = |calls: &[CellCall]| [&chain, calls].concat();
    let read = |at, seen| did(Read, at, at + 1, Value(Some(seen)));
    good(&with(&[read(2, 3)]));
    good(&with(&[read(2, 1), read(4, 2), read(6, 3)]));
    good(&with(&[read(2, 1), read(4, 3)]));
    bad(&with(&[read(2, 3), read(4, 2)]));
    bad(&with(&[read(2, 2), read(4, 1)]));
    // The one in the middle must have taken effect, so it cannot do so later.
    bad(&with(&[read(2, 3), did(Write(4), 4, 5, Done), read(6, 2)]));
    // Each needs the one before it.
    bad(&[chain[0], chain[2], read(2, 3)]);
    bad(&[chain[0], open(swap(1, 2), 5), chain[2], read(2, 3)]);
    // A swap that was not seen may have failed.
    good(&[chain[0], chain[1], read(2, 1), did(Write(4), 4, 5, Was(Some(1))), read(6, 4)]);
    // One can have been seen by another's answer only.
    good(&[chain[0], chain[1], did(swap(7, 9), 2, 3, Was(Some(2)))]);
    good(&[chain[0], chain[1], did(swap(2, 9), 2, 3, Was(Some(2))), read(4, 9)]);
    bad(&[chain[0], chain[1], did(swap(2, 9), 2, 3, Was(Some(2))), read(4, 2)]);
}

#[test]
fn an_id_takes_effect_once() {
    let once =
        |value, called, answered, index| did(Once { value }, called, answered, settled(index));
    good(&[once(1, 1, 2, 7), once(2, 3, 4, 7), did(Read, 5, 6, Value(Some(1)))]);
    // Applied twice: each got a place of its own, or the second one's value is there.
    bad(&[once(1, 1, 2, 7), once(2, 3, 4, 8)]);
    bad(&[once(1, 1, 2, 7), once(2, 3, 4, 7), did(Read, 5, 6, Value(Some(2)))]);
    bad(&[once(1, 1, 2, 7), did(Once { value: 2 }, 3, 4, Settled { index: 7, previous: Some(1) })]);
    for seen in [1, 2] {
        good(&[once(1, 1, 5, 7), once(2, 1, 5, 7), did(Read, 6, 7, Value(Some(seen)))]);
    }
    bad(&[once(1, 1, 5, 7), once(2, 1, 5, 7), did(Read, 6, 7, Value(None))]);
    // With a value in the cell before it.
    let write = did(Write(9), 1, 2, Done);
    let after = |previous| did(Once { value: 1 }, 3, 4, Settled { index: 7, previous });
    good(&[write, after(Some(9))]);
    bad(&[write, after(None)]);
    good(&[open(Write(9), 1), after(Some(9))]);
    good(&[write, after(Some(9)), did(Lookup, 5, 6, Settled { index: 7, previous: Some(9) })]);
    bad(&[write, after(Some(9)), did(Lookup, 5, 6, settled(7))]);
}

#[test]
fn a_lookup_that_misses_a_settled_id() {
    let once = did(Once { value: 1 }, 1, 2, settled(7));
    let lookup = |answer| did(Lookup, 3, 4, answer);
    good(&[did(Lookup, 1, 2, Missing)]);
    bad(&[did(Lookup, 1, 2, Found { index: 7 })]);
    good(&[once, lookup(Found { index: 7 })]);
    good(&[once, lookup(settled(7))]);
    bad(&[once, lookup(Missing)]);
    bad(&[once, lookup(Found { index: 8 })]);
    bad(&[once, lookup(settled(8))]);
    let slow = did(Once { value: 1 }, 1, 9, settled(7));
    good(&[slow, lookup(Missing)]);
    good(&[slow, lookup(Missing), did(Lookup, 5, 6, settled(7))]);
    bad(&[slow, lookup(settled(7)), did(Lookup, 5, 6, Missing)]);
}

#[test]
fn an_id_of_unknown_fate() {
    let lookup = |at, answer| did(Lookup, at, at + 1, answer);
    let once = open(Once { value: 1 }, 1);
    good(&[once, lookup(2, Missing), lookup(4, settled(7)), lookup(6, Found { index: 7 })]);
    bad(&[once, lookup(2, settled(7)), lookup(4, Missing)]);
    bad(&[once, lookup(2, settled(7)), lookup(4, settled(8))]);
    bad(&[once, lookup(2, settled(7)), did(Once { value: 2 }, 4, 5, settled(8))]);
    bad(&[once, lookup(2, Settled { index: 7, previous: Some(4) })]);
    // Only its value tells that it was there, and then it was for good.
    let read = |at, seen| did(Read, at, at + 1, Value(seen));
    good(&[once, read(2, Some(1)), lookup(4, settled(7))]);
    bad(&[once, read(2, Some(1)), lookup(4, Missing)]);
    bad(&[once, lookup(2, settled(7)), read(4, None)]);
    // Which of several it was.
    let other = open(Once { value: 2 }, 4);
    good(&[once, other, lookup(4, settled(7)), read(6, Some(1))]);
    good(&[once, other, lookup(4, settled(7)), read(6, Some(2))]);
    bad(&[once, other, lookup(2, Found { index: 7 }), lookup(4, settled(7)), read(6, Some(2))]);
    bad(&[once, other, read(4, Some(1)), read(6, Some(2))]);
    bad(&[open(Once { value: 1 }, 5), lookup(2, settled(7))]);
    // The second of them is what the answer came from; the first may come after it.
    good(&[once, did(Once { value: 2 }, 3, 4, settled(7)), read(5, Some(2))]);
}

#[test]
fn where_the_search_ends_is_told() {
    let history = [
        did(Read, 5, 6, Value(Some(1))),
        did(Write(1), 1, 2, Done),
        did(Write(2), 3, 4, Done),
        open(Write(3), 4),
    ];
    let refused = |placed, stuck| Verdict::NotLinearizable { placed, stuck };
    assert_eq!(check::<Cell>(&history), refused(vec![1, 2, 3], vec![0]));
    // The search for a cell knows that 1 must be seen before 2 can be written.
    assert_eq!(check_cell(&history), refused(vec![1], vec![2]));
    assert_eq!(check_cell(&history[1..]), Verdict::Linearizable { order: vec![0, 1] });
    let never_written = [did(Read, 5, 6, Value(Some(1)))];
    assert_eq!(check_cell(&never_written), refused(vec![], vec![0]));
    // The first way that is tried ends at the first read, another goes on.
    let further = [
        did(Write(1), 1, 5, Done),
        did(Write(2), 1, 5, Done),
        did(Read, 6, 7, Value(Some(1))),
        did(Read, 8, 9, Value(Some(2))),
    ];
    assert_eq!(check::<Cell>(&further), refused(vec![1, 0, 2], vec![3]));
    // And here the one that is tried last is the shorter one.
    let shorter = [further[0], further[1], did(Read, 6, 7, Value(Some(2))), further[2]];
    assert_eq!(check::<Cell>(&shorter[..3]), Verdict::Linearizable { order: vec![0, 1, 2] });
    let shorter = [shorter[0], shorter[1], shorter[2], did(Read, 8, 9, Value(Some(3)))];
    assert_eq!(check::<Cell>(&shorter), refused(vec![0, 1, 2], vec![3]));
}

/// Adds, and answers with the sum: a model for which nothing but the search is right.
struct Sum;

impl Model for Sum {
    type State = u64;
    type Operation = u64;
    type Answer = u64;

    fn start() -> u64 {
        0
    }

    fn step(sum: &u64, added: &u64, answer: Option<&u64>) -> Option<u64> {
        answer.is_none_or(|&answer| answer == sum + added).then_some(sum + added)
    }
}

#[test]
fn a_model_of_ones_own() {
    let call = |operation, called, answered| Call { client: 0, operation, called, answered };
    let add = |operation, sum| call(operation, operation, Some((100, sum)));
    // In this order only: 8, 1, 4, 2.
    let history = [add(1, 9), add(2, 15), add(4, 13), add(8, 8)];
    assert_eq!(check::<Sum>(&history), Verdict::Linearizable { order: vec![3, 0, 2, 1] });
    let history = [add(1, 9), add(2, 15), add(4, 13), add(8, 10)];
    assert!(matches!(check::<Sum>(&history), Verdict::NotLinearizable { .. }));
    // Two of the four that nobody answered.
    let open = [16, 32, 64, 128].map(|added| call(added, 2, None));
    let with = |sum| [&open[..], &[add(1, 161)], &[call(0, 200, Some((201, sum)))]].concat();
    assert!(check::<Sum>(&with(161)).is_linearizable());
    assert!(check::<Sum>(&with(177)).is_linearizable());
    assert!(!check::<Sum>(&with(17)).is_linearizable());
    assert!(!check::<Sum>(&with(160)).is_linearizable());
}

#[test]
fn the_work_is_bounded() {
    // Any of the writes may have taken effect, and no order of them helps.
    let mut history: Vec<CellCall> = (1..=24).map(|value| open(Write(value), 1)).collect();
    history.push(did(Read, 2, 3, Value(Some(99))));
    assert_eq!(check_within::<Cell>(&history, 200_000), Verdict::Undecided { limit: 200_000 });
    // For a cell it is known that they need not have.
    assert!(matches!(check_cell_within(&history, 1), Verdict::NotLinearizable { .. }));
    assert_eq!(check_cell_within(&history, 0), Verdict::Undecided { limit: 0 });
    assert_eq!(check_cell_within(&[], 0), Verdict::Linearizable { order: vec![] });
    // What is remembered counts too: it fills the memory. Two calls are tried, and
    // after the first one there is a point to remember.
    let two = [did(Write(1), 1, 2, Done), did(Write(2), 3, 4, Done)];
    assert_eq!(check_within::<Cell>(&two, 18), Verdict::Undecided { limit: 18 });
    assert_eq!(check_within::<Cell>(&two, 19), Verdict::Linearizable { order: vec![0, 1] });
}

#[test]
fn reads_at_once_are_tried_in_one_order() {
    // 40 reads that fit, and then one that cannot: every order of them would be 2^40.
    let mut history: Vec<CellCall> = (0..40).map(|_| did(Read, 1, 9, Value(None))).collect();
    history.push(did(Read, 10, 11, Value(Some(1))));
    assert!(matches!(check_within::<Cell>(&history, 1000), Verdict::NotLinearizable { .. }));
}

/// What each call's span is narrowed to, and how many find what it writes.
#[track_caller]
fn narrows_to(history: &[CellCall], expected: &[(usize, u64, u64, usize)]) {
    let calls = super::narrow::narrowed(history);
    let narrowed: Vec<_> =
        calls.iter().map(|call| (call.number, call.from, call.until, call.finders.count)).collect();
    assert_eq!(narrowed, expected, "{history:?}");
}

#[test]
fn what_can_be_told_before_the_search() {
    let read = |called, answered, value| did(Read, called, answered, Value(Some(value)));
    // Unseen, and so left out; answered, and so not.
    narrows_to(
        &[open(Write(1), 1), open(swap(2, 3), 1), open(Read, 1), open(Once { value: 4 }, 1)],
        &[],
    );
    narrows_to(&[did(Write(1), 1, 9, Done)], &[(0, 1, 9, 0)]);
    // It ends with the first answer that it was seen in, and begins with the last
    // call that saw it. The history is in no order.
    let write = open(Write(1), 1);
    let seen = [read(30, 80, 1), write, read(20, 50, 1), read(10, 90, 1)];
    narrows_to(&seen, &[(0, 30, 80, 0), (1, 30, 50, 3), (2, 20, 50, 0), (3, 10, 90, 0)]);
    // Nor does it begin after its end, whether its own or by another's answer.
    narrows_to(
        &[read(10, 20, 1), write, read(40, 50, 1)],
        &[(0, 10, 20, 0), (1, 20, 20, 2), (2, 40, 50, 0)],
    );
    narrows_to(&[did(Write(1), 2, 5, Done), read(10, 20, 1)], &[(0, 5, 5, 1), (1, 10, 20, 0)]);
    // Nor end before it was called.
    narrows_to(&[read(1, 2, 1), open(Write(1), 3)], &[(0, 1, 2, 0), (1, 3, 3, 1)]);
    // What a swap must have found was seen with it.
    let chain = [write, open(swap(1, 2), 3), open(swap(2, 3), 4), read(10, 20, 2)];
    narrows_to(&chain, &[(0, 3, 20, 1), (1, 10, 20, 1), (3, 10, 20, 0)]);
    let told = [write, did(Write(2), 3, 40, Was(Some(1))), read(10, 20, 2)];
    narrows_to(&told, &[(0, 3, 20, 1), (1, 10, 20, 1), (2, 10, 20, 0)]);
    // One that failed found something all the same.
    let failed = did(swap(7, 8), 10, 20, Was(Some(1)));
    narrows_to(&[write, failed], &[(0, 10, 20, 1), (1, 10, 20, 0)]);
    // Under an id: the first sign of any kind, and one for all.
    let [first, second] = [1, 2].map(|value| open(Once { value }, 10 - value));
    let signs = [did(Lookup, 20, 30, Found { index: 7 }), did(Lookup, 20, 29, settled(7))];
    narrows_to(&[first, second, signs[0]], &[(1, 8, 30, 0), (2, 20, 30, 0)]);
    narrows_to(
        &[first, second, signs[0], signs[1]],
        &[(1, 8, 29, 0), (2, 20, 30, 0), (3, 20, 29, 0)],
    );
    narrows_to(
        &[first, second, signs[0], read(25, 28, 1)],
        &[(0, 25, 28, 1), (2, 20, 30, 0), (3, 25, 28, 0)],
    );
    narrows_to(
        &[first, second, signs[0], read(25, 40, 1)],
        &[(0, 25, 30, 1), (2, 20, 30, 0), (3, 25, 40, 0)],
    );
    let missed = did(Lookup, 20, 30, Missing);
    narrows_to(&[first, second, missed], &[(2, 20, 30, 0)]);
    // What was there before an id was settled was written.
    let after = did(Once { value: 2 }, 20, 30, Settled { index: 7, previous: Some(1) });
    narrows_to(&[write, after], &[(0, 1, 30, 0), (1, 20, 30, 0)]);
}

/// The same set is always the same words, and another one never is.
#[test]
fn a_set_is_packed_in_one_way() {
    let mut rng = Rng::new(6);
    let mut words = BTreeMap::new();
    let (mut set, mut twin) = (super::search::Set::new(200), BTreeSet::new());
    // Few change, so that sets come again; with them the first words get full, and
    // without them the last ones empty.
    let changing = [0, 1, 63, 64, 127, 128, 129, 191, 192, 199];
    (0..128).filter(|piece| !changing.contains(piece)).for_each(|piece| set.insert(piece));
    for _ in 0..20_000 {
        let piece = changing[rng.between(0, 9) as usize];
        if rng.between(0, 1) == 0 {
            set.insert(piece);
            twin.insert(piece);
        } else {
            set.remove(piece);
            twin.remove(&piece);
        }
        let packed = set.packed();
        assert_eq!(words.entry(twin.clone()).or_insert_with(|| packed.clone()), &packed);
    }
    let different: BTreeSet<_> = words.values().collect();
    assert_eq!((words.len(), different.len()), (1024, 1024));
    // What is placed from the front on takes no room, however much it is.
    let mut set = super::search::Set::new(200);
    (0..190).for_each(|piece| set.insert(piece));
    assert_eq!(set.packed(), (2, [u64::MAX >> 2].into()));
}

#[test]
#[should_panic(expected = "client 3 was answered at 4, but called at 5")]
fn an_answer_before_its_call() {
    let call = Call { client: 3, ..did(Read, 5, 4, Value(None)) };
    check::<Cell>(&[call]);
}

#[test]
#[should_panic(expected = "client 0 was answered at 4, but called at 5")]
fn an_answer_before_its_call_of_a_cell() {
    check_cell(&[did(Read, 5, 4, Value(None))]);
}

#[test]
#[should_panic(expected = "7 was written twice")]
fn a_value_that_is_written_twice() {
    check_cell(&[did(Write(7), 1, 2, Done), open(swap(1, 7), 3)]);
}

#[test]
fn cells_are_judged_each_by_itself() {
    let of = |key: &str, call: CellCall| (key.to_string(), call);
    let fine = [
        of("b", did(Write(1), 1, 2, Done)),
        of("a", did(Read, 3, 4, Value(None))),
        of("b", did(Read, 5, 6, Value(Some(1)))),
        // The same value as in another cell.
        of("c", did(Write(1), 1, 2, Done)),
    ];
    assert_eq!(check_cells(&fine), Ok(()));
    assert_eq!(check_cells(&[("a".to_string(), did(Read, 1, 2, Value(None)))]), Ok(()));
    let both = [&fine[..], &[of("d", did(Read, 7, 8, Value(Some(1))))]].concat();
    let both = [&both[..], &[of("b", did(Read, 7, 8, Value(None)))]].concat();
    let report = check_cells(&both).unwrap_err();
    assert!(report.starts_with("\"b\" is not linearizable"), "{report}");
}

#[test]
fn a_report_names_the_first_answer_that_cannot_be() {
    let by = |client, call: CellCall| ("balance".to_string(), Call { client, ..call });
    let mut history = vec![
        by(0, did(Write(1), 100, 120, Done)),
        by(1, open(Swap { expected: None, value: 5 }, 110)),
        by(1, did(swap(1, 2), 130, 150, Was(Some(1)))),
        by(2, did(Read, 125, 140, Value(Some(1)))),
        by(2, did(Read, 155, 170, Value(Some(1)))),
        by(3, did(Write(3), 160, 180, Was(Some(2)))),
        by(3, did(Read, 190, 200, Value(Some(3)))),
        by(4, open(Read, 115)),
        by(4, open(Write(9), 171)),
    ];
    let expected = "\
\"balance\" is not linearizable. No order explains this answer:
    client 2: read, called at 155, answered at 170: it is 1
What was told there was written by:
    client 0: write 1, called at 100, answered at 120: done
All answers before that are explained by this order:
    client 0: write 1, called at 100, answered at 120: done
    client 2: read, called at 125, answered at 140: it is 1
    client 1: swap 1 for 2, called at 130, answered at 150: it was 1
Other writes that were called and not answered by then:
    client 1: swap nothing for 5, called at 110, never answered
    client 3: write 3, called at 160, answered at 180: it was 2
";
    let report = check_cells(&history).unwrap_err();
    assert_eq!(report, expected, "{report}");
    // An answer at the time of its call is named too, and both of one time are.
    let at_once = [by(0, did(Read, 5, 5, Value(Some(1)))), by(1, did(Read, 4, 5, Value(Some(2))))];
    let expected = "\
\"balance\" is not linearizable. No order explains all of these answers, given at one time:
    client 0: read, called at 5, answered at 5: it is 1
    client 1: read, called at 4, answered at 5: it is 2
What was told there was written by:
    none
All answers before that are explained by this order:
    none
Other writes that were called and not answered by then:
    none
";
    assert_eq!(check_cells(&at_once).unwrap_err(), expected);
    // However much there is, it stays readable.
    for at in 0..500 {
        history.push(by(4, did(Read, at % 90, at % 90 + 1, Value(None))));
    }
    let report = check_cells(&history).unwrap_err();
    assert!(report.contains("    ... 491 more\n"), "{report}");
    assert_eq!(report.lines().count(), 21, "{report}");
}

#[test]
fn what_cannot_be_decided_is_no_success() {
    let of = |key: &str, call: CellCall| (key.to_string(), call);
    let history = [of("a", did(Read, 1, 2, Value(None))), of("b", did(Read, 1, 2, Value(None)))];
    let text = super::cell::check_cells_within(&history, 0).unwrap_err();
    assert!(text.starts_with("\"a\" is undecided: its 1 calls"), "{text}");
    assert_eq!(super::cell::check_cells_within(&history, 1), Ok(()));
}
