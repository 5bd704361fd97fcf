//! Bugs that tests put in, to see that somebody notices: each does to a healthy
//! core what a well-known mistake in its code would do.

use super::Core;
use super::progress::Progress;
use super::state::{Failure, Role};
use super::types::{Entry, Incarnation, Index, Payload, Term, Time};

impl Core {
    /// Votes are counted that nobody gave.
    pub fn bug_counts_votes_that_were_not_given(&mut self) {
        let mut members = self.voters();
        members.retain(|member| *member != self.me.incarnation);
        match &mut self.role {
            Role::PreCandidate(candidate) => candidate.granted.extend(members),
            Role::Candidate(candidate) => candidate.granted.extend(members),
            _ => {}
        }
    }

    /// A term is forgotten.
    pub fn bug_goes_back_a_term(&mut self) {
        if self.hard.term > Term(1) && !self.leads() {
            self.hard.term = Term(self.hard.term.0 - 1);
        }
    }

    /// A leader takes an entry back that is not committed.
    pub fn bug_takes_an_entry_back(&mut self) {
        let last = self.log.last_index();
        if self.leads() && last > self.commit_index {
            self.log.truncate_from(last);
        }
    }

    /// A follower writes something else than the leader sent.
    pub fn bug_writes_something_else(&mut self) {
        let last = self.log.last_index();
        let client = |entry: &Entry| matches!(entry.payload, Payload::Client(_));
        if !self.leads() && self.log.entry(last).is_some_and(client) {
            let term = self.log.last_term();
            self.log.truncate_from(last);
            self.log.append(Entry { term, payload: Payload::Client("something else".into()) });
        }
    }

    /// A follower commits to the end of its log, verified or not, as far as the
    /// leader has committed.
    pub fn bug_commits_what_it_has(&mut self, leader_commit: Index) {
        if !self.leads() {
            let has = self.log.last_index().min(leader_commit);
            self.commit_index = self.commit_index.max(has);
        }
    }

    /// A leader counts copies of entries of earlier terms (Raft Figure 8).
    pub fn bug_counts_copies_of_earlier_terms(&mut self) {
        let voters = self.voters();
        let Role::Leader(leader) = &self.role else { return };
        let mut copies: Vec<Index> = voters
            .iter()
            .map(|voter| match leader.progress.get(voter) {
                Some(progress) => progress.match_index(),
                None => self.durability.durable(),
            })
            .collect();
        copies.sort_unstable();
        let on_most = copies[(copies.len() - 1) / 2];
        self.commit_index = self.commit_index.max(on_most);
    }

    /// A leader confirms reads that no majority has confirmed.
    pub fn bug_confirms_reads_alone(&mut self) {
        if let Role::Leader(leader) = &mut self.role {
            leader.progress.values_mut().for_each(|progress| progress.acked_seq = u64::MAX);
        }
    }

    /// A leader follows the log of somebody who is no member.
    pub fn bug_follows_a_stranger(&mut self, now: Time) {
        let last = self.log.last_index();
        if let Role::Leader(leader) = &mut self.role {
            leader.progress.insert(Incarnation(7), Progress::new(last, now));
        }
    }

    /// A leader puts another life in a voter's place at once.
    pub fn bug_swaps_a_voter(&mut self, now: Time) {
        if !self.is_settled_for_change() {
            return;
        }
        let (me, mut members) = (self.me.incarnation, self.members().cloned());
        let others = members.iter_mut().flat_map(|members| &mut members.members);
        let mut voters = others.filter(|m| m.is_voter() && m.incarnation != Some(me));
        if let Some(voter) = voters.next() {
            voter.incarnation = Some(Incarnation(7));
            if let Some(members) = members {
                self.append_members(members, now);
            }
        }
    }

    /// A node forgets who is up.
    pub fn bug_forgets_who_is_up(&mut self) {
        self.verdicts = Default::default();
    }

    /// A leader forgets at each step that a silence is to be confirmed.
    pub fn bug_confirms_no_silence(&mut self) {
        if let Role::Leader(leader) = &mut self.role {
            leader.progress.values_mut().for_each(|of| of.watch.bug_forgets_its_round());
        }
    }

    /// A leader never finds anybody steady.
    pub fn bug_finds_nobody_steady(&mut self) {
        if let Role::Leader(leader) = &mut self.role {
            leader.progress.values_mut().for_each(|of| of.watch.bug_forgets_its_steadiness());
        }
    }

    /// A node takes a rumour for a proof.
    pub fn bug_believes_that_safety_is_broken(&mut self) {
        if self.leads() {
            self.failure = Some(Failure::TermsExhausted);
        }
    }

    /// What waits for a disk is kept without a bound.
    pub fn bug_keeps_what_waits_without_bound(&mut self) {
        if let Some(first) = self.held.front().cloned() {
            self.held.extend(std::iter::repeat_n(first, super::HELD_MOST));
        }
    }

    /// What is committed is applied before it is durable here.
    pub fn bug_applies_before_it_is_durable(&mut self) {
        if !self.leads() {
            self.durability.bug_says_durable(self.commit_index);
        }
    }

    /// A snapshot says that it ends with an entry of another term.
    pub fn bug_mistakes_the_term_of_its_snapshot(&mut self) {
        if let Some(snapshot) = &mut self.snapshot {
            snapshot.id.term = snapshot.id.term.next();
        }
    }

    /// A snapshot has the members as they were before the newest of them came.
    pub fn bug_forgets_the_newest_members_in_its_snapshot(&mut self) {
        if let Some(snapshot) = &mut self.snapshot {
            snapshot.members.members.pop();
        }
    }

    /// A snapshot counts as durable when it is installed.
    pub fn bug_counts_a_snapshot_before_it_is_durable(&mut self) {
        if !self.leads() {
            self.durability.bug_says_durable(self.log.base_index());
        }
    }

    /// What followed in a log whose place a snapshot took is kept behind it.
    pub fn bug_keeps_the_tail_behind_a_snapshot(&mut self, tail: Vec<Entry>) {
        for entry in tail {
            let index = self.log.append(entry);
            self.durability.appended(index);
        }
    }

    fn voters(&self) -> Vec<Incarnation> {
        let members = self.members().into_iter().flat_map(|members| &members.members);
        members.filter(|member| member.is_voter()).filter_map(|member| member.incarnation).collect()
    }
}
