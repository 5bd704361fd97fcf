//! What openraft keeps, in memory: its log, a state machine that holds the newest value,
//! and a snapshot of that.
//!
//! The log is a `VecDeque` behind a lock that several can read at once, as the map of
//! openraft's own `benchmarks/minimal` is; entries share their values' bytes, so that a
//! read for a follower copies none. All is written once `append` returns, so it says so
//! itself, and openraft appends what has queued up as one batch.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use openraft::alias::{LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf};
use openraft::entry::RaftEntry;
use openraft::impls::{BoxedErrorSource, InlineBatch, TokioRuntime, leader_id_adv};
use openraft::raft::ClientWriteResult;
use openraft::raft::responder::Responder;
use openraft::storage::{EntryResponder, IOFlushed, RaftLogStorage, RaftStateMachine};
use openraft::{EntryPayload, LogState, OptionalSend, RaftLogReader, RaftSnapshotBuilder};
use serde::{Deserialize, Serialize};

/// The types of a node: openraft's defaults, but for the value and who is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Types;

impl openraft::RaftTypeConfig for Types {
    type D = Value;
    type R = ();
    type NodeId = u64;
    type Node = ();
    type Term = u64;
    type LeaderId = leader_id_adv::LeaderId<u64, u64>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = EntryPayload<Value, u64, ()>;
    type Entry = openraft::alias::DefaultEntryOf<Self>;
    type AsyncRuntime = TokioRuntime;
    type Responder<T>
        = Answer
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = BoxedErrorSource;
}

pub type Entry = openraft::alias::EntryOf<Types>;
pub type Vote = openraft::alias::VoteOf<Types>;
pub type LogId = LogIdOf<Types>;

/// What a client wants committed.
#[derive(Clone, Serialize, Deserialize)]
pub struct Value(pub Bytes);

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// Answers what was committed and applied, and hangs up on anything else.
pub struct Answer(pub oneshot::Sender<()>);

impl<T: OptionalSend + 'static> Responder<Types, T> for Answer {
    fn on_complete(self, result: T) {
        let result = (&result as &dyn Any).downcast_ref::<ClientWriteResult<Types>>();
        if let Some(Ok(_)) = result {
            // The client may have gone.
            let _ = self.0.send(());
        }
    }
}

/// A log that is shared by all who read it, and outlives its node.
#[derive(Clone, Default)]
pub struct Log(Arc<RwLock<Kept>>);

#[derive(Default)]
struct Kept {
    vote: Option<Vote>,
    purged: Option<LogId>,
    /// The index of the first entry.
    first: u64,
    entries: VecDeque<Entry>,
}

impl Log {
    fn read<T>(&self, of: impl FnOnce(&Kept) -> T) -> T {
        of(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, to: impl FnOnce(&mut Kept) -> T) -> T {
        to(&mut self.0.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<R>(&mut self, range: R) -> io::Result<Vec<Entry>>
    where
        R: RangeBounds<u64> + Clone + fmt::Debug + OptionalSend,
    {
        Ok(self.read(|kept| {
            let place = |index: u64| (index.saturating_sub(kept.first)) as usize;
            let from = match range.start_bound() {
                Bound::Included(&index) => place(index),
                Bound::Excluded(&index) => place(index + 1),
                Bound::Unbounded => 0,
            };
            let to = match range.end_bound() {
                Bound::Included(&index) => place(index + 1),
                Bound::Excluded(&index) => place(index),
                Bound::Unbounded => usize::MAX,
            };
            let to = to.min(kept.entries.len());
            kept.entries.range(from.min(to)..to).cloned().collect()
        }))
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.read(|kept| kept.vote))
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Log;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        Ok(self.read(|kept| LogState {
            last_purged_log_id: kept.purged,
            last_log_id: kept.entries.back().map(|entry| entry.log_id).or(kept.purged),
        }))
    }

    async fn get_log_reader(&mut self) -> Log {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.write(|kept| kept.vote = Some(*vote));
        Ok(())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.write(|kept| {
            for entry in entries {
                if kept.entries.is_empty() {
                    kept.first = entry.index();
                }
                kept.entries.push_back(entry);
            }
        });
        callback.io_completed(Ok(()));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        self.write(|kept| {
            let next = last.map_or(0, |last| last.index + 1);
            kept.entries.truncate(next.saturating_sub(kept.first) as usize);
        });
        Ok(())
    }

    async fn purge(&mut self, to: LogId) -> io::Result<()> {
        self.write(|kept| {
            let gone = (to.index + 1).saturating_sub(kept.first) as usize;
            kept.entries.drain(..gone.min(kept.entries.len()));
            kept.first = to.index + 1;
            kept.purged = Some(to);
        });
        Ok(())
    }
}

/// The newest snapshot. It outlives its node, as a file would.
pub type Snapshots = Arc<Mutex<Option<Snapshot>>>;
pub type Snapshot = SnapshotOf<Types, Bytes>;

/// Holds the newest value.
#[derive(Clone, Default)]
pub struct Machine {
    applied: Option<LogId>,
    membership: StoredMembershipOf<Types>,
    newest: Bytes,
    snapshots: Snapshots,
}

impl Machine {
    pub fn new(snapshots: Snapshots) -> Machine {
        Machine { snapshots, ..Machine::default() }
    }

    fn newest_snapshot(&self) -> std::sync::MutexGuard<'_, Option<Snapshot>> {
        self.snapshots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Machine;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembershipOf<Types>)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        let mut answers = Vec::new();
        while let Some((entry, responder)) = entries.try_next().await? {
            self.applied = Some(entry.log_id);
            match entry.payload {
                EntryPayload::Normal(value) => self.newest = value.0,
                EntryPayload::Membership(membership) => {
                    self.membership = StoredMembershipOf::<Types>::new(self.applied, membership);
                }
                EntryPayload::Blank => {}
            }
            answers.extend(responder);
        }
        // The oldest last: a client waits for that one, and finds all the others answered.
        answers.into_iter().rev().for_each(|responder| responder.send(()));
        Ok(())
    }

    /// A view: what is applied later does not change it.
    async fn get_snapshot_builder(&mut self) -> Machine {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &Meta, newest: Bytes) -> io::Result<()> {
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.newest = newest.clone();
        *self.newest_snapshot() = Some(Snapshot { meta: meta.clone(), snapshot: newest });
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        Ok(self.newest_snapshot().clone())
    }
}

pub type Meta = SnapshotMetaOf<Types>;

impl RaftSnapshotBuilder<Types> for Machine {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let meta = Meta { last_log_id: self.applied, last_membership: self.membership.clone() };
        let snapshot = Snapshot { meta, snapshot: self.newest.clone() };
        *self.newest_snapshot() = Some(snapshot.clone());
        Ok(snapshot)
    }
}
