//! A node in its namespace, one life of it, with a client that writes and one that reads.
//!
//! ```text
//!   writer ──"17"────┐                        ┌─► "ok 5 (term 1)" ──────────► writer
//!                    ├─► standard ─► node ────┼─► "read 5 (term 1): 17" ────► reader
//!   reader ──":read"─┘    input               └─► "17: ..", ":read: .." ────► the one or the other
//! ```
//!
//! Each client waits for its answer before it goes on, so an answer needs no number to
//! say whose it is. What a node is told it is told by a person's means alone: its
//! terminal, and signals.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::history::{Asked, Ending, History};
use crate::net::Network;
use crate::program::program;

/// How long a client thinks between two requests: long enough for a history that can be
/// checked, short enough for requests to be under way at each moment that matters.
const PAUSE: Duration = Duration::from_millis(10);
/// So many of its last lines are kept, for a test that fails.
const LINES_KEPT: usize = 40;

/// A node's process. It is killed when this is dropped.
pub struct Node {
    pub name: String,
    child: Child,
    stdin: Option<Arc<Mutex<ChildStdin>>>,
    heard: Arc<Heard>,
    clients: Vec<JoinHandle<()>>,
    listeners: Vec<JoinHandle<()>>,
}

/// What the node printed, and what its clients are to do.
struct Heard {
    number: usize,
    history: Arc<History>,
    lines: Mutex<VecDeque<String>>,
    /// The newest term of which it said who leads, and whom it follows now.
    stand: Mutex<Stand>,
    /// How long the next value is to be at least, in bytes.
    long: AtomicUsize,
    over: AtomicBool,
}

/// What a node says of who leads.
#[derive(Clone, Debug, Default)]
pub struct Stand {
    /// The newest term that it spoke of.
    pub term: u64,
    /// Who leads in it, if it knows one now.
    pub leader: Option<String>,
    /// Whether it joined and votes.
    votes_again: bool,
}

impl Node {
    pub fn start(network: &Network, number: usize, file: &str, history: &Arc<History>) -> Node {
        let name = format!("node{number}");
        let mut child = Command::new("ip")
            .args(["netns", "exec", &network.namespace(number)])
            .arg(program())
            .args([file, &name])
            .env("RUST_LOG", "info") // elections, for the story of a test that fails
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("ip can be run");
        let heard = Arc::new(Heard {
            number,
            history: Arc::clone(history),
            lines: Mutex::default(),
            stand: Mutex::default(),
            long: AtomicUsize::new(0),
            over: AtomicBool::new(false),
        });
        let (to_writer, for_writer) = mpsc::channel();
        let (to_reader, for_reader) = mpsc::channel();
        let stdin = Arc::new(Mutex::new(child.stdin.take().expect("it is piped")));
        let out = child.stdout.take().expect("it is piped");
        let err = child.stderr.take().expect("it is piped");
        let listeners = vec![
            heard.listen(out, [to_writer.clone(), to_reader.clone()]),
            heard.listen(err, [to_writer, to_reader]),
        ];
        let writer = heard.ask(true, Arc::clone(&stdin), for_writer);
        let reader = heard.ask(false, Arc::clone(&stdin), for_reader);
        let clients = vec![writer, reader];
        Node { name, child, stdin: Some(stdin), heard, clients, listeners }
    }

    /// What it last said of who leads.
    pub fn stand(&self) -> Stand {
        lock(&self.heard.stand).clone()
    }

    /// Whether it has said, in this life, that it was given a vote.
    pub fn votes_again(&self) -> bool {
        lock(&self.heard.stand).votes_again
    }

    /// Its writer's next value is so long.
    pub fn write_long(&self, bytes: usize) {
        self.heard.long.store(bytes, Ordering::SeqCst);
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args(["-s", signal, &pid]).status().expect("kill can run");
        assert!(sent.success(), "kill -s {signal} {} ({pid})", self.name);
    }

    /// Its clients ask nothing more.
    pub fn hush(&self) {
        self.heard.over.store(true, Ordering::SeqCst);
    }

    /// Whether its clients have all their answers, once they were told to stop.
    pub fn is_hushed(&self) -> bool {
        self.clients.iter().all(JoinHandle::is_finished)
    }

    /// Ends its input, and waits for it to end in good order.
    pub fn end(mut self) {
        self.stdin = None;
        let deadline = Instant::now() + Duration::from_secs(15);
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                break status;
            }
            let late = "has not ended with its input";
            assert!(Instant::now() < deadline, "{} {late}\n{}", self.name, self.story());
            thread::sleep(Duration::from_millis(5));
        };
        assert!(status.success(), "{} ended with {status}\n{}", self.name, self.story());
    }

    /// What it printed last, for a test that fails.
    pub fn story(&self) -> String {
        let lines = lock(&self.heard.lines);
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        format!("{} printed last:\n  {}\n", self.name, lines.join("\n  "))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for thread in self.listeners.drain(..).chain(self.clients.drain(..)) {
            let _ = thread.join();
        }
    }
}

impl Heard {
    /// A client: asks, waits, and asks again, until the node dies or all is over. `write`
    /// says which of the two.
    fn ask(
        self: &Arc<Heard>,
        write: bool,
        stdin: Arc<Mutex<ChildStdin>>,
        answers: mpsc::Receiver<Ending>,
    ) -> JoinHandle<()> {
        let heard = Arc::clone(self);
        // Each life of a node has clients of its own: those of an earlier one may have
        // requests whose outcome will never be known.
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let client = NEXT.fetch_add(1, Ordering::Relaxed);
        thread::spawn(move || {
            while !heard.over.load(Ordering::SeqCst) {
                let long = if write { heard.long.swap(0, Ordering::SeqCst) } else { 0 };
                let (number, asked) = heard.history.call(client, heard.number, write, long);
                if writeln!(lock(&stdin), "{}", line(asked, long)).is_err() {
                    return;
                }
                let Ok(ending) = answers.recv() else { return };
                heard.history.end(number, ending);
                thread::sleep(PAUSE);
            }
        })
    }

    /// Takes down what the node prints, and hands each client its answers.
    fn listen(
        self: &Arc<Heard>,
        from: impl Read + Send + 'static,
        [writer, reader]: [mpsc::Sender<Ending>; 2],
    ) -> JoinHandle<()> {
        let heard = Arc::clone(self);
        thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                let at = heard.history.now();
                // Who no longer listens has ended with the node.
                match answer(&line, at) {
                    Some((true, ending)) => drop(writer.send(ending)),
                    Some((false, ending)) => drop(reader.send(ending)),
                    None => heard.note(&line, at),
                }
            }
        })
    }

    fn note(&self, line: &str, at: u64) {
        // Every node prints every entry: nothing that anybody wants to read.
        if line.starts_with("committed ") {
            return;
        }
        let mut lines = lock(&self.lines);
        if lines.len() == LINES_KEPT {
            lines.pop_front();
        }
        lines.push_back(format!("{:>6} ms  {line}", at / 1000));
        drop(lines);
        lock(&self.stand).take(line, &format!("node{}", self.number));
    }
}

impl Stand {
    fn take(&mut self, line: &str, own: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let (term, leader) = match words[..] {
            [name, "leads", "in", "term", term] if name == own => (term, name),
            [name, "follows", leader, "in", "term", term] if name == own => (term, leader),
            [name, "knows", "no", "leader"] if name == own => {
                self.leader = None;
                return;
            }
            [name, "has", "caught", "up:", "it", "votes"] if name == own => {
                self.votes_again = true;
                return;
            }
            _ => return,
        };
        self.term = term.parse().expect("a term is a number");
        self.leader = Some(leader.to_string());
    }
}

/// What is typed for a request. A long value is a list of the number and something long.
fn line(asked: Asked, long: usize) -> String {
    match asked {
        Asked::Write(value) if long > 0 => format!(r#"[{value},"{}"]"#, "x".repeat(long)),
        Asked::Write(value) => value.to_string(),
        Asked::Read => ":read".to_string(),
    }
}

/// An answer: whether it is the writer's, and what it says. Other lines are none.
fn answer(line: &str, at: u64) -> Option<(bool, Ending)> {
    if line.starts_with("ok ") {
        return Some((true, Ending::Done { at, value: None }));
    }
    if line.starts_with("read ") {
        let (_, found) = line.split_once("): ").expect("a read shows what it found");
        let number = found.trim_start_matches('[').split(',').next().unwrap_or_default();
        let value = match number {
            "null" => None,
            number => Some(number.parse().expect("a value begins with its number")),
        };
        return Some((false, Ending::Done { at, value }));
    }
    // An error begins with the request as it was typed.
    let write = line.starts_with(|first: char| first.is_ascii_digit() || first == '[');
    let (_, problem) = line.split_once(": ").filter(|_| write || line.starts_with(":read: "))?;
    let problem = problem.trim_start();
    if problem.starts_with("the outcome is unknown") {
        Some((write, Ending::Unknown))
    } else if problem.starts_with("the request was refused") {
        Some((write, Ending::Refused))
    } else {
        None
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
