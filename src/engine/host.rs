//! Where the replicated state lives: in the engine, or on a thread of its own.
//!
//! Without a state machine of the user's, applying an entry is a few table moves,
//! done in place. With one, the state goes to a thread: the engine gives it one
//! job at a time and goes on; what is committed meanwhile makes the next job. So a
//! slow `apply` costs no heartbeat.

use crate::committed;
use crate::core::log::Log;
use crate::core::types::{Index, Payload, Term};
use crate::replica::{Outcome, Replica};
use crate::request::Answer;

use super::reads::Question;
use bytes::Bytes;

/// Entries to apply, and then reads to serve.
#[derive(Debug)]
pub(crate) struct Job {
    /// In order of index; `None` is an entry of the protocol's own.
    pub(crate) entries: Vec<(Index, Term, Option<Bytes>)>,
    /// To be answered after them, each under its number.
    pub(crate) questions: Vec<(u64, Question)>,
}

/// What a job came to.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) applied: Index,
    pub(crate) newest: Option<committed::Entry>,
    pub(crate) session_age: Option<u64>,
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) answers: Vec<(u64, Answer)>,
}

/// Who applies.
pub(crate) enum Place {
    /// The engine itself.
    Here(Box<Replica>),
    /// A thread; whether it has a job.
    Elsewhere { busy: bool },
}

/// The engine's side of the replicated state.
pub(crate) struct Host {
    place: Place,
    newest: Option<committed::Entry>,
    applied: Index,
    session_age: Option<u64>,
}

impl Host {
    /// Applies in place.
    pub(crate) fn here(replica: Replica) -> Host {
        Host::at(Place::Here(Box::new(replica)))
    }

    /// Gives out jobs.
    pub(crate) fn elsewhere() -> Host {
        Host::at(Place::Elsewhere { busy: false })
    }

    fn at(place: Place) -> Host {
        Host { place, newest: None, applied: Index(0), session_age: None }
    }

    /// Whether no job can be taken now.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self.place, Place::Elsewhere { busy: true })
    }

    /// Does the job, or gives it back for the thread to do.
    pub(super) fn run(&mut self, job: Job) -> Result<Done, Job> {
        match &mut self.place {
            Place::Here(replica) => Ok(perform(replica, job)),
            Place::Elsewhere { busy } => {
                *busy = true;
                Err(job)
            }
        }
    }

    /// The thread is free again.
    pub(super) fn take_back(&mut self) {
        if let Place::Elsewhere { busy } = &mut self.place {
            *busy = false;
        }
    }

    pub(super) fn reached(
        &mut self,
        applied: Index,
        newest: Option<committed::Entry>,
        session_age: Option<u64>,
    ) {
        self.applied = applied;
        self.session_age = session_age;
        if newest.is_some() {
            self.newest = newest;
        }
    }

    /// The end of what is applied.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn applied(&self) -> Index {
        self.applied
    }

    pub(super) fn newest(&self) -> Option<&committed::Entry> {
        self.newest.as_ref()
    }

    /// How many client entries ago this run's session was touched.
    pub(super) fn session_age(&self) -> Option<u64> {
        self.session_age
    }
}

/// The entries after `handed` up to `last`, as a job has them.
pub(super) fn entries(log: &Log, handed: Index, last: Index) -> Vec<(Index, Term, Option<Bytes>)> {
    log.from(handed.next())
        .take_while(|(index, _)| *index <= last)
        .map(|(index, entry)| {
            let operation = match &entry.payload {
                Payload::Client(operation) => Some(operation.clone()),
                Payload::Empty | Payload::Members(_) => None,
            };
            (index, entry.term, operation)
        })
        .collect()
}

/// Does a job.
pub(crate) fn perform(replica: &mut Replica, job: Job) -> Done {
    let mut outcomes = Vec::new();
    for (index, term, operation) in &job.entries {
        match operation {
            Some(operation) => replica.apply(*index, *term, operation, &mut outcomes),
            None => replica.skip(*index, *term),
        }
    }
    let answers = job
        .questions
        .iter()
        .map(|(number, question)| {
            let answer = match question {
                Question::Query(json) => replica.query(json),
                Question::Lookup(id) => replica.lookup(id),
            };
            (*number, answer)
        })
        .collect();
    Done {
        applied: replica.applied(),
        newest: replica.newest().cloned(),
        session_age: replica.own_session_age(),
        outcomes,
        answers,
    }
}
