//! What a node knows to be agreed, as data: `Committed`, one `Entry`, the
//! `Member`s and a node's `Role`.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One committed entry of the log: a value that a client sent and the cluster agreed on.
///
/// A clone costs one reference count and shares the bytes. The value is kept as
/// the JSON text that the client sent, and parsed when it is asked for. See
/// [`new`](Entry::new) and [`parse`](Entry::parse) for examples.
///
/// Two entries are equal if index, term, id and the JSON's text are.
#[derive(Clone)]
pub struct Entry {
    /// Its place in the log, from 1 on. Indexes grow from entry to entry, with gaps where
    /// the protocol has entries of its own.
    pub index: u64,
    /// The term of the leader that put it into the log, from 1 on.
    pub term: u64,
    /// The client's whole operation, as it travels; id and JSON are parts of it.
    payload: Bytes,
    id: Part,
    json: Part,
}

/// Where in the payload something stands. Payloads are far below 4 GiB.
#[derive(Clone, Copy)]
struct Part {
    start: u32,
    end: u32,
}

impl Part {
    /// A range that no payload can have becomes one that finds nothing.
    fn new(range: Range<usize>) -> Part {
        let short = |offset| u32::try_from(offset).unwrap_or(u32::MAX);
        Part { start: short(range.start), end: short(range.end) }
    }

    fn of(self, payload: &[u8]) -> &[u8] {
        payload.get(self.start as usize..self.end as usize).unwrap_or_default()
    }
}

impl Entry {
    /// An entry for tests of a [`StateMachine`](crate::StateMachine), with the value as
    /// its JSON and without an id. Nothing is committed.
    ///
    /// The error is that of a value that has no JSON, or none that can be read
    /// back; the same value is refused as a request.
    ///
    /// ```
    /// use kontiki::Entry;
    /// use serde_json::json;
    ///
    /// let entry = Entry::new(7, 2, &json!({"val": 1}))?;
    /// assert_eq!((entry.index, entry.term, entry.id()), (7, 2, None));
    /// assert_eq!(entry.json(), r#"{"val":1}"#);
    /// assert_eq!(format!("{entry:?}"), r#"Entry { index: 7, term: 2, json: {"val":1} }"#);
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn new<T: Serialize + ?Sized>(
        index: u64,
        term: u64,
        value: &T,
    ) -> Result<Entry, serde_json::Error> {
        let json = serde_json::to_vec(value)?;
        crate::request::check_json(&json)?;
        let whole = 0..json.len();
        Ok(Entry::from_parts(index, term, json.into(), 0..0, whole))
    }

    /// An entry whose id and JSON stand at these places of the payload; an empty
    /// `id` means that there is none. Places outside of the payload find nothing.
    pub(crate) fn from_parts(
        index: u64,
        term: u64,
        payload: Bytes,
        id: Range<usize>,
        json: Range<usize>,
    ) -> Entry {
        Entry { index, term, payload, id: Part::new(id), json: Part::new(json) }
    }

    /// The caller's own id, if the request had one ([`Request::id`](crate::Request::id)).
    /// See [`new`](Entry::new) for an example.
    pub fn id(&self) -> Option<&str> {
        str::from_utf8(self.id.of(&self.payload)).ok().filter(|id| !id.is_empty())
    }

    /// The value as JSON text. `null` if the bytes are not text, which no node of
    /// this library sends. See [`new`](Entry::new) for an example.
    pub fn json(&self) -> &str {
        match str::from_utf8(self.json.of(&self.payload)) {
            Ok(json) if !json.is_empty() => json,
            _ => "null",
        }
    }

    /// The value, parsed anew at each call. Never panics: what cannot be parsed
    /// is `Null`, and [`parse`](Entry::parse) gives the error.
    pub fn value(&self) -> Value {
        self.parse().unwrap_or_default()
    }

    /// The value as a type of the caller's, which may borrow from the entry.
    ///
    /// ```
    /// # use kontiki::Entry;
    /// let entry = Entry::new(1, 1, &("deposit", 10))?;
    /// let (verb, amount): (&str, u32) = entry.parse()?;
    /// assert_eq!((verb, amount), ("deposit", 10));
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn parse<'a, T: Deserialize<'a>>(&'a self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.json())
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        (self.index, self.term) == (other.index, other.term)
            && self.id() == other.id()
            && self.json() == other.json()
    }
}

impl Eq for Entry {}

/// The JSON as it is, not as a quoted string.
impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Entry");
        out.field("index", &self.index).field("term", &self.term);
        if let Some(id) = self.id() {
            out.field("id", &id);
        }
        out.field("json", &format_args!("{}", self.json())).finish()
    }
}

/// What one node knows to be agreed, at one moment.
///
/// It is this node's knowledge, taken without asking anyone: another node may
/// know more. What it says is never taken back: an `entry` once seen is in every
/// node's log at that index for ever. Clones are cheap but for the members' names.
///
/// ```
/// use kontiki::{Config, RaftNode, Role};
/// use serde_json::json;
///
/// # let free = std::net::UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
/// let node = RaftNode::new(Config::new([("node0", free)])?, "node0")?;
/// node.start()?;
/// node.client_request(json!("a value"))?.wait()?;
///
/// let known = node.check_committed_entry();
/// assert_eq!(known.entry.as_ref().unwrap().value(), json!("a value"));
/// assert_eq!((known.role, known.leader.as_deref()), (Role::Leader, Some("node0")));
/// assert!(known.is_voter() && known.quorum_ago.is_some());
/// let [member] = &known.members[..] else { panic!("{known}") };
/// assert!(member.is_up() && member.voter);
/// let token = member.verdict.unwrap().index; // a fencing token
/// assert_eq!(known.up_since, Some(token));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Committed {
    /// Whose knowledge it is.
    pub node: String,
    /// What the node is now.
    pub role: Role,
    /// The newest term that the node knows of; 0 before the first election.
    pub term: u64,
    /// Who leads in that term, as far as the node knows.
    pub leader: Option<String>,
    /// The newest committed entry that a client sent; `None` before the first.
    pub entry: Option<Entry>,
    /// The members of the cluster in order of name, as they are agreed: by the newest
    /// configuration that the node knows to be committed. Empty before it belongs to a
    /// cluster.
    pub members: Vec<Member>,
    /// Which life of this node this is: a random number that names its log, and what it
    /// remembers with it. A node that comes back without its log has another.
    pub incarnation: u64,
    /// How long ago this node was last in touch with a majority, itself or by way of its
    /// leader; `None` if never in this run. While it grows, the node is cut off.
    pub quorum_ago: Option<Duration>,
    /// Where in the log this very run of the node was agreed to be up; `None` while it is
    /// not. Its own token: what it does for the cluster it does under this index. It may be
    /// a moment late beside [`on_commit`](crate::Config::on_commit), so a smaller index than
    /// one that was read from an entry says nothing; a greater one, that it has been down.
    pub up_since: Option<u64>,
    /// The names that a fresh node still waits for before its cluster can be
    /// founded or joined; empty otherwise.
    pub waiting_for: Vec<String>,
    /// Who has this node's vote in its term, itself included; `None` while it has given none.
    pub voted_for: Option<String>,
    /// Up to where in the log this node knows all to be committed, entries of the protocol's
    /// own included; 0 before the first.
    pub commit_index: u64,
    /// Where this node's log ends. What it holds behind `commit_index` may still be taken
    /// back, so this may become smaller.
    pub last_index: u64,
    /// How long until it stands for election unless it hears its leader meanwhile; `None` for
    /// a node that leads, has no vote, or takes no part. A candidate asks again then.
    pub campaigns_in: Option<Duration>,
}

impl Committed {
    /// Whether this node votes: whether the members that are agreed name this very life
    /// of it as a voter.
    ///
    /// A node whose memory is lost counts as lost until this is true for what came
    /// back in its place: who restarts the nodes of a volatile cluster one after the
    /// other waits for it each time ([`guide::upgrading`](crate::guide::upgrading) has an
    /// example).
    pub fn is_voter(&self) -> bool {
        let own = |member: &&Member| member.incarnation == Some(self.incarnation);
        self.members.iter().find(own).is_some_and(|member| member.voter)
    }
}

/// One line for a person: who, what, and the newest entry.
impl fmt::Display for Committed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} in term {}", self.node, self.role, self.term)?;
        match &self.leader {
            Some(leader) => write!(f, ", leader {leader}")?,
            None => f.write_str(", no leader known")?,
        }
        match &self.entry {
            Some(entry) => write!(f, ", entry {}: {}", entry.index, entry.json())?,
            None => f.write_str(", nothing committed")?,
        }
        if !self.waiting_for.is_empty() {
            write!(f, ", waits for {}", self.waiting_for.join(", "))?;
        }
        Ok(())
    }
}

/// One member of the cluster, as the node that tells of it sees it. See [`Committed`] for an
/// example.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Member {
    /// Its name in the config.
    pub name: String,
    /// Its UDP address.
    pub address: SocketAddr,
    /// Whether it votes and counts; a learner only receives the log.
    pub voter: bool,
    /// Whether it is a learner that becomes a voter as soon as it has caught up.
    pub joining: bool,
    /// Which life of the node is meant ([`Committed::incarnation`]); `None` for one that
    /// was never heard.
    pub incarnation: Option<u64>,
    /// What the cluster has agreed on: whether it is up. `None` while that was never
    /// decided, as for a member that was never heard, and while this node does not know,
    /// as it may be for a moment after its own start.
    pub verdict: Option<Verdict>,
    /// How long ago this node heard anything from it: this node's own evidence,
    /// not an agreed verdict. `None` if not in this run, and for a life that another
    /// has followed under its name; zero for the node itself.
    ///
    /// A leader hears all members and is heard by them, many times a second; others hear
    /// each other now and then.
    pub heard_ago: Option<Duration>,
    /// Whether this node should have heard it by now, and has not: one of the two leads,
    /// and more than two heartbeats were missed. This node's own evidence, at once and
    /// often wrong; a node that is not in touch with a majority itself suspects nobody.
    pub suspected: bool,
}

impl Member {
    /// Whether it is agreed to be up. See [`Committed`] for an example.
    pub fn is_up(&self) -> bool {
        self.verdict.is_some_and(|verdict| verdict.up)
    }
}

/// What the cluster has agreed on of one member: an entry of the log, so that every node
/// passes through the same verdicts in the same order.
///
/// A member is agreed to be down when its leader has heard nothing of it for
/// `failure_timeout_ms`, and while a majority of the others was in touch; and to be up
/// again when it is heard steadily. A member that starts anew has been down, and so has
/// one that was removed or replaced. See [`Committed`] and
/// [`StateMachine::verdict`](crate::StateMachine::verdict) for examples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verdict {
    /// Whether it is up; else it is down.
    pub up: bool,
    /// Where in the log that was decided. A later verdict has a greater index, so it is a
    /// fencing token: what was begun under `up` at an index is void once any other verdict
    /// of that member is agreed.
    pub index: u64,
}

impl Verdict {
    /// A verdict for tests of a [`StateMachine`](crate::StateMachine), as
    /// [`Entry::new`] makes entries. Nothing is agreed.
    ///
    /// ```
    /// use kontiki::Verdict;
    ///
    /// let verdict = Verdict::new(false, 7);
    /// assert!(!verdict.up);
    /// assert_eq!(verdict.index, 7);
    /// ```
    pub fn new(up: bool, index: u64) -> Verdict {
        Verdict { up, index }
    }
}

/// What a node is at the moment (Raft §5.1). See [`Committed`] and
/// [`Event`](crate::Event) for examples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Role {
    /// Not started, or stopped: silent.
    Stopped,
    /// Started, and belongs to no cluster yet: its log is empty. It does not campaign.
    Fresh,
    /// Was a member of its cluster and is none any more: silent, unless it is added
    /// again.
    Removed,
    /// Receives the log and neither votes nor campaigns.
    Learner,
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Leads its term.
    Leader,
}

/// In small letters, as in the log's lines.
impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Role::Stopped => "stopped",
            Role::Fresh => "fresh",
            Role::Removed => "removed",
            Role::Learner => "learner",
            Role::Follower => "follower",
            Role::Candidate => "candidate",
            Role::Leader => "leader",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn entry(payload: &'static [u8], id: Range<usize>, json: Range<usize>) -> Entry {
        Entry::from_parts(3, 2, Bytes::from_static(payload), id, json)
    }

    #[test]
    fn id_and_json_are_parts_of_the_payload() {
        let entry = entry(b"..order-1{\"a\":1}", 2..9, 9..16);
        assert_eq!(entry.id(), Some("order-1"));
        assert_eq!(entry.json(), r#"{"a":1}"#);
        assert_eq!(entry.value(), json!({"a": 1}));
        assert_eq!(
            format!("{entry:?}"),
            r#"Entry { index: 3, term: 2, id: "order-1", json: {"a":1} }"#
        );
    }

    #[test]
    fn what_cannot_be_read_is_null_and_never_a_panic() {
        let backwards = Range { start: 2, end: 1 };
        for (payload, json) in [
            (&b"ab\xff"[..], 0..3),
            (b"{", 0..1),
            (b"1e999", 0..5),
            (b"\"\\ud800\"", 0..8),
            (b"1", 0..9),
            (b"1", 7..usize::MAX),
            (b"123", backwards.clone()),
            (b"", 0..0),
        ] {
            let entry = entry(payload, 0..0, json.clone());
            assert_eq!(entry.value(), Value::Null, "{payload:?} {json:?}");
            assert_eq!(entry.id(), None);
        }
        let no_json = entry(b"1e999", 0..0, 0..5);
        assert!(no_json.parse::<Value>().is_err());
        assert_eq!(entry(b"\xff\xfe1", 0..2, 2..3).id(), None);
        assert_eq!(entry(b"\xff\xfe", 0..0, 0..2).json(), "null");
        let deep = "[".repeat(200_000).into_bytes();
        let length = deep.len();
        let deep = Entry::from_parts(1, 1, deep.into(), 0..0, 0..length);
        assert_eq!(deep.value(), Value::Null);
    }

    #[test]
    fn equality_is_by_what_is_seen() {
        let one = entry(b"xx\"v\"", 0..0, 2..5);
        assert_eq!(one, entry(b"\"v\"", 0..0, 0..3));
        assert_ne!(one, entry(b"i\"v\"", 0..1, 1..4));
        assert_ne!(one, entry(b"\"w\"", 0..0, 0..3));
        assert_eq!(one, one.clone());
        assert_ne!(one, Entry { term: 3, ..one.clone() });
    }

    #[test]
    fn an_entry_for_tests_is_checked_like_a_request() {
        assert_eq!(Entry::new(1, 1, &json!([1])).unwrap().value(), json!([1]));
        let map = std::collections::BTreeMap::from([((1, 2), 3)]);
        assert!(Entry::new(1, 1, &map).is_err());
        let raw = serde_json::value::RawValue::from_string("1e999".into()).unwrap();
        assert!(Entry::new(1, 1, &raw).is_err());
    }

    #[test]
    fn committed_in_one_line() {
        let mut committed = Committed {
            node: "node1".into(),
            role: Role::Fresh,
            term: 0,
            leader: None,
            entry: None,
            members: Vec::new(),
            incarnation: 1,
            up_since: None,
            quorum_ago: None,
            waiting_for: vec!["node0".into(), "node2".into()],
            voted_for: None,
            commit_index: 0,
            last_index: 0,
            campaigns_in: None,
        };
        assert_eq!(
            committed.to_string(),
            "node1: fresh in term 0, no leader known, nothing committed, waits for node0, node2"
        );
        committed.role = Role::Follower;
        committed.term = 4;
        committed.leader = Some("node0".into());
        committed.entry = Some(Entry::new(9, 4, &json!({"val": 1})).unwrap());
        committed.waiting_for.clear();
        assert_eq!(
            committed.to_string(),
            "node1: follower in term 4, leader node0, entry 9: {\"val\":1}"
        );
    }
}
