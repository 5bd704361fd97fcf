//! Clusters whose members come, go and lose their memory while clients commit all the
//! time, over real sockets: nothing that was acknowledged is lost, nothing comes twice.

mod common;

use std::fs;

use common::load::Load;
use common::machine::Tally;
use common::{Plan, ask, until};
use kontiki::{Request, Role};
use serde_json::json;

/// So many requests are acknowledged between two changes.
const BETWEEN: usize = 400;

fn tally(plan: Plan) -> Plan {
    plan.keys(json!({"request_timeout_ms": 5_000}))
        .dress(|config| config.state_machine(|_| Tally::default()))
}

/// One node grows to five, by requests at whichever node is at hand, and shrinks to one
/// again, and whenever it can be it is the leader that goes. Pitfalls 41, 42, 43.
#[test]
fn a_cluster_grows_from_one_to_five_and_shrinks_to_one_under_load() {
    grow_and_shrink(tally(Plan::voters(1)));
}

/// The same with logs on the disk, and with snapshots for whoever comes late.
#[test]
fn a_durable_cluster_grows_by_snapshots_and_shrinks_under_load() {
    let keys = json!({"request_timeout_ms": 5_000, "snapshot_every": 50});
    grow_and_shrink(tally(Plan::voters(1)).keys(keys).durable());
}

fn grow_and_shrink(plan: Plan) {
    let cluster = plan.start();
    ask(cluster.node(0), json!({"n": "before"}));
    let acknowledged = Load::run(cluster, |load| {
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
    let cluster = tally(Plan::voters(3)).start();
    cluster.commit_everywhere(0, json!({"n": "before"}));
    Load::run(cluster, |load| {
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
    let cluster = tally(Plan::voters(3)).keys(keys).durable().start();
    cluster.commit_everywhere(0, json!({"n": "before"}));
    Load::run(cluster, |load| {
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
