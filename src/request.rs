//! What a client asks (`Request`), the answer (`Reply`), and the wait between
//! the two (`Pending`).
//!
//! A request is encoded in the caller's thread, where it will stay (`draft`). What
//! goes wrong at encoding is kept in the request, and `client_request` answers it as
//! `RequestError::Invalid`.

mod draft;
mod json;
mod look;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};
use std::{future::Future, pin::Pin};

use oneshot::AsyncReceiver;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::Value;

use crate::config;
use crate::core::message::Wish;
use crate::error::RequestError;
use crate::guard;
use crate::operation::ID_LIMIT_BYTES;

use self::json::{encode, encode_value};
use self::look::Look;

pub(crate) use self::draft::Draft;
pub(crate) use self::json::check_json;

/// What a client asks of the cluster: a command, a query, a lookup, other members or
/// another leader.
///
/// Any JSON value is a command: `client_request(json!({"val": 1}))`. To make a
/// request never fails and never blocks; a value that cannot be sent is
/// answered by `client_request` as [`RequestError::Invalid`], and nothing is changed then.
///
/// ```
/// use kontiki::Request;
/// use serde_json::json;
///
/// let plain = Request::from(json!({"val": 1}));
/// let named = Request::command(&("deposit", 10)).id("order-17");
/// let read = Request::query(&"balance");
/// let again = Request::lookup("order-17");
/// assert_eq!(format!("{named:?}"), r#"Request::command(["deposit",10]).id("order-17")"#);
/// # let _ = (plain, read, again);
/// ```
///
/// # What can be sent
///
/// Whatever `serde_json` writes and reads back: at most 127 arrays and objects
/// one in another, keys that are text (numbers and `bool`s as keys become text), numbers
/// within the range of `f64`. As `serde_json` has it, a `f64` that is NaN or
/// infinite becomes `null`, and an integer beyond 64 bits is read back as a `f64`.
#[derive(Clone)]
pub struct Request {
    kind: Kind,
}

/// A request as the node takes it.
#[derive(Clone)]
pub(crate) enum Kind {
    /// To be committed; and the caller's id.
    Command { draft: Draft, id: Option<String> },
    /// A question for the state machine, as JSON.
    Query { json: Vec<u8> },
    /// Which entry was committed under this id?
    Lookup { id: String },
    /// Other members, or another leader.
    Change(Wish),
    /// There is no such request, and why.
    Bad { reason: String },
}

impl Request {
    /// A value to be committed, once, and applied by every node.
    ///
    /// The value is encoded here, in the caller's thread, and not held on to.
    ///
    /// ```
    /// use kontiki::Request;
    ///
    /// #[derive(serde::Serialize)]
    /// enum Command<'a> {
    ///     Deposit { to: &'a str, amount: u64 },
    /// }
    ///
    /// let request = Request::command(&Command::Deposit { to: "ann", amount: 10 });
    /// assert_eq!(
    ///     format!("{request:?}"),
    ///     r#"Request::command({"Deposit":{"to":"ann","amount":10}})"#
    /// );
    /// ```
    pub fn command<T: Serialize + ?Sized>(value: &T) -> Request {
        Request::of(encode(value, Draft::new).map(|draft| Kind::Command { draft, id: None }))
    }

    /// A question for the state machine's `query`: a linearizable read that
    /// sees everything that was committed before it was asked, and adds nothing
    /// to the log. Without a state machine the answer is the newest committed value. See
    /// [`Config::state_machine`](crate::Config::state_machine) for an example.
    pub fn query<T: Serialize + ?Sized>(question: &T) -> Request {
        Request::of(encode(question, |json| Kind::Query { json: json.to_vec() }))
    }

    /// The reply to the command that was committed under this id, if its id is
    /// still remembered; else [`RequestError::NotFound`]. It is a linearizable
    /// read and adds nothing to the log. See [`id`](Request::id) for an example.
    pub fn lookup(id: impl Into<String>) -> Request {
        let id = id.into();
        Request::of(check_id(&id).map(|()| Kind::Lookup { id }))
    }

    /// The node `name`, which answers `at` this address, is to become a voter.
    ///
    /// It must have been started, with a file that names it and the members (it waits
    /// then). It joins as a learner, is brought up to date, by a snapshot if need be, and
    /// votes when it has caught up; the reply comes when that is committed. If it does not
    /// come in time the request ends as [`RequestError::Unknown`], and it goes on joining.
    /// A learner becomes a voter by this, too.
    ///
    /// # Changes of the members
    ///
    /// This, [`add_learner`](Request::add_learner),
    /// [`remove_member`](Request::remove_member) and
    /// [`transfer_leadership`](Request::transfer_leadership) are seen to the leader by
    /// any node. The [`Reply`] says what the members now are: its `value` is a map of
    /// names to `{"ip", "port", "role"}`, as the file has it, its `index` where that is
    /// stated in the log. [`RequestError::Refused`] says why not, and that nothing was
    /// changed: a name that is unknown, or a member already; another change under way
    /// (one at a time, Raft §6); no voter left, or too few in touch to go on; a newcomer
    /// that does not answer; too many. The file stays as it is: bring it up to date, for
    /// the next start of a node that has lost its log.
    ///
    /// ```no_run
    /// # let node = kontiki::RaftNode::new("cluster.json", "node0")?;
    /// use kontiki::Request;
    /// use std::net::SocketAddr;
    ///
    /// let at: SocketAddr = "127.0.0.1:5568".parse()?;
    /// let reply = node.client_request(Request::add_member("node3", at))?.wait()?;
    /// assert_eq!(reply.value["node3"]["role"], "voter");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn add_member(name: impl Into<String>, at: impl Into<SocketAddr>) -> Request {
        Request::add(name.into(), at.into(), true)
    }

    /// The node `name`, which answers `at` this address, is to become a learner, and to
    /// stay one: it receives the log, serves queries, takes requests, and never votes. The
    /// reply comes when it is a member. See [`add_member`](Request::add_member).
    pub fn add_learner(name: impl Into<String>, at: impl Into<SocketAddr>) -> Request {
        Request::add(name.into(), at.into(), false)
    }

    /// The member `name` is to be none any more: it falls silent, and its role is
    /// [`Removed`](crate::Role::Removed) when it has heard of it. A leader may remove
    /// itself: it leads until that is committed, and another takes over. See
    /// [`add_member`](Request::add_member).
    pub fn remove_member(name: impl Into<String>) -> Request {
        let name = name.into();
        Request::of(check_name(&name).map(|()| Kind::Change(Wish::Remove { name })))
    }

    /// The voter `to` is to lead (thesis §3.10). The leader brings it up to date and
    /// hands over at once, without an election timeout; commands wait meanwhile and are
    /// refused by nobody. If that fails, within the shortest election timeout, the
    /// request is refused and the leader goes on. The reply comes when `to` leads, with
    /// its term. See [`add_member`](Request::add_member).
    pub fn transfer_leadership(to: impl Into<String>) -> Request {
        let to = to.into();
        Request::of(check_name(&to).map(|()| Kind::Change(Wish::Transfer { to })))
    }

    fn add(name: String, address: SocketAddr, voter: bool) -> Request {
        let checked = check_name(&name).and_then(|()| check_address(address));
        Request::of(checked.map(|()| Kind::Change(Wish::Add { name, address, voter })))
    }

    /// Gives a command an id of the caller's, 1 to 256 bytes of text: while the
    /// cluster remembers it, the same id is committed once, and who asks again, at
    /// any node, gets the first one's reply. The last id given counts.
    ///
    /// All others have none: `client_request` answers `Invalid` then.
    ///
    /// ```
    /// # use kontiki::{Config, RaftNode, Request, RequestError};
    /// # use serde_json::json;
    /// # let free = std::net::UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
    /// # let node = RaftNode::new(Config::new([("node0", free)])?, "node0")?;
    /// # node.start()?;
    /// let order = || Request::from(json!({"buy": 3})).id("order-17");
    /// let first = node.client_request(order())?.wait()?;
    /// let again = node.client_request(order())?.wait()?; // committed once
    /// assert_eq!(first, again);
    ///
    /// // What has become of it?
    /// assert_eq!(node.client_request(Request::lookup("order-17"))?.wait()?.index, first.index);
    /// let other = node.client_request(Request::lookup("order-18"))?.wait();
    /// assert!(matches!(other, Err(RequestError::NotFound { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn id(mut self, id: impl Into<String>) -> Request {
        let id = id.into();
        let reason = match (&mut self.kind, check_id(&id)) {
            (Kind::Command { id: place, .. }, Ok(())) => {
                *place = Some(id);
                return self;
            }
            (Kind::Command { .. }, Err(reason)) => reason,
            (Kind::Query { .. }, _) => {
                "an id was given to a query; only a command has one, since only a command \
                 is committed"
                    .to_string()
            }
            (Kind::Lookup { .. }, _) => {
                "an id was given to a lookup beside the one that it looks for; only a command \
                 is committed under an id"
                    .to_string()
            }
            (Kind::Change(_), _) => {
                "an id was given to a change of the members; only a command has one".to_string()
            }
            (Kind::Bad { .. }, _) => return self,
        };
        Request { kind: Kind::Bad { reason } }
    }

    /// The request as the node takes it.
    pub(crate) fn into_kind(self) -> Kind {
        self.kind
    }

    fn of(kind: Result<Kind, String>) -> Request {
        Request { kind: kind.unwrap_or_else(|reason| Kind::Bad { reason }) }
    }
}

/// A command. The same as [`Request::command`], and a little quicker.
impl From<Value> for Request {
    fn from(value: Value) -> Request {
        Request::from(&value)
    }
}

/// A command. The same as [`Request::command`], and a little quicker.
impl From<&Value> for Request {
    fn from(value: &Value) -> Request {
        let draft = encode_value(value, Draft::new);
        Request::of(draft.map(|draft| Kind::Command { draft, id: None }))
    }
}

/// The call that makes it, with the JSON as it is.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Command { draft, id } => {
                let json = String::from_utf8_lossy(draft.json());
                write!(f, "Request::command({json})")?;
                id.iter().try_for_each(|id| write!(f, ".id({id:?})"))
            }
            Kind::Query { json } => {
                write!(f, "Request::query({})", String::from_utf8_lossy(json))
            }
            Kind::Lookup { id } => write!(f, "Request::lookup({id:?})"),
            Kind::Change(Wish::Add { name, address, voter: true }) => {
                write!(f, "Request::add_member({name:?}, {address})")
            }
            Kind::Change(Wish::Add { name, address, voter: false }) => {
                write!(f, "Request::add_learner({name:?}, {address})")
            }
            Kind::Change(Wish::Remove { name }) => write!(f, "Request::remove_member({name:?})"),
            Kind::Change(Wish::Transfer { to }) => {
                write!(f, "Request::transfer_leadership({to:?})")
            }
            Kind::Bad { reason } => write!(f, "Request::invalid({reason:?})"),
        }
    }
}

fn check_id(id: &str) -> Result<(), String> {
    match id.len() {
        0 => Err("the id is empty; it must have 1 to 256 bytes".to_string()),
        1..=ID_LIMIT_BYTES => Ok(()),
        bytes => Err(format!("the id has {bytes} bytes; it must have 1 to {ID_LIMIT_BYTES}")),
    }
}

/// The rules of a name in the file.
fn check_name(name: &str) -> Result<(), String> {
    match config::name_problem(name) {
        Some(problem) => Err(format!("{problem} cannot be a node's")),
        None => Ok(()),
    }
}

/// The rules of an address in the file.
fn check_address(address: SocketAddr) -> Result<(), String> {
    match config::address_problem(address) {
        Some(problem) => Err(format!("{address} {problem}")),
        None => Ok(()),
    }
}

/// The answer to a request that went well. See [`Pending`] for an example.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Reply {
    /// Where the command stands in the log; for a query, up to where the state
    /// that answered had been applied; for a lookup, where the command stands that it found;
    /// for a change of the members, where they are stated.
    pub index: u64,
    /// The term of that place; for a query, the term in which it was answered.
    pub term: u64,
    /// What the state machine answered. Without one: `Null` for a command, the
    /// newest committed value for a query (`Null` before the first), the
    /// original reply for a lookup. For a change of the members, what they now are.
    pub value: Value,
    /// Whether `value` is that answer. `false` only where the answer to a
    /// command that was committed earlier, under the same id, is no longer
    /// held: the command is committed, and `value` is `Null`.
    pub value_kept: bool,
}

/// How a request ends.
pub(crate) type Answer = Result<Reply, RequestError>;

/// A request on its way. Wait for it, poll it, await it, or drop it: the
/// request goes on all the same.
///
/// It is a `Future`, of no runtime in particular. The answer is kept: asked
/// again, by whichever way, it is the same. Every request is answered, at the
/// latest after the config's `request_timeout_ms`; one whose node is gone ends
/// as [`RequestError::Unknown`].
///
/// ```
/// use kontiki::{Config, RaftNode};
/// use serde_json::json;
/// use std::time::Duration;
///
/// # let free = std::net::UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
/// # let node = RaftNode::new(Config::new([("node0", free)])?, "node0")?;
/// # node.start()?;
/// // Wait for it.
/// let reply = node.client_request(json!(1))?.wait()?;
/// println!("committed at {} in term {}", reply.index, reply.term);
///
/// // Look now and then, and do something else meanwhile.
/// let mut pending = node.client_request(json!(2))?;
/// while pending.try_reply()?.is_none() {
///     std::thread::yield_now();
/// }
///
/// // Wait for a while.
/// let mut pending = node.client_request(json!(3))?;
/// match pending.wait_timeout(Duration::from_secs(5))? {
///     Some(reply) => println!("committed at {}", reply.index),
///     None => println!("not yet; it goes on"),
/// }
///
/// // Await it, in whatever runtime there is.
/// async fn commit(node: &RaftNode) -> Result<u64, kontiki::RequestError> {
///     Ok(node.client_request(json!(4))?.await?.index)
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Pending {
    state: State,
}

enum State {
    /// The receiver alone cannot be shared between threads. The lock is never
    /// taken, since every use has the `Pending` to itself.
    Waiting(Mutex<AsyncReceiver<Answer>>),
    Answered(Answer),
}

impl Pending {
    /// The answer comes by the receiver; a sender that is dropped means `Unknown`.
    pub(crate) fn new(receiver: AsyncReceiver<Answer>) -> Pending {
        Pending { state: State::Waiting(Mutex::new(receiver)) }
    }

    /// Blocks until the answer is there. See [`Pending`] for an example, as for the others.
    ///
    /// Within a node's own callbacks (`apply`, `query`, `on_commit`) it never
    /// blocks, since it would keep the answer from coming: if that is not
    /// there yet, it is [`RequestError::Invalid`] and the request goes on.
    pub fn wait(mut self) -> Result<Reply, RequestError> {
        self.block(None)?;
        match self.state {
            State::Answered(answer) => answer,
            State::Waiting(_) => unreachable!("blocked without a limit, and there is no answer"),
        }
    }

    /// Blocks until the answer is there, at most so long. `None` means not yet:
    /// the request goes on and may be waited for again.
    ///
    /// Within a node's own callbacks as [`wait`](Pending::wait): it does not block
    /// there, and only what is there already is answered.
    pub fn wait_timeout(&mut self, limit: Duration) -> Result<Option<Reply>, RequestError> {
        if limit.is_zero() {
            return self.try_reply();
        }
        // A limit that no clock can reach is none.
        self.block(Instant::now().checked_add(limit))?;
        self.answer().cloned().transpose()
    }

    /// The answer if it is there, without blocking. `None` means not yet.
    pub fn try_reply(&mut self) -> Result<Option<Reply>, RequestError> {
        self.look();
        self.answer().cloned().transpose()
    }

    fn answer(&self) -> Option<&Answer> {
        match &self.state {
            State::Answered(answer) => Some(answer),
            State::Waiting(_) => None,
        }
    }

    /// Whether the answer is there. Leaves a task's waker where it is.
    fn look(&mut self) -> bool {
        let State::Waiting(receiver) = &mut self.state else {
            return true;
        };
        let receiver = receiver.get_mut();
        let over = receiver.has_message() || receiver.is_closed();
        over && self.poll_answer(&mut Context::from_waker(Waker::noop()))
    }

    /// Whether the answer is there; if not, the context's waker is woken when it is.
    fn poll_answer(&mut self, context: &mut Context<'_>) -> bool {
        let State::Waiting(receiver) = &mut self.state else {
            return true;
        };
        match Pin::new(receiver.get_mut()).poll(context) {
            Poll::Ready(answer) => {
                self.state = State::Answered(answer.unwrap_or(Err(RequestError::Unknown)));
                true
            }
            Poll::Pending => false,
        }
    }

    /// Blocks until the answer is there or the deadline has passed.
    fn block(&mut self, deadline: Option<Instant>) -> Result<(), RequestError> {
        if self.look() {
            return Ok(());
        }
        if guard::inside_node() {
            let reason = "it was waited for within a node's own callback, which would keep the \
                          answer from coming; the request itself goes on: wait in another thread, \
                          or use try_reply";
            return Err(RequestError::Invalid { reason: reason.to_string() });
        }
        let mut look = Look::begin();
        while look.again(deadline) {
            if self.look() {
                return Ok(());
            }
        }
        let waker = thread_waker();
        let mut context = Context::from_waker(&waker);
        while !self.poll_answer(&mut context) {
            let Some(deadline) = deadline else {
                thread::park();
                continue;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            thread::park_timeout(left);
        }
        look.parked();
        Ok(())
    }
}

/// Ready with the answer, and again with the same whenever it is polled again.
impl Future for Pending {
    type Output = Result<Reply, RequestError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_answer(context);
        self.answer().cloned().map_or(Poll::Pending, Poll::Ready)
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("answer", &self.answer()).finish()
    }
}

/// Wakes a thread that waits.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

thread_local! {
    /// Made at a thread's first wait and used for all later ones. A wake that
    /// comes late, for an earlier wait, only makes the thread look once more.
    static THIS_THREAD: Waker = Waker::from(Arc::new(Unpark(thread::current())));
}

/// This thread's waker, or one of its own for a thread that is ending.
fn thread_waker() -> Waker {
    let fresh = || Waker::from(Arc::new(Unpark(thread::current())));
    THIS_THREAD.try_with(Waker::clone).unwrap_or_else(|_| fresh())
}
