//! Clusters of several processes, each of them `examples/node.rs`: killed, stopped, started
//! again, spoken to by their standard input and heard by what they print.
//!
//! All of them listen on an address of 127.0.0.0/8 that is this process's alone, so that runs
//! at the same time never meet. Other systems than Linux have only 127.0.0.1.
#![cfg(target_os = "linux")]

#[path = "common/program.rs"]
mod program;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{env, fs, iter, process, thread};

use serde_json::{Value, json};

use crate::program::program;

const DEADLINE: Duration = Duration::from_secs(20);
const NAMES: [&str; 3] = ["node0", "node1", "node2"];

#[test]
fn each_node_takes_requests_and_shows_what_all_agreed_on() {
    let cluster = Cluster::new(1, json!({}));
    let mut nodes = NAMES.map(|name| cluster.start(name));
    for (number, node) in nodes.iter_mut().enumerate() {
        node.ask(&json!({ "val": number }).to_string(), "ok ");
    }
    let newest = nodes[2].ask(r#":id order-17 "the last""#, "ok ");
    for node in &mut nodes {
        node.wait_for(0, "the newest entry", |line| line.ends_with(r#""the last" (id order-17)"#));
        assert_eq!(node.committed().len(), 4, "{}", node.story());
        // Under the same id nothing is committed again, whoever asks.
        assert_eq!(node.ask(r#":id order-17 "another""#, "ok "), newest);
        assert_eq!(node.ask(":lookup order-17", "found "), newest.replace("ok", "found"));
        assert!(node.ask(":read", "read ").ends_with(r#": "the last""#));
    }
    assert_eq!(nodes[0].committed(), nodes[1].committed());
    assert_eq!(nodes[0].committed(), nodes[2].committed());

    let node = &mut nodes[1];
    for (wrong, told) in [
        ("hello", "line 5: this is not JSON at column 1: expected value; text needs quotes"),
        (r#"{"val": "#, "line 6: this is not JSON at column 7: EOF while parsing a value"),
        (":id order-18 [1 2]", "line 7: this is not JSON at column 17: expected `,` or `]`"),
        (":wrong", "line 8: there is no :wrong; :help shows what there is"),
        (":lookup order-19", r#":lookup order-19: no entry with the id "order-19" is committed"#),
    ] {
        node.say(wrong);
        node.wait_for(0, told, |line| line.starts_with(told));
    }
    node.ask("[\"it goes on\"]", "ok ");
    // What was typed before the end is answered before the end.
    let count = |node: &Node, word| node.lines().iter().filter(|l| l.starts_with(word)).count();
    let before = (count(node, "ok "), count(node, "read "));
    node.say("\"the end\"");
    node.say(":read");
    assert_eq!(node.end(), Some(0), "{}", node.story());
    let after = (count(node, "ok "), count(node, "read "));
    assert_eq!(after, (before.0 + 1, before.1 + 1), "{}", node.story());
    for number in [0, 2] {
        assert_eq!(nodes[number].end(), Some(0), "{}", nodes[number].story());
    }
}

#[test]
fn a_killed_leader_costs_no_acknowledged_request_and_comes_back_as_a_learner() {
    let cluster = Cluster::new(2, json!({}));
    let mut nodes: Vec<Node> = NAMES.map(|name| cluster.start(name)).into();
    let mut killed = nodes.remove(leader(&nodes));
    let request = |node: &str, number: u32| json!({"by": node, "number": number}).to_string();

    let mut asked = 0;
    while asked < 20 || killed.acknowledged().len() < 20 {
        for node in iter::once(&mut killed).chain(&mut nodes) {
            node.say(&request(node.name, asked));
        }
        asked += 1;
        assert!(asked < 5000, "20 requests are acknowledged by the leader; {}", killed.story());
        thread::sleep(Duration::from_millis(2));
    }
    killed.signal("KILL");
    let wanted = asked + 200;
    for number in asked..wanted {
        nodes.iter_mut().for_each(|node| node.say(&request(node.name, number)));
        thread::sleep(Duration::from_millis(2));
    }
    // None of them is lost, or even unknown: an election takes far less than their timeout.
    wait_until("the survivors answer all requests", &nodes, || {
        nodes.iter().all(|node| node.acknowledged().len() == wanted as usize)
    });
    let killed_by = killed.acknowledged();
    let acknowledged = nodes.iter().flat_map(Node::acknowledged).chain(killed_by.clone());
    let newest = acknowledged.max().unwrap();
    wait_until("both survivors know the newest acknowledged entry", &nodes, || {
        nodes.iter().all(|node| node.committed().contains_key(&newest))
    });
    let agreed = nodes[0].committed();
    assert_eq!(agreed, nodes[1].committed());
    let values: BTreeSet<&String> = agreed.values().collect();
    assert_eq!(values.len(), agreed.len(), "a value was committed twice");
    for node in &nodes {
        let all = (0..wanted).all(|number| values.contains(&request(node.name, number)));
        assert!(all, "each request by {} is committed; {}", node.name, node.story());
    }
    let by_killed = format!(r#"{{"by":"{}","#, killed.name);
    for index in killed_by {
        let value = agreed.get(&index);
        assert!(
            value.is_some_and(|value| value.starts_with(&by_killed)),
            "{index} was acknowledged by {}, the survivors have {value:?} there",
            killed.name
        );
    }

    // No memory is left of it: whoever stands under its name now has no vote.
    let name = killed.name;
    assert_eq!(killed.end(), None, "it was killed; {}", killed.story());
    let mut back = cluster.start(name);
    let learner = format!("{name} came back without its memory: it follows as a learner");
    back.wait_for(0, &learner, |line| line.starts_with(&learner));
    wait_until("it knows what the others know", iter::once(&back).chain(&nodes), || {
        back.committed() == agreed
    });
    back.ask(":check", &format!("{name}: learner in term "));
    let (lost, this) = (format!("{name} at "), ", learner, this node");
    back.wait_for(0, "its old life", |line| {
        line.contains(&lost) && line.ends_with(", voter, lost with its memory")
    });
    back.wait_for(0, "its new life", |line| line.contains(&lost) && line.ends_with(this));
    back.ask("\"by the learner\"", "ok ");
    assert!(back.ask(":read", "read ").ends_with(": \"by the learner\""), "{}", back.story());
    for node in &mut nodes {
        node.wait_for(0, "what the learner took", |line| line.ends_with(": \"by the learner\""));
        assert!(node.ask(":read", "read ").ends_with(": \"by the learner\""), "{}", node.story());
    }
}

#[test]
fn a_leader_that_slept_follows_when_it_wakes() {
    let cluster = Cluster::new(3, json!({}));
    let mut nodes: Vec<Node> = NAMES.map(|name| cluster.start(name)).into();
    let mut sleeper = nodes.remove(leader(&nodes));
    sleeper.ask("\"before\"", "ok ");
    sleeper.signal("STOP");
    let asleep_since = Instant::now();
    sleeper.say(":read");
    let next = leader(&nodes);
    nodes[next].ask("\"meanwhile\"", "ok ");
    assert!(!sleeper.lines().iter().any(|line| line.ends_with("\"meanwhile\"")));
    sleeper.say("\"typed while it slept\"");
    // Long enough for every one of its timeouts to have passed.
    thread::sleep(Duration::from_secs(1).saturating_sub(asleep_since.elapsed()));
    let asleep = sleeper.lines().len();
    sleeper.signal("CONT");

    let follows = format!("{} follows ", sleeper.name);
    sleeper.wait_for(asleep, "another leader", |line| line.starts_with(&follows));
    sleeper.wait_for(asleep, "its reply", |line| line.starts_with("ok "));
    // It woke as a leader, or so it thought; but what it read was new.
    let read = sleeper.wait_for(asleep, "what it read", |line| line.starts_with("read "));
    assert!(!read.ends_with("\"before\""), "{}", sleeper.story());
    nodes.push(sleeper);
    let values = ["\"before\"", "\"meanwhile\"", "\"typed while it slept\""].map(String::from);
    wait_until("all nodes have the same three values", &nodes, || {
        nodes.iter().all(|node| node.committed().values().eq(&values))
    });
    assert_eq!(nodes[0].committed(), nodes[2].committed());
    assert_eq!(nodes[1].committed(), nodes[2].committed());
}

#[test]
fn a_first_start_says_whom_it_waits_for() {
    // As raft-lite has it: names and nothing else, ports as text.
    let cluster = Cluster::new(4, Value::Null);
    let mut nodes: Vec<Node> =
        NAMES[..2].iter().map(|name| cluster.start_with(name, &[("RUST_LOG", "info")])).collect();
    nodes[0].say("\"typed before there was a cluster\"");
    for node in &mut nodes {
        let (name, told) = (node.name, "waiting for node2 before the cluster can be founded");
        let narrated = |line: &str| line.contains(" INFO ") && line.contains(name);
        node.wait_for(0, told, |line| narrated(line) && line.ends_with(told));
        let told = format!("{} is waiting for node2", node.name);
        node.wait_for(0, &told, |line| line == told);
        let asked = node.lines().len();
        node.ask(":check", &format!("{}: fresh in term 0", node.name));
        node.wait_for(asked, "whom it waits for", |line| line == "  waiting for  node2");
    }
    nodes.push(cluster.start("node2"));
    leader(&nodes);
    nodes[0].wait_for(0, "the early request's reply", |line| line.starts_with("ok "));
}

#[test]
fn all_killed_and_started_again_are_a_new_cluster() {
    let cluster = Cluster::new(5, json!({}));
    let mut nodes: Vec<Node> = NAMES.map(|name| cluster.start(name)).into();
    nodes[0].ask("\"in the first cluster\"", "ok ");
    nodes.iter().for_each(|node| node.signal("KILL"));
    drop(nodes);

    let mut nodes: Vec<Node> = NAMES.map(|name| cluster.start(name)).into();
    leader(&nodes);
    nodes[1].ask("\"in the second\"", "ok ");
    for node in &mut nodes {
        node.wait_for(0, "the new value", |line| line.ends_with("\"in the second\""));
        assert!(node.committed().values().eq(["\"in the second\""]), "{}", node.story());
        let asked = node.lines().len();
        node.ask(":check", node.name);
        node.wait_for(asked, "the last member", |line| line.starts_with("  member       node2"));
        let lines = node.lines();
        let members = || lines[asked..].iter().filter(|line| line.contains("  member "));
        assert_eq!(members().count(), 3, "{}", node.story());
        assert!(members().all(|line| line.contains(", voter, ")), "{}", node.story());
    }
}

#[test]
fn the_end_of_input_waits_no_longer_than_the_requests_timeout() {
    let cluster = Cluster::new(6, json!({"request_timeout_ms": 300}));
    let mut node = cluster.start("node0");
    node.say("\"nobody is there\"");
    assert_eq!(node.end(), Some(0), "{}", node.story());
    let story = node.story();
    let told = "\"nobody is there\": the request was refused";
    let told = story.lines().find(|line| line.contains(told));
    assert!(told.is_some_and(|line| line.contains("for want of node1, node2")), "{story}");
}

#[test]
fn an_address_that_is_taken_is_named() {
    let cluster = Cluster::new(7, json!({}));
    let first = cluster.start("node1");
    first.wait_for(0, "its start", |line| line.starts_with("node1 has started"));
    let second = run(&[cluster.file.to_str().unwrap(), "node1"]);
    let (code, told) = (second.status.code(), String::from_utf8_lossy(&second.stderr));
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains(&format!("{}:{}", cluster.address, cluster.port(1))), "{told}");
    assert!(told.contains("in use"), "{told}");
}

#[test]
fn wrong_arguments_end_with_2_and_say_why() {
    let cluster = Cluster::new(8, json!({}));
    let file = cluster.file.to_str().unwrap();
    for (arguments, told) in [
        (&[][..], "the path of the cluster's file is missing"),
        (&[file], "the node's name is missing"),
        (&[file, "node0", "node1"], "unexpected argument \"node1\""),
        (&["--wrong"], "invalid option '--wrong'"),
    ] {
        let ended = run(arguments);
        let error = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(2), "{arguments:?}: {error}");
        assert!(error.contains(told) && error.contains("Usage: "), "{arguments:?}: {error}");
        assert!(ended.stdout.is_empty());
    }
    for (arguments, told) in [
        ([file, "node9"], "no node is called \"node9\""),
        (["no-such-file.json", "node0"], "no-such-file.json"),
        (["Cargo.toml", "node0"], "not JSON"),
    ] {
        let ended = run(&arguments);
        let error = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(2), "{arguments:?}: {error}");
        assert!(error.contains(told) && !error.contains("Usage: "), "{arguments:?}: {error}");
    }
    let help = run(&["--help"]);
    let text = String::from_utf8_lossy(&help.stdout);
    assert_eq!(help.status.code(), Some(0));
    assert!(text.starts_with("Usage: ") && text.contains(":check"), "{text}");
}

/// A cluster's file, which is removed at the end.
struct Cluster {
    file: PathBuf,
    address: Ipv4Addr,
    test: u16,
}

impl Cluster {
    /// Each test has its number, for its ports. With keys beside `nodes`; with `Null` the
    /// nodes alone, in raft-lite's form.
    fn new(test: u16, keys: Value) -> Cluster {
        // Process ids have at most 22 bits on Linux.
        let [_, high, middle, low] = process::id().to_be_bytes();
        let address = Ipv4Addr::new(127, 64 + high, middle, low);
        let file = env::temp_dir().join(format!("kontiki-{}-{test}.json", process::id()));
        let cluster = Cluster { file, address, test };
        let node = |number: usize| {
            let port = cluster.port(number);
            let port = if keys.is_null() { json!(port.to_string()) } else { json!(port) };
            (NAMES[number].to_string(), json!({"ip": address, "port": port}))
        };
        let nodes = (0..NAMES.len()).map(node).collect::<Value>();
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

    fn port(&self, number: usize) -> u16 {
        5500 + 10 * self.test + number as u16
    }

    fn start(&self, name: &'static str) -> Node {
        self.start_with(name, &[])
    }

    fn start_with(&self, name: &'static str, environment: &[(&str, &str)]) -> Node {
        let mut child = Command::new(program())
            .args([self.file.as_os_str(), name.as_ref()])
            .env_remove("RUST_LOG")
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let printed = Arc::default();
        let readers = vec![
            listen(child.stdout.take().unwrap(), &printed),
            listen(child.stderr.take().unwrap(), &printed),
        ];
        Node { name, stdin: child.stdin.take(), child, printed, readers }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.file);
    }
}

/// A node's process. It is killed when this is dropped, also by a test that panics. Should the
/// tests themselves be killed, its input ends, and so does it.
struct Node {
    name: &'static str,
    child: Child,
    stdin: Option<ChildStdin>,
    /// The lines of its standard output and its standard error, as they came.
    printed: Arc<Mutex<Vec<String>>>,
    readers: Vec<thread::JoinHandle<()>>,
}

impl Node {
    /// Types a line.
    fn say(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("its input has not ended");
        if let Err(error) = writeln!(stdin, "{line}") {
            panic!("{} cannot be spoken to: {error}; {}", self.name, self.story());
        }
    }

    /// Types a line and waits for an answer that begins so.
    fn ask(&mut self, line: &str, answer: &str) -> String {
        let from = self.lines().len();
        self.say(line);
        let what = format!("an answer {answer:?} to {line}");
        self.wait_for(from, &what, |line| line.starts_with(answer))
    }

    /// Waits for a line that it prints, after so many earlier ones.
    fn wait_for(&self, from: usize, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let found = || self.lines().into_iter().skip(from).find(|line| wanted(line));
        wait_until(what, [self], || found().is_some());
        found().expect("lines are never taken back")
    }

    fn lines(&self) -> Vec<String> {
        self.printed.lock().unwrap().clone()
    }

    /// What it printed last, for a test that fails.
    fn story(&self) -> String {
        let lines = self.lines();
        let last = &lines[lines.len().saturating_sub(40)..];
        format!("{} printed last:\n{}", self.name, last.join("\n"))
    }

    /// The committed entries that it has shown: index and value.
    fn committed(&self) -> BTreeMap<u64, String> {
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
    fn acknowledged(&self) -> Vec<u64> {
        let index = |line: &String| line.strip_prefix("ok ")?.split(' ').next()?.parse().ok();
        self.lines().iter().filter_map(index).collect()
    }

    /// What it last said about who leads: the term, and the name.
    fn leader(&self) -> Option<(u64, String)> {
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

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", signal, &pid]).status().unwrap();
        assert!(sent.success(), "kill -s {signal} {} ({pid})", self.name);
    }

    /// Ends its input, waits until it has ended by itself, and gives its exit code. Without
    /// a code, it was killed. All that it printed is there then.
    fn end(&mut self) -> Option<i32> {
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
fn leader(nodes: &[Node]) -> usize {
    let agreed = || {
        let (term, name) = nodes[0].leader()?;
        let same = nodes.iter().all(|node| node.leader().as_ref() == Some(&(term, name.clone())));
        nodes.iter().position(|node| same && node.name == name)
    };
    wait_until("one leader", nodes, || agreed().is_some());
    agreed().expect("a leader that all had agreed on")
}

/// Looks until it is so. If it does not come about, these nodes tell what they did instead.
fn wait_until<'a>(
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
fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(program());
    command.args(arguments).env_remove("RUST_LOG").stdin(Stdio::null());
    command.output().unwrap()
}
