//! One node of the explored cluster: the real core, its disk, the writes under way
//! between them, and what the fingerprint takes of all that.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::NODES;
use super::bounds::{Bounds, Bug};
use crate::core::durability::Durability;
use crate::core::effect::RoleName;
use crate::core::membership::{Member, Membership, Standing};
use crate::core::message::{Envelope, Hello, Message};
use crate::core::properties::Disk;
use crate::core::snapshot::Snapshot;
use crate::core::state::{Candidate, Follower, Leader, PreCandidate, Role};
use crate::core::tests::plan::{MS, name, neighbor};
use crate::core::types::{
    ClusterId, Entry, Incarnation, Index, Life, Payload, Protocol, Run, Term, Time, WriteNumber,
};
use crate::core::{AppendBytes, Core, Hard, Record, Setup};
use crate::encoding;

/// The time at which everything happens.
pub const NOW: Time = Time(1_000_000 * MS);

const CLUSTER: ClusterId = ClusterId(77);

/// A digest that is the same in each run of the program.
pub fn digest(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// An entry, as far as two of them are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stamp {
    pub term: u64,
    pub digest: u64,
}

impl Stamp {
    pub fn of(entry: &Entry) -> Stamp {
        Stamp { term: entry.term.0, digest: digest(entry) }
    }
}

/// What a log came to up to where it ends, its snapshot's part included: the replicated
/// state is the stamps of all entries that it came from, so no log ever forgets what
/// its beginning was.
fn stamps<'a>(
    snapshot: Option<&Snapshot>,
    base: Index,
    entries: impl Iterator<Item = &'a Entry>,
) -> Vec<Stamp> {
    let mut all = snapshot.map_or(Vec::new(), covered);
    assert!(all.len() as u64 >= base.0, "a log behind {base}, and no snapshot for it");
    all.truncate(base.0 as usize);
    all.extend(entries.map(Stamp::of));
    all
}

/// The stamps in a snapshot.
fn covered(snapshot: &Snapshot) -> Vec<Stamp> {
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    let state = encoding::snapshot::state(snapshot);
    let stamp = |bytes: &[u8]| Stamp { term: number(&bytes[..8]), digest: number(&bytes[8..]) };
    state.chunks_exact(16).map(stamp).collect()
}

/// What is asked of a node again and again, looked up once.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The fingerprint of the whole node.
    pub digest: u64,
    pub leads: bool,
    pub term: u64,
    pub commit: u64,
    /// The log in memory, and the one on disk, with what snapshots stand for.
    pub log: Vec<Stamp>,
    pub stored: Vec<Stamp>,
    /// What the snapshot stands for, if there is one.
    pub covered: Vec<Stamp>,
    /// Which run of each node it believes; 0: none.
    pub believed: [u64; NODES],
}

#[derive(Clone)]
pub struct Node {
    pub place: usize,
    pub core: Core,
    pub disk: Disk,
    pub writes: VecDeque<Record>,
    /// The newest term in which it has said anything, in any of its runs.
    pub spoken: Term,
    /// How often it asked for pre-votes, in this run.
    pub asked: u64,
    pub facts: Facts,
}

/// The life of a node in its run number `run`, from 1 on. A later run has the
/// greater number.
pub fn life(place: usize, run: u64) -> Life {
    Life { incarnation: Incarnation(place as u64 + 1), run: Run(run) }
}

/// The place of the node with this log.
pub fn place_of(incarnation: Incarnation) -> usize {
    incarnation.0 as usize - 1
}

impl Node {
    /// A node of a cluster that is founded, with the log that the bounds give it,
    /// believing the others.
    pub fn new(place: usize, bounds: &Bounds) -> Node {
        let member = |place: usize| Member {
            name: name(place),
            address: neighbor(place, NODES).address,
            incarnation: Some(life(place, 1).incarnation),
            standing: Standing::Voter,
        };
        let members = Membership::new(CLUSTER, (0..NODES).map(member).collect());
        let record = Entry {
            term: Term(0),
            payload: Payload::Protocol(Protocol::Members(Box::new(members))),
        };
        let older = bounds.logs[place].iter().enumerate().map(|(at, &term)| Entry {
            term: Term(term),
            payload: Payload::Client(format!("{}@{term}", at + 2).into_bytes().into()),
        });
        let hard = Hard { cluster: Some(CLUSTER), term: Term(bounds.term), voted_for: None };
        let entries = [record].into_iter().chain(older).collect();
        let disk = Disk { hard, entries, ..Disk::default() };
        let mut node = Node {
            place,
            core: started(place, 1, &disk, bounds),
            disk,
            writes: VecDeque::new(),
            spoken: Term(bounds.term),
            asked: 0,
            facts: Facts::default(),
        };
        for other in (0..NODES).filter(|other| *other != place) {
            node.believe(life(other, 1));
        }
        node.settle(bounds);
        node
    }

    pub fn run(&self) -> u64 {
        self.core.me().run.0
    }

    /// The node dies with these writes on its disk and starts anew.
    pub fn restart(&mut self, reached: u8, torn: u8, bounds: &Bounds) {
        for record in self.writes.drain(..usize::from(reached)) {
            self.disk.write(&record);
        }
        if torn > 0
            && let Some(mut record) = self.writes.pop_front()
        {
            record.entries.truncate(usize::from(torn));
            self.disk.write(&record);
        }
        self.writes.clear();
        bounds.bug.at_restart(&mut self.disk);
        self.core = started(self.place, self.run() + 1, &self.disk, bounds);
        self.asked = 0;
    }

    /// The node takes a snapshot of all that may be applied, and makes it durable.
    pub fn compact(&mut self, bug: Bug) {
        let index = self.core.applicable();
        let term = self.core.log().term_at(index).expect("it is in the log");
        let mut state = Vec::new();
        for stamp in &self.facts.log[..index.0 as usize] {
            state.extend_from_slice(&stamp.term.to_le_bytes());
            state.extend_from_slice(&stamp.digest.to_le_bytes());
        }
        let (stated, mut members) = self.core.members_at(index).expect("members").clone();
        bug.at_snapshot(&mut members);
        let snapshot = encoding::snapshot::make(
            (index, term),
            (stated, &members),
            &Default::default(),
            &state,
        );
        self.disk.compacted(&snapshot, self.disk.base.0);
        self.core.compact(snapshot.clone(), NOW);
        self.disk.compacted(&snapshot, self.core.log().base_index());
    }

    /// The handshake with a life is over. What it takes is explored elsewhere; what
    /// comes of it is the core's own.
    pub fn believe(&mut self, life: Life) {
        let name = name(place_of(life.incarnation));
        let place = self.core.peers().iter().position(|peer| peer.node.name == name);
        let place = place.expect("a neighbour");
        let echo = self.core.lives.challenge(place, &mut self.core.rng);
        let message =
            Message::Hello(Hello { name, ask: 0, echo, fresh: false, members: Index(u64::MAX) });
        let envelope = Envelope { cluster: CLUSTER, from: life, to: self.core.me(), message };
        self.core.receive(envelope, NOW).expect("an echo is taken");
    }

    /// After a step: what only counts begins anew, and the facts are looked up.
    pub fn settle(&mut self, bounds: &Bounds) {
        if !bounds.promises {
            self.core.leader_heard_at = None;
        }
        self.order_held();
        if self.writes.is_empty() && self.core.failure().is_none() {
            number_writes_anew(&mut self.core);
        }
        let core = &self.core;
        let mut believed = [0; NODES];
        for peer in core.peers() {
            if let Some(life) = peer.believed {
                believed[place_of(life.incarnation)] = life.run.0;
            }
        }
        self.facts = Facts {
            digest: self.digest(),
            leads: core.role() == RoleName::Leader,
            term: core.term().0,
            commit: core.commit_index().0,
            log: stamps(
                core.snapshot(),
                core.log().base_index(),
                core.log().from(Index(1)).map(|(_, entry)| entry),
            ),
            stored: stamps(self.disk.snapshot.as_ref(), self.disk.base.0, self.disk.entries.iter()),
            covered: core.snapshot().map_or(Vec::new(), covered),
            believed,
        };
    }

    /// What waits for one write leaves at once when that is done, into a network that
    /// repeats and reorders: the order and the number of equal ones say nothing.
    fn order_held(&mut self) {
        let held = self.core.held.make_contiguous();
        assert!(held.is_sorted_by_key(|(gate, _)| *gate), "released in order: {held:?}");
        held.sort_by_cached_key(|(gate, outgoing)| (*gate, digest(&outgoing.envelope)));
        let mut unique: VecDeque<_> = VecDeque::with_capacity(held.len());
        for waiting in self.core.held.drain(..) {
            if unique.back() != Some(&waiting) {
                unique.push_back(waiting);
            }
        }
        self.core.held = unique;
    }

    /// All that can make a difference to what the node will do, be given or be
    /// judged by. Who adds a field to these types decides here what it is; the head
    /// of `explore` says why the ones that are left out may be.
    fn digest(&self) -> u64 {
        let Node { place, core, disk, writes, spoken, asked, facts: _ } = self;
        let mut hasher = DefaultHasher::new();
        (place, spoken, asked, &disk.hard, &disk.snapshot, disk.base, &disk.entries)
            .hash(&mut hasher);
        for Record { number, hard, from, entries, install } in writes {
            (number, hard, from, entries, install).hash(&mut hasher);
        }
        hash_core(core, &mut hasher);
        for peer in core.lives.peers() {
            (peer.believed, peer.fresh, peer.cluster).hash(&mut hasher);
        }
        hasher.finish()
    }
}

/// With no write under way and nothing that waits for one, the numbers of the writes
/// that are done say nothing any more: they are counted from 0 again.
pub fn number_writes_anew(core: &mut Core) {
    assert!(core.held.is_empty(), "{:?} waits for no write", core.held);
    let mut idle = core.durability.clone();
    assert_eq!(idle.issue(core.log.last_index(), NOW), None, "all was written");
    assert!(idle.is_completed(idle.hard_gate()), "all is done");
    core.durability = Durability::recovered(core.durability.durable());
    if let Role::Candidate(candidate) = &mut core.role {
        candidate.own_vote = WriteNumber(0);
    }
}

/// All of a core but its lives, which count for less here than in `lives`.
pub fn hash_core(core: &Core, hasher: &mut DefaultHasher) {
    let Core {
        setup: _,
        me,
        hard,
        snapshot,
        incoming,
        assembled,
        log,
        commit_index,
        durability,
        configurations,
        verdicts: _,
        turns: _,
        role,
        lives: _,
        rng: _,
        election_at: _,
        leader_heard_at,
        leader_heard: _,
        quorum_at: _,
        waiting_note_at: _,
        campaigns: _,
        candidacies: _,
        hanging: _,
        failure,
        detail: _,
        sends,
        held,
        reads_ready,
        changes_answered,
        answered_changes: _,
        removed_at,
        removal_told: _,
        majority_lost_told: _,
        differences_at: _,
        truncated: _,
        turned: _,
        notes: _,
    } = core;
    assert!(sends.is_empty() && reads_ready.is_empty(), "all was let out");
    assert!(changes_answered.is_empty(), "nobody wishes anything");
    removed_at.hash(hasher);
    (me, hard, log, commit_index, durability, configurations).hash(hasher);
    (snapshot, incoming, assembled).hash(hasher);
    (leader_heard_at.is_some(), failure, held.len()).hash(hasher);
    for (number, outgoing) in held {
        (number, &outgoing.envelope).hash(hasher);
    }
    hash_role(role, hasher);
}

fn hash_role(role: &Role, hasher: &mut DefaultHasher) {
    std::mem::discriminant(role).hash(hasher);
    match role {
        Role::Follower(Follower { leader, verified, seq, acknowledge, acknowledged }) => {
            (leader, verified, seq, acknowledge, acknowledged).hash(hasher);
        }
        Role::PreCandidate(PreCandidate { round, granted }) => (round, granted).hash(hasher),
        Role::Candidate(Candidate { granted, own_vote }) => (granted, own_vote).hash(hasher),
        Role::Leader(leader) => {
            let Leader {
                term_start,
                seq,
                progress,
                heartbeat_at,
                rounds,
                reads: _,
                seen: _,
                changing,
                joining,
                newcomers,
                farewells,
                detector: _,
                settled,
                unsettled_bytes,
            } = &**leader;
            (term_start, seq, heartbeat_at, rounds, settled, unsettled_bytes).hash(hasher);
            assert!(changing.is_none() && joining.is_empty(), "nobody wishes anything");
            (newcomers, farewells).hash(hasher);
            let progress: &BTreeMap<_, _> = progress;
            progress.hash(hasher);
        }
    }
}

fn started(place: usize, run: u64, disk: &Disk, bounds: &Bounds) -> Core {
    let setup = Setup {
        own: neighbor(place, NODES),
        others: (0..NODES).filter(|other| *other != place).map(|o| neighbor(o, NODES)).collect(),
        heartbeat: 30 * MS,
        failure_timeout: None,
        election_timeout: (150 * MS, 300 * MS),
        founding_by_majority: false,
        tail_entries: 0,
        append_bytes: AppendBytes { near: bounds.append_bytes, far: bounds.append_bytes },
    };
    let life = life(place, run);
    Core::new(setup, disk.saved(life.incarnation), life.run, 0, NOW)
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Node { core, disk, .. } = self;
        let terms = |entries: &mut dyn Iterator<Item = &Entry>| {
            entries.map(|entry| entry.term.to_string()).collect::<Vec<_>>().join(" ")
        };
        let log = terms(&mut core.log().from(Index(1)).map(|(_, entry)| entry));
        let stored = terms(&mut disk.entries.iter());
        write!(f, "{} run {} {} term {}", name(self.place), self.run(), core.role(), core.term())?;
        if let Some(candidate) = core.hard().voted_for {
            write!(f, " voted {}", name(place_of(candidate)))?;
        }
        write!(f, " log after {} [{log}]", core.log().base_index())?;
        write!(f, " commit {}", core.commit_index())?;
        for (whose, index) in [
            ("snapshot", core.snapshot().map(|snapshot| snapshot.id.index)),
            ("stored snapshot", disk.snapshot.as_ref().map(|snapshot| snapshot.id.index)),
        ] {
            if let Some(index) = index {
                write!(f, " {whose} {index}")?;
            }
        }
        let same = disk.hard == *core.hard() && stored == log;
        if !same {
            write!(f, " disk term {} [{stored}]", disk.hard.term)?;
        }
        Ok(())
    }
}
