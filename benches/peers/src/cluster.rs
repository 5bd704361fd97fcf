//! What every peer can do, and a client of it.

use std::error::Error;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use oneshot::{Receiver, RecvError, TryRecvError};

use crate::measure::{Client, look_then};

pub type Outcome<T> = Result<T, Box<dyn Error>>;

/// So many entries behind a snapshot stay in a log, and after as many more they go.
pub const KEPT_ENTRIES: u64 = 10_000;

const PATIENCE: Duration = Duration::from_secs(60);

/// Nodes of one kind, all in this process, numbered from 0.
pub trait Cluster: Sized + Sync {
    const NAME: &'static str;
    /// The longest value that it takes.
    const LONGEST: usize;

    fn start(nodes: usize, compacts: bool) -> Outcome<Self>;

    fn len(&self) -> usize;

    /// Asks one node to commit a value. Answered when it is committed and applied there;
    /// hung up when it is refused.
    fn ask(&self, node: usize, value: Bytes) -> Receiver<()>;

    fn is_leader(&self, node: usize) -> bool;

    /// The last index that a node has applied.
    fn applied(&self, node: usize) -> u64;

    /// Stops a node, which then neither answers nor handles messages.
    fn kill(&mut self, node: usize);

    /// Starts a node again, with the log that it had.
    fn restart(&mut self, node: usize);

    /// As `start`, and the first entry is committed.
    fn begin(nodes: usize, compacts: bool) -> Outcome<Self> {
        let cluster = Self::start(nodes, compacts)?;
        until("nothing is committed", || cluster.ask(cluster.leader(), value(1)).recv().ok());
        Ok(cluster)
    }

    /// Waits until a node leads.
    fn leader(&self) -> usize {
        until("there is no leader", || (0..self.len()).find(|&node| self.is_leader(node)))
    }

    /// Waits until every node has applied so much.
    fn all_have(&self, index: u64) {
        until("a node does not catch up", || {
            (0..self.len()).all(|node| self.applied(node) >= index).then_some(())
        });
    }
}

fn until<T>(otherwise: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        match found() {
            Some(found) => return found,
            None => assert!(since.elapsed() < PATIENCE, "{otherwise}"),
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// How a client waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Way {
    /// Parks at once.
    Parks,
    /// As who waits for kontiki or the floor: looks for a while before it parks.
    Looks,
}

/// A client beside the leader. If the leader changes, it asks the new one again.
pub struct Asking<'a, C> {
    cluster: &'a C,
    leader: usize,
    size: usize,
    way: Way,
    /// When it last said that it was refused.
    complained: Option<Instant>,
}

impl<'a, C: Cluster> Asking<'a, C> {
    pub fn new(cluster: &'a C, size: usize, way: Way) -> Asking<'a, C> {
        Asking { cluster, leader: cluster.leader(), size, way, complained: None }
    }

    fn answer(&self, ticket: Receiver<()>) -> Result<(), RecvError> {
        match self.way {
            Way::Parks => ticket.recv(),
            Way::Looks => look_then(
                || match ticket.try_recv() {
                    Ok(()) => Some(Ok(())),
                    Err(TryRecvError::Empty) => None,
                    Err(TryRecvError::Disconnected) => Some(Err(RecvError)),
                },
                || ticket.recv_ref(),
            ),
        }
    }

    fn again(&mut self) -> Receiver<()> {
        let leader = self.cluster.leader();
        // Whoever measures has to know, but once is enough for all that was outstanding.
        if self.complained.is_none_or(|last| last.elapsed() > Duration::from_secs(1)) {
            eprintln!("peers: refused by node {}, and now node {leader} leads", self.leader);
            self.complained = Some(Instant::now());
        }
        self.leader = leader;
        self.send()
    }
}

impl<C: Cluster> Client for Asking<'_, C> {
    type Ticket = Receiver<()>;

    fn send(&mut self) -> Receiver<()> {
        self.cluster.ask(self.leader, value(self.size))
    }

    fn wait(&mut self, mut ticket: Receiver<()>) {
        while self.answer(ticket).is_err() {
            ticket = self.again();
        }
    }

    fn is_done(&mut self, ticket: &mut Receiver<()>) -> bool {
        match ticket.try_recv() {
            Ok(()) => true,
            Err(TryRecvError::Empty) => false,
            Err(TryRecvError::Disconnected) => {
                *ticket = self.again();
                false
            }
        }
    }
}

pub fn value(size: usize) -> Bytes {
    Bytes::from(vec![b'x'; size])
}
