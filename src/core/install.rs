//! Snapshots in the protocol: the log behind one is let go, and a follower whose log
//! ends before the leader's begins gets one (Raft §7, Figure 13).
//!
//! Departures from Figure 13: pieces carry which snapshot they are of, so a transfer
//! is resumed after a loss or with another leader; and the last acknowledgement is
//! that of the log, when the snapshot is durable.

use super::Core;
use super::effect::{Detail, Note};
use super::log::Log;
use super::message::{InstallSnapshot, InstallSnapshotReply, Message};
use super::snapshot::{SNAPSHOT_LIMIT_BYTES, Snapshot, SnapshotId};
use super::state::{Configurations, Failure, Refused, Role};
use super::transfer::Incoming;
use super::types::{Entry, Incarnation, Index, Time};

/// What is kept of the log behind a snapshot takes at most so many bytes: for
/// followers that are a little behind, and for those that are being brought up.
const TAIL_BYTES: usize = 16 * 1024 * 1024;
const WANTED_BYTES: usize = 64 * 1024 * 1024;
/// The log is kept for a member that was in touch so long ago at most, in longest
/// election timeouts.
const WANTED_FOR: u64 = 10;
/// No snapshot ends behind this index.
const INDEX_MOST: Index = Index(u64::MAX / 2);

impl Core {
    /// A snapshot of this node's own is durable: it stands for the log up to its
    /// index, and what nobody needs of that is let go.
    pub fn compact(&mut self, snapshot: Snapshot, now: Time) {
        let index = snapshot.id.index;
        assert!(index <= self.applicable(), "a snapshot at {index} of what is not applied");
        if self.snapshot.as_ref().is_some_and(|known| known.id.index >= index) {
            return;
        }
        self.snapshot = Some(snapshot);
        self.configurations.covered(index);
        self.tell(Detail::Turns, || Note::Compacted(index));
        self.trim(now);
    }

    /// Lets go what a snapshot stands for: all but a tail, and what members need that
    /// are being brought up to date (pitfall 40).
    fn trim(&mut self, now: Time) {
        let Some(snapshot) = &self.snapshot else { return };
        let index = snapshot.id.index;
        let tail = Index(index.0.saturating_sub(self.setup.tail_entries));
        let tail = self.reach_back(index, TAIL_BYTES, tail);
        // A large state takes longer to send, and is written down less often.
        let limit = WANTED_BYTES.max(usize::try_from(snapshot.id.length).unwrap_or(usize::MAX));
        let wanted = self.reach_back(index, limit, self.wanted_from(now));
        self.log.compact_to(tail.min(wanted).min(index));
        let base = self.log.base_index();
        if let Role::Leader(leader) = &mut self.role {
            leader.progress.values_mut().for_each(|progress| progress.snapshot_is_outdated(base));
        }
    }

    /// The least index, from `least` on, behind which, up to `index`, no more than so many
    /// bytes lie.
    fn reach_back(&self, index: Index, limit: usize, least: Index) -> Index {
        let mut bytes = 0;
        let mut reached = index.max(least);
        while reached > least
            && let Some(entry) = self.log.entry(reached)
        {
            bytes += entry.size_bytes();
            if bytes > limit {
                break;
            }
            reached = reached.previous();
        }
        reached
    }

    /// All behind this is wanted by a member that is being brought up to date.
    fn wanted_from(&self, now: Time) -> Index {
        let Role::Leader(leader) = &self.role else { return Index(u64::MAX) };
        let patience = self.setup.election_timeout.1 * WANTED_FOR;
        let in_touch = leader.progress.values().filter(|p| now.since(p.contact_at) <= patience);
        in_touch.filter_map(|progress| progress.wants_after()).min().unwrap_or(Index(u64::MAX))
    }

    /// Sends one piece of the snapshot if the member's window allows it. Says whether
    /// it did.
    pub(super) fn send_piece(&mut self, member: Incarnation, now: Time) -> bool {
        let limit = self.append_limit(member);
        let reachable = self.lives.by_incarnation(member).is_some();
        let term = self.hard.term;
        let Role::Leader(leader) = &mut self.role else { return false };
        let seq = leader.seq + 1;
        let Some(progress) = leader.progress.get_mut(&member).filter(|_| reachable) else {
            return false;
        };
        let Some((id, offset, data)) = progress.next_piece(limit, seq, now) else { return false };
        leader.seq = seq;
        let name = self.name_of(member);
        self.step(|| {
            let end = offset + data.len() as u64;
            format!("sends {name} bytes {offset} to {end} of the snapshot at {}", id.index)
        });
        let piece = InstallSnapshot { term, seq, id, offset, data };
        self.send(member, Message::InstallSnapshot(piece))
    }

    /// The member's log ends before this one begins: the snapshot is sent to it.
    pub(super) fn begin_snapshot(&mut self, member: Incarnation) -> bool {
        let Some(snapshot) = &self.snapshot else { return false };
        let Role::Leader(leader) = &mut self.role else { return false };
        let Some(progress) = leader.progress.get_mut(&member) else { return false };
        progress.become_snapshot(snapshot);
        let (name, index) = (self.name_of(member), snapshot.id.index);
        self.step(|| format!("the log that {name} needs is gone: sends the snapshot at {index}"));
        true
    }

    pub(super) fn on_install_snapshot(
        &mut self,
        from: Incarnation,
        m: InstallSnapshot,
        now: Time,
    ) -> Result<(), Refused> {
        check_piece(&m)?;
        let InstallSnapshot { term, seq, id, offset, data } = m;
        if !self.hear_leader(from, term, now)? {
            let reply = InstallSnapshotReply { term: self.hard.term, seq: 0, id, received: 0 };
            self.send(from, Message::InstallSnapshotReply(reply));
            return Ok(());
        }
        // What is committed here is in the leader's log as well (Raft §5.4), and so is
        // all that precedes an entry that is (Raft §5.3): nothing to install
        // (pitfalls 32, 33).
        let here = self.log.term_at(id.index);
        if id.index <= self.commit_index && here.is_some_and(|term| term != id.term) {
            let leader = self.name_of(from);
            self.fail(Failure::CommittedContradicted { leader, index: id.index });
            return Err(Refused::Failed);
        }
        if let Role::Follower(follower) = &mut self.role {
            follower.seq = follower.seq.max(seq);
        }
        if self.holds(id) {
            self.verify_up_to(id.index);
            return Ok(());
        }
        // Numbers of messages begin anew with each term.
        let message = (term, seq);
        let known = self.incoming.as_ref().map(|(incoming, newest)| (incoming.id(), *newest));
        match known {
            Some((known, _)) if known == id => {}
            // A late piece of what this leader has given up for another.
            Some((_, newest)) if message < newest => return Ok(()),
            _ => self.incoming = Some((Incoming::new(id), message)),
        }
        let Some((incoming, newest)) = &mut self.incoming else { return Ok(()) };
        *newest = message.max(*newest);
        if !incoming.take(offset, data) {
            return Err(Refused::Full);
        }
        let received = incoming.received();
        if incoming.is_complete() {
            let whole = self.incoming.take().map(|(incoming, _)| (id, incoming.into_data()));
            self.assembled = whole;
        }
        let reply = InstallSnapshotReply { term, seq, id, received };
        self.send(from, Message::InstallSnapshotReply(reply));
        Ok(())
    }

    /// Whether the log holds, or is known to have held, all that the snapshot stands
    /// for.
    fn holds(&self, id: SnapshotId) -> bool {
        id.index <= self.commit_index || self.log.term_at(id.index) == Some(id.term)
    }

    /// What stands in a snapshot is committed, and stands in each leader's log
    /// (Raft §5.4): as far as this log holds it, too, it is the leader's.
    fn verify_up_to(&mut self, index: Index) {
        if let Role::Follower(follower) = &mut self.role {
            follower.verified = follower.verified.max(index);
            follower.acknowledge = true;
            self.follow_commit(index);
        }
    }

    /// What covers no more than what is committed is not waited for any more.
    pub(super) fn forget_incoming(&mut self) {
        let committed = self.commit_index;
        self.incoming.take_if(|(incoming, _)| incoming.id().index <= committed);
    }

    /// The snapshot that came whole was opened, and takes the place of the log
    /// (Raft Figure 13). It says what was committed; nothing is acknowledged, and
    /// nothing given to a state machine, before it is durable.
    pub fn install(&mut self, snapshot: Snapshot) -> Result<(), Refused> {
        let (index, term) = (snapshot.id.index, snapshot.id.term);
        if self.failure.is_some() {
            return Err(Refused::Failed);
        }
        if term > self.hard.term {
            return Err(Refused::Malformed);
        }
        if Some(snapshot.members.cluster) != self.hard.cluster {
            return Err(Refused::ForeignCluster);
        }
        // The entries came before it was opened, and others behind them: nobody takes
        // back what was acknowledged (pitfall 34).
        if self.holds(snapshot.id) {
            self.verify_up_to(index);
            return Ok(());
        }
        if matches!(self.role, Role::Leader(_)) {
            return Err(Refused::Malformed);
        }
        self.stand_no_longer("lacks what is committed");
        let dropped = self.commit_index.next();
        self.truncated = Some(self.truncated.map_or(dropped, |lowest| lowest.min(dropped)));
        self.durability.installed(self.commit_index);
        // The entry there is another's, or not there: none that follows is the
        // leader's (pitfall 33).
        self.log = Log::with_base(index, term);
        self.commit_index = index;
        self.forget_incoming();
        let stated = snapshot.members_index;
        let before = self.configurations.current();
        self.lives.members_changed(before, &snapshot.members, stated);
        let news = self.configurations.current() != Some(&snapshot.members);
        self.snapshot = Some(snapshot);
        self.configurations = Configurations::of(self.snapshot.as_ref(), &self.log);
        let verdicts = self.snapshot.as_ref().map(|of| of.verdicts.clone()).unwrap_or_default();
        let before = std::mem::replace(&mut self.verdicts, verdicts);
        if let Role::Follower(follower) = &mut self.role {
            follower.verified = index;
            follower.acknowledge = true;
        }
        self.tell(Detail::Turns, || Note::Installed(index));
        self.tell_turns(self.verdicts.since(&before));
        if news {
            self.tell(Detail::Turns, || Note::Members(stated));
        }
        self.note_removed();
        Ok(())
    }

    pub(super) fn on_install_snapshot_reply(
        &mut self,
        from: Incarnation,
        m: InstallSnapshotReply,
        now: Time,
    ) -> Result<(), Refused> {
        if m.received > m.id.length {
            return Err(Refused::Malformed);
        }
        let Some(leader) = self.answered(from, m.term, m.seq, now)? else { return Ok(()) };
        if let Some(progress) = leader.progress.get_mut(&from) {
            progress.on_received(m.seq, m.id, m.received, now);
        }
        self.confirm_reads();
        Ok(())
    }

    /// An append that begins below what the log holds: the entries that a snapshot
    /// covers are committed and stay as they are (pitfall 34). Gives what is left of
    /// it, behind the base.
    pub(super) fn above_base(
        &mut self,
        from: Incarnation,
        prev_log_index: Index,
        entries: Vec<Entry>,
    ) -> Result<(Index, Vec<Entry>), Refused> {
        let base = self.log.base_index();
        let Some(below) = base.0.checked_sub(prev_log_index.0).filter(|below| *below > 0) else {
            return Ok((prev_log_index, entries));
        };
        let below = usize::try_from(below).unwrap_or(usize::MAX);
        let at_base = entries.get(below - 1).map(|entry| entry.term);
        if at_base.is_some_and(|term| term != self.log.base_term()) {
            let leader = self.name_of(from);
            self.fail(Failure::CommittedContradicted { leader, index: base });
            return Err(Refused::Failed);
        }
        let left = entries.into_iter().skip(below).collect();
        Ok((base, left))
    }
}

/// A piece lies within its snapshot, which is of the past; behind it indexes do not run
/// out.
fn check_piece(m: &InstallSnapshot) -> Result<(), Refused> {
    let end = m.offset.checked_add(m.data.len() as u64);
    let fits = !m.data.is_empty() && end.is_some_and(|end| end <= m.id.length);
    let past = m.id.term <= m.term && (Index(1)..=INDEX_MOST).contains(&m.id.index);
    if fits && past && m.id.length <= SNAPSHOT_LIMIT_BYTES {
        Ok(())
    } else {
        Err(Refused::Malformed)
    }
}
