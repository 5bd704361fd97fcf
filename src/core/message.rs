//! What nodes say to each other, message by message. Each goes to one node.
//!
//! A message travels in an `Envelope` that says which cluster it is of, which
//! life sent it and for which life it is meant. Numbers in messages (rounds,
//! sequence numbers, reads) belong to the run of the node that drew them.

use bytes::Bytes;

use ::core::net::SocketAddr;

use super::membership::Membership;
use super::snapshot::SnapshotId;
use super::types::{ClusterId, Entry, Incarnation, Index, Life, Run, Term};

/// A message with its sender and addressee, as it is after decoding.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Envelope {
    /// The sender's cluster; 0 while the sender is fresh.
    pub cluster: ClusterId,
    /// Who sent it.
    pub from: Life,
    /// For whom it is meant, as the sender knows it; zeros only in a `Hello`.
    pub to: Life,
    /// What it says.
    pub message: Message,
}

/// One message. The names are the paper's where it has one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// Who are you, and this is who I am (`lives`).
    Hello(Hello),
    /// The founding record, passed on to a fresh node that it names (`lives`).
    Found(Found),
    /// Would you vote for me? (thesis §9.6)
    PreVote(PreVote),
    /// The answer to a `PreVote`; changes nothing at the one that answers.
    PreVoteReply(PreVoteReply),
    /// Vote for me (Raft §5.2).
    RequestVote(RequestVote),
    /// The answer to a `RequestVote`, sent when it is durable.
    RequestVoteReply(RequestVoteReply),
    /// Entries that follow on a known one (Raft §5.3).
    AppendEntries(AppendEntries),
    /// The answer to `AppendEntries`.
    AppendEntriesReply(AppendEntriesReply),
    /// The leader lives; carries no entries.
    Heartbeat(Heartbeat),
    /// The answer to a `Heartbeat`.
    HeartbeatReply(HeartbeatReply),
    /// More is committed; no answer is wanted.
    Commit(Commit),
    /// From which index on is a read linearizable? (thesis §6.4)
    ReadIndex(ReadIndex),
    /// The answer to a `ReadIndex`.
    ReadIndexReply(ReadIndexReply),
    /// Clients' operations on their way to the leader.
    Propose(Propose),
    /// A piece of a snapshot, for a log that ends before the leader's begins (Raft §7).
    InstallSnapshot(InstallSnapshot),
    /// The answer to an `InstallSnapshot`.
    InstallSnapshotReply(InstallSnapshotReply),
    /// Stand for election at once: the leader hands over (thesis §3.10).
    TimeoutNow(TimeoutNow),
    /// You are no member any more.
    Removed(Removed),
    /// A client's wish to change the members, or who leads, on its way to the leader.
    Change(Change),
    /// The answer to a `Change`.
    ChangeReply(ChangeReply),
}

/// Asks for and gives proof of life. A node believes a life only after it has
/// echoed a value that the node drew for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Hello {
    /// The sender's name in the shared file.
    pub name: String,
    /// A fresh random value that the receiver should echo; 0: nothing is asked.
    pub ask: u64,
    /// The value that the receiver asked for; 0: nothing is echoed.
    pub echo: u64,
    /// Whether the sender's log is empty of any cluster.
    pub fresh: bool,
}

/// The founding record, index 1, term 0 of every log of the cluster; or, from a log
/// that begins after it, the news that there is a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Found {
    /// Whether this is the record itself.
    pub first: bool,
    /// The first members, each with its incarnation; without the record, those of
    /// now, which name the addressee, or another life under its name.
    pub members: Membership,
}

/// Asks whether an election could be won, before any term is touched.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PreVote {
    /// Which asking this is, for the answers to be told apart.
    pub round: u64,
    /// The term that the candidate would stand in.
    pub term: Term,
    /// The last entry of the candidate's log.
    pub last_log_index: Index,
    /// Its term.
    pub last_log_term: Term,
}

/// The answer to a `PreVote`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PreVoteReply {
    /// The asking that is answered.
    pub round: u64,
    /// The term of the one that answers.
    pub term: Term,
    /// Whether it would vote for the candidate.
    pub granted: bool,
}

/// A candidate asks for a vote (Raft Figure 2).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestVote {
    /// The candidate's term.
    pub term: Term,
    /// The last entry of the candidate's log.
    pub last_log_index: Index,
    /// Its term.
    pub last_log_term: Term,
    /// Whether the leader of the term before asked the candidate to stand: then nobody
    /// keeps faith with that leader (thesis §4.2.3).
    pub handed_over: bool,
}

/// The answer to a `RequestVote`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestVoteReply {
    /// The term of the one that answers.
    pub term: Term,
    /// Whether the vote is the candidate's.
    pub granted: bool,
}

/// Entries that follow on `prev_log_index` (Raft Figure 2).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AppendEntries {
    /// The leader's term.
    pub term: Term,
    /// Which of the leader's messages of this term this is; rises with each.
    pub seq: u64,
    /// The entry that must be there.
    pub prev_log_index: Index,
    /// Its term.
    pub prev_log_term: Term,
    /// The leader's commit index.
    pub leader_commit: Index,
    /// What follows; may be empty, to ask how far the logs agree.
    pub entries: Vec<Entry>,
}

/// The answer to `AppendEntries`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AppendEntriesReply {
    /// The term of the one that answers.
    pub term: Term,
    /// The newest `seq` of the leader that it has seen when it answers; 0 if the
    /// term was old.
    pub seq: u64,
    /// What became of it.
    pub outcome: AppendOutcome,
}

/// What became of an `AppendEntries`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AppendOutcome {
    /// Up to here the log is the leader's, and durable.
    Matched {
        /// The smaller of what is durable and what this leader has verified.
        index: Index,
    },
    /// The entry before is not there. All that can still agree lies at or below
    /// `hint_index`, whose term is `hint_term` (a whole term is skipped at once,
    /// Raft §5.3).
    Mismatch {
        /// The `prev_log_index` that was refused.
        prev_log_index: Index,
        /// The last index at or below it whose term is not above the asked one.
        hint_index: Index,
        /// The term of the entry there.
        hint_term: Term,
    },
    /// The term was old: the reply's term says the newer one.
    Stale,
}

/// The leader lives.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Heartbeat {
    /// The leader's term.
    pub term: Term,
    /// Which of the leader's messages of this term this is; rises with each.
    pub seq: u64,
    /// The leader's commit index; the receiver bounds it by what is verified.
    pub leader_commit: Index,
    /// Microseconds since the leader was in touch with a majority.
    pub quorum_age_us: u64,
}

/// The answer to a `Heartbeat`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HeartbeatReply {
    /// The term of the one that answers.
    pub term: Term,
    /// The `seq` that is answered; 0 if its term was old.
    pub seq: u64,
    /// The smaller of what is durable and what this leader has verified.
    pub matched: Index,
    /// What this leader has verified, durable or not: what lies above it, and was
    /// sent before the heartbeat, is lost.
    pub verified: Index,
}

/// More is committed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Commit {
    /// The leader's term.
    pub term: Term,
    /// The leader's commit index; the receiver bounds it by what is verified.
    pub leader_commit: Index,
}

/// Asks the leader for an index from which a read is linearizable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReadIndex {
    /// Which asking of this run it is; each has a number of its own.
    pub id: u64,
}

/// The answer to a `ReadIndex`, after a majority confirmed the leader.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReadIndexReply {
    /// The asking that is answered.
    pub id: u64,
    /// What must be applied before the read is served.
    pub index: Index,
}

/// Clients' operations on their way to the leader.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Propose {
    /// Whether these may have reached a leader before: then it looks whether
    /// they are in its log already.
    pub retry: bool,
    /// The operations; the core does not look inside.
    pub operations: Vec<Bytes>,
}

/// A piece of a snapshot. Each piece says which snapshot it is of, may be lost,
/// repeated and late, and is put where it belongs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InstallSnapshot {
    /// The leader's term.
    pub term: Term,
    /// Which of the leader's messages of this term this is; rises with each.
    pub seq: u64,
    /// Which snapshot.
    pub id: SnapshotId,
    /// Where in it the piece belongs, in bytes.
    pub offset: u64,
    /// The piece.
    pub data: Bytes,
}

/// The answer to an `InstallSnapshot` that is not complete yet. A snapshot that is
/// complete, and durable, is acknowledged as entries are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InstallSnapshotReply {
    /// The term of the one that answers.
    pub term: Term,
    /// The `seq` that is answered; 0 if its term was old.
    pub seq: u64,
    /// Which snapshot.
    pub id: SnapshotId,
    /// All of it below is there, and the piece that is answered.
    pub received: u64,
}

/// The leader asks this follower, whose log is the leader's, to take over.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TimeoutNow {
    /// The leader's term.
    pub term: Term,
}

/// As of this entry, which is committed, the addressee is no member any more.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Removed {
    /// Where the members are stated that do not name it.
    pub index: Index,
}

/// What a client wants of the members.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Wish {
    /// A node is to become a member: a voter when it has caught up, or a learner.
    Add {
        /// Its name.
        name: String,
        /// Where it is spoken to.
        address: SocketAddr,
        /// Whether it is to vote.
        voter: bool,
    },
    /// A member is to be none any more.
    Remove {
        /// Its name.
        name: String,
    },
    /// Another member is to lead.
    Transfer {
        /// Its name.
        to: String,
    },
}

/// A client's wish on its way to the leader.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Change {
    /// Which of the wishes of this run it is; each has a number of its own.
    pub id: u64,
    /// Whether a leader may have seen it before: then what is as wished already is done.
    pub retry: bool,
    /// What is wished.
    pub wish: Wish,
}

/// The answer to a `Change`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ChangeReply {
    /// The wish that is answered.
    pub id: u64,
    /// What became of it.
    pub outcome: ChangeOutcome,
}

/// What became of a wish.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ChangeOutcome {
    /// It is done: these are the members, and that is committed.
    Done {
        /// Where the members are stated.
        index: Index,
        /// The term in which it is answered.
        term: Term,
        /// The members, without former ones.
        members: Membership,
    },
    /// It is not, and nothing was changed.
    Refused(WhyNot),
}

/// Why a wish is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WhyNot {
    /// The name is a member's already, of that kind or at another address.
    AlreadyMember,
    /// No member has that name.
    UnknownName,
    /// Another wish is being carried out.
    AnotherChange,
    /// No voter would be left.
    NoVoterLeft,
    /// Of the voters that would be left too few are in touch to agree on anything.
    NoMajorityLeft,
    /// The newcomer does not answer at its address.
    Unreachable,
    /// The newcomer belongs to another cluster.
    Foreign,
    /// There are as many voters as a cluster may have, or as many members.
    TooMany,
    /// Another member has that address.
    AddressTaken,
    /// Who does not vote cannot lead.
    NotAVoter,
    /// It leads already.
    LeadsAlready,
    /// It did not take over in time; the leader goes on.
    NotTakenOver,
}

impl Envelope {
    /// An addressee of whom nothing is known yet.
    pub const ANYONE: Life = Life { incarnation: Incarnation(0), run: Run(0) };
}
