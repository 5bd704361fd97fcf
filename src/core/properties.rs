//! What must hold over all nodes and all history, checked after every step.
//!
//! Each checker names its source. One step touches one node, so each looks at the
//! node that was touched and at what is remembered of all others; what holds of
//! every pair then follows by induction.
//!
//! Three provers use them: the protocol's own tests, the exploration and the
//! simulator. The rooms: `disk` what a crash leaves behind, `logs` what the paper
//! promises of logs and commits, `said` what must be durable before it is said, `verdicts`
//! who is up.

mod disk;
pub mod logs;
#[cfg(test)]
pub mod reads;
pub mod said;
pub mod verdicts;

use std::collections::BTreeMap;
use std::fmt;

use super::effect::RoleName;
use super::state::{Hard, Role, UNSETTLED_BYTES};
use super::types::{ClusterId, Entry, Incarnation, Index, Life, Payload, Protocol, Run, Term};
use super::{Core, HELD_MOST};

pub use self::disk::Disk;

/// Something that must always be true.
#[derive(Debug, PartialEq, Eq)]
pub struct Property {
    /// What it is called.
    pub name: &'static str,
    /// Where it is stated.
    pub source: &'static str,
}

/// At most one leader in a term, and never two clusters with a leader each.
pub const ELECTION_SAFETY: Property =
    Property { name: "Election Safety", source: "Raft Figure 3, §5.2" };

/// Term and commit index never go back; a vote is not changed within a term; a
/// cluster is joined once.
pub const NEVER_BACK: Property = Property { name: "Never Back", source: "Raft Figure 2, §5.2" };

/// A snapshot covers what is committed, and has the members as they were there.
pub const SNAPSHOT_COMMITTED: Property =
    Property { name: "Snapshots Of What Is Committed", source: "Raft §7" };

/// What a state machine may be given is committed and durable there.
pub const APPLY_DURABLE: Property = Property {
    name: "Applied When Durable",
    source: "thesis §10.2.1: only what is durable may be applied",
};

/// `next_index` is above `match_index`, and only members are followed.
pub const PROGRESS: Property =
    Property { name: "Progress In Order", source: "Raft Figure 2, nextIndex and matchIndex" };

/// Members follow on members by at most one voter more or less.
pub const ONE_CHANGE: Property = Property {
    name: "One Change At A Time",
    source: "thesis §4.1: any majority of before meets any majority of after",
};

/// Honest nodes never find proof that safety is broken.
pub const NO_FAILURE: Property =
    Property { name: "No Node Fails", source: "Raft §5.2, §5.4: what a node finds impossible" };

/// No queue grows without bound, whatever comes and whatever hangs.
pub const BOUNDED: Property = Property { name: "Bounded Queues", source: "design, promise 4" };

/// All of them: each has been seen to fail.
#[cfg(test)]
pub const ALL: [&Property; 17] = [
    &ELECTION_SAFETY,
    &logs::LEADER_APPEND_ONLY,
    &logs::LOG_MATCHING,
    &logs::LEADER_COMPLETENESS,
    &logs::STATE_MACHINE_SAFETY,
    &logs::COMMIT_RULE,
    &said::VOTE_ONCE,
    &said::DURABLE_FIRST,
    &reads::READS_NOT_STALE,
    &NEVER_BACK,
    &SNAPSHOT_COMMITTED,
    &APPLY_DURABLE,
    &verdicts::ONE_VIEW,
    &PROGRESS,
    &ONE_CHANGE,
    &NO_FAILURE,
    &BOUNDED,
];

/// A property that does not hold, and what was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Which.
    pub property: &'static Property,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.property.name, self.property.source, self.what)
    }
}

/// What waits in a node for its disk, for answers, for a majority.
pub fn check_bounds(core: &Core) -> Verdict {
    let held = core.held.len();
    ensure(&BOUNDED, held <= HELD_MOST, || format!("{held} messages wait for a write"))?;
    if let Some((incoming, _)) = &core.incoming {
        let (early, id) = (incoming.early_bytes(), incoming.id());
        ensure(&BOUNDED, early <= EARLY_BYTES, || format!("{early} bytes of {id:?} came early"))?;
        ensure(&BOUNDED, id.index > core.commit_index(), || format!("{id:?} comes for nothing"))?;
    }
    if let Role::Leader(leader) = &core.role {
        // It takes one more as long as it is not full.
        let most = UNSETTLED_BYTES + ENTRY_BYTES;
        let bytes = leader.unsettled_bytes;
        ensure(&BOUNDED, bytes <= most, || format!("{bytes} bytes are not committed and durable"))?;
    }
    Ok(())
}

/// Of the members that a log states each follows on those before by one change.
fn check_members(core: &Core) -> Verdict {
    let (Some(before), Some(now)) = (core.configurations.before_current(), core.members()) else {
        return Ok(());
    };
    let apart = before.voters_apart(now);
    ensure(&ONE_CHANGE, apart <= 1, || {
        format!("{apart} voters change at {}", core.configurations.current_index())
    })
}

/// So much of a snapshot may come before what precedes it, by any count.
const EARLY_BYTES: usize = 8 << 20;

/// No entry is larger than this, whatever a config allows.
const ENTRY_BYTES: usize = 32 << 20;

/// What a check comes to.
pub type Verdict = Result<(), Broken>;

/// The property holds, or this is what was seen.
pub fn ensure(
    property: &'static Property,
    holds: bool,
    otherwise: impl FnOnce() -> String,
) -> Verdict {
    if holds { Ok(()) } else { broken(property, otherwise()) }
}

/// The property does not hold.
pub fn broken(property: &'static Property, what: String) -> Verdict {
    Err(Broken { property, what })
}

/// A node as it was after its last step.
#[derive(Clone, Debug)]
struct Mirror {
    role: RoleName,
    hard: Hard,
    commit_index: Index,
    terms: Vec<Term>,
}

impl Default for Mirror {
    fn default() -> Mirror {
        Mirror {
            role: RoleName::Fresh,
            hard: Hard::default(),
            commit_index: Index(0),
            terms: Vec::new(),
        }
    }
}

/// What was ever true.
#[derive(Clone, Debug, Default)]
pub struct History {
    leaders: BTreeMap<(ClusterId, Term), (Incarnation, Run)>,
    entries: BTreeMap<(ClusterId, Index, Term), (Term, Payload)>,
    /// What is committed, each entry with the term in which it became so.
    committed: BTreeMap<ClusterId, Vec<(Entry, Term)>>,
    votes: BTreeMap<(Incarnation, Term), Incarnation>,
    /// Who was up, by the committed log.
    views: BTreeMap<ClusterId, verdicts::Views>,
    mirrors: BTreeMap<Life, Mirror>,
    /// The snapshots that were looked at.
    snapshots: BTreeMap<Life, Index>,
    #[cfg(test)]
    reads: BTreeMap<(Run, u64), Index>,
    /// How many commits of leaders were compared with a naive count.
    pub counted: u64,
    /// Whole logs are compared, and commits counted by hand, at each of so many
    /// checks; at the others, what changed. 0 as 1: at each.
    pub thorough_every: u64,
    steps: u64,
}

impl History {
    /// Nothing was true yet; whole logs are compared at each of so many checks.
    pub fn with_thorough_every(checks: u64) -> History {
        History { thorough_every: checks, ..History::default() }
    }

    /// All that a step of `core` may have broken; `others` are the nodes that run.
    pub fn check<'a>(
        &mut self,
        core: &Core,
        disks: &BTreeMap<Incarnation, Disk>,
        others: impl Iterator<Item = &'a Core>,
    ) -> Verdict {
        self.steps += 1;
        let thorough = self.thorough_every <= 1 || self.steps.is_multiple_of(self.thorough_every);
        let before = self.mirrors.get(&core.me()).map(|mirror| mirror.commit_index);
        self.check_failure(core)?;
        self.check_life(core)?;
        self.check_election_safety(core)?;
        self.check_log(core, thorough)?;
        self.check_commits(core, disks, others)?;
        self.check_snapshot(core)?;
        self.check_applicable(core, disks)?;
        if thorough || before != Some(core.commit_index()) {
            self.check_commit_rule(core)?;
            self.check_verdicts(core)?;
        }
        self.check_progress(core)?;
        check_members(core)?;
        self.remember(core, thorough);
        Ok(())
    }

    /// A core among honest nodes never finds proof that safety is broken.
    fn check_failure(&self, core: &Core) -> Verdict {
        match core.failure() {
            None => Ok(()),
            Some(failure) => broken(&NO_FAILURE, failure.to_string()),
        }
    }

    /// Term and commit index never go back in a life; a vote is given once a term
    /// (Raft Figure 2, §5.2). A cluster is joined once.
    fn check_life(&self, core: &Core) -> Verdict {
        let Some(before) = self.mirrors.get(&core.me()) else { return Ok(()) };
        let (was, is) = (&before.hard, core.hard());
        ensure(&NEVER_BACK, is.term >= was.term, || {
            format!("term {} after {}", is.term, was.term)
        })?;
        ensure(&NEVER_BACK, core.commit_index() >= before.commit_index, || {
            format!("commit index {} after {}", core.commit_index(), before.commit_index)
        })?;
        let kept = was.voted_for.is_none() || is.term > was.term || is.voted_for == was.voted_for;
        ensure(&NEVER_BACK, kept, || format!("two votes in term {}: {was:?}, {is:?}", is.term))?;
        let joined = was.cluster.is_none() || is.cluster == was.cluster;
        ensure(&NEVER_BACK, joined, || {
            format!("of one cluster and then of another: {was:?}, {is:?}")
        })
    }

    /// Raft §7: a snapshot stands for a prefix of what is committed, members included
    /// (pitfall 38).
    fn check_snapshot(&mut self, core: &Core) -> Verdict {
        let Some(snapshot) = core.snapshot() else { return Ok(()) };
        if self.snapshots.get(&core.me()) == Some(&snapshot.id.index) {
            return Ok(());
        }
        self.snapshots.insert(core.me(), snapshot.id.index);
        let cluster = core.hard().cluster.unwrap_or_default();
        let committed = self.committed.get(&cluster).map_or(&[][..], |all| all);
        let place = snapshot.id.index.0 as usize - 1;
        let of = committed.get(place).map(|(entry, _)| entry.term);
        ensure(&SNAPSHOT_COMMITTED, of == Some(snapshot.id.term), || {
            format!("{:?} stands for an entry of term {of:?}", snapshot.id)
        })?;
        let stated = committed.iter().take(place + 1).enumerate().rev().find_map(|(at, (e, _))| {
            match &e.payload {
                Payload::Protocol(Protocol::Members(members)) => {
                    Some((Index(at as u64 + 1), &**members))
                }
                _ => None,
            }
        });
        ensure(
            &SNAPSHOT_COMMITTED,
            stated == Some((snapshot.members_index, &snapshot.members)),
            || format!("members {:?}, and {stated:?} is committed", snapshot.members),
        )
    }

    /// At most one leader in a term: Election Safety (Raft Figure 3, §5.2).
    /// And never two clusters with a leader each (design, "Lives").
    fn check_election_safety(&mut self, core: &Core) -> Verdict {
        if core.role() != RoleName::Leader {
            return Ok(());
        }
        let Some(cluster) = core.hard().cluster else {
            return broken(&ELECTION_SAFETY, "a leader of no cluster".to_string());
        };
        let me = (core.me().incarnation, core.me().run);
        let first = *self.leaders.entry((cluster, core.term())).or_insert(me);
        ensure(&ELECTION_SAFETY, first == me, || {
            format!("{first:?} and {me:?} lead in term {}", core.term())
        })?;
        let clusters = [self.leaders.first_key_value(), self.leaders.last_key_value()]
            .map(|l| l.map(|(k, _)| k.0));
        ensure(&ELECTION_SAFETY, clusters[0] == clusters[1], || {
            format!("two clusters with leaders: {clusters:?}")
        })
    }

    /// Nothing is handed to a state machine before it is durable here (design,
    /// "Effects and their order").
    fn check_applicable(&self, core: &Core, disks: &BTreeMap<Incarnation, Disk>) -> Verdict {
        let index = core.applicable();
        let disk = &disks[&core.me().incarnation];
        // Below the base a snapshot stands for it, which need not be durable yet.
        let there = match core.log().term_at(index) {
            Some(term) => disk.has(index, term),
            None => index < core.log().base_index() && index <= disk.last_index(),
        };
        ensure(&APPLY_DURABLE, there && index <= core.commit_index(), || {
            format!("{index} may be applied, the disk ends at {}", disk.last_index())
        })
    }

    /// Pitfall 28: next_index is above match_index; nobody but members but the
    /// leader itself has a progress.
    fn check_progress(&self, core: &Core) -> Verdict {
        let (Role::Leader(leader), Some(members)) = (&core.role, core.members()) else {
            return Ok(());
        };
        for (member, progress) in &leader.progress {
            ensure(&PROGRESS, progress.next_index() > progress.match_index(), || {
                format!("{member}: next {} match {}", progress.next_index(), progress.match_index())
            })?;
            let named = members.names(*member) && *member != core.me().incarnation;
            ensure(&PROGRESS, named, || format!("{member} has a progress and is no member"))?;
        }
        Ok(())
    }

    fn remember(&mut self, core: &Core, thorough: bool) {
        let mirror = self.mirrors.entry(core.me()).or_default();
        let same = logs::same_prefix(&mirror.terms, core.log(), thorough);
        let base = core.log().base_index().0 as usize;
        if same < base {
            // A snapshot took the log's place: it stands for what is committed.
            let cluster = core.hard().cluster.unwrap_or_default();
            let committed = self.committed.get(&cluster).map_or(&[][..], |all| all);
            mirror.terms.clear();
            mirror.terms.extend(committed.iter().take(base).map(|(entry, _)| entry.term));
        }
        mirror.terms.truncate(same.max(base));
        let new = core.log().from(Index(same.max(base) as u64 + 1));
        mirror.terms.extend(new.map(|(_, entry)| entry.term));
        mirror.role = core.role();
        mirror.commit_index = core.commit_index();
        if mirror.hard != *core.hard() {
            mirror.hard = core.hard().clone();
        }
    }

    /// The end of what is committed anywhere.
    pub fn committed(&self) -> Index {
        Index(self.committed.values().map(Vec::len).max().unwrap_or(0) as u64)
    }

    /// Whether this operation was committed, and how often.
    #[cfg(test)]
    pub fn times_committed(&self, operation: &[u8]) -> usize {
        let all = self.committed.values().flatten();
        all.filter(
            |(entry, _)| matches!(&entry.payload, Payload::Client(bytes) if bytes == operation),
        )
        .count()
    }

    /// How many changes of the members are committed, founding aside.
    #[cfg(any(test, feature = "sim"))]
    pub fn changes(&self) -> u64 {
        let all = self.committed_entries().iter();
        let stated = all
            .filter(|(entry, _)| matches!(entry.payload, Payload::Protocol(Protocol::Members(_))));
        (stated.count() as u64).saturating_sub(1)
    }

    /// How many terms had a leader.
    pub fn leaders(&self) -> usize {
        self.leaders.len()
    }
}
