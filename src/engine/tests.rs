//! Whole nodes as bytes, several in one thread: virtual time, a network with
//! faults from a seed, requests from a program at each.

mod cluster;
mod paths;

use serde_json::json;

use super::changes::Changes;
use super::*;
use crate::core::message::{
    AppendEntries, ChangeOutcome, ChangeReply, Envelope, InstallSnapshot, Message, Wish,
};
use crate::request::Request;

use self::cluster::{Cluster, MILLISECOND, SECOND};
use crate::sim::linear::{Call, CellAnswer, CellOperation, check_cell};

fn values(cluster: &Cluster, node: usize) -> Vec<String> {
    cluster.committed(node)
}

#[test]
fn a_cluster_is_founded_and_commits_on_every_path() {
    for remote in [false, true] {
        for size in [1, 2, 3, 4, 5, 9] {
            let mut cluster = Cluster::new(size, remote, 7);
            for node in 0..size {
                cluster.request(node, json!({ "from": node }));
            }
            cluster.run_until(5 * SECOND, |cluster| cluster.open_requests() == 0);
            for ticket in 0..size as u64 {
                assert!(cluster.answer(ticket).is_ok(), "{:?}", cluster.answer(ticket));
            }
            cluster.run(SECOND);
            for node in 1..size {
                assert_eq!(values(&cluster, node), values(&cluster, 0));
            }
            assert_eq!(values(&cluster, 0).len(), size, "each once, {size} nodes");
        }
    }
}

/// The first command of a run waits for its session, and goes when that is open: not with
/// the next that happens to wake the node.
#[test]
fn a_first_command_takes_two_round_trips() {
    let mut cluster = Cluster::new(3, false, 12);
    let leader = cluster.wait_for_leader();
    cluster.run(SECOND);
    // What the other one says would wake it.
    cluster.isolate((leader + 1) % 3);
    cluster.run_to_quiet();
    let first = cluster.request(leader, json!(1));
    cluster.run_until(SECOND, |cluster| cluster.is_answered(first));
    let (asked, ended) = cluster.times(first);
    assert!(ended - asked <= 4 * cluster::TRIP, "{} us", ended - asked);
}

/// One client at the leader: two datagrams to each follower and one back for a
/// commit, and all nodes know of it without a heartbeat.
#[test]
fn a_commit_costs_one_round_trip_and_one_trip_of_news() {
    let mut cluster = Cluster::new(3, false, 11);
    let leader = cluster.wait_for_leader();
    cluster.request(leader, json!(0));
    cluster.run(3 * SECOND);
    cluster.run_to_quiet();
    let (sent, at) = (cluster.datagrams(), cluster.now());
    cluster.request(leader, json!(1));
    cluster.run_until(SECOND, |cluster| {
        (0..3).all(|node| cluster.committed(node).last().is_some_and(|last| last == "1"))
    });
    let trips = (cluster.now().0 - at.0 - MILLISECOND).div_ceil(cluster::TRIP);
    assert_eq!(trips, 3, "append, acknowledgement, and a millisecond later the commit");
    assert_eq!(cluster.datagrams() - sent, 6, "three each way between the leader and two");
}

/// A thousand requests that come at once share datagrams.
#[test]
fn what_comes_together_leaves_together() {
    let mut cluster = Cluster::new(3, false, 12);
    let leader = cluster.wait_for_leader();
    cluster.request(leader, json!("first"));
    cluster.run_until(SECOND, |cluster| cluster.open_requests() == 0);
    cluster.run_to_quiet();
    let before = cluster.datagrams();
    let value = |number: i32| json!({ "number": number, "padding": "x".repeat(30) });
    cluster.request_together(leader, (0..1000).map(value));
    cluster.run_until(SECOND, |cluster| cluster.open_requests() == 0);
    let sent = cluster.datagrams() - before;
    assert!(sent <= 12, "{sent} datagrams for a thousand commits");
}

/// Pitfall 54: a request dropped in silence on a leader change. Every request
/// ends, and what was answered is committed once.
#[test]
fn every_request_ends_and_none_is_committed_twice_under_faults() {
    for seed in 0..30 {
        let mut cluster = Cluster::new(3, seed % 2 == 0, seed);
        cluster.faults(20);
        let mut sent = 0;
        for round in 0..40 {
            for node in 0..3 {
                cluster.request(node, json!({ "round": round, "node": node }));
                sent += 1;
            }
            cluster.run(50 * MILLISECOND);
            match round {
                10 => cluster.isolate_leader(),
                25 => cluster.heal(),
                _ => {}
            }
        }
        cluster.heal();
        cluster.run_until(15 * SECOND, |cluster| cluster.open_requests() == 0);
        cluster.faults(0);
        cluster.run(2 * SECOND);
        let committed = values(&cluster, 0);
        let mut once = committed.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), committed.len(), "seed {seed}: something was committed twice");
        for node in 1..3 {
            assert_eq!(values(&cluster, node), committed, "seed {seed}: node {node}");
        }
        let answered = (0..sent).filter(|ticket| cluster.answer(*ticket).is_ok()).count();
        assert!(committed.len() >= answered, "seed {seed}: an answered request is not there");
        assert!(answered >= 90, "seed {seed}: only {answered} of {sent} were answered");
        for ticket in 0..sent {
            if let Ok(reply) = cluster.answer(ticket) {
                let value = cluster.value_at(0, reply.index);
                assert_eq!(value.as_deref(), Some(cluster.sent(ticket)), "seed {seed}");
            }
        }
    }
}

/// What clients saw: tickets of commands with the number that they wrote, and of
/// queries. What ended as unknown has no end; what was refused did not happen.
fn history(
    cluster: &Cluster,
    calls: &[(u64, Option<u64>)],
) -> Vec<Call<CellOperation, CellAnswer>> {
    let call = |&(ticket, written): &(u64, Option<u64>)| {
        let answer = cluster.answer(ticket);
        let (called, at) = cluster.times(ticket);
        let (operation, answered) = match (written, answer) {
            (Some(value), Ok(_)) => (CellOperation::Write(value), Some((at, CellAnswer::Done))),
            (Some(value), Err(RequestError::Unknown)) => (CellOperation::Write(value), None),
            (None, Ok(reply)) => {
                let held = CellAnswer::Value(reply.value.as_u64());
                (CellOperation::Read, Some((at, held)))
            }
            (_, Err(_)) => return None,
        };
        Some(Call { client: 0, operation, called, answered })
    };
    calls.iter().filter_map(call).collect()
}

/// Commands and queries of programs at all nodes, while datagrams are lost and
/// leaders cut off, have one order that explains what everybody saw. What ended as
/// unknown may have happened at any time, or never.
#[test]
fn what_clients_saw_is_linearizable_under_faults() {
    for seed in 0..40 {
        let mut cluster = Cluster::new(3 + (seed % 3) as usize, false, 100 + seed);
        cluster.faults(15);
        cluster.wait_for_leader();
        let mut calls: Vec<(u64, Option<u64>)> = Vec::new();
        for round in 0..60u64 {
            for node in 0..3 {
                let write = (round + node as u64).is_multiple_of(2);
                let value = calls.len() as u64 + 1;
                let ticket = if write {
                    cluster.request(node, json!(value))
                } else {
                    cluster.ask(node, Request::query(&()))
                };
                calls.push((ticket, write.then_some(value)));
            }
            cluster.run((10 + round % 7 * 10) * MILLISECOND);
            match round % 20 {
                8 => cluster.isolate_leader(),
                14 => cluster.heal(),
                _ => {}
            }
        }
        cluster.heal();
        cluster.run_until(15 * SECOND, |cluster| cluster.open_requests() == 0);
        let history = history(&cluster, &calls);
        let answered = history.iter().filter(|call| call.answered.is_some()).count();
        assert!(answered > 120, "seed {seed}: only {answered} of {} were answered", calls.len());
        assert!(check_cell(&history).is_linearizable(), "seed {seed}");
        let mut broken = history;
        // The checker would notice: the last read shows what was there at first.
        if let Some(read) =
            broken.iter_mut().rev().find(|call| call.operation == CellOperation::Read)
        {
            let at = read.answered.map_or(0, |(at, _)| at);
            read.answered = Some((at, CellAnswer::Value(None)));
            assert!(!check_cell(&broken).is_linearizable(), "seed {seed}");
        }
    }
}

/// Pitfall 52: a session or sequence number used again after a restart. Nodes stop
/// and start while datagrams are lost and leaders cut off: what clients saw is still
/// linearizable, nothing is committed twice, and all ends soon after the faults do.
#[test]
fn runs_come_and_go_and_what_clients_saw_stays_linearizable() {
    for seed in 0..40 {
        let mut rng = core::rng::Rng::new(seed + 1000);
        let size = 3 + 2 * (seed % 2) as usize;
        let mut cluster = Cluster::new(size, seed % 3 == 0, seed);
        cluster.wait_for_leader();
        cluster.faults([0, 5, 20][(seed % 3) as usize]);
        let mut calls = Vec::new();
        for _ in 0..60 {
            for node in 0..size {
                let value = calls.len() as u64 + 1;
                calls.push(match rng.between(0, 2) {
                    0 => (cluster.ask(node, Request::query(&())), None),
                    _ => (cluster.request(node, json!(value)), Some(value)),
                });
            }
            cluster.run(rng.between(1, 60) * MILLISECOND);
            match rng.between(0, 14) {
                0 => {
                    cluster.heal();
                    cluster.isolate_leader();
                }
                1 | 2 => cluster.restart(rng.between(0, size as u64 - 1) as usize),
                3..=5 => cluster.heal(),
                _ => {}
            }
        }
        cluster.heal();
        cluster.faults(0);
        for node in 0..size {
            let value = calls.len() as u64 + 1;
            calls.push((cluster.request(node, json!(value)), Some(value)));
        }
        cluster.run_until(2 * SECOND, |cluster| cluster.open_requests() == 0);
        cluster.run(SECOND);
        let committed = values(&cluster, 0);
        let once: std::collections::BTreeSet<&String> = committed.iter().collect();
        assert_eq!(once.len(), committed.len(), "seed {seed}: something was committed twice");
        for node in 1..size {
            assert_eq!(values(&cluster, node), committed, "seed {seed}: node {node}");
        }
        assert!(check_cell(&history(&cluster, &calls)).is_linearizable(), "seed {seed}");
    }
}

/// Pitfall 65: a value of many datagrams, on a path of 1,400 bytes that loses a
/// tenth of them.
#[test]
fn a_value_of_many_datagrams_arrives_on_a_path_that_loses() {
    let mut cluster = Cluster::new(3, true, 3);
    let leader = cluster.wait_for_leader();
    cluster.faults(10);
    let other = (leader + 1) % 3;
    for node in [leader, other] {
        cluster.request(node, json!("x".repeat(700_000)));
    }
    cluster.run_until(9 * SECOND, |cluster| cluster.open_requests() == 0);
    assert!(cluster.answer(0).is_ok() && cluster.answer(1).is_ok(), "{:?}", cluster.answer(1));
    cluster.run_until(9 * SECOND, |cluster| (0..3).all(|node| cluster.committed(node).len() == 2));
}

/// Pitfall 53: the entry is truncated, the request is sent again, and applied
/// exactly once.
#[test]
fn a_request_whose_entry_was_removed_is_sent_again_and_applied_once() {
    let mut cluster = Cluster::new(3, false, 21);
    let leader = cluster.wait_for_leader();
    cluster.request(leader, json!("before"));
    cluster.run_until(SECOND, |cluster| cluster.open_requests() == 0);
    cluster.isolate_leader();
    cluster.request(leader, json!("removed"));
    cluster.run(50 * MILLISECOND);
    let other = cluster.wait_for_leader_other_than(leader);
    cluster.request(other, json!("meanwhile"));
    cluster.run(200 * MILLISECOND);
    assert!(!cluster.is_answered(1), "nobody but the old leader has it");
    cluster.heal();
    cluster.run_until(5 * SECOND, |cluster| cluster.open_requests() == 0);
    assert!(cluster.answer(1).is_ok(), "{:?}", cluster.answer(1));
    cluster.run(SECOND);
    assert_eq!(values(&cluster, leader), [r#""before""#, r#""meanwhile""#, r#""removed""#]);
}

/// Pitfall 49, from outside: a query sees what was answered before it was asked,
/// on every node; a leader that was deposed answers none.
#[test]
fn a_query_sees_what_was_answered_before_it() {
    for seed in 0..10 {
        let mut cluster = Cluster::new(3, false, seed);
        cluster.faults(10);
        for value in 0..10 {
            let ticket = cluster.request((value % 3) as usize, json!(value));
            cluster.run_until(10 * SECOND, |cluster| cluster.is_answered(ticket));
            let written = cluster.answer(ticket).expect("it is committed").index;
            for node in 0..3 {
                let read = cluster.ask(node, Request::query(&()));
                cluster.run_until(10 * SECOND, |cluster| cluster.is_answered(read));
                let reply = cluster.answer(read).expect("a leader is there");
                assert!(reply.index >= written, "seed {seed}");
                assert_eq!(reply.value, json!(value), "seed {seed}");
            }
        }
    }
}

/// On a disk: entries, and a snapshot that comes whole with them, are one turn's work, and so
/// one batch for the disk.
#[test]
fn a_snapshot_that_comes_with_a_write_is_installed_in_the_same_turn() {
    let mut cluster = Cluster::new(3, false, 5);
    let leader = cluster.wait_for_leader();
    let behind = (leader + 1) % 3;
    cluster.run(SECOND);
    cluster.isolate(behind);
    let ticket = cluster.request(leader, json!(1));
    cluster.run_until(SECOND, |cluster| cluster.is_answered(ticket));
    let (core, follower) = (cluster.core(leader), cluster.core(behind));
    let (index, term) = (core.commit_index(), core.term());
    let (stated, members) = core.members_at(index).expect("they are known").clone();
    let made = snapshot::make((index, term), (stated, &members), core.verdicts(), b"state");
    let (id, data) = (made.id, made.data);
    let (last, from, to) = (follower.log().last_index(), core.me(), follower.me());
    let append = AppendEntries {
        term,
        seq: 1,
        prev_log_index: last,
        prev_log_term: follower.log().last_term(),
        leader_commit: Index(0),
        entries: vec![core.log().entry(last.next()).expect("it is behind").clone()],
    };
    let piece = InstallSnapshot { term, seq: 1, id, offset: 0, data };
    let messages = [Message::AppendEntries(append), Message::InstallSnapshot(piece)];
    let known = core.hard().cluster.expect("it was founded");
    let now = cluster.now();
    let engine = cluster.engine_mut(behind);
    engine.keeps = Keeps::OnDisk;
    for message in messages {
        let envelope = Envelope { cluster: known, from, to, message };
        engine.core.receive(envelope, now).expect("it is of the leader");
    }
    let mut output = Output::default();
    engine.flush(&mut output, now);
    let written: Vec<_> =
        output.writes.iter().map(|of| (of.entries.len(), of.install.is_some())).collect();
    assert_eq!(written, [(1, false), (0, true)]);
}

/// So many askings are under way at once, and what waits for one of them to end is asked
/// for when it does: not with the next that happens to wake the node.
#[test]
fn queries_beyond_those_under_way_are_asked_for_when_these_are_answered() {
    let mut cluster = Cluster::new(3, false, 5);
    let leader = cluster.wait_for_leader();
    cluster.request(leader, json!(1));
    cluster.run(SECOND);
    cluster.isolate((leader + 1) % 3);
    cluster.run_to_quiet();
    let queries: Vec<u64> = (0..70).map(|_| cluster.ask(leader, Request::query(&()))).collect();
    // The next heartbeat answers for all that are under way.
    cluster.lose_travelling();
    cluster.run_until(SECOND, |cluster| cluster.open_requests() == 0);
    let ended = |query: &u64| cluster.times(*query).1;
    let first = queries.iter().map(ended).min().expect("there are some");
    let last = queries.iter().map(ended).max().expect("there are some");
    assert!(first < last && last <= first + 3 * cluster::TRIP, "{first} to {last}");
}

#[test]
fn a_query_at_a_deposed_leader_waits_for_the_new_one() {
    let mut cluster = Cluster::new(3, false, 5);
    let old = cluster.wait_for_leader();
    cluster.request(old, json!("old"));
    cluster.run_until(SECOND, |cluster| cluster.open_requests() == 0);
    cluster.isolate_leader();
    let read = cluster.ask(old, Request::query(&()));
    let new = cluster.wait_for_leader_other_than(old);
    let write = cluster.request(new, json!("new"));
    cluster.run_until(SECOND, |cluster| cluster.is_answered(write));
    assert!(!cluster.is_answered(read), "nobody confirms the old leader");
    cluster.heal();
    cluster.run_until(5 * SECOND, |cluster| cluster.is_answered(read));
    assert_eq!(cluster.answer(read).expect("the new leader is known").value, json!("new"));
}

#[test]
fn an_id_is_committed_once_and_the_second_asker_gets_the_first_reply() {
    let mut cluster = Cluster::new(3, false, 8);
    let first = cluster.ask(0, Request::from(json!("tea")).id("order-17"));
    cluster.run_until(5 * SECOND, |cluster| cluster.is_answered(first));
    let second = cluster.ask(2, Request::from(json!("coffee")).id("order-17"));
    let lookup = cluster.ask(1, Request::lookup("order-17"));
    let nothing = cluster.ask(1, Request::lookup("order-18"));
    cluster.run_until(5 * SECOND, |cluster| cluster.open_requests() == 0);
    let reply = cluster.answer(first).expect("it is committed");
    assert_eq!(cluster.answer(second), Ok(reply.clone()));
    assert_eq!(cluster.answer(lookup), Ok(reply));
    let id = "order-18".to_string();
    assert_eq!(cluster.answer(nothing), Err(RequestError::NotFound { id }));
    assert_eq!(values(&cluster, 1), [r#""tea""#]);
}

#[test]
fn without_a_majority_requests_end_at_their_deadline_as_what_they_are() {
    let mut cluster = Cluster::new(3, false, 9);
    let leader = cluster.wait_for_leader();
    cluster.request(leader, json!("session"));
    cluster.run_until(SECOND, |cluster| cluster.open_requests() == 0);
    cluster.isolate_leader();
    let sent = cluster.request(leader, json!("may be committed"));
    cluster.run(2 * SECOND);
    let read = cluster.ask(leader, Request::query(&()));
    let unsent = cluster.request(leader, json!("never left"));
    cluster.run(15 * SECOND);
    assert_eq!(cluster.answer(sent), Err(RequestError::Unknown));
    for ticket in [read, unsent] {
        match cluster.answer(ticket) {
            Err(RequestError::Refused { reason }) => {
                assert!(reason.contains("no leader was known"), "{reason}");
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Pitfalls 51, 52: what was ever sent in a session that expired ends as unknown
/// and is not sent again; what was not moves to a new session, with new numbers.
#[test]
fn an_expired_session_ends_what_was_sent_and_keeps_what_was_not() {
    use super::clients::Clients;
    use crate::core::types::Life;
    use crate::replica::Outcome;

    let own = Life { incarnation: Incarnation(1), run: Run(1) };
    let mut cluster = Cluster::new(1, false, 1);
    cluster.run(SECOND);
    let core = cluster.core_mut(0);
    let mut clients: Clients<u64> = Clients::new(own, 10 * SECOND, 60 * MILLISECOND);
    let kind = |value| match Request::from(value).into_kind() {
        Kind::Command { draft, id } => (draft, id),
        _ => unreachable!("a value is a command"),
    };
    let now = Time(5 * SECOND);
    let (buffer, id) = kind(json!("sent"));
    clients.command(1, buffer, id, now);
    clients.on_outcome(Outcome::Opened { session: Index(4) });
    clients.drive(core, Some(0), now);
    let (buffer, id) = kind(json!("not sent"));
    clients.command(2, buffer, id, now);
    clients.on_outcome(Outcome::Expired { session: Index(4) });
    let mut answers = Vec::new();
    clients.drain_answers(&mut answers);
    assert_eq!(answers, [(1, Err(RequestError::Unknown))]);

    clients.on_outcome(Outcome::Opened { session: Index(9) });
    let before = core.log().last_index();
    clients.drive(core, Some(0), now);
    let entry = core.log().entry(before.next()).expect("it is sent in the new session");
    let core::types::Payload::Client(operation) = &entry.payload else { panic!("{entry:?}") };
    assert_eq!(
        crate::operation::session_and_seq(operation),
        Some((Index(9), 3)),
        "no number is used twice"
    );
}

/// What the core plans with is no less than what an entry takes in a datagram.
#[test]
fn a_full_append_fits_in_one_datagram() {
    use crate::core::types::{Entry, Payload};
    use crate::encoding::entry::entry_len;

    for length in [0, 1, 100, 127, 128, 1_200, 16_383, 16_384, 50_000, 1 << 21] {
        let payload = Payload::Client(vec![7; length].into());
        for term in [0, 1, u64::MAX] {
            let entry = Entry { term: Term(term), payload: payload.clone() };
            assert!(entry.size_bytes() >= entry_len(&entry), "{length} bytes, term {term}");
        }
    }
}

/// A node that forgot serves its program, and votes again as another life.
#[test]
fn a_node_that_comes_back_without_its_memory_is_served_and_votes_again() {
    let mut cluster = Cluster::new(3, false, 17);
    let leader = cluster.wait_for_leader();
    for value in 0..20 {
        cluster.request(leader, json!(value));
    }
    cluster.run_until(5 * SECOND, |cluster| cluster.open_requests() == 0);
    let lost = (leader + 1) % 3;
    cluster.restart_without_memory(lost);
    let before = cluster.core(lost).me().incarnation;
    let write = cluster.request(lost, json!("from a new life"));
    let read = cluster.ask(lost, Request::query(&()));
    cluster.run_until(5 * SECOND, |cluster| cluster.open_requests() == 0);
    assert!(cluster.answer(write).is_ok() && cluster.answer(read).is_ok());
    cluster.run_until(SECOND, |cluster| cluster.core(lost).is_voter());
    assert_eq!(public_role(cluster.core(lost).role()), committed::Role::Follower);
    assert_eq!(cluster.core(lost).me().incarnation, before);
    assert_eq!(values(&cluster, lost).len(), 21);
}

/// Found by the simulator: a node that was removed ended its requests and, added again,
/// numbered new ones as those, so that its session took them for repeats.
#[test]
fn a_node_that_was_removed_and_added_again_numbers_its_requests_on() {
    let mut cluster = Cluster::new(3, false, 23);
    let leader = cluster.wait_for_leader();
    let (removed, other) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.request(removed, json!("before"));
    cluster.run_until(SECOND, |cluster| cluster.open_requests() == 0);
    // Taken, and sent to a leader that does not hear it.
    cluster.isolate(removed);
    let never = cluster.request(removed, json!("never"));
    cluster.run(50 * MILLISECOND);
    let name = format!("node{removed}");
    let remove = cluster.ask(other, Request::remove_member(&name));
    cluster.run_until(2 * SECOND, |cluster| cluster.is_answered(remove));
    assert!(cluster.answer(remove).is_ok(), "{:?}", cluster.answer(remove));
    cluster.heal();
    cluster.run_until(2 * SECOND, |cluster| cluster.is_answered(never));
    assert_eq!(cluster.answer(never), Err(RequestError::Unknown));
    let refused = cluster.request(removed, json!("refused"));
    cluster.run_until(SECOND, |cluster| cluster.is_answered(refused));
    assert!(matches!(cluster.answer(refused), Err(RequestError::Refused { .. })));
    let add = cluster.ask(other, Request::add_member(&name, cluster.address(removed)));
    cluster.run_until(5 * SECOND, |cluster| cluster.is_answered(add));
    assert!(cluster.answer(add).is_ok(), "{:?}", cluster.answer(add));
    let after = cluster.request(removed, json!("after"));
    cluster.run_until(2 * SECOND, |cluster| cluster.is_answered(after));
    let reply = cluster.answer(after).expect("it is committed");
    assert_eq!(cluster.value_at(leader, reply.index).as_deref(), Some("\"after\""));
}

/// The leader says that a change is done, and the news that it is committed is lost: who
/// asked is answered when this node sees in `Committed` what the answer speaks of.
#[test]
fn a_change_is_answered_when_it_is_committed_here() {
    let mut cluster = Cluster::new(3, false, 29);
    let leader = cluster.wait_for_leader();
    cluster.run(200 * MILLISECOND);
    let (other, removed) = ((leader + 1) % 3, (leader + 2) % 3);
    let mut changes = Changes::new(SECOND, 50 * MILLISECOND);
    let now = cluster.now();
    let wish = Wish::Remove { name: format!("node{removed}") };
    changes.take(7, wish, now);
    let core = cluster.core_mut(other);
    assert_eq!(changes.drive(core, now), []);
    let members = core.members().unwrap().clone();
    let (index, term) = (core.commit_index().next(), core.term());
    let outcome = ChangeOutcome::Done { index, term, members };
    changes.on_reply(ChangeReply { id: 1, outcome });
    assert_eq!(changes.drive(core, now), [], "it is not committed here");
    let value = cluster.request(leader, json!("one more"));
    cluster.run_until(SECOND, |cluster| cluster.is_answered(value));
    cluster.run(50 * MILLISECOND);
    let now = cluster.now();
    let ended = changes.drive(cluster.core_mut(other), now);
    assert!(matches!(&ended[..], [(7, Ok(reply))] if reply.index == index.0), "{ended:?}");
}
