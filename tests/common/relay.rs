//! A network of the tests' own: it loses, repeats and delays datagrams, lets later
//! ones overtake, cuts links one or both ways, and keeps a tape.
//!
//! ```text
//!   node a ──► socket b ──► weather ──► the same socket ──► node b
//! ```
//!
//! There is one socket for each node, and its address is the one by which the others
//! know it; where a datagram comes from says whose it is. One thread does it all.

use std::collections::BinaryHeap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token, Waker};
use socket2::{Domain, Protocol, Socket, Type};

use super::chance::Chance;

/// How many of a hundred datagrams meet what.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// Are lost.
    pub lost: u32,
    /// Come twice, the second time late.
    pub repeated: u32,
    /// Are overtaken by those behind them: up to 2 ms late.
    pub overtaken: u32,
    /// Are up to 20 ms late.
    pub late: u32,
}

impl Weather {
    /// So many of a hundred of everything.
    pub fn all(percent: u32) -> Weather {
        Weather { lost: percent, repeated: percent, overtaken: percent, late: percent }
    }
}

/// A datagram that was seen: from which node, to which, and its bytes.
#[derive(Clone, Debug)]
pub struct Taped {
    /// The sender's place.
    pub from: usize,
    /// The addressee's place.
    pub to: usize,
    /// The whole datagram.
    pub bytes: Vec<u8>,
}

/// The network between some nodes. It ends when it is dropped.
pub struct Relay {
    shared: Arc<Shared>,
    seed: u64,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    /// Where the nodes really are.
    nodes: Vec<SocketAddr>,
    /// One for each node.
    entrances: Vec<Entrance>,
    /// Of each ordered pair of nodes, whether it is cut.
    cuts: Vec<AtomicBool>,
    weather: Mutex<Weather>,
    tape: Mutex<Option<Vec<Taped>>>,
    passed: AtomicU64,
    over: AtomicBool,
}

struct Entrance {
    socket: UdpSocket,
    address: SocketAddr,
}

const BELL: Token = Token(usize::MAX);
const LONGEST: usize = 65_536;

impl Relay {
    /// Fair weather between nodes at these addresses.
    pub fn new(nodes: Vec<SocketAddr>, seed: u64) -> Relay {
        let poll = Poll::new().expect("a poll");
        let waker = Waker::new(poll.registry(), BELL).expect("a bell");
        let mut entrances = Vec::new();
        for (place, node) in nodes.iter().enumerate() {
            // Of the same kind: datagrams are as long as the way between addresses lets them.
            let outside = || super::outer_address().expect("the nodes have such addresses");
            let address = if node.ip().is_loopback() { super::address() } else { outside() };
            let mut socket = socket(address);
            poll.registry()
                .register(&mut socket, Token(place), Interest::READABLE)
                .expect("a socket can be watched");
            entrances.push(Entrance { socket, address });
        }
        let cuts = (0..nodes.len() * nodes.len()).map(|_| AtomicBool::new(false)).collect();
        let shared = Arc::new(Shared {
            nodes,
            entrances,
            cuts,
            weather: Mutex::default(),
            tape: Mutex::default(),
            passed: AtomicU64::new(0),
            over: AtomicBool::new(false),
        });
        let theirs = Arc::clone(&shared);
        let run = move || {
            Runner { shared: theirs, chance: Chance::new(seed), late: BinaryHeap::new() }.run(poll)
        };
        let thread = std::thread::Builder::new().name("relay".into()).spawn(run);
        Relay { shared, seed, waker, thread: Some(thread.expect("a thread")) }
    }

    /// By which address the others know this node.
    pub fn entrance(&self, to: usize) -> SocketAddr {
        self.shared.entrances[to].address
    }

    /// The weather from now on.
    pub fn weather(&self, weather: Weather) {
        *self.shared.weather.lock().unwrap_or_else(PoisonError::into_inner) = weather;
    }

    /// Nothing passes from the one to the other any more; the way back stays.
    pub fn cut_one_way(&self, from: usize, to: usize) {
        self.shared.cut(from, to).store(true, Ordering::SeqCst);
    }

    /// Nothing passes between these nodes and all others.
    pub fn cut_off(&self, group: &[usize]) {
        for from in 0..self.shared.nodes.len() {
            for to in 0..self.shared.nodes.len() {
                if group.contains(&from) != group.contains(&to) {
                    self.cut_one_way(from, to);
                }
            }
        }
    }

    /// No link is cut.
    pub fn heal(&self) {
        self.shared.cuts.iter().for_each(|cut| cut.store(false, Ordering::SeqCst));
    }

    /// How many datagrams came here so far.
    pub fn passed(&self) -> u64 {
        self.shared.passed.load(Ordering::SeqCst)
    }

    /// Keeps all that comes from now on.
    pub fn start_tape(&self) {
        *self.shared.tape.lock().unwrap_or_else(PoisonError::into_inner) = Some(Vec::new());
    }

    /// What came since; nothing is kept any more.
    pub fn take_tape(&self) -> Vec<Taped> {
        let mut tape = self.shared.tape.lock().unwrap_or_else(PoisonError::into_inner);
        tape.take().unwrap_or_default()
    }

    /// Sends a datagram as if it had just come to this node, past all weather.
    pub fn inject(&self, to: usize, bytes: &[u8]) {
        // A full buffer loses it, as a network would.
        let _ = self.shared.entrances[to].socket.send_to(bytes, self.shared.nodes[to]);
    }
}

impl Shared {
    fn cut(&self, from: usize, to: usize) -> &AtomicBool {
        &self.cuts[from * self.nodes.len() + to]
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the relay's seed was {}", self.seed);
        }
        self.shared.over.store(true, Ordering::SeqCst);
        self.waker.wake().expect("the bell rings");
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn socket(address: SocketAddr) -> UdpSocket {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))
        .expect("a socket");
    socket.set_nonblocking(true).expect("a socket that does not block");
    // Whatever the system grants.
    let _ = socket.set_recv_buffer_size(4 << 20);
    let _ = socket.set_send_buffer_size(4 << 20);
    socket.bind(&address.into()).unwrap_or_else(|error| panic!("cannot bind {address}: {error}"));
    UdpSocket::from_std(socket.into())
}

/// The relay's thread.
struct Runner {
    shared: Arc<Shared>,
    chance: Chance,
    late: BinaryHeap<Late>,
}

struct Late {
    due: Instant,
    link: (usize, usize),
    bytes: Vec<u8>,
}

impl Runner {
    fn run(mut self, mut poll: Poll) {
        let mut events = Events::with_capacity(64);
        let mut buffer = vec![0; LONGEST];
        while !self.shared.over.load(Ordering::SeqCst) {
            let now = Instant::now();
            let wait = self.late.peek().map(|late| late.due.saturating_duration_since(now));
            match poll.poll(&mut events, wait) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                polled => polled.expect("the relay's sockets can be watched"),
            }
            for event in &events {
                if event.token() != BELL {
                    self.take(event.token().0, &mut buffer);
                }
            }
            let now = Instant::now();
            while self.late.peek().is_some_and(|late| late.due <= now) {
                let Some(Late { link, bytes, .. }) = self.late.pop() else { break };
                self.forward(link, &bytes);
            }
        }
    }

    fn take(&mut self, place: usize, buffer: &mut [u8]) {
        let shared = Arc::clone(&self.shared);
        let weather = *shared.weather.lock().unwrap_or_else(PoisonError::into_inner);
        // Errors tell of datagrams that nobody took; there may be more behind.
        loop {
            let (length, source) = match shared.entrances[place].socket.recv_from(buffer) {
                Ok(came) => came,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => continue,
            };
            let Some(from) = shared.nodes.iter().position(|node| *node == source) else { continue };
            let link = (from, place);
            let bytes = &buffer[..length];
            shared.passed.fetch_add(1, Ordering::SeqCst);
            if let Some(tape) = &mut *shared.tape.lock().unwrap_or_else(PoisonError::into_inner) {
                tape.push(Taped { from, to: place, bytes: bytes.to_vec() });
            }
            if self.chance.happens(weather.lost) {
                continue;
            }
            if self.chance.happens(weather.repeated) {
                self.put_off(link, bytes, 20_000);
            }
            if self.chance.happens(weather.late) {
                self.put_off(link, bytes, 20_000);
            } else if self.chance.happens(weather.overtaken) {
                self.put_off(link, bytes, 2_000);
            } else {
                self.forward(link, bytes);
            }
        }
    }

    fn put_off(&mut self, link: (usize, usize), bytes: &[u8], most_us: u64) {
        let due = Instant::now() + Duration::from_micros(1 + self.chance.draw() % most_us);
        self.late.push(Late { due, link, bytes: bytes.to_vec() });
    }

    fn forward(&self, (from, to): (usize, usize), bytes: &[u8]) {
        // A cut holds what is on its way, too.
        if !self.shared.cut(from, to).load(Ordering::SeqCst) {
            let _ = self.shared.entrances[to].socket.send_to(bytes, self.shared.nodes[to]);
        }
    }
}

impl PartialEq for Late {
    fn eq(&self, other: &Late) -> bool {
        self.due == other.due
    }
}

impl Eq for Late {}

impl PartialOrd for Late {
    fn partial_cmp(&self, other: &Late) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// The heap's greatest is the one that is due first.
impl Ord for Late {
    fn cmp(&self, other: &Late) -> std::cmp::Ordering {
        other.due.cmp(&self.due)
    }
}
