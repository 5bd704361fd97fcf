//! One node as a process, with a terminal for a client: `cargo run --example node -- cluster.json node0`.
//!
//! Each line that is typed is a request; what the cluster agrees on is printed as this node
//! learns it. Start one such process for each node of the file, each in a terminal of its own.
//! Ctrl-D stops the node in good order, Ctrl-C is its crash. With `--data DIR` it keeps its log
//! in `DIR/NAME` and gets over that; without, what it knew is gone. With `--watch` it shows a
//! line for each member instead of what happens.
//!
//! ```text
//!   standard input ──► lines ───┐
//!                      events ──┼──► one loop ──► RaftNode ──► replies, printed as they come
//!                      a clock ─┘
//! ```

#[path = "node/watch.rs"]
mod watch;

use std::collections::BTreeSet;
use std::io::BufRead;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use std::{io, thread};

use crossbeam_channel::{Receiver, bounded, never, select, tick};
use kontiki::{
    Committed, Config, Error, Event, Member, Pending, RaftNode, Request, RequestError, Role,
    Verdict,
};
use serde_json::{Value, json};

use crate::watch::Watch;

const USAGE: &str =
    "Usage: node [--data DIR] [--watch] CONFIG NAME    (such as: node cluster.json node0)";

const HELP: &str = r#"Each line is a request:
  {"val": 1}          commits this value; any JSON will do
  :id ID JSON         commits a value once, however often it is asked under this id
  :lookup ID          asks where the value with this id was committed
  :read [JSON]        asks the cluster for the newest value
  :check              shows what this node knows, without asking anybody
  :members            shows who the members are, as this node knows it
  :add NAME ADDRESS   makes a node that waits a member (such as: :add node3 127.0.0.1:5568);
                      with "learner" behind it, one that does not vote
  :remove NAME        ends its membership
  :transfer NAME      has it lead
  :help               shows this
Ctrl-D answers what was asked and stops the node; Ctrl-C kills it.
With --data DIR its log is in DIR/NAME and outlives it; without, what it held in memory is gone.
With --watch it shows one line a member, drawn anew, and not what happens."#;

/// With so many requests on their way reading pauses, for input that comes from a file.
const OUTSTANDING: usize = 1000;

fn main() -> ExitCode {
    env_logger::init(); // RUST_LOG=info shows how the nodes come to agree
    let arguments = match arguments() {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            println!("{USAGE}\n\n{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("node: {error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    run(&arguments).unwrap_or_else(|error| {
        eprintln!("node: {error}");
        if let Error::Storage { file, .. } = &error {
            let file = Path::new(file);
            let folder = if file.is_dir() { file } else { file.parent().unwrap_or(file) };
            eprintln!("What is there: cargo run --example inspect -- {}", folder.display());
        }
        ExitCode::from(2)
    })
}

struct Arguments {
    /// The cluster's file.
    path: PathBuf,
    name: String,
    /// Where nodes keep their logs, each in a folder of its own.
    data: Option<String>,
    /// Whether members are shown, and not what happens.
    watch: bool,
}

/// `None` for `--help`.
fn arguments() -> Result<Option<Arguments>, lexopt::Error> {
    use lexopt::prelude::*;
    let mut parser = lexopt::Parser::from_env();
    let (mut path, mut name, mut data, mut watch) = (None, None, None, false);
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(None),
            Long("data") => data = Some(parser.value()?.string()?),
            Long("watch") => watch = true,
            Value(value) if path.is_none() => path = Some(value.into()),
            Value(value) if name.is_none() => name = Some(value.string()?),
            other => return Err(other.unexpected()),
        }
    }
    let path = path.ok_or("the path of the cluster's file is missing")?;
    let name = name.ok_or("the node's name is missing")?;
    Ok(Some(Arguments { path, name, data, watch }))
}

fn run(Arguments { path, name, data, watch }: &Arguments) -> Result<ExitCode, Error> {
    let mut config = Config::load(path)?;
    if let Some(dir) = data {
        config = config.with(json!({ "data_dir": dir }))?;
    }
    // This is called in a thread of the node's, for each entry in its order.
    let quiet = *watch;
    let config = config.on_commit(move |_, entry| match entry.id() {
        _ if quiet => {}
        Some(id) => println!("committed {}: {} (id {id})", entry.index, entry.json()),
        None => println!("committed {}: {}", entry.index, entry.json()),
    });
    let events = config.events();
    let node = RaftNode::new(&config, name)?;
    node.start()?;
    let remembers = data.is_some() && node.check_committed_entry().role != Role::Fresh;
    if remembers {
        println!("{name} remembers: its log was there");
    }
    println!("{name} has started; type a JSON value to commit it, or :help");

    let (asked, waiting_for) = (Vec::new(), Vec::new());
    let (down, newcomer, members_at, removed) = (BTreeSet::new(), !remembers, 0, false);
    let watch = watch.then(Watch::new);
    let mut client =
        Client { node, asked, waiting_for, down, newcomer, members_at, removed, watch };
    let (mut lines, mut ended) = (lines(), false);
    // No event tells of these; and at first a node waits for everybody, if only for a moment.
    let look = tick(Duration::from_millis(500));
    while !(ended && client.asked.is_empty()) {
        let pause = never();
        let ready = if client.asked.len() < OUTSTANDING { &lines } else { &pause };
        select! {
            recv(ready) -> line => match line {
                Ok((number, line)) => client.take(number, &line),
                Err(_) => (lines, ended) = (never(), true),
            },
            recv(events) -> event => event.iter().for_each(|event| client.tell(event)),
            recv(look) -> _ => if client.look().role == Role::Stopped {
                eprintln!("node: {name} takes no part any more: {}", client.failure());
                return Ok(ExitCode::FAILURE);
            },
            default(Duration::from_millis(5)) => {}
        }
        client.show_answers();
    }
    client.node.stop();
    Ok(ExitCode::SUCCESS)
}

/// The lines of standard input with their numbers; a thread reads them, since reading blocks.
fn lines() -> Receiver<(usize, Vec<u8>)> {
    let (sender, lines) = bounded(1);
    thread::spawn(move || {
        let read = io::stdin().lock().split(b'\n').map_while(Result::ok);
        (1..).zip(read).try_for_each(|line| sender.send(line))
    });
    lines
}

/// Says what happened at this node.
fn tell(event: &Event) {
    match event {
        Event::Leader { node, term, leader: Some(leader), .. } if leader == node => {
            println!("{node} leads in term {term}");
        }
        Event::Leader { node, term, leader: Some(leader), .. } => {
            println!("{node} follows {leader} in term {term}");
        }
        Event::Leader { node, leader: None, .. } => println!("{node} knows no leader"),
        Event::Snapshot { node, index, received: true, .. } => {
            println!("{node} was far behind: the leader sent a snapshot of all up to {index}");
        }
        Event::Members { node, index, voters, learners, .. } => {
            let learners = learners.iter().map(|name| format!("{name} (learner)"));
            let all: Vec<String> = voters.iter().cloned().chain(learners).collect();
            println!("{node} knows as members, as of entry {index}: {}", all.join(", "));
        }
        Event::Missed { count, .. } => println!("({count} events were missed)"),
        _ => {}
    }
}

/// The node and what was asked of it.
struct Client {
    node: RaftNode,
    asked: Vec<Asked>,
    waiting_for: Vec<String>,
    /// Who was agreed to be down, as far as it was told.
    down: BTreeSet<String>,
    /// It remembered nothing when it was started, and has no vote so far.
    newcomer: bool,
    /// Which entry states the members that it was last told of.
    members_at: u64,
    removed: bool,
    /// What shows the members, if they are watched.
    watch: Option<Watch>,
}

impl Client {
    /// Does what a line says. A mistake in it is told, and nothing else happens.
    fn take(&mut self, number: usize, line: &[u8]) {
        if let Some(watch) = &mut self.watch {
            watch.typed();
            watch.lift();
        }
        let done = match str::from_utf8(line) {
            Ok(line) => self.carry_out(line.trim()),
            Err(error) => Err(format!("this is not UTF-8 text: {error}")),
        };
        if let Err(problem) = done {
            eprintln!("line {number}: {problem}");
        }
    }

    fn carry_out(&mut self, line: &str) -> Result<(), String> {
        let (first, rest) = split_word(line);
        match first {
            "" => {}
            ":help" => println!("{HELP}"),
            ":check" => show(&self.node.check_committed_entry()),
            ":members" => show_members(&self.node.check_committed_entry()),
            ":add" => self.ask(line, "members", add(rest)?)?,
            ":remove" | ":transfer" if rest.is_empty() => {
                return Err(format!("write {first} NAME"));
            }
            ":remove" => self.ask(line, "members", Request::remove_member(rest))?,
            ":transfer" => self.ask(line, "members", Request::transfer_leadership(rest))?,
            ":read" if rest.is_empty() => self.ask(line, "read", Request::query(&Value::Null))?,
            ":read" => self.ask(line, "read", Request::query(&parse(line, rest)?))?,
            ":lookup" => self.ask(line, "found", Request::lookup(rest))?,
            ":id" => {
                let (id, json) = split_word(rest);
                self.ask(line, "ok", Request::from(parse(line, json)?).id(id))?;
            }
            _ if first.starts_with(':') => {
                return Err(format!("there is no {first}; :help shows what there is"));
            }
            _ => self.ask(line, "ok", Request::from(parse(line, line)?))?,
        }
        Ok(())
    }

    /// Sends a request on its way. The reply is printed when it comes.
    fn ask(&mut self, line: &str, word: &'static str, request: Request) -> Result<(), String> {
        let pending = self.node.client_request(request).map_err(|error| error.to_string())?;
        self.asked.push(Asked { line: line.to_string(), word, pending });
        Ok(())
    }

    /// Prints the replies that are there.
    fn show_answers(&mut self) {
        let watch = &mut self.watch;
        self.asked.retain_mut(|asked| {
            let Some(answer) = asked.answer() else { return true };
            if let Some(watch) = watch {
                watch.lift();
            }
            match answer {
                Ok(text) => println!("{text}"),
                Err(text) => eprintln!("{text}"),
            }
            false
        });
    }

    /// Says what happened at this node.
    fn tell(&mut self, event: &Event) {
        if self.watch.is_some() {
            return;
        }
        tell(event);
        match event {
            Event::Members { index, .. } => self.members_at = *index,
            Event::MemberDown { node, member, index, .. } => {
                println!("{node} knows that {member} is down, as of entry {index}");
                self.down.insert(member.clone());
            }
            // That all come up in the beginning is no news.
            Event::MemberUp { node, member, index, .. } if self.down.remove(member) => {
                println!("{node} knows that {member} is up again, as of entry {index}");
            }
            _ => {}
        }
    }

    /// Says whom the node waits for, and whether it was removed.
    fn look(&mut self) -> Committed {
        let known = self.node.check_committed_entry();
        if let Some(watch) = &mut self.watch {
            watch.draw(&known);
            return known;
        }
        if known.waiting_for != self.waiting_for {
            self.waiting_for.clone_from(&known.waiting_for);
            if !known.waiting_for.is_empty() {
                println!("{} is waiting for {}", known.node, known.waiting_for.join(", "));
            }
        }
        if self.newcomer && known.is_voter() {
            self.newcomer = false;
            // Entry 1 founds the cluster: those whom it names have joined nobody.
            if self.members_at > 1 {
                println!("{} has caught up: it votes", known.node);
            }
        }
        if known.role == Role::Removed && !self.removed {
            println!("{} was removed from the cluster: it is silent from now on", known.node);
        }
        self.removed = known.role == Role::Removed;
        known
    }

    /// Why the node has stopped by itself: every call says so.
    fn failure(&self) -> String {
        match self.node.client_request(Request::query(&Value::Null)) {
            Err(RequestError::Failed { reason, .. }) => reason,
            Err(error) => error.to_string(),
            Ok(_) => "it does not say why".to_string(),
        }
    }
}

/// A request whose reply is not printed yet.
struct Asked {
    line: String,
    /// What to call the reply.
    word: &'static str,
    pending: Pending,
}

impl Asked {
    /// The reply in words if it is there.
    fn answer(&mut self) -> Option<Result<String, String>> {
        Some(Ok(match self.pending.try_reply() {
            Ok(None) => return None,
            Ok(Some(reply)) if self.word == "members" => {
                let names = reply.value.as_object().into_iter().flatten();
                let named = |(name, node): (&String, &Value)| match node["role"].as_str() {
                    Some("learner") => format!("{name} (learner)"),
                    _ => name.clone(),
                };
                let names: Vec<String> = names.map(named).collect();
                format!("members {} (term {}): {}", reply.index, reply.term, names.join(", "))
            }
            Ok(Some(reply)) if self.word == "read" => {
                format!("read {} (term {}): {}", reply.index, reply.term, reply.value)
            }
            Ok(Some(reply)) => format!("{} {} (term {})", self.word, reply.index, reply.term),
            Err(error) => return Some(Err(format!("{}: {error}", self.line))),
        }))
    }
}

/// What comes behind `:add`.
fn add(rest: &str) -> Result<Request, String> {
    let words: Vec<&str> = rest.split_whitespace().collect();
    let (name, address, learner) = match words[..] {
        [name, address] => (name, address, false),
        [name, address, "learner"] => (name, address, true),
        _ => return Err("write :add NAME ADDRESS, or :add NAME ADDRESS learner".to_string()),
    };
    let address: SocketAddr =
        address.parse().map_err(|_| format!("{address} is no address such as 127.0.0.1:5568"))?;
    Ok(match learner {
        true => Request::add_learner(name, address),
        false => Request::add_member(name, address),
    })
}

fn split_word(line: &str) -> (&str, &str) {
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    (word, rest.trim_start())
}

/// Parses JSON that is the end of a line, and says where in that line it goes wrong.
fn parse(line: &str, json: &str) -> Result<Value, String> {
    serde_json::from_str(json).map_err(|error| {
        let column = line.len() - json.len() + error.column();
        let text = error.to_string();
        let what = text.split(" at line ").next().unwrap_or_default();
        let hint = if what == "expected value" { "; text needs quotes" } else { "" };
        format!("this is not JSON at column {column}: {what}{hint}")
    })
}

/// What a node knows, for a person.
fn show(known: &Committed) {
    println!("{}: {} in term {}", known.node, known.role, known.term);
    println!("  leader       {}", known.leader.as_deref().unwrap_or("none known"));
    match &known.entry {
        Some(entry) => {
            println!("  newest entry {}: {} (term {})", entry.index, entry.json(), entry.term)
        }
        None => println!("  newest entry none yet"),
    }
    match known.quorum_ago {
        Some(ago) => println!("  quorum       in touch {} ms ago", ago.as_millis()),
        None => println!("  quorum       not in touch so far"),
    }
    show_members(known);
    if !known.waiting_for.is_empty() {
        println!("  waiting for  {}", known.waiting_for.join(", "));
    }
}

fn show_members(known: &Committed) {
    for Member { name, address, voter, joining, verdict, heard_ago, .. } in &known.members {
        let verdict = match verdict {
            Some(Verdict { up: true, index, .. }) => format!("up as of {index}"),
            Some(Verdict { up: false, index, .. }) => format!("down as of {index}"),
            None => "never up".to_string(),
        };
        let role = match (voter, joining) {
            (true, _) => "voter",
            (false, true) => "learner that joins",
            (false, false) => "learner",
        };
        let heard = match heard_ago {
            Some(Duration::ZERO) => "this node".to_string(),
            Some(ago) => format!("heard {} ms ago", ago.as_millis()),
            None => "not heard".to_string(),
        };
        println!("  member       {name} at {address}, {role}, {verdict}, {heard}");
    }
}
