//! Floods: a quarter of a million datagrams a second, at the two nodes of three that are left.
//! Memory stays bounded, the two go on committing, and what a node spends is what it takes to
//! look at a datagram. With and without a secret.
//!
//! The third node is cut off, and what a member must have sent is sent in its name: by a
//! broken peer, which holds the secret if there is one.
#![cfg(target_os = "linux")]

#[macro_use]
#[path = "common/both.rs"]
mod both;
mod common;

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::chance::Chance;
use common::forge::{Forger, Head, SECRET, first_fragment, head_between, hello};
use common::relay::Taped;
use common::{Cluster, Plan, ask, resident_mib};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::UdpGsoSegment;
use serde_json::json;

/// So many different datagrams does a flood have, which are then sent again: to make one
/// takes longer than to send it.
const DATAGRAMS: usize = 20_000;
/// So many a second are sent to each of the two nodes.
const RATE: f64 = 130_000.0;
/// So many of them go in one call: no more than the system cuts apart.
const BURST: usize = 16;
/// So long is each flood.
const FLOOD: Duration = Duration::from_secs(2);
/// More than any flood may take: what a link may hold of long messages is 32 MiB.
const MEMORY_MIB: u64 = 80;
/// More than it takes to look at a datagram, on a slow machine and without optimization.
const LOOK_US: f64 = 60.0;

/// One at a time, or memory and processor time would be of both.
static ONE: Mutex<()> = Mutex::new(());

/// Makes the next datagram of a flood to the node at that place.
type Make = Box<dyn FnMut(usize) -> Vec<u8>>;

/// Three nodes, the last of them cut off, and what it would say to each of the others.
fn cluster(sealed: bool) -> (Cluster, [Head; 2], Vec<Taped>) {
    let keys = if sealed { json!({ "secret": SECRET }) } else { json!({}) };
    let cluster = Plan::voters(3).relay(7).keys(keys).make();
    cluster.relay().start_tape();
    cluster.all().for_each(|node| node.start().expect("it starts"));
    for n in 0..9 {
        ask(cluster.node(n % 3), json!(n));
    }
    let tape = cluster.relay().take_tape();
    let heads = [0, 1].map(|to| head_between(&tape, 2, to));
    cluster.relay().cut_off(&[2]);
    ask(cluster.node(0), json!("without the third"));
    (cluster, heads, tape)
}

fn resident() -> u64 {
    resident_mib().expect("Linux tells")
}

/// How much processor time the two nodes have used, in microseconds. Their threads are
/// called as they are.
fn spent_us() -> u64 {
    let tasks = fs::read_dir("/proc/self/task").expect("there are threads");
    let of = |path: std::path::PathBuf| {
        let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
        let spent = fs::read_to_string(path.join("schedstat")).unwrap_or_default();
        let nanoseconds = spent.split(' ').next().and_then(|number| number.parse::<u64>().ok());
        let counts = ["node0", "node1"].contains(&name.trim());
        nanoseconds.filter(|_| counts).unwrap_or(0) / 1000
    };
    tasks.map(|task| of(task.expect("a thread").path())).sum()
}

/// How many datagrams found no room at these addresses, so far. Other programs may have the
/// same ports at others.
fn dropped(addresses: &[SocketAddr]) -> u64 {
    let shown = |address: &SocketAddr| match address {
        SocketAddr::V4(at) => {
            format!("{:08X}:{:04X}", u32::from_ne_bytes(at.ip().octets()), at.port())
        }
        SocketAddr::V6(at) => panic!("{at} is in another table"),
    };
    let addresses: Vec<String> = addresses.iter().map(shown).collect();
    let table = fs::read_to_string("/proc/net/udp").expect("it is there");
    let of = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let counts = addresses.iter().any(|address| address == fields[1]);
        counts.then(|| fields[fields.len() - 1].parse::<u64>().expect("a number"))
    };
    table.lines().skip(1).filter_map(of).sum()
}

/// Datagrams of one length, which the system takes in one call and cuts apart: one by one, a
/// thread could send no more than a node can look at.
struct Burst {
    each_bytes: u16,
    bytes: Vec<u8>,
}

/// The datagrams of each length together, as many as go in one call.
fn bursts(mut datagrams: Vec<&[u8]>) -> Vec<Burst> {
    datagrams.sort_by_key(|datagram| datagram.len());
    let mut bursts = Vec::new();
    for alike in datagrams.chunk_by(|one, next| one.len() == next.len()) {
        let each_bytes = alike[0].len() as u16;
        let most = BURST.min(usize::from(u16::MAX - 64) / alike[0].len().max(1));
        bursts.extend(alike.chunks(most).map(|few| Burst { each_bytes, bytes: few.concat() }));
    }
    let mut chance = Chance::new(4);
    bursts.sort_by_cached_key(|_| chance.draw());
    bursts
}

impl Burst {
    /// So many datagrams were sent.
    fn send(&self, socket: &UdpSocket) -> u64 {
        let cut = setsockopt(socket, UdpGsoSegment, &i32::from(self.each_bytes));
        let sent = cut.is_ok() && socket.send(&self.bytes).is_ok();
        // What the system will not send is not what is tried here.
        u64::from(sent) * (self.bytes.len() / usize::from(self.each_bytes)) as u64
    }
}

fn flood(name: &str, sealed: bool, make: impl FnOnce([Head; 2], Vec<Taped>) -> Make) {
    let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (cluster, heads, tape) = cluster(sealed);
    let mut make = make(heads, tape);
    let datagrams: Vec<Vec<u8>> = (0..DATAGRAMS).map(|number| make(number % 2)).collect();
    let addresses = [0, 1].map(|place| cluster.addresses[place]);
    let (memory, spent, lost) = (resident(), spent_us(), dropped(&addresses));
    let (over, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let begun = Instant::now();
    let mut commits = 0;
    std::thread::scope(|scope| {
        for place in 0..2 {
            let (cluster, datagrams, over, sent) = (&cluster, &datagrams, &over, &sent);
            scope.spawn(move || {
                let own: Vec<&[u8]> =
                    datagrams.iter().skip(place).step_by(2).map(Vec::as_slice).collect();
                let bursts = bursts(own);
                let socket = UdpSocket::bind(common::address()).expect("a socket");
                socket.connect(cluster.addresses[place]).expect("an address");
                let mut own_sent = 0;
                for burst in bursts.iter().cycle().take_while(|_| !over.load(Ordering::Relaxed)) {
                    let count = burst.send(&socket);
                    sent.fetch_add(count, Ordering::Relaxed);
                    own_sent += count;
                    let due = begun + Duration::from_secs_f64(own_sent as f64 / RATE);
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                }
            });
        }
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            while begun.elapsed() < FLOOD || commits < 5 {
                ask(cluster.node(commits % 2), json!(commits));
                commits += 1;
            }
        }));
        over.store(true, Ordering::Relaxed);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
    let seconds = begun.elapsed().as_secs_f64();
    let (sent, lost) = (sent.into_inner(), dropped(&addresses) - lost);
    let spent = (spent_us() - spent) as f64;
    let taken = sent.saturating_sub(lost).max(1) as f64;
    let more = resident().saturating_sub(memory);
    println!(
        "{name}{}: {:.0} a second, {lost} of {sent} found no room, {commits} commits, {:.1} us of \
         processor time for each that was taken, {more} MiB more",
        if sealed { ", sealed" } else { "" },
        sent as f64 / seconds,
        spent / taken
    );
    assert!(sent > 10_000, "{sent} are no flood");
    assert!(more < MEMORY_MIB, "{more} MiB more");
    assert!(spent / taken < LOOK_US, "{:.1} us for each that was taken", spent / taken);
    // If it is sealed, what was sent in the third one's name made its own words too old: it
    // is its next run that is heard again.
    cluster.node(2).stop();
    cluster.relay().heal();
    cluster.node(2).start().expect("it starts again");
    cluster.commit_everywhere(0, json!("after the flood"));
}

/// What is nothing at all, what would be a frame if it were closed right, and what was said
/// before.
fn garbage(sealed: bool) {
    flood("garbage", sealed, |heads, tape| {
        let (mut chance, mut forger) = (Chance::new(1), Forger::new(sealed));
        Box::new(move |place| match chance.below(3) {
            0 => chance.bytes(100),
            1 => {
                let mut frame = forger.message(&heads[place], &chance.bytes(100));
                frame[60] ^= 1;
                frame
            }
            _ => tape[chance.below(tape.len())].bytes.clone(),
        })
    });
}

fn first_fragments(sealed: bool) {
    flood("first fragments", sealed, |heads, _| {
        let (mut chance, mut forger, mut id) = (Chance::new(2), Forger::new(sealed), 1 << 40);
        Box::new(move |place| {
            id += 1;
            let total = [2_000, 1 << 20, 30 << 20, 1 << 40][chance.below(4)];
            forger.message(&heads[place], &first_fragment(id, total, &[0x5a; 1_200]))
        })
    });
}

/// What any member says, too often: that it lives, that it wants to lead, that it asks for
/// reads, that it is here.
fn a_broken_peer(sealed: bool) {
    flood("a broken peer", sealed, |heads, _| {
        let (mut chance, mut forger) = (Chance::new(3), Forger::new(sealed));
        Box::new(move |place| {
            let part = match chance.below(5) {
                // A heartbeat of an old term, and the answer to one.
                0 => vec![9, 0, 1, 1, 1],
                1 => vec![10, 0, 1, 1, 1],
                // A pre-vote for a later term.
                2 => vec![3, 1, 100, 1, 1],
                3 => vec![12, chance.below(100) as u8],
                _ => hello("node2", false, 1 + chance.draw() / 2, 0),
            };
            forger.message(&heads[place], &part)
        })
    });
}

both!(garbage, first_fragments, a_broken_peer);
