//! The user's state machine: what committed entries are for.

use serde_json::Value;

use crate::committed::{Entry, Verdict};
use crate::error::BoxError;

/// A program's own state, kept the same on every node by applying the same
/// committed entries in the same order.
///
/// Give the config a maker of one ([`Config::state_machine`](crate::Config::state_machine));
/// each node makes its own. A machine is used by one thread at a time, in a
/// thread of the node's own: what takes long there delays replies and queries of
/// this node, and the node's `stop`, which waits for the call under way. It
/// costs no heartbeat.
///
/// **Deterministic.** `apply` may depend on nothing but the machine's state and
/// the entry: no clock, no chance, no environment, no order of a `HashMap`, no
/// result of I/O. What varies goes into the entry, decided by who sends it. Two
/// nodes whose machines differ answer differently for ever, and nothing notices.
///
/// **Panics.** A panic in any of these methods stops this node for good; the
/// program goes on, and the node's next call says why. All nodes apply the same
/// entry, so an `apply` that panics takes them all: answer a bad entry with a
/// value that says so.
///
/// **Waiting.** Within these methods, [`Pending::wait`](crate::Pending::wait) answers with an
/// error instead of blocking, and `stop` does not wait.
///
/// ```
/// use kontiki::{BoxError, Entry, StateMachine};
/// use serde_json::{Value, json};
///
/// /// Adds up the numbers that it is given.
/// #[derive(Default)]
/// struct Sum(i64);
///
/// impl StateMachine for Sum {
///     fn apply(&mut self, entry: &Entry) -> Value {
///         let Ok(number) = entry.parse::<i64>() else { return json!({"error": "not a number"}) };
///         self.0 = self.0.wrapping_add(number);
///         json!(self.0)
///     }
///     fn query(&self, _: &Value) -> Value {
///         json!(self.0)
///     }
///     fn snapshot(&self) -> Result<Vec<u8>, BoxError> {
///         Ok(self.0.to_le_bytes().to_vec())
///     }
///     fn restore(&mut self, snapshot: &[u8]) -> Result<(), BoxError> {
///         self.0 = i64::from_le_bytes(snapshot.try_into()?);
///         Ok(())
///     }
/// }
///
/// let mut sum = Sum::default();
/// assert_eq!(sum.apply(&Entry::new(1, 1, &40)?), json!(40));
/// assert_eq!(sum.apply(&Entry::new(2, 1, &2)?), json!(42));
/// # Ok::<(), serde_json::Error>(())
/// ```
pub trait StateMachine: Send + 'static {
    /// Takes the next committed entry and answers with the value that becomes
    /// [`Reply::value`](crate::Reply::value) for the client that sent it.
    ///
    /// Called once for each client entry, in order of index; indexes have gaps
    /// where the protocol has entries of its own. After a restart, a new machine is
    /// given the newest snapshot, if there is one, and the entries after it. An entry
    /// is durable on this node before it comes here. Must be deterministic, see above; the value as much as the state.
    fn apply(&mut self, entry: &Entry) -> Value;

    /// Takes the news that a member is agreed to be up, or down
    /// ([`Member::verdict`](crate::Member::verdict)). By default it does nothing.
    ///
    /// Called in the order of the log, among the entries: every machine that has been given
    /// the entries before `verdict.index` and none behind it is told there. So what depends
    /// on who is up may be decided here, the same on every node: a job of a dead worker goes
    /// to another, and its late result finds that it has. Must be deterministic as
    /// [`apply`](StateMachine::apply) is, and what it makes of it is part of the snapshot: what
    /// a snapshot stands for is not told again.
    ///
    /// One entry may say several things, which come one after the other with one index. So a
    /// machine that keeps its state on a disk of its own ([`applied`](StateMachine::applied))
    /// must not count an index as applied at the first of them, but when something behind it
    /// comes; what it has taken and not counted is told again.
    ///
    /// ```
    /// # use kontiki::{BoxError, Entry, StateMachine, Verdict};
    /// # use serde_json::{Value, json};
    /// # use std::collections::BTreeMap;
    /// /// Who has which job.
    /// #[derive(Default)]
    /// struct Jobs(BTreeMap<u64, String>);
    ///
    /// impl StateMachine for Jobs {
    ///     fn verdict(&mut self, member: &str, verdict: Verdict) {
    ///         if !verdict.up {
    ///             self.0.retain(|_, worker| worker != member); // free for others
    ///         }
    ///     }
    ///     // apply, query, snapshot, restore
    /// #   fn apply(&mut self, _: &Entry) -> Value {
    /// #       Value::Null
    /// #   }
    /// #   fn query(&self, _: &Value) -> Value {
    /// #       Value::Null
    /// #   }
    /// #   fn snapshot(&self) -> Result<Vec<u8>, BoxError> {
    /// #       Ok(Vec::new())
    /// #   }
    /// #   fn restore(&mut self, _: &[u8]) -> Result<(), BoxError> {
    /// #       Ok(())
    /// #   }
    /// }
    ///
    /// let mut jobs = Jobs([(5, "worker1".to_string())].into());
    /// jobs.verdict("worker1", Verdict::new(false, 34));
    /// assert!(jobs.0.is_empty());
    /// ```
    fn verdict(&mut self, member: &str, verdict: Verdict) {
        let _ = (member, verdict);
    }

    /// Answers a question about the state as it is; changes nothing.
    ///
    /// Called for [`Request::query`](crate::Request::query), when everything that was committed
    /// before the question was asked has been applied here.
    fn query(&self, query: &Value) -> Value;

    /// The whole state as bytes, from which [`restore`](StateMachine::restore) makes the same state.
    ///
    /// Called after every `snapshot_every` entries, or less often if the state is
    /// large. The log up to there is let go when the snapshot is kept, and a node that is
    /// far behind is sent the snapshot. The bytes may be of any form; they are held in
    /// memory as a whole, up to 64 GiB. An error leaves the log as long as it is; the
    /// snapshot is tried again later.
    fn snapshot(&self) -> Result<Vec<u8>, BoxError>;

    /// Replaces the whole state by that of a snapshot, perhaps of another node.
    ///
    /// Whatever the machine held before is gone afterwards. The bytes are what a
    /// `snapshot` gave, perhaps of an earlier version of the program. An error
    /// stops the node, which then says so.
    fn restore(&mut self, snapshot: &[u8]) -> Result<(), BoxError>;

    /// The index of the last entry that is already in the state, for a machine
    /// that keeps its state on a disk of its own; 0 for one that starts empty.
    ///
    /// Asked once, when the node starts. Entries up to it are not applied again, nor is
    /// a snapshot restored that ends at or before it, so it must have become durable
    /// together with the state that it speaks of. Who asks again for a reply of a
    /// skipped entry gets one whose value was not kept
    /// ([`Reply::value_kept`](crate::Reply::value_kept)). A machine that is ahead of the
    /// node's log gets no queries until the log has come as far.
    ///
    /// `examples/kv/store.rs` is such a machine, with its state in a database (redb).
    fn applied(&self) -> u64 {
        0
    }
}

/// A boxed machine is a machine, so that a maker can choose among several.
impl<M: StateMachine + ?Sized> StateMachine for Box<M> {
    fn apply(&mut self, entry: &Entry) -> Value {
        (**self).apply(entry)
    }

    fn verdict(&mut self, member: &str, verdict: Verdict) {
        (**self).verdict(member, verdict);
    }

    fn query(&self, query: &Value) -> Value {
        (**self).query(query)
    }

    fn snapshot(&self) -> Result<Vec<u8>, BoxError> {
        (**self).snapshot()
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), BoxError> {
        (**self).restore(snapshot)
    }

    fn applied(&self) -> u64 {
        (**self).applied()
    }
}

/// What a maker of machines may give. Sealed by being out of reach.
pub(crate) mod sealed {
    use super::{BoxError, StateMachine};

    /// A machine, or a `Result` of one, since opening a database can fail.
    pub trait IntoMachine {
        /// The machine that it becomes.
        type Machine: StateMachine;

        /// The machine, or why there is none.
        fn into_machine(self) -> Result<Self::Machine, BoxError>;
    }

    impl<M: StateMachine> IntoMachine for M {
        type Machine = M;

        fn into_machine(self) -> Result<M, BoxError> {
            Ok(self)
        }
    }

    impl<M: StateMachine, E: Into<BoxError>> IntoMachine for Result<M, E> {
        type Machine = M;

        fn into_machine(self) -> Result<M, BoxError> {
            self.map_err(E::into)
        }
    }
}
