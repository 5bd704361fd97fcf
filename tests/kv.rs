//! `examples/kv.rs`, as Redis's own clients find it: each command through any node, a benchmark
//! through a follower, and SIGKILL.
//!
//! Needs `redis-cli` and `redis-benchmark` (Debian: redis-tools); without, it says so and does
//! nothing. Other systems than Linux have no addresses for runs at the same time.
#![cfg(target_os = "linux")]

#[path = "kv/answers.rs"]
mod answers;
#[path = "../examples/kv/commands.rs"]
#[allow(dead_code)] // each test file uses its own part of these
mod commands;
#[path = "common/folder.rs"]
#[allow(dead_code)]
mod folder;
#[path = "common/processes.rs"]
#[allow(dead_code)]
mod processes;
#[path = "common/program.rs"]
#[allow(dead_code)]
mod program;
#[path = "../examples/kv/resp.rs"]
#[allow(dead_code)]
mod resp;
#[path = "common/skipped.rs"]
mod skipped;
#[path = "../examples/kv/store.rs"]
#[allow(dead_code)]
mod store;

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kontiki::{Entry, StateMachine};
use serde_json::{Value, json};

use crate::answers::ANSWERS;
use crate::folder::Folder;
use crate::processes::{Cluster, NAMES, Node, wait_until};
use crate::program::example;
use crate::resp::Pipeline;
use crate::store::{Disk, Memory, Store};

#[test]
fn each_command_through_any_node_is_answered_as_redis_does() {
    let Some(cluster) = cluster(1, json!({})) else { return };
    let nodes = NAMES.map(|name| start(&cluster, name, &[]));
    for (number, (typed, shown)) in ANSWERS.iter().enumerate() {
        let answer = cli(&cluster, number % 3, typed);
        assert_eq!(one_line(&answer), one_line(shown), "{typed}; {}", nodes[number % 3].story());
    }
    let known = ask_info(&cluster, 2);
    let says = |line: String| assert!(known.lines().any(|said| said == line), "{line}: {known}");
    says("node:node2".to_string());
    says("term:1".to_string());
    says("members:3".to_string());
    let at = |number| format!("address={}:{},voter=1,up=1", cluster.address, cluster.port(number));
    says(format!("member1:name=node1,{}", at(1)));
    assert!(known.contains("\nleader:node"), "{known}");
    assert!(cli(&cluster, 0, "command").contains("\"incrby\""));
}

/// The table above, put to Redis itself: what Debian calls redis-check-rdb is the server
/// under another name.
#[test]
fn redis_itself_answers_so() {
    let server = Path::new("/usr/bin/redis-check-rdb");
    let Some(cluster) = cluster(2, json!({})) else { return };
    if !server.exists() {
        skipped::skipped(&format!("there is no {}", server.display()));
        return;
    }
    let (address, port) = (cluster.address.to_string(), cluster.port(0).to_string());
    let mut command = Command::new(server);
    command.arg0("redis-server").args(["--bind", &address, "--port", &port, "--save", ""]);
    let redis = Node::spawn("redis", &mut command);
    redis.wait_for(0, "its start", |line| line.contains("Ready to accept connections"));
    for (typed, shown) in ANSWERS {
        let answer = cli(&cluster, 0, typed);
        // Its keys have no order; those of an answer have ours.
        let sorted = |text: &str| {
            let mut words: Vec<String> = one_line(text).split(' ').map(str::to_string).collect();
            words.sort();
            words
        };
        match typed.starts_with("keys") {
            true => assert_eq!(sorted(&answer), sorted(shown), "{typed}"),
            false => assert_eq!(answer, *shown, "{typed}"),
        }
    }
}

#[test]
fn a_pipeline_is_answered_in_its_order_and_sees_its_own_writes() {
    let Some(cluster) = cluster(3, json!({})) else { return };
    let _nodes = NAMES.map(|name| start(&cluster, name, &[]));
    let mut client = Client::connect(&cluster, follower(&cluster)).expect("it is there");
    let others = ["PING", "no", "GET", "ECHO me", "EXISTS n nothing"];
    let (mut asked, mut expected) = (String::new(), Vec::new());
    // More than go out together, so that the order holds from one request to the next.
    for number in 1..=2000 {
        asked += &format!("INCR n\r\n{}\r\nGET n\r\n", others[number % 5]);
        let answers = match number % 5 {
            0 => ["+PONG"].to_vec(),
            1 => ["-ERR unknown command 'no', with args beginning with: "].to_vec(),
            2 => ["-ERR wrong number of arguments for 'get' command"].to_vec(),
            3 => ["$2", "me"].to_vec(),
            _ => [":1"].to_vec(),
        };
        expected.push(format!(":{number}"));
        expected.extend(answers.into_iter().map(str::to_string));
        let text = number.to_string();
        expected.extend([format!("${}", text.len()), text]);
    }
    client.say(&asked);
    for (number, wanted) in expected.iter().enumerate() {
        assert_eq!(client.line().as_ref(), Some(wanted), "line {number}");
    }
    // The successor of the protocol, for clients that insist on it.
    client.say("HELLO 3\r\nGET nothing\r\nMGET n nothing\r\nCONFIG GET save\r\nHELLO 4\r\n");
    client.say("HELLO 2\r\nGET nothing\r\n");
    let hello = ["$6", "server", "$7", "kontiki", "$5", "proto"];
    let newer = ["%2"].iter().chain(&hello).chain(&[":3", "_", "*2", "$4", "2000", "_"]);
    let newer =
        newer.chain(&["%1", "$4", "save", "$0", "", "-NOPROTO unsupported protocol version"]);
    for wanted in newer.chain(&["*4"]).chain(&hello).chain(&[":2", "$-1"]) {
        assert_eq!(client.line().as_deref(), Some(*wanted));
    }
    // What is no command ends its connection, and nothing else.
    for (wrong, told) in [
        ("*1\r\n*1\r\n".repeat(100_000), "-ERR Protocol error: expected '$', got '*'"),
        ("*1000000000\r\n".to_string(), "-ERR Protocol error: invalid multibulk length"),
        ("*1\r\n$-5\r\n".to_string(), "-ERR Protocol error: invalid bulk length"),
        (format!("*1\r\n$2000000\r\n{}", "a".repeat(1_500_000)), "-ERR Protocol error: inv"),
        ("a".repeat(1_500_000), "-ERR Protocol error: too big inline request"),
    ] {
        let mut hostile = Client::connect(&cluster, 0).expect("it is there");
        hostile.say(&wrong); // it may be cut off before it has said all
        let answer = hostile.line();
        assert!(answer.is_none_or(|answer| answer.starts_with(told)), "{told}");
    }
    client.say("*2\r\n$3\r\nGET\r\n$1\r\nn\r\n");
    assert_eq!([client.line(), client.line()], [Some("$4".into()), Some("2000".into())]);
    // Six bytes of JSON for each of these, and more than an entry may have.
    client.say(&format!("*3\r\n$3\r\nSET\r\n$1\r\nb\r\n$200000\r\n{}\r\n", "\0".repeat(200_000)));
    let told = client.line().expect("an answer");
    assert!(told.starts_with("-ERR ") && told.contains("max_value_bytes"), "{told}");
    client.say("INCR n\r\n");
    assert_eq!(client.line().as_deref(), Some(":2001"));
}

#[test]
fn from_multi_to_exec_nothing_comes_between() {
    let Some(cluster) = cluster(9, json!({})) else { return };
    let _nodes = NAMES.map(|name| start(&cluster, name, &[]));
    let mut clients = [0, 1].map(|number| Client::connect(&cluster, number).expect("it is there"));
    let mut talk = |number: usize, said: &str, answers: &[&str]| {
        clients[number].say(said);
        for wanted in answers {
            assert_eq!(clients[number].line().as_deref(), Some(*wanted), "to {said}");
        }
    };
    talk(0, "MULTI\r\nINCR n\r\n", &["+OK", "+QUEUED"]);
    talk(1, "INCR n\r\n", &[":1"]);
    let all = ["+QUEUED", "+QUEUED", "*3", ":2", ":3", "$-1", ":4"];
    talk(0, "INCR n\r\nGET nothing\r\nEXEC\r\nINCR n\r\n", &all);
    talk(0, "MULTI\r\nMGET n nothing\r\nHELLO 3\r\n", &["+OK", "+QUEUED", "+QUEUED"]);
    let hello = ["%2", "$6", "server", "$7", "kontiki", "$5", "proto", ":3"];
    talk(0, "EXEC\r\n", &[&["*2", "*2", "$1", "4", "$-1"][..], &hello].concat());
    // More than a node keeps for a client who may never say EXEC.
    let set = format!("SET n {}\r\n", "a".repeat(200_000));
    talk(1, "MULTI\r\n", &["+OK"]);
    (0..5).for_each(|_| talk(1, &set, &["+QUEUED"]));
    talk(1, &set, &["-ERR the transaction is too long"]);
    let aborted = "-EXECABORT Transaction discarded because of previous errors.";
    talk(1, "EXEC\r\nINCR n\r\n", &[aborted, ":5"]);
}

#[test]
fn a_client_too_many_is_told_so_until_another_has_gone() {
    let Some(cluster) = cluster(10, json!({})) else { return };
    let node = start(&cluster, "node0", &["--clients", "2"]);
    let answer = |client: &mut Client| {
        client.say("PING\r\n");
        client.line()
    };
    let connect = || Client::connect(&cluster, 0).expect("it is there");
    let mut clients = [connect(), connect()];
    for client in &mut clients {
        assert_eq!(answer(client).as_deref(), Some("+PONG"), "{}", node.story());
    }
    let mut third = connect();
    assert_eq!(third.line().as_deref(), Some("-ERR max number of clients reached"));
    assert_eq!(third.line(), None, "the connection is at its end");
    for client in &mut clients {
        assert_eq!(answer(client).as_deref(), Some("+PONG"), "who is there stays");
    }
    drop(clients);
    let taken = || answer(&mut connect()).as_deref() == Some("+PONG");
    wait_until("a client is taken again", [&node], taken);
}

/// As Redis reads them.
#[test]
fn a_line_that_is_typed_may_have_quotes() {
    for (typed, words) in [
        (r#"ECHO "a b""#, &["ECHO", "a b"][..]),
        (r"ECHO 'a\'b \n'", &["ECHO", r"a'b \n"]),
        (r#"ECHO "\x41\r\n\t\"\q""#, &["ECHO", "A\r\n\t\"q"]),
        (r#"ECHO "\xg1""#, &["ECHO", "xg1"]),
        (r#"ECHO a"b c""#, &["ECHO", "ab c"]),
        (r#"ECHO "" ''"#, &["ECHO", "", ""]),
        (r"	 ECHO  a\b ", &["ECHO", r"a\b"]),
    ] {
        let pipeline = Pipeline::of(format!("{typed}\r\n").as_bytes());
        let words: resp::Words = words.iter().map(|word| word.as_bytes().to_vec()).collect();
        assert_eq!(pipeline.commands, [words], "{typed}");
        assert!(pipeline.broken.is_none() && pipeline.used == typed.len() + 2, "{typed}");
    }
    for typed in [r#"ECHO "a"#, r#"ECHO "a"b"#, "ECHO 'a\\'", r#"ECHO "a\""#] {
        let broken = Pipeline::of(format!("{typed}\r\nPING\r\n").as_bytes()).broken.expect(typed);
        let told = "-ERR Protocol error: unbalanced quotes in request\r\n";
        assert_eq!(resp::encode(&broken), told.as_bytes(), "{typed}");
    }
}

#[test]
fn a_benchmark_runs_through_a_follower() {
    let Some(cluster) = cluster(4, json!({})) else { return };
    let _nodes = NAMES.map(|name| start(&cluster, name, &[]));
    let follower = follower(&cluster);
    let ended = Command::new("redis-benchmark")
        .args(["-h", &cluster.address.to_string(), "-p", &cluster.port(follower).to_string()])
        .args(["-n", "20000", "-P", "16", "-t", "set,get,incr", "-q"])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&ended.stdout).replace('\r', "\n");
    let problems = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success() && problems.is_empty(), "{problems}{told}");
    for name in ["SET: ", "GET: ", "INCR: "] {
        let done = |line: &str| line.starts_with(name) && line.contains(" requests per second");
        assert!(told.lines().any(done), "{name}{told}");
    }
    assert!(!told.contains("rror"), "{told}");
    // Each of them, and each once.
    let counted = cli(&cluster, (follower + 1) % 3, "get counter:__rand_int__");
    assert_eq!(counted, r#""20000""#);
}

#[test]
fn a_killed_leader_and_then_a_kill_of_all_lose_no_acknowledged_increment() {
    let Some(cluster) = cluster(5, json!({})) else { return };
    let data = cluster.data().to_str().unwrap().to_string();
    let start = |name: &'static str| start(&cluster, name, &["--data", &data, "--redb"]);
    let mut nodes: Vec<Node> = NAMES.map(start).into();
    let leader = leader(&cluster, 0);
    let (acknowledged, over) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        for number in 0..3 {
            let mut client = Client::connect(&cluster, number).expect("it is there");
            let (acknowledged, over) = (&acknowledged, &over);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    client.say("INCR n\r\n");
                    match client.line() {
                        Some(answer) if answer.starts_with(':') => {
                            acknowledged.fetch_add(1, Ordering::Relaxed)
                        }
                        // What was under way there, nobody knows: one at most.
                        None if number == leader => return,
                        other => panic!("through node{number}: {other:?}"),
                    };
                }
            });
        }
        let reaches = |wanted: u64| {
            let what = format!("{wanted} are acknowledged");
            wait_until(&what, &nodes, || acknowledged.load(Ordering::Relaxed) >= wanted);
        };
        reaches(300);
        nodes[leader].signal("KILL");
        // More than a transaction of the database takes up, and no snapshot: what the database
        // has, it has by itself, and the log goes on from there.
        reaches(1600);
        over.store(true, Ordering::Relaxed);
    });
    let count = |number| {
        let told = cli(&cluster, number, "get n");
        told.trim_matches('"').parse::<u64>().unwrap_or_else(|_| panic!("get n: {told}"))
    };
    let (counted, acknowledged) = (count((leader + 1) % 3), acknowledged.into_inner());
    assert!((acknowledged..=acknowledged + 1).contains(&counted), "{counted}, {acknowledged}");
    drop(nodes.remove(leader));

    nodes.iter().for_each(|node| node.signal("KILL"));
    drop(nodes);
    let nodes: Vec<Node> = NAMES.map(start).into();
    for (number, node) in nodes.iter().enumerate() {
        assert_eq!(count(number), counted, "{}", node.story());
    }
    assert_eq!(cli(&cluster, 1, "incr n"), format!("(integer) {}", counted + 1));
}

/// The two boards, without a cluster.
#[test]
fn a_restored_board_has_what_the_snapshot_says_and_nothing_else() {
    let folder = Folder::new();
    let open = || Store::new(Box::new(Disk::open(&folder.path().join("a.redb")).unwrap()));
    let say = |store: &mut Store, index, commands: Value| {
        store.apply(&Entry::new(index, 1, &commands).unwrap())
    };
    let all = |store: &Store| store.query(&json!([["KEYS", "*"], ["MGET", "a", "b", "c"]]));
    let mut memory = Store::new(Box::new(Memory::default()));
    let mut disk = open();
    for store in [&mut memory, &mut disk] {
        let answers = say(store, 7, json!([["SET", "a", "\u{ff}"], ["INCR", "b"], ["GET", "a"]]));
        assert_eq!(answers, json!(["+OK\r\n", ":1\r\n", "$1\r\n\u{ff}\r\n"]));
        // What is not of this program, or not to be asked of a board, does nothing.
        for strange in [json!(1), json!([[]]), json!([["GET"], ["PING"]]), json!({"SET": 1})] {
            say(store, 8, strange);
        }
    }
    let (then, snapshot) = (all(&memory), memory.snapshot().unwrap());
    assert_eq!(snapshot, disk.snapshot().unwrap(), "the boards are one state");
    for store in [&mut memory, &mut disk] {
        say(store, 9, json!([["DEL", "a"], ["INCR", "b"], ["SET", "c", "later"]]));
        assert_ne!(all(store), then);
        store.restore(&snapshot).unwrap();
        assert_eq!(all(store), then);
    }
    assert_eq!((memory.applied(), disk.applied()), (0, 0), "nothing is synced so far");
    // So many that it is, and some that are not.
    (11..=1012).for_each(|index| drop(say(&mut disk, index, json!([["INCR", "b"]]))));
    drop(disk);
    let mut disk = open();
    let applied = disk.applied();
    assert!((900..1012).contains(&applied), "{applied}");
    let next = say(&mut disk, applied + 1, json!([["INCR", "b"]]));
    assert_eq!(next, json!([format!(":{}\r\n", applied - 8)]), "one for each entry, from 11 on");
}

/// Whatever the boards, they are one state: in a snapshot, too.
#[test]
fn what_a_node_has_lost_comes_back_by_a_snapshot_of_another_board() {
    let Some(cluster) = cluster(8, json!({"snapshot_every": 100})) else { return };
    let data = cluster.data().to_str().unwrap().to_string();
    // One of them has its state in memory, above a log on the disk.
    let start = |name: &'static str| match name {
        "node1" => start(&cluster, name, &["--data", &data]),
        _ => start(&cluster, name, &["--data", &data, "--redb"]),
    };
    let mut nodes: Vec<Node> = NAMES.map(start).into();
    assert_eq!(cli(&cluster, 0, r#"set "\x00\xff\r\n" "\x80\x00""#), "OK");
    let mut client = Client::connect(&cluster, 0).expect("it is there");
    for number in 1..=250 {
        client.say(&format!("INCR n\r\nSET key{} {number}\r\n", number % 50));
        assert_eq!(client.line(), Some(format!(":{number}")));
        assert_eq!(client.line().as_deref(), Some("+OK"));
    }
    nodes.iter().for_each(|node| node.signal("KILL"));
    nodes.clear();
    for lost in [cluster.folder("node2"), cluster.data().join("node2.redb")] {
        assert!(lost.exists(), "{}", lost.display());
        let _ = fs::remove_dir_all(&lost);
        let _ = fs::remove_file(&lost);
    }
    let nodes = NAMES.map(start);
    for (number, node) in nodes.iter().enumerate() {
        let told = cli(&cluster, number, r#"mget n key0 key1 key49 "\x00\xff\r\n""#);
        let wanted = r#"1) "250" 2) "250" 3) "201" 4) "249" 5) "\x80\x00""#;
        assert_eq!(one_line(&told), wanted, "{}", node.story());
        assert_eq!(cli(&cluster, number, "dbsize"), "(integer) 52");
    }
}

#[test]
fn without_a_majority_it_says_so_and_what_is_not_known() {
    let Some(cluster) = cluster(6, json!({"request_timeout_ms": 400})) else { return };
    let first = start(&cluster, "node0", &[]);
    let told = cli(&cluster, 0, "set a 1");
    let expected = "(error) CLUSTERDOWN the request was refused, and it was not committed: ";
    assert!(told.starts_with(expected) && told.contains("for want of node1, node2"), "{told}");
    assert_eq!(cli(&cluster, 0, "ping"), "PONG");
    let others = ["node1", "node2"].map(|name| start(&cluster, name, &[]));
    let in_time = || cli(&cluster, 0, "set a 1") == "OK";
    wait_until("a command is taken", [&first], in_time);
    let leader = leader(&cluster, 0);
    let mut nodes = Vec::from_iter([first].into_iter().chain(others));
    let kept = nodes.remove(leader);
    drop(nodes);
    // It is in the leader's log before that knows that it is alone.
    let told = cli(&cluster, leader, "incr a");
    let expected = "(error) UNKNOWN there was no answer in time: the command may or may not";
    assert!(told.starts_with(expected), "{told}; {}", kept.story());
    let told = cli(&cluster, leader, "get a");
    assert!(told.starts_with("(error) CLUSTERDOWN "), "{told}; {}", kept.story());
}

#[test]
fn wrong_arguments_end_with_2_and_say_why() {
    let Some(cluster) = cluster(7, json!({})) else { return };
    let file = cluster.file.to_str().unwrap();
    for (arguments, told) in [
        (&[file, "node0"][..], "the port for clients is missing"),
        (&[file, "node0", "--port", "70000"], "70000"),
        (&[file, "node9", "--port", "0", "--redb"], "--redb needs --data"),
        (&[file, "node9", "--port", "0"], "no node is called \"node9\""),
    ] {
        let ended = Command::new(example("kv")).args(arguments).output().unwrap();
        let error = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(2), "{arguments:?}: {error}");
        assert!(error.contains(told), "{arguments:?}: {error}");
    }
}

/// Three nodes' file, where there are the tools to speak to them.
fn cluster(test: u16, keys: Value) -> Option<Cluster> {
    let there = |tool: &&str| Command::new(tool).arg("--version").output().is_ok();
    if !["redis-cli", "redis-benchmark"].iter().all(there) {
        skipped::skipped("there is no redis-cli or no redis-benchmark (Debian: redis-tools)");
        return None;
    }
    Some(Cluster::new(test, keys))
}

/// A node, when it has begun to listen. For its clients, too, it has the port of its name in the file.
fn start(cluster: &Cluster, name: &'static str, more: &[&str]) -> Node {
    let number = NAMES.iter().position(|known| *known == name).unwrap();
    let mut command = Command::new(example("kv"));
    command.args(cluster.arguments(name)).env_remove("RUST_LOG").args(more);
    command.args(["--bind", &cluster.address.to_string()]);
    command.args(["--port", &cluster.port(number).to_string()]);
    let node = Node::spawn(name, &mut command);
    let there = format!("{name} is there for redis-cli -h {}", cluster.address);
    node.wait_for(0, &there, |line| line.starts_with(&there));
    node
}

/// What redis-cli shows of an answer.
fn cli(cluster: &Cluster, number: usize, typed: &str) -> String {
    let (address, port) = (cluster.address.to_string(), cluster.port(number).to_string());
    let mut cli = Command::new("redis-cli")
        .args(["-h", &address, "-p", &port, "--no-raw"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    writeln!(cli.stdin.take().unwrap(), "{typed}").unwrap();
    let told = cli.wait_with_output().unwrap();
    let told = [told.stdout, told.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
    // Behind an answer that was slow it says how slow.
    let slow = |line: &&str| line.starts_with('(') && line.ends_with("s)");
    let lines: Vec<&str> = told.lines().filter(|line| !slow(line)).collect();
    lines.join("\n")
}

/// Lists are easier to read in one line.
fn one_line(shown: &str) -> String {
    shown.replace('\n', " ")
}

fn ask_info(cluster: &Cluster, number: usize) -> String {
    let mut client = Client::connect(cluster, number).expect("it is there");
    client.say("INFO\r\nPING\r\n");
    let lines = std::iter::from_fn(|| client.line().filter(|line| line != "+PONG"));
    lines.collect::<Vec<String>>().join("\n")
}

/// The number of the leader, as this node knows it, once it does.
fn leader(cluster: &Cluster, number: usize) -> usize {
    let deadline = Instant::now() + processes::DEADLINE;
    loop {
        let known = ask_info(cluster, number);
        let name = known.lines().find_map(|line| line.strip_prefix("leader:"));
        let leads = NAMES.iter().position(|known| Some(*known) == name);
        match leads {
            Some(leader) => return leader,
            None => assert!(Instant::now() < deadline, "no leader: {known}"),
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn follower(cluster: &Cluster) -> usize {
    (leader(cluster, 0) + 1) % 3
}

/// A client that sees the bytes.
struct Client {
    writer: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Client {
    fn connect(cluster: &Cluster, number: usize) -> io::Result<Client> {
        let writer = TcpStream::connect((cluster.address, cluster.port(number)))?;
        writer.set_read_timeout(Some(processes::DEADLINE))?;
        Ok(Client { reader: BufReader::new(writer.try_clone()?), writer })
    }

    /// Who was killed does not hear it, and does not answer either.
    fn say(&mut self, text: &str) {
        let _ = self.writer.write_all(text.as_bytes());
    }

    /// The next line of an answer; `None` at the connection's end.
    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(line.trim_end_matches("\r\n").to_string()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => None,
            Err(error) => panic!("no answer: {error}"),
        }
    }
}
