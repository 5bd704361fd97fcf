//! What is said rests on what is durable.

use super::super::Core;
use super::super::message::{AppendOutcome, Envelope, Message};
use super::super::types::{Incarnation, Index, Term};
use super::{Disk, History, Property, Verdict, ensure};

/// Term, vote and cluster of any message, and the entries of an acknowledgement,
/// are durable before it leaves.
pub const DURABLE_FIRST: Property = Property {
    name: "Durable Before Said",
    source: "Raft Figure 2: updated on stable storage before responding",
};

/// A log votes once a term, whatever its runs forget.
pub const VOTE_ONCE: Property =
    Property { name: "One Vote A Term", source: "Raft §5.2: first come, first served" };

impl History {
    /// Checks a message that `core` lets out, with what is on its disk.
    pub fn check_outgoing(&mut self, core: &Core, disk: &Disk, envelope: &Envelope) -> Verdict {
        let cluster = envelope.cluster;
        ensure(&DURABLE_FIRST, cluster.0 == 0 || disk.hard.cluster == Some(cluster), || {
            format!("speaks for cluster {cluster} before that is durable")
        })?;
        let term = term_of(&envelope.message);
        ensure(&DURABLE_FIRST, disk.hard.term >= term, || {
            format!("speaks of term {term} before it is durable")
        })?;
        if let Some(candidate) = vote_in(core, envelope) {
            self.check_vote(core, disk, term, candidate)?;
        }
        self.check_acknowledgement(disk, &envelope.message)
    }

    fn check_vote(
        &mut self,
        core: &Core,
        disk: &Disk,
        term: Term,
        candidate: Incarnation,
    ) -> Verdict {
        let key = (core.me().incarnation, term);
        let first = *self.votes.entry(key).or_insert(candidate);
        ensure(&VOTE_ONCE, first == candidate, || {
            format!("votes for {first} and {candidate} in {term}")
        })?;
        let durable = disk.hard.term > term || disk.hard.voted_for == Some(candidate);
        ensure(&DURABLE_FIRST, durable, || format!("votes in term {term} before that is durable"))
    }

    fn check_acknowledgement(&self, disk: &Disk, message: &Message) -> Verdict {
        let matched = match message {
            Message::AppendEntriesReply(m) => match m.outcome {
                AppendOutcome::Matched { index } => index,
                _ => Index(0),
            },
            Message::HeartbeatReply(m) => m.matched,
            _ => Index(0),
        };
        // What was acknowledged in an earlier term was there then. The truncation that
        // came in the same turn, of the present term, takes nothing back.
        if term_of(message) < disk.hard.term && matched <= disk.ended {
            return Ok(());
        }
        let there = disk.last_index() >= matched;
        let known = disk.covers(matched)
            || self.entries.contains_key(&(
                disk.hard.cluster.unwrap_or_default(),
                matched,
                disk.term_at(matched).unwrap_or_default(),
            ));
        ensure(&DURABLE_FIRST, there && (known || matched == Index(0)), || {
            format!("acknowledges {matched}, and the disk ends at {}", disk.last_index())
        })
    }
}

/// The term that a message speaks of; 0 if of none.
pub fn term_of(message: &Message) -> Term {
    match message {
        Message::RequestVote(m) => m.term,
        Message::RequestVoteReply(m) => m.term,
        Message::PreVoteReply(m) => m.term,
        Message::AppendEntries(m) => m.term,
        Message::AppendEntriesReply(m) => m.term,
        Message::Heartbeat(m) => m.term,
        Message::HeartbeatReply(m) => m.term,
        Message::Commit(m) => m.term,
        Message::InstallSnapshot(m) => m.term,
        Message::InstallSnapshotReply(m) => m.term,
        _ => Term(0),
    }
}

/// For whom the message says that its sender votes.
fn vote_in(core: &Core, envelope: &Envelope) -> Option<Incarnation> {
    match &envelope.message {
        Message::RequestVote(_) => Some(core.me().incarnation),
        Message::RequestVoteReply(m) if m.granted => Some(envelope.to.incarnation),
        _ => None,
    }
}
