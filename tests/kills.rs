//! Three durable nodes, a process each, under load; and SIGKILL, again and again, of one,
//! of two, of all of them. In the end each acknowledged request is there exactly once, on
//! every node; what was refused is nowhere; and what was asked again, under its id, until
//! it was acknowledged, came of it once as well.
//!
//! ```text
//!   a node's client ──"17"──► standard input ──► RaftNode ──► "ok 17", "no 17 unknown"
//!                   ──"?"───►                             ──► "all [[1,1],[2,1],..]"
//! ```
//!
//! The nodes are this program itself, run again. It takes 15 seconds; `KILLS_SECONDS=120`
//! says how long, `KILLS_SEED=7` which chance.
#![cfg(target_os = "linux")]

#[path = "common/chance.rs"]
#[allow(dead_code)] // each test file uses its own part of these
mod chance;
#[path = "common/folder.rs"]
mod folder;
#[path = "common/processes.rs"]
#[allow(dead_code)]
mod processes;
#[path = "common/program.rs"]
#[allow(dead_code)]
mod program;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{env, fmt};

use kontiki::{BoxError, Config, Entry, RaftNode, Request, RequestError, StateMachine};
use serde_json::{Value, json};

use crate::chance::Chance;
use crate::folder::on_disk;
use crate::processes::{Cluster, NAMES};

/// So many requests are on their way at each node.
const OUTSTANDING: usize = 16;
/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(40);

// ---------------------------------------------------------------- a node

/// By these the program knows that it is to be a node.
const FILE: &str = "KONTIKI_KILLS_FILE";
const NAME: &str = "KONTIKI_KILLS_NAME";

/// How often each number was applied.
#[derive(Default)]
struct Counts(BTreeMap<u64, u64>);

impl StateMachine for Counts {
    fn apply(&mut self, entry: &Entry) -> Value {
        let count = self.0.entry(entry.parse().expect("all are numbers")).or_default();
        *count += 1;
        json!(*count)
    }
    fn query(&self, _: &Value) -> Value {
        self.0.iter().map(|(number, count)| json!([number, count])).collect()
    }
    fn snapshot(&self) -> Result<Vec<u8>, BoxError> {
        Ok(serde_json::to_vec(&self.0)?)
    }
    fn restore(&mut self, snapshot: &[u8]) -> Result<(), BoxError> {
        self.0 = serde_json::from_slice(snapshot)?;
        Ok(())
    }
}

/// Whether this number goes with an id, and is asked again until it is acknowledged.
fn has_id(number: u64) -> bool {
    number.is_multiple_of(2)
}

/// No test, unless this program is a node: then its whole life.
#[test]
fn a_node() {
    let (Some(file), Ok(name)) = (env::var_os(FILE), env::var(NAME)) else { return };
    env_logger::init();
    let config = Config::load(&file).expect("the file is sound");
    let config = config.state_machine(|_| Counts::default());
    let node = match RaftNode::new(&config, &name).and_then(|node| node.start().map(|()| node)) {
        Ok(node) => node,
        Err(error) => {
            println!("refused: {error}");
            return;
        }
    };
    println!("started");
    let (asked, lines) = crossbeam_channel::unbounded::<String>();
    thread::scope(|scope| {
        for _ in 0..OUTSTANDING {
            scope.spawn(|| lines.iter().for_each(|line| serve(&node, &line)));
        }
        for line in io::stdin().lines().map_while(Result::ok) {
            asked.send(line).expect("somebody serves");
        }
        drop(asked);
    });
}

fn serve(node: &RaftNode, line: &str) {
    let request = match line.parse::<u64>() {
        Ok(number) if has_id(number) => Request::from(json!(number)).id(format!("id-{number}")),
        Ok(number) => Request::from(json!(number)),
        Err(_) => Request::query(&()),
    };
    // One write each, so that lines of several threads do not mix.
    match node.client_request(request).and_then(|pending| pending.wait()) {
        Ok(reply) if line == "?" => println!("all {}", reply.value),
        // Applied more than once, it says so at once.
        Ok(reply) if reply.value == json!(1) => println!("ok {line}"),
        Ok(reply) => println!("twice {line}: {}", reply.value),
        Err(RequestError::Unknown) => println!("no {line} unknown"),
        Err(RequestError::Refused { .. }) => println!("no {line} refused"),
        Err(error) => println!("failed {line}: {error}"),
    }
}

// ---------------------------------------------------------------- their clients

/// What came of all requests.
#[derive(Default)]
struct Book {
    next: AtomicU64,
    over: AtomicBool,
    endings: Mutex<Endings>,
}

#[derive(Default)]
struct Endings {
    acknowledged: BTreeSet<u64>,
    refused: BTreeSet<u64>,
    /// Without an id: they may be there or not.
    unknown: BTreeSet<u64>,
    /// With one: to be asked again, at any node.
    again: VecDeque<u64>,
    /// What must not be.
    wrong: Vec<String>,
}

impl Book {
    fn endings(&self) -> MutexGuard<'_, Endings> {
        self.endings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What to ask next; `None` when all is asked.
    fn next(&self) -> Option<u64> {
        if let Some(number) = self.endings().again.pop_front() {
            return Some(number);
        }
        let more = !self.over.load(Ordering::SeqCst);
        more.then(|| self.next.fetch_add(1, Ordering::SeqCst))
    }

    /// Nobody will ever answer this one.
    fn orphaned(&self, number: u64) {
        let mut endings = self.endings();
        match has_id(number) {
            true => endings.again.push_back(number),
            false => drop(endings.unknown.insert(number)),
        }
    }
}

/// The way to a node, and what was asked by it and is not answered yet.
struct Line {
    input: Mutex<ChildStdin>,
    open: Mutex<BTreeSet<u64>>,
}

impl Line {
    fn ask(&self, number: u64) {
        // Before it is sent: the answer may be there at once.
        lock(&self.open).insert(number);
        // Should the node be dead, that is seen where its answers are read.
        let _ = writeln!(lock(&self.input), "{number}");
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A node's process, and its client.
struct Node {
    name: &'static str,
    child: Child,
    line: Arc<Line>,
    client: Option<JoinHandle<()>>,
    lists: mpsc::Receiver<BTreeMap<u64, u64>>,
    /// What it logged last.
    story: Arc<Mutex<VecDeque<String>>>,
    killed: Arc<AtomicBool>,
}

impl Node {
    fn start(cluster: &Cluster, name: &'static str, book: &Arc<Book>) -> Node {
        let mut child = Command::new(env::current_exe().expect("this program"))
            .args(["--exact", "a_node", "--nocapture"])
            .env(FILE, &cluster.file)
            .env(NAME, name)
            .env("RUST_LOG", "info")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("this program can be run again");
        let input = Mutex::new(child.stdin.take().expect("it is piped"));
        let line = Arc::new(Line { input, open: Mutex::default() });
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let errors = BufReader::new(child.stderr.take().expect("it is piped"));
        let story = Arc::new(Mutex::new(VecDeque::new()));
        let theirs = Arc::clone(&story);
        thread::spawn(move || {
            for line in errors.lines().map_while(Result::ok) {
                let mut story = lock(&theirs);
                if story.len() == 40 {
                    story.pop_front();
                }
                story.push_back(line);
            }
        });
        let killed = Arc::new(AtomicBool::new(false));
        let (to_lists, lists) = mpsc::channel();
        let (book, theirs) = (Arc::clone(book), Arc::clone(&line));
        let client = Client { name, book, line: theirs, lists: to_lists };
        let theirs = Arc::clone(&killed);
        let client = Some(thread::spawn(move || client.run(output, &theirs)));
        Node { name, child, line, client, lists, story, killed }
    }

    /// All that it has, by a linearizable read; it is refused while there is no leader.
    fn list(&self) -> BTreeMap<u64, u64> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let asked = writeln!(lock(&self.line.input), "?");
            let wait = Duration::from_secs(1);
            if let Some(list) = asked.ok().and_then(|()| self.lists.recv_timeout(wait).ok()) {
                return list;
            }
            let late = Instant::now() > deadline;
            assert!(!late, "{} gave no list within {PATIENCE:?}\n{self}", self.name);
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let story = lock(&self.story);
        let lines: Vec<&str> = story.iter().map(String::as_str).collect();
        writeln!(f, "{} said last:\n  {}", self.name, lines.join("\n  "))
    }
}

/// Killed as nothing else does; all that it printed is taken in afterwards.
impl Drop for Node {
    fn drop(&mut self) {
        self.killed.store(true, Ordering::SeqCst);
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = self.client.take().map(JoinHandle::join);
    }
}

/// Keeps a node busy: the next request for each answer.
struct Client {
    name: &'static str,
    book: Arc<Book>,
    line: Arc<Line>,
    lists: mpsc::Sender<BTreeMap<u64, u64>>,
}

impl Client {
    fn run(self, output: impl BufRead, killed: &AtomicBool) {
        for line in output.lines().map_while(Result::ok) {
            if line == "started" {
                (0..OUTSTANDING).for_each(|_| self.ask());
            } else if let Some(all) = line.strip_prefix("all ") {
                let all: Vec<(u64, u64)> = serde_json::from_str(all).expect("it is a list");
                let _ = self.lists.send(all.into_iter().collect());
            } else if self.take(&line) {
                self.ask();
            }
        }
        if !killed.load(Ordering::SeqCst) {
            self.book.endings().wrong.push(format!("{} ended by itself", self.name));
        }
        lock(&self.line.open).iter().for_each(|number| self.book.orphaned(*number));
    }

    fn ask(&self) {
        if let Some(number) = self.book.next() {
            self.line.ask(number);
        }
    }

    /// Whether it was an answer; there are lines of a test program's own, too.
    fn take(&self, line: &str) -> bool {
        let mut words = line.split([' ', ':']);
        let (word, number) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if word == "refused" {
            self.book.endings().wrong.push(format!("{}: {line}", self.name));
        }
        let Ok(number) = number.parse() else { return false };
        if !lock(&self.line.open).remove(&number) {
            return false;
        }
        match (word, words.next()) {
            ("ok", _) => drop(self.book.endings().acknowledged.insert(number)),
            ("no", Some("refused")) if !has_id(number) => {
                self.book.endings().refused.insert(number);
            }
            ("no", _) => self.book.orphaned(number),
            _ => self.book.endings().wrong.push(format!("{}: {line}", self.name)),
        }
        true
    }
}

// ---------------------------------------------------------------- the kills

fn number_of(variable: &str, default: u64) -> u64 {
    env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Polls until it is so, or says what the nodes said instead.
fn until(what: &str, nodes: &[Node], mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !reached() {
        let late = Instant::now() > deadline;
        assert!(!late, "no sign of {what} within {PATIENCE:?}\n{}", told(nodes));
        thread::sleep(Duration::from_millis(5));
    }
}

fn told(nodes: &[Node]) -> String {
    nodes.iter().map(Node::to_string).collect()
}

/// Each acknowledged number is there, and once; no refused one is; none is there twice.
fn check(book: &Book, lists: &[BTreeMap<u64, u64>]) {
    let endings = book.endings();
    assert!(endings.wrong.is_empty(), "{:?}", endings.wrong);
    for (name, list) in NAMES.iter().zip(lists) {
        let lost: Vec<_> = endings.acknowledged.iter().filter(|n| !list.contains_key(n)).collect();
        assert!(lost.is_empty(), "{name} has lost what was acknowledged: {lost:?}");
        let twice: Vec<_> = list.iter().filter(|(_, count)| **count != 1).collect();
        assert!(twice.is_empty(), "{name} has more than once: {twice:?}");
        let refused: Vec<_> = endings.refused.iter().filter(|n| list.contains_key(n)).collect();
        assert!(refused.is_empty(), "{name} has what was refused: {refused:?}");
        let known = |n: &&u64| endings.acknowledged.contains(n) || endings.unknown.contains(n);
        let invented: Vec<_> = list.keys().filter(|n| !known(n)).collect();
        assert!(invented.is_empty(), "{name} has what nobody asked: {invented:?}");
    }
    assert!(lists.iter().all(|list| *list == lists[0]), "the nodes have different lists");
}

/// One, two or all are killed at random for as long as is wanted; and then all at once.
/// Pitfall 31.
#[test]
fn what_was_acknowledged_survives_kills() {
    let duration = Duration::from_secs(number_of("KILLS_SECONDS", 15));
    let seed = number_of("KILLS_SEED", u64::from(std::process::id()));
    println!("KILLS_SEED={seed}");
    let mut chance = Chance::new(seed);
    let keys = json!({"data_dir": "data", "snapshot_every": 500, "request_timeout_ms": 400});
    let cluster = Cluster::new(1, keys);
    let book = Arc::new(Book::default());
    let start = |name| Node::start(&cluster, name, &book);
    let acknowledged = || book.endings().acknowledged.len();
    let mut nodes = Vec::from(NAMES.map(start));
    until("the first acknowledged request", &nodes, || acknowledged() > 0);

    let (began, mut kills, mut of_all) = (Instant::now(), 0, 0);
    while began.elapsed() < duration {
        // Often long enough for an election, and sometimes not.
        thread::sleep(Duration::from_millis(20 + chance.draw() % 600));
        let many = [1, 1, 1, 2, 2, 3][chance.below(6)];
        // The first ones are killed: which those are changes.
        nodes.rotate_left(chance.below(3));
        let killed: Vec<&'static str> = nodes.drain(..many).map(|node| node.name).collect();
        kills += many;
        of_all += usize::from(many == 3);
        for name in killed {
            // Now and then for longer than a request is pursued.
            let least = if chance.happens(30) { 1_200 } else { 0 };
            thread::sleep(Duration::from_millis(least + chance.draw() % 200));
            nodes.push(start(name));
        }
        let wrong = book.endings().wrong.clone();
        assert!(wrong.is_empty(), "{wrong:?}\n{}", told(&nodes));
    }

    // What is on its way is answered, and what is to be asked again is asked.
    book.over.store(true, Ordering::SeqCst);
    let mut turn = 0;
    until("the end of all requests", &nodes, || {
        while let Some(number) = book.next() {
            nodes[turn % 3].line.ask(number);
            turn += 1;
        }
        nodes.iter().all(|node| lock(&node.line.open).is_empty())
    });
    nodes.sort_by_key(|node| node.name);
    let lists: Vec<_> = nodes.iter().map(Node::list).collect();
    check(&book, &lists);
    nodes.clear();
    nodes.extend(NAMES.map(start));
    let again: Vec<_> = nodes.iter().map(Node::list).collect();
    assert!(again[0] == lists[0], "all were killed, and came back with another list");
    check(&book, &again);

    let endings = book.endings();
    let there = endings.unknown.iter().filter(|number| again[0].contains_key(number)).count();
    println!(
        "{kills} kills in {:.1} s, {of_all} times of all three: {} acknowledged and there, \
         {} refused and not there, {} unknown, of which {there} are there",
        began.elapsed().as_secs_f32(),
        endings.acknowledged.len(),
        endings.refused.len(),
        endings.unknown.len(),
    );
    for name in NAMES {
        let (names, bytes) = on_disk(&cluster.folder(name));
        println!("{name} has {bytes} bytes on the disk: {}", names.join(", "));
        // Two segments of 16 MiB, snapshots, and what a few starts left behind.
        assert!(bytes < 64 << 20, "{bytes} bytes on the disk");
    }
    let seconds = duration.as_secs() as usize;
    assert!(kills > seconds / 2, "{kills} kills in {seconds} s");
    assert!(endings.acknowledged.len() > 50 * seconds, "it served too little");
}
