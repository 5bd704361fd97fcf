//! The requests of this node's own program, from the call to the answer.
//!
//! ```text
//!            session open, leader known         seen in the own log
//!   Queued ─────────────────────────────► Sent ───────────────────► Logged ──► applied: answer
//!      ▲                                   │                          │
//!      └───────── leader changed, or ──────┴── removed from the log ──┘
//!                 no sign for a while
//! ```
//!
//! No reply travels: a node answers its own requests when it applies them. So an
//! answer cannot be lost, and who reads after it here reads what was written. That
//! a request has arrived shows in the log that the leader sends anyway; until it
//! does, it is sent again. The replicated session applies each sequence number
//! once, however often it was sent (`replica`).
//!
//! Every request ends: with its reply; with `Unknown`, if it was ever sent and
//! meets its deadline, an expired session or `stop`; else with a refusal.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::core::Core;
use crate::core::message::Propose;
use crate::core::types::{Index, Life, Payload, Time};
use crate::error::RequestError;
use crate::operation;
use crate::replica::{Outcome, SESSION_WINDOW};
use crate::request::{Answer, Draft};

use super::reads::Reads;

/// A node sends at most so many operations in one message.
const BATCH_OPERATIONS: usize = 4096;
/// For each byte of a command its arrival is awaited so many microseconds longer.
const PATIENCE_A_BYTE: u64 = 3;
/// A session is renewed when it was not touched for half of what it lives.
const RENEW_AFTER: u64 = crate::replica::SESSION_SPAN / 2;

/// Where a command stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Queued,
    Sent(Time),
    Logged(Index),
}

/// What a command is sent as.
#[derive(Debug)]
enum Body {
    /// As it came: it was never sent.
    Unsent { draft: Draft, id: Option<String> },
    /// As it was sent, and is sent again: the leader knows it by its bytes.
    Ready(Bytes),
}

#[derive(Debug)]
struct Command<T> {
    ticket: T,
    body: Body,
    deadline: Time,
    place: Place,
    /// How often it was sent: what never was cannot have been committed.
    attempts: u32,
    /// How often it was sent to the present leader: the wait doubles with each.
    tries: u32,
}

/// The session in which this run's commands are numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Session {
    None,
    Opening { sent_at: Option<Time> },
    Open { id: Index },
}

/// This node's requests that have not ended yet.
#[derive(Debug)]
pub(crate) struct Clients<T> {
    own: Life,
    timeout: u64,
    patience: u64,
    session: Session,
    /// Commands by sequence number, the first being `base`; `None` has ended.
    commands: VecDeque<Option<Command<T>>>,
    base: u64,
    /// Nothing below this sequence number is `Queued`.
    queued_from: u64,
    /// When the `Sent` are looked through.
    retry_at: Time,
    /// How often a session was asked for.
    opened: u32,
    renewed_at: Option<Time>,
    highest_logged: Index,
    /// The session is asked to take note of the floor, and of being in use.
    renew: bool,
    pub(crate) reads: Reads<T>,
    answers: Vec<(T, Answer)>,
}

impl<T> Clients<T> {
    /// No requests yet; each will end within `timeout`, and what shows no sign for
    /// `patience` is sent again (both in microseconds).
    pub(crate) fn new(own: Life, timeout: u64, patience: u64) -> Clients<T> {
        Clients {
            own,
            timeout,
            patience,
            session: Session::None,
            commands: VecDeque::new(),
            base: 1,
            queued_from: 1,
            retry_at: Time(u64::MAX),
            opened: 0,
            renewed_at: None,
            highest_logged: Index(0),
            renew: false,
            reads: Reads::new(patience),
            answers: Vec::new(),
        }
    }

    /// A command comes.
    pub(crate) fn command(&mut self, ticket: T, draft: Draft, id: Option<String>, now: Time) {
        let body = Body::Unsent { draft, id };
        let deadline = now.plus(self.timeout);
        let place = Place::Queued;
        self.commands.push_back(Some(Command {
            ticket,
            body,
            deadline,
            place,
            attempts: 0,
            tries: 0,
        }));
    }

    /// When a read that comes now ends at the latest.
    pub(crate) fn read_deadline(&self, now: Time) -> Time {
        now.plus(self.timeout)
    }

    /// The answers that are ready.
    pub(crate) fn drain_answers(&mut self, into: &mut Vec<(T, Answer)>) {
        into.append(&mut self.answers);
    }

    /// Answers one request.
    pub(crate) fn answer(&mut self, ticket: T, answer: Answer) {
        self.answers.push((ticket, answer));
    }

    /// Another leader, or none, or the same in another term: what was sent to the
    /// old one and has not shown in the log goes to the new one.
    pub(crate) fn on_leader_change(&mut self) {
        for command in self.commands.iter_mut().flatten() {
            command.tries = 0;
            if matches!(command.place, Place::Sent(_)) {
                command.place = Place::Queued;
            }
        }
        self.queued_from = self.base;
        if let Session::Opening { sent_at } = &mut self.session {
            *sent_at = None;
            self.opened = 0;
        }
        self.reads.on_leader_change();
    }

    /// The log lost its entries from `from` on: what stood there is sent again.
    pub(crate) fn on_truncated(&mut self, from: Index) {
        if from > self.highest_logged {
            return;
        }
        for command in self.commands.iter_mut().flatten() {
            if matches!(command.place, Place::Logged(index) if index >= from) {
                command.place = Place::Queued;
            }
        }
        self.highest_logged = from.previous();
        self.queued_from = self.base;
    }

    /// Entries were taken from the leader: this node's own among them arrived.
    pub(crate) fn on_appended(&mut self, core: &Core, from: Index) {
        let Session::Open { id } = self.session else { return };
        if self.commands.is_empty() {
            return;
        }
        for (index, entry) in core.log().from(from) {
            let Payload::Client(bytes) = &entry.payload else { continue };
            let Some((session, seq)) = operation::session_and_seq(bytes) else { continue };
            if session == id
                && let Some(command) = self.slot(seq)
            {
                command.place = Place::Logged(index);
                self.highest_logged = self.highest_logged.max(index);
            }
        }
    }

    fn slot(&mut self, seq: u64) -> Option<&mut Command<T>> {
        let place = usize::try_from(seq.checked_sub(self.base)?).ok()?;
        self.commands.get_mut(place)?.as_mut()
    }

    /// What this node applied of its own.
    pub(crate) fn on_outcome(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Opened { session } => {
                if !matches!(self.session, Session::Open { .. }) {
                    self.session = Session::Open { id: session };
                    self.opened = 0;
                    self.queued_from = self.base;
                }
            }
            Outcome::Replied { session, seq, reply } => {
                if self.session == (Session::Open { id: session }) {
                    self.settle(seq, Ok(reply));
                }
            }
            Outcome::Refused { session, seq } => {
                // Too far above the floor that the session knows: this entry came to
                // nothing, and the number is still free. It is sent again at the next
                // look, when the session knows a newer floor.
                if self.session == (Session::Open { id: session })
                    && let Some(command) = self.slot(seq)
                {
                    command.place = Place::Sent(Time(0));
                    self.renew = true;
                }
            }
            Outcome::Expired { session } => {
                if self.session == (Session::Open { id: session }) {
                    self.on_expired();
                }
            }
        }
    }

    fn settle(&mut self, seq: u64, answer: Answer) {
        let Some(place) = seq.checked_sub(self.base) else { return };
        let slot = usize::try_from(place).ok().and_then(|place| self.commands.get_mut(place));
        if let Some(command) = slot.and_then(Option::take) {
            self.answers.push((command.ticket, answer));
        }
        self.drop_settled();
    }

    fn drop_settled(&mut self) {
        while let Some(None) = self.commands.front() {
            self.commands.pop_front();
            self.base += 1;
        }
        self.queued_from = self.queued_from.max(self.base);
    }

    /// The session is gone. What was ever sent may have been applied before: its
    /// end is unknown, and it is never sent again. The rest moves to a new session.
    fn on_expired(&mut self) {
        self.session = Session::None;
        self.renew = false;
        let end = self.base + self.commands.len() as u64;
        for command in std::mem::take(&mut self.commands).into_iter().flatten() {
            match command.body {
                Body::Ready(_) => self.answers.push((command.ticket, Err(RequestError::Unknown))),
                Body::Unsent { .. } => self.commands.push_back(Some(command)),
            }
        }
        // Numbers of the old session are not used again.
        self.base = end;
        self.queued_from = end;
    }

    /// Whether there is something to send, if there is room for it.
    pub(crate) fn has_more(&self) -> bool {
        self.renew || self.queued_from < self.base + self.commands.len() as u64
    }

    /// Sends what can be sent; `session_age` is how many client entries ago the
    /// session was touched.
    pub(crate) fn drive(&mut self, core: &mut Core, session_age: Option<u64>, now: Time) {
        self.expire(core, now);
        self.reads.drive(core, now);
        if let Session::Open { id } = self.session {
            self.renew(core, id, session_age, now);
        }
        if self.commands.is_empty() {
            self.retry_at = Time(u64::MAX);
            return;
        }
        if now >= self.retry_at {
            self.look_through(now);
        }
        match self.session {
            Session::Open { id } => {
                self.send_commands(core, id, now);
            }
            Session::None => self.open(core, None, now),
            Session::Opening { sent_at } => self.open(core, sent_at, now),
        }
        self.retry_at = self.retry_at.min(now.plus(self.patience));
    }

    fn open(&mut self, core: &mut Core, sent_at: Option<Time>, now: Time) {
        // Ever more rarely: it may wait for this node's own disk or state machine.
        let patience = self.patience << self.opened.min(4);
        if sent_at.is_some_and(|at| now.since(at) < patience) {
            return;
        }
        let operation = operation::open(self.own.incarnation, self.own.run);
        let sent = submit(core, operation, sent_at.is_some());
        self.opened += u32::from(sent);
        self.session = Session::Opening { sent_at: sent.then_some(now).or(sent_at) };
    }

    /// Commands that showed no sign for too long are sent again, ever more rarely.
    fn look_through(&mut self, now: Time) {
        for command in self.commands.iter_mut().flatten() {
            // A long one is on its way for a while, to the leader and back in the log;
            // the fragments that are lost are sent again without this.
            let patience = (self.patience << command.tries.saturating_sub(1).min(4))
                + PATIENCE_A_BYTE * command.size_bytes() as u64;
            if matches!(command.place, Place::Sent(at) if now.since(at) >= patience) {
                command.place = Place::Queued;
                self.queued_from = self.base;
            }
        }
        self.retry_at = now.plus(self.patience);
    }

    /// Sends all that is queued: into the own log if this node leads, else in
    /// batches to the leader.
    fn send_commands(&mut self, core: &mut Core, session: Index, now: Time) {
        // No further above the floor than the session remembers.
        let window = SESSION_WINDOW.min(self.commands.len() as u64);
        let end = self.base + window;
        let limit = core.leader_append_bytes();
        let mut batch = Batch::default();
        let mut seq = self.queued_from;
        let leads = core.leads();
        while seq < end {
            let floor = self.base;
            let place = (seq - self.base) as usize;
            let Some(command) = self.commands[place].as_mut() else {
                seq += 1;
                continue;
            };
            if command.place != Place::Queued {
                seq += 1;
                continue;
            }
            let retry = command.attempts > 0;
            if leads && !core.has_room() {
                break;
            }
            if leads && !retry {
                let bytes = command.bytes(session, seq, floor);
                match core.propose(bytes) {
                    Ok(index) => {
                        command.place = Place::Logged(index);
                        command.attempts += 1;
                        self.highest_logged = self.highest_logged.max(index);
                    }
                    Err(_) => break,
                }
                seq += 1;
                continue;
            }
            if core.leader().is_none() {
                break;
            }
            let bytes = command.bytes(session, seq, floor);
            if !batch.has_room(&bytes, retry, limit) && !self.send_batch(core, &mut batch, now) {
                return;
            }
            batch.push(seq, bytes, retry);
            seq += 1;
        }
        if self.send_batch(core, &mut batch, now) {
            self.queued_from = self.queued_from.max(seq);
        }
    }

    /// False if it could not be sent: its commands stay queued.
    fn send_batch(&mut self, core: &mut Core, batch: &mut Batch, now: Time) -> bool {
        if batch.operations.is_empty() {
            return true;
        }
        let operations = std::mem::take(&mut batch.operations);
        let seqs = std::mem::take(&mut batch.seqs);
        batch.size_bytes = 0;
        let propose = Propose { retry: batch.retry, operations };
        let sent =
            if core.leads() { core.propose_again(propose).is_ok() } else { core.forward(propose) };
        for seq in seqs {
            if let Some(command) = self.slot(seq)
                && sent
            {
                command.place = Place::Sent(now);
                command.attempts += 1;
                command.tries += 1;
            }
        }
        sent
    }

    /// A session does not expire for want of use, and knows the floor.
    fn renew(&mut self, core: &mut Core, session: Index, age: Option<u64>, now: Time) {
        let recently = self.renewed_at.is_some_and(|at| now.since(at) < self.patience);
        self.renew |= age.is_some_and(|age| age > RENEW_AFTER);
        if self.renew && !recently {
            self.renewed_at = Some(now);
            self.renew = !submit(core, operation::renew(session, self.base), false);
        }
    }

    /// Ends what met its deadline.
    fn expire(&mut self, core: &Core, now: Time) {
        while let Some(front) = self.commands.front() {
            match front {
                Some(command) if command.deadline > now => break,
                Some(_) => {
                    let Some(command) = self.commands[0].take() else { break };
                    let error = match command.attempts {
                        0 => super::out_of_time(core, "sent", self.timeout, now),
                        _ => RequestError::Unknown,
                    };
                    self.answers.push((command.ticket, Err(error)));
                    self.drop_settled();
                }
                None => self.drop_settled(),
            }
        }
        for ticket in self.reads.expire(now) {
            let error = super::out_of_time(core, "answered", self.timeout, now);
            self.answers.push((ticket, Err(error)));
        }
    }

    /// When something is due.
    pub(crate) fn deadline(&self) -> Time {
        let first = self.commands.iter().flatten().next();
        let end = first.map_or(Time(u64::MAX), |command| command.deadline);
        let retry = if self.commands.is_empty() { Time(u64::MAX) } else { self.retry_at };
        end.min(retry).min(self.reads.deadline())
    }

    /// The node takes no further part, or none for now: everything ends. What was never
    /// sent ends with `error`.
    pub(crate) fn end_all(&mut self, error: &RequestError) {
        let commands = std::mem::take(&mut self.commands);
        // A node that was removed goes on, and what it sent may yet be applied: no number is
        // used again.
        self.base += commands.len() as u64;
        self.queued_from = self.base;
        for command in commands.into_iter().flatten() {
            let answer = match command.attempts {
                0 => error.clone(),
                _ => RequestError::Unknown,
            };
            self.answers.push((command.ticket, Err(answer)));
        }
        for ticket in self.reads.take_all() {
            self.answers.push((ticket, Err(error.clone())));
        }
    }
}

impl<T> Command<T> {
    fn size_bytes(&self) -> usize {
        match &self.body {
            Body::Unsent { draft, .. } => draft.json().len(),
            Body::Ready(bytes) => bytes.len(),
        }
    }

    /// What is sent, made at the first sending: session, number and floor stay as
    /// they are then.
    fn bytes(&mut self, session: Index, seq: u64, floor: u64) -> Bytes {
        if let Body::Unsent { draft, id } = &mut self.body {
            let draft = std::mem::take(draft);
            let bytes = operation::command(draft, id.as_deref(), session, seq, floor);
            self.body = Body::Ready(bytes);
        }
        match &self.body {
            Body::Ready(bytes) => bytes.clone(),
            Body::Unsent { .. } => unreachable!("made ready above"),
        }
    }
}

/// Operations on their way into one message.
#[derive(Default)]
struct Batch {
    retry: bool,
    operations: Vec<Bytes>,
    seqs: Vec<u64>,
    size_bytes: usize,
}

impl Batch {
    fn has_room(&self, bytes: &Bytes, retry: bool, limit: usize) -> bool {
        self.operations.is_empty()
            || self.retry == retry
                && self.operations.len() < BATCH_OPERATIONS
                && self.size_bytes + bytes.len() + 8 <= limit
    }

    fn push(&mut self, seq: u64, bytes: Bytes, retry: bool) {
        self.retry = retry;
        self.size_bytes += bytes.len() + 8;
        self.operations.push(bytes);
        self.seqs.push(seq);
    }
}

/// Into the own log, or to the leader. False: neither is possible now.
fn submit(core: &mut Core, operation: Bytes, retry: bool) -> bool {
    let propose = Propose { retry, operations: vec![operation] };
    if core.leads() { core.propose_again(propose).is_ok() } else { core.forward(propose) }
}
