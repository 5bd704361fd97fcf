//! How fast: the library, and beside it the floor.

mod floor;
mod measure;
mod ours;

use std::error::Error;

use measure::{Asked, Sample, Test, closed_loop, many_threads};

fn main() -> Result<(), Box<dyn Error>> {
    match Asked::parse(lexopt::Parser::from_env())? {
        Some(asked) => one(&asked),
        None => Ok(()),
    }
}

/// One measurement of one system.
fn one(asked: &Asked) -> Result<(), Box<dyn Error>> {
    match asked.peer.as_deref() {
        Some("floor") => floor_loads(asked),
        Some("kontiki/udp") | None => ours::measure(asked),
        Some(other) => Err(format!("there are kontiki/udp and floor, not {other}").into()),
    }
}

fn floor_loads(asked: &Asked) -> Result<(), Box<dyn Error>> {
    for &size in &asked.size {
        let floor = floor::Floor::start(asked.nodes - 1, size, asked.durable.as_deref());
        for &k in &asked.k {
            let (name, sample): (_, Sample) = match asked.test {
                Test::Load => ("load", closed_loop(&mut floor.client(), k, asked.seconds)),
                Test::Threads => {
                    let clients = (0..k).map(|_| floor.client()).collect();
                    ("threads", many_threads(clients, asked.seconds))
                }
                _ => return Err("the floor has load and threads".into()),
            };
            measure::load_line("floor", name, k, size, &sample);
        }
    }
    Ok(())
}
