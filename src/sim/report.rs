//! How a simulation ends.

use std::fmt;
use std::time::Duration;

use crate::core::properties::Broken;

/// A run in which everything held. See the head of [`sim`](crate::sim) for an example.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// How many turns of nodes there were; every property was checked after each.
    pub steps: u64,
    /// How many faults: datagrams lost, repeated, late or damaged, and what the
    /// adversary did.
    pub faults: u64,
    /// How many requests clients made.
    pub requests: u64,
    /// How many of them were answered: with a reply, or that there is none to find.
    pub answered: u64,
    /// How many ended as unknown, or with a node that died.
    pub unknown: u64,
    /// How many entries were committed.
    pub committed: u64,
    /// How many terms had a leader.
    pub leaders: u64,
    /// How often the members were changed, by request or because one came back without
    /// its memory.
    pub changes: u64,
    /// Whether the cluster stopped in the end, as it must where a majority of its voters
    /// lost its memory.
    pub stopped: bool,
    /// How long the run was, in virtual time.
    pub lasted: Duration,
    /// How long after the end of the faults it took until all nodes agreed and every
    /// request had ended, in virtual time.
    pub healed_in: Duration,
    /// A digest of all that happened: equal for equal runs.
    pub digest: u64,
}

/// A run in which something that must always be true was not. Its text says which, in which
/// seed, and what was seen. See the head of [`sim`](crate::sim) for an example.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Violation {
    /// The seed that shows it again.
    pub seed: u64,
    /// When, in virtual time.
    pub at: Duration,
    /// The node whose step showed it, if it was one node's.
    pub node: Option<String>,
    /// The property, by name.
    pub property: &'static str,
    /// Where the property is stated.
    pub source: &'static str,
    /// What was seen.
    pub what: String,
}

impl Violation {
    pub(super) fn new(seed: u64, now: u64, node: Option<String>, broken: &Broken) -> Violation {
        Violation {
            seed,
            at: Duration::from_micros(now),
            node,
            property: broken.property.name,
            source: broken.property.source,
            what: broken.what.clone(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}, at {:.6} s", self.seed, self.at.as_secs_f64())?;
        self.node.iter().try_for_each(|node| write!(f, ", {node}"))?;
        write!(f, ": {} ({}) does not hold: {}", self.property, self.source, self.what)
    }
}

impl std::error::Error for Violation {}
