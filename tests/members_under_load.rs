//! Clusters whose members come, go and lose their memory while clients commit all the
//! time, over real sockets: nothing that was acknowledged is lost, nothing comes twice.

mod common;

use std::fs;

use common::load::Load;
use common::machine::Tally;
use common::relay::Weather;
use common::{Plan, answer, ask, until, until_some};
use kontiki::{Event, RaftNode, Reply, Request, RequestError, Role};
use serde_json::json;

/// So many requests are acknowledged between two changes.
const BETWEEN: usize = 400;

fn voters(count: usize) -> Plan {
    Plan::voters(count).keys(json!({"request_timeout_ms": 5_000}))
}

/// One node grows to five, by requests at whichever node is at hand, and shrinks to one
/// again, and each time it is the leader that goes. Pitfall 43.
#[test]
fn a_cluster_grows_from_one_to_five_and_shrinks_to_one_under_load() {
    grow_and_shrink(voters(1), false);
}

/// The same with logs on the disk, and with snapshots for whoever comes late.
#[test]
fn a_durable_cluster_grows_by_snapshots_and_shrinks_under_load() {
    let keys = json!({"request_timeout_ms": 5_000, "snapshot_every": 50});
    grow_and_shrink(Plan::voters(1).keys(keys).durable(), true);
}

fn grow_and_shrink(plan: Plan, by_snapshot: bool) {
    let acknowledged = Load::run(plan, |load| {
        let events = load.see(|cluster| cluster.configs[0].events());
        for size in 2..=5 {
            load.wait_acknowledged(BETWEEN);
            let place = load.change(|cluster| cluster.newcomer());
            let reply = load.see(|cluster| {
                ask(cluster.node(place / 2), cluster.adding(place)) // any member
            });
            let voters = reply.value.as_object().expect("a map of the members");
            assert_eq!(voters.len(), size);
            assert!(voters.values().all(|node| node["role"] == "voter"), "{}", reply.value);
            load.see(|cluster| cluster.wait_voter(place));
        }
        let came = |event| matches!(event, Event::Snapshot { received: true, .. });
        assert!(!by_snapshot || events.try_iter().any(came), "a newcomer got a snapshot");
        let mut members = vec![0, 1, 2, 3, 4];
        while members.len() > 1 {
            load.wait_acknowledged(BETWEEN);
            let leader = load.see(|cluster| cluster.wait_leader_among(members.clone()));
            members.retain(|&place| place != leader);
            load.see(|cluster| {
                let through = if members.len() % 2 == 0 { leader } else { members[0] };
                let name = &cluster.names[leader];
                let reply = ask(cluster.node(through), Request::remove_member(name));
                let left = reply.value.as_object().expect("a map of the members");
                assert!(left.len() == members.len() && !left.contains_key(name), "{}", reply.value);
                until("it to know that it was removed", || {
                    cluster.knows(leader).role == Role::Removed
                });
            });
            load.wait_acknowledged(BETWEEN);
            // What it still had is answered; nobody needs it any more.
            load.change(|cluster| cluster.lose(leader));
        }
        load.wait_acknowledged(BETWEEN);
    });
    assert!(acknowledged >= 13 * BETWEEN as u64);
}

/// Each of three volatile nodes is killed and made anew, the leader as well, twice around;
/// whoever does it waits each time until the new life votes. In the end nobody is left who
/// remembers the beginning, and all that was acknowledged is there. Pitfalls 45, 46.
#[test]
fn a_rolling_restart_of_a_volatile_cluster_loses_nothing() {
    Load::run(voters(3), |load| {
        for turn in 0..6 {
            load.wait_acknowledged(BETWEEN);
            let place = turn % 3;
            load.change(|cluster| cluster.lose(place));
            load.wait_acknowledged(BETWEEN);
            load.change(|cluster| cluster.renew(place));
            load.see(|cluster| cluster.wait_voter(place));
        }
        for _ in 0..4 {
            load.wait_acknowledged(BETWEEN);
            let leader = load.see(|cluster| cluster.wait_leader());
            load.change(|cluster| {
                cluster.lose(leader);
                cluster.renew(leader);
            });
            load.see(|cluster| cluster.wait_voter(leader));
        }
        let members = load.see(|cluster| cluster.knows(0).members);
        assert_eq!(members.len(), 3, "{members:?}");
    });
}

/// Durable nodes whose folders are wiped, one after the other, come back under their names
/// and vote again, by themselves; also by way of a snapshot. Pitfalls 45, 46.
#[test]
fn nodes_whose_folders_are_wiped_in_turn_vote_again() {
    let keys = json!({"request_timeout_ms": 5_000, "snapshot_every": 100});
    Load::run(Plan::voters(3).keys(keys).durable(), |load| {
        for place in [1, 2, 0] {
            load.wait_acknowledged(BETWEEN);
            let before = load.see(|cluster| cluster.knows(place).incarnation);
            load.change(|cluster| {
                cluster.lose(place);
                fs::remove_dir_all(cluster.folder(place)).expect("it can be removed");
                cluster.renew(place);
            });
            load.see(|cluster| {
                cluster.wait_voter(place);
                assert_ne!(cluster.knows(place).incarnation, before, "another life");
            });
        }
        load.wait_acknowledged(BETWEEN);
        // Each of them keeps what it has now, the vote too.
        for place in 0..3 {
            let before = load.see(|cluster| cluster.knows(place).incarnation);
            load.change(|cluster| {
                cluster.lose(place);
                cluster.renew(place);
            });
            load.see(|cluster| {
                cluster.wait_voter(place);
                assert_eq!(cluster.knows(place).incarnation, before, "the same life");
            });
        }
    });
}

/// A fifth of the datagrams is lost, a fifth comes twice or late: members are removed and
/// added again and leaders exchanged all the same. A change whose answer was lost is asked
/// for again and found done, so each is done once and says so. Pitfalls 42, 43.
#[test]
fn members_change_in_bad_weather() {
    let keys = json!({"request_timeout_ms": 20_000, "snapshot_every": 200});
    Load::run(Plan::voters(4).keys(keys).relay(61), |load| {
        load.see(|cluster| cluster.relay().weather(Weather::all(20)));
        for turn in 0..8 {
            load.wait_acknowledged(BETWEEN / 10);
            let (out, through) = (turn % 4, (turn + 1 + turn / 4) % 4);
            load.see(|cluster| {
                let remove = Request::remove_member(&cluster.names[out]);
                let reply = done(cluster.node(through), &remove);
                let left = reply.value.as_object().expect("a map of the members");
                assert_eq!(left.len(), 3, "{}", reply.value);
                until("it to know that it was removed", || {
                    cluster.knows(out).role == Role::Removed
                });
            });
            load.wait_acknowledged(BETWEEN / 10);
            load.see(|cluster| {
                let reply = done(cluster.node(through), &cluster.adding(out));
                let members = reply.value.as_object().expect("a map of the members");
                assert!(members.len() == 4, "{}", reply.value);
                assert!(members.values().all(|node| node["role"] == "voter"), "{}", reply.value);
                cluster.wait_voter(out);
                hand_over(cluster.node(through), &cluster.names[out]);
            });
        }
        load.see(|cluster| cluster.relay().weather(Weather::default()));
    });
}

/// Asks until it is done, where luck may be against it.
fn done(node: &RaftNode, request: &Request) -> Reply {
    until_some(&format!("{request:?} to be done"), || {
        let mut pending = node.client_request(request.clone()).expect("it is taken");
        match answer("a change", &mut pending) {
            Ok(reply) => Some(reply),
            // The leader had not heard the others for a while.
            Err(RequestError::Refused { reason, .. }) if reason.contains("too few") => None,
            Err(error) => panic!("{request:?} ended with: {error}"),
        }
    })
}

/// The same for another leader.
fn hand_over(node: &RaftNode, to: &str) {
    until(&format!("{to} to lead"), || {
        let request = Request::transfer_leadership(to);
        let mut pending = node.client_request(request).expect("it is taken");
        match answer("a transfer", &mut pending) {
            Ok(_) => true,
            Err(RequestError::Refused { reason, .. }) => match reason {
                late if late.contains("did not take over in time") => false,
                // It took over after all, later than its predecessor had patience for.
                done if done.contains("leads already") => true,
                other => panic!("{other}"),
            },
            Err(error) => panic!("the transfer ended with: {error}"),
        }
    });
}

/// A leader is removed with requests under way, and added again: it answers each as what it
/// is. None of the answers that come late is taken for that of a newer request, and no
/// number is used twice, by which a new request would pass for an old one. Pitfall 52.
#[test]
fn who_is_removed_with_requests_under_way_mixes_up_no_answers() {
    let plan = voters(3).dress(|config| config.state_machine(|_| Tally::default()));
    let cluster = plan.start();
    cluster.commit_everywhere(0, json!({"n": "before"}));
    let mut n = 0;
    for _ in 0..10 {
        let leader = cluster.wait_leader();
        let node = cluster.node(leader);
        let mut asked = Vec::new();
        let mut give = |count: u64| {
            for _ in 0..count {
                let request = Request::command(&json!({ "n": n })).id(format!("order-{n}"));
                asked.extend(node.client_request(request).map(|pending| (n, pending)));
                n += 1;
            }
        };
        give(100);
        let removal = node.client_request(Request::remove_member(&cluster.names[leader]));
        give(100);
        answer("the removal", &mut removal.expect("it is taken")).expect("it is done");
        give(100);
        let other = cluster.node((leader + 1) % 3);
        ask(other, cluster.adding(leader));
        cluster.wait_voter(leader);
        give(100);
        for (n, mut pending) in asked {
            let Ok(reply) = answer(&format!("request {n}"), &mut pending) else { continue };
            let found = ask(other, Request::lookup(format!("order-{n}")));
            assert_eq!(found, reply, "request {n}");
            assert_eq!(ask(other, Request::query(&json!({ "n": n }))).value, json!(1));
        }
    }
}
