//! The replicated state of one node: what the log's client entries make of it.
//!
//! ```text
//!                                ┌── sessions: which numbers were applied
//!  committed entry ─► operation ─┼── ids: which callers' ids were applied
//!   (index, term)                └── newest entry ─► state machine ─► value
//!                                                                      │
//!     outcomes, for this node's own requests ◄── reply, kept ◄─────────┘
//! ```
//!
//! Each command is applied at most once (thesis §6.3): once by its session and its
//! number there, and once by the caller's id if it has one. Whether it was applied
//! already is decided here, by the log and nothing else, when the entry is
//! committed: not where it was received, not by a clock, not by who is leader. So
//! every node that has applied the same log has the same `State`, and a new leader
//! needs nothing from the old one.
//!
//! # What counts
//!
//! Each client entry of the log counts one, whatever it says: commands that were
//! applied, their duplicates, the opening and renewing of sessions, and bytes that
//! are no operation. Sessions expire and ids are forgotten by this count alone.
//! Every entry that names a live session touches it, a duplicate too.
//!
//! # What a session's end means
//!
//! A command of a session that is not live is not applied. As the replica goes
//! through the log in order, the end of a session is final: what was not applied
//! by then never will be.
//!
//! # What is a node's own
//!
//! Beside the `State` stand the state machine, those who watch, and which sessions
//! are this run's own. None of it decides what is applied. A machine that keeps its
//! state on a disk of its own skips the entries that it has (`applied`); their
//! replies say on this node that the value was not kept, as do those whose value
//! fell to the bound on kept bytes.
//!
//! # What stands in for entries
//!
//! A snapshot (`snapshot`) holds the `State` whole, and the machine's own beside it.
//! It may come from another node, whose entries were never applied here: this run's
//! requests among them are answered from the sessions that it holds. What was
//! settled in a session that has ended by then stays unknown, and who watches is
//! told of no entry in between. Values that another node did not keep are not kept
//! here either.

mod ids;
mod sessions;
mod snapshot;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod twin;
mod values;

use std::collections::VecDeque;
use std::num::NonZeroU64;

use bytes::Bytes;
use serde_json::Value;

use crate::committed::{Entry, Verdict};
use crate::config::Watcher;
use crate::core::types::{Index, Life, Term};
use crate::core::verdicts::Turn;
use crate::error::RequestError;
use crate::guard;
use crate::machine::StateMachine;
use crate::operation::{Command, Operation};
use crate::request::Reply;

use ids::Ids;
use sessions::{Admission, Sessions};
use values::{ValueRef, Values};

/// A session has at most so many numbers in use at once, from its floor on, as far
/// as its client goes. Part of the format.
pub(crate) const SESSION_WINDOW: u64 = 65_536;

/// A session that no client entry names expires after so many of them. Part of
/// the format.
pub(crate) const SESSION_SPAN: u64 = 1_000_000;

/// At most so many sessions live at once. Part of the format.
pub(crate) const SESSIONS_LIMIT: usize = 1024;

/// A caller's id is known among the last so many client entries. Part of the
/// format.
pub(crate) const IDS_SPAN: u64 = 131_072;

/// The values of kept replies take at most so many bytes together. Part of the
/// format.
pub(crate) const KEPT_BYTES: usize = 64 << 20;

/// The sessions keep places for about so many replies together, and each for its
/// equal share of them. Part of the format.
const REPLIES_LIMIT: usize = 2 << 20;

/// The bounds of the replicated state. They are the same on every node, so they
/// are constants of the format; only tests take others.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// `SESSION_SPAN`.
    pub session_span: u64,
    /// `SESSIONS_LIMIT`.
    pub sessions: usize,
    /// A number is refused so far above the floor: twice what clients use, for a
    /// floor is stated late.
    pub window: u64,
    /// `REPLIES_LIMIT`.
    pub replies: usize,
    /// `IDS_SPAN`.
    pub ids_span: u64,
    /// `KEPT_BYTES`.
    pub kept_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            session_span: SESSION_SPAN,
            sessions: SESSIONS_LIMIT,
            window: 2 * SESSION_WINDOW,
            replies: REPLIES_LIMIT,
            ids_span: IDS_SPAN,
            kept_bytes: KEPT_BYTES,
        }
    }
}

/// What became of a request of this node's own run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// The run has this session, whether new or had before.
    Opened {
        /// The session.
        session: Index,
    },
    /// The command was applied, or was the second with its id and gets the
    /// first one's reply.
    Replied {
        /// The session.
        session: Index,
        /// The command's number.
        seq: u64,
        /// What it came to.
        reply: Reply,
    },
    /// This entry was not applied: its number lies too far above the floor. The
    /// number is still free, and another entry with it may be applied.
    Refused {
        /// The session.
        session: Index,
        /// The command's number.
        seq: u64,
    },
    /// The session is not live any more, and what had no `Replied` before this
    /// will never be applied. Told when the session ends, and again for each
    /// command that comes later.
    Expired {
        /// The session.
        session: Index,
    },
}

/// What a command came to, without its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Answer {
    /// Not 0, so that a free place in a ring takes no room of its own.
    index: NonZeroU64,
    term: Term,
    value: ValueRef,
}

/// The replicated state, and around it what is this node's own.
pub(crate) struct Replica {
    state: State,
    node_name: String,
    own: Life,
    /// The last sessions that were reported as `Opened`, so that a late command
    /// of one is known as this run's own. Only the last `OWN_LIMIT`.
    own_sessions: VecDeque<Index>,
    machine: Option<Box<dyn StateMachine>>,
    /// The machine has applied up to here before it came to us.
    machine_has: u64,
    watchers: Vec<Watcher>,
    limits: Limits,
}

/// So many of its own sessions does a replica remember.
const OWN_LIMIT: usize = 64;

/// What the log alone makes: the same on every node at the same index.
struct State {
    /// The last entry that was applied, whatever it was.
    applied: Index,
    term: Term,
    /// How many client entries there were: the only clock here.
    client_entries: u64,
    /// How many of them were no operation.
    unreadable: u64,
    /// The last command that was applied.
    newest: Option<Entry>,
    sessions: Sessions,
    ids: Ids,
    values: Values,
}

impl State {
    fn new(limits: &Limits) -> State {
        State {
            applied: Index(0),
            term: Term(0),
            client_entries: 0,
            unreadable: 0,
            newest: None,
            sessions: Sessions::new(limits),
            ids: Ids::new(limits.ids_span),
            values: Values::new(limits.kept_bytes),
        }
    }

    /// Goes on to the next entry.
    fn advance(&mut self, index: Index, term: Term) {
        assert!(
            index == self.applied.next() && term >= self.term,
            "entry {index} of term {term} follows on {} of term {}",
            self.applied,
            self.term
        );
        self.applied = index;
        self.term = term;
    }

    fn reply(&self, answer: Answer) -> Reply {
        reply(answer.index.get(), answer.term, self.values.value(answer.value))
    }
}

fn reply(index: u64, term: Term, value: Option<Value>) -> Reply {
    let value_kept = value.is_some();
    Reply { index, term: term.0, value: value.unwrap_or_default(), value_kept }
}

impl Replica {
    /// The state before the first entry. `own` is this run: its requests'
    /// outcomes are reported. The watchers are told `node_name`.
    pub fn new(
        node_name: &str,
        own: Life,
        machine: Option<Box<dyn StateMachine>>,
        watchers: Vec<Watcher>,
    ) -> Replica {
        Replica::with_limits(node_name, own, machine, watchers, &Limits::default())
    }

    fn with_limits(
        node_name: &str,
        own: Life,
        machine: Option<Box<dyn StateMachine>>,
        watchers: Vec<Watcher>,
        limits: &Limits,
    ) -> Replica {
        Replica {
            state: State::new(limits),
            node_name: node_name.to_string(),
            own,
            own_sessions: VecDeque::new(),
            machine_has: machine.as_ref().map_or(0, |machine| machine.applied()),
            machine,
            watchers,
            limits: limits.clone(),
        }
    }

    /// Applies a committed client entry, the next of the log, and adds what it
    /// means for this node's own requests to `outcomes`.
    pub fn apply(
        &mut self,
        index: Index,
        term: Term,
        payload: &Bytes,
        outcomes: &mut Vec<Outcome>,
    ) {
        self.state.advance(index, term);
        self.state.client_entries += 1;
        let now = self.state.client_entries;
        match Operation::decode(payload) {
            Some(Operation::Command(command)) => self.command(payload, &command, outcomes),
            Some(Operation::Open { incarnation, run }) => {
                self.open(Life { incarnation, run }, outcomes);
            }
            Some(Operation::Renew { session, floor }) => {
                let State { sessions, values, .. } = &mut self.state;
                sessions.touch(session, floor, now, values);
            }
            None => self.state.unreadable += 1,
        }
        let State { sessions, ids, values, .. } = &mut self.state;
        ids.forget(now, values);
        for session in sessions.expire(now, values) {
            self.expired(session, outcomes);
        }
    }

    /// Passes over a committed entry that is the protocol's own, the next of the
    /// log.
    pub fn skip(&mut self, index: Index, term: Term) {
        self.state.advance(index, term);
    }

    /// Answers a question, given as JSON, from the state as it is: what the
    /// machine says, or the newest entry's value without one. The caller has seen
    /// to it that enough is applied.
    pub fn query(&self, question: &[u8]) -> Result<Reply, RequestError> {
        let value = match &self.machine {
            Some(machine) => {
                let question = serde_json::from_slice(question).map_err(|error| {
                    RequestError::Invalid { reason: format!("the question is no JSON: {error}") }
                })?;
                let _guard = guard::enter();
                machine.query(&question)
            }
            None => self.newest().map(Entry::value).unwrap_or_default(),
        };
        Ok(reply(self.state.applied.0, self.state.term, Some(value)))
    }

    /// What the command with this id came to, if it is among the last `IDS_SPAN`
    /// client entries.
    pub fn lookup(&self, id: &str) -> Result<Reply, RequestError> {
        match self.state.ids.find(id) {
            Some(answer) => Ok(self.state.reply(answer)),
            None => Err(RequestError::NotFound { id: id.to_string() }),
        }
    }

    /// The last command that was applied.
    pub fn newest(&self) -> Option<&Entry> {
        self.state.newest.as_ref()
    }

    /// The last entry that was applied, and its term.
    pub fn reached(&self) -> (Index, Term) {
        (self.state.applied, self.state.term)
    }

    /// The last entry that was applied, the protocol's own included.
    pub fn applied(&self) -> Index {
        self.state.applied
    }

    /// The last entry that the machine had in its state when it came, which it need
    /// not be given again; 0 without a machine.
    pub fn machine_has(&self) -> u64 {
        self.machine_has
    }

    #[cfg(test)]
    /// How many client entries were applied, whatever they said.
    pub fn client_entries(&self) -> u64 {
        self.state.client_entries
    }

    #[cfg(test)]
    /// How many client entries were no operation, and did nothing.
    pub fn unreadable(&self) -> u64 {
        self.state.unreadable
    }

    /// How many client entries ago this session was last named; `None` if it is
    /// not live. Beyond `SESSION_SPAN` it expires.
    pub fn session_age(&self, session: Index) -> Option<u64> {
        let touched = self.state.sessions.touched(session)?;
        Some(self.state.client_entries - touched)
    }

    /// The same of the last session that this run opened.
    pub fn own_session_age(&self) -> Option<u64> {
        self.own_sessions.front().and_then(|session| self.session_age(*session))
    }

    /// The whole replicated state as text, to compare nodes.
    #[cfg(test)]
    pub fn digest(&self) -> String {
        let State { applied, term, client_entries, unreadable, newest, sessions, ids, values } =
            &self.state;
        format!(
            "{applied} {term} {client_entries} {unreadable} {newest:?}\n{}\n{}\n{}",
            sessions.digest(),
            ids.digest(),
            values.digest()
        )
    }

    /// A life that has a live session gets that one again: its first `Open` may
    /// have been committed without its knowing.
    fn open(&mut self, life: Life, outcomes: &mut Vec<Outcome>) {
        let State { sessions, values, client_entries: now, applied, .. } = &mut self.state;
        let mut session = *applied;
        let mut closed = None;
        match sessions.reopen(life, *now) {
            Some(live) => session = live,
            None => closed = sessions.open(session, life, *now, values),
        }
        if let Some(session) = closed {
            self.expired(session, outcomes);
        }
        if life == self.own {
            self.opened(session, outcomes);
        }
    }

    /// This run has this session.
    fn opened(&mut self, session: Index, outcomes: &mut Vec<Outcome>) {
        if !self.own_sessions.contains(&session) {
            self.own_sessions.truncate(OWN_LIMIT - 1);
            self.own_sessions.push_front(session);
        }
        outcomes.push(Outcome::Opened { session });
    }

    fn expired(&self, session: Index, outcomes: &mut Vec<Outcome>) {
        if self.own_sessions.contains(&session) {
            outcomes.push(Outcome::Expired { session });
        }
    }

    fn command(&mut self, payload: &Bytes, command: &Command<'_>, outcomes: &mut Vec<Outcome>) {
        let (session, seq) = (command.session, command.seq);
        let State { sessions, values, client_entries: now, .. } = &mut self.state;
        // Never created by a command: an unknown session is expired (thesis §6.3).
        let Some(place) = sessions.touch(session, command.floor, *now, values) else {
            self.expired(session, outcomes);
            return;
        };
        let own = sessions.life(place) == self.own;
        match sessions.admit(place, seq) {
            Admission::Fresh => {}
            // The first one's reply was reported when it was applied.
            Admission::Past => return,
            Admission::TooFar => {
                if own {
                    outcomes.push(Outcome::Refused { session, seq });
                }
                return;
            }
        }
        let original = command.id.and_then(|id| self.state.ids.find(id));
        let (answer, reply) = match original {
            Some(answer) => {
                self.state.values.hold(answer.value);
                (answer, own.then(|| self.state.reply(answer)))
            }
            None => self.run(payload, command, own),
        };
        self.state.sessions.record(place, seq, answer);
        if let Some(reply) = reply {
            outcomes.push(Outcome::Replied { session, seq, reply });
        }
    }

    /// A member is up or down anew.
    pub(crate) fn turn(&mut self, turn: &Turn) {
        if let Some(machine) = self.machine.as_mut().filter(|_| turn.index.0 > self.machine_has) {
            let _guard = guard::enter();
            machine.verdict(&turn.name, Verdict { up: turn.up, index: turn.index.0 });
        }
    }

    /// Applies a command that was not applied before: the only way to the machine
    /// and to those who watch. Gives its reply too if this node `asked`.
    fn run(
        &mut self,
        payload: &Bytes,
        command: &Command<'_>,
        asked: bool,
    ) -> (Answer, Option<Reply>) {
        let (index, term) = (self.state.applied.0, self.state.term);
        let (id_range, json_range) = (command.id_range.clone(), command.json_range.clone());
        let entry = Entry::from_parts(index, term.0, payload.clone(), id_range, json_range);
        let users_code = self.machine.is_some() || !self.watchers.is_empty();
        let guard = users_code.then(guard::enter);
        let value = match &mut self.machine {
            Some(machine) if index > self.machine_has => Some(machine.apply(&entry)),
            Some(_) => None, // it is in the machine's own state already
            None => Some(Value::Null),
        };
        for watcher in &self.watchers {
            watcher(&self.node_name, &entry);
        }
        drop(guard);
        let state = &mut self.state;
        state.newest = Some(entry);
        let answer = Answer {
            index: NonZeroU64::new(index).expect("the log starts at 1"),
            term,
            value: match &value {
                Some(value) => state.values.keep(value),
                None => ValueRef::NOT_KEPT,
            },
        };
        if let Some(id) = command.id {
            state.values.hold(answer.value);
            state.ids.remember(id, state.client_entries, answer);
        }
        (answer, asked.then(|| reply(index, term, value)))
    }
}
