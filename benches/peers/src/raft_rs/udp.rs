//! Nodes that talk over UDP on loopback.
//!
//! A datagram carries as many messages as fit into 60 KB, each behind its length, and what
//! a turn has for one node goes out together. Whatever is lost, raft-rs sends again by its
//! own means. Each node's thread waits for its socket and its queue in one place (mio); who
//! puts something into the queue wakes it only if it sleeps.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, unbounded};
use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token, Waker};
use protobuf::{CodedInputStream, CodedOutputStream, Message as _};
use raft::eraftpb::Message;
use socket2::{Domain, Socket, Type};

use super::Transport;
use super::node::{Event, Node, Post};
use crate::cluster::Outcome;

const DATAGRAM: usize = 60_000;
const BUFFER: usize = 4 << 20;
/// So many datagrams, and so many events, a turn at most.
const MOST: usize = 32;
const MOST_EVENTS: usize = 4_096;

const SOCKET: Token = Token(0);
const QUEUE: Token = Token(1);

#[derive(Clone)]
pub struct Udp {
    all: Vec<Arc<Place>>,
}

struct Place {
    address: SocketAddr,
    socket: Socket,
    poll: std::sync::Mutex<Option<Poll>>,
    waker: Waker,
    sleeps: AtomicBool,
    queue: (Sender<Event>, Receiver<Event>),
}

impl Transport for Udp {
    const NAME: &'static str = "raft-rs/udp";
    /// With the rest of its message it fits into a datagram.
    const LONGEST: usize = 50_000;
    // A message leaves room for others in its datagram.
    const MOST_BYTES: u64 = 50_000;
    // What is on its way stays below the receiver's buffer.
    const MOST_IN_FLIGHT: usize = 32;

    fn open(nodes: usize) -> Outcome<Udp> {
        let place = || -> io::Result<_> {
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
            socket.set_recv_buffer_size(BUFFER)?;
            socket.set_send_buffer_size(BUFFER)?;
            socket.set_nonblocking(true)?;
            socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
            let address = socket.local_addr()?.as_socket().ok_or(ErrorKind::AddrNotAvailable)?;
            let poll = Poll::new()?;
            let waker = Waker::new(poll.registry(), QUEUE)?;
            Ok(Arc::new(Place {
                address,
                socket,
                poll: std::sync::Mutex::new(Some(poll)),
                waker,
                sleeps: AtomicBool::new(false),
                queue: unbounded(),
            }))
        };
        Ok(Udp { all: (0..nodes).map(|_| place()).collect::<io::Result<_>>()? })
    }

    fn give(&self, node: usize, event: Event) {
        let place = &self.all[node];
        let _ = place.queue.0.send(event);
        if place.sleeps.swap(false, Ordering::SeqCst) {
            place.waker.wake().expect("the queue can be rung for");
        }
    }

    fn run(&self, node: usize, new: impl FnOnce() -> Node + Send + 'static) -> Outcome<()> {
        let place = self.all[node].clone();
        let mut socket = UdpSocket::from_std(place.socket.try_clone()?.into());
        let poll = place.poll.lock().map_err(|_| "it was run")?.take().ok_or("it runs")?;
        poll.registry().register(&mut socket, SOCKET, Interest::READABLE)?;
        let to = self.all.iter().map(|place| (place.address, Vec::new())).collect();
        let line = Line { place, poll, socket, to };
        thread::Builder::new()
            .name(format!("node{node}"))
            .spawn(move || line.run(new()).expect("the socket works"))?;
        Ok(())
    }
}

/// A node's socket, and what is about to be sent by it.
struct Line {
    place: Arc<Place>,
    poll: Poll,
    socket: UdpSocket,
    to: Vec<(SocketAddr, Vec<u8>)>,
}

impl Post for Line {
    fn post(&mut self, message: Message) {
        let (to, datagram) = &mut self.to[message.to as usize - 1];
        let size = message.compute_size();
        if datagram.len() + size as usize + 5 > DATAGRAM {
            send(&self.socket, *to, datagram);
        }
        let mut out = CodedOutputStream::vec(datagram);
        let written = out
            .write_raw_varint32(size)
            .and_then(|()| message.write_to_with_cached_sizes(&mut out))
            .and_then(|()| out.flush());
        written.expect("memory takes it");
    }
}

impl Line {
    fn run(mut self, mut node: Node) -> io::Result<()> {
        let mut events = Events::with_capacity(8);
        let mut buffer = vec![0; 1 << 16];
        let mut is_readable = true;
        loop {
            node.turn(&mut self);
            self.flush();
            if !is_readable {
                is_readable = self.sleep(node.next_tick(), &mut events)?;
            }
            if is_readable {
                is_readable = self.receive(&mut buffer, &mut node)?;
            }
            for event in self.place.queue.1.try_iter().take(MOST_EVENTS) {
                if !node.take(event) {
                    return Ok(());
                }
            }
        }
    }

    fn flush(&mut self) {
        for (to, datagram) in self.to.iter_mut().filter(|(_, datagram)| !datagram.is_empty()) {
            send(&self.socket, *to, datagram);
        }
    }

    /// Until there is something; whether it is in the socket.
    fn sleep(&mut self, until: Instant, events: &mut Events) -> io::Result<bool> {
        self.place.sleeps.store(true, Ordering::SeqCst);
        let wait = if self.place.queue.1.is_empty() {
            until.saturating_duration_since(Instant::now())
        } else {
            std::time::Duration::ZERO
        };
        let polled = self.poll.poll(events, Some(wait));
        self.place.sleeps.store(false, Ordering::SeqCst);
        match polled {
            Err(error) if error.kind() != ErrorKind::Interrupted => Err(error),
            _ => Ok(events.iter().any(|event| event.token() == SOCKET)),
        }
    }

    /// Whether there may be more.
    fn receive(&mut self, buffer: &mut [u8], node: &mut Node) -> io::Result<bool> {
        for _ in 0..MOST {
            match self.socket.recv(buffer) {
                Ok(length) => take_all(&Bytes::copy_from_slice(&buffer[..length]), node),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

/// What does not fit into the buffers is lost.
fn send(socket: &UdpSocket, to: SocketAddr, datagram: &mut Vec<u8>) {
    let _ = socket.send_to(datagram, to);
    datagram.clear();
}

/// The values stay in the bytes of their datagram.
fn take_all(datagram: &Bytes, node: &mut Node) {
    let mut messages = CodedInputStream::from_carllerche_bytes(datagram);
    while messages.eof().is_ok_and(|eof| !eof) {
        let mut message = Message::default();
        if messages.merge_message(&mut message).is_err() {
            return;
        }
        node.step(message);
    }
}
