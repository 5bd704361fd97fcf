//! Clusters of several processes, each of them `examples/node.rs`: killed, stopped, started
//! again, spoken to by their standard input and heard by what they print.
//!
//! Other systems than Linux have no addresses for runs at the same time.
#![cfg(target_os = "linux")]

#[path = "common/folder.rs"]
#[allow(dead_code)] // each test file uses its own part of these
mod folder;
#[path = "common/processes.rs"]
#[allow(dead_code)]
mod processes;
#[path = "common/program.rs"]
mod program;
#[path = "common/skipped.rs"]
mod skipped;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use std::{fs, iter, thread};

use serde_json::{Value, json};

use crate::processes::{Cluster, NAMES, Node, leader, run, wait_until};
use crate::program::example;

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
fn a_killed_leader_costs_no_acknowledged_request_and_votes_again() {
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

    // No memory is left of it, and it has the vote of its name again, by itself.
    let name = killed.name;
    assert_eq!(killed.end(), None, "it was killed; {}", killed.story());
    let mut back = cluster.start(name);
    let votes = format!("{name} has caught up: it votes");
    back.wait_for(0, &votes, |line| line == votes);
    wait_until("it knows what the others know", iter::once(&back).chain(&nodes), || {
        back.committed() == agreed
    });
    let asked = back.lines().len();
    back.ask(":check", &format!("{name}: follower in term "));
    let last = |line: &str| line.starts_with("  member       node2");
    back.wait_for(asked, "the last member", last);
    let lines = back.lines();
    let members = || lines[asked..].iter().filter(|line| line.contains("  member "));
    assert_eq!(members().count(), 3, "{}", back.story());
    assert!(members().all(|line| line.contains(", voter, ")), "{}", back.story());
    back.ask("\"by the new life\"", "ok ");
    assert!(back.ask(":read", "read ").ends_with(": \"by the new life\""), "{}", back.story());
    for node in &mut nodes {
        node.wait_for(0, "what it took", |line| line.ends_with(": \"by the new life\""));
        assert!(node.ask(":read", "read ").ends_with(": \"by the new life\""), "{}", node.story());
    }
    // So the next one may be killed.
    nodes.remove(0).signal("KILL");
    nodes.push(back);
    leader(&nodes);
    nodes.iter_mut().for_each(|node| drop(node.ask("\"by two\"", "ok ")));
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
        node.wait_for(0, told, |line| narrated(line) && line.contains(told));
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
fn all_killed_and_started_again_with_data_have_everything() {
    let cluster = Cluster::new(9, json!({})).durable();
    let mut nodes: Vec<Node> = NAMES.map(|name| cluster.start(name)).into();
    for (number, node) in nodes.iter_mut().enumerate() {
        node.ask(&json!({ "val": number }).to_string(), "ok ");
    }
    let newest = nodes[0].ask(r#":id order-17 "the last""#, "ok ");
    let last = |line: &str| line.ends_with(r#""the last" (id order-17)"#);
    nodes.iter().for_each(|node| drop(node.wait_for(0, "the newest entry", last)));
    let agreed = nodes[0].committed();
    assert!(!nodes.iter().any(|node| node.lines().iter().any(|line| line.contains("remembers"))));
    nodes.iter().for_each(|node| node.signal("KILL"));
    drop(nodes);

    let mut nodes: Vec<Node> = NAMES.map(|name| cluster.start(name)).into();
    for node in &mut nodes {
        let told = format!("{} remembers: its log was there", node.name);
        node.wait_for(0, &told, |line| line == told);
        node.wait_for(0, "the newest entry of before", last);
        assert_eq!(node.committed(), agreed);
        assert!(node.ask(":read", "read ").ends_with(r#": "the last""#), "{}", node.story());
        let again = node.ask(r#":id order-17 "again""#, "ok ");
        let place = |line: &str| line.split(' ').nth(1).map(str::to_string);
        assert_eq!(place(&again), place(&newest), "the id is known");
        let asked = node.lines().len();
        node.ask(":check", node.name);
        node.wait_for(asked, "the last member", |line| line.starts_with("  member       node2"));
        let lines = node.lines();
        let members = lines[asked..].iter().filter(|line| line.contains("  member ")).count();
        let voters = lines[asked..].iter().filter(|line| line.contains(", voter, ")).count();
        assert_eq!((members, voters), (3, 3), "{}", node.story());
    }
    assert_eq!(nodes[2].end(), Some(0), "{}", nodes[2].story());
}

/// What a person does when a node refuses to start: reads what it says, has a look, removes
/// the folder, and starts it again.
#[test]
fn a_damaged_log_is_refused_inspected_and_given_anew() {
    let cluster = Cluster::new(10, json!({})).durable();
    let mut nodes: Vec<Node> = NAMES.map(|name| cluster.start(name)).into();
    for number in 0..20 {
        nodes[0].ask(&json!({ "val": number }).to_string(), "ok ");
    }
    nodes[2].wait_for(0, "the last value", |line| line.ends_with(r#"{"val":19}"#));
    let folder = cluster.folder("node2");
    // Of a node that runs, too; it says what is there.
    let told = inspect(&[&folder], 0);
    for word in ["node2", "log-1", "record of ", "members of cluster ", "a start finds term "] {
        assert!(told.contains(word), "no {word:?} in:\n{told}");
    }
    nodes.pop().unwrap().signal("KILL");

    let log = folder.join("log-1");
    let mut bytes = fs::read(&log).unwrap();
    let value = br#"{"val":10}"#;
    let at = bytes.windows(value.len()).position(|part| part == value).unwrap();
    bytes[at + 8] = b'7';
    fs::write(&log, bytes).unwrap();
    let arguments = cluster.arguments("node2");
    let refused = run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let told = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{told}");
    let hint = format!("cargo run --example inspect -- {}", folder.display());
    for word in [log.to_str().unwrap(), "at byte ", "remove the directory", &hint] {
        assert!(told.contains(word), "no {word:?} in:\n{told}");
    }
    let told = inspect(&[&cluster.folder("node0"), &folder], 1);
    for word in ["/node0:\n", "/node2:\n", "a start fails: "] {
        assert!(told.contains(word), "no {word:?} in:\n{told}");
    }

    fs::remove_dir_all(&folder).unwrap();
    let told = inspect(&[&folder], 2);
    assert!(told.contains(folder.to_str().unwrap()) && told.contains("No such file"), "{told}");
    nodes.push(cluster.start("node2"));
    nodes[2].wait_for(0, "the last value", |line| line.ends_with(r#"{"val":19}"#));
    nodes[2].wait_for(0, "its vote", |line| line == "node2 has caught up: it votes");
    nodes[2].ask("\"after\"", "ok ");
}

/// What the program says of these folders; it ends with this code.
fn inspect(folders: &[&Path], code: i32) -> String {
    let ended = Command::new(example("inspect")).args(folders).output().unwrap();
    let told = [ended.stdout, ended.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
    assert_eq!(ended.status.code(), Some(code), "{told}");
    told
}

/// The README's command.
#[test]
fn the_demonstration_loses_nothing() {
    let ended = Command::new(example("durable")).output().unwrap();
    let told = String::from_utf8_lossy(&ended.stdout);
    assert_eq!(ended.status.code(), Some(0), "{told}{}", String::from_utf8_lossy(&ended.stderr));
    assert!(told.ends_with("nothing that was acknowledged is lost\n"), "{told}");
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
        (&[file, "node0", "--data"], "missing argument for option '--data'"),
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

/// With `--watch` a node shows a line for itself and for each other member, anew whenever one
/// says something else, and nothing of what happens; requests are answered all the same.
#[test]
fn a_node_that_is_watched_shows_a_line_a_member() {
    let cluster = Cluster::new(11, json!({}));
    let mut command = Command::new(program::program());
    let mut watched = Node::spawn("node0", command.arg("--watch").args(cluster.arguments("node0")));
    watched.wait_for(0, "whom it waits for", |line| line.starts_with("waits for node1"));
    let others = ["node1", "node2"].map(|name| cluster.start(name));
    for name in ["node1", "node2"] {
        watched.wait_for(0, "a line of each", |line| {
            line.starts_with(name) && line.contains("  up  ") && line.ends_with("ago")
        });
    }
    watched.ask(r#"{"val": 1}"#, "ok ");
    watched.wait_for(0, "its own line", |line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        matches!(words[..], ["node0", "leader" | "follower", "up", "term", _, "committed", index, _, "a", "second"]
            if index.trim_end_matches(',').parse::<u64>().is_ok_and(|index| index >= 5))
    });
    others[1].signal("KILL");
    watched
        .wait_for(0, "who is down", |line| line.starts_with("node2") && line.contains("  down  "));
    let told = |line: &String| {
        line.contains("follows") || line.contains("committed ") && line.contains(':')
    };
    let lines = watched.lines();
    assert!(!lines.iter().any(told), "{}", watched.story());
    for name in NAMES {
        let own: Vec<&String> = lines.iter().filter(|line| line.starts_with(name)).collect();
        assert!(own.windows(2).all(|two| two[0] != two[1]), "{name} twice: {}", watched.story());
    }
}

/// In a terminal the lines are drawn anew in their place: up by as many as there are, each
/// cleared to its end, and the cursor back to where somebody types.
#[test]
fn in_a_terminal_the_lines_stay_in_their_place() {
    let cluster = Cluster::of(&["alone"], 12, json!({}));
    let command =
        format!("{} --watch {} alone", program::program().display(), cluster.file.display());
    // The program gives what it runs a terminal.
    let mut script = Command::new("script");
    script.args(["--quiet", "--flush", "--return", "--command", &command, "/dev/null"]);
    if Command::new("script").arg("--version").output().is_err() {
        skipped::skipped("there is no `script`");
        return;
    }
    let mut node = Node::spawn("alone", &mut script);
    node.wait_for(0, "its line, drawn anew", |line| {
        line.contains("\u{1b}7\u{1b}[1A\ralone  leader") && line.ends_with("\u{1b}[K\r")
    });
    // A reply stands above them, and what was typed is gone with the old ones.
    node.say("[1]");
    node.wait_for(0, "the reply", |line| line.contains("\u{1b}[Jok "));
    node.say("hello");
    node.wait_for(0, "what is wrong", |line| line.contains("\u{1b}[Jline 2: this is not JSON"));
}
