//! The protocol, pure: inputs in, effects out.
//!
//! ```text
//!   receive(envelope) ─┐                        ┌─► sends   (already allowed to leave)
//!   propose, read ─────┤                        ├─► write   (term, vote, log)
//!   written(number) ───┼─► Core ─► flush(now) ──┼─► reads   (ready once applied)
//!   tick(now) ─────────┘                        └─► notes   (the story)
//! ```
//!
//! The law for whoever runs it: give it everything that is ready, then `flush`,
//! carry out what comes, and ask `deadline` when to call again. Batching follows
//! from that: what was proposed since the last flush leaves in one append a peer.
//!
//! No clock, socket, file, thread, lock, global or unseeded chance is in here and
//! no map whose order varies; time comes in with each input, completions of writes
//! come in as inputs. The one type from outside is `bytes::Bytes`, an immutable
//! string of bytes that is shared instead of copied.
//!
//! The rooms: `types` and `message` say what is spoken of; `lives` who is who and
//! how a cluster is founded; `members` who counts, and `changes` what clients want of
//! that; `election` who leads; `verdicts` who is up, and `detector` how a leader finds out; `replication` how the log travels, with `progress` of
//! each peer, `quorum` with the commit rule, and `durability`; `read` linearizable
//! reads; `check` what must always hold.
//!
//! Departures from the paper, each with its reason:
//! - Votes and acknowledgements count by incarnation, not by name (`lives`); a member
//!   that lost its memory is replaced by the leader itself (`members`).
//! - Pre-vote, leader stickiness and check-quorum are always on (thesis §9.6,
//!   §6.2, §4.2.3).
//! - The log begins with a founding record at index 1, term 0.
//! - A heartbeat is a message of its own and carries no entries.
//! - A refused append says where the logs may still agree, and the leader looks
//!   from its side, too: one round trip a term, at most.

#[cfg(test)]
pub mod bugs;
pub mod durability;
pub mod effect;
pub mod lives;
pub mod log;
pub mod membership;
pub mod message;
pub mod pipeline;
pub mod progress;
#[cfg(any(test, feature = "sim"))]
pub mod properties;
pub mod quorum;
pub mod rng;
pub mod snapshot;
pub mod transfer;
pub mod types;
pub mod verdicts;

mod access;
mod changes;
mod check;
mod detector;
mod election;
mod founding;
mod install;
mod members;
mod news;
mod proposals;
mod read;
mod replication;
mod state;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use self::changes::Answered;
use self::durability::{Durability, Write};
use self::effect::{Detail, Effects, Note, Outgoing, RoleName, Told};
use self::lives::{Lives, Neighbor, Peer};
use self::log::Log;
use self::membership::Membership;
use self::message::{ChangeReply, Commit, Envelope, Message};
use self::rng::Rng;
use self::snapshot::{Snapshot, SnapshotId};
use self::state::{Configurations, Role};
use self::transfer::Incoming;
use self::types::{
    ClusterId, Incarnation, Index, Life, Payload, Protocol, Run, Term, Time, WriteNumber,
};
use self::verdicts::{Turn, Verdicts};
use ::core::net::SocketAddr;
use bytes::Bytes;

pub use self::state::{Failure, Hard, Record, Refused, Saved};

/// At most so many messages wait for a write. A disk that hangs must not fill the
/// memory; what is dropped is lost as on the network.
const HELD_MOST: usize = 4096;

/// What a node is given by its file, checked.
#[derive(Clone, Debug)]
pub struct Setup {
    /// This node.
    pub own: Neighbor,
    /// The other nodes.
    pub others: Vec<Neighbor>,
    /// Microseconds between heartbeats.
    pub heartbeat: u64,
    /// Who is silent for so many microseconds is agreed to be down; `None`: nobody is
    /// judged.
    pub failure_timeout: Option<u64>,
    /// The least and most microseconds without a leader before an election.
    pub election_timeout: (u64, u64),
    /// Whether a majority may found the cluster.
    pub founding_by_majority: bool,
    /// So many entries before a snapshot are kept, for followers that are a little
    /// behind.
    pub tail_entries: u64,
    /// How many bytes of entries an append may carry.
    pub append_bytes: AppendBytes,
}

/// How many bytes of entries an append may carry, by the path; an entry larger than
/// that travels alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendBytes {
    /// Between two loopback addresses.
    pub near: usize,
    /// On any other path.
    pub far: usize,
}

impl AppendBytes {
    /// From here to there.
    pub fn between(self, here: SocketAddr, there: SocketAddr) -> usize {
        if is_near(here, there) { self.near } else { self.far }
    }
}

/// Whether what goes from here to there stays on the machine, where datagrams are long.
pub fn is_near(here: SocketAddr, there: SocketAddr) -> bool {
    let is_loopback = |address: SocketAddr| address.ip().to_canonical().is_loopback();
    is_loopback(here) && is_loopback(there)
}

/// One node's protocol.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub struct Core {
    setup: Setup,
    me: Life,
    hard: Hard,
    /// What stands for the log up to its base, and perhaps for more. Durable.
    snapshot: Option<Snapshot>,
    /// A snapshot that is coming, and the leader's message that brought its newest
    /// piece, by term and number.
    incoming: Option<(Incoming, (Term, u64))>,
    assembled: Option<(SnapshotId, Bytes)>,
    log: Log,
    commit_index: Index,
    durability: Durability,
    configurations: Configurations,
    /// Who is up, as far as that is committed.
    verdicts: Verdicts,
    /// How often somebody turned.
    turns: u64,
    role: Role,
    lives: Lives,
    rng: Rng,
    /// When to stand for election unless a leader is heard.
    election_at: Time,
    /// When a leader was last heard, by a follower.
    leader_heard_at: Option<Time>,
    /// Which that was.
    leader_heard: Option<Incarnation>,
    /// When this node last knew itself in touch with a majority.
    quorum_at: Option<Time>,
    waiting_note_at: Time,
    /// How often this node has asked for votes since it last knew a leader.
    campaigns: u64,
    /// How often it has stood for election since then.
    candidacies: u64,
    /// Whether it was told that the disk hangs.
    hanging: bool,
    failure: Option<Failure>,
    detail: Detail,
    sends: Vec<Outgoing>,
    /// Messages that wait for a write.
    held: VecDeque<(WriteNumber, Outgoing)>,
    reads_ready: Vec<effect::ReadReady>,
    changes_answered: Vec<ChangeReply>,
    /// Wishes of other nodes that were answered of late.
    answered_changes: Answered,
    /// Somebody who knows has said that this node is no member, as of this index.
    removed_at: Option<Index>,
    /// What of all that was told to people.
    removal_told: bool,
    majority_lost_told: bool,
    /// When to look whether the file says something else than the members; `None`: that
    /// is done.
    differences_at: Option<Time>,
    truncated: Option<Index>,
    turned: Vec<Turn>,
    notes: Vec<Told>,
}

impl Core {
    /// A node with what it remembers, silent until `tick`.
    pub fn new(setup: Setup, saved: Saved, run: Run, seed: u64, now: Time) -> Core {
        let configurations = Configurations::of(saved.snapshot.as_ref(), &saved.log);
        let mut lives = Lives::new(&setup.own.name, setup.others.clone(), now);
        if let Some(members) = configurations.current() {
            lives.members_changed(None, members, configurations.current_index());
        }
        let mut core = Core {
            me: Life { incarnation: saved.incarnation, run },
            hard: saved.hard,
            durability: Durability::recovered(saved.log.last_index()),
            configurations,
            turns: 0,
            verdicts: saved.snapshot.as_ref().map(|of| of.verdicts.clone()).unwrap_or_default(),
            // Only what is committed is ever in a snapshot.
            commit_index: saved.snapshot.as_ref().map_or(Index(0), |snapshot| snapshot.id.index),
            snapshot: saved.snapshot,
            incoming: None,
            assembled: None,
            log: saved.log,
            role: Role::follower(None),
            lives,
            rng: Rng::new(seed),
            election_at: now,
            leader_heard_at: None,
            leader_heard: None,
            quorum_at: None,
            waiting_note_at: now,
            campaigns: 0,
            candidacies: 0,
            hanging: false,
            failure: None,
            detail: Detail::Turns,
            sends: Vec::new(),
            held: VecDeque::new(),
            reads_ready: Vec::new(),
            changes_answered: Vec::new(),
            answered_changes: Answered::default(),
            removed_at: None,
            removal_told: false,
            majority_lost_told: false,
            differences_at: Some(now.plus(members::DIFFERENCES_AFTER)),
            truncated: None,
            turned: Vec::new(),
            notes: Vec::new(),
            setup,
        };
        core.reset_election_timer(now);
        core.tell_turns(core.verdicts.since(&Verdicts::default()));
        core
    }

    /// Whether this life is meant, and a life that is believed speaks, in this
    /// node's cluster: what may be kept for later (half a message, say) is kept
    /// for nobody else.
    pub fn belongs(&self, cluster: ClusterId, from: Life, to: Life) -> bool {
        let believed = self.lives.by_incarnation(from.incarnation);
        to == self.me
            && cluster.0 != 0
            && self.hard.cluster.is_none_or(|own| own == cluster)
            && believed.is_some_and(|peer| peer.believed == Some(from))
    }

    /// Takes one message. An error says why it was dropped; nothing changed then,
    /// except that a stranger may be asked who it is.
    pub fn receive(&mut self, envelope: Envelope, now: Time) -> Result<(), Refused> {
        if self.failure.is_some() {
            return Err(Refused::Failed);
        }
        let Envelope { cluster, from, to, message } = envelope;
        if let Message::Hello(hello) = message {
            return self.on_hello(cluster, from, to, hello, now);
        }
        if to != self.me {
            // Somebody still speaks to an earlier run of this node.
            if to.incarnation == self.me.incarnation {
                self.lives.misaddressed(from, now);
                self.ask_who_it_is(from, now);
            }
            return Err(Refused::NotForThisLife);
        }
        if !self.lives.heard(from, now) {
            self.ask_who_it_is(from, now);
            return Err(Refused::NotBelieved);
        }
        if let Message::Found(found) = message {
            return self.on_found(cluster, found, now);
        }
        if let Message::Introduction(told) = message {
            return self.on_introduction(cluster, told);
        }
        // A pre-vote changes nothing (pitfall 9), so it makes nobody belong to a
        // cluster: who is fresh waits for the record, which comes before it.
        if self.hard.cluster.is_none() && matches!(message, Message::PreVote(_)) {
            return Err(Refused::ForeignCluster);
        }
        self.check_cluster(cluster)?;
        self.check_member(from, &message)?;
        self.tell(Detail::Messages, || Note::Message(format!("got {message:?}")));
        let (life, from) = (from, from.incarnation);
        match message {
            Message::Hello(_) | Message::Found(_) | Message::Introduction(_) => {
                unreachable!("handled above")
            }
            Message::PreVote(m) => self.on_pre_vote(from, m, now),
            Message::PreVoteReply(m) => self.on_pre_vote_reply(from, m, now),
            Message::RequestVote(m) => self.on_request_vote(from, m, now),
            Message::RequestVoteReply(m) => self.on_request_vote_reply(from, m, now),
            Message::AppendEntries(m) => return self.on_append_entries(from, m, now),
            Message::AppendEntriesReply(m) => return self.on_append_entries_reply(from, m, now),
            Message::Heartbeat(m) => return self.on_heartbeat(from, m, now),
            Message::HeartbeatReply(m) => return self.on_heartbeat_reply(from, m, now),
            Message::Commit(Commit { term, leader_commit }) => {
                return self.on_commit(from, term, leader_commit, now);
            }
            Message::ReadIndex(m) => return self.on_read_index(life, m),
            Message::ReadIndexReply(m) => self.on_read_index_reply(m),
            Message::Propose(m) => return self.on_propose(from, m),
            Message::InstallSnapshot(m) => return self.on_install_snapshot(from, m, now),
            Message::InstallSnapshotReply(m) => {
                return self.on_install_snapshot_reply(from, m, now);
            }
            Message::TimeoutNow(m) => self.on_timeout_now(from, m, now),
            Message::Removed(m) => self.on_removed(m, now),
            Message::Change(m) => return self.on_change(life, m, now),
            Message::ChangeReply(m) => self.changes_answered.push(m),
        }
        Ok(())
    }

    /// A write is done, and all before it.
    pub fn written(&mut self, number: WriteNumber, now: Time) {
        self.durability.complete(number, now);
        self.watch_disk(now);
        self.count_own_vote(now);
        self.advance_commit(now);
        self.settle();
        while let Some((gate, _)) = self.held.front() {
            if !self.durability.is_completed(*gate) {
                break;
            }
            self.sends.extend(self.held.pop_front().map(|(_, outgoing)| outgoing));
        }
    }

    /// Time passed: whatever was due by `now` happens.
    pub fn tick(&mut self, now: Time) {
        if self.failure.is_some() {
            return;
        }
        self.watch_disk(now);
        self.tick_leader(now);
        self.tick_election(now);
        self.tick_lives(now);
    }

    /// When `tick` is wanted next, if nothing comes before.
    pub fn deadline(&self) -> Time {
        let mut deadline = Time(u64::MAX);
        if self.failure.is_some() {
            return deadline;
        }
        let fresh = self.hard.cluster.is_none();
        deadline = deadline.min(self.lives.deadline(self.asker()).unwrap_or(deadline));
        deadline = deadline.min(self.disk_deadline().unwrap_or(deadline));
        deadline = match fresh {
            true => deadline.min(self.waiting_note_at),
            false => deadline.min(self.differences_at.unwrap_or(deadline)),
        };
        match &self.role {
            Role::Leader(leader) => {
                let change = leader.changing.as_ref().and_then(|of| self.change_deadline(of));
                deadline.min(leader.deadline()).min(change.unwrap_or(deadline))
            }
            _ if self.may_campaign() || self.leader().is_some() => deadline.min(self.election_at),
            _ => deadline,
        }
    }

    /// Lets everything out that is ready: appends, acknowledgements, one write.
    /// `effects` is emptied first.
    pub fn flush(&mut self, now: Time, effects: &mut Effects) {
        if self.failure.is_none() {
            self.flush_leader(now);
            self.flush_follower();
        }
        self.log.let_some_go();
        effects.sends.clear();
        effects.reads.clear();
        effects.changes.clear();
        effects.notes.clear();
        effects.truncated = self.truncated.take();
        effects.write = match self.failure {
            None => self.durability.issue(self.log.last_index(), now),
            Some(_) => None,
        };
        effects.assembled = self.assembled.take_if(|_| effects.write.is_none());
        if self.failure.is_some() {
            self.sends.clear();
            self.held.clear();
        }
        std::mem::swap(&mut effects.sends, &mut self.sends);
        std::mem::swap(&mut effects.reads, &mut self.reads_ready);
        std::mem::swap(&mut effects.changes, &mut self.changes_answered);
        std::mem::swap(&mut effects.notes, &mut self.notes);
        self.check();
    }

    /// As `flush`, where memory is all that there is: what there was to write is written
    /// by then, and what waited for that comes out with the rest. Gives the first index of
    /// the log that is new.
    pub fn flush_in_memory(&mut self, now: Time, effects: &mut Effects) -> Option<Index> {
        let mut first: Option<Index> = None;
        // A node whose own vote elects it has an entry to write once more.
        while self.failure.is_none()
            && let Some(write) = self.durability.issue(self.log.last_index(), now)
        {
            self.written(write.number, now);
            first = first.into_iter().chain(write.from).min();
        }
        self.flush(now, effects);
        assert!(effects.write.is_none(), "what is let out leaves nothing to write");
        first
    }

    /// A write with what it carries, as log and hard state stand behind it now.
    pub fn record(&self, write: &Write) -> Record {
        let entries = match write.from {
            Some(from) => self.log.from(from).map(|(_, entry)| entry.clone()).collect(),
            None => Vec::new(),
        };
        let hard = write.hard.then(|| self.hard.clone());
        let install = self.snapshot.clone().filter(|_| write.install);
        Record { number: write.number, hard, from: write.from, entries, install }
    }

    /// Whether a snapshot has come whole that the next flush gives out.
    pub fn has_assembled(&self) -> bool {
        self.failure.is_none() && self.assembled.is_some()
    }

    /// What a restart would find if everything were durable.
    pub fn into_saved(self) -> Saved {
        let Core { me, hard, snapshot, mut log, .. } = self;
        log.let_go(usize::MAX);
        Saved { incarnation: me.incarnation, hard, snapshot, log }
    }

    /// How much of the story `flush` tells.
    pub fn set_detail(&mut self, detail: Detail) {
        self.detail = detail;
    }

    /// This node's life.
    pub fn me(&self) -> Life {
        self.me
    }

    /// The current term.
    pub fn term(&self) -> Term {
        self.hard.term
    }

    /// Term, vote and cluster.
    pub fn hard(&self) -> &Hard {
        &self.hard
    }

    /// The log.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The newest snapshot, which stands for the log up to its base at least.
    pub fn snapshot(&self) -> Option<&Snapshot> {
        self.snapshot.as_ref()
    }

    /// The members in force at `index`, and where they are stated.
    pub fn members_at(&self, index: Index) -> Option<&(Index, Membership)> {
        self.configurations.at(index)
    }

    /// The end of what is committed.
    pub fn commit_index(&self) -> Index {
        self.commit_index
    }

    /// The end of what a state machine may be given: committed, and durable here.
    pub fn applicable(&self) -> Index {
        self.commit_index.min(self.durability.durable())
    }

    /// The members that are agreed: as of the commit index; or, while nothing is known of
    /// that, as the log first states them.
    pub fn members_agreed(&self) -> Option<&(Index, Membership)> {
        self.configurations.at(self.commit_index.max(self.configurations.first_index()))
    }

    /// Who is up, as far as that is committed.
    pub fn verdicts(&self) -> &Verdicts {
        &self.verdicts
    }

    /// Who was up or down anew by what was committed since this was last asked, in order.
    pub fn take_turned(&mut self) -> Vec<Turn> {
        std::mem::take(&mut self.turned)
    }

    /// How often somebody was up or down anew, since this node started.
    pub fn turns(&self) -> u64 {
        self.turns
    }

    /// Where this very run is agreed to be up.
    pub fn up_since(&self) -> Option<Index> {
        let agreed = self.verdicts.of(&self.setup.own.name)?;
        (agreed.up && agreed.life == self.me).then_some(agreed.index)
    }

    /// Who was up as of `index`, which is committed and not covered by more than the
    /// snapshot.
    pub fn verdicts_at(&self, index: Index) -> Verdicts {
        if index == self.commit_index {
            return self.verdicts.clone();
        }
        let snapshot = self.snapshot.as_ref();
        let covered = snapshot.map_or(Index(0), |snapshot| snapshot.id.index);
        let mut verdicts = snapshot.map(|of| of.verdicts.clone()).unwrap_or_default();
        self.fold_verdicts(&mut verdicts, covered, index);
        verdicts
    }

    /// What the entries after `before` up to `index` say of who is up.
    fn fold_verdicts(&self, verdicts: &mut Verdicts, before: Index, index: Index) -> Vec<Turn> {
        let mut turns = Vec::new();
        for (at, entry) in self.log.from(before.next()).take_while(|(at, _)| *at <= index) {
            if matches!(
                entry.payload,
                Payload::Protocol(Protocol::Verdict(_) | Protocol::Members(_))
            ) && let Some((_, members)) = self.configurations.at(at)
            {
                turns.extend(verdicts.apply(at, &entry.payload, members));
            }
        }
        turns
    }

    /// The members, as the newest entry of the log that states them has it.
    pub fn members(&self) -> Option<&Membership> {
        self.configurations.current()
    }

    /// The peers of the file and what is known of them.
    pub fn peers(&self) -> &[Peer] {
        self.lives.peers()
    }

    /// When anything was last heard of that life of a peer, if it is believed.
    pub fn heard_at(&self, incarnation: Incarnation) -> Option<Time> {
        self.lives.by_incarnation(incarnation).and_then(|peer| peer.heard_at)
    }

    /// The leader that this node knows in its term, itself included.
    pub fn leader(&self) -> Option<Incarnation> {
        match &self.role {
            Role::Leader(_) => Some(self.me.incarnation),
            Role::Follower(follower) => follower.leader,
            Role::PreCandidate(_) | Role::Candidate(_) => None,
        }
    }

    /// The role, by name.
    pub fn role(&self) -> RoleName {
        match &self.role {
            Role::Leader(_) => RoleName::Leader,
            Role::PreCandidate(_) => RoleName::PreCandidate,
            Role::Candidate(_) => RoleName::Candidate,
            Role::Follower(_) if self.hard.cluster.is_none() => RoleName::Fresh,
            Role::Follower(_) if self.is_removed() => RoleName::Removed,
            Role::Follower(_) if self.is_voter() => RoleName::Follower,
            Role::Follower(_) => RoleName::Learner,
        }
    }

    /// When this node last knew itself in touch with a majority.
    pub fn quorum_at(&self, now: Time) -> Option<Time> {
        match &self.role {
            Role::Leader(leader) => {
                self.members().map(|members| leader.quorum_at(members, self.me.incarnation, now))
            }
            _ => self.quorum_at,
        }
    }

    /// Why this node takes no part any more.
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    fn own_address(&self) -> SocketAddr {
        self.setup.own.address
    }

    /// Sends to a member, as soon as term, vote and cluster are durable. False if
    /// nobody is believed to live there.
    fn send(&mut self, to: Incarnation, message: Message) -> bool {
        let Some(peer) = self.lives.by_incarnation(to) else { return false };
        let Some(life) = peer.believed else { return false };
        let address = peer.node.address;
        self.tell(Detail::Messages, || Note::Message(format!("to {to}: {message:?}")));
        let cluster = self.hard.cluster.unwrap_or(ClusterId(0));
        let envelope = Envelope { cluster, from: self.me, to: life, message };
        self.post(Outgoing { address, envelope });
        true
    }

    fn post(&mut self, outgoing: Outgoing) {
        let gate = self.durability.hard_gate();
        if self.held.is_empty() && self.durability.is_completed(gate) {
            self.sends.push(outgoing);
        } else if self.held.len() < HELD_MOST {
            self.held.push_back((gate, outgoing));
        }
    }

    /// A name for people.
    fn name_of(&self, incarnation: Incarnation) -> String {
        if incarnation == self.me.incarnation {
            return self.setup.own.name.clone();
        }
        let peer = self.lives.by_incarnation(incarnation).map(|peer| &peer.node.name);
        let member = self.members().and_then(|members| members.member(incarnation));
        peer.or(member.map(|member| &member.name))
            .cloned()
            .unwrap_or_else(|| incarnation.to_string())
    }

    fn tell(&mut self, detail: Detail, note: impl FnOnce() -> Note) {
        if self.detail >= detail {
            let told = Told { term: self.hard.term, role: self.role(), note: note() };
            self.notes.push(told);
        }
    }

    fn tell_turns(&mut self, turns: Vec<Turn>) {
        for turn in turns {
            self.turns += 1;
            self.tell(Detail::Turns, || Note::Verdict(turn));
        }
    }

    fn step(&mut self, text: impl FnOnce() -> String) {
        self.tell(Detail::Steps, || Note::Step(text()));
    }

    /// Safety is broken, by a peer that is authenticated: this node stops rather
    /// than take part in it.
    fn fail(&mut self, failure: Failure) {
        self.tell(Detail::Turns, || Note::Warning(failure.to_string()));
        self.failure.get_or_insert(failure);
    }
}
