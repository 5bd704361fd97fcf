//! What a simulated world is made of.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use serde_json::Value;

use crate::core::lives::Neighbor;
use crate::machine::StateMachine;
use crate::secret::Secrets;

use super::Chance;

/// Makes the state machine of a node.
pub(super) type MakeMachine = Arc<dyn Fn(&str) -> Box<dyn StateMachine>>;
/// Says what a client asks next.
pub(super) type MakeValue = Arc<dyn Fn(&mut Chance) -> Value>;

/// What clients do.
#[derive(Clone)]
pub(super) enum Load {
    /// Without a state machine: the newest value is written and read.
    Newest,
    /// Cells of a key-value store, with ids, swaps and lookups.
    Cells,
    /// What a user's program does to a state machine of its own.
    Own { machine: MakeMachine, commands: MakeValue, queries: Option<MakeValue> },
}

/// What a world is made of, all of it decided before it begins.
#[derive(Clone)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) voters: usize,
    pub(super) learners: usize,
    /// Nodes that the file of the others does not name: they wait until somebody asks
    /// that they become members.
    pub(super) spares: usize,
    /// Whether one more than a minority of the voters may lose its memory, once.
    pub(super) beyond: bool,
    /// Whether nodes have disks, or keep everything in memory.
    pub(super) disks: bool,
    /// Whether the nodes are on one machine: datagrams of 60,000 bytes, else 1,400.
    pub(super) loopback: bool,
    /// Whether datagrams are sealed; then the secret is changed all the time.
    pub(super) sealed: bool,
    /// How long the faults go on, in microseconds.
    pub(super) storm: u64,
    /// Whether the cluster is founded before the faults begin.
    pub(super) calm_start: bool,
    pub(super) request_timeout: u64,
    /// A snapshot is taken after so many entries.
    pub(super) snapshot_every: u64,
    pub(super) clients: usize,
    /// How long a client waits between two requests, at most.
    pub(super) think: u64,
    pub(super) load: Load,
}

impl Plan {
    /// How many nodes there are.
    pub(super) fn size(&self) -> usize {
        self.voters + self.learners + self.spares
    }

    /// The other nodes of the file that a node is started with: that of a spare names all,
    /// and so do all when the cluster has `grown`.
    pub(super) fn file_of(&self, place: usize, grown: bool) -> impl Iterator<Item = Neighbor> {
        let first = self.voters + self.learners;
        let named = if place < first && !grown { first } else { self.size() };
        (0..named).filter(move |other| *other != place).map(|other| self.neighbor(other))
    }

    /// By what a node seals after so many starts: each time by the other of two secrets, as
    /// if these were being changed.
    pub(super) fn secrets(&self, starts: u64) -> Option<Secrets> {
        let texts = ["01".repeat(31) + "00", "02".repeat(31) + "00"];
        let first = (starts % 2) as usize;
        let order = [first, 1 - first].map(|place| texts[place].as_str());
        self.sealed.then(|| Secrets::parse(order).expect("two secrets"))
    }

    /// A line of the file: the first are voters, and so are spares.
    pub(super) fn neighbor(&self, place: usize) -> Neighbor {
        let ip = match self.loopback {
            true => Ipv4Addr::LOCALHOST,
            false => Ipv4Addr::new(10, 0, 0, 1 + place as u8),
        };
        let address = SocketAddr::from((ip, 7000 + place as u16));
        let learner = (self.voters..self.voters + self.learners).contains(&place);
        Neighbor { name: format!("node{place}"), address, voter: !learner }
    }

    /// The place of the node with that address.
    pub(super) fn place_of(&self, address: SocketAddr) -> usize {
        usize::from(address.port() - 7000)
    }
}
