//! A live picture of Raft: `cargo run --example dashboard`, then open the address it prints.
//!
//! Five nodes run in this program, and a page shows them: the ring with each node's role,
//! term, vote and timer, the datagrams on their way, each log, and what happened when.
//! Nodes and links can be stopped and cut, requests sent, datagrams lost. With `--slow 20`
//! all of it takes twenty times as long, so that an eye can follow.
//!
//! Nothing is played: the nodes are the library's own, in threads of this program, and speak
//! over UDP. What is shown is what they tell (`Event`s, `check_committed_entry`, `on_commit`)
//! and what passes the relay between them.
//!
//! ```text
//!   RaftNode ◄──datagrams──► Network (cuts, loses, delays)
//!      │                        │ each datagram
//!      └──events, entries──► Picture ──stream of JSON──► page.html
//!   Cluster ◄──────orders──── Server ◄────POST──────────────┘
//! ```

mod cluster;
mod kind;
mod network;
mod picture;
mod server;

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::cluster::{Cluster, Pace};
use crate::picture::Picture;

const USAGE: &str = "Usage: dashboard [--slow N] [--port PORT]

  --slow N      everything takes N times as long, 1 to 40 (1 is the library's own pace)
  --port PORT   where the page is, at 127.0.0.1 (8017; 0 is any that is free)";

/// How often the page hears.
const FRAME: Duration = Duration::from_millis(40);

fn main() -> ExitCode {
    env_logger::init(); // RUST_LOG=info tells the same story in words
    let (slow, port) = match arguments() {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("dashboard: {error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(Pace { slow }, port) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dashboard: {error}");
            ExitCode::from(2)
        }
    }
}

/// How slow, and the page's port. `None` for `--help`.
fn arguments() -> Result<Option<(u32, u16)>, lexopt::Error> {
    use lexopt::prelude::*;
    let mut parser = lexopt::Parser::from_env();
    let (mut slow, mut port) = (1, 8017);
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(None),
            Long("slow") => slow = parser.value()?.parse()?,
            Long("port") => port = parser.value()?.parse()?,
            other => return Err(other.unexpected()),
        }
    }
    if !(1..=40).contains(&slow) {
        return Err(format!("--slow {slow}: a number from 1 to 40 is wanted").into());
    }
    Ok(Some((slow, port)))
}

fn run(pace: Pace, port: u16) -> Result<(), Box<dyn Error>> {
    let page = server::bind(port)?;
    let (cluster, told) = Cluster::start(pace)?;
    let cluster = Arc::new(cluster);
    let picture = Arc::new(Picture::new(pace, cluster.names()));
    println!("the picture is at http://{}", page.local_addr()?);
    server::serve(page, Arc::clone(&cluster), Arc::clone(&picture));
    loop {
        thread::sleep(FRAME);
        picture.draw(&cluster, &told);
    }
}
