//! Where the replicated state lives: in the engine, or on a thread of its own.
//!
//! Without a state machine of the user's, applying an entry is a few table moves,
//! done in place. With one, the state goes to a thread: the engine gives it one
//! job at a time and goes on; what is committed meanwhile makes the next job. So a
//! slow `apply` costs no heartbeat.

use crate::committed;
use crate::core::membership::Membership;
use crate::core::snapshot::{SNAPSHOT_LIMIT_BYTES, Snapshot};
use crate::core::types::{Entry, Index, Payload, Term};
use crate::core::verdicts::{Turn, Verdicts};
use crate::encoding::snapshot;
use crate::replica::{Outcome, Replica};
use crate::request::Answer;

use super::reads::Question;
use bytes::Bytes;

/// A snapshot to begin with, entries to apply, then reads to serve, and the state to
/// be written down.
#[derive(Debug)]
pub(crate) struct Job {
    /// Takes the place of the whole state, and of entries before the first one here.
    pub(crate) restore: Option<Box<Snapshot>>,
    /// In order of index; `None` is an entry of the protocol's own. Filled where the job
    /// is done on a thread.
    pub(crate) entries: Vec<(Index, Term, Option<Bytes>)>,
    /// Who is up or down anew by these entries, in order of index.
    pub(crate) turns: Vec<Turn>,
    /// To be answered after them, each under its number.
    pub(crate) questions: Vec<(u64, Question)>,
    /// The state is wanted as a snapshot, as it is at the end.
    pub(crate) snapshot: Option<Box<Wanted>>,
}

/// A snapshot that is to be taken.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// The last entry that it will cover, and its term.
    pub(crate) at: (Index, Term),
    /// The members in force there, and where they are stated.
    pub(crate) members: (Index, Membership),
    /// Who of them is up there.
    pub(crate) verdicts: Verdicts,
}

/// What a job came to.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) applied: Index,
    pub(crate) newest: Option<committed::Entry>,
    pub(crate) session_age: Option<u64>,
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) answers: Vec<(u64, Answer)>,
    /// The snapshot that was wanted, or why there is none.
    pub(crate) snapshot: Option<Result<Snapshot, String>>,
    /// Why the state cannot go on.
    pub(crate) broken: Option<String>,
}

/// Who applies.
pub(crate) enum Place {
    /// The engine itself; with room for what the next job comes to.
    Here { replica: Box<Replica>, outcomes: Vec<Outcome> },
    /// A thread; whether it has a job.
    Elsewhere { busy: bool },
}

/// The engine's side of the replicated state.
pub(crate) struct Host {
    place: Place,
    newest: Option<committed::Entry>,
    applied: Index,
    session_age: Option<u64>,
    /// How far the user's machine had applied, on a disk of its own, when it came.
    machine_has: Index,
}

impl Host {
    /// Applies in place.
    pub(crate) fn here(replica: Replica) -> Host {
        let machine_has = Index(replica.machine_has());
        let (replica, outcomes) = (Box::new(replica), Vec::new());
        Host::at(Place::Here { replica, outcomes }, machine_has)
    }

    /// Gives out jobs to the thread that has this replica.
    pub(crate) fn elsewhere(replica: &Replica) -> Host {
        Host::at(Place::Elsewhere { busy: false }, Index(replica.machine_has()))
    }

    fn at(place: Place, machine_has: Index) -> Host {
        Host { place, newest: None, applied: Index(0), session_age: None, machine_has }
    }

    /// How far the user's machine had applied when it came.
    pub(super) fn machine_has(&self) -> Index {
        self.machine_has
    }

    /// Whether no job can be taken now.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self.place, Place::Elsewhere { busy: true })
    }

    /// Does the job with these entries, or gives it back with copies of them for the
    /// thread to do.
    pub(super) fn run<'a>(
        &mut self,
        mut job: Job,
        entries: impl Iterator<Item = (Index, &'a Entry)>,
    ) -> Result<Done, Job> {
        let entries = entries.map(|(index, entry)| match &entry.payload {
            Payload::Client(operation) => (index, entry.term, Some(operation)),
            Payload::Protocol(_) => (index, entry.term, None),
        });
        match &mut self.place {
            Place::Here { replica, outcomes } => {
                Ok(perform_with(replica, job, entries, std::mem::take(outcomes)))
            }
            Place::Elsewhere { busy } => {
                *busy = true;
                let shared = |(index, term, operation): (Index, Term, Option<&Bytes>)| {
                    (index, term, operation.cloned())
                };
                job.entries = entries.map(shared).collect();
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

    /// Takes an emptied `Done::outcomes` back, to be filled again where jobs are done here.
    pub(super) fn recycle(&mut self, emptied: Vec<Outcome>) {
        if let Place::Here { outcomes, .. } = &mut self.place {
            *outcomes = emptied;
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

/// Does a job.
pub(crate) fn perform(replica: &mut Replica, mut job: Job) -> Done {
    let entries = std::mem::take(&mut job.entries);
    let entries =
        entries.iter().map(|(index, term, operation)| (*index, *term, operation.as_ref()));
    perform_with(replica, job, entries, Vec::new())
}

/// Does a job with entries that lie elsewhere; what comes of them goes into `outcomes`.
fn perform_with<'a>(
    replica: &mut Replica,
    job: Job,
    entries: impl Iterator<Item = (Index, Term, Option<&'a Bytes>)>,
    mut outcomes: Vec<Outcome>,
) -> Done {
    let mut broken = None;
    if let Some(snapshot) = &job.restore
        && let Err(error) = replica.restore(&snapshot::state(snapshot), &mut outcomes)
    {
        let at = snapshot.id.index;
        broken = Some(format!("the state cannot be restored from the snapshot at {at}: {error}"));
    }
    if let Some(snapshot) = job.restore.as_ref().filter(|_| broken.is_none())
        && replica.reached() != (snapshot.id.index, snapshot.id.term)
    {
        let (at, reached) = (snapshot.id.index, replica.applied());
        broken = Some(format!("the snapshot at {at} holds the state at {reached}"));
    }
    if broken.is_some() {
        return done(replica, Vec::new(), Vec::new(), None, broken);
    }
    let mut turns = job.turns.iter().peekable();
    for (index, term, operation) in entries {
        match operation {
            Some(operation) => replica.apply(index, term, operation, &mut outcomes),
            None => replica.skip(index, term),
        }
        while let Some(turn) = turns.next_if(|turn| turn.index <= index) {
            replica.turn(turn);
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
    let snapshot = job.snapshot.map(|wanted| take_snapshot(replica, *wanted));
    done(replica, outcomes, answers, snapshot, None)
}

/// The state as a snapshot.
fn take_snapshot(replica: &Replica, wanted: Wanted) -> Result<Snapshot, String> {
    let Wanted { at, members: (stated, members), verdicts } = wanted;
    assert_eq!(replica.applied(), at.0, "a snapshot of another state than was wanted");
    let state = replica.snapshot().map_err(|error| error.to_string())?;
    let snapshot = snapshot::make(at, (stated, &members), &verdicts, &state);
    match snapshot.id.length <= SNAPSHOT_LIMIT_BYTES {
        true => Ok(snapshot),
        false => Err(format!("it has {} bytes, above the limit", snapshot.id.length)),
    }
}

fn done(
    replica: &Replica,
    outcomes: Vec<Outcome>,
    answers: Vec<(u64, Answer)>,
    snapshot: Option<Result<Snapshot, String>>,
    broken: Option<String>,
) -> Done {
    Done {
        applied: replica.applied(),
        newest: replica.newest().cloned(),
        session_age: replica.own_session_age(),
        outcomes,
        answers,
        snapshot,
        broken,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::Value;

    use super::*;
    use crate::committed::{Entry, Verdict};
    use crate::core::types::{Incarnation, Life, Run};
    use crate::error::BoxError;
    use crate::machine::StateMachine;
    use crate::operation;
    use crate::request::Draft;

    /// Writes down what it is given.
    struct Diary {
        has: u64,
        lines: Arc<Mutex<Vec<String>>>,
    }

    impl Diary {
        fn line(&self, line: String) {
            self.lines.lock().expect("nobody panics with it").push(line);
        }
    }

    impl StateMachine for Diary {
        fn apply(&mut self, entry: &Entry) -> Value {
            self.line(format!("entry {}", entry.index));
            Value::Null
        }

        fn verdict(&mut self, member: &str, verdict: Verdict) {
            let turn = if verdict.up { "up" } else { "down" };
            self.line(format!("{member} {turn} {}", verdict.index));
        }

        fn query(&self, _: &Value) -> Value {
            Value::Null
        }

        fn snapshot(&self) -> Result<Vec<u8>, BoxError> {
            Ok(Vec::new())
        }

        fn restore(&mut self, _: &[u8]) -> Result<(), BoxError> {
            Ok(())
        }

        fn applied(&self) -> u64 {
            self.has
        }
    }

    /// What a machine that `has` as much already is given of one job: b is down by entry 3,
    /// comes back as another run by entry 5, and is down by entry 7, the last.
    fn lines(has: u64) -> Vec<String> {
        let own = Life { incarnation: Incarnation(1), run: Run(1) };
        let lines = Arc::new(Mutex::new(Vec::new()));
        let diary = Diary { has, lines: Arc::clone(&lines) };
        let mut replica = Replica::new("a", own, Some(Box::new(diary)), Vec::new());
        let command = |seq| Some(operation::command(Draft::new(b"1"), None, Index(1), seq, 0));
        let open = Some(operation::open(own.incarnation, own.run));
        let operations = [open, command(0), None, command(1), None, command(2), None];
        let entries = operations.into_iter().zip(1..);
        let turn = |up, index| Turn { name: "b".to_string(), up, index: Index(index) };
        let job = Job {
            restore: None,
            entries: entries.map(|(of, index)| (Index(index), Term(1), of)).collect(),
            turns: vec![turn(false, 3), turn(false, 5), turn(true, 5), turn(false, 7)],
            questions: Vec::new(),
            snapshot: None,
        };
        assert_eq!(perform(&mut replica, job).applied, Index(7));
        drop(replica);
        Arc::into_inner(lines).expect("the machine is gone").into_inner().expect("nobody panicked")
    }

    #[test]
    fn machines_are_told_of_a_verdict_where_it_stands_in_the_log() {
        let all = ["entry 2", "b down 3", "entry 4", "b down 5", "b up 5", "entry 6", "b down 7"];
        assert_eq!(lines(0), all);
    }

    #[test]
    fn a_machine_is_not_told_of_verdicts_that_it_has() {
        assert_eq!(lines(4), ["b down 5", "b up 5", "entry 6", "b down 7"]);
        assert_eq!(lines(5), ["entry 6", "b down 7"]);
    }
}
