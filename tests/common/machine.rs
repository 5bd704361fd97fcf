//! A state machine that counts each value, so that what is lost or comes twice shows.

use std::collections::BTreeMap;

use kontiki::{BoxError, Entry, StateMachine};
use serde_json::{Value, json};

/// Counts how often each value was applied. An entry is a JSON value; its text is
/// what is counted, or the text of its `"n"` where it has one.
#[derive(Debug, Default)]
pub struct Tally {
    counts: BTreeMap<String, u64>,
    applied: u64,
}

fn key(value: &Value) -> String {
    value.get("n").unwrap_or(value).to_string()
}

impl StateMachine for Tally {
    /// How often the value was there, this time included.
    fn apply(&mut self, entry: &Entry) -> Value {
        self.applied += 1;
        let count = self.counts.entry(key(&entry.value())).or_default();
        *count += 1;
        json!(*count)
    }

    /// `null`: how many values there are, how many of them came more than once,
    /// and how many entries. Else: how often this value came.
    fn query(&self, query: &Value) -> Value {
        if query.is_null() {
            let twice: Vec<&String> =
                self.counts.iter().filter(|(_, count)| **count > 1).map(|(key, _)| key).collect();
            return json!({"values": self.counts.len(), "twice": twice, "entries": self.applied});
        }
        json!(self.counts.get(&key(query)).copied().unwrap_or(0))
    }

    fn snapshot(&self) -> Result<Vec<u8>, BoxError> {
        Ok(serde_json::to_vec(&(&self.counts, self.applied))?)
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), BoxError> {
        (self.counts, self.applied) = serde_json::from_slice(snapshot)?;
        Ok(())
    }
}
