//! What must hold over all nodes and all history, checked after every step.
//!
//! Each checker names its source. One step touches one node, so each looks at the
//! node that was touched and at what is remembered of all others; what holds of
//! every pair then follows by induction.

use std::collections::BTreeMap;

use super::super::durability::Write;
use super::super::effect::RoleName;
use super::super::message::{AppendOutcome, Envelope, Message};
use super::super::quorum;
use super::super::state::Role;
use super::super::types::{
    ClusterId, Entry, Incarnation, Index, Life, Payload, Run, Term, WriteNumber,
};
use super::super::{Core, Hard};

/// What one log has on its disk: completed writes only. A disk whose node was
/// wiped is kept, to tell what was true once.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    pub hard: Hard,
    pub entries: Vec<Entry>,
}

/// A write as it was when it was issued.
#[derive(Clone, Debug)]
pub struct Pending {
    pub number: WriteNumber,
    pub hard: Option<Hard>,
    pub from: Option<Index>,
    pub entries: Vec<Entry>,
    /// When it completes by itself.
    pub due: u64,
}

impl Pending {
    pub fn of(core: &Core, write: &Write, due: u64) -> Pending {
        let (hard, entries) = core.written_part(write);
        let entries = entries.map(|(_, entry)| entry.clone()).collect();
        Pending { number: write.number, hard: hard.cloned(), from: write.from, entries, due }
    }
}

impl Disk {
    pub fn write(&mut self, pending: &Pending) {
        if let Some(hard) = &pending.hard {
            self.hard = hard.clone();
        }
        if let Some(from) = pending.from {
            self.entries.truncate(from.0 as usize - 1);
            assert_eq!(self.entries.len() as u64 + 1, from.0, "a write without a gap");
            self.entries.extend(pending.entries.iter().cloned());
        }
    }

    pub fn last_index(&self) -> Index {
        Index(self.entries.len() as u64)
    }

    pub fn term_at(&self, index: Index) -> Option<Term> {
        match index.0.checked_sub(1) {
            None => Some(Term(0)),
            Some(place) => self.entries.get(place as usize).map(|entry| entry.term),
        }
    }
}

/// A node as it was after its last step.
#[derive(Debug)]
struct Mirror {
    role: RoleName,
    hard: Hard,
    commit_index: Index,
    terms: Vec<Term>,
}

/// What was ever true.
#[derive(Debug, Default)]
pub struct History {
    leaders: BTreeMap<(ClusterId, Term), (Incarnation, Run)>,
    entries: BTreeMap<(ClusterId, Index, Term), (Term, Payload)>,
    /// What is committed, each entry with the term in which it became so.
    committed: BTreeMap<ClusterId, Vec<(Entry, Term)>>,
    votes: BTreeMap<(Incarnation, Term), Incarnation>,
    mirrors: BTreeMap<Life, Mirror>,
    reads: BTreeMap<(Run, u64), Index>,
    /// How many commits of leaders were compared with a naive count.
    pub counted: u64,
}

type Verdict = Result<(), String>;

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(otherwise()) }
}

impl History {
    /// All that a step of `core` may have broken; `others` are the nodes that run.
    pub fn check<'a>(
        &mut self,
        core: &Core,
        disks: &BTreeMap<Incarnation, Disk>,
        others: impl Iterator<Item = &'a Core>,
    ) -> Verdict {
        self.check_failure(core)?;
        self.check_life(core)?;
        self.check_election_safety(core)?;
        self.check_append_only_and_log_matching(core)?;
        self.check_commits(core, disks, others)?;
        self.check_applicable(core, disks)?;
        self.check_commit_rule(core)?;
        self.check_progress(core)?;
        self.remember(core);
        Ok(())
    }

    /// A core among honest nodes never finds proof that safety is broken.
    fn check_failure(&self, core: &Core) -> Verdict {
        match core.failure() {
            None => Ok(()),
            Some(failure) => Err(failure.to_string()),
        }
    }

    /// Term and commit index never go back in a life; a vote is given once a term
    /// (Raft Figure 2, §5.2). A cluster is joined once.
    fn check_life(&self, core: &Core) -> Verdict {
        let Some(before) = self.mirrors.get(&core.me()) else { return Ok(()) };
        let (was, is) = (&before.hard, core.hard());
        ensure(is.term >= was.term, || format!("term {} after {}", is.term, was.term))?;
        ensure(core.commit_index() >= before.commit_index, || {
            format!("commit index {} after {}", core.commit_index(), before.commit_index)
        })?;
        let kept = was.voted_for.is_none() || is.term > was.term || is.voted_for == was.voted_for;
        ensure(kept, || format!("two votes in term {}: {was:?}, {is:?}", is.term))?;
        let joined = was.cluster.is_none() || is.cluster == was.cluster;
        ensure(joined, || format!("of one cluster and then of another: {was:?}, {is:?}"))
    }

    /// At most one leader in a term: Election Safety (Raft Figure 3, §5.2).
    /// And never two clusters with a leader each (design, "Lives").
    fn check_election_safety(&mut self, core: &Core) -> Verdict {
        if core.role() != RoleName::Leader {
            return Ok(());
        }
        let Some(cluster) = core.hard().cluster else {
            return Err("a leader of no cluster".to_string());
        };
        let me = (core.me().incarnation, core.me().run);
        let first = *self.leaders.entry((cluster, core.term())).or_insert(me);
        ensure(first == me, || format!("{first:?} and {me:?} lead in term {}", core.term()))?;
        let clusters = [self.leaders.first_key_value(), self.leaders.last_key_value()]
            .map(|l| l.map(|(k, _)| k.0));
        ensure(clusters[0] == clusters[1], || format!("two clusters with leaders: {clusters:?}"))
    }

    /// A leader never overwrites or deletes entries of its log: Leader Append-Only
    /// (Raft Figure 3, §5.3). Entries of one index and term are the same, and so
    /// is what precedes them: Log Matching (Raft Figure 3, §5.3).
    fn check_append_only_and_log_matching(&mut self, core: &Core) -> Verdict {
        let none = Vec::new();
        let before = self.mirrors.get(&core.me());
        let was: &Vec<Term> = before.map_or(&none, |mirror| &mirror.terms);
        let same =
            was.iter().zip(core.log().from(Index(1))).take_while(|(t, (_, e))| **t == e.term);
        let same = same.count();
        if let Some(before) = before.filter(|mirror| mirror.role == RoleName::Leader) {
            let leads = core.role() == RoleName::Leader && core.term() == before.hard.term;
            ensure(!leads || same == was.len(), || {
                format!("a leader changed its entry {}", same + 1)
            })?;
        }
        let Some(cluster) = core.hard().cluster else { return Ok(()) };
        for (index, entry) in core.log().from(Index(same as u64 + 1)) {
            let prev_term = core.log().term_at(index.previous()).unwrap_or_default();
            let key = (cluster, index, entry.term);
            match self.entries.get(&key) {
                None => {
                    self.entries.insert(key, (prev_term, entry.payload.clone()));
                }
                Some((prev, payload)) => {
                    let equal = *prev == prev_term && *payload == entry.payload;
                    ensure(equal, || {
                        format!(
                            "two entries {index} of term {}: {payload:?} after {prev}, {:?} after {prev_term}",
                            entry.term, entry.payload
                        )
                    })?;
                }
            }
        }
        Ok(())
    }

    /// No two nodes commit different entries at an index: State Machine Safety
    /// (Raft Figure 3, §5.4.3). Committed entries are in the logs of the leaders
    /// of all later terms: Leader Completeness (Raft Figure 3, §5.4). A leader
    /// commits only what a majority of its voters has on disk (Raft §5.3, §5.4.2).
    /// One cluster at most commits anything beyond its founding record.
    fn check_commits<'a>(
        &mut self,
        core: &Core,
        disks: &BTreeMap<Incarnation, Disk>,
        others: impl Iterator<Item = &'a Core>,
    ) -> Verdict {
        let Some(cluster) = core.hard().cluster else { return Ok(()) };
        let before = self.mirrors.get(&core.me());
        let was = before.map_or(Index(0), |mirror| mirror.commit_index);
        let commit_index = core.commit_index();
        let committed = self.committed.entry(cluster).or_default();
        let known = committed.len();
        for (index, entry) in core.log().from(was.next()).take((commit_index.0 - was.0) as usize) {
            match committed.get(index.0 as usize - 1) {
                Some((first, _)) => ensure(first == entry, || {
                    format!("{first:?} and {entry:?} are committed at {index}")
                })?,
                None => committed.push((entry.clone(), core.term())),
            }
        }
        if committed.len() > known {
            let leads = core.role() == RoleName::Leader;
            ensure(leads, || format!("a follower commits {commit_index} before any leader"))?;
            check_majority_on_disk(core, commit_index, disks)?;
            for other in others.filter(|other| other.hard().cluster == Some(cluster)) {
                check_completeness(other, committed, known)?;
            }
        }
        if before.is_none_or(|mirror| mirror.role != RoleName::Leader) {
            check_completeness(core, committed, 0)?;
        }
        let beyond = self.committed.values().filter(|committed| committed.len() > 1).count();
        ensure(beyond <= 1, || "two clusters have committed entries".to_string())
    }

    /// Nothing is handed to a state machine before it is durable here (design,
    /// "Effects and their order").
    fn check_applicable(&self, core: &Core, disks: &BTreeMap<Incarnation, Disk>) -> Verdict {
        let index = core.applicable();
        let disk = &disks[&core.me().incarnation];
        let there =
            disk.term_at(index).is_some() && disk.term_at(index) == core.log().term_at(index);
        ensure(there && index <= core.commit_index(), || {
            format!("{index} may be applied, the disk ends at {}", disk.last_index())
        })
    }

    /// Pitfall 26: the commit rule and counting by hand agree at each step: the
    /// greatest index of the own term that a majority of the voters has.
    fn check_commit_rule(&mut self, core: &Core) -> Verdict {
        let (Role::Leader(leader), Some(members)) = (&core.role, core.members()) else {
            return Ok(());
        };
        let has = |voter: Incarnation, index: Index| match leader.progress.get(&voter) {
            _ if voter == core.me().incarnation => core.durability.durable() >= index,
            Some(progress) => progress.match_index() >= index,
            None => false,
        };
        let voters: Vec<_> = members.members.iter().filter(|member| member.voter).collect();
        let mut naive = core.commit_index();
        let mut index = core.log().last_index();
        while index > naive {
            let of_term = core.log().term_at(index) == Some(core.term());
            let copies = voters.iter().filter(|m| m.incarnation.is_some_and(|i| has(i, index)));
            if of_term && copies.count() * 2 > voters.len() {
                naive = index;
            }
            index = index.previous();
        }
        self.counted += 1;
        ensure(naive == core.commit_index(), || {
            format!("counting commits {naive}, the rule {}", core.commit_index())
        })
    }

    /// Pitfall 28: next_index is above match_index; nobody but members but the
    /// leader itself has a progress.
    fn check_progress(&self, core: &Core) -> Verdict {
        let (Role::Leader(leader), Some(members)) = (&core.role, core.members()) else {
            return Ok(());
        };
        for (member, progress) in &leader.progress {
            ensure(progress.next_index() > progress.match_index(), || {
                format!("{member}: next {} match {}", progress.next_index(), progress.match_index())
            })?;
            let named = members.names(*member) && *member != core.me().incarnation;
            ensure(named, || format!("{member} has a progress and is no member"))?;
        }
        Ok(())
    }

    fn remember(&mut self, core: &Core) {
        let mirror = Mirror {
            role: core.role(),
            hard: core.hard().clone(),
            commit_index: core.commit_index(),
            terms: core.log().from(Index(1)).map(|(_, entry)| entry.term).collect(),
        };
        self.mirrors.insert(core.me(), mirror);
    }

    /// What is said rests on what is durable (design, "Effects and their order";
    /// Raft Figure 2, "updated on stable storage before responding"): the term,
    /// the vote and the cluster of any message, the entries of an acknowledgement.
    pub fn check_outgoing(&mut self, core: &Core, disk: &Disk, envelope: &Envelope) -> Verdict {
        let cluster = envelope.cluster;
        ensure(cluster.0 == 0 || disk.hard.cluster == Some(cluster), || {
            format!("speaks for cluster {cluster} before that is durable")
        })?;
        let term = match &envelope.message {
            Message::RequestVote(m) => m.term,
            Message::RequestVoteReply(m) => m.term,
            Message::PreVoteReply(m) => m.term,
            Message::AppendEntries(m) => m.term,
            Message::AppendEntriesReply(m) => m.term,
            Message::Heartbeat(m) => m.term,
            Message::HeartbeatReply(m) => m.term,
            Message::Commit(m) => m.term,
            _ => Term(0),
        };
        ensure(disk.hard.term >= term, || format!("speaks of term {term} before it is durable"))?;
        let vote = match &envelope.message {
            Message::RequestVote(_) => Some(core.me().incarnation),
            Message::RequestVoteReply(m) if m.granted => Some(envelope.to.incarnation),
            _ => None,
        };
        if let Some(candidate) = vote {
            let durable = disk.hard.term > term || disk.hard.voted_for == Some(candidate);
            ensure(durable, || format!("votes in term {term} before that is durable"))?;
            let key = (core.me().incarnation, term);
            let first = *self.votes.entry(key).or_insert(candidate);
            ensure(first == candidate, || format!("votes for {first} and {candidate} in {term}"))?;
        }
        let matched = match &envelope.message {
            Message::AppendEntriesReply(m) => match m.outcome {
                AppendOutcome::Matched { index } => index,
                _ => Index(0),
            },
            Message::HeartbeatReply(m) => m.matched,
            _ => Index(0),
        };
        // A later truncation in memory takes nothing back: it is of a later term.
        let there = disk.last_index() >= matched;
        let known = self.entries.contains_key(&(
            disk.hard.cluster.unwrap_or_default(),
            matched,
            disk.term_at(matched).unwrap_or_default(),
        ));
        ensure(there && (known || matched == Index(0)), || {
            format!("acknowledges {matched}, and the disk ends at {}", disk.last_index())
        })
    }

    /// A read was asked for: all that anybody has committed by now must be seen.
    pub fn read_asked(&mut self, run: Run, id: u64) {
        let reached = self.committed.values().map(Vec::len).max().unwrap_or(0);
        self.reads.insert((run, id), Index(reached as u64));
    }

    /// A read is not older than what any node had committed when it was asked
    /// for: linearizability of reads (thesis §6.4).
    pub fn check_read(&self, run: Run, id: u64, index: Index) -> Verdict {
        let Some(&least) = self.reads.get(&(run, id)) else {
            return Err(format!("read {id} was never asked"));
        };
        ensure(index >= least, || format!("read {id} gets {index}, {least} was committed before"))
    }

    /// The end of what is committed anywhere.
    pub fn committed(&self) -> Index {
        Index(self.committed.values().map(Vec::len).max().unwrap_or(0) as u64)
    }

    /// Whether this operation was committed, and how often.
    pub fn times_committed(&self, operation: &[u8]) -> usize {
        let all = self.committed.values().flatten();
        all.filter(
            |(entry, _)| matches!(&entry.payload, Payload::Client(bytes) if bytes == operation),
        )
        .count()
    }

    /// How many terms had a leader.
    pub fn leaders(&self) -> usize {
        self.leaders.len()
    }
}

fn check_completeness(core: &Core, committed: &[(Entry, Term)], from: usize) -> Verdict {
    if core.role() != RoleName::Leader {
        return Ok(());
    }
    for (place, (entry, term)) in committed.iter().enumerate().skip(from) {
        let index = Index(place as u64 + 1);
        let there = *term >= core.term() || core.log().entry(index) == Some(entry);
        ensure(there, || {
            format!("the leader of term {} lacks {index}, committed in term {term}", core.term())
        })?;
    }
    Ok(())
}

fn check_majority_on_disk(
    core: &Core,
    index: Index,
    disks: &BTreeMap<Incarnation, Disk>,
) -> Verdict {
    let Some(members) = core.members() else { return Err("commits without members".to_string()) };
    let term = core.log().term_at(index);
    ensure(term == Some(core.term()), || format!("counts copies of {index}, of term {term:?}"))?;
    let has = |voter: Incarnation| {
        disks.get(&voter).is_some_and(|disk| {
            disk.hard.cluster == core.hard().cluster && disk.term_at(index) == term
        })
    };
    ensure(quorum::is_majority(members, has), || format!("{index} is not on a majority's disks"))
}
