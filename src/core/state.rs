//! The state of a node: what is saved, and what each role holds and nothing else.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use super::changes::{Changing, Joining};
use super::detector::Detector;
use super::effect::RoleName;
use super::log::Log;
use super::members::Newcomer;
use super::membership::Membership;
use super::progress::Progress;
use super::proposals::Seen;
use super::quorum;
use super::read::ReadRounds;
use super::snapshot::Snapshot;
use super::types::{
    ClusterId, Entry, Incarnation, Index, Payload, Protocol, Term, Time, WriteNumber,
};

/// What must be durable before anything is said that rests on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub struct Hard {
    /// The cluster that this log belongs to; `None` while the node is fresh.
    pub cluster: Option<ClusterId>,
    /// The current term.
    pub term: Term,
    /// Who has this node's vote in the current term.
    pub voted_for: Option<Incarnation>,
}

/// A write with all that it carries, for a disk that is slower than the core: term,
/// vote and cluster if they changed, and the log from `from` on replaced by
/// `entries`. A crash may leave the first of the entries without the rest, but with
/// term, vote and cluster in it, it reaches the disk as a whole or not at all: a
/// log without its cluster, or a cluster without its record, would be no node.
#[derive(Clone, Debug)]
#[cfg_attr(not(any(test, feature = "sim")), allow(dead_code))] // for logs on disk
pub struct Record {
    /// Its number; completions name it.
    pub number: WriteNumber,
    /// Term, vote and cluster, if they changed.
    pub hard: Option<Hard>,
    /// The first index that is new; `None` if the log did not change.
    pub from: Option<Index>,
    /// What stands from there on.
    pub entries: Vec<Entry>,
    /// A snapshot that came from the leader and takes the place of the whole log,
    /// before the entries. It must be durable before the rest is.
    pub install: Option<Snapshot>,
}

impl Record {
    /// About how many bytes of entries it carries.
    pub fn size_bytes(&self) -> usize {
        self.entries.iter().map(Entry::size_bytes).sum()
    }
}

/// What a node comes back with.
#[derive(Clone, Debug)]
pub struct Saved {
    /// The name of the log.
    pub incarnation: Incarnation,
    /// Term, vote and cluster.
    pub hard: Hard,
    /// What came before the log, and perhaps its first entries too.
    pub snapshot: Option<Snapshot>,
    /// The log.
    pub log: Log,
}

impl Saved {
    /// What the node is when it comes back, before it has heard anybody.
    pub fn role(&self) -> RoleName {
        let configurations = Configurations::of(self.snapshot.as_ref(), &self.log);
        let Some(members) = configurations.current().filter(|_| self.hard.cluster.is_some()) else {
            return match self.hard.cluster {
                None => RoleName::Fresh,
                Some(_) => RoleName::Learner,
            };
        };
        match members.is_voter(self.incarnation) {
            true => RoleName::Follower,
            false if members.is_former(self.incarnation) => RoleName::Removed,
            false => RoleName::Learner,
        }
    }

    /// The members, as the newest entry that states them has it.
    pub fn members(&self) -> Option<Membership> {
        Configurations::of(self.snapshot.as_ref(), &self.log).current().cloned()
    }

    /// A log that holds nothing yet.
    pub fn empty(incarnation: Incarnation) -> Saved {
        Saved { incarnation, hard: Hard::default(), snapshot: None, log: Log::new() }
    }
}

/// Why an input was not taken. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refused {
    /// Addressed to another life than this one.
    NotForThisLife,
    /// From a life that has not echoed.
    NotBelieved,
    /// From a name that nobody has, or a life that is superseded.
    Stranger,
    /// From a member that was removed.
    NoMember,
    /// Of another cluster.
    ForeignCluster,
    /// Contradicts itself.
    Malformed,
    /// This node does not lead.
    NotLeader,
    /// There is no room for it.
    Full,
    /// This node takes no part any more.
    Failed,
}

/// Proof that safety is broken; this node stops.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub enum Failure {
    /// Two leaders in one term (Raft §5.2).
    TwoLeaders {
        /// The term.
        term: Term,
        /// The one known before.
        one: String,
        /// The other.
        other: String,
    },
    /// The last term is over: somebody lied about terms.
    TermsExhausted,
    /// A leader contradicts what is committed here (Raft §5.4).
    CommittedContradicted {
        /// The leader.
        leader: String,
        /// Where.
        index: Index,
    },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::TwoLeaders { term, one, other } => {
                write!(f, "both {one} and {other} lead in term {term}: safety is broken")
            }
            Failure::TermsExhausted => write!(f, "there is no term after the last one"),
            Failure::CommittedContradicted { leader, index } => write!(
                f,
                "{leader} leads with a log that contradicts what is committed at index {index}: \
                 safety is broken"
            ),
        }
    }
}

/// The memberships that the log states, the newest in force (Raft §6).
#[derive(Clone, Debug, Default)]
#[cfg_attr(test, derive(Hash))]
pub struct Configurations {
    stated: VecDeque<(Index, Membership)>,
}

impl Configurations {
    /// Those of a snapshot, and all that stand in the log behind it.
    pub fn of(snapshot: Option<&Snapshot>, log: &Log) -> Configurations {
        let mut configurations = Configurations::default();
        let mut covered = Index(0);
        if let Some(snapshot) = snapshot {
            configurations.push(snapshot.members_index, &snapshot.members);
            covered = snapshot.id.index;
        }
        for (index, entry) in log.from(covered.next()) {
            if let Payload::Protocol(Protocol::Members(members)) = &entry.payload {
                configurations.push(index, members);
            }
        }
        configurations
    }

    /// Those in force at `index`, which is covered by the log or its snapshot, and
    /// where they are stated.
    pub fn at(&self, index: Index) -> Option<&(Index, Membership)> {
        self.stated.iter().rev().find(|(stated, _)| *stated <= index)
    }

    /// Those before the newest, while they are not covered.
    pub fn before_current(&self) -> Option<&Membership> {
        self.stated.iter().rev().nth(1).map(|(_, members)| members)
    }

    /// The newest, in force from when it is appended.
    pub fn current(&self) -> Option<&Membership> {
        self.stated.back().map(|(_, members)| members)
    }

    /// Where the oldest stands that is still of interest.
    pub fn first_index(&self) -> Index {
        self.stated.front().map_or(Index(0), |(index, _)| *index)
    }

    /// Where the newest stands.
    pub fn current_index(&self) -> Index {
        self.stated.back().map_or(Index(0), |(index, _)| *index)
    }

    /// The log states another.
    pub fn push(&mut self, index: Index, members: &Membership) {
        assert!(index > self.current_index(), "{index} after {}", self.current_index());
        self.stated.push_back((index, members.clone()));
    }

    /// The log was cut: those at or above `from` are rolled back.
    pub fn truncate_from(&mut self, from: Index) -> bool {
        let before = self.stated.len();
        self.stated.retain(|(index, _)| *index < from);
        self.stated.len() != before
    }

    /// A snapshot covers the log up to `index`: those that were not in force any more
    /// then are never needed again.
    pub fn covered(&mut self, index: Index) {
        while self.stated.get(1).is_some_and(|(stated, _)| *stated <= index) {
            self.stated.pop_front();
        }
    }
}

/// A role, with that role's data only.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub enum Role {
    /// Follows, learns, or waits to be admitted.
    Follower(Follower),
    /// Asks whether it would be elected (thesis §9.6).
    PreCandidate(PreCandidate),
    /// Asks for votes (Raft §5.2).
    Candidate(Candidate),
    /// Leads.
    Leader(Box<Leader>),
}

impl Role {
    /// A follower of that leader.
    pub fn follower(leader: Option<Incarnation>) -> Role {
        Role::Follower(Follower {
            leader,
            verified: Index(0),
            seq: 0,
            acknowledge: false,
            acknowledged: Index(0),
        })
    }
}

/// What a follower holds.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone, Hash))]
pub struct Follower {
    /// The leader of the current term, once it was heard.
    pub leader: Option<Incarnation>,
    /// Up to here the log was found equal to this leader's.
    pub verified: Index,
    /// The newest of the leader's messages that was seen.
    pub seq: u64,
    /// Whether an acknowledgement is owed.
    pub acknowledge: bool,
    /// What was acknowledged last.
    pub acknowledged: Index,
}

/// What a node that asks before standing holds.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone, Hash))]
pub struct PreCandidate {
    /// Which asking this is.
    pub round: u64,
    /// Who would vote for it, itself included.
    pub granted: BTreeSet<Incarnation>,
}

/// What a candidate holds.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone, Hash))]
pub struct Candidate {
    /// Who voted for it.
    pub granted: BTreeSet<Incarnation>,
    /// The write that makes its own vote durable; only then does it count.
    pub own_vote: WriteNumber,
}

/// So many rounds of heartbeats are remembered, to tell when an answered one began.
const ROUNDS_KEPT: usize = 256;
/// A leader holds at most so many bytes that are not committed, or not on its disk.
pub const UNSETTLED_BYTES: usize = 256 * 1024 * 1024;

/// What a leader holds.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub struct Leader {
    /// Where its term starts: the empty entry.
    pub term_start: Index,
    /// The number of its last message.
    pub seq: u64,
    /// Each member but itself.
    pub progress: BTreeMap<Incarnation, Progress>,
    /// When the next heartbeats go out.
    pub heartbeat_at: Time,
    /// Heartbeat rounds: the `seq` before them, and when they began.
    pub rounds: VecDeque<(u64, Time)>,
    /// Reads that wait for a round.
    pub reads: ReadRounds,
    /// What repeats are looked for in.
    pub seen: Seen,
    /// What a client wants of the members, while it is being carried out.
    pub changing: Option<Changing>,
    /// Who waits for a newcomer to catch up.
    pub joining: Vec<Joining>,
    /// How far each learner that joins has caught up.
    pub newcomers: BTreeMap<Incarnation, Newcomer>,
    /// Those that are told that they are no members any more, and how often they still are.
    pub farewells: BTreeMap<Incarnation, u32>,
    /// Who is up.
    pub detector: Detector,
    /// The end of what is committed, and durable here.
    pub settled: Index,
    /// Bytes appended behind that.
    pub unsettled_bytes: usize,
}

impl Leader {
    /// The next message's number.
    pub fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    /// Whether no more is taken until something is committed, and durable here, or
    /// another leads, or does not.
    pub fn is_full(&self) -> bool {
        self.unsettled_bytes >= UNSETTLED_BYTES || self.hands_over()
    }

    /// Whether it is handing over: what it took now, its successor might not have.
    pub fn hands_over(&self) -> bool {
        self.changing.as_ref().is_some_and(Changing::hands_over)
    }

    /// A round of heartbeats begins. One that begins within `apart` microseconds of
    /// the last is not remembered: an answer to it counts for the one before, and
    /// many reads in a short time do not push out what late answers refer to.
    pub fn begin_round(&mut self, apart: u64, now: Time) {
        if self.rounds.back().is_some_and(|(_, at)| now.since(*at) < apart) {
            return;
        }
        if self.rounds.len() == ROUNDS_KEPT {
            self.rounds.pop_front();
        }
        self.rounds.push_back((self.seq, now));
    }

    /// When the newest round began that the answer to `seq` proves; `None` if that
    /// is longer ago than anybody remembers.
    pub fn began_at(&self, seq: u64) -> Option<Time> {
        self.rounds.iter().rev().find(|(before, _)| *before < seq).map(|(_, at)| *at)
    }

    /// When this leader was last known to be in touch with a majority.
    pub fn quorum_at(&self, members: &Membership, me: Incarnation, now: Time) -> Time {
        quorum::reached_by_majority(members, |voter| {
            if voter == me {
                now
            } else {
                self.progress.get(&voter).map_or(Time(0), |progress| progress.contact_at)
            }
        })
    }

    /// When something is due.
    pub fn deadline(&self) -> Time {
        let own = self.heartbeat_at.min(self.detector.look_at);
        let of_each =
            |progress: &Progress| [progress.deadline(), progress.news.deadline()].into_iter();
        self.progress.values().flat_map(of_each).flatten().fold(own, Time::min)
    }
}
