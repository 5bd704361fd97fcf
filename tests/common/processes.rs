//! Clusters of processes: each node is one `examples/node.rs`, spoken to by its standard
//! input and heard by what it prints.
//!
//! All of them listen on an address of 127.0.0.0/8 that is this process's alone, so that runs
//! at the same time never meet.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{fs, process, thread};

use serde_json::{Value, json};

use crate::folder::Folder;
use crate::program::program;

/// How long anything may take before a test gives up.
pub const DEADLINE: Duration = Duration::from_secs(20);
/// The nodes of a cluster, if it is one of three.
pub const NAMES: [&str; 3] = ["node0", "node1", "node2"];

/// A cluster's file, and what its nodes keep: all in a folder of its own.
pub struct Cluster {
    /// The path of the shared file.
    pub file: PathBuf,
    /// Where all nodes listen, each at a port of its own.
    pub address: Ipv4Addr,
    test: u16,
    size: usize,
    folder: Folder,
    durable: bool,
}

impl Cluster {
    /// Three nodes. Each test of a file has its number, for its ports. With keys beside
    /// `nodes`; with `Null` the nodes alone, in raft-lite's form.
    pub fn new(test: u16, keys: Value) -> Cluster {
        Cluster::of(&NAMES, test, keys)
    }

    /// So many of them.
    pub fn of(names: &[&str], test: u16, keys: Value) -> Cluster {
        // Process ids have at most 22 bits on Linux.
        let [_, high, middle, low] = process::id().to_be_bytes();
        let address = Ipv4Addr::new(127, 64 + high, middle, low);
        let folder = Folder::new();
        let file = folder.path().join("cluster.json");
        let size = names.len();
        let cluster = Cluster { file, address, test, size, folder, durable: false };
        let node = |(number, name): (usize, &&str)| {
            let port = cluster.port(number);
            let port = if keys.is_null() { json!(port.to_string()) } else { json!(port) };
            (name.to_string(), json!({"ip": address, "port": port}))
        };
        let nodes = names.iter().enumerate().map(node).collect::<Value>();
        let text = match keys {
            Value::Object(mut keys) => {
                keys.insert("nodes".to_string(), nodes);
                Value::Object(keys)
            }
            _ => nodes,
        };
        fs::write(&cluster.file, text.to_string()).unwrap();
        cluster
    }

    /// With logs on the disk, by `--data`.
    pub fn durable(mut self) -> Cluster {
        self.durable = true;
        self
    }

    /// What `--data` gets.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Where a durable node keeps its files.
    pub fn folder(&self, name: &str) -> PathBuf {
        self.data().join(name)
    }

    /// How many nodes it has.
    pub fn size(&self) -> usize {
        self.size
    }

    pub fn port(&self, number: usize) -> u16 {
        5500 + 10 * self.test + number as u16
    }

    /// What the program is given to be this node.
    pub fn arguments(&self, name: &str) -> Vec<String> {
        let text = |path: &Path| path.to_str().expect("a path that is text").to_string();
        let mut arguments = Vec::new();
        if self.durable {
            arguments = vec!["--data".to_string(), text(&self.data())];
        }
        arguments.extend([text(&self.file), name.to_string()]);
        arguments
    }

    pub fn start(&self, name: &'static str) -> Node {
        self.start_with(name, &[])
    }

    pub fn start_with(&self, name: &'static str, environment: &[(&str, &str)]) -> Node {
        let mut command = Command::new(program());
        command.args(self.arguments(name)).env_remove("RUST_LOG");
        Node::spawn(name, command.envs(environment.iter().copied()))
    }
}

/// A node's process. It is killed when this is dropped, also by a test that panics. Should the
/// tests themselves be killed, its input ends, and so does it.
pub struct Node {
    pub name: &'static str,
    child: Child,
    stdin: Option<ChildStdin>,
    /// The lines of its standard output and its standard error, as they came.
    printed: Arc<Mutex<Vec<String>>>,
    readers: Vec<thread::JoinHandle<()>>,
}

impl Node {
    /// Starts a process, and listens to it.
    pub fn spawn(name: &'static str, command: &mut Command) -> Node {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} cannot be run: {error}"));
        let printed = Arc::default();
        let readers = vec![
            listen(child.stdout.take().unwrap(), &printed),
            listen(child.stderr.take().unwrap(), &printed),
        ];
        Node { name, stdin: child.stdin.take(), child, printed, readers }
    }

    /// Types a line.
    pub fn say(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("its input has not ended");
        if let Err(error) = writeln!(stdin, "{line}") {
            panic!("{} cannot be spoken to: {error}; {}", self.name, self.story());
        }
    }

    /// Types a line and waits for an answer that begins so.
    pub fn ask(&mut self, line: &str, answer: &str) -> String {
        let from = self.lines().len();
        self.say(line);
        let what = format!("an answer {answer:?} to {line}");
        self.wait_for(from, &what, |line| line.starts_with(answer))
    }

    /// Waits for a line that it prints, after so many earlier ones.
    pub fn wait_for(&self, from: usize, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let found = || self.lines().into_iter().skip(from).find(|line| wanted(line));
        wait_until(what, [self], || found().is_some());
        found().expect("lines are never taken back")
    }

    pub fn lines(&self) -> Vec<String> {
        self.printed.lock().unwrap().clone()
    }

    /// What it printed last, for a test that fails.
    pub fn story(&self) -> String {
        let lines = self.lines();
        let last = &lines[lines.len().saturating_sub(40)..];
        format!("{} printed last:\n{}", self.name, last.join("\n"))
    }

    /// The committed entries that it has shown: index and value.
    pub fn committed(&self) -> BTreeMap<u64, String> {
        let mut entries = BTreeMap::new();
        for line in self.lines() {
            let Some((index, value)) =
                line.strip_prefix("committed ").and_then(|entry| entry.split_once(": "))
            else {
                continue;
            };
            let index = index.parse().unwrap();
            let newer = entries.last_key_value().is_none_or(|(last, _)| *last < index);
            assert!(newer, "entries are shown once and in order; {}", self.story());
            entries.insert(index, value.to_string());
        }
        entries
    }

    /// The indexes of the requests that it acknowledged.
    pub fn acknowledged(&self) -> Vec<u64> {
        let index = |line: &String| line.strip_prefix("ok ")?.split(' ').next()?.parse().ok();
        self.lines().iter().filter_map(index).collect()
    }

    /// What it last said about who leads: the term, and the name.
    pub fn leader(&self) -> Option<(u64, String)> {
        let said = |line: &String| {
            let words: Vec<&str> = line.split(' ').collect();
            let (leader, term) = match words[..] {
                [name, "leads", "in", "term", term] if name == self.name => (name, term),
                [name, "follows", leader, "in", "term", term] if name == self.name => {
                    (leader, term)
                }
                _ => return None,
            };
            Some((term.parse().ok()?, leader.to_string()))
        };
        self.lines().iter().rev().find_map(said)
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", signal, &pid]).status().unwrap();
        assert!(sent.success(), "kill -s {signal} {} ({pid})", self.name);
    }

    /// Ends its input, waits until it has ended by itself, and gives its exit code. Without
    /// a code, it was killed. All that it printed is there then.
    pub fn end(&mut self) -> Option<i32> {
        drop(self.stdin.take());
        let deadline = Instant::now() + DEADLINE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "it ends with its input; {}", self.story());
            thread::sleep(Duration::from_millis(5));
        };
        self.readers.drain(..).for_each(|reader| reader.join().unwrap());
        status.code()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until these nodes name one of them as the leader of the same term; which one.
pub fn leader(nodes: &[Node]) -> usize {
    let agreed = || {
        let (term, name) = nodes[0].leader()?;
        let same = nodes.iter().all(|node| node.leader().as_ref() == Some(&(term, name.clone())));
        nodes.iter().position(|node| same && node.name == name)
    };
    wait_until("one leader", nodes, || agreed().is_some());
    agreed().expect("a leader that all had agreed on")
}

/// Looks until it is so. If it does not come about, these nodes tell what they did instead.
pub fn wait_until<'a>(
    what: &str,
    nodes: impl IntoIterator<Item = &'a Node>,
    mut reached: impl FnMut() -> bool,
) {
    let deadline = Instant::now() + DEADLINE;
    while !reached() {
        if Instant::now() > deadline {
            let stories: Vec<String> = nodes.into_iter().map(Node::story).collect();
            panic!("no sign of this in {DEADLINE:?}: {what}\n{}", stories.join("\n"));
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Takes down what a process prints, until it ends.
fn listen(
    from: impl Read + Send + 'static,
    to: &Arc<Mutex<Vec<String>>>,
) -> thread::JoinHandle<()> {
    let to = Arc::clone(to);
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            to.lock().unwrap().push(line);
        }
    })
}

/// Runs the program without any input, to its end.
pub fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(program());
    command.args(arguments).env_remove("RUST_LOG").stdin(Stdio::null());
    command.output().unwrap()
}
