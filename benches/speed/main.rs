//! How fast: the library, beside the floor (its shape without a protocol) and beside
//! peers, in one run.
//!
//! ```text
//! cargo bench --bench speed                    the table: some 20 minutes
//! cargo bench --bench speed -- --quick         a look at it, in a minute
//!   --rounds N      so many times each, in turn (5)
//!   --secs S        so long each time (2)
//!   --no-peers      without the crate in benches/peers, which has dependencies of its own
//!   --plots         no table, but the curves, as benches/plots/*.svg
//!   --durable DIR   below which logs on disk are, while they are (the target folder)
//! cargo bench --bench speed -- --test load     one measurement, a line of JSON a result
//! ```
//!
//! What one measurement is and which there are is said in `measure`. Each runs in a
//! process of its own; the table runs all systems in turn, over and over, so that a
//! machine that is busy with something else is busy for all of them, and takes medians.

mod floor;
mod measure;
mod ours;
mod plots;
mod scratch;
mod table;

use std::error::Error;
use std::thread;
use std::time::Duration;

use measure::{Asked, Test, closed_loop, many_threads};
use scratch::Scratch;

fn main() -> Result<(), Box<dyn Error>> {
    match Asked::parse(lexopt::Parser::from_env()) {
        Ok(Some(asked)) => one(&asked),
        // Without `--test` the arguments are the table's.
        _ if !std::env::args().any(|arg| arg == "--test") => table::print(),
        Ok(None) => Err("--test needs the name of a measurement".into()),
        Err(error) => Err(error.into()),
    }
}

/// One measurement of one system.
fn one(asked: &Asked) -> Result<(), Box<dyn Error>> {
    match asked.peer.as_deref() {
        Some("floor") if asked.test == Test::Idle => floor_idle(asked),
        Some("floor") => floor_loads(asked),
        Some(ours::NAME) | None => ours::measure(asked),
        Some(other) => Err(format!("there are {} and floor, not {other}", ours::NAME).into()),
    }
}

fn floor_loads(asked: &Asked) -> Result<(), Box<dyn Error>> {
    for &size in &asked.size {
        let scratch = asked.durable.as_deref().map(Scratch::below).transpose()?;
        let folder = scratch.as_ref().map(Scratch::path);
        let floor = floor::Floor::start(asked.nodes - 1, size, folder);
        for &k in &asked.k {
            let sample = match asked.test {
                Test::Load => closed_loop(&mut floor.client(), k, asked.seconds),
                Test::Threads => {
                    let clients = (0..k).map(|_| floor.client()).collect();
                    many_threads(clients, asked.seconds)
                }
                _ => return Err("the floor has load, threads and idle".into()),
            };
            measure::load_line("floor", asked.test, k, size, &sample);
        }
    }
    Ok(())
}

/// Heartbeats, and nothing else.
fn floor_idle(asked: &Asked) -> Result<(), Box<dyn Error>> {
    let _floor = floor::Floor::start(asked.nodes - 1, 64, None);
    thread::sleep(Duration::from_secs(1));
    measure::idle_line("floor", asked.seconds);
    Ok(())
}
