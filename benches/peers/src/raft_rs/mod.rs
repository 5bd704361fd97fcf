//! raft-rs: the `raft` crate of TiKV, 0.7, the newest that is published.
//!
//! It is the protocol alone; what drives it here is written as its documentation and its
//! example `five_mem_node` have it, and as far as it goes for speed, as TiKV does:
//!
//! - Each node is one thread. A turn of it takes all messages that have come and all that
//!   clients have proposed, and only then asks for what is `ready`.
//! - All proposals of a turn are one `MsgPropose` of many entries, so that one message goes
//!   to each follower. `batch_append` joins messages of a turn too; over UDP it is off, for
//!   it heeds no limit of bytes, and a datagram has one.
//! - A leader sends before it writes; what `advance` then yields, the `LightReady`, is sent
//!   and applied in the same turn. The asynchronous `ready` is for logs that take time to
//!   write: this one is in memory, and is written when `append` returns.
//! - `skip_bcast_commit` is off, as by default: followers learn at once what is committed.
//!   `max_inflight_msgs` is its default of 256 for channels, and 32 for UDP, which keeps what
//!   is on its way below a socket's buffer (8 and 256 were no faster).
//! - The codec is rust-protobuf, its default: with it an entry's data are `Bytes`, so that
//!   the log, each message and, over UDP, the datagram that came share them.
//! - It is answered oldest last, once a turn is over: the client waits for the oldest, and
//!   is woken once. It blocks; to yield first, as Kontiki's client does, made it slower.
//!
//! Time is what both of its examples have: `heartbeat_tick` 3 and `election_tick` 10, of
//! 100 ms each, so that an election begins after 1 to 2 s. Logs are shortened to 10,000
//! entries whenever they have twice as many, by the application as it is with raft-rs.

mod channels;
mod log;
mod node;
mod udp;

pub use self::channels::Channels;
pub use self::udp::Udp;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use oneshot::Receiver;
use raft::Config;

use self::log::Log;
use self::node::{Event, Node, Said};
use crate::cluster::{Cluster, Outcome};

/// How nodes reach each other, and are reached.
pub trait Transport: Sized + Send + Sync {
    const NAME: &'static str;
    const LONGEST: usize;
    /// Of entries in one message.
    const MOST_BYTES: u64;
    /// Messages with entries to one follower.
    const MOST_IN_FLIGHT: usize;

    fn open(nodes: usize) -> Outcome<Self>;

    fn give(&self, node: usize, event: Event);

    /// Starts the thread of a node.
    fn run(&self, node: usize, new: impl FnOnce() -> Node + Send + 'static) -> Outcome<()>;
}

pub struct Nodes<T: Transport> {
    transport: T,
    said: Vec<Arc<Said>>,
}

impl<T: Transport> Cluster for Nodes<T> {
    const NAME: &'static str = T::NAME;
    const LONGEST: usize = T::LONGEST;

    fn start(nodes: usize, compacts: bool) -> Outcome<Nodes<T>> {
        let transport = T::open(nodes)?;
        let said: Vec<Arc<Said>> = (0..nodes).map(|_| Arc::default()).collect();
        for (node, said) in said.iter().enumerate() {
            let config = Config {
                id: node as u64 + 1,
                election_tick: 10,
                heartbeat_tick: 3,
                max_size_per_msg: T::MOST_BYTES,
                max_inflight_msgs: T::MOST_IN_FLIGHT,
                batch_append: T::MOST_BYTES == raft::NO_LIMIT,
                ..Config::default()
            };
            config.validate()?;
            let said = said.clone();
            let log = move || Log::new((1..=nodes as u64).collect(), compacts);
            transport.run(node, move || Node::new(config, log(), said))?;
        }
        Ok(Nodes { transport, said })
    }

    fn len(&self) -> usize {
        self.said.len()
    }

    fn ask(&self, node: usize, value: Bytes) -> Receiver<()> {
        let (answer, ticket) = oneshot::channel();
        self.transport.give(node, Event::Propose(value, answer));
        ticket
    }

    fn is_leader(&self, node: usize) -> bool {
        self.said[node].leads.load(Ordering::Acquire)
    }

    fn applied(&self, node: usize) -> u64 {
        self.said[node].applied.load(Ordering::Acquire)
    }

    fn kill(&mut self, node: usize) {
        self.transport.give(node, Event::Kill);
    }

    fn restart(&mut self, node: usize) {
        self.transport.give(node, Event::Restart);
    }
}

impl<T: Transport> Drop for Nodes<T> {
    fn drop(&mut self) {
        for node in 0..self.said.len() {
            self.transport.give(node, Event::End);
        }
    }
}
