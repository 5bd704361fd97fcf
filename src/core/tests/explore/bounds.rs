//! What bounds a run of the exploration, and the bugs that can be planted in it.

use super::NODES;
use super::step::Packet;
use crate::core::log::Log;
use crate::core::membership::Membership;
use crate::core::message::{AppendOutcome, Message};
use crate::core::properties::{Disk, Property};
use crate::core::quorum;
use crate::core::state::Role;
use crate::core::types::{Entry, Incarnation, Index, Payload, Term};
use crate::core::{Core, effect::Effects};

/// How far a run goes, and from where.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// What it is called when its size is printed.
    pub name: &'static str,
    /// Terms of the entries behind the founding record, node by node.
    pub logs: [&'static [u64]; NODES],
    /// The term in which all of them stand.
    pub term: u64,
    /// This one was elected in the next term, and all that came of it arrived.
    pub elected: Option<usize>,
    /// Who may stand for election, each up to a term of its own.
    pub standing: &'static [(usize, u64)],
    /// So many entries are proposed.
    pub entries: u8,
    /// So many rounds of heartbeats, and so many appends given up, beside those that
    /// an election brings.
    pub heartbeats: u8,
    pub given_up: u8,
    /// So many crashes, each with a restart.
    pub crashes: u8,
    /// So many snapshots are taken, each of all that may be applied.
    pub compactions: u8,
    /// Whether a leader may find that it cannot reach a majority.
    pub steps_down: bool,
    /// Whether writes take time. Otherwise a step ends with all of it on the disk.
    pub slow_writes: bool,
    /// Whether pre-votes are explored. Otherwise a majority gives them at once,
    /// whatever it holds: they are no part of what keeps Raft safe.
    pub pre_votes: bool,
    /// Whether a voter may stick to a leader that it heard of late. Otherwise that is
    /// always long ago.
    pub promises: bool,
    /// Which messages ever arrive; the others are always lost.
    pub arrives: fn(&Packet) -> bool,
    /// Whether answers that came too late to say anything are taken out of the network
    /// (`Cluster::says_nothing`).
    pub sweeps: bool,
    /// No leader numbers more messages of its term. A heartbeat's answer that is
    /// repeated may call for an append each time, so heartbeats need this bound.
    pub newest_seq: u64,
    /// What an append to another node may carry.
    pub append_bytes: usize,
    pub bug: Bug,
    /// Only this property is judged, if any is named: behind what breaks nothing more
    /// is looked for, so one that breaks early would hide what comes of it.
    pub judged: Option<&'static Property>,
}

/// Votes and what asks for them.
pub fn votes(packet: &Packet) -> bool {
    use Message::{PreVote, PreVoteReply, RequestVote, RequestVoteReply};
    let message = &packet.envelope.message;
    matches!(message, PreVote(_) | PreVoteReply(_) | RequestVote(_) | RequestVoteReply(_))
}

/// To a voter an append that carries nothing says what a heartbeat says.
pub fn all_but_heartbeats(packet: &Packet) -> bool {
    !matches!(packet.envelope.message, Message::Heartbeat(_))
}

pub fn all(_: &Packet) -> bool {
    true
}

/// As in Raft Figure 8: while a leads, c is away, and the other way round.
pub fn figure_8(packet: &Packet) -> bool {
    all_but_heartbeats(packet) && (packet.from == 1 || packet.to == 1)
}

impl Bounds {
    /// A new cluster in which two nodes may stand, in two terms. Who they are makes no
    /// difference: three nodes that know nothing are alike.
    pub const NARROW: Bounds = Bounds {
        name: "narrow",
        logs: [&[], &[], &[]],
        term: 0,
        elected: None,
        standing: &[(0, 2), (1, 2)],
        entries: 0,
        heartbeats: 0,
        given_up: 0,
        crashes: 0,
        compactions: 0,
        steps_down: false,
        slow_writes: false,
        pre_votes: false,
        promises: false,
        arrives: all_but_heartbeats,
        sweeps: false,
        newest_seq: u64::MAX,
        append_bytes: 1_000,
        bug: Bug::None,
        judged: None,
    };
}

/// A bug as somebody could make it, planted from outside: the core is what it is,
/// and what it says, hears or stores is tampered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    None,
    /// A restart finds the term and not the vote (pitfall 1).
    ForgetsVote,
    /// A restart finds an older term, and no vote in it (pitfall 2).
    ForgetsTerm,
    /// What must wait for the disk does not (pitfalls 1, 25).
    SpeaksBeforeDurable,
    /// The disk says that a write is done when it begins.
    DiskLies,
    /// A refused vote counts (pitfalls 6, 24).
    CountsRefusals,
    /// A vote is given whatever the candidate's log lacks (Raft §5.4.1).
    IgnoresOlderLog,
    /// An older term's entry is committed by counting copies (pitfall 16).
    CommitsOlderTerm,
    /// An append cuts what follows it, conflict or not (pitfall 17).
    CutsWithoutConflict,
    /// The leader's commit index is taken unbounded (pitfalls 19, 20).
    CommitsUnverified,
    /// All of the log is acknowledged, whatever of it was verified.
    AcknowledgesUnverified,
    /// An append is taken whatever stands before it (Raft §5.3).
    SkipsConsistencyCheck,
    /// A leader puts another entry in the place of its last one (Raft §5.3).
    LeaderRewrites,
    /// Whoever is elected forgets for whom it voted.
    LosesOwnVote,
    /// A vote is given as if a snapshot stood for nothing (pitfall 5).
    ForgetsSnapshotInVote,
    /// A snapshot older than what is committed is installed (pitfall 32).
    InstallsOlder,
    /// What lies behind a snapshot that conflicts with the log is kept (pitfall 33).
    KeepsTail,
    /// A snapshot counts as durable when it is installed (pitfall 37).
    CountsInstallBeforeDurable,
    /// A snapshot lacks a member (pitfall 38).
    ForgetsMember,
}

impl Bug {
    pub fn at_restart(self, disk: &mut Disk) {
        match self {
            Bug::ForgetsVote => disk.hard.voted_for = None,
            Bug::ForgetsTerm => {
                disk.hard.term = Term(disk.hard.term.0.saturating_sub(1));
                disk.hard.voted_for = None;
            }
            _ => {}
        }
    }

    /// Before a message is received.
    pub fn at_arrival(self, core: &mut Core, message: &mut Message) {
        match (self, message) {
            (Bug::CountsRefusals, Message::RequestVoteReply(m)) => m.granted = true,
            (Bug::IgnoresOlderLog, Message::RequestVote(m)) => {
                (m.last_log_term, m.last_log_index) = (Term(99), Index(99));
            }
            (Bug::ForgetsSnapshotInVote, Message::RequestVote(m))
                if core.log.base_index() == core.log.last_index() =>
            {
                (m.last_log_term, m.last_log_index) = (Term(99), Index(99));
            }
            (Bug::InstallsOlder, Message::InstallSnapshot(m)) => {
                let follows = m.term == core.term() && core.leader().is_some() && !core.leads();
                if follows && m.id.index < core.commit_index && core.snapshot.is_none() {
                    forget_verified(core, Index(0));
                    core.log = Log::new();
                    core.commit_index = Index(0);
                    core.durability.truncated(Index(1));
                }
            }
            (Bug::CutsWithoutConflict, Message::AppendEntries(m)) => {
                let end = Index(m.prev_log_index.0 + m.entries.len() as u64);
                let follows = m.term == core.term() && core.leader().is_some();
                if follows && core.log.last_index() > end && end > core.commit_index {
                    core.log.truncate_from(end.next());
                    core.durability.truncated(end.next());
                    forget_verified(core, end);
                }
            }
            (Bug::SkipsConsistencyCheck, Message::AppendEntries(m)) => {
                let last = core.log.last_index();
                if m.prev_log_index <= last && last > core.commit_index {
                    (m.prev_log_index, m.prev_log_term) = (last, core.log.last_term());
                    let rises = m.entries.first().is_none_or(|e| e.term >= m.prev_log_term);
                    m.entries.retain(|_| rises);
                }
            }
            (Bug::LeaderRewrites, Message::AppendEntriesReply(_)) => {
                let last = core.log.last_index();
                if core.leads() && last > core.commit_index {
                    core.log.truncate_from(last);
                    core.durability.truncated(last);
                    let payload = Payload::Client("another".into());
                    core.log.append(Entry { term: core.hard.term, payload });
                    core.durability.appended(last);
                }
            }
            _ => {}
        }
    }

    /// After a message was received.
    pub fn after_arrival(self, core: &mut Core, message: &Message) {
        let stated = match message {
            Message::Heartbeat(m) => m.leader_commit,
            Message::AppendEntries(m) => m.leader_commit,
            Message::Commit(m) => m.leader_commit,
            _ => Index(0),
        };
        if self == Bug::CommitsUnverified && matches!(core.role, Role::Follower(_)) {
            core.commit_index = core.commit_index.max(stated.min(core.log.last_index()));
        }
    }

    /// When a snapshot is taken.
    pub fn at_snapshot(self, members: &mut Membership) {
        if self == Bug::ForgetsMember {
            members.members.pop();
        }
    }

    /// When a snapshot took the place of a log that had `tail` behind where it ends.
    pub fn after_install(self, core: &mut Core, tail: Vec<Entry>) {
        match self {
            Bug::KeepsTail => core.bug_keeps_the_tail_behind_a_snapshot(tail),
            Bug::CountsInstallBeforeDurable => core.bug_counts_a_snapshot_before_it_is_durable(),
            _ => {}
        }
    }

    /// At the end of each step.
    pub fn at_flush(self, core: &mut Core, effects: &mut Effects) {
        match self {
            Bug::SpeaksBeforeDurable => {
                effects.sends.extend(core.held.drain(..).map(|(_, outgoing)| outgoing));
            }
            Bug::CommitsOlderTerm => commit_by_counting(core),
            Bug::LosesOwnVote if core.leads() => core.hard.voted_for = None,
            Bug::AcknowledgesUnverified => {
                let last = core.log.last_index();
                for outgoing in &mut effects.sends {
                    match &mut outgoing.envelope.message {
                        Message::AppendEntriesReply(m) => {
                            if let AppendOutcome::Matched { index } = &mut m.outcome {
                                *index = last;
                            }
                        }
                        Message::HeartbeatReply(m) => (m.matched, m.verified) = (last, last),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
}

fn forget_verified(core: &mut Core, end: Index) {
    if let Role::Follower(follower) = &mut core.role {
        follower.verified = follower.verified.min(end);
        follower.acknowledged = follower.acknowledged.min(end);
    }
}

fn commit_by_counting(core: &mut Core) {
    let (me, durable) = (core.me.incarnation, core.durability.durable());
    let (Role::Leader(leader), Some(members)) = (&core.role, core.configurations.current()) else {
        return;
    };
    let reached = quorum::reached_by_majority(members, |voter: Incarnation| {
        let progress = leader.progress.get(&voter).map(|progress| progress.match_index());
        if voter == me { durable } else { progress.unwrap_or_default() }
    });
    core.commit_index = core.commit_index.max(reached);
}
