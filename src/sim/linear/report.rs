//! What a person wants to know of a cell that is not linearizable: which answer
//! cannot be explained, and what was going on.
//!
//! How far the search came says little of that: it may have taken a wrong turn long
//! before, and went on. But what had happened by some moment is a history too, in
//! which whatever came later is not answered yet, and an order that explains the
//! whole explains each such beginning. So there is one answer before which everything
//! can be explained and from which on nothing can, and halving finds it.

use std::collections::BTreeSet;

use super::cell::{CellAnswer, CellOperation, check_cell};
use super::narrow::{told, value_of};
use super::{Call as AnyCall, Verdict};

type Call = AnyCall<CellOperation, CellAnswer>;

/// At most so many calls are shown of a kind.
const SHOWN: usize = 12;

/// What is wrong with the history of this key, which is not linearizable.
pub(super) fn report(key: &str, history: &[Call]) -> String {
    let culprit_at = first_refused(history);
    let (numbers, before) = beginning(history, culprit_at, |at| at < culprit_at);
    let (found, order) = match check_cell(&before) {
        Verdict::Linearizable { order } => (
            "All answers before that are explained by this order:\n",
            order.into_iter().map(|place| numbers[place]).collect(),
        ),
        _ => ("An order for all answers before that was too much work to find.\n", Vec::new()),
    };
    let answered_at = |number: usize| history[number].answered.map(|(at, _)| at);
    let (culprits, others): (Vec<usize>, Vec<usize>) =
        numbers.into_iter().partition(|&number| answered_at(number) == Some(culprit_at));
    let told: BTreeSet<u64> =
        culprits.iter().filter_map(|&number| told(history[number].answered?.1)).collect();
    let value = |number: usize| value_of(history[number].operation);
    let wrote_it = |&number: &usize| value(number).is_some_and(|value| told.contains(&value));
    let writers: Vec<usize> = (0..history.len()).filter(wrote_it).collect();
    let in_order: BTreeSet<usize> = order.iter().copied().collect();
    let is_left = |number: &usize| value(*number).is_some() && !in_order.contains(number);
    let left: Vec<usize> = others.into_iter().filter(is_left).collect();

    let these = match culprits.len() {
        1 => "this answer",
        _ => "all of these answers, given at one time",
    };
    let mut text = format!("{key:?} is not linearizable. No order explains {these}:\n");
    tell(&mut text, history, &culprits);
    if !told.is_empty() {
        text += "What was told there was written by:\n";
        tell(&mut text, history, &writers);
    }
    text += found;
    tell(&mut text, history, &order);
    text += "Other writes that were called and not answered by then:\n";
    tell(&mut text, history, &left);
    text
}

/// The time of the first answer that no order explains.
fn first_refused(history: &[Call]) -> u64 {
    let answers = history.iter().filter_map(|call| call.answered);
    let mut times: Vec<u64> = answers.map(|(at, _)| at).collect();
    times.sort_unstable();
    // The last one is known to be refused.
    let last = times.pop().expect("a history without answers is linearizable");
    let place = times.partition_point(|&until| {
        let (_, calls) = beginning(history, until, |at| at <= until);
        !matches!(check_cell(&calls), Verdict::NotLinearizable { .. })
    });
    times.get(place).copied().unwrap_or(last)
}

/// What had been called by some time, and their places in the history, with those
/// answers that `is_given` picks by their times.
fn beginning(
    history: &[Call],
    until: u64,
    is_given: impl Fn(u64) -> bool,
) -> (Vec<usize>, Vec<Call>) {
    let calls = history.iter().enumerate().filter(|(_, call)| call.called <= until);
    let as_of_then = |(number, call): (usize, &Call)| {
        (number, Call { answered: call.answered.filter(|&(at, _)| is_given(at)), ..*call })
    };
    calls.map(as_of_then).unzip()
}

/// Adds a line for each of these calls, or of the last ones, if they are many.
fn tell(text: &mut String, history: &[Call], numbers: &[usize]) {
    let left_out = numbers.len().saturating_sub(SHOWN);
    if numbers.is_empty() {
        text.push_str("    none\n");
    }
    if left_out > 0 {
        text.push_str(&format!("    ... {left_out} more\n"));
    }
    for &number in &numbers[left_out..] {
        let Call { client, operation, called, answered } = history[number];
        let answer = match answered {
            Some((at, answer)) => format!("answered at {at}: {answer}"),
            None => "never answered".to_string(),
        };
        text.push_str(&format!("    client {client}: {operation}, called at {called}, {answer}\n"));
    }
}
