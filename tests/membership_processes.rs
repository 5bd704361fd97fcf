//! Members that come, go, take over and lose their memory, where each is a process of
//! `examples/node.rs` and all is asked by a terminal's lines.
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
#[allow(dead_code)]
mod program;

use std::fs;

use serde_json::{Value, json};

use crate::processes::{Cluster, NAMES, Node, leader, wait_until};

/// The names that a `:members` shows, each with what it is.
fn members(node: &mut Node) -> Vec<(String, String)> {
    let from = node.lines().len();
    node.say(":members");
    node.ask(":read", "read "); // its answer comes after the list
    let lines = node.lines().split_off(from);
    let parts = lines.iter().filter_map(|line| line.strip_prefix("  member       "));
    let member = |line: &str| {
        let (name, rest) = line.split_once(" at ").expect("a name and where it is");
        let role = rest.split(", ").nth(1).expect("a role");
        (name.to_string(), role.to_string())
    };
    parts.map(member).collect()
}

fn names(line: &str) -> &str {
    line.rsplit("): ").next().expect("the names stand at the end")
}

/// A fourth node is started with a file that names it, waits, is added, leads by request,
/// and is removed again; each that is asked says who the members are then.
#[test]
fn a_fourth_node_is_added_leads_and_is_removed_by_lines_of_a_terminal() {
    let mut cluster = Cluster::new(1, json!({}));
    let mut nodes: Vec<Node> = NAMES.map(|name| cluster.start(name)).into();
    nodes[0].ask("\"before\"", "ok ");
    let mut file: Value = serde_json::from_slice(&fs::read(&cluster.file).unwrap()).unwrap();
    file["nodes"]["node3"] = json!({"ip": cluster.address, "port": cluster.port(3)});
    cluster.file = cluster.file.with_file_name("grown.json");
    fs::write(&cluster.file, file.to_string()).unwrap();
    let mut fourth = cluster.start("node3");
    let waits = "node3 is waiting for node0, node1, node2";
    fourth.wait_for(0, waits, |line| line == waits);
    let from = fourth.lines().len();
    fourth.ask(":check", "node3: fresh in term 0");
    fourth.wait_for(from, "whom it waits for", |line| line.starts_with("  waiting for "));

    let add = format!(":add node3 {}:{}", cluster.address, cluster.port(3));
    let told = nodes[1].ask(&add, "members ");
    assert_eq!(names(&told), "node0, node1, node2, node3");
    let votes = "node3 has caught up: it votes";
    fourth.wait_for(0, votes, |line| line == votes);
    fourth.wait_for(0, "the value of before", |line| line.ends_with(": \"before\""));
    assert!(members(&mut fourth).iter().all(|(_, role)| role == "voter"), "{}", fourth.story());
    fourth.ask("\"by the fourth\"", "ok ");
    let again = format!("{add}: the request was refused");
    let told = nodes[0].ask(&add, &again);
    assert!(told.ends_with("node3 is a member already"), "{told}");

    let told = nodes[2].ask(":transfer node3", "members ");
    let leads = |line: &str| line.starts_with("node3 leads in term ");
    let leads = fourth.wait_for(0, "that it leads", leads);
    let term = leads.rsplit(' ').next().unwrap();
    assert!(told.contains(&format!("(term {term})")), "{told}");

    let told = nodes[0].ask(":remove node3", "members ");
    assert_eq!(names(&told), "node0, node1, node2");
    let silent = "node3 was removed from the cluster: it is silent from now on";
    fourth.wait_for(0, silent, |line| line == silent);
    let told = fourth.ask("\"never\"", "\"never\": the request was refused");
    assert!(told.ends_with("this node was removed from its cluster"), "{told}");
    fourth.ask(":check", "node3: removed in term ");
    leader(&nodes);
    nodes[1].ask("\"after\"", "ok ");
    let voters: Vec<_> = NAMES.map(|name| (name.to_string(), "voter".to_string())).into();
    assert_eq!(members(&mut nodes[1]), voters);

    let told = nodes[0].ask(&format!("{add} learner"), "members ");
    assert_eq!(names(&told), "node0, node1, node2, node3 (learner)");
    fourth.ask("\"by a learner\"", "ok ");
    fourth.ask(":check", "node3: learner in term ");
    assert_eq!(fourth.end(), Some(0), "{}", fourth.story());
}

/// What cannot be done is told, with the name and the reason, and what was typed wrong too.
#[test]
fn what_cannot_be_done_is_told() {
    let cluster = Cluster::new(2, json!({}));
    let mut nodes: Vec<Node> = NAMES.map(|name| cluster.start(name)).into();
    nodes[0].ask("\"before\"", "ok ");
    let first = leader(&nodes);
    let transfer = format!(":transfer {}", NAMES[first]);
    let leads = format!("{} leads already", NAMES[first]);
    let add = format!(":add node7 {}:{}", cluster.address, cluster.port(7));
    for (line, told) in [
        (":remove node7", "no member is called node7"),
        (&transfer, &leads),
        (":transfer node7", "no member is called node7"),
        (&add, "node7 does not answer at "),
    ] {
        let answer = nodes[1].ask(line, &format!("{line}: the request was refused"));
        assert!(answer.contains(told), "{answer}");
    }
    for (line, told) in [
        (":add node7", "write :add NAME ADDRESS, or :add NAME ADDRESS learner"),
        (":add node7 nowhere", "nowhere is no address such as 127.0.0.1:5568"),
        (
            ":add node7 127.0.0.1:5568 voter",
            "write :add NAME ADDRESS, or :add NAME ADDRESS learner",
        ),
        (":remove", "write :remove NAME"),
        (":transfer", "write :transfer NAME"),
    ] {
        let answer = nodes[1].ask(line, "line ");
        assert!(answer.contains(told), "{answer}");
    }
}

/// Every node is killed by `kill -9`, twice around, and started again without any memory:
/// whoever does it waits for it to say that it votes. Pitfall 45.
#[test]
fn a_rolling_kill_of_volatile_processes_loses_nothing() {
    let cluster = Cluster::new(3, json!({}));
    let mut nodes: Vec<Node> = NAMES.map(|name| cluster.start(name)).into();
    let mut count = 0;
    for turn in 0..6 {
        for node in &mut nodes {
            node.ask(&json!({ "n": count }).to_string(), "ok ");
            count += 1;
        }
        let place = turn % 3;
        nodes[place].signal("KILL");
        nodes[(place + 1) % 3].ask(&json!({ "n": count }).to_string(), "ok ");
        count += 1;
        nodes[place] = cluster.start(NAMES[place]);
        let votes = format!("{} has caught up: it votes", NAMES[place]);
        nodes[place].wait_for(0, &votes, |line| line == votes);
    }
    let all: Vec<String> = (0..count).map(|n| json!({ "n": n }).to_string()).collect();
    wait_until("all nodes have all values", &nodes, || {
        nodes.iter().all(|node| node.committed().values().eq(&all))
    });
}
