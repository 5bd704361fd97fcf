//! What a world is made of, and what its network does.

use super::super::lives::Neighbor;
use super::super::message::Envelope;

/// A millisecond, in the microseconds that the core counts in.
pub const MS: u64 = 1_000;

/// What a world is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    pub voters: usize,
    pub learners: usize,
    /// Nodes that stand in no file but their own, which names all.
    pub spares: usize,
    pub by_majority: bool,
    pub append_bytes: usize,
    /// So much of the log is kept behind a snapshot.
    pub tail_entries: u64,
    /// Whether nodes judge who is up, and after how long.
    pub failure_timeout: Option<u64>,
    pub seed: u64,
}

impl Plan {
    pub fn voters(voters: usize) -> Plan {
        Plan {
            voters,
            learners: 0,
            spares: 0,
            by_majority: false,
            append_bytes: 1_000,
            tail_entries: 0,
            failure_timeout: None,
            seed: 1,
        }
    }

    pub fn seed(self, seed: u64) -> Plan {
        Plan { seed, ..self }
    }

    pub fn learners(self, learners: usize) -> Plan {
        Plan { learners, ..self }
    }

    pub fn spares(self, spares: usize) -> Plan {
        Plan { spares, ..self }
    }

    /// With verdicts, as by default.
    pub fn judging(self) -> Plan {
        Plan { failure_timeout: Some(200 * MS), ..self }
    }

    /// How many nodes the file of the first ones names.
    pub fn in_file(&self) -> usize {
        self.voters + self.learners
    }
}

/// All that the network does to an envelope. Times are in microseconds.
#[derive(Clone, Debug)]
pub struct Faults {
    pub latency: (u64, u64),
    pub lost_percent: u64,
    pub repeated_percent: u64,
    /// So many of a hundred are late by up to `late`.
    pub late_percent: u64,
    pub late: u64,
    pub write: (u64, u64),
    /// Nodes look at what has come after so long at most; 0: each thing when it comes.
    pub busy: u64,
}

impl Faults {
    pub const NONE: Faults = Faults {
        latency: (MS, MS),
        lost_percent: 0,
        repeated_percent: 0,
        late_percent: 0,
        late: 0,
        write: (0, 0),
        busy: 0,
    };
}

/// An envelope under way.
#[derive(Clone, Debug)]
pub struct Flight {
    pub from: usize,
    pub to: usize,
    pub envelope: Envelope,
}

/// Nodes are called a, b, c, ...
pub fn name(place: usize) -> String {
    char::from(b'a' + place as u8).to_string()
}

/// A line of the file: the first are voters.
pub fn neighbor(place: usize, voters: usize) -> Neighbor {
    let address = ([127, 0, 0, 1], 1 + place as u16).into();
    Neighbor { name: name(place), address, voter: place < voters }
}
