//! The thread of a node's disk, and what goes through it.
//!
//! ```text
//!   writes ──►│ all that wait: one append, one sync │──► written (number)
//!   trim ────►│                                     │
//!   a snapshot ──► a thread of its own, for as long as it takes ──► saved
//! ```
//!
//! The node's thread never waits here. What comes while a sync is under way shares the
//! next one (group commit). A large snapshot is no log: it must not keep votes and
//! acknowledgements waiting. (One that comes from the leader takes the log's place, in
//! order with all other writes; until it is there the node is of little use anyway.)
//! The first failure is the last thing that is said: after
//! it nothing that is on the disk is known (pitfall 56).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use crate::core::Record;
use crate::core::snapshot::Snapshot;
use crate::core::types::Index;
use crate::error::Error;
use crate::guard;
use crate::shared::{Input, Shared};
use crate::storage::{OsFiles, Saver, StorageError, Store};

/// A batch holds so many bytes of entries before it goes to the disk: what waits is
/// written more than once then, rather than held twice.
const BATCH_BYTES: usize = 16 << 20;
/// When nothing came for so long the last batch is marked.
const QUIET: Duration = Duration::from_millis(5);

/// What the disk's thread is asked for.
enum Work {
    Write(Vec<Record>),
    Trim(Index),
}

/// The threads of a disk.
pub(super) struct DiskThread {
    shared: Arc<Shared>,
    run: u64,
    work: Option<Sender<Work>>,
    thread: Option<JoinHandle<()>>,
    saver: Saver<OsFiles>,
    saving: Option<JoinHandle<()>>,
}

impl DiskThread {
    /// A thread that owns this log, in that run of the node.
    pub(super) fn spawn(
        shared: &Arc<Shared>,
        run: u64,
        store: Store<OsFiles>,
    ) -> Result<DiskThread, Error> {
        let (work, waiting) = crossbeam_channel::unbounded();
        let saver = store.saver();
        let theirs = Arc::clone(shared);
        let name = format!("{}-disk", shared.name);
        let thread = spawn(name, &theirs, run, move |shared| serve(shared, run, store, &waiting))?;
        let shared = Arc::clone(shared);
        Ok(DiskThread { shared, run, work: Some(work), thread: Some(thread), saver, saving: None })
    }

    /// Begins these writes, in order.
    pub(super) fn write(&self, records: &mut Vec<Record>) {
        if !records.is_empty() {
            self.give(Work::Write(std::mem::take(records)));
        }
    }

    /// Lets go of the log up to there.
    pub(super) fn trim(&self, base: Index) {
        self.give(Work::Trim(base));
    }

    /// Begins to save a snapshot; there is one at a time.
    pub(super) fn save(&mut self, snapshot: Snapshot) -> Result<(), Error> {
        if let Some(before) = self.saving.take() {
            let _ = before.join();
        }
        let (saver, run) = (self.saver.clone(), self.run);
        let name = format!("{}-snapshot", self.shared.name);
        let body = move |shared: &Shared| {
            match saver.save(&snapshot) {
                Ok(()) => shared.put(Input::Saved(run, None)),
                // The log is as it was, and has room set aside.
                Err(error) if error.is_full() => {
                    shared.put(Input::Saved(run, Some(error.to_string())));
                }
                Err(error) => return Err(error),
            }
            Ok(())
        };
        self.saving = Some(spawn(name, &self.shared, run, body)?);
        Ok(())
    }

    fn give(&self, work: Work) {
        // A thread that failed has said so, and takes no more.
        let _ = self.work.as_ref().map(|queue| queue.send(work));
    }
}

/// Waits until all that was begun is on the disk, and the folder is released.
impl Drop for DiskThread {
    fn drop(&mut self) {
        drop(self.work.take());
        let _ = self.thread.take().map(JoinHandle::join);
        let _ = self.saving.take().map(JoinHandle::join);
    }
}

fn spawn(
    name: String,
    shared: &Arc<Shared>,
    run: u64,
    body: impl FnOnce(&Shared) -> Result<(), StorageError> + Send + 'static,
) -> Result<JoinHandle<()>, Error> {
    let theirs = Arc::clone(shared);
    let guarded = move || {
        let reason = match catch_unwind(AssertUnwindSafe(|| body(&theirs))) {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(panic) => format!("the thread of the disk panicked: {}", guard::said(&*panic)),
        };
        theirs.put(Input::DiskFailed(run, reason));
    };
    std::thread::Builder::new()
        .name(name.clone())
        .spawn(guarded)
        .map_err(|source| Error::Io { doing: format!("spawn the thread {name}"), source })
}

/// Writes all that waits with one sync, until nobody asks any more.
fn serve(
    shared: &Shared,
    run: u64,
    mut store: Store<OsFiles>,
    waiting: &Receiver<Work>,
) -> Result<(), StorageError> {
    let mut records: Vec<Record> = Vec::new();
    while let Some(first) = next(&mut store, waiting)? {
        let mut trim = None;
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(work) = next {
            match work {
                Work::Write(more) => {
                    bytes += more.iter().map(Record::size_bytes).sum::<usize>();
                    records.extend(more);
                }
                Work::Trim(base) => trim = Some(base),
            }
            next = if bytes < BATCH_BYTES { waiting.try_recv().ok() } else { None };
        }
        if let Some(last) = records.last().map(|record| record.number) {
            store.append(&records)?;
            store.sync()?;
            records.clear();
            shared.put(Input::Written(run, last));
        }
        if let Some(base) = trim {
            store.trim(base)?;
        }
    }
    store.mark()
}

/// Waits for what is to be done next; `None`: nobody asks any more.
fn next(
    store: &mut Store<OsFiles>,
    waiting: &Receiver<Work>,
) -> Result<Option<Work>, StorageError> {
    if store.lacks_mark() {
        match waiting.recv_timeout(QUIET) {
            Err(RecvTimeoutError::Timeout) => store.mark()?,
            done => return Ok(done.ok()),
        }
    }
    Ok(waiting.recv().ok())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use mio::Poll;

    use super::*;
    use crate::core::Hard;
    use crate::core::types::{Incarnation, Term, WriteNumber};
    use crate::driver::WAKER;
    use crate::storage::inspect;

    /// What is on the disk when nobody asks for more is marked, within milliseconds and when
    /// the thread ends: what of it is lost later is damage, and no write that was cut short.
    #[test]
    fn the_last_batch_is_marked_when_it_is_quiet_and_at_the_end() {
        let dir = std::env::temp_dir().join(format!("kontiki-{}-marks", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        let poll = Poll::new().expect("a poll");
        let waker = mio::Waker::new(poll.registry(), WAKER).expect("a bell");
        let shared = Arc::new(Shared::new("node0", waker));
        let files = OsFiles::new(&dir).expect("a folder");
        let opened = Store::open(files, "node0", Incarnation(7), |_| Ok(()));
        let (store, _) = opened.expect("a new log");
        let disk = DiskThread::spawn(&shared, 1, store).expect("a thread");
        let write = |term: u64| {
            let hard = Hard { term: Term(term), ..Hard::default() };
            let (from, entries, install) = (None, Vec::new(), None);
            let number = WriteNumber(term);
            disk.write(&mut vec![Record { number, hard: Some(hard), from, entries, install }]);
            match shared.inputs().recv_timeout(Duration::from_secs(20)) {
                Ok(Input::Written(1, written)) => assert_eq!(written, number),
                _ => panic!("it is not written"),
            }
        };
        // Up to where the mark says that all is durable.
        let marked = || -> u64 {
            let mut out = Vec::new();
            assert!(inspect(&dir, &mut out).expect("a log"));
            let text = String::from_utf8(out).expect("text");
            let mark = text.lines().find_map(|line| line.strip_prefix("  mark: all up to byte "));
            mark.map_or(0, |rest| rest.split(' ').next().unwrap_or("").parse().unwrap_or(0))
        };
        write(1);
        let began = Instant::now();
        while marked() == 0 {
            assert!(began.elapsed() < Duration::from_secs(20), "it is quiet, and there is no mark");
        }
        let before = marked();
        write(2);
        drop(disk);
        assert!(marked() > before, "the end has no mark");
        let _ = std::fs::remove_dir_all(&dir);
    }
}
