//! Another leader by request, over real sockets.

mod common;

use std::time::{Duration, Instant};

use common::{Cluster, Plan, ask, ms, refusal, until, until_some};
use kontiki::{Request, RequestError, Role};
use serde_json::json;

fn transfer(cluster: &Cluster, to: usize) -> Request {
    Request::transfer_leadership(&cluster.names[to])
}

/// Why a request was refused.
#[track_caller]
fn reason(cluster: &Cluster, through: usize, request: Request) -> String {
    match refusal(cluster.node(through), request) {
        RequestError::Refused { reason, .. } => reason,
        error => panic!("{error}"),
    }
}

/// The named one leads, whichever node is asked, and nobody waits for a timeout: with
/// timeouts of seconds it takes milliseconds.
#[test]
fn the_named_one_leads_without_a_timeout() {
    let keys = json!({"heartbeat_ms": 100, "election_timeout_ms": [4_000, 8_000]});
    let cluster = Plan::voters(3).keys(keys).start();
    cluster.commit_everywhere(0, json!("before"));
    let mut longest = Duration::ZERO;
    for turn in 0..9 {
        let leader = cluster.wait_leader();
        let to = (leader + 1 + turn % 2) % 3;
        let term = cluster.knows(leader).term;
        let since = Instant::now();
        let reply = ask(cluster.node(turn % 3), transfer(&cluster, to));
        let took = since.elapsed();
        longest = longest.max(took);
        assert!(took < ms(2_000), "turn {turn} took {took:?}");
        assert_eq!(reply.term, term + 1);
        assert_eq!(reply.value.as_object().map(|members| members.len()), Some(3));
        assert_eq!(cluster.leader_among(0..3), Some(to));
        ask(cluster.node(turn % 3), json!(turn));
    }
    println!("the longest of nine took {longest:?}; an election timeout is 4 to 8 s");
}

/// Commands that come meanwhile wait, and are refused by nobody.
#[test]
fn commands_wait_for_the_next_leader() {
    let cluster = Plan::voters(3).start();
    cluster.commit_everywhere(0, json!("before"));
    for turn in 0..12 {
        let leader = cluster.wait_leader();
        let handed = cluster.node(leader).client_request(transfer(&cluster, (leader + 1) % 3));
        let asked: Vec<_> = (0..30)
            .map(|n| cluster.node(n % 3).client_request(json!([turn, n])).expect("it is taken"))
            .collect();
        for mut pending in asked {
            common::answer("a command", &mut pending).expect("it is committed");
        }
        common::answer("the transfer", &mut handed.expect("it is taken")).expect("it is done");
    }
}

/// A transfer to one that does not answer ends within an election timeout, and the leader
/// goes on in its term as if nothing had been.
#[test]
fn a_transfer_that_fails_leaves_the_leader_in_office() {
    let keys = json!({"heartbeat_ms": 100, "election_timeout_ms": [2_000, 4_000]});
    let cluster = Plan::voters(3).keys(keys).relay(41).start();
    cluster.commit_everywhere(0, json!("before"));
    let leader = cluster.wait_leader();
    let (to, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let term = cluster.knows(leader).term;
    for is_cut in [true, false] {
        match is_cut {
            true => cluster.relay().cut_off(&[to]),
            false => cluster.node(to).stop(),
        }
        let pending = cluster.node(leader).client_request(transfer(&cluster, to));
        let since = Instant::now();
        // It waits, and is committed by the leader that was to go.
        let waits = cluster.node(other).client_request(json!(is_cut)).expect("it is taken");
        let error = common::answer("the transfer", &mut pending.expect("it is taken")).unwrap_err();
        let took = since.elapsed();
        let RequestError::Refused { reason, .. } = error else { panic!("{error}") };
        assert!(reason.contains(&cluster.names[to]), "{reason}");
        assert!(reason.contains("did not take over in time"), "{reason}");
        assert!(took < ms(4_000), "it took {took:?}");
        common::answer("what waited", &mut { waits }).expect("it is committed");
        let known = cluster.knows(leader);
        assert_eq!((known.role, known.term), (Role::Leader, term));
        match is_cut {
            true => cluster.relay().heal(),
            false => cluster.node(to).start().expect("it starts again"),
        }
        cluster.commit_everywhere(to, json!("healed"));
        let known = cluster.knows(leader);
        assert_eq!((known.role, known.term), (Role::Leader, term), "and nobody campaigned");
    }
    let reply = until_some("a transfer to the one that is back", || {
        cluster.node(other).client_request(transfer(&cluster, to)).ok()?.wait().ok()
    });
    assert_eq!(reply.term, term + 1);
    until("it to lead", || cluster.knows(to).role == Role::Leader);
}

/// Whom nobody can have in mind is refused at once, by name and with the reason.
#[test]
fn who_cannot_lead_is_refused() {
    let cluster = Plan::voters(3).learners(1).start();
    cluster.commit_everywhere(0, json!("before"));
    let leader = cluster.wait_leader();
    let term = cluster.knows(leader).term;
    for through in 0..4 {
        let told = reason(&cluster, through, transfer(&cluster, 3));
        assert_eq!(told, "node3 is no voter, and only a voter can lead");
        let told = reason(&cluster, through, transfer(&cluster, leader));
        assert_eq!(told, format!("{} leads already", cluster.names[leader]));
        let told = reason(&cluster, through, Request::transfer_leadership("node9"));
        assert_eq!(told, "no member is called node9");
    }
    let known = cluster.knows(leader);
    assert_eq!((known.role, known.term), (Role::Leader, term));
    let empty = refusal(cluster.node(0), Request::transfer_leadership(""));
    assert!(matches!(empty, RequestError::Invalid { .. }), "{empty}");
}
