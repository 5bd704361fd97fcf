//! openraft 0.10.0-alpha.37, the newest that is published.
//!
//! 0.10 rather than 0.9: it can be given a request together with who is to be answered, it
//! streams entries to a follower without waiting for each answer, and it appends what has
//! queued up as one batch. Set up as its own `benchmarks/minimal` is (`max_payload_entries`
//! and `purge_batch_size` of 1,024), and beyond that:
//!
//! - The client asks by `client_write_ff`, with a responder that is a oneshot channel: no
//!   task a request. It blocks for the oldest; to yield first, as Kontiki's client does, made
//!   it slower.
//! - All of a batch is applied, and then it is answered oldest last, so that a client is woken
//!   once and finds all the others answered (at 64 outstanding, twice as fast as in order).
//! - Entries go by `stream_append`, pipelined on both sides.
//! - In memory all nodes share one thread, apart from the client's (some 15 % faster at 1,024
//!   than a runtime of several threads); over TCP they have two.
//! - Its narration (`tracing`) is compiled out, as its README offers: 15 to 20 % faster.
//! - A snapshot every 10,000 entries, and as many are kept behind it. Followers are sent
//!   entries rather than a snapshot as long as the log has them.
//!
//! Without a difference that was seen: `broadcast_submitted_on_append`, one request after the
//! other by `stream_append_sequential` (in memory), a `max_payload_entries` of 4,096, another
//! `event_interval`, and link time optimization, with which its benchmark is built.
//!
//! The timers are those of `Config::default()`: heartbeats every 50 ms, elections after 150
//! to 300 ms, once the leader's lease has run out.

mod memory;
mod store;
mod tcp;

pub use self::memory::Memory;
pub use self::tcp::Tcp;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread;

use bytes::Bytes;
use futures_util::future::FutureExt;
use oneshot::Receiver;
use openraft::async_runtime::WatchReceiver;
use openraft::network::NetSnapshot;
use openraft::{Config, RaftNetworkFactory, SnapshotPolicy};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot::{Sender, channel};

use self::store::{Answer, Log, Machine, Snapshots, Types, Value};
use crate::cluster::{Cluster, KEPT_ENTRIES, Outcome};

pub type Raft = openraft::Raft<Types, Machine>;

/// How nodes reach each other.
pub trait Transport
where
    Self: RaftNetworkFactory<Types, Network: NetSnapshot<Types, SnapshotData = Bytes>>,
    Self: Clone + Send + Sync + 'static,
{
    const NAME: &'static str;

    /// What the nodes run on.
    fn runtime() -> Builder;

    fn open(nodes: usize) -> Outcome<Self>;

    /// From now on the others reach this node.
    fn up(&self, node: u64, raft: Raft, runtime: &Handle);

    /// From now on they do not.
    fn down(&self, node: u64);
}

pub struct Nodes<T> {
    config: Arc<Config>,
    transport: T,
    nodes: Vec<Node>,
    runtime: Arc<Runtime>,
    /// The thread that drives the runtime ends with it.
    _running: Sender<()>,
}

/// A node, and what it has on its disk, as it were.
struct Node {
    raft: Raft,
    log: Log,
    snapshots: Snapshots,
}

impl<T: Transport> Nodes<T> {
    fn run(&self, node: u64, log: Log, snapshots: Snapshots) -> Outcome<Node> {
        let machine = Machine::new(snapshots.clone());
        let network = self.transport.clone();
        let config = self.config.clone();
        let raft = Raft::new(node, config, network, log.clone(), machine);
        let raft = self.runtime.block_on(raft)?;
        self.transport.up(node, raft.clone(), self.runtime.handle());
        Ok(Node { raft, log, snapshots })
    }
}

impl<T: Transport> Cluster for Nodes<T> {
    const NAME: &'static str = T::NAME;
    const LONGEST: usize = 1 << 20;

    fn start(nodes: usize, compacts: bool) -> Outcome<Nodes<T>> {
        let runtime = Arc::new(T::runtime().enable_all().build()?);
        let (running, ended) = channel::<()>();
        let driver = runtime.clone();
        thread::Builder::new().name("runtime".to_string()).spawn(move || {
            // Until the cluster goes; nothing is ever sent.
            let _ = driver.block_on(ended);
        })?;
        let transport = T::open(nodes)?;
        let config = Config {
            max_payload_entries: 1_024,
            purge_batch_size: 1_024,
            snapshot_policy: if compacts {
                SnapshotPolicy::LogsSinceLast(KEPT_ENTRIES)
            } else {
                SnapshotPolicy::Never
            },
            max_in_snapshot_log_to_keep: KEPT_ENTRIES,
            replication_lag_threshold: 10 * KEPT_ENTRIES,
            ..Config::default()
        };
        let config = Arc::new(config.validate()?);
        let mut cluster =
            Nodes { config, transport, nodes: Vec::new(), runtime, _running: running };
        for node in 0..nodes as u64 {
            let started = cluster.run(node, Log::default(), Snapshots::default())?;
            cluster.nodes.push(started);
        }
        let all: BTreeSet<u64> = (0..nodes as u64).collect();
        cluster.runtime.block_on(cluster.nodes[0].raft.initialize(all))?;
        Ok(cluster)
    }

    fn len(&self) -> usize {
        self.nodes.len()
    }

    fn ask(&self, node: usize, value: Bytes) -> Receiver<()> {
        let (answer, ticket) = oneshot::channel();
        let raft = &self.nodes[node].raft;
        let asked = raft.client_write_ff(Value(value), Some(Answer(answer)));
        // Whoever is refused is hung up on.
        asked.now_or_never().expect("the queue is longer than all that is ever asked at once").ok();
        ticket
    }

    fn is_leader(&self, node: usize) -> bool {
        self.nodes[node].raft.is_leader()
    }

    fn applied(&self, node: usize) -> u64 {
        let metrics = self.nodes[node].raft.metrics();
        let applied = metrics.borrow_watched().last_applied;
        applied.map_or(0, |applied| applied.index)
    }

    fn kill(&mut self, node: usize) {
        self.transport.down(node as u64);
        self.runtime.block_on(self.nodes[node].raft.shutdown()).expect("it ends");
    }

    fn restart(&mut self, node: usize) {
        let Node { log, snapshots, .. } = &self.nodes[node];
        let restarted = self.run(node as u64, log.clone(), snapshots.clone());
        self.nodes[node] = restarted.expect("it starts as it did");
    }
}
