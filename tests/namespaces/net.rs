//! Five network namespaces on one bridge, and what goes wrong between them.
//!
//! ```text
//!   node0        node1        node2        node3        node4      a namespace each, with
//!   eth0         eth0         eth0         eth0         eth0       rules of its own
//!     └────────────┴────────────┼────────────┴────────────┘
//!                            bridge                                a sixth namespace
//! ```
//!
//! Nothing of it is in the host's own namespace, not even for a moment: interfaces
//! are made where they stay, and the rules of a namespace go when it goes. Only the
//! names of the namespaces are the host's. They say which process made them, so that
//! runs at the same time do not meet, and what a dead run left is known as such.
//!
//! A warden, a shell that does nothing but read, cleans up when its input ends: that
//! is when the network is dropped, and also when the tests are killed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, process};

use crate::chance::Chance;

/// How many nodes there are.
pub const NODES: usize = 5;
/// What a network's wires carry at most, in bytes.
pub const MTU: usize = 1500;

/// All names begin so; a process id, its start, and a number follow.
const PREFIX: &str = "kontiki-net-";

/// The network. All of it goes with it, and with a test that panics, too.
pub struct Network {
    name: String,
    warden: Child,
}

impl Network {
    /// A network in which everybody hears everybody, or why there can be none here.
    pub fn new() -> Result<Network, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        check_permission()?;
        sweep();
        let (pid, number) = (process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let start = started_at(pid).expect("this process runs");
        let name = format!("{PREFIX}{pid}-{start}-{number}");
        // Ctrl-C reaches all that was started from a terminal; the warden has still to work.
        let wait = format!("trap '' HUP INT TERM; cat; {}", removal(&name));
        let mut warden = shell(&wait);
        warden.stdin(Stdio::piped());
        let warden = warden.spawn().expect("sh can be run");
        let network = Network { name, warden };
        fs::create_dir(network.dir()).expect("a directory for the cluster's file");
        // The first thing that needs more than being root: in many containers it is denied.
        attempt("ip", &["netns", "add", &network.bridge()])?;
        network.build();
        Ok(network)
    }

    fn build(&self) {
        let bridge = self.bridge();
        let mtu = &MTU.to_string();
        ip(&["-n", &bridge, "link", "add", "bridge", "mtu", mtu, "type", "bridge"]);
        ip(&["-n", &bridge, "link", "set", "bridge", "up"]);
        for number in 0..NODES {
            let (node, port) = (&self.namespace(number), &format!("to-node{number}"));
            ip(&["netns", "add", node]);
            let both = ["link", "add", port, "mtu", mtu, "type", "veth"];
            let other = ["peer", "name", "eth0", "mtu", mtu, "netns", node];
            ip(&[&["-n", &bridge], &both[..], &other[..]].concat());
            ip(&["-n", &bridge, "link", "set", port, "master", "bridge", "up"]);
            ip(&["-n", node, "address", "add", &format!("{}/24", address(number)), "dev", "eth0"]);
            ip(&["-n", node, "link", "set", "eth0", "up"]);
        }
        self.set(&Weather::calm());
    }

    fn bridge(&self) -> String {
        format!("{}-bridge", self.name)
    }

    /// The namespace of a node.
    pub fn namespace(&self, number: usize) -> String {
        format!("{}-node{number}", self.name)
    }

    /// What the names of all that belongs to it begin with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A directory for this network's files.
    pub fn dir(&self) -> PathBuf {
        env::temp_dir().join(&self.name)
    }

    /// From when this returns, this weather holds and no other.
    pub fn set(&self, weather: &Weather) {
        let set = |number| {
            let mut restore = Command::new("ip")
                .args(["netns", "exec", &self.namespace(number), "iptables-restore", "--wait"])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .expect("ip can be run");
            let mut stdin = restore.stdin.take().expect("it is piped");
            stdin.write_all(weather.rules(number).as_bytes()).expect("it takes the rules");
            restore
        };
        // All at once: the sooner all hold, the sharper the moment.
        let set: Vec<_> = (0..NODES).map(set).collect();
        for restore in set {
            let done = restore.wait_with_output().expect("it can be waited for");
            assert!(done.status.success(), "iptables-restore: {}", said(&done));
        }
    }

    /// What a node's system counted of its datagrams: `Ip FragCreates` and so on.
    pub fn counts(&self, number: usize) -> BTreeMap<String, u64> {
        let namespace = self.namespace(number);
        let shown = run("ip", &["netns", "exec", &namespace, "cat", "/proc/net/snmp"]);
        let text = String::from_utf8(shown.stdout).expect("it is text");
        let lines: Vec<&str> = text.lines().collect();
        let mut counts = BTreeMap::new();
        // One line with the names, then one with the numbers.
        for pair in lines.chunks_exact(2) {
            let (Some((part, names)), Some((_, numbers))) =
                (pair[0].split_once(':'), pair[1].split_once(':'))
            else {
                continue;
            };
            for (name, number) in names.split_whitespace().zip(numbers.split_whitespace()) {
                counts.insert(format!("{part} {name}"), number.parse().unwrap_or(0));
            }
        }
        counts
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        drop(self.warden.stdin.take());
        let _ = self.warden.wait();
    }
}

/// Who hears whom, and how much is lost.
#[derive(Clone)]
pub struct Weather {
    /// By the one who hears, then by the one who speaks.
    hears: [[bool; NODES]; NODES],
    lost_percent: u32,
}

impl Weather {
    /// Everybody hears everybody.
    pub fn calm() -> Weather {
        Weather { hears: [[true; NODES]; NODES], lost_percent: 0 }
    }

    /// So many of a hundred datagrams are lost.
    pub fn loss(percent: u32) -> Weather {
        Weather { lost_percent: percent, ..Weather::calm() }
    }

    /// Only these pairs hear each other.
    pub fn only(links: &[(usize, usize)]) -> Weather {
        let mut hears = [[false; NODES]; NODES];
        for &(one, other) in links {
            (hears[one][other], hears[other][one]) = (true, true);
        }
        Weather { hears, lost_percent: 0 }
    }

    /// Any weather: some links closed in some direction, some datagrams lost.
    pub fn any(chance: &mut Chance) -> Weather {
        let closed = [20, 50, 80][chance.below(3)];
        let hears = [(); NODES].map(|()| [(); NODES].map(|()| !chance.happens(closed)));
        Weather { hears, lost_percent: [0, 10, 30][chance.below(3)] }
    }

    /// This group hears nothing of what the others say. The way back is as it was.
    pub fn deaf(mut self, group: &[usize]) -> Weather {
        for hearer in 0..NODES {
            for speaker in 0..NODES {
                if group.contains(&hearer) && !group.contains(&speaker) {
                    self.hears[hearer][speaker] = false;
                }
            }
        }
        self
    }

    /// No one of the others hears what this group says. The way back is as it was.
    pub fn mute(self, group: &[usize]) -> Weather {
        let others: Vec<usize> = (0..NODES).filter(|node| !group.contains(node)).collect();
        self.deaf(&others)
    }

    /// One node does not hear one other.
    pub fn not_heard(mut self, hearer: usize, speaker: usize) -> Weather {
        self.hears[hearer][speaker] = false;
        self
    }

    /// A node's rules, all of them, so that those of before are gone. They are about what
    /// comes in: only there one way can be closed and the other stay open.
    fn rules(&self, node: usize) -> String {
        let mut rules = String::from("*filter\n:INPUT ACCEPT [0:0]\n");
        for speaker in (0..NODES).filter(|&speaker| speaker != node) {
            if !self.hears[node][speaker] {
                rules += &format!("-A INPUT -s {} -j DROP\n", address(speaker));
            }
        }
        if self.lost_percent > 0 {
            let lost = f64::from(self.lost_percent) / 100.0;
            let how = "-m statistic --mode random --probability";
            rules += &format!("-A INPUT {how} {lost} -j DROP\n");
        }
        rules + "COMMIT\n"
    }
}

/// A node's address. All networks have the same ones, and never meet.
pub fn address(number: usize) -> String {
    format!("10.7.0.{}", number + 1)
}

/// What is there of a network: namespaces and files, by name.
pub fn traces(network: &str) -> Vec<String> {
    namespaces().into_iter().chain(dirs()).filter(|name| name.starts_with(network)).collect()
}

/// Whether this process may try.
fn check_permission() -> Result<(), String> {
    // The owner of a process's folder is the user that it acts as.
    let user = fs::metadata("/proc/self").map_err(|error| format!("no /proc: {error}"))?.uid();
    if user != 0 {
        return Err(format!("network namespaces need root, and this is user {user}"));
    }
    attempt("ip", &["-Version"])?;
    attempt("iptables-restore", &["--version"])
}

/// Removes what is left of runs that are dead by now and whose wardens are, too.
fn sweep() {
    let networks = namespaces().into_iter().chain(dirs()).filter(|name| is_orphan(name));
    let network = |name: String| name.split('-').take(5).collect::<Vec<_>>().join("-");
    for name in networks.map(network).collect::<BTreeSet<String>>() {
        let _ = shell(&removal(&name)).status();
    }
}

/// What removes a network and all that is in it, or as much of it as there is. A node
/// that was stopped when its tests died does not see that its input ended.
fn removal(name: &str) -> String {
    let dir = env::temp_dir().join(name);
    format!(
        "for namespace in $(ip netns list | grep -o '^{name}-[a-z0-9]*'); do \
             kill -s KILL $(ip netns pids $namespace); \
             ip netns del $namespace; \
         done; \
         rm -rf '{}'",
        dir.display()
    )
}

fn shell(script: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    shell
}

/// Whether the process that made what has this name is gone.
fn is_orphan(name: &str) -> bool {
    let mut parts = name.strip_prefix(PREFIX).unwrap_or_default().split('-');
    let pid = parts.next().and_then(|pid| pid.parse().ok());
    let start = parts.next().and_then(|start| start.parse().ok());
    pid.zip(start).is_some_and(|(pid, start)| started_at(pid) != Some(start))
}

/// When a process started, in ticks since the system did; with its id it names one
/// process, also when ids are given out again. `None`: there is none.
fn started_at(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name, in brackets, and may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19)?.parse().ok()
}

/// The namespaces of these tests, of this run and others.
fn namespaces() -> Vec<String> {
    let listed = run("ip", &["netns", "list"]);
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let names = text.lines().filter_map(|line| line.split_whitespace().next());
    names.filter(|name| name.starts_with(PREFIX)).map(str::to_string).collect()
}

/// The directories of these tests, of this run and others.
fn dirs() -> Vec<String> {
    let items = fs::read_dir(env::temp_dir()).into_iter().flatten().flatten();
    let names = items.map(|item| item.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(PREFIX)).collect()
}

/// Runs a command that must succeed.
fn ip(arguments: &[&str]) {
    if let Err(problem) = attempt("ip", arguments) {
        panic!("{problem}");
    }
}

/// Runs a command, and says what it was and what it said if it fails.
fn attempt(program: &str, arguments: &[&str]) -> Result<(), String> {
    let told = |problem| format!("{program} {}: {problem}", arguments.join(" "));
    match Command::new(program).args(arguments).stdin(Stdio::null()).output() {
        Ok(done) if done.status.success() => Ok(()),
        Ok(done) => Err(told(said(&done))),
        Err(error) => Err(told(error.to_string())),
    }
}

/// Runs a command, whatever it says.
fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program} cannot be run: {error}"))
}

fn said(done: &Output) -> String {
    format!("{}, {}", done.status, String::from_utf8_lossy(&done.stderr).trim())
}

/// Whether a process is there, and not only waiting to be taken note of.
pub fn runs(pid: u32) -> bool {
    let status = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    status.is_ok_and(|status| !status.contains(") Z "))
}
