//! The exploration proves itself: with a bug in it, it finds the bug, and by the
//! property that is there for it.

use super::bounds::{Bounds, Bug, all, votes};
use super::model::Cluster;
use super::past::{ACKNOWLEDGED_IS_THERE, NO_PANIC};
use super::runs::{FIGURE_8, LAGGARD};
use super::tour;
use crate::core::properties::logs::{
    COMMIT_RULE, LEADER_APPEND_ONLY, LEADER_COMPLETENESS, LOG_MATCHING, STATE_MACHINE_SAFETY,
};
use crate::core::properties::said::{DURABLE_FIRST, VOTE_ONCE};
use crate::core::properties::{
    APPLY_DURABLE, ELECTION_SAFETY, NEVER_BACK, NO_FAILURE, Property, SNAPSHOT_COMMITTED,
};

/// Each node may stand no later than this.
const ONE_TERM: &[(usize, u64)] = &[(0, 1), (1, 1)];

/// Votes of one term, and a crash.
const VOTES: Bounds = Bounds { standing: ONE_TERM, crashes: 1, arrives: votes, ..Bounds::NARROW };

/// A first election and all that comes of it.
const FIRST: Bounds = Bounds { standing: ONE_TERM, ..Bounds::NARROW };

/// A leader, an entry, and a second election.
const SUCCESSION: Bounds = Bounds { elected: Some(0), entries: 1, ..Bounds::NARROW };

/// A leader that is to be, a follower with its log, and one with another log.
const STRANGER: Bounds = Bounds {
    logs: [&[1], &[1], &[2, 2]],
    term: 2,
    standing: &[(0, 3)],
    heartbeats: 1,
    arrives: all,
    ..Bounds::NARROW
};

/// So many states are looked at before a bug counts as not found.
const PATIENCE: usize = 2_000_000;

/// What `History` finds first on the way to a bug that these bounds bring out by that
/// property.
fn finds(bug: Bug, property: &'static Property, bounds: Bounds) -> Option<&'static str> {
    let bounds = Bounds { bug, judged: Some(property), ..bounds };
    tour::find(&bug, Cluster::new(bounds), property, PATIENCE)
}

/// Both forms of the properties find it.
fn both_find(bug: Bug, property: &'static Property, bounds: Bounds) {
    let other = finds(bug, property, bounds);
    assert!(other.is_some(), "only the exploration finds {bug:?}");
}

/// Pitfall 1.
#[test]
fn a_vote_that_is_forgotten_is_found() {
    both_find(Bug::ForgetsVote, &VOTE_ONCE, VOTES);
    both_find(Bug::ForgetsVote, &ELECTION_SAFETY, VOTES);
    both_find(Bug::ForgetsVote, &NO_FAILURE, Bounds { arrives: all, ..VOTES });
}

/// Pitfall 2.
#[test]
fn a_term_that_is_forgotten_is_found() {
    // `History` looks at each run by itself, so it finds what comes of it.
    finds(Bug::ForgetsTerm, &NEVER_BACK, VOTES);
    both_find(Bug::ForgetsTerm, &VOTE_ONCE, VOTES);
}

/// Pitfalls 1 and 25.
#[test]
fn what_does_not_wait_for_the_disk_is_found() {
    let slow = Bounds { slow_writes: true, ..VOTES };
    both_find(Bug::SpeaksBeforeDurable, &DURABLE_FIRST, slow.clone());
    both_find(Bug::SpeaksBeforeDurable, &VOTE_ONCE, slow);
}

/// A write that is told to be done when it only begins, and a crash.
#[test]
fn a_disk_that_lies_is_found() {
    let slow = Bounds { slow_writes: true, crashes: 1, standing: &[], ..SUCCESSION };
    both_find(Bug::DiskLies, &COMMIT_RULE, slow.clone());
    both_find(Bug::DiskLies, &APPLY_DURABLE, slow);
}

/// Pitfalls 6 and 24.
#[test]
fn refusals_that_count_are_found() {
    let bounds = Bounds { crashes: 0, ..VOTES };
    both_find(Bug::CountsRefusals, &ELECTION_SAFETY, bounds);
}

/// Raft §5.4.1.
#[test]
fn a_vote_for_an_older_log_is_found() {
    both_find(Bug::IgnoresOlderLog, &LEADER_COMPLETENESS, SUCCESSION);
    both_find(Bug::IgnoresOlderLog, &STATE_MACHINE_SAFETY, SUCCESSION);
}

/// Pitfall 16: Raft Figure 8.
#[test]
fn an_older_terms_entry_that_is_counted_is_found() {
    both_find(Bug::CommitsOlderTerm, &COMMIT_RULE, FIGURE_8);
    both_find(Bug::CommitsOlderTerm, &LEADER_COMPLETENESS, FIGURE_8);
    both_find(Bug::CommitsOlderTerm, &STATE_MACHINE_SAFETY, FIGURE_8);
}

/// Pitfall 17.
#[test]
fn a_cut_without_a_conflict_is_found() {
    let late = Bounds { entries: 2, ..SUCCESSION };
    both_find(Bug::CutsWithoutConflict, &COMMIT_RULE, late);
}

/// Pitfalls 19 and 20.
#[test]
fn an_unbounded_commit_index_is_found() {
    both_find(Bug::CommitsUnverified, &STATE_MACHINE_SAFETY, STRANGER);
    // The core's own assert finds that it is about to cut what is committed.
    both_find(Bug::CommitsUnverified, &NO_FAILURE, STRANGER);
}

#[test]
fn an_acknowledgement_of_what_was_not_verified_is_found() {
    finds(Bug::AcknowledgesUnverified, &ACKNOWLEDGED_IS_THERE, STRANGER);
    both_find(Bug::AcknowledgesUnverified, &COMMIT_RULE, STRANGER);
}

/// Raft §5.3: the entry before the new ones must be there.
#[test]
fn entries_behind_a_gap_are_found() {
    both_find(Bug::SkipsConsistencyCheck, &LOG_MATCHING, FIGURE_8);
}

#[test]
fn a_leader_that_rewrites_its_log_is_found() {
    both_find(Bug::LeaderRewrites, &LEADER_APPEND_ONLY, FIRST);
}

/// A leader that forgets whom it voted for is caught by the core itself.
#[test]
fn an_assert_that_fails_is_found() {
    finds(Bug::LosesOwnVote, &NO_PANIC, FIRST);
}

/// Pitfall 5: c has nothing but a snapshot, and b never got what stands in it.
#[test]
fn a_vote_as_if_a_snapshot_stood_for_nothing_is_found() {
    let bounds = Bounds { standing: &[(0, 3), (1, 4)], ..LAGGARD };
    both_find(Bug::ForgetsSnapshotInVote, &LEADER_COMPLETENESS, bounds);
}

/// Pitfall 32.
#[test]
fn an_older_snapshot_in_place_of_what_is_committed_is_found() {
    let bounds = Bounds { entries: 1, given_up: 1, ..LAGGARD };
    both_find(Bug::InstallsOlder, &NEVER_BACK, bounds);
}

/// Pitfall 33. The tail is of an older term, which the log itself does not take.
#[test]
fn a_tail_that_is_kept_behind_a_snapshot_is_found() {
    finds(Bug::KeepsTail, &NO_PANIC, LAGGARD);
}

/// Pitfall 37: what is acknowledged is not on the disk yet.
#[test]
fn an_install_that_counts_before_it_is_durable_is_found() {
    let slow = Bounds { slow_writes: true, ..LAGGARD };
    both_find(Bug::CountsInstallBeforeDurable, &APPLY_DURABLE, slow.clone());
    finds(Bug::CountsInstallBeforeDurable, &ACKNOWLEDGED_IS_THERE, slow.clone());
    let short = Bounds { logs: [&[1], &[1], &[]], ..slow };
    both_find(Bug::CountsInstallBeforeDurable, &DURABLE_FIRST, short);
}

/// Pitfall 38.
#[test]
fn a_snapshot_that_lacks_a_member_is_found() {
    both_find(Bug::ForgetsMember, &SNAPSHOT_COMMITTED, LAGGARD);
}
