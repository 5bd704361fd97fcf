//! One simulated node: a real engine, and a stand-in for all that the driver puts
//! around it: a clock, a socket's buffer, a disk, the thread of a state machine.

use std::collections::VecDeque;

use crate::core::snapshot::Snapshot;
use crate::core::types::{Incarnation, Time, WriteNumber};
use crate::core::{Record, Saved};
use crate::engine::{Done, Engine, Job, perform};
use crate::replica::Replica;
use crate::request::Kind;

use super::clock::Clock;

/// A socket's buffer holds so many bytes; what comes beyond is lost.
const SOCKET_BYTES: usize = 4 << 20;

/// Something that waits for the node's next turn.
pub(super) enum Input {
    Datagram(Vec<u8>),
    Request(u64, Kind),
    Written(WriteNumber),
    Saved,
    Done(Box<Done>),
}

/// The state machine's thread.
pub(super) struct MachineThread {
    pub(super) replica: Replica,
    pub(super) job: Option<Job>,
}

impl MachineThread {
    /// Does what it was given.
    pub(super) fn work(&mut self) -> Option<Done> {
        Some(perform(&mut self.replica, self.job.take()?))
    }
}

/// What lives from a start to a stop or a crash.
pub(super) struct Running {
    pub(super) engine: Engine<u64>,
    pub(super) machine: Option<MachineThread>,
    pub(super) clock: Clock,
    waiting: VecDeque<Input>,
    waiting_bytes: usize,
    /// Until then it takes no turn.
    pub(super) away_until: u64,
    /// Its next turn, by the world's time.
    pub(super) turn_at: u64,
    /// Writes under way, each with when it is done.
    pub(super) writes: VecDeque<(u64, Record)>,
    /// A snapshot on its way to the disk.
    pub(super) saving: Option<Snapshot>,
    /// Until then no write is done.
    pub(super) hangs_until: u64,
    /// It dies in the middle of its next turn.
    pub(super) doomed: bool,
}

impl Running {
    pub(super) fn new(
        engine: Engine<u64>,
        machine: Option<MachineThread>,
        clock: Clock,
        now: u64,
    ) -> Running {
        Running {
            engine,
            machine,
            clock,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            away_until: now,
            turn_at: now,
            writes: VecDeque::new(),
            saving: None,
            hangs_until: now,
            doomed: false,
        }
    }

    /// Something comes. False: it is a datagram, and there is no room for it.
    pub(super) fn put(&mut self, input: Input, now: u64) -> bool {
        if let Input::Datagram(bytes) = &input {
            if self.waiting_bytes + bytes.len() > SOCKET_BYTES {
                return false;
            }
            self.waiting_bytes += bytes.len();
        }
        self.waiting.push_back(input);
        self.turn_at = self.turn_at.min(now.max(self.away_until));
        true
    }

    /// One turn, as the driver takes it: all that waits goes in, what is due is
    /// done. The flush is the caller's. Says what time the node takes it for.
    pub(super) fn turn(&mut self, now: u64) -> Time {
        let time = self.clock.shows(now);
        self.waiting_bytes = 0;
        for input in self.waiting.drain(..) {
            match input {
                Input::Datagram(mut bytes) => self.engine.datagram(&mut bytes, time),
                Input::Request(ticket, kind) => self.engine.request(ticket, kind, time),
                Input::Written(number) => self.engine.written(number, time),
                Input::Saved => self.engine.saved(time),
                Input::Done(done) => self.engine.done(*done),
            }
        }
        if time >= self.engine.deadline() {
            self.engine.tick(time);
        }
        time
    }

    /// The next turn, after this one; the node is away for so long.
    pub(super) fn rest(&mut self, now: u64, away: u64) {
        self.away_until = self.away_until.max(now + away);
        // What came while it stood still waits for no deadline: it may have none.
        let waits = !self.waiting.is_empty();
        let due = if waits { now } else { self.clock.when(self.engine.deadline()) };
        self.turn_at = due.max(self.away_until).max(now + 1);
    }

    /// It stands still.
    pub(super) fn pause(&mut self, until: u64) {
        self.away_until = self.away_until.max(until);
        self.turn_at = self.turn_at.max(self.away_until);
    }

    /// The requests that it was given and never looked at.
    pub(super) fn unread_requests(&self) -> impl Iterator<Item = u64> {
        self.waiting.iter().filter_map(|input| match input {
            Input::Request(ticket, _) => Some(*ticket),
            _ => None,
        })
    }
}

/// A node, running or not.
pub(super) struct Node {
    pub(super) name: String,
    pub(super) incarnation: Incarnation,
    /// How often it was started: what was meant for an earlier run is void.
    pub(super) starts: u64,
    pub(super) running: Option<Running>,
    /// What a stopped node without a disk remembers.
    pub(super) remembers: Option<Saved>,
    /// How long it waits for its turn at most, in microseconds, beside what all do.
    pub(super) busy: u64,
    /// The rate of its clock, in millionths.
    pub(super) rate: u64,
}
