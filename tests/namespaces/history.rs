//! What the clients asked, when, and what came of it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kontiki::sim::linear::{Call, CellAnswer, CellOperation, check_cells};

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Writes this value, which nobody else ever writes.
    Write(u64),
    /// Reads.
    Read,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// No answer came so far; if the node died, none ever will.
    Open,
    /// It was done at some time before this one. A read found this value, or none yet.
    Done { at: u64, value: Option<u64> },
    /// It was refused, so it has certainly changed nothing.
    Refused,
    /// It may have been done, or be done later.
    Unknown,
}

/// One request of a client.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Who asked. A client has one request after another.
    pub client: usize,
    /// At which node.
    pub node: usize,
    pub asked: Asked,
    /// How long the value is beyond its number, in bytes.
    pub long: usize,
    /// When, in microseconds. It was certainly not done before.
    pub called: u64,
    pub ending: Ending,
}

/// All requests, in the order in which they were asked.
pub struct History {
    began: Instant,
    requests: Mutex<Vec<Request>>,
}

impl History {
    pub fn new() -> History {
        History { began: Instant::now(), requests: Mutex::default() }
    }

    /// Microseconds since the beginning.
    pub fn now(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    /// A client is about to ask; the number of its request. `write` says whether it writes.
    pub fn call(&self, client: usize, node: usize, write: bool, long: usize) -> (usize, Asked) {
        let mut requests = self.requests();
        let number = requests.len();
        let asked = if write { Asked::Write(number as u64) } else { Asked::Read };
        // Taken while nobody else can: so the requests are in the order of their times.
        let called = self.now();
        requests.push(Request { client, node, asked, long, called, ending: Ending::Open });
        (number, asked)
    }

    pub fn end(&self, number: usize, ending: Ending) {
        self.requests()[number].ending = ending;
    }

    /// All requests so far.
    pub fn all(&self) -> Vec<Request> {
        self.requests().clone()
    }

    /// When a node first answered a write, or a read, that was asked at `since` or later.
    pub fn first_done(&self, node: usize, write: bool, since: u64) -> Option<u64> {
        let asked_since = self.since(node, write, since);
        let done = asked_since.into_iter().filter_map(|request| match request.ending {
            Ending::Done { at, .. } => Some(at),
            _ => None,
        });
        done.min()
    }

    /// What a node was asked at `since` or later, writes or reads.
    pub fn since(&self, node: usize, write: bool, since: u64) -> Vec<Request> {
        let requests = self.requests();
        let from = requests.partition_point(|request| request.called < since);
        let of = |request: &&Request| {
            request.node == node && matches!(request.asked, Asked::Write(_)) == write
        };
        requests[from..].iter().filter(of).copied().collect()
    }

    fn requests(&self) -> MutexGuard<'_, Vec<Request>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether one order explains all that was seen; if none does, a report for a person.
/// Without a state machine of its own a cluster is one cell: the newest committed value.
pub fn check(requests: &[Request]) -> Result<(), String> {
    let call = |request: &Request| {
        let operation = match request.asked {
            Asked::Write(value) => CellOperation::Write(value),
            Asked::Read => CellOperation::Read,
        };
        let answered = match (request.ending, request.asked) {
            (Ending::Refused, _) => return None,
            (Ending::Open | Ending::Unknown, _) => None,
            (Ending::Done { at, .. }, Asked::Write(_)) => Some((at, CellAnswer::Done)),
            (Ending::Done { at, value }, Asked::Read) => Some((at, CellAnswer::Value(value))),
        };
        let Request { client, called, .. } = *request;
        Some(("the newest value".to_string(), Call { client, operation, called, answered }))
    };
    check_cells(requests.iter().filter_map(call))
}

/// Microseconds as a duration, for a person.
pub fn us(us: u64) -> Duration {
    Duration::from_micros(us)
}
