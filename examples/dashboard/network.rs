//! The network between the nodes: it delays each datagram, loses some, and cuts links.
//!
//! ```text
//!   node a ──► entrance of b ──► a queue, in order ──► the same entrance ──► node b
//! ```
//!
//! The cluster's file has the entrances' addresses, and each node listens behind its own
//! (`Config::listen_at`). Where a datagram comes from says whose it is.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::kind::{self, Kind};

/// What became of a datagram when it set out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    Sent,
    Lost,
    Cut,
}

/// A datagram, as the page hears of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flight {
    pub from: usize,
    pub to: usize,
    pub kind: Kind,
    pub fate: Fate,
}

/// One of these for the whole program.
pub struct Network {
    shared: Arc<Shared>,
}

struct Shared {
    delay: Duration,
    /// Where the nodes listen.
    nodes: Vec<SocketAddr>,
    /// Where they are spoken to.
    entrances: Vec<UdpSocket>,
    /// Of each pair of nodes, whether its link is cut.
    cuts: Vec<AtomicBool>,
    loss_percent: AtomicU32,
}

/// A datagram on its way.
struct Late {
    due: Instant,
    from: usize,
    to: usize,
    bytes: Vec<u8>,
}

/// More than these on their way, or unseen by the page, are lost.
const QUEUE: usize = 16_384;

impl Network {
    /// A network between so many nodes, and all that sets out in it.
    pub fn start(count: usize, delay: Duration) -> io::Result<(Network, Receiver<Flight>)> {
        let any = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
        let entrances = (0..count).map(|_| any()).collect::<io::Result<Vec<_>>>()?;
        // Ports that were free a moment ago: all are held until the last is drawn.
        let held = (0..count).map(|_| any()).collect::<io::Result<Vec<_>>>()?;
        let nodes = held.iter().map(UdpSocket::local_addr).collect::<io::Result<_>>()?;
        drop(held);
        let cuts = (0..count * count).map(|_| AtomicBool::new(false)).collect();
        let loss_percent = AtomicU32::new(0);
        let shared = Arc::new(Shared { delay, nodes, entrances, cuts, loss_percent });
        let ((queue, late), (tell, flights)) = (bounded(QUEUE), bounded(QUEUE));
        for to in 0..count {
            let (shared, queue, tell) = (Arc::clone(&shared), queue.clone(), tell.clone());
            thread::spawn(move || shared.take(to, &queue, &tell));
        }
        let theirs = Arc::clone(&shared);
        thread::spawn(move || theirs.deliver(&late));
        Ok((Network { shared }, flights))
    }

    /// Where this node listens.
    pub fn node(&self, node: usize) -> SocketAddr {
        self.shared.nodes[node]
    }

    /// By which address the others know it.
    pub fn entrance(&self, node: usize) -> io::Result<SocketAddr> {
        self.shared.entrances[node].local_addr()
    }

    /// Cuts the link between two nodes, both ways, or mends it.
    pub fn cut(&self, one: usize, other: usize, cut: bool) {
        for (from, to) in [(one, other), (other, one)] {
            self.shared.link(from, to).store(cut, Ordering::Relaxed);
        }
    }

    pub fn is_cut(&self, one: usize, other: usize) -> bool {
        self.shared.link(one, other).load(Ordering::Relaxed)
    }

    /// So many of a hundred are lost from now on.
    pub fn lose(&self, percent: u32) {
        self.shared.loss_percent.store(percent, Ordering::Relaxed);
    }

    pub fn loss_percent(&self) -> u32 {
        self.shared.loss_percent.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn link(&self, from: usize, to: usize) -> &AtomicBool {
        &self.cuts[from * self.nodes.len() + to]
    }

    /// Takes what comes to this node's entrance.
    fn take(&self, to: usize, queue: &Sender<Late>, tell: &Sender<Flight>) {
        let mut buffer = vec![0; 65_536];
        loop {
            // An error tells of a datagram that nobody took: its node is stopped.
            let Ok((length, source)) = self.entrances[to].recv_from(&mut buffer) else { continue };
            let Some(from) = self.nodes.iter().position(|node| *node == source) else { continue };
            let bytes = buffer[..length].to_vec();
            let fate = self.fate(from, to);
            let _ = tell.try_send(Flight { from, to, kind: kind::of(&bytes), fate });
            if fate == Fate::Sent {
                let due = Instant::now() + self.delay;
                let _ = queue.try_send(Late { due, from, to, bytes });
            }
        }
    }

    fn fate(&self, from: usize, to: usize) -> Fate {
        let percent = self.loss_percent.load(Ordering::Relaxed);
        let chance = if percent > 0 { getrandom::u32().unwrap_or(0) % 100 } else { 100 };
        match self.link(from, to).load(Ordering::Relaxed) {
            true => Fate::Cut,
            false if chance < percent => Fate::Lost,
            false => Fate::Sent,
        }
    }

    /// All are delayed for as long, so they come out in the order in which they went in.
    fn deliver(&self, late: &Receiver<Late>) {
        for Late { due, from, to, bytes } in late {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            // A cut holds what is on its way, too.
            if !self.link(from, to).load(Ordering::Relaxed) {
                let _ = self.entrances[to].send_to(&bytes, self.nodes[to]);
            }
        }
    }
}
