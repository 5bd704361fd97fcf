//! The newtypes that the protocol speaks in, and one entry of the log.

use std::fmt;

use bytes::Bytes;

use super::membership::Membership;

macro_rules! number {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);
    };
}

number!(
    /// A period with at most one leader (Raft §5.1). 0 is before the first election.
    Term
);
number!(
    /// A position in the log. The log starts at 1; 0 means before the first entry.
    Index
);
number!(
    /// Microseconds on a clock that never goes back, from an origin of the node's own.
    Time
);
number!(
    /// A random number that names one log (`lives`). Never 0.
    Incarnation
);
number!(
    /// A random number drawn at each start of a node. Never 0.
    Run
);
number!(
    /// A random number that names one cluster, drawn when it is founded. Never 0.
    ClusterId
);
number!(
    /// The number of a write to the log; writes complete in this order.
    WriteNumber
);

impl Index {
    /// The position after this one.
    pub fn next(self) -> Index {
        Index(self.0.saturating_add(1))
    }

    /// The position before this one; 0 stays 0.
    pub fn previous(self) -> Index {
        Index(self.0.saturating_sub(1))
    }
}

impl Term {
    /// The term after this one.
    pub fn next(self) -> Term {
        Term(self.0.saturating_add(1))
    }
}

impl Time {
    /// This time and so many microseconds.
    pub fn plus(self, micros: u64) -> Time {
        Time(self.0.saturating_add(micros))
    }

    /// Microseconds from `earlier` to this time; 0 if it lies ahead.
    pub fn since(self, earlier: Time) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Who speaks: a log, and the run in which it is carried on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Life {
    /// The log.
    pub incarnation: Incarnation,
    /// The start since which it is carried on.
    pub run: Run,
}

/// One entry of the log. Its index is its place.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The term of the leader that appended it; 0 for the founding record.
    pub term: Term,
    /// What it says.
    pub payload: Payload,
}

/// What an entry says. The protocol's own is apart, so that both are no longer than the
/// bytes alone: a log is many of these.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Payload {
    /// A client's operation; the core carries it and does not look inside.
    Client(Bytes),
    /// What the protocol has to say.
    Protocol(Protocol),
}

// A longer one would cost a log of ten thousand entries as many times the difference.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Entry>() <= 40);

/// What the protocol itself writes into the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Nothing: the entry with which a leader starts its term (Raft §8).
    Empty,
    /// The members from here on (Raft §6, thesis §4.1).
    Members(Box<Membership>),
    /// A member is up, or down (`verdicts`). A leader may start its term with the one
    /// that says that it is up itself.
    Verdict(Verdict),
}

/// What a leader says of one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Verdict {
    /// The life that is meant.
    pub life: Life,
    /// Whether it is up.
    pub up: bool,
    /// How often it went down soon after it had come up.
    pub relapses: u8,
}

impl Entry {
    /// About how many bytes the entry takes in a datagram and in memory: its
    /// payload and a few for what stands around it.
    pub fn size_bytes(&self) -> usize {
        match &self.payload {
            Payload::Protocol(Protocol::Empty) => 8,
            Payload::Protocol(Protocol::Members(members)) => 32 + members.members.len() * 64,
            Payload::Client(bytes) => bytes.len() + 16,
            Payload::Protocol(Protocol::Verdict(_)) => 32,
        }
    }
}
