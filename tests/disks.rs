//! One node's disk is ill, the others go on. A disk without room stops its node, which says
//! why; with room again, and started again, it is brought up to date (pitfall 60). A disk
//! that hangs costs a leader its office and nobody else anything (pitfall 62).
//!
//! The disks are small file systems in a mount namespace of their own, which Linux's root
//! may have; elsewhere these tests say so and are skipped. A limit on how long a file may
//! be is everybody's to set. Nothing of it is left when a test ends, however it ends.
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
#[path = "common/skipped.rs"]
mod skipped;

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::json;

use crate::processes::{Cluster, NAMES, Node, leader, wait_until};
use crate::program::program;

/// What the log writes in one piece at least: so much room it needs to begin.
const SEGMENT_MB: usize = 16;

/// A small disk that only those see who enter. It ends with this process.
struct SmallDisk {
    keeper: Child,
    at: String,
}

impl SmallDisk {
    /// One of so many megabytes in memory at this folder, or why there can be none here.
    fn new(at: &Path, megabytes: usize) -> Result<SmallDisk, String> {
        SmallDisk::mount(at, &format!("mount -t tmpfs -o size={megabytes}m tmpfs \"$0\""))
    }

    /// One that can be made to hang: a file system of its own, in a file beside the folder.
    fn that_may_hang(at: &Path, megabytes: usize) -> Result<SmallDisk, String> {
        let make = format!("truncate -s {megabytes}M \"$0.img\" && mkfs.ext4 -q \"$0.img\"");
        SmallDisk::mount(at, &format!("{make} && mount -o loop \"$0.img\" \"$0\""))
    }

    fn mount(at: &Path, mount: &str) -> Result<SmallDisk, String> {
        fs::create_dir_all(at).expect("a folder can be made");
        let at = at.to_str().expect("a path that is text").to_string();
        // Its input ends with this, so also when the tests are killed; what hangs then must
        // not hang for ever.
        let script = format!("{mount} && echo mounted && cat; fsfreeze -u \"$0\" 2> /dev/null");
        let mut keeper = Command::new("unshare")
            .args(["--mount", "sh", "-c", &script, &at])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("no unshare: {error}"))?;
        let mut line = String::new();
        let said = BufReader::new(keeper.stdout.take().expect("it is piped")).read_line(&mut line);
        if said.is_ok() && line == "mounted\n" {
            return Ok(SmallDisk { keeper, at });
        }
        let ended = keeper.wait_with_output().expect("it can be waited for");
        Err(format!("no disk can be mounted: {}", String::from_utf8_lossy(&ended.stderr).trim()))
    }

    /// This program, where the disk is seen.
    fn enter(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--target", &self.keeper.id().to_string()]).arg(program);
        command
    }

    /// Gives it so many megabytes from now on.
    fn resize(&self, megabytes: usize) {
        let size = format!("remount,size={megabytes}m");
        self.run("mount", &["-o", &size, &self.at]);
    }

    /// Nothing that is written to it comes to an end, until what this gives is dropped.
    fn hang(&self) -> Hanging<'_> {
        self.run("fsfreeze", &["-f", &self.at]);
        Hanging(self)
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let done = self.enter(program).args(arguments).output().expect("nsenter can be run");
        let told = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{program} {arguments:?}: {told}");
    }
}

/// While it lasts, the disk hangs. It must be gone before anybody waits for the end of a
/// process that writes there, which cannot be killed.
struct Hanging<'a>(&'a SmallDisk);

impl Drop for Hanging<'_> {
    fn drop(&mut self) {
        self.0.run("fsfreeze", &["-u", &self.0.at]);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

fn node(cluster: &Cluster, name: &'static str, mut command: Command) -> Node {
    Node::spawn(name, command.args(cluster.arguments(name)).env("RUST_LOG", "warn"))
}

/// Runs it to its end, without any input.
fn run(cluster: &Cluster, name: &str, mut command: Command) -> Output {
    command.args(cluster.arguments(name)).stdin(Stdio::null());
    command.output().unwrap_or_else(|error| panic!("{command:?} cannot be run: {error}"))
}

/// A node's disk is full amid its work. It says so, in its log, once, and takes no part
/// any more; a start says so too, until there is room.
#[test]
fn a_full_disk_stops_its_node_and_no_other() {
    let cluster = Cluster::new(1, json!({})).durable();
    // Room for one segment, and not for the next.
    let disk = match SmallDisk::new(&cluster.folder("node2"), SEGMENT_MB * 3 / 2) {
        Ok(disk) => disk,
        Err(why) => return skipped::skipped(&why),
    };
    let program = program();
    let mut nodes = vec![cluster.start("node0"), cluster.start("node1")];
    let ill = node(&cluster, "node2", disk.enter(&program));
    nodes[0].ask("\"before\"", "ok ");
    ill.wait_for(0, "the first value", |line| line.ends_with("\"before\""));

    let long = "x".repeat(500_000);
    let failed = |line: &str| line.starts_with("node: node2 takes no part any more: ");
    let mut count = 0;
    wait_until("node2 to run out of room", &[], || {
        count += 1;
        nodes[count % 2].ask(&json!([count, long]).to_string(), "ok ");
        ill.lines().iter().any(|line| failed(line))
    });
    assert!(count * long.len() < (2 * SEGMENT_MB) << 20, "{count} values went in one segment");
    let mut ill = ill;
    assert_eq!(ill.end(), Some(1), "{}", short(&ill));
    let lines = ill.lines();
    let told = lines.iter().find(|line| failed(line)).expect("it was found");
    for word in ["begin", "node2/log-2", "No space left", "make room", "start it again"] {
        assert!(told.contains(word), "no {word:?} in: {told}");
    }
    let errors: Vec<&String> = lines.iter().filter(|line| line.contains(" ERROR ")).collect();
    assert_eq!(errors.len(), 1, "it says so once: {errors:?}");
    assert!(errors[0].contains("No space left"), "{errors:?}");

    // Without room it does not start, and nothing that it has is harmed by the attempt.
    let ended = run(&cluster, "node2", disk.enter(&program));
    let told = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(2), "{told}");
    assert!(told.contains("node2/log-") && told.contains("No space left"), "{told}");
    nodes[0].ask("\"meanwhile\"", "ok ");

    disk.resize(SEGMENT_MB * 10);
    let mut back = node(&cluster, "node2", disk.enter(&program));
    back.wait_for(0, "that it remembers", |line| line == "node2 remembers: its log was there");
    back.wait_for(0, "what it missed", |line| line.ends_with(": \"meanwhile\""));
    back.ask("\"with room\"", "ok ");
    for node in &nodes {
        node.wait_for(0, "its value", |line| line.ends_with(": \"with room\""));
    }
    assert_eq!(back.committed(), nodes[0].committed());
    // A vote, too: with one of the others gone it makes a majority.
    drop(nodes.remove(0));
    back.ask("\"by two\"", "ok ");
    assert_eq!(back.end(), Some(0), "{}", short(&back));
}

/// A leader's disk hangs. What is asked is done all the same, for the others' disks are a
/// majority; the leader says that its disk hangs, and lets another lead. When its disk goes
/// on, it is brought up to date, as if it had been away.
#[test]
fn a_leader_whose_disk_hangs_lets_another_lead() {
    let cluster = Cluster::new(3, json!({})).durable();
    let disk = match SmallDisk::that_may_hang(&cluster.folder("node2"), SEGMENT_MB * 4) {
        Ok(disk) => disk,
        Err(why) => return skipped::skipped(&why),
    };
    let mut nodes = vec![cluster.start("node0"), cluster.start("node1")];
    nodes.push(node(&cluster, "node2", disk.enter(program())));
    // Whoever else leads is killed, until it is this one.
    let mut leads = leader(&nodes);
    while leads != 2 {
        nodes[leads].signal("KILL");
        let name = nodes[leads].name;
        let other = 1 - leads;
        let next = |node: &Node| node.leader().is_some_and(|(_, leader)| leader != name);
        wait_until("another leader", &nodes, || next(&nodes[other]) && next(&nodes[2]));
        nodes[leads] = cluster.start(name);
        leads = leader(&nodes);
    }
    nodes[2].ask("\"before\"", "ok ");
    let term = |node: &Node| node.leader().map_or(0, |(term, _)| term);
    let before = term(&nodes[2]);

    let hanging = disk.hang();
    for number in 0..10 {
        nodes[number % 2].ask(&format!("{number}"), "ok ");
    }
    let hangs = |line: &str| line.contains("its disk has not finished a write for ");
    nodes[2].wait_for(0, "what it says of its disk", hangs);
    wait_until("another leader, by all", &nodes, || {
        let by = |node: &Node| node.leader().filter(|(term, _)| *term > before);
        let led = by(&nodes[0]).filter(|(_, name)| name != "node2");
        led.is_some() && nodes.iter().all(|node| by(node) == led)
    });
    for number in 10..20 {
        nodes[number % 2].ask(&format!("{number}"), "ok ");
    }
    // It holds what it cannot write, and speaks for none of it; but what the others
    // committed is that.
    let last = |line: &str| line.ends_with(": 19");
    nodes[0].wait_for(0, "the last value", last);

    drop(hanging);
    nodes[2].wait_for(0, "that its disk goes on", |line| line.contains("its disk has finished"));
    nodes[2].wait_for(0, "the last value", last);
    nodes[2].ask("\"after\"", "ok ");
    nodes[0].wait_for(0, "its value", |line| line.ends_with(": \"after\""));
    assert_eq!(nodes[2].committed(), nodes[0].committed());
    let said = nodes[2].lines().iter().filter(|line| hangs(line)).count();
    assert_eq!(said, 1, "it says so once; {}", nodes[2].story());
    drop(nodes);
}

/// Files may not be as long as a segment is: the node does not start and says why, and
/// starts as if nothing had happened once they may.
#[test]
fn a_limit_on_files_is_named() {
    let cluster = Cluster::new(2, json!({})).durable();
    let program = program();
    let mut nodes = NAMES.map(|name| cluster.start(name));
    nodes[0].ask("\"before\"", "ok ");
    nodes[2].wait_for(0, "the value", |line| line.ends_with("\"before\""));
    nodes[2].signal("KILL");
    nodes[0].ask("\"meanwhile\"", "ok ");
    // A process that does not ignore the signal is killed by it; in blocks of 512 bytes.
    let limited = || {
        let mut shell = Command::new("sh");
        let blocks = (SEGMENT_MB << 20) / 2 / 512;
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
        shell.args(["-c", &script]).arg(&program);
        shell
    };
    for _ in 0..2 {
        let ended = run(&cluster, "node2", limited());
        let told = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(2), "{told}");
        assert!(told.contains("node2/log-") && told.contains("File too large"), "{told}");
    }
    nodes[2] = cluster.start("node2");
    nodes[2].wait_for(0, "what it missed", |line| line.ends_with("\"meanwhile\""));
    nodes[2].ask("\"after\"", "ok ");
    nodes[0].wait_for(0, "its value", |line| line.ends_with("\"after\""));
    assert_eq!(nodes[0].committed(), nodes[2].committed());
}

/// What a node printed, without the long values.
fn short(node: &Node) -> String {
    let short = |line: &str| line.chars().take(300).collect::<String>() + "\n";
    node.story().lines().map(short).collect()
}
