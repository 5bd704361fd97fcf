//! Who is elected, and who is not: claim by claim.

use super::super::effect::RoleName;
use super::super::message::{
    AppendEntriesReply, AppendOutcome, Heartbeat, HeartbeatReply, Message, PreVote, PreVoteReply,
    RequestVote, RequestVoteReply,
};
use super::super::state::Role;
use super::super::types::{Index, Term, Time};
use super::world::{Faults, Flight, MS, Plan, World};

fn acquainted(logs: &[&[u64]], term: u64) -> World {
    World::with_logs(Plan::voters(logs.len()), logs, term)
}

fn request(term: u64, last: (u64, u64)) -> Message {
    Message::RequestVote(RequestVote {
        term: Term(term),
        last_log_index: Index(last.0),
        last_log_term: Term(last.1),
        handed_over: false,
    })
}

fn is_vote(flight: &Flight) -> bool {
    matches!(flight.envelope.message, Message::RequestVoteReply(_))
}

/// The votes that are under way: who gives it, to whom.
fn votes(world: &World) -> Vec<(usize, usize)> {
    let given = world.flights.values().filter(|flight| {
        matches!(&flight.envelope.message, Message::RequestVoteReply(reply) if reply.granted)
    });
    given.map(|flight| (flight.from, flight.to)).collect()
}

/// Pitfalls 1, 2: a crash before, during and after the write of term and vote,
/// then a second candidate: never two votes in one term. The write has both, so
/// the disk holds the old pair or the new one.
#[test]
fn a_vote_is_given_when_term_and_vote_are_durable() {
    for written in [false, true] {
        let mut world = acquainted(&[&[1], &[1], &[1]], 1);
        world.nodes[2].holds_writes = true;
        world.forge(0, 2, request(2, (2, 1))).unwrap();
        assert_eq!(votes(&world), [], "the vote is not durable");
        if written {
            world.write_reaches_disk(2);
        }
        world.crash(2);
        let hard = world.disks[&world.nodes[2].incarnation].hard.clone();
        let candidate = world.core(0).me().incarnation;
        let pairs = [(Term(1), None), (Term(2), Some(candidate))];
        assert_eq!((hard.term, hard.voted_for), pairs[usize::from(written)]);
        world.nodes[2].holds_writes = false;
        world.start(2);
        world.run_for(10 * MS);
        world.flights.clear();
        world.forge(1, 2, request(2, (2, 1))).unwrap();
        let expected: &[(usize, usize)] = if written { &[] } else { &[(2, 1)] };
        assert_eq!(votes(&world), expected);
    }
}

/// Pitfall 3: a refusal does not use up the vote, and none is given for an older
/// term.
#[test]
fn a_refusal_leaves_the_vote_free() {
    let mut world = acquainted(&[&[1], &[1, 1], &[1, 1]], 1);
    world.forge(0, 2, request(2, (2, 1))).unwrap();
    assert_eq!(votes(&world), [], "the log of a is shorter");
    world.forge(1, 2, request(1, (3, 1))).unwrap();
    assert_eq!(votes(&world), [], "an older term");
    world.forge(1, 2, request(2, (3, 1))).unwrap();
    assert_eq!(votes(&world), [(2, 1)]);
}

/// Pitfall 4: a short log with a newer last term beats a long old one.
#[test]
fn the_newer_last_term_wins_over_the_longer_log() {
    let mut world = acquainted(&[&[1, 1, 1, 1, 1], &[1, 2], &[1]], 2);
    world.forge(0, 1, request(3, (6, 1))).unwrap();
    assert_eq!(votes(&world), []);
    world.forge(1, 0, request(3, (3, 2))).unwrap();
    assert_eq!(votes(&world), [(0, 1)]);
}

/// Pitfall 5: what counts is the last entry, committed or not, written or not.
#[test]
fn the_last_entry_counts_whether_or_not_it_is_committed() {
    let mut world = acquainted(&[&[1, 1], &[1], &[1]], 1);
    assert_eq!(world.core(0).commit_index(), Index(0));
    world.forge(1, 0, request(2, (2, 1))).unwrap();
    assert_eq!(votes(&world), []);
}

/// Pitfall 6: a vote counts once, in its term, and only a voter's does. One of
/// three never leads by repeats, two of four never do.
#[test]
fn votes_repeated_old_or_of_learners_elect_nobody() {
    for (voters, helpers) in [(3, vec![]), (4, vec![1])] {
        let plan = Plan::voters(voters).learners(2);
        let mut world = World::founded(plan);
        let leader = world.leaders()[0];
        assert_eq!(leader, 0);
        world.isolate(&[0]);
        world.timeout(1);
        let prevotes = world.take(|f| matches!(f.envelope.message, Message::PreVote(_)));
        world.cut.clear();
        world.crash(0);
        for flight in prevotes {
            world.arrive(flight);
        }
        // All others would vote; then most of their votes are lost.
        for place in 2..voters {
            world.step(place, |core, _| core.leader_heard_at = None);
        }
        world.timeout(1);
        world.deliver(|f| {
            matches!(f.envelope.message, Message::PreVote(_) | Message::PreVoteReply(_))
        });
        assert_eq!(world.role(1), Some(RoleName::Candidate), "{voters} voters");
        let term = world.core(1).term();
        world.flights.clear();
        for learner in [voters, voters + 1] {
            let reply = RequestVoteReply { term, granted: true };
            world.forge(learner, 1, Message::RequestVoteReply(reply)).unwrap();
        }
        for _ in 0..3 {
            let old = RequestVoteReply { term: Term(term.0 - 1), granted: true };
            world.forge(2, 1, Message::RequestVoteReply(old)).unwrap();
            for _ in &helpers {
                let reply = RequestVoteReply { term, granted: true };
                world.forge(2, 1, Message::RequestVoteReply(reply)).unwrap();
            }
        }
        assert_eq!(world.role(1), Some(RoleName::Candidate), "{voters} voters");
        let reply = RequestVoteReply { term, granted: true };
        world.forge(voters - 1, 1, Message::RequestVoteReply(reply)).unwrap();
        assert_eq!(world.role(1), Some(RoleName::Leader), "{voters} voters");
    }
}

/// Pitfall 7: who steps down within a term keeps its vote.
#[test]
fn stepping_down_within_a_term_keeps_the_vote() {
    let mut world = acquainted(&[&[1], &[1], &[1]], 1);
    world.step(0, |core, now| {
        core.campaign(now);
        core.become_candidate(false, now);
    });
    assert_eq!(world.role(0), Some(RoleName::Candidate));
    let own = world.core(0).me().incarnation;
    assert_eq!(world.core(0).hard().voted_for, Some(own));
    let leader = world.core(1).me().incarnation;
    world.step(0, |core, now| core.hear_leader(leader, Term(2), now)).unwrap().unwrap();
    assert_eq!(world.core(0).hard().voted_for, Some(own));
    world.flights.clear();
    world.forge(2, 0, request(2, (9, 9))).unwrap();
    assert_eq!(votes(&world), []);
}

/// Pitfall 8: each message that carries a term teaches a newer one to each role;
/// requests for votes do so where no leader is heard.
#[test]
fn a_newer_term_is_learned_from_any_message() {
    let term = Term(9);
    let index = Index(0);
    let messages = [
        request(9, (9, 8)),
        Message::PreVoteReply(PreVoteReply { round: 0, term, granted: false }),
        Message::RequestVoteReply(RequestVoteReply { term, granted: false }),
        Message::AppendEntriesReply(AppendEntriesReply {
            term,
            seq: 0,
            outcome: AppendOutcome::Stale,
        }),
        Message::HeartbeatReply(HeartbeatReply { term, seq: 0, matched: index, verified: index }),
        Message::Heartbeat(Heartbeat { term, seq: 1, leader_commit: index, quorum_age_us: 0 }),
        Message::Commit(super::super::message::Commit { term, leader_commit: index }),
        Message::AppendEntries(super::super::message::AppendEntries {
            term,
            seq: 1,
            prev_log_index: index,
            prev_log_term: Term(0),
            leader_commit: index,
            entries: vec![],
        }),
    ];
    for role in [RoleName::Follower, RoleName::PreCandidate, RoleName::Candidate, RoleName::Leader]
    {
        for message in &messages {
            let mut world = acquainted(&[&[1], &[1], &[1]], 1);
            world.step(0, |core, now| {
                if role != RoleName::Follower {
                    core.campaign(now);
                }
                if role == RoleName::Candidate || role == RoleName::Leader {
                    core.become_candidate(false, now);
                }
            });
            if role == RoleName::Leader {
                let reply = RequestVoteReply { term: Term(2), granted: true };
                world.forge(1, 0, Message::RequestVoteReply(reply)).unwrap();
            }
            assert_eq!(world.role(0), Some(role));
            // A core that was told so by its own kind may fail the checks of all
            // history: what matters is this node's step.
            let sticky = role == RoleName::Leader && matches!(message, Message::RequestVote(_));
            let envelope = super::super::message::Envelope {
                cluster: world.core(0).hard().cluster.unwrap(),
                from: world.core(2).me(),
                to: world.core(0).me(),
                message: message.clone(),
            };
            let now = Time(world.now);
            let core = world.nodes[0].core.as_mut().unwrap();
            core.receive(envelope, now).unwrap();
            assert_eq!(core.term() == term, !sticky, "{role} got {message:?}");
            assert_eq!(core.role() == RoleName::Follower, !sticky, "{role} got {message:?}");
        }
    }
}

/// Pitfall 9: a pre-vote changes nothing where it is asked: no term, no vote, no
/// timer.
#[test]
fn a_pre_vote_changes_nothing() {
    let mut world = acquainted(&[&[1], &[1], &[1]], 1);
    let before = (world.core(1).hard().clone(), world.core(1).deadline());
    let (last_log_index, last_log_term) = (Index(2), Term(1));
    for term in [1, 2, 50] {
        let m = PreVote { round: 7, term: Term(term), last_log_index, last_log_term };
        world.forge(0, 1, Message::PreVote(m)).unwrap();
    }
    assert_eq!((world.core(1).hard().clone(), world.core(1).deadline()), before);
}

/// Pitfall 9: a node with the best log, stranded in a low term, is elected in
/// bounded time: refusals teach it the newer term.
#[test]
fn a_stranded_node_of_a_low_term_is_elected() {
    for seed in 0..20 {
        let plan = Plan::voters(3).seed(seed);
        let mut world = World::with_logs(plan, &[&[1, 1, 1], &[1], &[1]], 1);
        for place in [1, 2] {
            world.step(place, |core, now| {
                core.become_follower(Term(40), None, now, "a far newer term");
            });
        }
        world.crash(2);
        // Only a can be elected, and only by b.
        let took = world.run_until(2_000 * MS, "a leader", |world| !world.leaders().is_empty());
        assert_eq!(world.leaders(), [0]);
        assert!(took < 1_500 * MS, "{took} us");
        assert!(world.core(0).term() > Term(40));
    }
}

/// Pitfall 10: an answer to an earlier asking starts nothing, be it late or
/// come again after the election was won.
#[test]
fn answers_to_an_earlier_asking_start_nothing() {
    let mut world = acquainted(&[&[1], &[1], &[1]], 1);
    world.timeout(0);
    world.deliver(|f| matches!(f.envelope.message, Message::PreVote(_)));
    let late = world.take(|f| matches!(f.envelope.message, Message::PreVoteReply(_)));
    assert_eq!(late.len(), 2);
    world.timeout(0);
    for flight in late.clone() {
        world.arrive(flight);
    }
    assert_eq!(world.role(0), Some(RoleName::PreCandidate), "the first round is over");
    world.deliver(|_| true);
    assert_eq!(world.leaders(), [0]);
    let term = world.core(0).term();
    for flight in late {
        world.arrive(flight);
    }
    assert_eq!((world.leaders(), world.core(0).term()), (vec![0], term));
}

/// Pitfall 11: a candidate that cannot win keeps nobody from standing: votes and
/// pre-votes that are refused leave the timer alone.
#[test]
fn a_hopeless_candidate_keeps_nobody_from_standing() {
    let mut world = acquainted(&[&[1, 1], &[1], &[1, 1]], 1);
    world.crash(0);
    let timer = |world: &World| world.core(2).election_at;
    let before = timer(&world);
    for term in 2..6 {
        world.forge(1, 2, request(term, (2, 1))).unwrap();
        let m = PreVote {
            round: 1,
            term: Term(term + 1),
            last_log_index: Index(2),
            last_log_term: Term(1),
        };
        world.forge(1, 2, Message::PreVote(m)).unwrap();
    }
    assert_eq!(timer(&world), before);
    world.run_until(1_500 * MS, "the good one", |world| world.leaders() == [2]);
}

/// Pitfall 12: 1,000 elections of five nodes after the death of a leader. Timeouts
/// are drawn anew each time, so nobody falls into step with anybody.
#[test]
fn elections_end_soon() {
    let mut took = Vec::new();
    for seed in 0..1_000 {
        let mut world =
            World::with_logs(Plan::voters(5).seed(seed), &[&[1], &[1], &[1], &[1], &[1]], 1);
        world.faults = Faults { latency: (MS, 10 * MS), ..Faults::NONE };
        world.crash((seed % 5) as usize);
        let term = Term(1);
        took.push(world.run_until(3_000 * MS, "a leader", |world| !world.leaders().is_empty()));
        let leader = world.leaders()[0];
        assert!(world.core(leader).term() > term);
    }
    took.sort_unstable();
    let (median, p99) = (took[500], took[990]);
    // A timeout is 150 to 300 ms, and an election two round trips of up to 20 ms.
    assert!(median < 300 * MS, "median {median} us");
    assert!(p99 < 700 * MS, "99th percentile {p99} us");
}

/// Pitfall 13: five nodes of which each hears its neighbours only. Who reaches a
/// majority leads, and stays.
#[test]
fn a_chain_of_five_has_a_stable_leader() {
    for seed in 0..30 {
        let mut world = World::founded(Plan::voters(5).seed(seed));
        for a in 0..5usize {
            for b in 0..5usize {
                if a.abs_diff(b) > 1 {
                    world.cut.insert((a, b));
                }
            }
        }
        world.run_for(2_000 * MS);
        let (leaders, elected) = (world.leaders(), world.history.leaders());
        assert!(matches!(leaders[..], [1..=3]), "seed {seed}: {leaders:?}\n{}", world.describe());
        world.run_for(5_000 * MS);
        assert_eq!(world.leaders(), leaders, "seed {seed}");
        assert!(world.history.leaders() <= elected + 1, "seed {seed}: it came to rest");
    }
}

/// Pitfall 14: who was cut off comes back, and no leader changes: those that hear a
/// leader refuse pre-votes and votes alike.
#[test]
fn who_was_cut_off_deposes_nobody() {
    let mut world = World::founded(Plan::voters(3));
    let leader = world.leaders()[0];
    let stray = (leader + 1) % 3;
    let (term, leaders) = (world.core(leader).term(), world.history.leaders());
    world.isolate(&[stray]);
    world.run_for(3_000 * MS);
    assert_eq!(world.core(stray).term(), term, "it asks first, and touches no term");
    world.cut.clear();
    world.run_for(1_000 * MS);
    // Even a vote for a newer term, of one that does not ask first.
    let other = 3 - leader - stray;
    world.forge(stray, other, request(term.0 + 5, (99, 99))).unwrap();
    world.forge(stray, leader, request(term.0 + 5, (99, 99))).unwrap();
    world.run_for(1_000 * MS);
    assert_eq!((world.leaders(), world.history.leaders()), (vec![leader], leaders));
    assert_eq!(world.core(leader).term(), term);
}

/// Pitfall 15 at the level of nodes: half of an even number elects nobody.
#[test]
fn half_is_no_majority() {
    for voters in [2, 4, 6, 8] {
        let mut world = World::founded(Plan::voters(voters));
        let half: Vec<usize> = (0..voters / 2).collect();
        world.isolate(&half);
        world.run_for(2_000 * MS);
        assert_eq!(world.leaders(), [] as [usize; 0], "{voters} voters");
        world.cut.clear();
        world.run_until(2_000 * MS, "healing", World::is_settled);
    }
}

/// Check-quorum (thesis §6.2): who hears no majority any more leads no longer, even
/// if it is heard itself; and who is not heard is replaced though it hears all.
#[test]
fn one_way_partitions_leave_no_leader_in_place() {
    for deaf in [true, false] {
        let mut world = World::founded(Plan::voters(3));
        let old = world.leaders()[0];
        for other in (0..3).filter(|&other| other != old) {
            world.cut.insert(if deaf { (other, old) } else { (old, other) });
        }
        let replaced = |world: &World| matches!(world.leaders()[..], [one] if one != old);
        world.run_until(2_000 * MS, "another leader", replaced);
        let leaders = world.history.leaders();
        world.run_for(3_000 * MS);
        assert_eq!(world.history.leaders(), leaders, "deaf: {deaf}");
    }
}

/// A vote of a wrong term or a candidate's own, given back to it, elects nobody;
/// a candidate's own vote counts when it is durable.
#[test]
fn an_own_vote_counts_when_it_is_durable() {
    let mut world = acquainted(&[&[1], &[1], &[1]], 1);
    world.crash(2);
    world.nodes[0].holds_writes = true;
    world.timeout(0);
    world.run_for(10 * MS);
    assert_eq!(world.role(0), Some(RoleName::Candidate));
    let reply = RequestVoteReply { term: Term(2), granted: true };
    world.forge(1, 0, Message::RequestVoteReply(reply)).unwrap();
    assert_eq!(world.role(0), Some(RoleName::Candidate), "its own vote is not written");
    assert!(!world.flights.values().any(is_vote));
    assert!(world.complete(0));
    assert_eq!(world.role(0), Some(RoleName::Leader));
    assert!(matches!(&world.core(0).role, Role::Leader(leader) if leader.term_start == Index(3)));
}

/// A disk that hangs fills no memory: what waits for it is bounded, and what is
/// over is lost as on the network.
#[test]
fn messages_that_wait_for_a_disk_are_bounded() {
    let mut world = acquainted(&[&[1], &[1], &[1]], 1);
    world.nodes[1].holds_writes = true;
    world.forge(0, 1, request(2, (2, 1))).unwrap();
    for _ in 0..10_000 {
        world.forge(0, 1, request(2, (2, 1))).unwrap();
    }
    assert!(world.core(1).held.len() < 5_000);
    assert!(world.complete(1));
    assert_eq!(world.core(1).held.len(), 0);
    assert!(votes(&world).contains(&(1, 0)));
}

/// Where a vote takes longer to write than the longest timeout, candidates that failed
/// stand further apart: they do not meet for ever.
#[test]
fn slow_disks_elect_a_leader_in_bounded_time() {
    for write in [100, 150, 200, 300, 600] {
        for seed in 1..=5 {
            let mut world = World::new(Plan::voters(3).seed(seed));
            world.faults.write = (write * MS, write * MS);
            (0..3).for_each(|place| world.start(place));
            world.run_until(40_000 * MS, "a leader", |world| !world.leaders().is_empty());
        }
    }
}
