//! One node as bytes: core, codec, frames, fragments, requests, replicated state.
//!
//! ```text
//!   datagram ─► links ─► core ─► links ─► frames
//!   request ─► clients ──►│
//!   done ────► host       ├─► log, applied ─► host ─► outcomes ─► clients ─► answers
//! ```
//!
//! Bytes and times in, bytes and effects out: no socket, no clock, no thread. The
//! law is the core's: give it all that is ready, `flush` once, carry out what
//! comes. `T` is what a request is answered by: a channel's end in the driver, a
//! number where a whole cluster runs in one thread.
//!
//! The state of a volatile node is its memory: a write is done when it is asked
//! for. Where the log goes to a disk, writes come out, and `written` goes in. Either
//! way the log is cut behind snapshots (`compaction`).

#[cfg(any(test, feature = "sim"))]
mod bounds;
mod changes;
mod clients;
mod compaction;
mod counts;
mod early;
mod host;
mod links;
mod reads;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::committed;
use crate::core::effect::{Detail, Effects, Note, RoleName, Told, Waiting};
#[cfg(any(test, fuzzing, feature = "sim"))]
use crate::core::lives::Neighbor;
use crate::core::log::Log;
use crate::core::membership::Standing;
use crate::core::snapshot::{Snapshot, SnapshotId};
use crate::core::types::{Entry, Incarnation, Index, Run, Term, Time, WriteNumber};
use crate::core::verdicts::Turn;
use crate::core::{self, Core, Record, Saved};
use crate::encoding::snapshot;
use crate::error::RequestError;
use crate::request::{Answer, Kind};
use crate::secret::Secrets;
use crate::wire::seal::Seal;

use bytes::Bytes;

use self::changes::Changes;
use self::clients::Clients;
use self::compaction::Compaction;
use self::links::Links;
use self::reads::Read;

pub(crate) use self::counts::Counts;
pub(crate) use self::host::{Done, Host, Job, Wanted, perform};
pub(crate) use self::links::APPEND_BYTES;
pub(crate) use self::reads::Question;

/// What one flush gave. Reused from flush to flush.
#[derive(Debug)]
pub(crate) struct Output<T> {
    /// Datagrams and where to. Their buffers go back with `Engine::recycle`.
    pub(crate) datagrams: Vec<(SocketAddr, Vec<u8>)>,
    /// Requests that ended.
    pub(crate) answers: Vec<(T, Answer)>,
    /// Work for the machine's thread, if there is one.
    pub(crate) job: Option<Job>,
    /// Writes for the disk, if there is one, in order. `Engine::written` is told of
    /// each when it is done.
    pub(crate) writes: Vec<Record>,
    /// A snapshot for the disk. `Engine::saved` is told when it is durable.
    pub(crate) save: Option<Snapshot>,
    /// What the disk need not keep any more: the log up to here, for which a durable
    /// snapshot stands.
    pub(crate) trim: Option<Index>,
    /// The story.
    pub(crate) notes: Vec<Told>,
}

impl<T> Default for Output<T> {
    fn default() -> Output<T> {
        Output {
            datagrams: Vec::new(),
            answers: Vec::new(),
            job: None,
            writes: Vec::new(),
            save: None,
            trim: None,
            notes: Vec::new(),
        }
    }
}

/// What an engine is made of.
pub(crate) struct Setup {
    pub(crate) core: core::Setup,
    pub(crate) request_timeout: u64,
    /// A snapshot is taken after so many entries.
    pub(crate) snapshot_every: u64,
    pub(crate) keeps: Keeps,
    /// By what datagrams are sealed, if they are.
    pub(crate) secrets: Option<Secrets>,
}

#[cfg(any(test, fuzzing, feature = "sim"))]
impl Setup {
    /// A node with the config's defaults that keeps everything in memory and trusts its
    /// network.
    pub(crate) fn in_memory(own: Neighbor, others: Vec<Neighbor>) -> Setup {
        Setup {
            core: core::Setup {
                own,
                others,
                heartbeat: 30_000,
                failure_timeout: Some(200_000),
                election_timeout: (150_000, 300_000),
                founding_by_majority: false,
                tail_entries: 10_000,
                append_bytes: APPEND_BYTES,
            },
            request_timeout: 10_000_000,
            snapshot_every: 10_000,
            keeps: Keeps::InMemory,
            secrets: None,
        }
    }
}

/// Where a node keeps what must survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeps {
    /// In its memory: a write is done when it is asked for.
    InMemory,
    /// On a disk, which says when.
    OnDisk,
}

/// One node.
pub(crate) struct Engine<T> {
    core: Core,
    effects: Effects,
    links: Links,
    clients: Clients<T>,
    changes: Changes<T>,
    host: Host,
    keeps: Keeps,
    counts: Counts,
    /// The end of what was given to the host.
    handed: Index,
    /// Who turns behind that.
    turns: VecDeque<Turn>,
    compaction: Compaction,
    /// What the disk was told that it need not keep.
    trimmed: Option<Index>,
    /// A snapshot that came whole and could not be opened.
    unopened: Option<SnapshotId>,
    /// Why the replicated state cannot go on, if it cannot.
    broken: Option<String>,
    known_leader: (Term, Option<Incarnation>),
}

/// So many rounds of work does one flush do before it lets the datagrams out.
const ROUNDS_A_FLUSH: usize = 8;
/// So many entries does a host get at once: heartbeats must not wait for more.
const ENTRIES_A_JOB: usize = 4096;

impl<T> Engine<T> {
    /// A node with what it remembers.
    pub(crate) fn new(
        setup: Setup,
        saved: Saved,
        run: Run,
        seed: u64,
        host: Host,
        now: Time,
    ) -> Engine<T> {
        let own = setup.core.own.address;
        let patience = setup.core.heartbeat * 2;
        let core = Core::new(setup.core, saved, run, seed, now);
        let links = Links::new(own, Seal::new(setup.secrets.as_ref(), core.me()));
        Engine {
            changes: Changes::new(setup.request_timeout, patience),
            clients: Clients::new(core.me(), setup.request_timeout, patience),
            compaction: Compaction::new(setup.snapshot_every, core.snapshot()),
            trimmed: Some(core.log().base_index()),
            unopened: None,
            broken: None,
            core,
            effects: Effects::default(),
            links,
            host,
            keeps: setup.keeps,
            counts: Counts::default(),
            handed: Index(0),
            turns: VecDeque::new(),
            known_leader: (Term(0), None),
        }
    }

    /// A datagram came. What it holds that cannot be taken is counted. The bytes may be
    /// others afterwards.
    pub(crate) fn datagram(&mut self, bytes: &mut [u8], now: Time) {
        self.links.receive(bytes, &mut self.core, &mut self.counts, now);
    }

    /// A request came.
    pub(crate) fn request(&mut self, ticket: T, kind: Kind, now: Time) {
        let question = match kind {
            Kind::Command { draft, id } => return self.clients.command(ticket, draft, id, now),
            Kind::Query { json } => Question::Query(json),
            Kind::Lookup { id } => Question::Lookup(id),
            Kind::Change(wish) => return self.changes.take(ticket, wish, now),
            Kind::Bad { reason } => {
                return self.clients.answer(ticket, Err(RequestError::Invalid { reason }));
            }
        };
        let deadline = self.clients.read_deadline(now);
        self.clients.reads.push(Read { ticket, question, deadline });
    }

    /// A write is on the disk, and all before it.
    pub(crate) fn written(&mut self, number: WriteNumber, now: Time) {
        self.core.written(number, now);
    }

    /// The machine's thread has done its job.
    pub(crate) fn done(&mut self, done: Done) {
        self.host.take_back();
        self.settle(done);
    }

    fn settle(&mut self, mut done: Done) {
        self.host.reached(done.applied, done.newest, done.session_age);
        if let Some(made) = done.snapshot {
            self.compaction.made(made);
        }
        if let Some(broken) = done.broken {
            self.broken.get_or_insert(broken);
        }
        for outcome in done.outcomes.drain(..) {
            self.clients.on_outcome(outcome);
        }
        self.host.recycle(done.outcomes);
        for (number, answer) in done.answers {
            if let Some(ticket) = self.clients.reads.take_served(number) {
                self.clients.answer(ticket, answer);
            }
        }
    }

    /// Time passed.
    pub(crate) fn tick(&mut self, now: Time) {
        self.core.tick(now);
        self.links.tick(now);
    }

    /// When something is due. Waking earlier does no harm.
    pub(crate) fn deadline(&self) -> Time {
        let requests = self.clients.deadline().min(self.changes.deadline());
        let due = self.core.deadline().min(requests).min(self.links.deadline());
        // The rest of a long catching up, after the datagrams have been out.
        let behind = self.handed < self.core.applicable() && !self.host.is_busy();
        if behind && self.broken.is_none() && !self.waits_for_snapshot() { Time(0) } else { due }
    }

    /// The entries that come next are gone, and the snapshot that stands for them is
    /// not durable yet.
    fn waits_for_snapshot(&self) -> bool {
        self.to_restore().is_some_and(|snapshot| snapshot.id.index > self.core.applicable())
    }

    /// Does all that can be done now, and says what is to be carried out.
    pub(crate) fn flush(&mut self, output: &mut Output<T>, now: Time) {
        self.drive_compaction(output, now);
        for _ in 0..ROUNDS_A_FLUSH {
            // What was asked of one leader is asked of another after the log has told what
            // of it arrived, or it would be asked twice.
            if self.leader() == self.known_leader {
                self.drive(now);
            }
            let more = self.let_out(output, now);
            let other_leader = self.meet_leader();
            let goes_on = self.apply(output) && self.has_more();
            if !more && !other_leader && !goes_on {
                break;
            }
        }
        self.links.finish(&self.core, output, now);
        if let Some(reason) = self.failure() {
            self.end_all(&RequestError::Failed { reason });
        } else if self.core.is_removed() {
            let reason = "this node was removed from its cluster".to_string();
            self.end_all(&RequestError::Refused { reason });
        }
        self.clients.drain_answers(&mut output.answers);
    }

    /// Gives the core what clients ask for.
    fn drive(&mut self, now: Time) {
        self.clients.drive(&mut self.core, self.host.session_age(), now);
        for (ticket, answer) in self.changes.drive(&mut self.core, now) {
            self.clients.answer(ticket, answer);
        }
    }

    /// Whether what was applied makes room for more.
    fn has_more(&self) -> bool {
        self.clients.has_more() || self.handed < self.core.applicable()
    }

    /// Carries out what the core has: sends before it writes, that the followers' work and
    /// the own overlap. Says whether the core, or a client, has to hear of it. What is told
    /// decides nothing: a node goes the same way unheard.
    fn let_out(&mut self, output: &mut Output<T>, now: Time) -> bool {
        // A flush in memory may elect this node.
        let led = self.core.leads();
        let appended = match self.keeps {
            Keeps::InMemory => self.core.flush_in_memory(now, &mut self.effects),
            Keeps::OnDisk => {
                self.core.flush(now, &mut self.effects);
                self.effects.write.and_then(|write| write.from)
            }
        };
        output.notes.append(&mut self.effects.notes);
        for outgoing in self.effects.sends.drain(..) {
            self.links.send(outgoing, output, now);
        }
        let mut more = false;
        if let Some(from) = self.effects.truncated.take() {
            self.clients.on_truncated(from);
            more = true;
        }
        if let Some(from) = appended.filter(|_| !led) {
            self.clients.on_appended(&self.core, from);
        }
        if let Some(write) = self.effects.write.take() {
            output.writes.push(self.core.record(&write));
        }
        for reply in self.effects.changes.drain(..) {
            self.changes.on_reply(reply);
            more = true;
        }
        for ready in self.effects.reads.drain(..) {
            self.clients.reads.on_ready(&ready);
            more |= self.clients.reads.waits();
        }
        // After the write, which is of the log as it was.
        if let Some((id, data)) = self.effects.assembled.take() {
            self.install(id, data);
            more = true;
        }
        // One that was held back by the write, which is taken from the log by now.
        more || self.core.has_assembled()
    }

    fn leader(&self) -> (Term, Option<Incarnation>) {
        (self.core.term(), self.core.leader())
    }

    /// Says whether it is another leader than the clients know of, or none.
    fn meet_leader(&mut self) -> bool {
        let leader = self.leader();
        if leader == self.known_leader {
            return false;
        }
        self.known_leader = leader;
        self.clients.on_leader_change();
        self.changes.on_leader_change();
        true
    }

    fn end_all(&mut self, error: &RequestError) {
        for (ticket, answer) in self.changes.end_all(error) {
            self.clients.answer(ticket, answer);
        }
        self.clients.end_all(error);
    }

    /// The snapshot that is to be taken when all up to `last` is applied.
    fn wanted_snapshot(&mut self, last: Index) -> Option<Wanted> {
        let members = self.core.members_at(last)?.clone();
        let term = self.core.log().term_at(last)?;
        self.compaction.ask(last);
        let verdicts = self.core.verdicts_at(last);
        Some(Wanted { at: (last, term), members, verdicts })
    }

    /// A snapshot has come whole. Bytes that are none are as good as lost.
    fn install(&mut self, id: SnapshotId, data: Bytes) {
        match snapshot::open(id, data) {
            Ok(snapshot) => {
                if let Err(refused) = self.core.install(snapshot) {
                    self.counts.drop_message(refused);
                }
            }
            Err(refusal) => {
                self.counts.refuse(refusal);
                // It comes again, as long as it is the leader's.
                if self.unopened.replace(id) != Some(id) {
                    self.core.warn(format!(
                        "the leader's snapshot at {} cannot be opened ({}): this node is not \
                         brought up to date",
                        id.index,
                        refusal.name()
                    ));
                }
            }
        }
    }

    /// The snapshot that takes the place of entries which the host was never given
    /// and the log does not hold; or, at the start, of all that it covers.
    fn to_restore(&self) -> Option<&Snapshot> {
        let gone = self.handed < self.core.log().base_index() || self.handed == Index(0);
        self.core.snapshot().filter(|snapshot| gone && snapshot.id.index > self.handed)
    }

    /// Hands committed and durable entries on, and reads that need no more than
    /// them. Says whether anything was done here.
    fn apply(&mut self, output: &mut Output<T>) -> bool {
        if self.host.is_busy() || self.broken.is_some() {
            return false;
        }
        let applicable = self.core.applicable();
        // Asked for here: what is committed may have grown since the effects were let out.
        self.turns.extend(self.core.take_turned());
        let restore = self.to_restore().cloned().map(Box::new);
        if let Some(snapshot) = &restore {
            if snapshot.id.index > applicable {
                return false; // it is not durable yet
            }
            // What of the own commands is in it is told when it is restored; what is
            // not was never applied.
            self.clients.on_truncated(self.handed.next());
            self.handed = snapshot.id.index;
            let _ = self.turns_up_to(snapshot.id.index);
            self.compaction.restored(snapshot);
        }
        let last = Index(applicable.0.min(self.handed.0 + ENTRIES_A_JOB as u64)).max(self.handed);
        // A machine that is ahead of the log shows what the log does not say yet.
        let questions = match last >= self.host.machine_has() {
            true => self.clients.reads.serve(last),
            false => Vec::new(),
        };
        if last <= self.handed && questions.is_empty() && restore.is_none() {
            return false;
        }
        let before = std::mem::replace(&mut self.handed, last);
        let bytes = entries(self.core.log(), before, last).map(|(_, entry)| entry.size_bytes());
        self.compaction.handed(bytes.sum());
        let due = self.compaction.is_due(last);
        let snapshot = if due { self.wanted_snapshot(last).map(Box::new) } else { None };
        let turns = self.turns_up_to(last);
        let job = Job { restore, entries: Vec::new(), turns, questions, snapshot };
        match self.host.run(job, entries(self.core.log(), before, last)) {
            Ok(done) => {
                self.settle(done);
                true
            }
            Err(job) => {
                output.job = Some(job);
                false
            }
        }
    }

    fn turns_up_to(&mut self, last: Index) -> Vec<Turn> {
        let known = self.turns.iter().take_while(|turn| turn.index <= last).count();
        self.turns.drain(..known).collect()
    }

    /// Buffers that were sent, to be used again.
    pub(crate) fn recycle(&mut self, datagrams: &mut Vec<(SocketAddr, Vec<u8>)>) {
        self.links.recycle(datagrams);
    }

    /// Ends all requests, and gives back what a restart would find.
    pub(crate) fn stop(mut self, error: &RequestError, output: &mut Output<T>) -> Saved {
        self.end_all(error);
        self.clients.drain_answers(&mut output.answers);
        self.core.into_saved()
    }

    /// How much of the story is told.
    pub(crate) fn set_detail(&mut self, detail: Detail) {
        self.core.set_detail(detail);
    }

    /// What was refused and dropped, by reason.
    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Why this node takes no part any more.
    pub(crate) fn failure(&self) -> Option<String> {
        self.core.failure().map(ToString::to_string).or_else(|| self.broken.clone())
    }

    /// The name of the node behind an incarnation.
    pub(crate) fn name_of(&self, incarnation: Incarnation) -> String {
        self.core.known_name(incarnation).map_or_else(|| incarnation.to_string(), str::to_string)
    }

    /// A note in words, with the names of those it speaks of.
    pub(crate) fn in_words(&self, note: &Note) -> String {
        match note {
            Note::Leader(Some(leader)) => format!("follows {}", self.name_of(*leader)),
            Note::Members(index) => {
                let members = self.core.members().into_iter().flat_map(|members| &members.members);
                let names: Vec<String> = members
                    .map(|member| match (member.standing, member.incarnation) {
                        (Standing::Voter, Some(_)) => member.name.clone(),
                        (_, None) => format!("{} (not heard yet)", member.name),
                        (Standing::Joining, _) => format!("{} (joins)", member.name),
                        (Standing::Learner, _) => format!("{} (learner)", member.name),
                    })
                    .collect();
                format!("the members are {} as of entry {index}", names.join(", "))
            }
            note => note.to_string(),
        }
    }

    /// The protocol's state, to look at.
    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    /// The protocol's state, to put bugs in.
    #[cfg(test)]
    pub(crate) fn core_mut(&mut self) -> &mut Core {
        &mut self.core
    }

    /// The end of what is applied.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn applied(&self) -> Index {
        self.host.applied()
    }

    /// The newest client entry that was applied.
    pub(crate) fn newest(&self) -> Option<&committed::Entry> {
        self.host.newest()
    }
}

/// The entries after `handed` up to `last`.
fn entries(log: &Log, handed: Index, last: Index) -> impl Iterator<Item = (Index, &Entry)> {
    log.from(handed.next()).take_while(move |(index, _)| *index <= last)
}

/// The role as the public has it.
pub(crate) fn public_role(role: RoleName) -> committed::Role {
    match role {
        RoleName::Fresh => committed::Role::Fresh,
        RoleName::Removed => committed::Role::Removed,
        RoleName::Learner => committed::Role::Learner,
        RoleName::Follower => committed::Role::Follower,
        RoleName::PreCandidate | RoleName::Candidate => committed::Role::Candidate,
        RoleName::Leader => committed::Role::Leader,
    }
}

/// What a request that met its deadline and cannot have been committed is told:
/// that it was not `done` in time, and why.
fn out_of_time(core: &Core, done: &str, timeout: u64, now: Time) -> RequestError {
    if let Some(waits) = core.disk_hangs(now) {
        let reason = format!(
            "it was not {done} within {} ms: this node's disk has not finished a write for {} ms",
            timeout / 1000,
            waits / 1000
        );
        return RequestError::Refused { reason };
    }
    if let Some(names) = core.majority_lost() {
        let reason = format!(
            "it was not {done} within {} ms: {} lost what they knew, and without them no majority \
             of the voters is left",
            timeout / 1000,
            names.join(", ")
        );
        return RequestError::Refused { reason };
    }
    let why = match (core.waiting(now), core.leader()) {
        (Some(Waiting::ForVoters(names)), _) => {
            format!(
                "the cluster is not founded yet, for want of {} (if there is one already, it has \
                 to be asked to add this node)",
                names.join(", ")
            )
        }
        (Some(waiting), _) => waiting.to_string(),
        (None, None) => "no leader was known".to_string(),
        (None, Some(_)) => "the leader did not answer".to_string(),
    };
    let reason = format!("it was not {done} within {} ms: {why}", timeout / 1000);
    RequestError::Refused { reason }
}
