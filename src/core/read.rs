//! Linearizable reads without an entry in the log (ReadIndex, thesis §6.4).
//!
//! A read asks for an index: the leader's commit index, taken after it has
//! committed in its own term, and given out only after a majority has answered a
//! message that was sent after the asking. Each such round has a number of its
//! own, the `seq` of its heartbeats: an answer to anything earlier confirms
//! nothing (pitfall 49). The asker, leader or not, serves the read from its own
//! state once that much is applied.
//!
//! Lost messages are not repeated here: who asked asks again, with a new number.

use std::collections::VecDeque;

use super::Core;
use super::effect::ReadReady;
use super::message::{Message, ReadIndex, ReadIndexReply};
use super::quorum;
use super::state::{Refused, Role};
use super::types::{Index, Life, Time};

/// A leader holds at most so many askings; more are dropped, and asked again.
const ASKINGS_MOST: usize = 4096;

/// Who asked: another node, or this one. The number belongs to the asker's run: a
/// later run uses it for another read, and must not get this one's answer.
#[derive(Clone, Copy, Debug)]
struct Asking {
    from: Option<Life>,
    id: u64,
}

/// A round of heartbeats that confirms these askings.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
struct Round {
    seq: u64,
    index: Index,
    askings: Vec<Asking>,
}

/// The leader's reads under way.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub struct ReadRounds {
    waiting: Vec<Asking>,
    rounds: VecDeque<Round>,
}

impl ReadRounds {
    fn take(&mut self, asking: Asking) -> Result<(), Refused> {
        let held: usize = self.rounds.iter().map(|round| round.askings.len()).sum();
        if held + self.waiting.len() >= ASKINGS_MOST {
            return Err(Refused::Full);
        }
        self.waiting.push(asking);
        Ok(())
    }
}

impl Core {
    /// Asks for an index from which a read of this node is linearizable; it comes
    /// as `ReadReady` with this `id`. False: no leader is known or reachable, ask
    /// again when there is one. What was asked before the leader changed may never
    /// be answered; an `id` must not be used twice in a run.
    pub fn read(&mut self, id: u64) -> bool {
        if let Role::Leader(leader) = &mut self.role {
            return leader.reads.take(Asking { from: None, id }).is_ok();
        }
        match self.leader() {
            Some(leader) => self.send(leader, Message::ReadIndex(ReadIndex { id })),
            None => false,
        }
    }

    pub(super) fn on_read_index(&mut self, from: Life, m: ReadIndex) -> Result<(), Refused> {
        match &mut self.role {
            Role::Leader(leader) => leader.reads.take(Asking { from: Some(from), id: m.id }),
            _ => Err(Refused::NotLeader),
        }
    }

    pub(super) fn on_read_index_reply(&mut self, m: ReadIndexReply) {
        // Whoever answers: a leader of an earlier term may be late, but what it
        // confirmed was true after the asking, so it is true for the asker.
        self.reads_ready.push(ReadReady { id: m.id, index: m.index });
    }

    /// All that was asked since the last flush shares one round, begun now.
    pub(super) fn flush_reads(&mut self, now: Time) {
        let commit_index = self.commit_index;
        let Role::Leader(leader) = &mut self.role else { return };
        // Not before the term's first entry is committed: only then does the
        // leader know all that is committed (Raft §8).
        if leader.reads.waiting.is_empty() || commit_index < leader.term_start {
            return;
        }
        let askings = std::mem::take(&mut leader.reads.waiting);
        let seq = self.send_heartbeats(now);
        let Role::Leader(leader) = &mut self.role else { return };
        leader.reads.rounds.push_back(Round { seq, index: commit_index, askings });
        self.confirm_reads();
    }

    /// Gives out what a majority has confirmed.
    pub(super) fn confirm_reads(&mut self) {
        let me = self.me.incarnation;
        let Some(members) = self.configurations.current() else { return };
        let Role::Leader(leader) = &mut self.role else { return };
        if leader.reads.rounds.is_empty() {
            return;
        }
        let reached = quorum::reached_by_majority(members, |voter| {
            if voter == me {
                u64::MAX
            } else {
                leader.progress.get(&voter).map_or(0, |progress| progress.acked_seq)
            }
        });
        let mut confirmed = Vec::new();
        while leader.reads.rounds.front().is_some_and(|round| round.seq <= reached) {
            confirmed.extend(leader.reads.rounds.pop_front());
        }
        for round in confirmed {
            for asking in round.askings {
                let (id, index) = (asking.id, round.index);
                match asking.from {
                    None => self.reads_ready.push(ReadReady { id, index }),
                    Some(from) => {
                        let reply = Message::ReadIndexReply(ReadIndexReply { id, index });
                        let peer = self.lives.by_incarnation(from.incarnation);
                        if peer.is_some_and(|peer| peer.believed == Some(from)) {
                            self.send(from.incarnation, reply);
                        }
                    }
                }
            }
        }
    }
}
