//! What is acknowledged survives: `cargo run --example durable`.
//!
//! Three nodes, each a process with its log on the disk, commit numbers as fast as they can;
//! all three are killed (SIGKILL) in the midst of it and started again, three times over. In the
//! end each node is asked for all numbers that it has. The exit code is 1 if one is missing.
//!
//! ```text
//!   this program ──"17"──► standard input of a node ──► RaftNode ──► "ok 17", when it is committed
//!                ──"?"───►                                       ──► "all [0,1,2,..]"
//! ```

use std::collections::BTreeSet;
use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};
use std::{env, fs, io, process, thread};

use kontiki::{BoxError, Config, Entry, Pending, RaftNode, Request, StateMachine};
use serde_json::{Value, json};

const NAMES: [&str; 3] = ["node0", "node1", "node2"];
const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(1);
/// Far longer than a cluster takes to elect a leader.
const PATIENCE: Duration = Duration::from_secs(10);
/// So many requests are on their way at each node.
const OUTSTANDING: usize = 100;

fn main() -> ExitCode {
    env_logger::init();
    let arguments: Vec<String> = env::args().skip(1).collect();
    let done = match &arguments[..] {
        [] => demonstrate(),
        [file, name] => be_a_node(file, name).map(|()| true),
        _ => Err("this program takes no arguments".into()),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("durable: {error}");
            ExitCode::FAILURE
        }
    }
}

// ---------------------------------------------------------------- one node

/// The numbers that were committed.
#[derive(Default)]
struct Numbers(BTreeSet<u64>);

impl StateMachine for Numbers {
    fn apply(&mut self, entry: &Entry) -> Value {
        json!(entry.parse().is_ok_and(|number| self.0.insert(number)))
    }
    fn query(&self, _: &Value) -> Value {
        json!(self.0)
    }
    fn snapshot(&self) -> Result<Vec<u8>, BoxError> {
        Ok(serde_json::to_vec(&self.0)?)
    }
    fn restore(&mut self, snapshot: &[u8]) -> Result<(), BoxError> {
        self.0 = serde_json::from_slice(snapshot)?;
        Ok(())
    }
}

/// Commits each number that it is told, until it is killed or its input ends.
fn be_a_node(file: &str, name: &str) -> Result<(), Box<dyn Error>> {
    let config = Config::load(file)?.state_machine(|_| Numbers::default());
    let node = RaftNode::new(&config, name)?;
    node.start()?;
    let (asked, answers) = mpsc::channel::<(String, Pending)>();
    thread::spawn(move || {
        for (line, pending) in answers {
            match pending.wait() {
                Ok(reply) if line == "?" => println!("all {}", reply.value),
                Ok(_) => println!("ok {line}"),
                Err(error) => println!("no {line}: {error}"),
            }
        }
    });
    for line in io::stdin().lines() {
        let line = line?;
        let request = match line.as_str() {
            "?" => Request::query(&Value::Null),
            number => Request::command(&number.parse::<u64>()?),
        };
        asked.send((line, node.client_request(request)?))?;
    }
    Ok(())
}

// ---------------------------------------------------------------- all of them

fn demonstrate() -> Result<bool, Box<dyn Error>> {
    let folder = env::temp_dir().join(format!("kontiki-durable-{}", process::id()));
    fs::create_dir_all(&folder)?;
    let file = folder.join("cluster.json");
    // At ports that are free now.
    let sockets = NAMES.map(|_| UdpSocket::bind(("127.0.0.1", 0)));
    let mut nodes = json!({});
    for (name, socket) in NAMES.iter().zip(sockets) {
        nodes[name] = json!({"ip": "127.0.0.1", "port": socket?.local_addr()?.port()});
    }
    fs::write(&file, json!({"nodes": nodes, "data_dir": "data"}).to_string())?;
    println!("three processes, with their logs in {}", folder.join("data").display());

    let next = AtomicU64::new(0);
    let acknowledged = Mutex::new(BTreeSet::new());
    let count = || acknowledged.lock().expect("nobody panicked").len();
    for round in 1..=ROUNDS {
        let before = count();
        let mut nodes = Nodes::start(&file)?;
        thread::scope(|scope| {
            for node in &mut nodes.0 {
                let (input, output) = (node.stdin.take(), node.stdout.take());
                let (next, acknowledged) = (&next, &acknowledged);
                scope.spawn(|| keep_busy(input?, output?, next, acknowledged));
            }
            let deadline = Instant::now() + PATIENCE;
            while count() == before && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(5));
            }
            thread::sleep(ROUND);
            nodes.0.iter_mut().try_for_each(Child::kill) // the threads end with them
        })?;
        println!("round {round}: {} acknowledged, then kill -9 of all three", count() - before);
    }

    let acknowledged = acknowledged.into_inner()?;
    let began = Instant::now();
    let mut nodes = Nodes::start(&file)?;
    let mut sound = !acknowledged.is_empty();
    for (name, node) in NAMES.iter().zip(&mut nodes.0) {
        let held = ask_for_all(node)?;
        let lost = acknowledged.difference(&held).count();
        println!(
            "{name} has, {:.1} s after its start, {} of {} that were acknowledged, and {} that \
             were on their way",
            began.elapsed().as_secs_f32(),
            acknowledged.len() - lost,
            acknowledged.len(),
            held.difference(&acknowledged).count(),
        );
        sound &= lost == 0;
    }
    drop(nodes);
    if sound {
        fs::remove_dir_all(&folder)?;
        println!("nothing that was acknowledged is lost");
    } else {
        println!("the cluster has not kept what it acknowledged; its logs are left where they are");
    }
    Ok(sound)
}

/// Three processes, which are killed in the end.
struct Nodes([Child; 3]);

impl Nodes {
    fn start(file: &Path) -> Result<Nodes, Box<dyn Error>> {
        let program = env::current_exe()?;
        let start = |name| {
            let mut node = Command::new(&program);
            node.arg(file).arg(name).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()
        };
        let [a, b, c] = NAMES.map(start);
        Ok(Nodes([a?, b?, c?]))
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for node in &mut self.0 {
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

/// Gives a node numbers to commit, the next one for each that is answered, until it is killed.
fn keep_busy(
    mut input: ChildStdin,
    output: ChildStdout,
    next: &AtomicU64,
    acknowledged: &Mutex<BTreeSet<u64>>,
) -> Option<()> {
    let mut ask = || writeln!(input, "{}", next.fetch_add(1, Ordering::Relaxed)).ok();
    for _ in 0..OUTSTANDING {
        ask()?;
    }
    for line in BufReader::new(output).lines() {
        if let Some(number) = line.ok()?.strip_prefix("ok ") {
            let number = number.parse().expect("it is one of ours");
            acknowledged.lock().expect("nobody panicked").insert(number);
        }
        ask()?;
    }
    None
}

/// All numbers that a node has, by a linearizable read: nothing older than this question.
fn ask_for_all(node: &mut Child) -> Result<BTreeSet<u64>, Box<dyn Error>> {
    let (input, output) = (node.stdin.as_mut(), node.stdout.as_mut());
    writeln!(input.ok_or("it takes no input")?, "?")?;
    let mut line = String::new();
    BufReader::new(output.ok_or("it gives no output")?).read_line(&mut line)?;
    let all = line.strip_prefix("all ").ok_or_else(|| format!("a node answered {line:?}"))?;
    Ok(serde_json::from_str(all)?)
}
