//! Who leads: pre-vote, election, stepping down (Raft §5.2, §5.4.1; thesis §9.6).
//!
//! ```text
//!   follower ──timeout──► pre-candidate ──majority would──► candidate ──majority──► leader
//!      ▲                       │ leader heard, newer term       │ the same              │
//!      └───────────────────────┴────────────────────────────────┴──no majority heard────┘
//! ```
//!
//! A voter that heard a leader within the shortest election timeout refuses pre-
//! votes and votes alike, and a newer term in such a request does not move it
//! (thesis §4.2.3): who was cut off cannot depose a leader that works. The promise
//! ends at the *shortest* timeout, so that the first to miss a dead leader finds
//! its voters free.

use std::collections::BTreeSet;

use super::Core;
use super::detector::Detector;
use super::effect::{Detail, Note};
use super::message::{Message, PreVote, PreVoteReply, RequestVote, RequestVoteReply, TimeoutNow};
use super::quorum;
use super::state::{Candidate, Failure, Leader, PreCandidate, Refused, Role};
use super::types::{Incarnation, Term, Time};

/// A write that takes longer than so many of the longest election timeouts hangs.
const DISK_PATIENCE: u64 = 5;
/// Or than this, in microseconds.
const DISK_PATIENCE_MOST: u64 = 10_000_000;
/// So many failed candidacies leave the timeouts as they are; each further one doubles
/// the longest, up to so many times.
const CANDIDACIES_FREE: u64 = 2;
const CANDIDACIES_MOST: u64 = 4;

impl Core {
    /// A fresh random timeout, each time (Raft §5.2). Where candidate after candidate
    /// failed, an election takes longer than was thought, for want of quick disks
    /// perhaps: candidates stand further apart then, or they would meet for ever.
    pub(super) fn reset_election_timer(&mut self, now: Time) {
        let (least, most) = self.setup.election_timeout;
        let failed = self.candidacies.saturating_sub(CANDIDACIES_FREE).min(CANDIDACIES_MOST);
        self.election_at = now.plus(self.rng.between(least, most << failed));
    }

    pub(super) fn tick_election(&mut self, now: Time) {
        let leads = matches!(self.role, Role::Leader(_));
        if leads || now < self.election_at {
            return;
        }
        if self.leader().is_some() {
            self.become_follower(self.hard.term, None, now, "heard no leader for too long");
        }
        if self.disk_hangs(now).is_some() {
            // It could not even vote for itself.
            self.reset_election_timer(now);
        } else if self.may_campaign() {
            self.campaign(now);
        }
    }

    /// For how long a write has been under way, in microseconds, if that is so long
    /// that this node is of no use as a leader.
    pub fn disk_hangs(&self, now: Time) -> Option<u64> {
        let waits = now.since(self.durability.waiting_since()?);
        (waits > self.disk_patience()).then_some(waits)
    }

    fn disk_patience(&self) -> u64 {
        (self.setup.election_timeout.1 * DISK_PATIENCE).min(DISK_PATIENCE_MOST)
    }

    /// When it is to be said that the disk hangs, unless it has finished by then.
    pub(super) fn disk_deadline(&self) -> Option<Time> {
        let since = self.durability.waiting_since().filter(|_| !self.hanging)?;
        Some(since.plus(self.disk_patience() + 1))
    }

    /// Says so once, and once that it is over.
    pub(super) fn watch_disk(&mut self, now: Time) {
        let hangs = self.disk_hangs(now);
        if hangs.is_some() == self.hanging {
            return;
        }
        self.hanging = hangs.is_some();
        let text = match hangs {
            Some(waits) => format!(
                "its disk has not finished a write for {} ms: what rests on it waits",
                waits / 1000
            ),
            None => "its disk has finished what it was at".to_string(),
        };
        self.tell(Detail::Turns, || Note::Warning(text));
    }

    /// A leader whose disk hangs lets another lead: its heartbeats would go on, and
    /// nothing that it is asked for would ever be done (pitfall 62).
    pub(super) fn check_disk(&mut self, now: Time) {
        if matches!(self.role, Role::Leader(_)) && self.disk_hangs(now).is_some() {
            self.become_follower(self.hard.term, None, now, "its disk hangs");
        }
    }

    /// Asks whether an election could be won; touches no term.
    pub(super) fn campaign(&mut self, now: Time) {
        assert!(self.may_campaign() && self.holds_members(), "only a voter of a cluster campaigns");
        let round = self.rng.next_nonzero();
        let granted = BTreeSet::from([self.me.incarnation]);
        self.role = Role::PreCandidate(PreCandidate { round, granted });
        self.reset_election_timer(now);
        // Who is cut off asks again and again: it says so once, and then in detail.
        let detail = if self.campaigns == 0 { Detail::Turns } else { Detail::Steps };
        self.campaigns += 1;
        self.tell(detail, || Note::Role("asks who would vote for it".to_string()));
        let (last_log_index, last_log_term) = (self.log.last_index(), self.log.last_term());
        let term = self.hard.term.next();
        // Who is asked must know of the cluster first: if this node forgot it all
        // afterwards, a majority of the voters could still go on.
        self.pass_on_record_to_all();
        self.send_to_voters(|| {
            Message::PreVote(PreVote { round, term, last_log_index, last_log_term })
        });
        self.count_pre_votes(now);
    }

    /// Whether it is known here who votes.
    fn holds_members(&self) -> bool {
        self.members().is_some()
    }

    fn send_to_voters(&mut self, message: impl Fn() -> Message) {
        let me = self.me.incarnation;
        let voters: Vec<Incarnation> = self
            .members()
            .into_iter()
            .flat_map(|members| members.voters())
            .filter_map(|member| member.incarnation)
            .filter(|incarnation| *incarnation != me)
            .collect();
        for voter in voters {
            self.send(voter, message());
        }
    }

    /// Answers without changing anything: no term, no vote, no timer (pitfall 9).
    pub(super) fn on_pre_vote(&mut self, from: Incarnation, m: PreVote, now: Time) {
        let granted = m.term > self.hard.term
            && !self.hears_a_leader(now)
            && self.log.is_at_most(m.last_log_term, m.last_log_index);
        let name = self.name_of(from);
        self.step(|| format!("{} a pre-vote to {name} for term {}", gives(granted), m.term));
        let reply = PreVoteReply { round: m.round, term: self.hard.term, granted };
        self.send(from, Message::PreVoteReply(reply));
    }

    /// Whether a leader was heard within the shortest election timeout; a leader
    /// hears itself, as check-quorum lets it.
    fn hears_a_leader(&self, now: Time) -> bool {
        match &self.role {
            Role::Leader(_) => true,
            _ => {
                self.leader_heard_at.is_some_and(|at| now.since(at) < self.setup.election_timeout.0)
            }
        }
    }

    pub(super) fn on_pre_vote_reply(&mut self, from: Incarnation, m: PreVoteReply, now: Time) {
        if self.learn_term(from, m.term, now) {
            return;
        }
        let counts = self.members().is_some_and(|members| members.is_voter(from));
        let Role::PreCandidate(candidacy) = &mut self.role else { return };
        // An answer to an earlier asking starts nothing (pitfall 10).
        if m.granted && m.round == candidacy.round && counts {
            candidacy.granted.insert(from);
            self.count_pre_votes(now);
        }
    }

    fn count_pre_votes(&mut self, now: Time) {
        let Role::PreCandidate(candidacy) = &self.role else { return };
        let granted = |who| candidacy.granted.contains(&who);
        if self.members().is_some_and(|members| quorum::is_majority(members, granted)) {
            self.become_candidate(false, now);
        }
    }

    /// The leader hands over to this node: it stands at once, and asks nobody whether it
    /// would be elected (thesis §3.10).
    pub(super) fn on_timeout_now(&mut self, from: Incarnation, m: TimeoutNow, now: Time) {
        let of_leader = m.term == self.hard.term && self.leader() == Some(from);
        if of_leader && self.may_campaign() && self.disk_hangs(now).is_none() {
            let name = self.name_of(from);
            self.step(|| format!("is asked by {name} to take over"));
            self.become_candidate(true, now);
        }
    }

    pub(super) fn become_candidate(&mut self, handed_over: bool, now: Time) {
        assert!(!matches!(self.role, Role::Leader(_)), "a leader stands for no election");
        if self.hard.term == Term(u64::MAX) {
            self.fail(Failure::TermsExhausted);
            return;
        }
        self.candidacies += 1;
        self.hard.term = self.hard.term.next();
        self.hard.voted_for = Some(self.me.incarnation);
        self.durability.hard_changed();
        let own_vote = self.durability.hard_gate();
        self.role = Role::Candidate(Candidate { granted: BTreeSet::new(), own_vote });
        self.reset_election_timer(now);
        self.tell(Detail::Turns, || Note::Role("stands for election".to_string()));
        let (last_log_index, last_log_term) = (self.log.last_index(), self.log.last_term());
        let term = self.hard.term;
        self.send_to_voters(|| {
            Message::RequestVote(RequestVote { term, last_log_index, last_log_term, handed_over })
        });
    }

    pub(super) fn on_request_vote(&mut self, from: Incarnation, m: RequestVote, now: Time) {
        let name = self.name_of(from);
        if m.term > self.hard.term && (m.handed_over || !self.hears_a_leader(now)) {
            self.become_follower(m.term, None, now, "a candidate has a newer term");
        }
        let free = self.hard.voted_for.is_none_or(|candidate| candidate == from);
        // Raft §5.4.1: the candidate's log must hold all that is committed. A
        // refusal does not use up the vote (pitfall 3).
        let granted = m.term == self.hard.term
            && free
            && self.log.is_at_most(m.last_log_term, m.last_log_index)
            && matches!(self.role, Role::Follower(_) | Role::PreCandidate(_));
        if granted {
            if self.hard.voted_for.is_none() {
                self.hard.voted_for = Some(from);
                self.durability.hard_changed();
            }
            // A vote given, and nothing else about votes, resets the timer.
            self.reset_election_timer(now);
            if matches!(self.role, Role::PreCandidate(_)) {
                self.become_follower(m.term, None, now, "another candidate was first");
            }
        }
        self.step(|| format!("{} its vote to {name} in term {}", gives(granted), m.term));
        let reply = RequestVoteReply { term: self.hard.term, granted };
        self.send(from, Message::RequestVoteReply(reply));
    }

    pub(super) fn on_request_vote_reply(
        &mut self,
        from: Incarnation,
        m: RequestVoteReply,
        now: Time,
    ) {
        if self.learn_term(from, m.term, now) {
            return;
        }
        let current = m.term == self.hard.term;
        let Role::Candidate(candidacy) = &mut self.role else { return };
        if current && m.granted {
            candidacy.granted.insert(from);
            self.count_votes(now);
        }
    }

    /// A candidate's own vote counts when it is durable, as any other.
    pub(super) fn count_own_vote(&mut self, now: Time) {
        let me = self.me.incarnation;
        let Role::Candidate(candidacy) = &mut self.role else { return };
        if self.durability.is_completed(candidacy.own_vote) && candidacy.granted.insert(me) {
            self.count_votes(now);
        }
    }

    fn count_votes(&mut self, now: Time) {
        let Role::Candidate(candidacy) = &self.role else { return };
        let granted = |who| candidacy.granted.contains(&who);
        if self.members().is_some_and(|members| quorum::is_majority(members, granted)) {
            self.become_leader(now);
        }
    }

    fn become_leader(&mut self, now: Time) {
        assert!(matches!(self.role, Role::Candidate(_)), "a leader stood for election");
        // What it hears of that one while it leads itself is another matter.
        let before = self.leader_heard.take().zip(self.leader_heard_at);
        let watches = self.setup.failure_timeout.is_some();
        let first = self.first_of_term();
        self.role = Role::Leader(Box::new(Leader {
            term_start: self.log.last_index().next(),
            seq: 0,
            progress: Default::default(),
            heartbeat_at: now,
            rounds: Default::default(),
            reads: Default::default(),
            seen: Default::default(),
            changing: None,
            joining: Vec::new(),
            newcomers: Default::default(),
            farewells: Default::default(),
            detector: Detector::new(watches, now),
            settled: self.applicable(),
            unsettled_bytes: self
                .log
                .from(self.applicable().next())
                .map(|(_, entry)| entry.size_bytes())
                .sum(),
        }));
        self.campaigns = 0;
        self.candidacies = 0;
        self.follow_members(now);
        self.remember_leader(before);
        self.tell(Detail::Turns, || Note::Role("is elected".to_string()));
        let me = self.me.incarnation;
        self.tell(Detail::Turns, || Note::Leader(Some(me)));
        // Raft §8: an entry of its own term commits what came before it.
        self.append_own(first);
        self.tick_leader(now);
    }

    /// Follows from now on, in `term`. A vote is only ever cleared by a newer
    /// term (pitfall 7).
    pub(super) fn become_follower(
        &mut self,
        term: Term,
        leader: Option<Incarnation>,
        now: Time,
        why: &str,
    ) {
        assert!(term >= self.hard.term, "term {term} after {}", self.hard.term);
        let known = self.leader();
        let newer = term > self.hard.term;
        let was_follower = matches!(self.role, Role::Follower(_));
        self.forget_changes();
        if let Role::Leader(leader) = &self.role {
            self.quorum_at =
                self.members().map(|members| leader.quorum_at(members, self.me.incarnation, now));
        }
        if newer {
            self.hard.term = term;
            self.hard.voted_for = None;
            self.durability.hard_changed();
        }
        if !was_follower {
            self.reset_election_timer(now);
        }
        self.role = Role::follower(leader);
        if !was_follower {
            self.tell(Detail::Turns, || Note::Role(why.to_string()));
        }
        if known != leader {
            self.tell(Detail::Turns, || Note::Leader(leader));
        }
    }

    /// Whoever stands for election stands no longer; its vote stays where it is, and
    /// its timer as it was set.
    pub(super) fn stand_no_longer(&mut self, why: &str) {
        if matches!(self.role, Role::PreCandidate(_) | Role::Candidate(_)) {
            self.role = Role::follower(None);
            self.tell(Detail::Turns, || Note::Role(why.to_string()));
        }
    }

    /// A reply of a newer term makes any role a follower (Raft §5.1). Says
    /// whether it did.
    pub(super) fn learn_term(&mut self, from: Incarnation, term: Term, now: Time) -> bool {
        if term <= self.hard.term {
            return false;
        }
        let name = self.name_of(from);
        self.become_follower(term, None, now, &format!("{name} has a newer term"));
        true
    }

    /// A message of a leader of `term` came: this node follows it, unless the
    /// term is old. `Ok(false)`: it is.
    pub(super) fn hear_leader(
        &mut self,
        from: Incarnation,
        term: Term,
        now: Time,
    ) -> Result<bool, Refused> {
        if term < self.hard.term {
            return Ok(false);
        }
        let known = self.leader().filter(|_| term == self.hard.term);
        match known {
            Some(leader) if leader == from => {}
            Some(leader) => {
                let (one, other) = (self.name_of(leader), self.name_of(from));
                self.fail(Failure::TwoLeaders { term, one, other });
                return Err(Refused::Failed);
            }
            None => {
                let name = self.name_of(from);
                self.become_follower(term, Some(from), now, &format!("{name} is the leader"));
            }
        }
        self.leader_heard_at = Some(now);
        self.leader_heard = Some(from);
        self.campaigns = 0;
        self.candidacies = 0;
        self.reset_election_timer(now);
        Ok(true)
    }

    /// Check-quorum (thesis §6.2): a leader that was not in touch with a majority
    /// for the longest election timeout steps down. It looks at each heartbeat, so it
    /// must not wait for the next one to be late.
    pub(super) fn check_quorum(&mut self, now: Time) {
        let Role::Leader(leader) = &self.role else { return };
        let Some(members) = self.members() else { return };
        let silence = now.since(leader.quorum_at(members, self.me.incarnation, now));
        if silence + self.setup.heartbeat > self.setup.election_timeout.1 {
            self.become_follower(self.hard.term, None, now, "cannot reach a majority");
        }
    }
}

fn gives(granted: bool) -> &'static str {
    if granted { "gives" } else { "refuses" }
}
