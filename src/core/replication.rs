//! How the log travels (Raft §5.3), and how it becomes committed.
//!
//! ```text
//!   leader                                 follower
//!   append to own log
//!   AppendEntries ───────────────────►     check prev, cut conflicts, append
//!   write own log (in parallel)            write
//!   ◄──────────────────────── Matched      durable and verified up to here
//!   majority durable: commit
//!   the next append, or Commit ──────►     commit what is verified
//! ```
//!
//! A follower keeps `verified`: up to where its log was found equal to this
//! leader's. Nothing above it is ever acknowledged or committed, whatever the log
//! holds there and whatever commit index the leader states (pitfalls 19, 20).

use std::ops::Bound;

use super::Core;
use super::effect::{Detail, Note};
use super::message::{
    AppendEntries, AppendEntriesReply, AppendOutcome, Commit, Heartbeat, HeartbeatReply, Message,
};
use super::quorum;
use super::state::{Failure, Leader, Refused, Role};
use super::types::{Entry, Incarnation, Index, Payload, Protocol, Term, Time};

/// At most so many entries travel in one append, however small they are.
const ENTRIES_MOST: usize = 4096;

impl Core {
    /// Appends to the log; the one door for entries.
    pub(super) fn append_to_log(&mut self, entry: Entry) -> Index {
        let index = self.log.last_index().next();
        if let Payload::Protocol(Protocol::Members(members)) = &entry.payload {
            self.lives.members_changed(self.configurations.current(), members, index);
            self.configurations.push(index, members);
            self.tell(Detail::Turns, || Note::Members(index));
        }
        self.log.append(entry);
        self.durability.appended(index);
        index
    }

    /// The leader appends in its own term.
    pub(super) fn append_own(&mut self, payload: Payload) -> Index {
        let entry = Entry { term: self.hard.term, payload };
        let size = entry.size_bytes();
        let is_own = !matches!(entry.payload, Payload::Client(_));
        let index = self.append_to_log(entry);
        let Role::Leader(leader) = &mut self.role else { return index };
        leader.unsettled_bytes += size;
        if is_own {
            // Who leads, who is a member, who is up: everybody waits for that.
            for progress in leader.progress.values_mut() {
                progress.news.await_commit(index);
            }
        }
        index
    }

    /// Cuts the log from `from` on, and all that rests on it.
    fn truncate(&mut self, from: Index) {
        assert!(from > self.commit_index, "{from} is committed (up to {})", self.commit_index);
        self.step(|| format!("removes its entries from {from} on"));
        self.log.truncate_from(from);
        self.truncated = Some(self.truncated.map_or(from, |lowest| lowest.min(from)));
        self.durability.truncated(from);
        if self.configurations.truncate_from(from) {
            let index = self.configurations.current_index();
            if let Some(members) = self.configurations.current() {
                self.lives.members_changed(None, members, index);
            }
            self.tell(Detail::Turns, || Note::Members(index));
        }
    }

    /// Heartbeats, patience with those that do not answer, check-quorum.
    pub(super) fn tick_leader(&mut self, now: Time) {
        let Role::Leader(leader) = &mut self.role else { return };
        for progress in leader.progress.values_mut() {
            progress.on_tick(now);
        }
        if now >= leader.heartbeat_at {
            self.beat(now);
        }
        self.tick_detector(now);
    }

    fn beat(&mut self, now: Time) {
        let Role::Leader(leader) = &mut self.role else { return };
        leader.heartbeat_at = now.plus(self.setup.heartbeat);
        self.send_heartbeats(now);
        self.say_farewell();
        self.check_quorum(now);
        self.check_disk(now);
        self.tend_members(now);
    }

    /// One round of heartbeats; the number that answers of it bear at least.
    pub(super) fn send_heartbeats(&mut self, now: Time) -> u64 {
        let commit = self.commit_index;
        let term = self.hard.term;
        let quorum_age_us = self.quorum_at(now).map_or(0, |at| now.since(at));
        let Role::Leader(leader) = &mut self.role else { return 0 };
        leader.begin_round(self.setup.heartbeat / 8, now);
        let seq = leader.next_seq();
        let mut last = None;
        while let Some(member) = self.member_after(last) {
            let heartbeat = Heartbeat { term, seq, leader_commit: commit, quorum_age_us };
            self.send(member, Message::Heartbeat(heartbeat));
            last = Some(member);
        }
        seq
    }

    /// Sends what each member may get now: entries, or the news of a commit.
    pub(super) fn flush_leader(&mut self, now: Time) {
        self.flush_reads(now);
        let mut last = None;
        while let Some(member) = self.member_after(last) {
            while self.send_append(member, now) {}
            while self.send_piece(member, now) {}
            self.send_commit(member, now);
            last = Some(member);
        }
    }

    /// The members of whom this leader keeps progress, one after the other.
    fn member_after(&self, last: Option<Incarnation>) -> Option<Incarnation> {
        let Role::Leader(leader) = &self.role else { return None };
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        leader.progress.range((from, Bound::Unbounded)).next().map(|(member, _)| *member)
    }

    /// Sends one append if the member's window allows it. Says whether it did.
    fn send_append(&mut self, member: Incarnation, now: Time) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        let Some(progress) = leader.progress.get(&member) else { return false };
        let (next_index, through) = progress.next_append();
        if !progress.may_send(next_index <= self.log.last_index()) {
            return false;
        }
        let limit = self.append_limit(member);
        let reachable = self.lives.by_incarnation(member).is_some();
        let prev_log_index = next_index.previous();
        if prev_log_index < self.log.base_index() {
            self.begin_snapshot(member);
            return false;
        }
        let Some(prev_log_term) = self.log.term_at(prev_log_index).filter(|_| reachable) else {
            return false;
        };
        let (count, size) = self.count_for_append(next_index, through, limit);
        let entries = self.log.from(next_index).take(count);
        let entries: Vec<Entry> = entries.map(|(_, entry)| entry.clone()).collect();
        let last = Index(prev_log_index.0 + entries.len() as u64);
        let Role::Leader(leader) = &mut self.role else { return false };
        let seq = leader.next_seq();
        let Some(progress) = leader.progress.get_mut(&member) else { return false };
        progress.on_sent(seq, last, size, now);
        progress.news.on_sent(self.commit_index);
        let append = AppendEntries {
            term: self.hard.term,
            seq,
            prev_log_index,
            prev_log_term,
            leader_commit: self.commit_index,
            entries,
        };
        self.note_append(member, &append);
        self.send(member, Message::AppendEntries(append))
    }

    /// How many entries from `next_index` on one append takes, and their bytes: those up to
    /// `through`, or as many as fit in `limit` bytes and at least one.
    fn count_for_append(
        &self,
        next_index: Index,
        through: Option<Index>,
        limit: usize,
    ) -> (usize, usize) {
        let (mut count, mut size) = (0, 0);
        for (index, entry) in self.log.from(next_index).take(ENTRIES_MOST) {
            let bytes = entry.size_bytes();
            let takes = match through {
                Some(through) => index <= through,
                None => count == 0 || size + bytes <= limit,
            };
            if !takes {
                break;
            }
            (count, size) = (count + 1, size + bytes);
        }
        (count, size)
    }

    fn note_append(&mut self, member: Incarnation, append: &AppendEntries) {
        if self.detail >= Detail::Steps {
            let name = self.name_of(member);
            let (from, count) = (append.prev_log_index.next(), append.entries.len());
            self.step(|| match count {
                0 => format!("asks {name} whether its log reaches {}", from.previous()),
                1 => format!("sends {name} entry {from}"),
                _ => format!("sends {name} entries {from} to {}", from.0 + count as u64 - 1),
            });
        }
    }

    pub(super) fn append_limit(&self, member: Incarnation) -> usize {
        let own = self.own_address();
        let peer = self.lives.by_incarnation(member);
        peer.map_or(1_000, |peer| self.setup.append_bytes.between(own, peer.node.address))
    }

    /// A commit that no append took along is told by itself.
    fn send_commit(&mut self, member: Incarnation, now: Time) {
        let (term, leader_commit) = (self.hard.term, self.commit_index);
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(progress) = leader.progress.get_mut(&member) else { return };
        let matched = progress.match_index();
        if progress.news.is_due(leader_commit, matched, now) {
            progress.news.on_sent(leader_commit);
            self.send(member, Message::Commit(Commit { term, leader_commit }));
        }
    }

    pub(super) fn on_append_entries(
        &mut self,
        from: Incarnation,
        m: AppendEntries,
        now: Time,
    ) -> Result<(), Refused> {
        check_append(&m)?;
        if !self.hear_leader(from, m.term, now)? {
            // The number is one of an old term: in the reply's term, which may be
            // the sender's own by now, it would answer what was never received
            // (pitfall 23).
            let reply =
                AppendEntriesReply { term: self.hard.term, seq: 0, outcome: AppendOutcome::Stale };
            self.send(from, Message::AppendEntriesReply(reply));
            return Ok(());
        }
        let covered = m.prev_log_index < self.log.base_index();
        let agrees = covered || self.log.term_at(m.prev_log_index) == Some(m.prev_log_term);
        if !agrees {
            return self.refuse_append(from, &m);
        }
        let (prev_log_index, entries) = self.above_base(from, m.prev_log_index, m.entries)?;
        let last = Index(prev_log_index.0 + entries.len() as u64);
        self.take_entries(from, prev_log_index, entries)?;
        let Role::Follower(follower) = &mut self.role else { return Ok(()) };
        follower.verified = follower.verified.max(last);
        follower.seq = follower.seq.max(m.seq);
        follower.acknowledge = true;
        self.follow_commit(m.leader_commit);
        Ok(())
    }

    /// The entry before is not here: says up to where the logs may still agree.
    fn refuse_append(&mut self, from: Incarnation, m: &AppendEntries) -> Result<(), Refused> {
        if m.prev_log_index <= self.commit_index {
            let leader = self.name_of(from);
            self.fail(Failure::CommittedContradicted { leader, index: m.prev_log_index });
            return Err(Refused::Failed);
        }
        let (hint_index, hint_term) =
            self.log.last_not_above(m.prev_log_index.previous(), m.prev_log_term);
        let name = self.name_of(from);
        self.step(|| {
            format!(
                "lacks {} of term {} that {name} continues; may agree up to {hint_index}",
                m.prev_log_index, m.prev_log_term
            )
        });
        let outcome =
            AppendOutcome::Mismatch { prev_log_index: m.prev_log_index, hint_index, hint_term };
        let reply = AppendEntriesReply { term: self.hard.term, seq: m.seq, outcome };
        self.send(from, Message::AppendEntriesReply(reply));
        Ok(())
    }

    /// Appends what is new. Entries that are here already stay, and what follows
    /// them stays, too: only a conflict cuts the log (pitfall 17).
    fn take_entries(
        &mut self,
        from: Incarnation,
        prev_log_index: Index,
        entries: Vec<Entry>,
    ) -> Result<(), Refused> {
        let mut index = prev_log_index;
        let mut first_new = None;
        for entry in entries {
            index = index.next();
            match self.log.term_at(index) {
                Some(term) if term == entry.term => continue,
                Some(_) if index <= self.commit_index => {
                    let leader = self.name_of(from);
                    self.fail(Failure::CommittedContradicted { leader, index });
                    return Err(Refused::Failed);
                }
                Some(_) => self.truncate(index),
                None => {}
            }
            first_new.get_or_insert(index);
            self.append_to_log(entry);
        }
        if let Some(first) = first_new {
            self.step(|| match first == index {
                true => format!("appends entry {index}"),
                false => format!("appends entries {first} to {index}"),
            });
        }
        Ok(())
    }

    /// Commits what the leader has and this node has verified.
    pub(super) fn follow_commit(&mut self, leader_commit: Index) {
        let Role::Follower(follower) = &self.role else { return };
        let reached = leader_commit.min(follower.verified);
        if self.commit_to(reached) {
            self.note_removed();
        }
    }

    /// Says whether other members are committed by it.
    fn commit_to(&mut self, index: Index) -> bool {
        if index <= self.commit_index {
            return false;
        }
        assert!(index <= self.log.last_index(), "{index} beyond {}", self.log.last_index());
        let before = std::mem::replace(&mut self.commit_index, index);
        self.forget_incoming();
        self.step(|| format!("commits up to {index}"));
        let mut verdicts = std::mem::take(&mut self.verdicts);
        let turns = self.fold_verdicts(&mut verdicts, before, index);
        self.verdicts = verdicts;
        self.turned.extend_from_slice(&turns);
        self.tell_turns(turns);
        self.configurations.at(index).is_some_and(|(stated, _)| *stated > before)
    }

    /// Acknowledges what is durable and verified. While a write is under way
    /// nothing is said that was said before: its completion brings the news.
    pub(super) fn flush_follower(&mut self) {
        let durable = self.durability.durable();
        let Role::Follower(follower) = &mut self.role else { return };
        let Some(leader) = follower.leader.filter(|_| follower.acknowledge) else { return };
        let index = follower.verified.min(durable);
        if index < follower.verified && index <= follower.acknowledged {
            return;
        }
        follower.acknowledge = index < follower.verified;
        follower.acknowledged = index;
        let seq = follower.seq;
        let outcome = AppendOutcome::Matched { index };
        let reply = AppendEntriesReply { term: self.hard.term, seq, outcome };
        self.send(leader, Message::AppendEntriesReply(reply));
    }

    pub(super) fn on_heartbeat(
        &mut self,
        from: Incarnation,
        m: Heartbeat,
        now: Time,
    ) -> Result<(), Refused> {
        let mut seq = 0;
        let mut verified = Index(0);
        if self.hear_leader(from, m.term, now)? {
            self.quorum_at = Some(Time(now.0.saturating_sub(m.quorum_age_us)));
            self.follow_commit(m.leader_commit);
            if let Role::Follower(follower) = &self.role {
                (seq, verified) = (m.seq, follower.verified);
            }
        }
        let matched = verified.min(self.durability.durable());
        let reply = HeartbeatReply { term: self.hard.term, seq, matched, verified };
        self.send(from, Message::HeartbeatReply(reply));
        Ok(())
    }

    pub(super) fn on_commit(
        &mut self,
        from: Incarnation,
        term: Term,
        leader_commit: Index,
        now: Time,
    ) -> Result<(), Refused> {
        if self.hear_leader(from, term, now)? {
            self.follow_commit(leader_commit);
        }
        Ok(())
    }

    /// The leader's side of an answer: its progress of that member, if the answer
    /// is of this term and to something that was sent.
    pub(super) fn answered(
        &mut self,
        from: Incarnation,
        term: Term,
        seq: u64,
        now: Time,
    ) -> Result<Option<&mut Leader>, Refused> {
        if self.learn_term(from, term, now) {
            return Ok(None);
        }
        let current = term == self.hard.term;
        let Role::Leader(leader) = &mut self.role else { return Ok(None) };
        if !current {
            return Ok(None);
        }
        if seq > leader.seq {
            return Err(Refused::Malformed);
        }
        let began_at = leader.began_at(seq);
        match leader.progress.get_mut(&from) {
            Some(progress) => progress.on_answer(seq, began_at),
            None => return Ok(None),
        }
        Ok(Some(leader))
    }

    pub(super) fn on_append_entries_reply(
        &mut self,
        from: Incarnation,
        m: AppendEntriesReply,
        now: Time,
    ) -> Result<(), Refused> {
        let last_index = self.log.last_index();
        // What the follower cannot have, the leader need not offer, and the other
        // way round: a term is skipped at each step (Raft §5.3).
        let agree = match m.outcome {
            AppendOutcome::Mismatch { prev_log_index, hint_index, hint_term } => {
                let below = hint_index.min(prev_log_index.previous());
                self.log.last_not_above(below, hint_term).0
            }
            AppendOutcome::Matched { .. } | AppendOutcome::Stale => Index(0),
        };
        let Some(leader) = self.answered(from, m.term, m.seq, now)? else { return Ok(()) };
        let Some(progress) = leader.progress.get_mut(&from) else { return Ok(()) };
        match m.outcome {
            AppendOutcome::Matched { index } if index > last_index => {
                return Err(Refused::Malformed);
            }
            AppendOutcome::Matched { index } => progress.on_matched(m.seq, index, now),
            AppendOutcome::Mismatch { prev_log_index, .. } => {
                progress.on_mismatch(m.seq, prev_log_index, agree, now);
            }
            AppendOutcome::Stale => {}
        }
        self.advance_commit(now);
        self.confirm_reads();
        self.hear_for_detector(now);
        Ok(())
    }

    pub(super) fn on_heartbeat_reply(
        &mut self,
        from: Incarnation,
        m: HeartbeatReply,
        now: Time,
    ) -> Result<(), Refused> {
        if m.matched > m.verified {
            return Err(Refused::Malformed);
        }
        let last_index = self.log.last_index();
        let Some(leader) = self.answered(from, m.term, m.seq, now)? else { return Ok(()) };
        if m.verified > last_index {
            return Err(Refused::Malformed);
        }
        let Some(progress) = leader.progress.get_mut(&from) else { return Ok(()) };
        if m.matched > progress.match_index() {
            progress.on_matched(m.seq, m.matched, now);
        }
        progress.on_heartbeat_answer(m.seq, m.verified, now);
        self.advance_commit(now);
        self.confirm_reads();
        self.hear_for_detector(now);
        Ok(())
    }

    /// Applies the commit rule. The leader counts itself with what is durable
    /// here, as any other (pitfalls 25, 30).
    pub(super) fn advance_commit(&mut self, now: Time) {
        let me = self.me.incarnation;
        let durable = self.durability.durable();
        let Role::Leader(leader) = &self.role else { return };
        let Some(members) = self.configurations.current() else { return };
        let match_index = |voter: Incarnation| match leader.progress.get(&voter) {
            _ if voter == me => durable,
            Some(progress) => progress.match_index(),
            None => Index(0),
        };
        let reached = quorum::commit_index(
            members,
            match_index,
            |index| self.log.term_at(index),
            self.hard.term,
            self.commit_index,
        );
        if reached == self.commit_index {
            return;
        }
        let members = self.commit_to(reached);
        self.settle();
        if members {
            self.members_committed(now);
        }
        self.tend_members(now);
    }

    /// What is committed, and durable here, makes room for more. The followers' disks
    /// may be quicker than the leader's: what waits for its own is held as well.
    pub(super) fn settle(&mut self) {
        let settled = self.applicable();
        let Role::Leader(leader) = &mut self.role else { return };
        let newly = settled.0.saturating_sub(leader.settled.0) as usize;
        let entries = self.log.from(leader.settled.next()).take(newly);
        let bytes: usize = entries.map(|(_, entry)| entry.size_bytes()).sum();
        leader.unsettled_bytes = leader.unsettled_bytes.saturating_sub(bytes);
        leader.settled = leader.settled.max(settled);
    }
}

/// A leader's entries never fall in term, none is of a term above its own, and
/// indexes do not run out.
fn check_append(m: &AppendEntries) -> Result<(), Refused> {
    let rising = m.entries.windows(2).all(|pair| pair[0].term <= pair[1].term);
    let first = m.entries.first().is_none_or(|entry| entry.term >= m.prev_log_term);
    let last = m.entries.last().map_or(m.prev_log_term, |entry| entry.term) <= m.term;
    let room = m.prev_log_index.0.checked_add(m.entries.len() as u64).is_some();
    let start = m.prev_log_index != Index(0) || m.prev_log_term == Term(0);
    if rising && first && last && room && start { Ok(()) } else { Err(Refused::Malformed) }
}
