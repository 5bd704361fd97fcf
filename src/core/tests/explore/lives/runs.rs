//! The runs: how far each goes, from where, and what must come to pass on its way.
//!
//! Of b and c it makes no difference which loses its memory, where nothing else tells them
//! apart: the founder is the first by name. Those of every test run take a second or two
//! each; those behind `--ignored` minutes, with
//! `cargo test --release --lib explore -- --ignored --nocapture`.

use super::bounds::{Bounds, Start, commits, entries, founding, votes};
use super::explore;
use super::sometimes::{
    ADMITTED, BELIEVED_THE_DEAD, COMMITTED, ELECTED, FOUNDED, LEADS_AGAIN, NEEDED, REFOUNDED,
    SURVIVES, TWO_LEAD, TWO_RECORDS, VOTES_AGAIN,
};

/// From the start of all to a founding. What b and c say to each other does nothing for it.
const FOUNDING: Bounds = Bounds { arrives: founding, ..Bounds::FOUNDING };

/// From the start of all to an election.
const ELECTION: Bounds = Bounds { arrives: votes, losing: &[0], ..Bounds::FOUNDING };

/// From the start of all to the admission of who forgot.
const ALL_THE_WAY: Bounds = Bounds {
    arrives: entries,
    standing: &[(0, 1)],
    losing: &[2],
    sweeps: true,
    ..Bounds::FOUNDING
};

/// a leads and has committed an entry; c forgets, and a finds it again.
const REPLACEMENT: Bounds = Bounds {
    start: Start::Led,
    asks: [[0, 0, 2], [0, 0, 0], [1, 0, 0]],
    losing: &[2],
    arrives: entries,
    ..Bounds::FOUNDING
};

/// c finds b as well, and b it, who may stand.
const SECOND_ELECTION: Bounds =
    Bounds { asks: [[0, 0, 2], [0, 0, 1], [1, 1, 0]], standing: &[(1, 2)], ..REPLACEMENT };

/// a forgets while it leads, and b succeeds it.
const SUCCESSION: Bounds = Bounds {
    asks: [[0, 0, 0], [2, 0, 0], [1, 1, 0]],
    standing: &[(1, 2)],
    losing: &[0],
    ..REPLACEMENT
};

const TWO_VOTERS: Bounds = Bounds {
    voters: 2,
    asks: [[0, 2, 0], [2, 0, 0], [0, 0, 0]],
    standing: &[(0, 1), (1, 1)],
    entries: 1,
    losing: &[0, 1],
    arrives: entries,
    ..Bounds::FOUNDING
};

#[test]
fn a_founding() {
    let name = "founding: 3 voters, none forgets";
    let bounds = Bounds { name, losses: 0, asks: [[0, 3, 3], [1, 0, 1], [1, 1, 0]], ..FOUNDING };
    explore(bounds, &[FOUNDED]);
}

#[test]
fn a_founding_and_one_forgets() {
    let name = "founding: 3 voters, any of them forgets";
    let asks = [[0, 2, 2], [1, 0, 1], [1, 1, 0]];
    let bounds = Bounds { name, losing: &[0, 1, 2], asks, ..FOUNDING };
    explore(bounds, &[FOUNDED, REFOUNDED, TWO_RECORDS, BELIEVED_THE_DEAD]);
}

#[test]
fn a_founding_and_two_forget() {
    let name = "founding: 3 voters, the founder and another forget, or one of them twice";
    let bounds = Bounds { name, losses: 2, losing: &[0, 2], ..FOUNDING };
    explore(bounds, &[FOUNDED, REFOUNDED, TWO_RECORDS, BELIEVED_THE_DEAD]);
}

#[test]
fn a_first_election_of_the_founder() {
    let name = "first election: the founder stands, and forgets";
    let bounds = Bounds { name, standing: &[(0, 1)], ..ELECTION };
    explore(bounds, &[FOUNDED, REFOUNDED, TWO_RECORDS, ELECTED, LEADS_AGAIN]);
}

#[test]
fn a_first_election_without_the_founder() {
    let name = "first election: another stands, the founder forgets";
    let asks = [[0, 2, 2], [1, 0, 0], [1, 1, 0]];
    let bounds = Bounds { name, standing: &[(2, 1)], asks, ..ELECTION };
    explore(bounds, &[FOUNDED, REFOUNDED, TWO_RECORDS, ELECTED, VOTES_AGAIN]);
}

#[test]
fn from_the_start_to_the_admission_of_who_forgot() {
    let name = "all the way: founding, the founder's election, c forgets; late answers swept";
    let bounds = Bounds { name, ..ALL_THE_WAY };
    explore(bounds, &[FOUNDED, REFOUNDED, ELECTED, ADMITTED, NEEDED, VOTES_AGAIN]);
}

#[test]
fn who_forgot_is_replaced_while_another_stands() {
    let name = "replacement: c forgets, b may stand";
    let bounds = Bounds { name, standing: &[(1, 2)], ..REPLACEMENT };
    explore(bounds, &[ELECTED, COMMITTED, TWO_LEAD, ADMITTED, NEEDED]);
}

#[test]
fn who_forgot_takes_part_in_the_next_election() {
    let name = "replacement: c forgets, b may stand and ask for its vote; late answers swept";
    let bounds = Bounds { name, sweeps: true, ..SECOND_ELECTION };
    explore(bounds, &[COMMITTED, TWO_LEAD, ADMITTED, NEEDED, VOTES_AGAIN, SURVIVES]);
}

#[test]
fn a_leader_that_forgets_is_replaced_by_its_successor() {
    let name = "succession: the leader forgets, b and c may stand; late answers swept";
    let standing = &[(1, 2), (2, 2)];
    let bounds = Bounds { name, standing, sweeps: true, ..SUCCESSION };
    explore(bounds, &[COMMITTED, TWO_LEAD, ADMITTED]);
}

#[test]
fn two_voters_all_the_way() {
    let name = "two voters: founding, elections, 1 entry, either forgets; late answers swept";
    let bounds = Bounds { name, sweeps: true, ..TWO_VOTERS };
    explore(bounds, &[FOUNDED, REFOUNDED, ELECTED, COMMITTED, ADMITTED, LEADS_AGAIN, VOTES_AGAIN]);
}

#[test]
#[ignore = "minutes, in release"]
fn large_founding() {
    let name = "founding: 3 voters, none forgets, b and c ask a twice";
    let bounds = Bounds { name, losses: 0, asks: [[0, 3, 3], [2, 0, 1], [2, 1, 0]], ..FOUNDING };
    explore(bounds, &[FOUNDED]);
}

#[test]
#[ignore = "minutes, in release"]
fn large_founding_and_one_forgets() {
    let name = "founding: 3 voters, any of them forgets, each asked once more";
    let asks = [[0, 3, 3], [1, 0, 1], [1, 1, 0]];
    let bounds = Bounds { name, losing: &[0, 1, 2], asks, ..FOUNDING };
    explore(bounds, &[FOUNDED, REFOUNDED, TWO_RECORDS, BELIEVED_THE_DEAD]);
}

#[test]
#[ignore = "minutes, in release"]
fn large_first_election() {
    let name = "first election: the founder and another stand, the founder forgets";
    let asks = [[0, 2, 2], [1, 0, 0], [1, 1, 0]];
    let bounds = Bounds { name, standing: &[(0, 1), (2, 1)], asks, ..ELECTION };
    explore(bounds, &[FOUNDED, REFOUNDED, TWO_RECORDS, ELECTED, VOTES_AGAIN, LEADS_AGAIN]);
}

#[test]
#[ignore = "minutes, in release"]
fn large_all_the_way() {
    let name = "all the way: founding, the founder's election, c forgets";
    let bounds = Bounds { name, sweeps: false, ..ALL_THE_WAY };
    explore(bounds, &[FOUNDED, REFOUNDED, ELECTED, ADMITTED, NEEDED, VOTES_AGAIN]);
}

#[test]
#[ignore = "minutes, in release"]
fn large_second_election() {
    let name = "replacement: c forgets, b may stand and ask for its vote";
    explore(
        Bounds { name, ..SECOND_ELECTION },
        &[COMMITTED, TWO_LEAD, ADMITTED, NEEDED, VOTES_AGAIN, SURVIVES],
    );
}

#[test]
#[ignore = "minutes, in release"]
fn large_second_election_with_an_entry() {
    let name = "replacement: c forgets, b may stand and ask for its vote, 1 entry more; \
                late answers swept";
    let bounds = Bounds { name, entries: 1, sweeps: true, ..SECOND_ELECTION };
    explore(bounds, &[COMMITTED, TWO_LEAD, ADMITTED, NEEDED, VOTES_AGAIN, SURVIVES]);
}

#[test]
#[ignore = "minutes, in release"]
fn large_replacement_with_an_entry_and_commits() {
    let name = "replacement: c forgets, 1 entry more, commits are told; late answers swept";
    let bounds = Bounds { name, entries: 1, sweeps: true, arrives: commits, ..REPLACEMENT };
    explore(bounds, &[COMMITTED, ADMITTED, NEEDED]);
}

#[test]
#[ignore = "minutes, in release"]
fn large_two_losses_of_one() {
    let name = "replacement: c forgets twice, b may stand; late answers swept";
    let asks = [[0, 0, 3], [0, 0, 0], [1, 0, 0]];
    let bounds = Bounds { name, losses: 2, asks, sweeps: true, ..REPLACEMENT };
    explore(Bounds { standing: &[(1, 2)], ..bounds }, &[COMMITTED, TWO_LEAD, ADMITTED, NEEDED]);
}

#[test]
#[ignore = "minutes, in release"]
fn large_succession_with_an_entry() {
    let name = "succession: the leader forgets, b may stand, 1 entry more; late answers swept";
    let bounds = Bounds { name, entries: 1, sweeps: true, ..SUCCESSION };
    explore(bounds, &[COMMITTED, TWO_LEAD, ADMITTED]);
}

#[test]
#[ignore = "minutes, in release"]
fn large_two_voters() {
    let name = "two voters: founding, elections, 1 entry, either forgets";
    explore(
        Bounds { name, ..TWO_VOTERS },
        &[FOUNDED, REFOUNDED, ELECTED, COMMITTED, ADMITTED, LEADS_AGAIN, VOTES_AGAIN],
    );
}
