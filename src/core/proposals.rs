//! Clients' operations on their way into the leader's log.
//!
//! The core does not look inside an operation. One that is sent again has the same
//! bytes, so the leader finds it in what it has not committed yet and leaves it
//! alone; a repeat of what is committed is refused by the state machine's sessions.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::Core;
use super::message::{Message, Propose};
use super::state::{Refused, Role};
use super::types::{Incarnation, Index, Payload};

/// The operations that a leader has seen in its log while it looked for repeats:
/// filled as far as a look needs, emptied when all of them are committed.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub struct Seen {
    operations: BTreeSet<Bytes>,
    through: Index,
}

impl Core {
    /// Appends a client's operation to the log if this node leads and has room
    /// for it; where it stands then. It leaves with the next `flush`.
    pub fn propose(&mut self, operation: Bytes) -> Result<Index, Refused> {
        if self.failure.is_some() {
            return Err(Refused::Failed);
        }
        let Role::Leader(leader) = &self.role else {
            return Err(Refused::NotLeader);
        };
        if leader.is_full() {
            return Err(Refused::Full);
        }
        Ok(self.append_own(Payload::Client(operation)))
    }

    /// Sends operations to the leader that this node knows. False: it knows none,
    /// or cannot reach it, or is the leader itself.
    pub fn forward(&mut self, propose: Propose) -> bool {
        match self.leader().filter(|&leader| leader != self.me.incarnation) {
            Some(leader) => self.send(leader, Message::Propose(propose)),
            None => false,
        }
    }

    /// Operations of another node came, or once more of this one.
    pub(super) fn on_propose(&mut self, from: Incarnation, m: Propose) -> Result<(), Refused> {
        let Role::Leader(leader) = &self.role else { return Err(Refused::NotLeader) };
        if leader.is_full() {
            return Err(Refused::Full);
        }
        for operation in m.operations {
            if !m.retry || !self.has_seen(&operation) {
                self.append_own(Payload::Client(operation));
            }
        }
        self.await_commit(from, self.log.last_index());
        Ok(())
    }

    /// A member's program waits until its own node knows that `index` is committed.
    pub(super) fn await_commit(&mut self, member: Incarnation, index: Index) {
        if let Role::Leader(leader) = &mut self.role
            && let Some(progress) = leader.progress.get_mut(&member)
        {
            progress.news.await_commit(index);
        }
    }

    /// Whether this operation stands in the log above the commit index. Each entry
    /// is looked at once, however many repeats come: they come when the leader is
    /// behind already.
    fn has_seen(&mut self, operation: &Bytes) -> bool {
        let Role::Leader(leader) = &mut self.role else { return false };
        let seen = &mut leader.seen;
        if seen.through <= self.commit_index {
            seen.operations.clear();
            seen.through = self.commit_index;
        }
        for (index, entry) in self.log.from(seen.through.next()) {
            if let Payload::Client(operation) = &entry.payload {
                seen.operations.insert(operation.clone());
            }
            seen.through = index;
        }
        seen.operations.contains(operation)
    }
}
