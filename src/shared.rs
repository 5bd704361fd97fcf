//! What a `RaftNode` and its threads share: the queue, the bell, the gauge of what
//! is outstanding, and what is published. No lock stands on a request's way: it is
//! counted, queued, and the bell rung if the node sleeps.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};
use mio::Waker;
use parking_lot::Mutex;

use crate::committed::{Entry, Role, Verdict};
use crate::core::types::{Incarnation, WriteNumber};
use crate::engine::Done;
use crate::error::RequestError;
use crate::request::{Answer, Kind};

/// So many requests of one node may be outstanding, and so many bytes of them.
pub(crate) const OUTSTANDING_REQUESTS: usize = 65_536;
pub(crate) const OUTSTANDING_BYTES: usize = 256 * 1024 * 1024;

/// What comes to a node's thread besides datagrams.
pub(crate) enum Input {
    /// Take part from now on.
    Start,
    /// End the run of this number; any other is over already.
    Stop(u64),
    /// A request of the program.
    Request(Ticket, Kind),
    /// The machine's thread has done its job.
    Done(Box<Done>),
    /// The machine's thread panicked.
    MachinePanicked(String),
    /// In the run of this number, a write is durable, and all before it.
    Written(u64, WriteNumber),
    /// In the run of this number, the snapshot that was to be saved is durable, or
    /// found no room: then why.
    Saved(u64, Option<String>),
    /// In the run of this number, the disk failed: why.
    DiskFailed(u64, String),
}

/// How a node stands, as its callers see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Standing {
    NotStarted = 0,
    Running = 1,
    Stopped = 2,
    Failed = 3,
    /// A callback asked the run to end, and it will.
    Stopping = 4,
}

/// What is outstanding: the requests in the upper bits, below them their bytes, so that
/// both are counted at once.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicU64);

/// So many bits are for the bytes. What is above the limits is counted for a moment only,
/// by callers that are about to be refused.
const BYTES_BITS: u32 = 40;

impl Gauge {
    /// The requests and their bytes.
    fn read(outstanding: u64) -> (usize, usize) {
        let bytes = outstanding & ((1 << BYTES_BITS) - 1);
        ((outstanding >> BYTES_BITS) as usize, bytes as usize)
    }

    /// What one request of so many bytes counts.
    fn weight(bytes: usize) -> u64 {
        (1 << BYTES_BITS) + bytes as u64
    }

    fn requests(&self) -> usize {
        Gauge::read(self.0.load(Ordering::SeqCst)).0
    }
}

/// The right to one answer. It is counted as outstanding until it is dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    sender: Option<oneshot::Sender<Answer>>,
    bytes: usize,
    gauge: Arc<Gauge>,
}

impl Ticket {
    /// A ticket, if there is room for one more request of so many bytes.
    pub(crate) fn take(
        gauge: &Arc<Gauge>,
        bytes: usize,
        sender: oneshot::Sender<Answer>,
    ) -> Result<Ticket, RequestError> {
        // Sequentially consistent: see `Shared::refuse_all`.
        let outstanding = gauge.0.fetch_add(Gauge::weight(bytes), Ordering::SeqCst);
        let (requests, held) = Gauge::read(outstanding);
        let ticket = Ticket { sender: Some(sender), bytes, gauge: Arc::clone(gauge) };
        if requests >= OUTSTANDING_REQUESTS {
            return Err(RequestError::Busy { limit: OUTSTANDING_REQUESTS });
        }
        if held + bytes > OUTSTANDING_BYTES {
            return Err(RequestError::Busy { limit: OUTSTANDING_BYTES });
        }
        Ok(ticket)
    }

    /// Hands the answer over; nobody may be waiting any more. A waker of the
    /// caller's may run here.
    pub(crate) fn answer(mut self, answer: Answer) {
        if let Some(sender) = self.sender.take() {
            // A waker is its owner's code, and so is its panic.
            let _ = catch_unwind(AssertUnwindSafe(|| sender.send(answer)));
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let sender = self.sender.take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(sender)));
        self.gauge.0.fetch_sub(Gauge::weight(self.bytes), Ordering::SeqCst);
    }
}

/// What a node makes known of itself; `check_committed_entry` reads it.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) role: Role,
    pub(crate) term: u64,
    pub(crate) leader: Option<String>,
    pub(crate) entry: Option<Entry>,
    pub(crate) members: Vec<PublishedMember>,
    /// Where they are stated.
    pub(crate) members_at: u64,
    pub(crate) incarnation: u64,
    pub(crate) up_since: Option<u64>,
    /// How often somebody was up or down anew.
    pub(crate) turns: u64,
    pub(crate) quorum_at: Option<Instant>,
    pub(crate) waiting_for: Vec<String>,
    pub(crate) vote: Option<Incarnation>,
    /// Whose that is.
    pub(crate) voted_for: Option<String>,
    pub(crate) commit_index: u64,
    pub(crate) last_index: u64,
    pub(crate) campaigns_at: Option<Instant>,
}

/// One member, with when it was last heard.
#[derive(Clone, Debug)]
pub(crate) struct PublishedMember {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    pub(crate) voter: bool,
    pub(crate) joining: bool,
    pub(crate) incarnation: Option<u64>,
    pub(crate) verdict: Option<Verdict>,
    pub(crate) heard: Heard,
    pub(crate) suspected: bool,
}

/// When a member was last heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Never,
    At(Instant),
    /// It is the node itself.
    Own,
}

impl Published {
    /// Shows this entry, if it is newer: what was shown is never taken back, also
    /// while a node that was started again applies its log anew.
    pub(crate) fn reach(&mut self, newest: Option<&Entry>) {
        let shown = self.entry.as_ref().map(|entry| entry.index);
        if newest.map(|entry| entry.index) > shown {
            self.entry = newest.cloned();
        }
    }

    pub(crate) fn nothing() -> Published {
        Published {
            role: Role::Stopped,
            term: 0,
            leader: None,
            entry: None,
            members: Vec::new(),
            members_at: 0,
            incarnation: 0,
            up_since: None,
            turns: 0,
            quorum_at: None,
            waiting_for: Vec::new(),
            vote: None,
            voted_for: None,
            commit_index: 0,
            last_index: 0,
            campaigns_at: None,
        }
    }
}

/// What a `RaftNode` and its threads share.
pub(crate) struct Shared {
    pub(crate) name: String,
    queue: Sender<Input>,
    inputs: Receiver<Input>,
    waker: Waker,
    /// Whether the node's thread sleeps, or is about to: then the bell is rung.
    asleep: AtomicBool,
    /// The number of the run, and below it, in three bits, how it stands.
    state: AtomicU64,
    pub(crate) gauge: Arc<Gauge>,
    pub(crate) published: Mutex<Published>,
    failure: Mutex<Option<String>>,
}

impl Shared {
    pub(crate) fn new(name: &str, waker: Waker) -> Shared {
        let (queue, inputs) = crossbeam_channel::unbounded();
        Shared {
            name: name.to_string(),
            queue,
            inputs,
            waker,
            asleep: AtomicBool::new(false),
            state: AtomicU64::new(state(1, Standing::NotStarted)),
            gauge: Arc::default(),
            published: Mutex::new(Published::nothing()),
            failure: Mutex::new(None),
        }
    }

    pub(crate) fn standing(&self) -> Standing {
        match self.state.load(Ordering::SeqCst) & 7 {
            0 => Standing::NotStarted,
            1 => Standing::Running,
            2 => Standing::Stopped,
            3 => Standing::Failed,
            _ => Standing::Stopping,
        }
    }

    /// Lets this run take part. Requests come only after `Start` is in the queue,
    /// and what the run has said of itself meanwhile stands.
    pub(crate) fn start(&self, run: u64) {
        *self.failure.lock() = None;
        let before = self.state.load(Ordering::SeqCst);
        self.put(Input::Start);
        let running = state(run, Standing::Running);
        let _ = self.state.compare_exchange(before, running, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// Asks the run that takes part, if one does, to end.
    pub(crate) fn ask_to_stop(&self) {
        let now = self.state.load(Ordering::SeqCst);
        let run = now >> 3;
        let stopping = state(run, Standing::Stopping);
        if now == state(run, Standing::Running)
            && self
                .state
                .compare_exchange(now, stopping, Ordering::SeqCst, Ordering::SeqCst)
                .is_ok()
        {
            self.put(Input::Stop(run));
        }
    }

    /// The run is over, unless it has failed.
    pub(crate) fn stopped(&self, run: u64) {
        if self.state.load(Ordering::SeqCst) != state(run, Standing::Failed) {
            self.state.store(state(run, Standing::Stopped), Ordering::SeqCst);
        }
    }

    /// The node takes no part any more, and says why.
    pub(crate) fn fail(&self, run: u64, reason: String) {
        self.failure.lock().get_or_insert(reason);
        self.state.store(state(run, Standing::Failed), Ordering::SeqCst);
    }

    /// Why calls are refused now; `None` if they are not.
    pub(crate) fn refusal(&self) -> Option<RequestError> {
        match self.standing() {
            Standing::Running => None,
            Standing::NotStarted => Some(RequestError::NotStarted),
            Standing::Stopped | Standing::Stopping => Some(RequestError::Stopped),
            Standing::Failed => Some(RequestError::Failed { reason: self.failure_reason() }),
        }
    }

    pub(crate) fn failure_reason(&self) -> String {
        self.failure.lock().clone().unwrap_or_else(|| "the node failed".to_string())
    }

    /// Queues an input and rings the bell if the node sleeps.
    pub(crate) fn put(&self, input: Input) {
        // The receiver lives in the same value, so the queue is never closed.
        let _ = self.queue.send(input);
        if self.asleep.swap(false, Ordering::SeqCst) {
            // If the bell is broken the node's own deadlines wake it.
            let _ = self.waker.wake();
        }
    }

    /// The queue, as the node's thread sees it.
    pub(crate) fn inputs(&self) -> &Receiver<Input> {
        &self.inputs
    }

    /// The node's thread is about to sleep. False: there is something to do.
    pub(crate) fn may_sleep(&self) -> bool {
        self.asleep.store(true, Ordering::SeqCst);
        self.inputs.is_empty()
    }

    /// The node's thread is awake.
    pub(crate) fn awake(&self) {
        self.asleep.store(false, Ordering::SeqCst);
    }

    /// Ends what is in the queue, as the last thing that a run does: it does not
    /// take part any more, and holds no ticket. A caller takes his ticket, then looks
    /// how the node stands, then queues. So who took it too late to be seen here
    /// sees that the node has stopped; who is seen is waited for, and that is short.
    ///
    /// Says what went wrong after the run was over, if anything did.
    pub(crate) fn refuse_all(&self, error: &RequestError) -> Option<String> {
        let mut late = None;
        loop {
            let last = self.gauge.requests() == 0;
            while let Ok(input) = self.inputs.try_recv() {
                match input {
                    Input::Request(ticket, _) => ticket.answer(Err(error.clone())),
                    Input::DiskFailed(_, reason) => late = Some(reason),
                    _ => {}
                }
            }
            if last {
                return late;
            }
            std::thread::yield_now();
        }
    }
}

fn state(run: u64, standing: Standing) -> u64 {
    run << 3 | standing as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(gauge: &Arc<Gauge>, bytes: usize) -> Result<Ticket, usize> {
        let (sender, _) = oneshot::async_channel();
        Ticket::take(gauge, bytes, sender).map_err(|error| match error {
            RequestError::Busy { limit } => limit,
            other => panic!("{other}"),
        })
    }

    #[test]
    fn what_is_outstanding_has_two_bounds_and_is_counted_down() {
        let gauge = Arc::<Gauge>::default();
        let half = take(&gauge, OUTSTANDING_BYTES / 2).expect("there is room");
        let other = take(&gauge, OUTSTANDING_BYTES / 2).expect("there is just room enough");
        assert_eq!(take(&gauge, 1).err(), Some(OUTSTANDING_BYTES));
        let none = take(&gauge, 0).expect("bytes are full, requests are not");
        drop((half, none));
        let again = take(&gauge, OUTSTANDING_BYTES / 2).expect("there is room again");
        drop((other, again));

        let many: Vec<Ticket> =
            (0..OUTSTANDING_REQUESTS).map(|_| take(&gauge, 1000).expect("there is room")).collect();
        assert_eq!(take(&gauge, 0).err(), Some(OUTSTANDING_REQUESTS));
        drop(many);
        assert_eq!(gauge.0.load(Ordering::SeqCst), 0);
    }
}
