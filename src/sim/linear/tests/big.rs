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
type Lie = fn(&mut Rng, &mut Vec<CellCall>);

/// A read gives a value that another replaced before the read was called.
fn stale(rng: &mut Rng, history: &mut Vec<CellCall>) {
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
fn early(rng: &mut Rng, history: &mut Vec<CellCall>) {
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
fn both(rng: &mut Rng, history: &mut Vec<CellCall>) {
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
fn swapped(rng: &mut Rng, history: &mut Vec<CellCall>) {
    loop {
        let (one, other) = (pick(rng, history), pick(rng, history));
        let (Some((at, Value(first))), Some((_, Value(second)))) =
            (history[one].answered, history[other].answered)
        else {
            continue;
        };
        let said = |answer, call: &CellCall| call.answered.is_some_and(|(_, told)| told == answer);
        // Somebody else saw each, on the right side: so neither can hide.
        let seen = |value, by: &dyn Fn(&CellCall) -> bool| {
            history.iter().any(|call| said(Value(value), call) && by(call))
        };
        if first != second
            && at < history[other].called
            && seen(first, &|call| call.answered.is_some_and(|(end, _)| end < at))
            && seen(second, &|call| call.called > history[other].called)
        {
            history[one].answered = history[one].answered.map(|(at, _)| (at, Value(second)));
            history[other].answered = history[other].answered.map(|(at, _)| (at, Value(first)));
            return;
        }
    }
}

fn pick(rng: &mut Rng, history: &[CellCall]) -> usize {
    rng.between(0, history.len() as u64 - 1) as usize
}

/// So much work a call is little, and it is what keeps the checker quick.
fn judged_in_little_work(history: &[CellCall]) -> Verdict {
    let verdict = check_cell_within(history, 40 * history.len() as u64);
    assert!(!matches!(verdict, Verdict::Undecided { .. }), "{} calls", history.len());
    verdict
}

#[test]
fn what_a_store_gave_is_explained_and_no_lie_is() {
    let lies: [(&str, Lie); 4] =
        [("stale", stale), ("early", early), ("both", both), ("swapped", swapped)];
    for seed in 1..=3 {
        let mut rng = Rng::new(seed);
        let history = true_history(&mut rng, DENSE);
        let unknown = history.iter().filter(|call| call.answered.is_none()).count();
        assert!((150..250).contains(&unknown), "{unknown} unknown");
        let began = std::time::Instant::now();
        let verdict = judged_in_little_work(&history);
        eprintln!("good {:?}", began.elapsed());
        assert!(verdict.is_linearizable(), "seed {seed}");
        small::holds_water(&history, &verdict);
        for (name, lie) in lies {
            let mut history = history.clone();
            lie(&mut rng, &mut history);
            let began = std::time::Instant::now();
            let verdict = judged_in_little_work(&history);
            eprintln!("{name} {:?}", began.elapsed());
            assert!(!verdict.is_linearizable(), "seed {seed}: {name}");
            let began = std::time::Instant::now();
            let r = super::report::report("x", &history);
            eprintln!("{name} report {:?} {r}", began.elapsed());
        }
    }
}
fn least(history: &[CellCall]) -> (u64, bool, f64) {
    let n = history.len() as u64;
    for per in [2, 3, 4,5,6, 8, 10, 15, 20, 30, 50, 100, 200, 500, 1000, 10000] {
        let began = std::time::Instant::now();
        match check_cell_within(history, per * n) {
            Verdict::Undecided { .. } => continue,
            v => return (per, v.is_linearizable(), began.elapsed().as_secs_f64()),
        }
    }
    (0, false, 0.0)
}
#[test]
fn explore() {
    let lies: [(&str, Lie); 4] =
        [("stale", stale), ("early", early), ("both", both), ("swapped", swapped)];
    for (name, shape) in [
        ("dense", DENSE),
        ("late", Shape { late: 1_000_000, ..DENSE }),
        ("late2", Shape { late: 10_000, ..DENSE }),
        ("late800", Shape { late: 10_000, unknown: 800, ..DENSE }),
        ("16", Shape { clients: 16, ..DENSE }),
        ("32", Shape { clients: 32, ..DENSE }),
        ("writes", Shape { writes: 90, swaps: 0, ..DENSE }),
        ("16writes", Shape { clients: 16, writes: 50, swaps: 0, ..DENSE }),
        ("32writes", Shape { clients: 32, writes: 50, swaps: 0, ..DENSE }),
        ("32fewwrites", Shape { clients: 32, writes: 5, swaps: 5, ..DENSE }),
        ("swaps", Shape { writes: 2, swaps: 90, ..DENSE }),
        ("100k", Shape { calls: 100_000, unknown: 4000, ..DENSE }),
    ] {
        for seed in 1..=3 {
            let mut rng = Rng::new(seed);
            let history = true_history(&mut rng, shape);
            let mut line = format!("{name} {seed}: good {:?}", least(&history));
            for (name, lie) in lies {
                if shape.calls > 5000 && name == "swapped" || name == "both" && shape.swaps == 0 || name == "swapped" && (shape.writes == 90 || shape.swaps == 90) { continue }
                let mut history = history.clone();
                lie(&mut rng, &mut history);
                line += &format!(" {name} {:?}", least(&history));
            }
            eprintln!("{line}");
        }
    }
}
