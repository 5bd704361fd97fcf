//! How the log travels, and when it is committed: claim by claim.

use super::super::effect::RoleName;
use super::super::message::{
    AppendEntries, AppendEntriesReply, AppendOutcome, Commit, Envelope, Heartbeat, HeartbeatReply,
    Message,
};
use super::super::properties::Disk;
use super::super::state::{Refused, Role};
use super::super::types::{Entry, Index, Payload, Protocol, Term};
use super::world::{Flight, MS, Plan, World};

fn settled(logs: &[&[u64]], term: u64, candidate: usize) -> World {
    let mut world = World::with_logs(Plan::voters(logs.len()), logs, term);
    world.timeout(candidate);
    world.run_until(2_000 * MS, "a leader, followed by all", World::is_settled);
    assert_eq!(world.leaders(), [candidate]);
    world
}

fn entry(term: u64) -> Entry {
    Entry { term: Term(term), payload: Payload::Protocol(Protocol::Empty) }
}

fn append(world: &World, leader: usize, prev: (u64, u64), terms: &[u64]) -> Message {
    Message::AppendEntries(AppendEntries {
        term: world.core(leader).term(),
        seq: 1,
        prev_log_index: Index(prev.0),
        prev_log_term: Term(prev.1),
        leader_commit: Index(0),
        entries: terms.iter().map(|&term| entry(term)).collect(),
    })
}

fn is_append(flight: &Flight) -> bool {
    matches!(flight.envelope.message, Message::AppendEntries(_))
}

fn is_append_reply(flight: &Flight) -> bool {
    matches!(flight.envelope.message, Message::AppendEntriesReply(_))
}

/// Pitfall 17: an old append, come again, removes nothing of what follows it.
#[test]
fn an_append_of_long_ago_removes_nothing() {
    let mut world = settled(&[&[1], &[1], &[1]], 1, 0);
    // Nothing of it is committed: b is not heard, and c hears nothing.
    world.cut.extend([(0, 2), (1, 0)]);
    world.propose(0, "first");
    let old = world.flights.values().find(|flight| is_append(flight) && flight.to == 1).cloned();
    world.run_for(5 * MS);
    world.propose(0, "second");
    world.run_for(5 * MS);
    let last = world.core(1).log().last_index();
    assert_eq!(world.core(0).log().last_index(), last);
    assert!(world.core(1).commit_index() < last.previous());
    world.arrive(old.expect("an append"));
    assert_eq!(world.core(1).log().last_index(), last);
    assert_eq!(world.core(1).durability.durable(), last);
}

/// Pitfall 18: a peer that would have committed entries removed is refused, and
/// the node that can prove it stops.
#[test]
fn what_is_committed_is_not_removed_whoever_says_so() {
    let mut world = settled(&[&[1, 1], &[1, 1], &[1, 1]], 1, 0);
    let message = append(&world, 0, (1, 0), &[2]);
    let core = world.nodes[1].core.as_mut().unwrap();
    let Message::AppendEntries(m) = message else { unreachable!() };
    let before = core.log().last_index();
    let leader = core.leader().unwrap();
    let refused = core.on_append_entries(leader, m, super::super::types::Time(world.now));
    assert_eq!(refused, Err(Refused::Failed));
    assert_eq!(core.log().last_index(), before);
    assert!(core.failure().is_some());
    assert_eq!(core.propose(bytes::Bytes::new()), Err(Refused::Failed));
}

/// Pitfalls 19 and 20: a follower commits what this leader's messages verified,
/// however much more it holds and however much more is committed.
#[test]
fn a_commit_index_is_bounded_by_what_was_verified() {
    // b holds entries 3 and 4 of term 2, which a never had.
    let mut world = World::with_logs(Plan::voters(3), &[&[1], &[1, 2, 2], &[1]], 2);
    world.step(0, |core, now| core.become_follower(Term(3), None, now, "a newer term"));
    let term = world.core(0).term();
    let heartbeat = |leader_commit| {
        Message::Heartbeat(Heartbeat { term, seq: 1, leader_commit, quorum_age_us: 0 })
    };
    world.forge(0, 1, heartbeat(Index(4))).unwrap();
    assert_eq!(world.core(1).commit_index(), Index(0), "nothing is verified");
    world.forge(0, 1, Message::Commit(Commit { term, leader_commit: Index(9) })).unwrap();
    assert_eq!(world.core(1).commit_index(), Index(0), "nothing is verified");
    let verified = |core: &super::super::Core| match &core.role {
        Role::Follower(follower) => follower.verified,
        _ => Index(0),
    };
    // An append that verifies up to 2 of 4.
    world
        .step(1, |core, now| {
            let m = AppendEntries {
                term,
                seq: 2,
                prev_log_index: Index(2),
                prev_log_term: Term(1),
                leader_commit: Index(0),
                entries: vec![],
            };
            core.on_append_entries(core.leader().unwrap(), m, now)
        })
        .unwrap()
        .unwrap();
    assert_eq!(verified(world.core(1)), Index(2));
}

/// Pitfall 19, the other way round: what is on the disk and was not verified by
/// this leader is not acknowledged. b holds three entries that a never had; a
/// compares the logs from the start, one entry at a time, and needs b for a
/// majority. The checks look for each commit on the disks.
#[test]
fn what_was_not_verified_is_not_acknowledged() {
    let plan = Plan { append_bytes: 1, ..Plan::voters(3) };
    let mut world = World::with_logs(plan, &[&[1, 1, 3], &[1, 1, 2, 2, 2], &[1, 1, 3]], 3);
    world.crash(1);
    world.timeout(0);
    world.run_until(50 * MS, "a leader", |world| world.leaders() == [0]);
    world.crash(2);
    world.propose(0, "x");
    world.propose(0, "y");
    world.start(1);
    world.run_until(500 * MS, "healing", World::is_settled);
}

/// Pitfall 21: replies late, twice and in any order never move match_index back,
/// nor past what the follower has on disk. The checks compare each commit with the
/// disks.
#[test]
fn replies_in_any_order_move_nothing_back() {
    for seed in 0..30 {
        let mut world = settled(&[&[1], &[1], &[1]], 1, 0);
        world.rng = super::super::rng::Rng::new(seed);
        for number in 0..20 {
            world.propose(0, &format!("{number}"));
            world.deliver(|flight| flight.from == 0);
        }
        let mut replies = world.take(is_append_reply);
        replies.extend(replies.clone());
        let mut highest = Index(0);
        while !replies.is_empty() {
            let at = world.rng.between(0, replies.len() as u64 - 1) as usize;
            world.arrive(replies.swap_remove(at));
            let Role::Leader(leader) = &world.core(0).role else { panic!("a leads") };
            let reached: Index = leader.progress.values().map(|p| p.match_index()).max().unwrap();
            assert!(reached >= highest);
            highest = reached;
        }
        assert_eq!(world.core(0).commit_index(), world.core(0).log().last_index());
    }
}

/// Pitfall 22 through the door: a rejection that comes after a later success winds
/// nothing back, and nothing is sent twice for it.
#[test]
fn a_late_rejection_changes_nothing() {
    let mut world = settled(&[&[1], &[1], &[1]], 1, 0);
    world.propose(0, "one");
    let held = world.take(|flight| is_append(flight) && flight.to == 1);
    world.propose(0, "two");
    world.deliver(|flight| is_append(flight) && flight.to == 1);
    let rejection = world.take(|f| is_append_reply(f) && f.from == 1);
    held.into_iter().for_each(|flight| world.arrive(flight));
    world.run_for(100 * MS);
    let next = |world: &World| match &world.core(0).role {
        Role::Leader(leader) => leader.progress[&world.core(1).me().incarnation].next_index(),
        _ => panic!("a leads"),
    };
    let before = next(&world);
    for flight in rejection {
        world.arrive(flight);
    }
    assert_eq!(next(&world), before);
    assert_eq!(before, world.core(0).log().last_index().next());
}

/// Pitfall 23: the answer to a message of an old term is sent with the newer one.
/// If the asker leads in that newer term by then, the old message's number must not
/// pass for one of its newer messages.
#[test]
fn an_answer_to_an_old_term_answers_nothing_of_the_new_one() {
    let mut world = settled(&[&[1], &[1], &[1]], 1, 0);
    let old_heartbeat = |world: &World| {
        Message::Heartbeat(Heartbeat {
            term: Term(world.core(1).term().0 - 1),
            seq: 1_000,
            leader_commit: Index(0),
            quorum_age_us: 0,
        })
    };
    world.flights.clear();
    let message = old_heartbeat(&world);
    world.forge(0, 1, message).unwrap();
    let old_append = AppendEntries {
        term: Term(world.core(1).term().0 - 1),
        seq: 1_000,
        prev_log_index: Index(0),
        prev_log_term: Term(0),
        leader_commit: Index(0),
        entries: vec![],
    };
    world.forge(0, 1, Message::AppendEntries(old_append)).unwrap();
    let answers: Vec<_> = world.flights.values().map(|f| f.envelope.message.clone()).collect();
    assert_eq!(answers.len(), 2);
    for answer in answers {
        let (Message::HeartbeatReply(HeartbeatReply { seq, .. })
        | Message::AppendEntriesReply(AppendEntriesReply { seq, .. })) = answer
        else {
            panic!("{answer:?}")
        };
        assert_eq!(seq, 0);
    }
}

/// Pitfall 24: a refusal is no agreement.
#[test]
fn refusals_do_not_count() {
    let mut world = settled(&[&[1], &[1], &[1]], 1, 0);
    world.isolate(&[0]);
    world.propose(0, "alone");
    let committed = world.core(0).commit_index();
    let last = world.core(0).log().last_index();
    let (term, seq) = match &world.core(0).role {
        Role::Leader(leader) => (world.core(0).term(), leader.seq),
        _ => panic!("a leads"),
    };
    for from in [1, 2] {
        let outcome = AppendOutcome::Mismatch {
            prev_log_index: last.previous(),
            hint_index: last.previous().previous(),
            hint_term: Term(1),
        };
        let refusal = AppendEntriesReply { term, seq, outcome };
        world.forge(from, 0, Message::AppendEntriesReply(refusal)).unwrap();
        let stale = AppendEntriesReply { term, seq: 0, outcome: AppendOutcome::Stale };
        world.forge(from, 0, Message::AppendEntriesReply(stale)).unwrap();
    }
    assert_eq!(world.core(0).commit_index(), committed);
}

/// Pitfalls 25 and 30: a leader counts itself when its own write is done, and not
/// before; and it does not wait for it where the others are a majority.
#[test]
fn a_leader_counts_itself_when_its_write_is_done() {
    let mut world = settled(&[&[1], &[1], &[1]], 1, 0);
    let before = world.core(0).commit_index();
    world.nodes[0].holds_writes = true;
    world.isolate(&[2]);
    world.propose(0, "one");
    world.run_for(10 * MS);
    assert_eq!(world.core(0).commit_index(), before, "one copy of three is on a disk");
    while world.complete(0) {}
    assert_eq!(world.core(0).commit_index(), before.next());
    // The others are a majority: it is committed before the leader has written it.
    world.cut.clear();
    world.run_until(100 * MS, "contact", World::is_settled);
    world.propose(0, "two");
    world.run_for(10 * MS);
    assert_eq!(world.core(0).commit_index(), before.next().next());
    assert_eq!(world.core(0).applicable(), before.next(), "not handed out before it is here");
}

/// Pitfall 25: the write of a suffix that was cut off completes late; what stands
/// in its place is not acknowledged for that.
#[test]
fn a_late_write_of_what_is_gone_acknowledges_nothing() {
    let mut world = settled(&[&[1], &[1], &[1], &[1], &[1]], 1, 0);
    // c holds the write of an entry of a; then b leads, and replaces it.
    world.nodes[2].holds_writes = true;
    world.isolate(&[0, 2]);
    world.propose(0, "replaced");
    world.run_for(3 * MS);
    let index = world.core(2).log().last_index();
    assert_eq!(world.core(2).log().term_at(index), Some(Term(2)));
    world.cut.clear();
    world.isolate(&[0]);
    for place in [1, 3, 4] {
        world.step(place, |core, _| core.leader_heard_at = None);
    }
    world.timeout(1);
    world.run_for(20 * MS);
    assert_eq!(world.leaders(), [0, 1]);
    assert_eq!(world.core(2).log().term_at(index), Some(Term(3)));
    let matched = |world: &World| match &world.core(1).role {
        Role::Leader(leader) => leader.progress[&world.core(2).me().incarnation].match_index(),
        _ => panic!("b leads"),
    };
    assert!(world.complete(2));
    world.run_for(50 * MS);
    assert!(matched(&world) < index, "only the entry that was replaced is written");
    while world.complete(2) {}
    world.run_for(50 * MS);
    assert_eq!(matched(&world), world.core(1).log().last_index());
}

/// Pitfall 27: 10,000 entries that differ are skipped by terms, not one by one.
#[test]
fn a_long_divergence_heals_in_round_trips_of_the_order_of_its_terms() {
    let good: Vec<u64> = (0..10_000).map(|number| 1 + 2 * (number / 1_000)).collect();
    let bad: Vec<u64> = (0..10_000).map(|number| 2 + 2 * (number / 1_000)).collect();
    let (mut ours, mut theirs) = (vec![1], vec![1]);
    ours.extend(&good);
    theirs.extend(bad.iter().take(9_000));
    let plan = Plan { append_bytes: 100_000, ..Plan::voters(3) };
    let mut world = World::with_logs(plan, &[&ours, &theirs, &ours], 21);
    world.timeout(0);
    world.sent = Some(Vec::new());
    world.run_until(2_000 * MS, "healing", World::is_settled);
    let refused = world.sent.take().unwrap().into_iter().filter(|flight| {
        matches!(
            &flight.envelope.message,
            Message::AppendEntriesReply(reply) if matches!(reply.outcome, AppendOutcome::Mismatch { .. })
        )
    });
    let refused = refused.count();
    assert!((1..=25).contains(&refused), "{refused} refusals for 10 terms on each side");
}

/// Pitfall 29: a new leader commits what older ones left, without any client.
#[test]
fn older_entries_commit_without_clients() {
    let world = settled(&[&[1, 2, 2], &[1, 2, 2], &[1]], 2, 0);
    assert_eq!(world.core(2).commit_index(), Index(5), "and an entry of the new term");
}

/// A follower that stood for election and came back to the same leader has to
/// verify its log again, and commits nothing before; it must not wait for the next
/// entry to do so.
#[test]
fn who_came_back_to_its_leader_learns_the_commit_without_a_new_entry() {
    let mut world = settled(&[&[1], &[1], &[1]], 1, 0);
    world.propose(0, "one");
    let no_commit = |flight: &Flight| matches!(flight.envelope.message, Message::Commit(_));
    world.deliver(is_append);
    world.deliver(is_append_reply);
    world.run_for(MS);
    assert_eq!(world.take(no_commit).len(), 2);
    world.timeout(1);
    assert_eq!(world.role(1), Some(RoleName::PreCandidate));
    world.run_until(100 * MS, "the commit index at b", |world| {
        world.core(1).commit_index() == world.core(0).commit_index()
    });
}

/// A follower learns of a commit one trip and a millisecond after the leader, not with
/// the next heartbeat.
#[test]
fn a_commit_is_told_soon() {
    let mut world = settled(&[&[1], &[1], &[1]], 1, 0);
    let start = world.now;
    world.propose(0, "one");
    let took = world.run_until(10 * MS, "a commit everywhere", World::is_settled);
    assert_eq!((took, world.now - start), (4 * MS, 4 * MS), "there, back, a while, and there");
}

/// A one-node cluster commits as soon as its own write is done.
#[test]
fn one_node_alone_commits_what_it_has_written() {
    let mut world = World::founded(Plan::voters(1));
    world.nodes[0].holds_writes = true;
    let before = world.core(0).commit_index();
    world.propose(0, "one");
    assert_eq!(world.core(0).commit_index(), before);
    while world.complete(0) {}
    assert_eq!(world.core(0).commit_index(), before.next());
}

/// One turn may acknowledge an entry to the leader of one term, and remove it for the
/// leader of the next: the acknowledgement was true when it was given. (Seed 12,465 of
/// the simulator, in which the check of acknowledgements saw it otherwise.)
#[test]
fn what_was_acknowledged_in_an_earlier_term_was_there_then() {
    let mut world = World::founded(Plan::voters(3));
    let follower = (world.leaders()[0] + 1) % 3;
    let core = world.nodes[follower].core.take().expect("it runs");
    let mut disk = Disk::default();
    disk.mirror(&core);
    let removed = disk.entries.last().expect("the term's first entry").clone();
    disk.entries.push(removed);
    let matched = disk.last_index();
    disk.mirror(&core);
    assert!(disk.last_index() < matched);
    let mut says = |term: Term| {
        let reply = HeartbeatReply { term, seq: 1, matched, verified: matched };
        let message = Message::HeartbeatReply(reply);
        let cluster = core.hard().cluster.expect("it was founded");
        let envelope = Envelope { cluster, from: core.me(), to: core.me(), message };
        world.history.check_outgoing(&core, &disk, &envelope)
    };
    assert_eq!(says(Term(core.term().0 - 1)), Ok(()));
    assert!(says(core.term()).is_err());
}
