//! What state machines are given and what they make of it, watched from both sides.
//!
//! Every machine of a world is wrapped in a `Witness`. All of them write into one
//! `Ledger`: which entry was applied to what effect. It knows from the committed log
//! alone, by a naive rule, which entries are to be applied.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;

use crate::committed::{self, Entry};
use crate::core::properties::{Property, Verdict, ensure};
use crate::core::types::{Index, Payload};
use crate::error::BoxError;
use crate::machine::StateMachine;
use crate::operation::Operation;

use super::plan::MakeMachine;
use super::story::shortened;

/// A state machine is given each client's command once, in the log's order, and no
/// other.
pub(super) const APPLIED_ONCE: Property =
    Property { name: "Applied Once", source: "thesis §6.3: each command takes effect once" };

/// `apply` depends on nothing but the entries before: all nodes get the same value.
pub(super) const SAME_VALUES: Property = Property {
    name: "Same Values",
    source: "StateMachine::apply must be deterministic (Raft §2, replicated state machines)",
};

/// A query sees what the entries made, and changes nothing.
pub(super) const QUERIES_SEE_THE_LOG: Property = Property {
    name: "Queries See The Log",
    source: "StateMachine::query only reads (thesis §6.4, read-only queries)",
};

/// What all machines of a world did.
#[derive(Default)]
pub(super) struct Ledger {
    /// What is to be applied: indexes of the committed log.
    due: BTreeSet<u64>,
    seen: BTreeSet<(Index, u64)>,
    ids: BTreeSet<String>,
    floors: BTreeMap<Index, u64>,
    /// How much of the committed log was looked at.
    looked: usize,
    /// What was applied: the JSON, the value, and who was first.
    applied: BTreeMap<u64, (Entry, Value, String)>,
    /// Queries, by the entry after which they were asked and their JSON: what was
    /// asked, what was answered, and who did first.
    asked: BTreeMap<(u64, String), (Value, Value, String)>,
    broken: Option<Verdict>,
}

/// So many queries are compared with a machine that saw nothing but the log.
const QUERIES_COMPARED: usize = 24;

impl Ledger {
    /// More is committed: which of it counts is decided here as the rule is stated,
    /// the first of its session's number, if not below its floor, and of its id.
    pub(super) fn committed<'a>(&mut self, entries: impl Iterator<Item = &'a Payload>) {
        for payload in entries.skip(self.looked) {
            self.looked += 1;
            let Payload::Client(bytes) = payload else { continue };
            match Operation::decode(bytes) {
                Some(Operation::Command(command)) => {
                    let floor = self.floor(command.session, command.floor);
                    let first = self.seen.insert((command.session, command.seq));
                    let counts = first && command.seq >= floor;
                    if counts && command.id.is_none_or(|id| self.ids.insert(id.to_string())) {
                        self.due.insert(self.looked as u64);
                    }
                }
                Some(Operation::Renew { session, floor }) => {
                    self.floor(session, floor);
                }
                _ => {}
            }
        }
    }

    /// What a client has settled, be it as unknown, takes no effect any more. The
    /// floor as it was, before this entry stated its own.
    fn floor(&mut self, session: Index, stated: u64) -> u64 {
        let floor = self.floors.entry(session).or_default();
        let before = *floor;
        *floor = before.max(stated);
        before
    }

    /// What was applied there, for a person.
    pub(super) fn in_words(&self, indexes: RangeInclusive<u64>) -> Vec<String> {
        let line = |(index, (entry, value, _)): (&u64, &(Entry, Value, String))| {
            format!("applies entry {index}, {}, which gives {value}", shortened(entry.json()))
        };
        self.applied.range(indexes).map(line).collect()
    }

    /// What was found wrong, if anything.
    pub(super) fn verdict(&mut self) -> Verdict {
        self.broken.take().unwrap_or(Ok(()))
    }

    fn check_given(&self, node: &str, entry: &Entry, last: u64) -> Verdict {
        let index = entry.index;
        ensure(&APPLIED_ONCE, index > last && self.due.contains(&index), || {
            let why = if index <= last {
                format!("after {last}")
            } else {
                "which is no new command, or not committed".to_string()
            };
            format!("{node} was given entry {index} ({}), {why}", entry.json())
        })?;
        let skipped = self.due.range(last + 1..index).next();
        ensure(&APPLIED_ONCE, skipped.is_none(), || {
            format!("{node} was given entry {index} after {last}, without {skipped:?}")
        })
    }

    /// Verdicts come among the entries, in order.
    fn check_verdict(node: &str, member: &str, verdict: committed::Verdict, last: u64) -> Verdict {
        // One entry may say two things of one member.
        ensure(&APPLIED_ONCE, verdict.index >= last, || {
            format!("{node} was told of {member} as of {} after {last}", verdict.index)
        })
    }

    fn check_value(&mut self, node: &str, entry: &Entry, value: &Value) -> Verdict {
        let first = || (entry.clone(), value.clone(), node.to_string());
        let (known, was, at) = self.applied.entry(entry.index).or_insert_with(first);
        ensure(&SAME_VALUES, known == entry && was == value, || {
            format!(
                "entry {} is {} and gives {was} at {at}, is {} and gives {value} at {node}",
                entry.index,
                known.json(),
                entry.json()
            )
        })
    }

    /// Two that were given the same entries answer the same.
    fn check_answer(&mut self, node: &str, after: u64, asked: &Value, answer: &Value) -> Verdict {
        let question = (after, asked.to_string());
        let first = || (asked.clone(), answer.clone(), node.to_string());
        let (_, was, at) = self.asked.entry(question).or_insert_with(first);
        ensure(&QUERIES_SEE_THE_LOG, was == answer, || {
            format!("after entry {after} {at} answers {asked} with {was}, {node} with {answer}")
        })
    }

    fn note(&mut self, verdict: Verdict) {
        if verdict.is_err() && self.broken.is_none() {
            self.broken = Some(verdict);
        }
    }

    /// Compares queries with what a machine says that was given the log up to there
    /// and asked nothing else.
    pub(super) fn check_queries(&self, make: &MakeMachine) -> Verdict {
        let apart = self.asked.len().div_ceil(QUERIES_COMPARED).max(1);
        for ((after, _), (asked, answer, node)) in self.asked.iter().step_by(apart) {
            let mut machine = make(node);
            for (_, (entry, ..)) in self.applied.range(..=*after) {
                machine.apply(entry);
            }
            let right = machine.query(asked);
            ensure(&QUERIES_SEE_THE_LOG, right == *answer, || {
                format!(
                    "after entry {after} {node} answers {asked} with {answer}; a machine that \
                     was given the same entries and asked nothing before says {right}"
                )
            })?;
        }
        Ok(())
    }
}

/// A machine, and what it does written down.
pub(super) struct Witness {
    pub(super) machine: Box<dyn StateMachine>,
    pub(super) ledger: Arc<Mutex<Ledger>>,
    pub(super) node: String,
    pub(super) last: u64,
}

impl StateMachine for Witness {
    fn apply(&mut self, entry: &Entry) -> Value {
        let given = self.ledger.lock().check_given(&self.node, entry, self.last);
        self.last = entry.index;
        let value = self.machine.apply(entry);
        let mut ledger = self.ledger.lock();
        ledger.note(given);
        let same = ledger.check_value(&self.node, entry, &value);
        ledger.note(same);
        value
    }

    fn verdict(&mut self, member: &str, verdict: committed::Verdict) {
        let told = Ledger::check_verdict(&self.node, member, verdict, self.last);
        self.last = self.last.max(verdict.index);
        self.ledger.lock().note(told);
        self.machine.verdict(member, verdict);
    }

    fn query(&self, question: &Value) -> Value {
        let answer = self.machine.query(question);
        let mut ledger = self.ledger.lock();
        let same = ledger.check_answer(&self.node, self.last, question, &answer);
        ledger.note(same);
        answer
    }

    fn snapshot(&self) -> Result<Vec<u8>, BoxError> {
        let mut bytes = self.last.to_le_bytes().to_vec();
        bytes.extend(self.machine.snapshot()?);
        Ok(bytes)
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), BoxError> {
        let (last, theirs) = snapshot.split_first_chunk().ok_or("a snapshot of no witness")?;
        self.last = u64::from_le_bytes(*last);
        self.machine.restore(theirs)
    }

    fn applied(&self) -> u64 {
        self.machine.applied()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::cells::Cells;
    use super::*;

    fn witness(ledger: &Arc<Mutex<Ledger>>, node: &str) -> Witness {
        let machine = Box::new(Cells::default());
        Witness { machine, ledger: Arc::clone(ledger), node: node.to_string(), last: 0 }
    }

    fn entry(index: u64, value: u64) -> Entry {
        Entry::new(index, 1, &json!(["put", "k", value])).expect("it is JSON")
    }

    #[test]
    fn what_is_given_twice_or_left_out_or_comes_to_something_else_is_noticed() {
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        ledger.lock().due.extend([3, 5, 6]);
        let (mut one, mut other) = (witness(&ledger, "node0"), witness(&ledger, "node1"));
        for index in [3, 5, 6] {
            one.apply(&entry(index, index));
        }
        assert_eq!(ledger.lock().verdict(), Ok(()));
        let property = || ledger.lock().verdict().expect_err("it is wrong").property;
        one.apply(&entry(6, 6));
        assert_eq!(property(), &APPLIED_ONCE, "twice");
        other.apply(&entry(5, 5));
        assert_eq!(property(), &APPLIED_ONCE, "3 was left out");
        other.apply(&entry(7, 7));
        assert_eq!(property(), &APPLIED_ONCE, "nobody asked for it");
        let verdict = |index| committed::Verdict { up: true, index };
        for (index, is_late) in [(7, false), (9, false), (9, false), (8, true)] {
            other.verdict("node0", verdict(index));
            assert_eq!(ledger.lock().verdict().is_err(), is_late, "{index}");
        }
        let mut third = witness(&ledger, "node2");
        third.apply(&entry(3, 4));
        assert_eq!(property(), &SAME_VALUES);
    }
}
