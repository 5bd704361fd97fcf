//! Whether what clients saw of one register is linearizable, where no value is
//! written twice (Gibbons and Korach, "Testing shared memories", 1997, §5.1).
//!
//! A value's *zone* lies between the first answer that speaks of it and the last
//! call that does. If that answer comes before that call, the register must hold
//! the value all the time between: such forward zones must not overlap. Else all
//! that is done with the value overlaps, and one moment of its zone is enough: such
//! a backward zone must not lie within a forward zone of another value.

use std::collections::BTreeMap;

/// What was done to the register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// It was set to this, which is not 0 and set once.
    Write(u64),
    /// It was read, and held this; 0 is what it holds at first.
    Read(u64),
}

/// One operation of a history.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) operation: Operation,
    /// When it was called; later than 0.
    pub(super) called: u64,
    /// When it was answered; `None`: it was not, and may have happened at any time
    /// after the call, or never.
    pub(super) answered: Option<u64>,
}

/// All that is known of one value.
#[derive(Clone, Copy)]
struct Zone {
    written_from: u64,
    first_answer: u64,
    last_call: u64,
    first_read_answer: u64,
    seen: bool,
}

/// Whether some order of the operations, true to their times, explains them.
pub(super) fn is_linearizable(history: &[Call]) -> bool {
    let at_first = Zone {
        written_from: 0,
        first_answer: 0,
        last_call: 0,
        first_read_answer: u64::MAX,
        seen: true,
    };
    let mut zones = BTreeMap::from([(0, at_first)]);
    for call in history {
        if let Operation::Write(value) = call.operation {
            let zone = Zone {
                written_from: call.called,
                first_answer: call.answered.unwrap_or(u64::MAX),
                last_call: call.called,
                first_read_answer: u64::MAX,
                seen: call.answered.is_some(),
            };
            assert!(zones.insert(value, zone).is_none(), "{value} was written twice");
        }
    }
    for call in history {
        let (Operation::Read(value), Some(answered)) = (call.operation, call.answered) else {
            continue;
        };
        // Nobody wrote what was read.
        let Some(zone) = zones.get_mut(&value) else { return false };
        zone.first_answer = zone.first_answer.min(answered);
        zone.first_read_answer = zone.first_read_answer.min(answered);
        zone.last_call = zone.last_call.max(call.called);
        zone.seen = true;
    }
    // What was not answered and nobody saw need not have happened.
    let zones: Vec<Zone> = zones.into_values().filter(|zone| zone.seen).collect();
    if zones.iter().any(|zone| zone.first_read_answer < zone.written_from) {
        return false;
    }
    let (forward, backward): (Vec<Zone>, Vec<Zone>) =
        zones.into_iter().partition(|zone| zone.first_answer < zone.last_call);
    let apart = forward.iter().enumerate().all(|(place, one)| {
        forward[place + 1..]
            .iter()
            .all(|other| one.last_call <= other.first_answer || other.last_call <= one.first_answer)
    });
    apart
        && backward.iter().all(|one| {
            forward.iter().all(|other| {
                one.last_call <= other.first_answer || other.last_call <= one.first_answer
            })
        })
}

mod checks_itself {
    use super::Operation::{Read, Write};
    use super::*;

    fn call(operation: Operation, called: u64, answered: u64) -> Call {
        Call { operation, called, answered: Some(answered) }
    }

    fn open(operation: Operation, called: u64) -> Call {
        Call { operation, called, answered: None }
    }

    #[test]
    fn histories_that_a_register_explains() {
        assert!(is_linearizable(&[]));
        assert!(is_linearizable(&[call(Read(0), 1, 2), call(Write(1), 3, 4), call(Read(1), 5, 6)]));
        // They overlap: either order.
        for read in [0, 1] {
            assert!(is_linearizable(&[call(Write(1), 1, 10), call(Read(read), 2, 5)]));
        }
        // Not answered, and seen; not answered, and never seen; seen late.
        assert!(is_linearizable(&[open(Write(1), 1), call(Read(1), 2, 3)]));
        assert!(is_linearizable(&[open(Write(1), 1), call(Read(0), 2, 3)]));
        let late = [open(Write(1), 1), call(Read(0), 2, 3), call(Read(1), 4, 5)];
        assert!(is_linearizable(&late));
    }

    #[test]
    fn histories_that_no_register_explains() {
        let stale = [call(Write(1), 1, 2), call(Write(2), 3, 4), call(Read(1), 5, 6)];
        assert!(!is_linearizable(&stale));
        let never_written = [call(Write(1), 1, 2), call(Read(7), 3, 4)];
        assert!(!is_linearizable(&never_written));
        let back_in_time = [call(Write(1), 1, 9), call(Read(1), 2, 3), call(Read(0), 4, 5)];
        assert!(!is_linearizable(&back_in_time));
        let too_early = [call(Read(1), 1, 2), open(Write(1), 3)];
        assert!(!is_linearizable(&too_early));
        let lost = [call(Write(1), 1, 2), call(Read(0), 3, 4)];
        assert!(!is_linearizable(&lost));
    }

    /// Every order of a small history, tried one by one.
    fn naive(history: &[Call], taken: u32, state: u64) -> bool {
        let open = (0..history.len()).filter(|number| taken >> number & 1 == 0);
        if open.clone().all(|number| history[number].answered.is_none()) {
            return true;
        }
        open.clone().any(|number| {
            let called = history[number].called;
            let first =
                open.clone().all(|other| history[other].answered.is_none_or(|at| at >= called));
            let after = match history[number].operation {
                Write(value) => Some(value),
                Read(value) => (value == state).then_some(state),
            };
            first && after.is_some_and(|after| naive(history, taken | 1 << number, after))
        })
    }

    #[test]
    fn small_histories_are_judged_as_every_order_judges_them() {
        let mut rng = crate::core::rng::Rng::new(5);
        let (mut good, mut bad) = (0, 0);
        for _ in 0..5000 {
            let mut written = 0;
            let history: Vec<Call> = (0..rng.between(1, 6))
                .map(|_| {
                    let called = rng.between(1, 20);
                    let answered = (rng.between(0, 5) > 0).then(|| called + rng.between(1, 8));
                    let operation = if rng.between(0, 1) == 0 {
                        written += 1;
                        Write(written)
                    } else {
                        Read(rng.between(0, 3))
                    };
                    Call { operation, called, answered }
                })
                .collect();
            let verdict = is_linearizable(&history);
            assert_eq!(verdict, naive(&history, 0, 0), "{history:?}");
            if verdict { good += 1 } else { bad += 1 }
        }
        assert!(good > 500 && bad > 500, "{good} good, {bad} bad");
    }
}
