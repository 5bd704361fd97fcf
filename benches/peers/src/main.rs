//! Other Raft libraries, measured by the rules and in the lines of Kontiki's own bench
//! program, which shares the measuring code with this one.
//!
//! ```text
//! peers --peer NAME --test load|threads|failover|idle|mem [--secs S] [--k K,K] [--size N,N] [--nodes N]
//! ```
//!
//! | name | library | between the nodes |
//! |---|---|---|
//! | `openraft/memory` | openraft | function calls |
//! | `openraft/tcp` | openraft | TCP on loopback |
//! | `raft-rs/channels` | raft, of TiKV | channels between threads |
//! | `raft-rs/udp` | raft, of TiKV | UDP on loopback |
//!
//! All nodes and the client are in this process, logs and state are in memory. A request is
//! answered when a majority has it and the leader has applied it. Each library is set up as
//! its own documentation and benchmarks do; the heads of the modules say how.

mod cluster;
#[allow(dead_code, unused_imports)] // what the other program alone needs
#[path = "../../speed/measure/mod.rs"]
mod measure;
mod openraft;
mod raft_rs;
mod tests;

use std::process::ExitCode;

use measure::Asked;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> cluster::Outcome<()> {
    let asked = Asked::parse(lexopt::Parser::from_env())?.ok_or("say --test, and --peer")?;
    if asked.durable.is_some() || asked.sealed {
        return Err("the peers are measured in memory, and not sealed".into());
    }
    if asked.nodes == 0 {
        return Err("there has to be a node".into());
    }
    match asked.peer.as_deref() {
        Some("openraft/memory") => tests::run::<openraft::Nodes<openraft::Memory>>(&asked),
        Some("openraft/tcp") => tests::run::<openraft::Nodes<openraft::Tcp>>(&asked),
        Some("raft-rs/channels") => tests::run::<raft_rs::Nodes<raft_rs::Channels>>(&asked),
        Some("raft-rs/udp") => tests::run::<raft_rs::Nodes<raft_rs::Udp>>(&asked),
        _ => Err("--peer is openraft/memory, openraft/tcp, raft-rs/channels or raft-rs/udp".into()),
    }
}
