//! What the paper promises of logs and of what is committed.

use std::collections::BTreeMap;

use super::super::effect::RoleName;
use super::super::quorum;
use super::super::state::Role;
#[cfg(test)]
use super::super::types::ClusterId;
use super::super::types::{Entry, Incarnation, Index, Term};
use super::super::{Core, log::Log};
use super::{Disk, ELECTION_SAFETY, History, Property, Verdict, broken, ensure};

/// A leader never overwrites or deletes entries of its log.
pub const LEADER_APPEND_ONLY: Property =
    Property { name: "Leader Append-Only", source: "Raft Figure 3, §5.3" };

/// Entries of one index and term are the same, and so is all that precedes them.
pub const LOG_MATCHING: Property =
    Property { name: "Log Matching", source: "Raft Figure 3, §5.3" };

/// Committed entries are in the logs of the leaders of all later terms.
pub const LEADER_COMPLETENESS: Property =
    Property { name: "Leader Completeness", source: "Raft Figure 3, §5.4" };

/// No two nodes commit different entries at an index.
pub const STATE_MACHINE_SAFETY: Property =
    Property { name: "State Machine Safety", source: "Raft Figure 3, §5.4.3" };

/// A leader commits what a majority of the voters has on disk and whose last entry
/// is of its own term: no less, no more.
pub const COMMIT_RULE: Property =
    Property { name: "Commit Rule", source: "Raft §5.3, §5.4.2, Figure 8" };

impl History {
    /// Leader Append-Only and Log Matching. Without `thorough` a log is compared
    /// from its end down to where it is as it was.
    pub(super) fn check_log(&mut self, core: &Core, thorough: bool) -> Verdict {
        let before = self.mirrors.get(&core.me());
        let was: &[Term] = before.map_or(&[], |mirror| &mirror.terms);
        let same = same_prefix(was, core.log(), thorough);
        if let Some(before) = before.filter(|mirror| mirror.role == RoleName::Leader) {
            let leads = core.role() == RoleName::Leader && core.term() == before.hard.term;
            ensure(&LEADER_APPEND_ONLY, !leads || same == was.len(), || {
                format!("a leader changed its entry {}", same + 1)
            })?;
        }
        let Some(cluster) = core.hard().cluster else { return Ok(()) };
        let from = if thorough { 0 } else { same as u64 };
        for (index, entry) in core.log().from(Index(from + 1)) {
            let prev_term = core.log().term_at(index.previous()).unwrap_or_default();
            let key = (cluster, index, entry.term);
            let Some((prev, payload)) = self.entries.get(&key) else {
                self.entries.insert(key, (prev_term, entry.payload.clone()));
                continue;
            };
            ensure(&LOG_MATCHING, *prev == prev_term && *payload == entry.payload, || {
                format!(
                    "two entries {index} of term {}: {payload:?} after {prev}, {:?} after {prev_term}",
                    entry.term, entry.payload
                )
            })?;
        }
        Ok(())
    }

    /// State Machine Safety, Leader Completeness and the Commit Rule's lower side.
    /// One cluster at most commits anything beyond its founding record.
    pub(super) fn check_commits<'a>(
        &mut self,
        core: &Core,
        disks: &BTreeMap<Incarnation, Disk>,
        others: impl Iterator<Item = &'a Core>,
    ) -> Verdict {
        let Some(cluster) = core.hard().cluster else { return Ok(()) };
        let before = self.mirrors.get(&core.me());
        let was = before.map_or(Index(0), |mirror| mirror.commit_index);
        let commit_index = core.commit_index();
        // Who led when it was last looked at may have committed, and then stepped down.
        let led = before.filter(|mirror| mirror.role == RoleName::Leader);
        let leads = core.role() == RoleName::Leader;
        let term = led.filter(|_| !leads).map_or(core.term(), |mirror| mirror.hard.term);
        let committed = self.committed.entry(cluster).or_default();
        let known = committed.len();
        let new = core.log().from(was.next()).take_while(|(index, _)| *index <= commit_index);
        for (index, entry) in new {
            match committed.get(index.0 as usize - 1) {
                Some((first, _)) => ensure(&STATE_MACHINE_SAFETY, first == entry, || {
                    format!("{first:?} and {entry:?} are committed at {index}")
                })?,
                None => committed.push((entry.clone(), term)),
            }
        }
        if committed.len() > known {
            ensure(&COMMIT_RULE, leads || led.is_some(), || {
                format!("a follower commits {commit_index} before any leader")
            })?;
            check_majority_on_disk(core, term, commit_index, disks)?;
            for other in others.filter(|other| other.hard().cluster == Some(cluster)) {
                check_completeness(other, committed, known)?;
            }
        }
        if before.is_none_or(|mirror| mirror.role != RoleName::Leader) {
            check_completeness(core, committed, 0)?;
        }
        let beyond = self.committed.values().filter(|committed| committed.len() > 1).count();
        ensure(&ELECTION_SAFETY, beyond <= 1, || "two clusters have committed entries".to_string())
    }

    /// Pitfall 26: the commit rule and counting by hand agree: the greatest index of
    /// the own term that a majority of the voters has.
    pub(super) fn check_commit_rule(&mut self, core: &Core) -> Verdict {
        let (Role::Leader(leader), Some(members)) = (&core.role, core.members()) else {
            return Ok(());
        };
        let has = |voter: Incarnation, index: Index| match leader.progress.get(&voter) {
            _ if voter == core.me().incarnation => core.durability.durable() >= index,
            Some(progress) => progress.match_index() >= index,
            None => false,
        };
        let voters: Vec<_> = members.voters().collect();
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
        ensure(&COMMIT_RULE, naive == core.commit_index(), || {
            format!("counting commits {naive}, the rule {}", core.commit_index())
        })
    }

    /// What is committed in the cluster that has committed most, by index from 1 on.
    pub fn committed_entries(&self) -> &[(Entry, Term)] {
        self.committed.values().max_by_key(|committed| committed.len()).map_or(&[], |all| all)
    }

    /// What is committed in that cluster, by index from 1 on.
    #[cfg(test)]
    pub fn committed_in(&self, cluster: ClusterId) -> &[(Entry, Term)] {
        self.committed.get(&cluster).map_or(&[], |all| all)
    }
}

/// How much of a log is as it was.
pub(super) fn same_prefix(was: &[Term], log: &Log, thorough: bool) -> usize {
    let base = log.base_index().0 as usize;
    // Where a snapshot took the log's place, nothing is as it was.
    if was.len() < base || base > 0 && was[base - 1] != log.base_term() {
        return 0;
    }
    if thorough {
        let equal = was[base..].iter().zip(log.from(Index(1)));
        return base + equal.take_while(|(term, (_, entry))| **term == entry.term).count();
    }
    let mut same = was.len().min(log.last_index().0 as usize);
    while same > base && log.term_at(Index(same as u64)) != Some(was[same - 1]) {
        same -= 1;
    }
    same
}

fn check_completeness(core: &Core, committed: &[(Entry, Term)], from: usize) -> Verdict {
    if core.role() != RoleName::Leader {
        return Ok(());
    }
    for (place, (entry, term)) in committed.iter().enumerate().skip(from) {
        let index = Index(place as u64 + 1);
        let covered = index <= core.log().base_index();
        let there = covered || *term >= core.term() || core.log().entry(index) == Some(entry);
        ensure(&LEADER_COMPLETENESS, there, || {
            format!("the leader of term {} lacks {index}, committed in term {term}", core.term())
        })?;
    }
    Ok(())
}

fn check_majority_on_disk(
    core: &Core,
    term: Term,
    index: Index,
    disks: &BTreeMap<Incarnation, Disk>,
) -> Verdict {
    let Some(members) = core.members() else {
        return broken(&COMMIT_RULE, "commits without members".to_string());
    };
    let of = core.log().term_at(index);
    ensure(&COMMIT_RULE, of == Some(term), || {
        format!("counts copies of {index}, of term {of:?}, in term {term}")
    })?;
    let has = |voter: Incarnation| {
        disks.get(&voter).is_some_and(|disk| {
            disk.hard.cluster == core.hard().cluster && of.is_some_and(|of| disk.has(index, of))
        })
    };
    // Others may have come into force in the same step, after the commit and by it.
    let before = core.configurations.before_current();
    let before = before.filter(|_| core.configurations.current_index() > index);
    let by_those_before = || before.is_some_and(|members| quorum::is_majority(members, has));
    ensure(&COMMIT_RULE, quorum::is_majority(members, has) || by_those_before(), || {
        format!("{index} is not on a majority's disks")
    })
}
