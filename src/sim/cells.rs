//! The state machine that clients write to unless a user brings one: named cells,
//! each a number or nothing.
//!
//! `["put", cell, number]` and `["swap", cell, expected, number]` give what the cell
//! held before; a swap changes it only if that is what was expected. The query
//! `["get", cell]` gives what it holds. What follows in the array is ballast.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::committed::Entry;
use crate::error::BoxError;
use crate::machine::StateMachine;

#[derive(Debug, Default)]
pub(super) struct Cells {
    cells: BTreeMap<String, Value>,
}

impl StateMachine for Cells {
    fn apply(&mut self, entry: &Entry) -> Value {
        let value = entry.value();
        let cell = value[1].as_str().unwrap_or_default().to_string();
        let held = self.cells.get(&cell).cloned().unwrap_or(Value::Null);
        match value[0].as_str() {
            Some("put") => {
                self.cells.insert(cell, value[2].clone());
            }
            Some("swap") if value[2] == held => {
                self.cells.insert(cell, value[3].clone());
            }
            _ => {}
        }
        held
    }

    fn query(&self, question: &Value) -> Value {
        let cell = question[1].as_str().unwrap_or_default();
        self.cells.get(cell).cloned().unwrap_or(Value::Null)
    }

    fn snapshot(&self) -> Result<Vec<u8>, BoxError> {
        Ok(serde_json::to_vec(&json!(self.cells))?)
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), BoxError> {
        self.cells = serde_json::from_slice(snapshot)?;
        Ok(())
    }
}
