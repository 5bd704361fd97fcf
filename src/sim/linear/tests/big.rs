//! Histories of the size that a run of hours gives: some clients at once, all at one
//! cell, and hundreds of requests of unknown fate.

use super::small::Store;
use super::*;

/// How a history is made.
#[derive(Clone, Copy)]
struct Shape {
    clients: u64,
    calls: usize,
    /// So many of the calls are never answered.
    unknown: usize,
    /// Of a hundred calls, so many are writes, and so many swaps.
    writes: u64,
    swaps: u64,
    /// An unknown request takes effect so long after its call at most.
    late: u64,
}

const DENSE: Shape =
    Shape { clients: 8, calls: 5000, unknown: 200, writes: 30, swaps: 30, late: 500 };

/// What a store gave its clients, each of which always has a call under way. In the
/// order in which the calls took effect; those that never did come last.
fn true_history(rng: &mut Rng, shape: Shape) -> Vec<CellCall> {
    let Shape { clients, calls, unknown, writes, swaps, late } = shape;
    let mut free: Vec<u64> = (0..clients).map(|_| rng.between(1, 50)).collect();
    // When it takes effect, the tie of those at the same time, and the call.
    let mut drawn: Vec<(u64, u64, CellCall)> = Vec::new();
    for number in 1..=calls as u64 {
        let client = rng.between(0, clients - 1) as usize;
        let called = free[client];
        let answered = called + rng.between(1, 100);
        free[client] = answered + rng.between(1, 3);
        let is_unknown = rng.between(1, calls as u64) <= unknown as u64;
        let until = if is_unknown { called + late } else { answered };
        let what = rng.between(0, 99);
        let operation = if what < writes {
            Write(number)
        } else if what < writes + swaps {
            Swap { expected: None, value: number }
        } else {
            Read
        };
        let answered = (!is_unknown).then_some((answered, Done));
        let call = Call { client, operation, called, answered };
        drawn.push((rng.between(called, until), rng.next(), call));
    }
    drawn.sort_unstable_by_key(|&(at, tie, _)| (at, tie));
    let mut store = Store::default();
    let (mut done, mut never) = (Vec::new(), Vec::new());
    for (_, _, mut call) in drawn {
        if let Swap { expected, .. } = &mut call.operation {
            let guess = if rng.between(0, 3) == 0 { Some(0) } else { store.value };
            *expected = guess;
        }
        if call.answered.is_none() && rng.between(0, 1) == 0 {
            never.push(call);
            continue;
        }
        let answer = store.answer(call.operation, 0);
        if let Some((_, told)) = &mut call.answered {
            let is_silent = matches!(call.operation, Write(_)) && rng.between(0, 1) == 0;
            *told = if is_silent { Done } else { answer };
        }
        done.push(call);
    }
    done.append(&mut never);
    done
}

/// What a call found and what it wrote, where it was answered and both are known.
fn changed(call: &CellCall) -> Option<(Option<u64>, u64)> {
    match (call.operation, call.answered?.1) {
        (Write(value), Was(was)) => Some((was, value)),
        (Swap { expected, value }, Was(was)) if was == expected => Some((was, value)),
        _ => None,
    }
}

/// A lie about a true history.
type Lie = fn(&mut Rng, &mut [CellCall]);

/// A read gives a value that another replaced before the read was called.
fn stale(rng: &mut Rng, history: &mut [CellCall]) {
    loop {
        // `next` found the value, so it stood in the way of it from then on.
        let (next, read) = (pick(rng, history), pick(rng, history));
        let (Some((Some(was), _)), Some((gone_at, _))) =
            (changed(&history[next]), history[next].answered)
        else {
            continue;
        };
        if let Call { operation: Read, called, answered: Some((_, told)), .. } = &mut history[read]
            && *called > gone_at
        {
            *told = Value(Some(was));
            return;
        }
    }
}

/// A read gives a value that was not yet called for.
fn early(rng: &mut Rng, history: &mut [CellCall]) {
    loop {
        let (write, read) = (pick(rng, history), pick(rng, history));
        let (Some((_, value)), called) = (changed(&history[write]), history[write].called) else {
            continue;
        };
        if let Call { operation: Read, answered: Some((at, told)), .. } = &mut history[read]
            && *at < called
        {
            *told = Value(Some(value));
            return;
        }
    }
}

/// Two swaps both took effect on the same value.
fn both(rng: &mut Rng, history: &mut [CellCall]) {
    loop {
        let (one, other) = (pick(rng, history), pick(rng, history));
        let Some((was, _)) = changed(&history[one]) else { continue };
        if let Call { operation: Swap { expected, .. }, answered: Some((_, told)), .. } =
            &mut history[other]
            && one != other
        {
            (*expected, *told) = (was, Was(was));
            return;
        }
    }
}

/// Two reads, one after the other, saw two values the wrong way round.
fn swapped(rng: &mut Rng, history: &mut [CellCall]) {
    loop {
        let (one, other) = (pick(rng, history), pick(rng, history));
        let (
            Call { called, answered: Some((at, Value(first))), .. },
            Call { called: called_after, answered: Some((after, Value(second))), .. },
        ) = (history[one], history[other])
        else {
            continue;
        };
        // Somebody had seen the first one before, and so the cell would hold it, then
        // the second, and then the first again.
        let had_seen = |call: &CellCall| {
            call.answered.is_some_and(|(at, told)| at < called && told == Value(first))
        };
        if first != second && at < called_after && history.iter().any(had_seen) {
            history[one].answered = Some((at, Value(second)));
            history[other].answered = Some((after, Value(first)));
            return;
        }
    }
}

fn pick(rng: &mut Rng, history: &[CellCall]) -> usize {
    rng.between(0, history.len() as u64 - 1) as usize
}

/// The verdict, found with so much work for each call: that is what keeps the checker
/// quick. An operation that fits where it is tried first costs 18.
#[track_caller]
fn judged_with(work: u64, history: &[CellCall]) -> Verdict {
    let verdict = check_cell_within(history, work * history.len() as u64);
    assert!(!matches!(verdict, Verdict::Undecided { .. }), "{work} a call were not enough");
    verdict
}

#[test]
fn what_a_store_gave_is_explained_and_no_lie_is() {
    let lies: [(&str, Lie); 4] =
        [("stale", stale), ("early", early), ("both", both), ("swapped", swapped)];
    for seed in 1..=5 {
        let mut rng = Rng::new(seed);
        let history = true_history(&mut rng, DENSE);
        let unknown = history.iter().filter(|call| call.answered.is_none()).count();
        assert!((150..250).contains(&unknown), "{unknown} unknown");
        let verdict = judged_with(50, &history);
        assert!(verdict.is_linearizable(), "seed {seed}");
        small::holds_water(&history, &verdict);
        for (name, lie) in lies {
            let mut history = history.clone();
            lie(&mut rng, &mut history);
            let verdict = judged_with(100, &history);
            assert!(!verdict.is_linearizable(), "seed {seed}: {name}");
            small::holds_water(&history, &verdict);
        }
    }
}

#[test]
fn other_loads_are_explained_too() {
    let loads = [
        ("only reads", Shape { writes: 0, swaps: 0, ..DENSE }),
        ("only writes", Shape { writes: 100, swaps: 0, ..DENSE }),
        ("mostly swaps", Shape { writes: 5, swaps: 85, ..DENSE }),
        ("many clients", Shape { clients: 40, ..DENSE }),
        ("much unknown", Shape { unknown: 2000, ..DENSE }),
        ("seen late", Shape { late: 50_000, unknown: 800, ..DENSE }),
    ];
    for (name, shape) in loads {
        for seed in 1..=2 {
            let history = true_history(&mut Rng::new(seed), shape);
            let verdict = judged_with(100, &history);
            assert!(verdict.is_linearizable(), "{name}, seed {seed}");
            small::holds_water(&history, &verdict);
        }
    }
}

/// Writes of unknown fate that are not seen for long do not slow the search meanwhile.
#[test]
fn hundreds_that_are_seen_in_the_end() {
    let mut history: Vec<CellCall> = (1..=300).map(|value| open(Write(value), 1)).collect();
    let mut now = 2;
    let mut next = |operation, answer| {
        now += 2;
        did(operation, now, now + 1, answer)
    };
    for value in 1001..=3000 {
        history.push(next(Write(value), Done));
        history.push(next(Read, Value(Some(value))));
    }
    for value in 1..=300 {
        history.push(next(Read, Value(Some(value))));
    }
    assert!(judged_with(25, &history).is_linearizable());
    history.push(next(Read, Value(Some(7))));
    assert!(!judged_with(25, &history).is_linearizable());
}

/// A client that sends one swap after the other without waiting, and hears of none.
#[test]
fn hundreds_of_unknown_swaps_in_a_row() {
    let mut history = vec![did(Write(1), 1, 2, Done)];
    history.extend((1..=300).map(|value| open(swap(value, value + 1), 3)));
    history.extend((5..2000).map(|at| did(Read, at, at + 3, Value(Some(1)))));
    history.push(did(Read, 3000, 3001, Value(Some(301))));
    assert!(judged_with(400, &history).is_linearizable());
    history.push(did(Read, 3002, 3003, Value(Some(300))));
    assert!(!judged_with(400, &history).is_linearizable());
}

/// Many that ask under one id and hear nothing.
#[test]
fn hundreds_of_unknown_requests_under_one_id() {
    let mut history: Vec<CellCall> = (1..=300).map(|value| open(Once { value }, value)).collect();
    history.extend((400..1400).map(|at| did(Lookup, at, at + 3, Missing)));
    history.extend((1500..2500).map(|at| did(Lookup, at, at + 3, Found { index: 9 })));
    assert!(judged_with(50, &history).is_linearizable());
    let read = |value| did(Read, 3000, 3001, Value(Some(value)));
    assert!(judged_with(50, &[&history[..], &[read(250)]].concat()).is_linearizable());
    assert!(!judged_with(50, &[&history[..], &[read(301)]].concat()).is_linearizable());
    history.push(did(Lookup, 3000, 3001, Missing));
    assert!(!judged_with(50, &history).is_linearizable());
}
