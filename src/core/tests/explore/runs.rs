//! The runs: how far each goes, from where, and what must come to pass on its way.
//!
//! Those of every test run take a second or two each; those behind `--ignored` take
//! minutes, with `cargo test --release --lib explore -- --ignored --nocapture`.

use super::bounds::{Bounds, all, all_but_heartbeats, figure_8, votes};
use super::explore;
use super::model::{COMMITTED, CRASHED, CUT, ELECTED, INSTALLED, REFUSED, SURVIVED, TWO_LEAD};
use super::step::Packet;
use crate::core::message::Message;

const TWO_IN_ONE_TERM: &[(usize, u64)] = &[(0, 1), (1, 1)];
const ALL_IN_ONE_TERM: &[(usize, u64)] = &[(0, 1), (1, 1), (2, 1)];
const ALL_IN_TWO_TERMS: &[(usize, u64)] = &[(0, 2), (1, 2), (2, 2)];

/// Votes alone, with a crash.
const VOTES: Bounds = Bounds { crashes: 1, arrives: votes, ..Bounds::NARROW };

/// A leader of term 1 that all follow, an entry, and another election.
const SUCCESSION: Bounds = Bounds { elected: Some(0), entries: 1, ..Bounds::NARROW };

/// The middle of Raft Figure 8 with three nodes: a holds an entry of term 1 that
/// nobody else has, c one of term 2. First a may stand, then c. One entry an append,
/// so that a's old entry arrives without the new one behind it.
pub const FIGURE_8: Bounds = Bounds {
    name: "Figure 8",
    logs: [&[1], &[], &[2]],
    term: 2,
    standing: &[(0, 3), (2, 4)],
    arrives: figure_8,
    append_bytes: 1,
    ..Bounds::NARROW
};

/// A leader that is to be, a follower with its log, and one whose log is another's from
/// entry 2 on: what they commit and compact reaches it as a snapshot.
pub const LAGGARD: Bounds = Bounds {
    name: "laggard",
    logs: [&[1], &[1], &[2, 2, 2]],
    term: 2,
    standing: &[(0, 3)],
    compactions: 1,
    ..Bounds::NARROW
};

#[test]
fn votes_of_one_term() {
    let name = "votes: 3 candidates, 1 term, 1 crash, slow disks";
    let bounds = Bounds { name, standing: ALL_IN_ONE_TERM, slow_writes: true, ..VOTES };
    explore(bounds, &[ELECTED, CRASHED, REFUSED]);
}

#[test]
fn pre_votes_of_one_term() {
    let name = "pre-votes: 2 candidates, 1 term, promises to leaders";
    let bounds = Bounds { pre_votes: true, promises: true, crashes: 0, ..VOTES };
    explore(Bounds { name, standing: TWO_IN_ONE_TERM, ..bounds }, &[ELECTED, REFUSED]);
}

#[test]
fn a_first_election() {
    let name = "first election: 2 candidates, 1 term, with the leader's first entry";
    let bounds = Bounds { name, standing: TWO_IN_ONE_TERM, ..Bounds::NARROW };
    explore(bounds, &[ELECTED, REFUSED]);
}

#[test]
fn an_entry_and_a_crash() {
    let name = "replication: 1 term, 1 entry, 1 crash, slow disks";
    let bounds = Bounds { name, slow_writes: true, crashes: 1, standing: &[], ..SUCCESSION };
    explore(bounds, &[ELECTED, COMMITTED, CRASHED]);
}

#[test]
fn an_entry_and_a_second_election() {
    let name = "succession: 2 terms, 1 entry";
    let bounds = Bounds { name, ..SUCCESSION };
    explore(bounds, &[ELECTED, TWO_LEAD, COMMITTED, CUT, REFUSED]);
}

#[test]
fn a_leader_that_crashes_is_succeeded() {
    let name = "succession: 2 terms, 1 entry, 1 crash, late answers swept";
    let bounds = Bounds { name, crashes: 1, sweeps: true, ..SUCCESSION };
    explore(bounds, &[ELECTED, TWO_LEAD, COMMITTED, CUT, CRASHED, SURVIVED]);
}

#[test]
fn the_two_leaders_of_figure_8() {
    let name = "Figure 8: terms 3 and 4 over logs of terms 1 and 2, late answers swept";
    explore(Bounds { name, sweeps: true, ..FIGURE_8 }, &[ELECTED, TWO_LEAD, CUT, REFUSED]);
}

#[test]
fn a_snapshot_in_place_of_another_log() {
    let name = "snapshots: 1 term, 1 compaction";
    explore(Bounds { name, ..LAGGARD }, &[ELECTED, INSTALLED]);
}

#[test]
fn a_snapshot_and_a_crash() {
    let name = "snapshots: 1 term, 1 compaction, 1 crash, slow disks, late answers swept";
    let bounds = Bounds { name, crashes: 1, slow_writes: true, sweeps: true, ..LAGGARD };
    explore(bounds, &[ELECTED, INSTALLED, CRASHED]);
}

#[test]
fn a_snapshot_and_a_second_election() {
    let name = "snapshots: 2 terms, 1 compaction, late answers swept";
    let bounds = Bounds { name, standing: &[(0, 3), (1, 4)], sweeps: true, ..LAGGARD };
    explore(bounds, &[ELECTED, TWO_LEAD, INSTALLED]);
}

#[test]
#[ignore = "minutes, in release"]
fn large_votes_of_two_terms() {
    let name = "votes: 3 candidates, 2 terms, 1 crash, slow disks, late answers swept";
    let bounds = Bounds { name, standing: ALL_IN_TWO_TERMS, slow_writes: true, ..VOTES };
    explore(Bounds { sweeps: true, ..bounds }, &[ELECTED, TWO_LEAD, CRASHED, REFUSED]);
}

#[test]
#[ignore = "minutes, in release"]
fn large_votes_of_two_terms_unswept() {
    let name = "votes: 2 candidates, 2 terms, 1 crash, slow disks";
    explore(Bounds { name, slow_writes: true, ..VOTES }, &[ELECTED, TWO_LEAD, CRASHED, REFUSED]);
}

#[test]
#[ignore = "minutes, in release"]
fn large_votes_and_two_crashes() {
    let name = "votes: 3 candidates, 2 terms, 2 crashes, late answers swept";
    let bounds = Bounds { name, standing: ALL_IN_TWO_TERMS, crashes: 2, sweeps: true, ..VOTES };
    explore(bounds, &[ELECTED, TWO_LEAD, CRASHED, REFUSED]);
}

#[test]
#[ignore = "minutes, in release"]
fn large_pre_votes_under_a_leader() {
    let name = "pre-votes: 2 candidates under a leader that may step down, promises to \
                leaders, late answers swept";
    let bounds = Bounds { pre_votes: true, promises: true, steps_down: true, ..SUCCESSION };
    let bounds = Bounds { name, entries: 0, standing: &[(1, 2), (2, 2)], ..bounds };
    explore(Bounds { sweeps: true, arrives: votes, ..bounds }, &[ELECTED, TWO_LEAD]);
}

#[test]
#[ignore = "minutes, in release"]
fn large_two_elections() {
    let name = "elections: 2 candidates, 2 terms, with the leaders' first entries, \
                late answers swept";
    let bounds = Bounds { name, sweeps: true, ..Bounds::NARROW };
    explore(bounds, &[ELECTED, TWO_LEAD, CUT, REFUSED]);
}

#[test]
#[ignore = "minutes, in release"]
fn large_succession_with_a_crash() {
    let name = "succession: 2 terms, 1 entry, 1 crash";
    let bounds = Bounds { name, crashes: 1, ..SUCCESSION };
    explore(bounds, &[ELECTED, TWO_LEAD, COMMITTED, CUT, CRASHED, SURVIVED, REFUSED]);
}

#[test]
#[ignore = "minutes, in release"]
fn large_succession_with_a_crash_and_slow_disks() {
    let name = "succession: 2 terms, 1 entry, 1 crash, slow disks, late answers swept";
    let bounds = Bounds { crashes: 1, slow_writes: true, sweeps: true, ..SUCCESSION };
    let bounds = Bounds { name, standing: &[(1, 2)], ..bounds };
    explore(bounds, &[ELECTED, TWO_LEAD, COMMITTED, CUT, CRASHED, SURVIVED]);
}

#[test]
#[ignore = "minutes, in release"]
fn large_succession_with_two_entries() {
    let name = "succession: 2 terms, 2 entries, late answers swept";
    let bounds = Bounds { name, entries: 2, sweeps: true, ..SUCCESSION };
    explore(bounds, &[ELECTED, TWO_LEAD, COMMITTED, CUT]);
}

#[test]
#[ignore = "minutes, in release"]
fn large_heartbeats_and_what_is_given_up() {
    let name = "replication: 1 term, 1 entry, heartbeats, given-up appends, at most 9 messages";
    let bounds = Bounds { name, standing: &[], heartbeats: 1, given_up: 1, ..SUCCESSION };
    explore(Bounds { newest_seq: 9, arrives: all, ..bounds }, &[ELECTED, COMMITTED]);
}

#[test]
#[ignore = "minutes, in release"]
fn large_figure_8() {
    let name = "Figure 8: terms 3 and 4 over logs of terms 1 and 2, 1 crash";
    let bounds = Bounds { name, crashes: 1, ..FIGURE_8 };
    explore(bounds, &[ELECTED, TWO_LEAD, CUT, CRASHED, REFUSED]);
}

#[test]
#[ignore = "minutes, in release"]
fn large_figure_8_among_three() {
    let name = "Figure 8: terms 3 and 4, all three at once but for appends of a to c, \
                late answers swept";
    let arrives = |packet: &Packet| {
        let append = matches!(packet.envelope.message, Message::AppendEntries(_));
        all_but_heartbeats(packet) && !(append && (packet.from, packet.to) == (0, 2))
    };
    let bounds = Bounds { name, arrives, sweeps: true, ..FIGURE_8 };
    explore(bounds, &[ELECTED, TWO_LEAD, CUT, REFUSED]);
}

#[test]
#[ignore = "minutes, in release"]
fn large_figure_8_with_an_entry_and_slow_disks() {
    let name = "Figure 8: terms 3 and 4, 1 entry, slow disks, late answers swept";
    let bounds = Bounds { name, entries: 1, slow_writes: true, sweeps: true, ..FIGURE_8 };
    explore(bounds, &[ELECTED, TWO_LEAD, CUT, COMMITTED, REFUSED]);
}

#[test]
#[ignore = "minutes, in release"]
fn large_snapshots_and_a_second_election() {
    let name = "snapshots: 2 terms, 1 compaction";
    let bounds = Bounds { name, standing: &[(0, 3), (1, 4)], ..LAGGARD };
    explore(bounds, &[ELECTED, TWO_LEAD, INSTALLED]);
}

#[test]
#[ignore = "minutes, in release"]
fn large_snapshots_of_two_leaders() {
    let name = "snapshots: 2 terms, 2 compactions, late answers swept";
    let bounds = Bounds { name, standing: &[(0, 3), (1, 4)], compactions: 2, ..LAGGARD };
    explore(Bounds { sweeps: true, ..bounds }, &[ELECTED, TWO_LEAD, INSTALLED]);
}

#[test]
#[ignore = "minutes, in release"]
fn large_snapshots_then_the_one_that_lagged_leads() {
    let name = "snapshots: 2 terms, 1 compaction, 1 crash, late answers swept";
    let bounds = Bounds { name, standing: &[(0, 3), (2, 4)], crashes: 1, ..LAGGARD };
    explore(Bounds { sweeps: true, ..bounds }, &[ELECTED, TWO_LEAD, INSTALLED, CRASHED]);
}

#[test]
#[ignore = "minutes, in release"]
fn large_snapshots_with_an_entry_a_crash_and_slow_disks() {
    let name = "snapshots: 1 term, 1 entry, 2 compactions, 1 crash, slow disks, late answers swept";
    let bounds = Bounds { name, entries: 1, compactions: 2, crashes: 1, ..LAGGARD };
    let bounds = Bounds { slow_writes: true, sweeps: true, ..bounds };
    explore(bounds, &[ELECTED, COMMITTED, INSTALLED, CRASHED]);
}
