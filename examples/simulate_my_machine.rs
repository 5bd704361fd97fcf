//! A state machine of one's own in the simulator, which finds the bug in it:
//! `cargo run --features sim --example simulate_my_machine`.
//!
//! A bank keeps the sum of its accounts until one of them changes. `Deposit` drops what was
//! kept; whoever wrote `Withdraw` forgot to. Unit tests that ask for the sum in the end pass.
//! In a cluster the sum depends on whether a node was asked before, and the simulator sees it.

use std::{cell::Cell, collections::BTreeMap};

use kontiki::sim::{Chance, Simulation, Violation};
use kontiki::{BoxError, Entry, StateMachine};
use serde_json::{Value, json};

#[derive(Default)]
struct Bank {
    mended: bool,
    accounts: BTreeMap<String, i64>,
    sum: Cell<Option<i64>>,
}

#[derive(serde::Deserialize)]
enum Command {
    Deposit(String, u32),
    Withdraw(String, u32),
}

impl StateMachine for Bank {
    fn apply(&mut self, entry: &Entry) -> Value {
        match entry.parse() {
            Ok(Command::Deposit(account, amount)) => {
                self.sum.take();
                *self.accounts.entry(account).or_default() += i64::from(amount);
            }
            Ok(Command::Withdraw(account, amount)) => {
                if self.mended {
                    self.sum.take(); // the line that was forgotten
                }
                *self.accounts.entry(account).or_default() -= i64::from(amount);
            }
            Err(error) => return json!({ "error": error.to_string() }),
        }
        json!("done")
    }
    fn query(&self, _: &Value) -> Value {
        let sum = self.sum.get().unwrap_or_else(|| self.accounts.values().sum());
        self.sum.set(Some(sum));
        json!(sum)
    }
    fn snapshot(&self) -> Result<Vec<u8>, BoxError> {
        Ok(serde_json::to_vec(&self.accounts)?)
    }
    fn restore(&mut self, snapshot: &[u8]) -> Result<(), BoxError> {
        (self.accounts, self.sum) = (serde_json::from_slice(snapshot)?, Cell::default());
        Ok(())
    }
}

fn command(chance: &mut Chance) -> Value {
    let (what, who) = (*chance.pick(&["Deposit", "Withdraw"]), *chance.pick(&["ann", "ben"]));
    json!({ what: [who, chance.between(1, 100)] })
}

/// Whole clusters run the bank while networks, disks, clocks and nodes fail.
fn simulate(mended: bool) -> Result<(), Violation> {
    (0..10).try_for_each(|seed| {
        Simulation::new(seed)
            .state_machine(move |_node| Bank { mended, ..Bank::default() }, command)
            .queries(|_chance| json!("sum"))
            .run()
            .map(drop)
    })
}

fn main() -> Result<(), String> {
    let Violation { property, seed, what, .. } = simulate(false).err().ok_or("no bug found")?;
    println!("The bank with the bug: {property:?} does not hold.\n  seed {seed}: {what}");
    simulate(true).map_err(|found| format!("the mended bank: {found}"))?;
    println!("The mended bank, seeds 0 to 9: every property holds.");
    Ok(())
}
