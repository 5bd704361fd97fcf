//! The floor: a cluster's shape without its protocol.
//!
//! ```text
//!   client ─► queue, bell ─► leader ─► 60 KB datagrams ─► two followers
//!      ▲                     log, disk                    log, disk
//!      └──────── one answer a value ◄── acknowledgements ◄──┘
//! ```
//!
//! The same threads, sockets, sizes of datagrams, checksums, copies into a log, wakes and
//! syncs as a cluster of three has, and nothing else: no terms, no votes, no sessions, no
//! retransmission. A value is answered when the leader and one follower have it. So it
//! tells what sockets, wakes and disks allow on this machine in this minute. It does not
//! survive a lost datagram: then the measurement ends.

/// The library's own rule, and not another like it.
#[path = "../../src/driver/courtesy.rs"]
#[allow(dead_code)] // in its tests, which are the library's
mod courtesy;

use std::convert::Infallible;
use std::fs::File;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError, unbounded};
use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token, Waker};
use socket2::{Domain, Socket, Type};

use crate::measure::{Client, look_then};

use self::courtesy::Courtesy;

const DATAGRAM_BYTES: usize = 60_000;
/// As long as what stands before the entries of an append.
const HEAD_BYTES: usize = 64;
/// So many datagrams are under way to a follower: more would not fit its buffer.
const WINDOW: u64 = 8;
const BUFFER_BYTES: usize = 4 << 20;
/// A log begins anew when it is so long, as one does that is compacted.
const LOG_BYTES: usize = 16 << 20;
const DISK_BYTES: u64 = 64 << 20;
/// So often followers hear of a leader that has nothing to send.
const HEARTBEAT: Duration = Duration::from_millis(30);
/// What is not acknowledged by then is lost.
const PATIENCE: Duration = Duration::from_secs(10);

struct Ask {
    value: Vec<u8>,
    answer: oneshot::Sender<u64>,
}

/// What the client and the leader's thread share.
struct Shared {
    queue: Sender<Ask>,
    waker: Waker,
    asleep: AtomicBool,
    over: AtomicBool,
}

pub struct Floor {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    size: usize,
}

impl Floor {
    /// Values have `size` bytes; logs are on disk if there is a folder for them.
    pub fn start(followers: usize, size: usize, durable: Option<&Path>) -> Floor {
        let leader_socket = bind();
        let leader_address = leader_socket.local_addr().expect("it is bound");
        let poll = Poll::new().expect("a poll");
        let waker = Waker::new(poll.registry(), Token(0)).expect("a bell");
        let (queue, asks) = unbounded();
        let [asleep, over] = [(); 2].map(|()| AtomicBool::new(false));
        let shared = Arc::new(Shared { queue, waker, asleep, over });
        let log = |place: usize| Log::new(durable.map(|folder| folder.join(format!("{place}"))));
        let mut threads = Vec::new();
        let mut addresses = Vec::new();
        for place in 1..=followers {
            let socket = bind();
            addresses.push(socket.local_addr().expect("it is bound"));
            let (mut log, shared) = (log(place), shared.clone());
            let run = move || follow(socket, leader_address, &mut log, &shared.over);
            threads.push(std::thread::spawn(run));
        }
        let mut leader = Leader {
            poll,
            socket: leader_socket,
            log: log(0),
            asks,
            shared: shared.clone(),
            followers: addresses.into_iter().map(Follower::new).collect(),
            frame: Vec::with_capacity(DATAGRAM_BYTES),
            open: Default::default(),
            sent: 0,
            heard_at: Instant::now(),
            courtesy: Courtesy::default(),
        };
        threads.push(std::thread::spawn(move || leader.run()));
        Floor { shared, threads, size }
    }

    pub fn client(&self) -> FloorClient<'_> {
        FloorClient { floor: self }
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        let _ = self.shared.waker.wake();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

pub struct FloorClient<'a> {
    floor: &'a Floor,
}

impl Client for FloorClient<'_> {
    type Ticket = oneshot::Receiver<u64>;

    fn send(&mut self) -> Self::Ticket {
        let (answer, ticket) = oneshot::channel();
        let shared = &self.floor.shared;
        let ask = Ask { value: vec![b'x'; self.floor.size], answer };
        shared.queue.send(ask).expect("the leader lives");
        if shared.asleep.swap(false, Ordering::SeqCst) {
            shared.waker.wake().expect("the bell rings");
        }
        ticket
    }

    fn wait(&mut self, ticket: Self::Ticket) {
        let there = || match ticket.try_recv() {
            Ok(_) => Some(()),
            Err(oneshot::TryRecvError::Disconnected) => panic!("the leader is gone"),
            Err(oneshot::TryRecvError::Empty) => None,
        };
        let park = || _ = ticket.recv_timeout(PATIENCE).expect("a datagram was lost");
        look_then(there, park);
    }

    fn is_done(&mut self, ticket: &mut Self::Ticket) -> bool {
        ticket.try_recv().is_ok()
    }
}

/// Bytes one behind the other, in memory and perhaps on disk.
struct Log {
    bytes: Vec<u8>,
    disk: Option<(File, u64)>,
}

impl Log {
    fn new(path: Option<std::path::PathBuf>) -> Log {
        let file = path.map(|path| {
            let file = File::create(path).expect("a file");
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, DISK_BYTES)
                .expect("room on the disk");
            file.sync_all().expect("it is on the disk");
            (file, 0)
        });
        Log { bytes: Vec::with_capacity(LOG_BYTES), disk: file }
    }

    fn append(&mut self, bytes: &[u8]) {
        if self.bytes.len() + bytes.len() > LOG_BYTES {
            self.bytes.clear();
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Writes what was appended last and waits until it is on the disk.
    fn sync(&mut self, length: usize) {
        let Some((file, at)) = &mut self.disk else { return };
        if *at + length as u64 > DISK_BYTES {
            *at = 0;
        }
        file.write_all_at(&self.bytes[self.bytes.len() - length..], *at).expect("written");
        file.sync_data().expect("synced");
        *at += length as u64;
    }
}

/// A follower, as the leader knows it.
struct Follower {
    address: SocketAddr,
    has: u64,
    /// The ends of the datagrams that are under way.
    sent: u64,
    acknowledged: u64,
}

impl Follower {
    fn new(address: SocketAddr) -> Follower {
        Follower { address, has: 0, sent: 0, acknowledged: 0 }
    }
}

struct Leader {
    poll: Poll,
    socket: UdpSocket,
    log: Log,
    asks: Receiver<Ask>,
    shared: Arc<Shared>,
    followers: Vec<Follower>,
    frame: Vec<u8>,
    /// Who waits, in order; and how many were answered before.
    open: (std::collections::VecDeque<oneshot::Sender<u64>>, u64),
    sent: u64,
    /// When the followers last were sent something.
    heard_at: Instant,
    courtesy: Courtesy,
}

impl Leader {
    fn run(&mut self) {
        let registry = self.poll.registry();
        registry.register(&mut self.socket, Token(1), Interest::READABLE).expect("registered");
        let mut events = Events::with_capacity(16);
        let mut buffer = vec![0; 1 << 16];
        let mut more = false;
        while !self.shared.over.load(Ordering::SeqCst) {
            self.shared.asleep.store(true, Ordering::SeqCst);
            let room = self.has_room();
            let sleeps = !more && (self.asks.is_empty() || !room);
            let beat = HEARTBEAT.saturating_sub(self.heard_at.elapsed());
            let wait = match sleeps {
                true if room => beat,
                true => HEARTBEAT,
                false => Duration::ZERO,
            };
            let _ = self.poll.poll(&mut events, Some(wait));
            self.shared.asleep.store(false, Ordering::SeqCst);
            self.give_way();
            while let Ok(length) = self.socket.recv(&mut buffer) {
                self.acknowledged(&buffer[..length]);
            }
            self.answer();
            more = self.send_batch();
        }
    }

    /// As a node does: clients may go on first, while more comes of that.
    fn give_way(&mut self) {
        let mut before = 0;
        let Ok(()) = self.courtesy.gather(|| {
            let asks = self.asks.len();
            let came = asks - std::mem::replace(&mut before, asks);
            Ok::<_, Infallible>(came)
        });
    }

    fn has_room(&self) -> bool {
        self.followers.iter().all(|follower| follower.sent < follower.acknowledged + WINDOW)
    }

    fn acknowledged(&mut self, ack: &[u8]) {
        let number = |at: usize| u64::from_le_bytes(ack[at..at + 8].try_into().expect("8 bytes"));
        let follower = &mut self.followers[number(HEAD_BYTES) as usize - 1];
        follower.has = number(HEAD_BYTES + 8);
        follower.acknowledged += 1;
    }

    /// A majority has what the leader and half of the followers have.
    fn answer(&mut self) {
        let mut has: Vec<u64> = self.followers.iter().map(|follower| follower.has).collect();
        has.sort_unstable();
        let committed = has[has.len() - has.len().div_ceil(2)];
        let newly = (committed - self.open.1) as usize;
        self.open.1 = committed;
        // The oldest last: when the client wakes, it finds all of them.
        for answer in self.open.0.drain(..newly).rev() {
            let _ = answer.send(committed);
        }
    }

    /// One datagram of what has queued up. Says whether there may be more.
    fn send_batch(&mut self) -> bool {
        if !self.has_room() {
            return false;
        }
        self.frame.clear();
        self.frame.resize(HEAD_BYTES, 0);
        let mut more = true;
        while self.frame.len() < DATAGRAM_BYTES - 2 * HEAD_BYTES {
            match self.asks.try_recv() {
                Ok(ask) => {
                    self.frame.extend_from_slice(&(ask.value.len() as u32).to_le_bytes());
                    self.frame.extend_from_slice(&ask.value);
                    self.open.0.push_back(ask.answer);
                    self.sent += 1;
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => {
                    more = false;
                    break;
                }
            }
        }
        if self.frame.len() == HEAD_BYTES && self.heard_at.elapsed() < HEARTBEAT {
            return false;
        }
        self.heard_at = Instant::now();
        self.frame[8..16].copy_from_slice(&self.sent.to_le_bytes());
        let sum = crc32fast::hash(&self.frame[8..]);
        self.frame[..4].copy_from_slice(&sum.to_le_bytes());
        for (place, follower) in self.followers.iter_mut().enumerate() {
            self.frame[4] = place as u8 + 1;
            self.socket.send_to(&self.frame, follower.address).expect("it is sent");
            follower.sent += 1;
        }
        self.log.append(&self.frame[HEAD_BYTES..]);
        self.log.sync(self.frame.len() - HEAD_BYTES);
        more
    }
}

fn follow(mut socket: UdpSocket, leader: SocketAddr, log: &mut Log, over: &AtomicBool) {
    let mut poll = Poll::new().expect("a poll");
    poll.registry().register(&mut socket, Token(1), Interest::READABLE).expect("registered");
    let mut events = Events::with_capacity(16);
    let mut buffer = vec![0; 1 << 16];
    let mut ack = [0; HEAD_BYTES + 16];
    while !over.load(Ordering::SeqCst) {
        let _ = poll.poll(&mut events, Some(Duration::from_millis(100)));
        loop {
            let length = match socket.recv(&mut buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            };
            let sum = u32::from_le_bytes(buffer[..4].try_into().expect("4 bytes"));
            assert_eq!(sum, crc32fast::hash(&buffer[8..length]), "a damaged datagram");
            log.append(&buffer[HEAD_BYTES..length]);
            log.sync(length - HEAD_BYTES);
            ack[HEAD_BYTES] = buffer[4];
            ack[HEAD_BYTES + 8..].copy_from_slice(&buffer[8..16]);
            let sum = crc32fast::hash(&ack[8..]);
            ack[..4].copy_from_slice(&sum.to_le_bytes());
            socket.send_to(&ack, leader).expect("it is sent");
        }
    }
}

fn bind() -> UdpSocket {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("a socket");
    socket.set_nonblocking(true).expect("it does not block");
    let _ = socket.set_recv_buffer_size(BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(BUFFER_BYTES);
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a free port");
    UdpSocket::from_std(socket.into())
}
