//! A replicated store that redis-cli speaks to, one process a node:
//! `cargo run --release --example kv -- cluster.json node0 --port 7000`.
//!
//! Any node takes any command of `COMMANDS`, and answers it as Redis does.
//!
//! ```text
//!   a client ──► one thread a connection ──► one request a pipeline ──► RaftNode ──► Store ──► Board
//!            ◄────────── its answers, in order ◄── the reply ◄────────────────────────┘
//! ```
//!
//! - `kv/resp.rs` has the protocol, `kv/commands.rs` what each command does, `kv/store.rs` the state
//!   machine and its two boards, a map in memory and a database on disk; `kv/here.rs` answers what
//!   needs no agreement, `kv/session.rs` has what waits from `MULTI` to `EXEC`. Here is the rest: what
//!   makes a cluster of it.
//! - The commands that a client sent together go to the cluster together. If all of them only read,
//!   they are one `Request::query`: linearizable, and nothing is written. If one of them writes,
//!   they are one entry of the log, its reads included, so each sees what was before it and nothing
//!   comes between them. What comes meanwhile waits for the answers: two requests under way might be
//!   applied in either order.
//! - A command takes effect once. The library sends it again until it is committed, through changes
//!   of the leader, and the client does not notice. What cannot be known is said: `UNKNOWN` where no
//!   answer came in time (`"request_timeout_ms"` in the file): the command may have been done, or not,
//!   or will be. A client whose connection breaks knows as little; neither should repeat an `INCR`
//!   without looking, and some libraries do so by themselves unless they are told not to.
//! - With another error nothing has happened: `CLUSTERDOWN` (no majority, or this node is out),
//!   `TRYAGAIN` (too much at once), `ERR` (the command cannot be).

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use std::{fs, thread};

use kontiki::{Config, Pending, RaftNode, Request, RequestError};
use redis_protocol::resp2::types::OwnedFrame as Frame;
use serde_json::{Value, json};

use crate::commands::{Kind, error};
use crate::here::here;
use crate::resp::{Pipeline, Words, bytes, encode, newer, text};
use crate::session::{Command, Session, Step};
use crate::store::{Disk, Memory, Store};

#[path = "kv/commands.rs"]
mod commands;
#[path = "kv/here.rs"]
mod here;
#[path = "kv/resp.rs"]
mod resp;
#[path = "kv/session.rs"]
mod session;
#[path = "kv/store.rs"]
mod store;

const USAGE: &str = "Usage: kv CONFIG NAME --port PORT [--bind IP] [--clients COUNT] [--data DIR [--redb]]

Node NAME of the cluster in the file CONFIG, for Redis's clients at IP:PORT (127.0.0.1 by default), so
many at a time (1000 by default).
With --data DIR its log is in DIR/NAME; with --redb its state, too, is on the disk, in DIR/NAME.redb.";

fn main() -> ExitCode {
    env_logger::init();
    let arguments = match arguments() {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("kv: {error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kv: {error}");
            ExitCode::from(2)
        }
    }
}

struct Arguments {
    file: PathBuf,
    name: String,
    address: (IpAddr, u16),
    clients: usize,
    data: Option<String>,
    redb: bool,
}

/// `None` for `--help`.
fn arguments() -> Result<Option<Arguments>, lexopt::Error> {
    use lexopt::prelude::*;
    let mut parser = lexopt::Parser::from_env();
    let (mut file, mut name, mut port, mut data) = (None, None, None, None);
    let (mut ip, mut clients, mut redb) = (IpAddr::from(Ipv4Addr::LOCALHOST), 1000, false);
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(None),
            Long("port") => port = Some(parser.value()?.parse()?),
            Long("bind") => ip = parser.value()?.parse()?,
            Long("clients") => clients = parser.value()?.parse()?,
            Long("data") => data = Some(parser.value()?.string()?),
            Long("redb") => redb = true,
            Value(value) if file.is_none() => file = Some(value.into()),
            Value(value) if name.is_none() => name = Some(value.string()?),
            other => return Err(other.unexpected()),
        }
    }
    if redb && data.is_none() {
        // Its state would outlive its log, and meet the log of another cluster.
        return Err("--redb needs --data".into());
    }
    Ok(Some(Arguments {
        file: file.ok_or("the path of the cluster's file is missing")?,
        name: name.ok_or("the node's name is missing")?,
        address: (ip, port.ok_or("the port for clients is missing")?),
        clients,
        data,
        redb,
    }))
}

/// Ends only if the node cannot be started.
fn run(
    Arguments { file, name, address, clients, data, redb }: Arguments,
) -> Result<(), Box<dyn Error>> {
    let mut config = Config::load(file)?;
    let mut database = None;
    if let Some(dir) = data {
        fs::create_dir_all(&dir)?;
        let dir = fs::canonicalize(dir)?;
        database = redb.then(|| dir.join(format!("{name}.redb")));
        config = config.with(json!({ "data_dir": dir.to_str() }))?;
    }
    let config = config.state_machine(move |_| match &database {
        Some(path) => Disk::open(path).map(|board| Store::new(Box::new(board))),
        None => Ok(Store::new(Box::new(Memory::default()))),
    });
    let listener = TcpListener::bind(address)?;
    let node = Arc::new(RaftNode::new(&config, &name)?);
    node.start()?;
    println!("{name} is there for redis-cli -h {} -p {}", address.0, listener.local_addr()?.port());
    for client in listener.incoming() {
        let Ok(mut client) = client else {
            thread::sleep(Duration::from_millis(10)); // no file is free: one will be
            continue;
        };
        // Each connection has a thread, so there is a limit; each has the node, and so have we.
        if Arc::strong_count(&node) > clients {
            let _ = client.write_all(b"-ERR max number of clients reached\r\n");
            continue;
        }
        let node = Arc::clone(&node);
        // Without a thread it is closed, as it is when the client has gone.
        let _ = thread::Builder::new().spawn(move || serve(&node, client));
    }
    Ok(())
}

/// One connection, to its end.
fn serve(node: &RaftNode, mut client: TcpStream) -> io::Result<()> {
    client.set_nodelay(true)?;
    let (mut input, mut part, mut session) = (Vec::new(), vec![0; 64 << 10], Session::default());
    loop {
        let pipeline = Pipeline::of(&input);
        if !pipeline.commands.is_empty() {
            client.write_all(&answers(node, pipeline.commands, &mut session))?;
        }
        if let Some(broken) = pipeline.broken {
            return client.write_all(&encode(&broken));
        }
        input.drain(..pipeline.used);
        if pipeline.used == 0 {
            match client.read(&mut part)? {
                0 => return Ok(()),
                length => input.extend(&part[..length]),
            }
        }
    }
}

/// The answers to a pipeline, one behind the other.
fn answers(node: &RaftNode, commands: Vec<Words>, session: &mut Session) -> Vec<u8> {
    let steps: Vec<Step> = commands.into_iter().map(|words| session.step(words)).collect();
    let all = || steps.iter().flat_map(Step::commands);
    let shared = all().filter(|(kind, _)| *kind != Kind::Here);
    let shared: Vec<Vec<String>> =
        shared.map(|(_, words)| words.iter().map(|word| text(word)).collect()).collect();
    let writes = all().any(|(kind, _)| *kind == Kind::Write);
    let agreed = if shared.is_empty() { Ok(Vec::new()) } else { ask(node, &shared, writes) };
    let mut next = agreed.iter().flatten();
    let mut answer = |(kind, words): &Command| {
        let answer = match (kind, &agreed) {
            (Kind::Here, _) => encode(&here(node, words, &mut session.resp3)),
            (_, Ok(_)) => bytes(next.next().and_then(Value::as_str).unwrap_or(LOST)),
            (_, Err(failure)) => encode(failure),
        };
        let map =
            ["hello", "config"].iter().any(|name| words[0].eq_ignore_ascii_case(name.as_bytes()));
        if session.resp3 { newer(&answer, map) } else { answer }
    };
    let mut output = Vec::new();
    for step in &steps {
        match (step, &agreed) {
            (Step::Say(known), _) => output.extend(encode(known)),
            (Step::Do(command), _) => output.extend(answer(command)),
            (Step::All(_), Err(failure)) => output.extend(encode(failure)),
            (Step::All(commands), Ok(_)) => {
                output.extend(format!("*{}\r\n", commands.len()).bytes());
                commands.iter().for_each(|command| output.extend(answer(command)));
            }
        }
    }
    output
}

/// For an answer that this node cannot know: it came by these commands in a snapshot, which
/// has only so much room for what they were answered.
const LOST: &str = "-UNKNOWN the command has taken effect, and its answer was not kept\r\n";

/// What the cluster answers, to each command, or to all of them that nothing came of it.
fn ask(node: &RaftNode, commands: &[Vec<String>], writes: bool) -> Result<Vec<Value>, Frame> {
    let request = if writes { Request::command(commands) } else { Request::query(commands) };
    match node.client_request(request).and_then(Pending::wait) {
        Ok(reply) => match reply.value {
            Value::Array(answers) => Ok(answers),
            _ => Ok(Vec::new()),
        },
        Err(RequestError::Unknown) => Err(error(
            "UNKNOWN there was no answer in time: the command may or may not take effect, now or later",
        )),
        Err(failure) => {
            let word = match failure {
                RequestError::Busy { .. } => "TRYAGAIN",
                RequestError::TooLarge { .. } | RequestError::Invalid { .. } => "ERR",
                _ => "CLUSTERDOWN",
            };
            Err(error(&format!("{word} {failure}")))
        }
    }
}
