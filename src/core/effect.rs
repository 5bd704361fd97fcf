//! What the core gives back: messages, a write, answers to reads, and the story.
//!
//! Everything here is a value; whoever runs the core carries it out, in this
//! order: send, write, then what became readable. A message is handed out only
//! when the term, vote and cluster it speaks for are durable, so sending it is
//! always right.

use std::fmt;

use ::core::net::SocketAddr;
use bytes::Bytes;

use super::durability::Write;
use super::message::{ChangeReply, Envelope};
use super::snapshot::SnapshotId;
use super::types::{ClusterId, Incarnation, Index, Term};
use super::verdicts::Turn;

/// What one drain of the core gave. Reused from drain to drain.
#[derive(Debug, Default)]
pub struct Effects {
    /// Messages, in order.
    pub sends: Vec<Outgoing>,
    /// At most one write.
    pub write: Option<Write>,
    /// The lowest index from which entries were removed (and perhaps replaced)
    /// since the last drain.
    pub truncated: Option<Index>,
    /// A snapshot whose bytes have come whole, to be opened: then it goes to
    /// `Core::install`. It never comes with a write, whose record is taken from the
    /// log as it was before.
    pub assembled: Option<(SnapshotId, Bytes)>,
    /// Reads of this node that may be served once `index` is applied.
    pub reads: Vec<ReadReady>,
    /// Answers to wishes of this node.
    pub changes: Vec<ChangeReply>,
    /// What happened, for the log and for events.
    pub notes: Vec<Told>,
}

impl Effects {
    /// Whether there is nothing in it.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        let Effects { sends, write, truncated, assembled, reads, changes, notes } = self;
        sends.is_empty()
            && write.is_none()
            && truncated.is_none()
            && assembled.is_none()
            && reads.is_empty()
            && changes.is_empty()
            && notes.is_empty()
    }
}

/// A message and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The configured address of the addressee.
    pub address: SocketAddr,
    /// The message.
    pub envelope: Envelope,
}

/// A read of this node, confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadReady {
    /// The number that `Core::read` was given.
    pub id: u64,
    /// What must be applied before the read is served.
    pub index: Index,
}

/// A role, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleName {
    /// The log is empty of any cluster.
    Fresh,
    /// Was a member, and is none any more.
    Removed,
    /// Receives the log, does not vote.
    Learner,
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks whether it would be elected.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RoleName::Fresh => "fresh",
            RoleName::Removed => "removed",
            RoleName::Learner => "learner",
            RoleName::Follower => "follower",
            RoleName::PreCandidate => "pre-candidate",
            RoleName::Candidate => "candidate",
            RoleName::Leader => "leader",
        })
    }
}

/// How much of the story is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Detail {
    /// Nothing but what changes roles, leaders and members.
    #[default]
    Turns,
    /// Votes, appends and commits too.
    Steps,
    /// Each message too.
    Messages,
}

/// Something that happened, with the term and role in which it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The term.
    pub term: Term,
    /// The role.
    pub role: RoleName,
    /// What happened.
    pub note: Note,
}

/// Something that happened. Members are named where their name is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// The role changed; `Told::role` is the new one.
    Role(String),
    /// Another leader is known, or none any more.
    Leader(Option<Incarnation>),
    /// The members are others from this index on.
    Members(Index),
    /// This node is no member any more, as of this index.
    Removed(Index),
    /// The file says something else than the members do: each difference, and what would
    /// bring it about.
    FileDiffers(Vec<String>),
    /// These voters have lost their memory, and without them no majority is left.
    MajorityLost(Vec<String>),
    /// A member is agreed to be up, or down.
    Verdict(Turn),
    /// A snapshot of this node's own stands for the log up to here.
    Compacted(Index),
    /// A snapshot came from the leader and took the log's place, up to here.
    Installed(Index),
    /// A cluster is founded by this node.
    Founded(ClusterId),
    /// This node belongs to a cluster from now on.
    Joined(ClusterId),
    /// Who is waited for.
    Waiting(Waiting),
    /// A life of a peer is believed; whether it is fresh.
    Believed {
        /// The peer's name.
        peer: String,
        /// Whether it says that its log is empty.
        fresh: bool,
    },
    /// A peer that takes no part: it remembers another cluster.
    Foreign {
        /// The peer's name.
        peer: String,
        /// Its cluster.
        cluster: ClusterId,
    },
    /// Stands for trouble that a person should know of.
    Warning(String),
    /// A step of the protocol, in the paper's words.
    Step(String),
    /// A message that came or went.
    Message(String),
}

/// Why a fresh node waits.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::enum_variant_names)] // read as a sentence: waiting for voters
pub enum Waiting {
    /// The cluster is founded when these have been heard, too.
    ForVoters(Vec<String>),
    /// All are here; the named one founds.
    ForFounder(String),
    /// A cluster exists, these remember it; its leader will admit this node.
    ForAdmission(Vec<String>),
}

impl Waiting {
    /// The names that are waited for.
    pub fn names(self) -> Vec<String> {
        match self {
            Waiting::ForVoters(names) | Waiting::ForAdmission(names) => names,
            Waiting::ForFounder(name) => vec![name],
        }
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Waiting::ForVoters(names) => {
                write!(
                    f,
                    "waiting for {} before the cluster can be founded (if there is one already, \
                     it has to be asked to add this node)",
                    names.join(", ")
                )
            }
            Waiting::ForFounder(name) => write!(f, "waiting for {name} to found the cluster"),
            Waiting::ForAdmission(names) => write!(
                f,
                "waiting to be admitted by the leader of the cluster that is remembered by {}",
                names.join(", ")
            ),
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::Role(why) => write!(f, "{why}"),
            Note::Leader(Some(_)) => write!(f, "follows a leader"),
            Note::Leader(None) => write!(f, "knows no leader"),
            Note::Members(index) => write!(f, "members as of index {index}"),
            Note::Removed(index) => {
                write!(f, "is no member of its cluster any more, as of entry {index}")
            }
            Note::FileDiffers(differences) => write!(
                f,
                "the file and the members differ, and the members count: {}",
                differences.join("; ")
            ),
            Note::MajorityLost(names) => write!(
                f,
                "{} came back without memory, and without what they knew no majority of the \
                 voters is left: this cluster elects no leader any more. Stop all its nodes and \
                 start them with empty memories and folders to begin anew",
                names.join(", ")
            ),
            Note::Verdict(Turn { name, up, index }) => {
                write!(f, "{name} is {}, as of entry {index}", if *up { "up" } else { "down" })
            }
            Note::Compacted(index) => write!(f, "a snapshot stands for the log up to {index}"),
            Note::Installed(index) => {
                write!(f, "takes the leader's snapshot in place of its log, up to {index}")
            }
            Note::Founded(cluster) => write!(f, "founds cluster {cluster}"),
            Note::Joined(cluster) => write!(f, "belongs to cluster {cluster}"),
            Note::Waiting(waiting) => waiting.fmt(f),
            Note::Believed { peer, fresh: true } => write!(f, "{peer} is here, with an empty log"),
            Note::Believed { peer, fresh: false } => write!(f, "{peer} is here"),
            Note::Foreign { peer, cluster } => write!(
                f,
                "{peer} takes no part: it remembers another cluster, {cluster}; \
                 stop one of the two, or give one a file and addresses of its own"
            ),
            Note::Warning(text) | Note::Step(text) | Note::Message(text) => f.write_str(text),
        }
    }
}
