//! What must hold of one node after each flush, asserted in release builds too:
//! a handful of comparisons a flush, and a bug of ours stops one node instead of
//! spreading.
//!
//! ```text
//!   base_index <= commit_index <= last_index         durable <= last_index
//!   base_index <= the snapshot's index <= commit_index
//!   verified <= last_index              match_index < next_index <= last_index + 1
//!   term, commit_index never fall       a vote is set once a term
//! ```
//! The last line is held by the only places that write them: `commit_to`,
//! `become_follower`, `become_candidate` and `on_request_vote`.

use super::Core;
use super::state::Role;
use super::types::Index;

impl Core {
    pub(super) fn check(&self) {
        let last = self.log.last_index();
        let durable = self.durability.durable();
        assert!(self.commit_index <= last, "commit {} beyond {last}", self.commit_index);
        assert!(durable <= last, "durable {durable} beyond {last}");
        let base = self.log.base_index();
        let covered = self.snapshot.as_ref().map_or(Index(0), |snapshot| snapshot.id.index);
        assert!(
            base <= covered && covered <= self.commit_index,
            "the log begins after {base}, the snapshot covers {covered}, {} is committed",
            self.commit_index
        );
        assert!(
            self.log.is_empty() || self.hard.cluster.is_some(),
            "a log of {last} entries and no cluster"
        );
        match &self.role {
            Role::Follower(follower) => {
                assert!(follower.verified <= last, "verified {} of {last}", follower.verified);
            }
            Role::Leader(leader) => {
                let removing = self.configurations.current_index() > self.commit_index;
                assert!(self.is_voter() || removing, "a leader that is no voter");
                assert!(
                    self.hard.voted_for == Some(self.me.incarnation),
                    "a leader voted for itself"
                );
                for (member, progress) in &leader.progress {
                    assert!(
                        progress.match_index() <= last && progress.next_index() <= last.next(),
                        "{member}: match {}, next {}, last {last}",
                        progress.match_index(),
                        progress.next_index()
                    );
                }
            }
            Role::PreCandidate(_) | Role::Candidate(_) => {
                assert!(self.may_campaign(), "a candidate that is no voter");
            }
        }
    }
}
