//! `RaftNode`: the five calls.

use std::fmt;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::{Poll, Waker};
use parking_lot::Mutex;

use crate::committed::{Committed, Member, Role};
use crate::config::Config;
use crate::core::Saved;
use crate::core::types::Incarnation;
use crate::driver::{self, Ended, NodeThread};
use crate::engine::public_role;
use crate::error::{Error, RequestError};
use crate::guard;
use crate::request::{Kind, Pending, Request};
use crate::shared::{Heard, Input, Shared, Standing, Ticket};

/// One node of a cluster, with an OS thread of its own.
///
/// It is made by [`new`](RaftNode::new), takes part from [`start`](RaftNode::start)
/// to [`stop`](RaftNode::stop), and does all its work in its own threads: no call
/// but `start` and `stop` ever blocks. All calls may be made from any thread, also
/// at the same time. Dropping it stops it.
///
/// Here a cluster has one node, which is a majority by itself; the [crate's page](crate) has
/// three.
///
/// ```
/// use kontiki::{Config, RaftNode, Role};
/// use serde_json::json;
///
/// # let free = std::net::UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
/// let node = RaftNode::new(Config::new([("node0", free)])?, "node0")?;
/// assert_eq!(node.check_committed_entry().role, Role::Stopped);
///
/// node.start()?;
/// let reply = node.client_request(json!({"val": 1}))?.wait()?;
/// println!("committed at {} in term {}", reply.index, reply.term);
///
/// node.stop();
/// node.start()?; // with all that it knew
/// assert_eq!(node.check_committed_entry().entry.unwrap().index, reply.index);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct RaftNode {
    shared: Arc<Shared>,
    config: Config,
    name: String,
    life: Mutex<Life>,
}

/// Where the node's thread is.
struct Life {
    /// The number of the last run.
    run: u64,
    thread: Thread,
}

enum Thread {
    /// It waits for `start`, or runs, or has ended by itself.
    Up(JoinHandle<Option<Ended>>),
    /// It is joined; the next `start` makes another.
    Down(Box<Down>),
    /// It was lost with all it held, which no code of ours lets happen.
    Lost,
}

/// What is kept between a stop and a start.
struct Down {
    poll: Poll,
    saved: Saved,
}

impl RaftNode {
    /// Makes the node `name` of a config: a path, a `serde_json::Value`, a
    /// [`Config`] or a reference to one.
    ///
    /// What can fail fails here: the config is read and checked, the node's UDP
    /// socket bound, its folder locked and its log recovered if the config has a
    /// `data_dir`, its state machine made, its thread spawned (and named after the
    /// node). Blocks for as long as that takes. The node is silent until it is started.
    /// Without a `data_dir` its log is empty.
    ///
    /// [`Error::Config`] if the config has a mistake or does not have the name;
    /// [`Error::Io`] if the address cannot be bound or the folder not be locked (another
    /// node may have it), if there is no room on the disk or no thread to be had;
    /// [`Error::Storage`] if the folder holds a damaged log, or that of another node or
    /// cluster ([`inspect`](crate::inspect) tells more); [`Error::Machine`] if the state
    /// machine cannot be made. Nothing is left running then, and what the folder held it
    /// still holds. What to do about each: [`guide::no_start`](crate::guide::no_start).
    ///
    /// ```
    /// # let free = std::net::UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
    /// use kontiki::RaftNode;
    /// use serde_json::json;
    ///
    /// let keys = json!({"nodes": {"node0": {"ip": "127.0.0.1", "port": free.port()}}});
    /// let node = RaftNode::new(&keys, "node0")?;
    /// # drop(node);
    /// let error = RaftNode::new(&keys, "node1").unwrap_err();
    /// assert!(error.to_string().contains("node1"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new<C>(config: C, name: &str) -> Result<RaftNode, Error>
    where
        C: TryInto<Config>,
        Error: From<C::Error>,
    {
        let config: Config = config.try_into()?;
        config.check_name(name)?;
        let poll = Poll::new().map_err(doing("make the node's poll"))?;
        let waker =
            Waker::new(poll.registry(), driver::WAKER).map_err(doing("make the node's bell"))?;
        let shared = Arc::new(Shared::new(name, waker));
        let saved = Saved::empty(Incarnation(driver::random_nonzero()?));
        let down = Box::new(Down { poll, saved });
        let (thread, error) = spawn(&shared, &config, down, 1);
        if let Some(error) = error {
            return Err(error);
        }
        let life = Mutex::new(Life { run: 1, thread });
        Ok(RaftNode { shared, config, name: name.to_string(), life })
    }

    /// The node takes part from now on.
    ///
    /// Idempotent. After [`stop`](RaftNode::stop), or after the node failed, it takes
    /// thread, socket and folder again (and blocks for that long) and rejoins as after a
    /// crash: with its log, term and vote, and nothing else. After a panic of its
    /// own its memory is not trusted: without a `data_dir` it comes back with an empty
    /// log, as a new life that the cluster admits.
    ///
    /// The errors are those of [`new`](RaftNode::new); the node stays stopped then, and
    /// keeps what it remembers. Called from within a callback of a node's own
    /// (`apply`, `on_commit`, a waker) a stopped node is not started: [`Error::Failed`].
    ///
    /// See [`RaftNode`] for an example.
    pub fn start(&self) -> Result<(), Error> {
        if guard::inside_node() {
            return match self.shared.standing() {
                Standing::Running => Ok(()),
                _ => Err(Error::Failed {
                    reason: "a node cannot be started from within a node's callback".to_string(),
                }),
            };
        }
        let mut life = self.life.lock();
        let idle = match &life.thread {
            Thread::Up(thread) => match self.shared.standing() {
                Standing::Running => return Ok(()),
                Standing::NotStarted => !thread.is_finished(),
                Standing::Stopping | Standing::Stopped | Standing::Failed => false,
            },
            Thread::Down(_) | Thread::Lost => false,
        };
        if !idle {
            let down = self.join(&mut life)?;
            life.run += 1;
            let (thread, error) = spawn(&self.shared, &self.config, down, life.run);
            life.thread = thread;
            if let Some(error) = error {
                return Err(error);
            }
        }
        self.shared.start(life.run);
        Ok(())
    }

    /// The node falls silent, at once and for all others to see as if it were gone.
    ///
    /// Outstanding requests end: with [`RequestError::Stopped`] if they were never
    /// sent, else with [`RequestError::Unknown`]. Blocks until the thread has ended
    /// (an `apply` that is under way is waited for, and all writes that are: as long as a
    /// disk hangs, so do `stop`, drop and another `start`) and socket and folder are
    /// released: another `RaftNode` may take this one's place at once. Idempotent; drop
    /// does it too.
    ///
    /// Called from within a callback of a node's own (`apply`, `on_commit`, a waker)
    /// it does not wait: the node ends soon after. Like any call that waits, it must
    /// not be made with something locked that a callback of this node waits for.
    ///
    /// See [`RaftNode`] for an example.
    pub fn stop(&self) {
        if guard::inside_node() {
            return self.shared.ask_to_stop();
        }
        let mut life = self.life.lock();
        if let Ok(down) = self.join(&mut life) {
            life.thread = Thread::Down(down);
        }
    }

    /// Takes a request and sees it to the leader, wherever that is, through lost
    /// datagrams and changes of leader. Never blocks.
    ///
    /// A JSON value is a command to commit; see [`Request`] for the other kinds.
    /// The command is committed at most once. The [`Pending`] is waited on, polled,
    /// awaited, or dropped: then the request goes on all the same.
    ///
    /// **In any order.** Requests that are outstanding at one node at the same time may be
    /// applied in any order, whoever asked first: what was lost on its way is sent again behind
    /// what came after it. Who needs an order waits for the first before asking the second, or
    /// puts both into one command. A query sees what was committed before it was asked, and so
    /// not for certain a command that is still outstanding.
    ///
    /// ```
    /// # use kontiki::{Config, RaftNode, RequestError};
    /// # use serde_json::json;
    /// # let free = std::net::UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
    /// # let node = RaftNode::new(Config::new([("node0", free)])?, "node0")?;
    /// # node.start()?;
    /// // Many at once, in any order.
    /// let asked: Result<Vec<_>, _> = (0..100).map(|n| node.client_request(json!(n))).collect();
    /// for pending in asked? {
    ///     pending.wait()?;
    /// }
    /// // One after the other.
    /// let first = node.client_request(json!("first"))?.wait()?;
    /// let second = node.client_request(json!("second"))?.wait()?;
    /// assert!(first.index < second.index);
    /// // Both at the same place of the log.
    /// node.client_request(json!(["first", "second"]))?.wait()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// The error of this call means that nothing was sent: [`RequestError::NotStarted`],
    /// [`Stopped`](RequestError::Stopped) or [`Failed`](RequestError::Failed) if the node
    /// takes no part; [`Invalid`](RequestError::Invalid) if there is no such request;
    /// [`TooLarge`](RequestError::TooLarge) above `max_value_bytes`;
    /// [`Busy`](RequestError::Busy) with 65,536 requests or 256 MiB of them outstanding.
    pub fn client_request(&self, request: impl Into<Request>) -> Result<Pending, RequestError> {
        let kind = request.into().into_kind();
        if let Some(refusal) = self.shared.refusal() {
            return Err(refusal);
        }
        let bytes = match &kind {
            Kind::Command { draft, .. } => draft.json().len(),
            Kind::Query { json } => json.len(),
            Kind::Lookup { id } => id.len(),
            Kind::Change(_) => 0,
            Kind::Bad { reason } => return Err(RequestError::Invalid { reason: reason.clone() }),
        };
        let limit = self.config.settings().max_value_bytes;
        if bytes > limit && !matches!(kind, Kind::Lookup { .. }) {
            return Err(RequestError::TooLarge { bytes, limit });
        }
        let (sender, receiver) = oneshot::async_channel();
        let ticket = Ticket::take(&self.shared.gauge, bytes, sender)?;
        // Again, now that a run that ends waits for this ticket.
        if let Some(refusal) = self.shared.refusal() {
            return Err(refusal);
        }
        self.shared.put(Input::Request(ticket, kind));
        Ok(Pending::new(receiver))
    }

    /// What this node knows to be agreed, and how it stands, as one value. Never
    /// blocks and asks nobody. See [`Committed`] for an example.
    pub fn check_committed_entry(&self) -> Committed {
        let now = Instant::now();
        let ago = |at: Instant| now.saturating_duration_since(at);
        let standing = self.shared.standing();
        let published = self.shared.published.lock();
        let running = standing == Standing::Running;
        let member = |member: &crate::shared::PublishedMember| Member {
            name: member.name.clone(),
            address: member.address,
            voter: member.voter,
            joining: member.joining,
            incarnation: member.incarnation,
            verdict: member.verdict,
            heard_ago: match member.heard {
                Heard::Never => None,
                Heard::At(at) => Some(ago(at)),
                Heard::Own => Some(Duration::ZERO),
            },
            suspected: member.suspected && running,
        };
        Committed {
            node: self.name.clone(),
            role: if running { published.role } else { Role::Stopped },
            term: published.term,
            leader: published.leader.clone().filter(|_| running),
            entry: published.entry.clone(),
            members: published.members.iter().map(member).collect(),
            incarnation: published.incarnation,
            up_since: published.up_since.filter(|_| running),
            quorum_ago: published.quorum_at.map(ago),
            waiting_for: published.waiting_for.clone(),
            voted_for: published.voted_for.clone(),
            commit_index: published.commit_index,
            last_index: published.last_index,
            campaigns_in: published
                .campaigns_at
                .filter(|_| running)
                .map(|at| at.saturating_duration_since(now)),
        }
    }

    /// Ends the thread if there is one, and gives what it left.
    fn join(&self, life: &mut Life) -> Result<Box<Down>, Error> {
        let lost = || Error::Failed { reason: format!("the thread of {} was lost", self.name) };
        match std::mem::replace(&mut life.thread, Thread::Lost) {
            Thread::Down(down) => Ok(down),
            Thread::Up(thread) => {
                self.shared.put(Input::Stop(life.run));
                let ended = thread.join().ok().flatten();
                let Ended { poll, saved } = ended.ok_or_else(lost)?;
                Ok(Box::new(Down { poll, saved }))
            }
            Thread::Lost => Err(lost()),
        }
    }
}

/// Spawns a node's thread, silent until `Input::Start`. With an error, the thread
/// is down and keeps what was saved.
fn spawn(
    shared: &Arc<Shared>,
    config: &Config,
    down: Box<Down>,
    run: u64,
) -> (Thread, Option<Error>) {
    let prepared = match driver::prepare(config, &shared.name, down.poll.registry()) {
        Ok(prepared) => prepared,
        Err(error) => return (Thread::Down(down), Some(error)),
    };
    let saved = prepared.recovered().unwrap_or(&down.saved);
    if saved.hard.cluster.is_none() && down.saved.hard.cluster.is_some() {
        log::warn!(
            target: "kontiki",
            "{}: its folder is empty, and was not when it stopped: it begins a new log",
            shared.name
        );
    }
    {
        let role = public_role(saved.role());
        let mut published = shared.published.lock();
        // What it comes back as; its thread says more as soon as it takes part.
        published.role = role;
        published.term = saved.hard.term.0;
        published.incarnation = saved.incarnation.0;
        // A new life knows nothing; another run of the same goes on from here.
        published.entry.take_if(|_| saved.hard.cluster.is_none());
        published.leader = None;
        // A vote's name is known when it takes part.
        (published.vote, published.voted_for) = (None, None);
        if saved.hard.cluster.is_none() {
            published.commit_index = 0;
        }
        published.last_index = saved.log.last_index().0;
        published.campaigns_at = None;
        published.quorum_at = None;
        published.up_since = None;
        for member in &mut published.members {
            (member.heard, member.suspected) = (Heard::Never, false);
        }
        published.waiting_for.clear();
    }
    // A thread that cannot be spawned drops what it was to own, so it takes that
    // out of a slot when it runs.
    let slot = Arc::new(Mutex::new(Some(down)));
    let theirs = Arc::clone(&slot);
    let (shared, config) = (Arc::clone(shared), config.clone());
    let name = shared.name.clone();
    let body = move || {
        let Down { poll, saved } = *theirs.lock().take()?;
        Some(NodeThread { shared, config, prepared, poll, saved, run }.run())
    };
    let spawned = std::thread::Builder::new().name(name.clone()).spawn(body);
    match (spawned, slot) {
        (Ok(thread), _) => (Thread::Up(thread), None),
        (Err(source), slot) => {
            let thread = slot.lock().take().map_or(Thread::Lost, Thread::Down);
            (thread, Some(Error::Io { doing: format!("spawn the thread of {name}"), source }))
        }
    }
}

fn doing(doing: &str) -> impl FnOnce(std::io::Error) -> Error + '_ {
    move |source| Error::Io { doing: doing.to_string(), source }
}

impl Drop for RaftNode {
    fn drop(&mut self) {
        self.stop();
        // Within a callback `stop` leaves a thread that was never started as it
        // is; nobody can start it now.
        if let Thread::Up(_) = self.life.get_mut().thread {
            self.shared.put(Input::Stop(self.life.get_mut().run));
        }
    }
}

impl fmt::Debug for RaftNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RaftNode")
            .field("name", &self.name)
            .field("standing", &self.shared.standing())
            .finish_non_exhaustive()
    }
}
