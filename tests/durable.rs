//! Nodes with a log on the disk, by the five calls: what is acknowledged is there after
//! any stop, drop and start; what is not this node's, or not as it was written, is
//! refused with the file and what to do; and a disk that fails stops its node and no
//! other.

mod common;

use std::fs::{self, File};
use std::path::Path;

use common::folder::Folder;
use common::machine::Tally;
use common::narration::narration;
use common::single::{single, started};
use common::{Cluster, Plan, address, ask, refusal, until, until_some};
use kontiki::{Config, Error, RaftNode, Request, RequestError, Role};
use serde_json::{Value, json};

fn tally(plan: Plan) -> Plan {
    plan.dress(|config| config.state_machine(|_| Tally::default()))
}

/// What a node's machine holds, as a linearizable read has it.
fn counted(node: &RaftNode) -> Value {
    ask(node, Request::query(&())).value
}

/// All nodes stopped and started again.
fn restart(cluster: &mut Cluster) {
    cluster.all().for_each(RaftNode::stop);
    cluster.all().for_each(|node| node.start().expect("it starts again"));
}

/// All nodes dropped, and others made in their place.
fn make_anew(cluster: &mut Cluster) {
    (0..cluster.count()).for_each(|place| cluster.lose(place));
    (0..cluster.count()).for_each(|place| cluster.renew(place));
}

// ---------------------------------------------------------------- what is kept

/// All nodes are stopped and started, or dropped and made anew: entries, replies by id,
/// members and the newest entry are what they were, from the log alone and from a
/// snapshot with what follows it.
#[test]
fn a_cluster_that_was_down_has_all_that_it_acknowledged() {
    for (snapshot_every, again) in
        [(10_000, restart as fn(&mut Cluster)), (10_000, make_anew), (7, restart), (7, make_anew)]
    {
        let keys = json!({"snapshot_every": snapshot_every});
        let mut cluster = tally(Plan::voters(3).learners(1).durable().keys(keys)).start();
        let order = Request::command(&json!({"n": "order"})).id("order-17");
        let first = ask(cluster.node(1), order.clone());
        let mut entries = 1;
        for round in 0..3 {
            for n in 0..20 {
                let reply = ask(cluster.node(n % 4), json!({"n": [round, n]}));
                assert_eq!(reply.value, json!(1));
                entries += 1;
            }
            let newest = cluster.commit_everywhere(0, json!({"n": ["last of", round]}));
            entries += 1;
            let members: Vec<_> = cluster
                .knows(0)
                .members
                .into_iter()
                .map(|member| (member.name, member.address, member.voter))
                .collect();

            again(&mut cluster);
            // Nothing is asked of it before: it comes with the first commit of a leader.
            cluster.wait_entry(0..4, newest);
            for place in 0..4 {
                let known = cluster.knows(place);
                let entry = known.entry.expect("it was waited for");
                assert_eq!(
                    (entry.index, entry.value()),
                    (newest, json!({"n": ["last of", round]}))
                );
                let now = known.members.into_iter();
                assert!(now.map(|m| (m.name, m.address, m.voter)).eq(members.iter().cloned()));
                let state = counted(cluster.node(place));
                assert_eq!(state, json!({"values": entries, "twice": [], "entries": entries}));
                assert_eq!(ask(cluster.node(place), order.clone()), first, "its id was known");
                assert_eq!(ask(cluster.node(place), Request::lookup("order-17")), first);
            }
        }
    }
}

/// A minority that is down while others commit has it all when it comes back; and a
/// majority that is down is missed, and enough once it is back.
#[test]
fn some_are_down_while_others_commit() {
    let keys = json!({"request_timeout_ms": 500});
    let mut cluster = tally(Plan::voters(3).durable().keys(keys)).start();
    cluster.commit_everywhere(0, json!("before"));
    for round in 0..3 {
        let down = round % 3;
        cluster.lose(down);
        // Its last datagrams may have been what the others went by.
        until("a commit without it", || {
            let pending = cluster.node((down + 1) % 3).client_request(json!({"n": ["try", round]}));
            pending.is_ok_and(|pending| pending.wait().is_ok())
        });
        cluster.lose((down + 1) % 3);
        let error = refusal(cluster.node((down + 2) % 3), json!({"n": "never"}));
        assert!(matches!(error, RequestError::Unknown | RequestError::Refused { .. }), "{error}");
        cluster.renew(down);
        let reply = until_some("a commit by two of three, one of which was away", || {
            let pending = cluster.node(down).client_request(json!({"n": ["back", round]})).ok()?;
            pending.wait().ok()
        });
        assert_eq!(reply.value, json!(1));
        cluster.renew((down + 1) % 3);
        cluster.wait_entry(0..3, reply.index);
    }
    let states: Vec<Value> = (0..3).map(|place| counted(cluster.node(place))).collect();
    assert_eq!(states[0]["twice"], json!([]));
    assert!(states.iter().all(|state| *state == states[0]), "{states:?}");
}

/// Nobody is replaced after a restart: a durable node is the life that it was, keeps its
/// vote, and with it the cluster its tolerance of one more loss.
#[test]
fn a_node_that_comes_back_votes() {
    let mut cluster = Plan::voters(3).durable().start();
    cluster.commit_everywhere(0, json!("before"));
    for place in 0..3 {
        let life = cluster.knows(place).incarnation;
        cluster.lose(place);
        cluster.renew(place);
        cluster.commit_everywhere(place, json!(place));
        assert_eq!(cluster.knows(place).incarnation, life);
        assert!(cluster.knows(place).is_voter());
    }
    let leader = cluster.wait_leader();
    cluster.lose(leader);
    let next = cluster.wait_leader_among((0..3).filter(|&place| place != leader));
    cluster.commit_everywhere(next, json!("by two that came back"));
}

// ---------------------------------------------------------------- what is refused

/// Two nodes on one folder: the second is refused and says which folder, the first goes
/// on; once that is stopped, the folder is free. Pitfall 61.
#[test]
fn a_folder_has_one_node_at_a_time() {
    let folder = Folder::new();
    let config = || {
        let keys = json!({"data_dir": folder.path()});
        single().with(keys).expect("the keys are sound")
    };
    let first = started(&config(), "single");
    let index = ask(&first, json!(1)).index;
    // At another address: the folder is all that they have in common.
    let second = RaftNode::new(config(), "single");
    let Err(Error::Io { doing, source, .. }) = second else { panic!("{second:?}") };
    assert!(doing.contains(folder.path().join("single").to_str().expect("text")), "{doing}");
    assert!(source.to_string().contains("another node"), "{source}");
    assert!(ask(&first, json!(2)).index > index, "the first goes on");

    first.stop();
    let second = started(&config(), "single");
    until("what the first had", || {
        second.check_committed_entry().entry.is_some_and(|entry| entry.value() == json!(2))
    });
    let error = first.start().expect_err("the second has the folder");
    assert!(matches!(error, Error::Io { .. }), "{error}");
    assert_eq!(first.check_committed_entry().role, Role::Stopped);
    drop(second);
    first.start().expect("the folder is free again");
    ask(&first, json!(3));
}

/// Another node's folder under this one's name is refused, by whose it is.
#[test]
fn another_nodes_folder_is_refused() {
    let mut cluster = Plan::voters(3).durable().start();
    cluster.commit_everywhere(0, json!("before"));
    cluster.lose(1);
    cluster.lose(2);
    let (folder, other, aside) =
        (cluster.folder(1), cluster.folder(2), cluster.folder(1).with_file_name("aside"));
    fs::rename(&folder, &aside).expect("it can be renamed");
    fs::rename(&other, &folder).expect("it can be renamed");
    let error = cluster.try_new(1).expect_err("it is that of another");
    assert_refers(&error, &folder);
    let told = error.to_string();
    assert!(told.contains("node1") && told.contains("node2"), "{told}");

    // It was left as it was.
    fs::rename(&folder, &other).expect("it can be renamed");
    fs::rename(&aside, &folder).expect("it can be renamed");
    cluster.renew(1);
    cluster.renew(2);
    cluster.commit_everywhere(1, json!("after"));
}

/// The folder of a node of the same name in another cluster is refused where the file
/// shows it, by its members.
#[test]
fn another_clusters_folder_is_refused() {
    let folders = [Folder::new(), Folder::new()];
    let config = |number: usize, others: &str| {
        let names = ["same".to_string(), format!("{others}1"), format!("{others}2")];
        let config = Config::new(names.map(|name| (name, address()))).expect("it is sound");
        let keys = json!({"data_dir": folders[number].path()});
        (config.with(keys).expect("the keys are sound"), others.to_string())
    };
    let run = |(config, others): &(Config, String)| {
        let names = ["same".to_string(), format!("{others}1"), format!("{others}2")];
        let nodes = names.map(|name| started(config, &name));
        ask(&nodes[0], json!(others));
    };
    let clusters = [config(0, "here"), config(1, "there")];
    clusters.iter().for_each(run);
    let [here, there] = [0, 1].map(|number| folders[number].path().join("same"));
    fs::remove_dir_all(&here).expect("it can be removed");
    fs::rename(&there, &here).expect("it can be renamed");
    let error = RaftNode::new(&clusters[0].0, "same").expect_err("it is that of another");
    assert_refers(&error, &here);
    let told = error.to_string();
    assert!(told.contains("there1") && told.contains("there2"), "{told}");
}

/// The folder of a cluster whose nodes have the same names cannot be told by the file.
/// Its node takes no part in this cluster, and this cluster none in its own.
#[test]
fn a_stranger_of_the_same_name_takes_no_part() {
    let keys = || json!({"request_timeout_ms": 700});
    let mut here = Plan::voters(3).durable().keys(keys()).start();
    here.commit_everywhere(0, json!("here"));
    let mut there = Plan::voters(3).durable().keys(keys()).start();
    let index = there.commit_everywhere(0, json!("there"));
    here.lose(0);
    there.lose(0);
    fs::remove_dir_all(here.folder(0)).expect("it can be removed");
    fs::rename(there.folder(0), here.folder(0)).expect("it can be renamed");
    here.renew(0);
    let error = refusal(here.node(0), json!("never"));
    assert!(matches!(error, RequestError::Refused { .. } | RequestError::Unknown), "{error}");
    let known = here.knows(0);
    assert!(matches!(known.role, Role::Follower | Role::Candidate), "it is {:?}", known.role);
    assert!(known.entry.is_none_or(|entry| entry.index == index && entry.value() == "there"));
    let reply = until_some("a commit by the other two", || {
        here.node(1).client_request(json!("here, too")).ok()?.wait().ok()
    });
    here.wait_entry(1..3, reply.index);
    assert!(here.knows(0).entry.is_none_or(|entry| entry.value() == "there"));
}

/// An error of the storage that is about this folder, or a file in it.
#[track_caller]
fn assert_refers(error: &Error, folder: &Path) {
    let Error::Storage { file, problem, remedy, .. } = error else { panic!("{error:?}") };
    assert!(Path::new(file).starts_with(folder), "{file} is not in {}", folder.display());
    assert!(!problem.is_empty() && !remedy.is_empty(), "{error}");
}

/// What `inspect` tells of a folder, and whether it is sound.
fn inspected(folder: &Path) -> (bool, String) {
    let mut told = Vec::new();
    let sound = kontiki::inspect(folder, &mut told).expect("it can be read");
    (sound, String::from_utf8(told).expect("it is text"))
}

/// A byte of an acknowledged entry changes: the node is refused with file and place, and
/// left as it is, while the others go on. With its folder removed it is a new life that
/// the others bring up to date. Pitfall 57.
#[test]
fn damage_is_refused_with_its_place_and_mended_by_the_others() {
    let mut cluster = tally(Plan::voters(3).durable()).start();
    for n in 0..100 {
        ask(cluster.node(n % 3), json!({"n": format!("value {n}!")}));
    }
    let entries = |node: &RaftNode| counted(node)["entries"].clone();
    assert_eq!(entries(cluster.node(2)), json!(100));
    cluster.lose(2);
    let folder = cluster.folder(2);
    let (sound, told) = inspected(&folder);
    assert!(sound, "{told}");
    for word in ["log-1", "record", "term ", "entry ", "members", "node2"] {
        assert!(told.contains(word), "no {word:?} in:\n{told}");
    }

    let path = folder.join("log-1");
    let mut bytes = fs::read(&path).expect("the segment is there");
    let wanted = b"value 50!";
    let at = bytes.windows(wanted.len()).position(|window| window == wanted);
    let at = at.expect("entries are in the log as they are");
    bytes[at + 6] ^= 1;
    fs::write(&path, &bytes).expect("it can be written");
    for _ in 0..2 {
        let error = cluster.try_new(2).expect_err("it is damaged");
        assert_refers(&error, &path);
        let Error::Storage { offset, .. } = error else { panic!("{error}") };
        let distance = at as u64 - offset;
        assert!(distance < 4096, "byte {at} was changed, byte {offset} is told");
        assert!(fs::read(&path).is_ok_and(|now| now == bytes), "it was left as it is");
        let (sound, told) = inspected(&folder);
        assert!(!sound, "{told}");
        assert!(told.contains("a start fails") && told.contains(&offset.to_string()), "{told}");
    }
    ask(cluster.node(0), json!({"n": "meanwhile"}));

    fs::remove_dir_all(&folder).expect("it can be removed");
    cluster.renew(2);
    cluster.wait_voter(2);
    assert_eq!(entries(cluster.node(2)), json!(101));
    assert_eq!(ask(cluster.node(2), json!({"n": "after"})).value, json!(1));
}

// ---------------------------------------------------------------- a disk that fails

/// The next segment of a node's log cannot be made: it takes no part any more, says why
/// in its log, once, and at every call, while the others go on. Started again it has a
/// look for itself and goes on. Pitfall 56.
#[test]
fn a_node_whose_disk_fails_stops_says_why_and_can_be_started_anew() {
    narration();
    let cluster = tally(Plan::voters(3).named("failing").durable()).start();
    cluster.commit_everywhere(0, json!("before"));
    let life = cluster.knows(1).incarnation;
    // Its name is taken, so it cannot be made; a start removes it as a leftover.
    File::create(cluster.folder(1).join("log-2")).expect("it can be made");
    let long = "x".repeat(300_000);
    let mut n = 0;
    until("the failure of one", || {
        n += 1;
        ask(cluster.node(0), json!({"n": n, "long": long}));
        cluster.knows(1).role == Role::Stopped
    });
    for request in [Request::from(json!(1)), Request::query(&()), Request::lookup("id")] {
        let error = refusal(cluster.node(1), request);
        let RequestError::Failed { reason, .. } = &error else { panic!("{error}") };
        assert!(reason.contains("log-2") && reason.contains("exists"), "{reason}");
    }
    let said = || -> Vec<String> {
        let lines = narration().into_iter();
        let errors = lines.filter(|(level, _)| *level == log::Level::Error);
        errors.map(|(_, line)| line).filter(|line| line.starts_with("failing1")).collect()
    };
    until("a line that says so", || !said().is_empty());
    for _ in 0..20 {
        n += 1;
        assert_eq!(ask(cluster.node(2), json!({"n": n})).value, json!(1));
    }
    assert_eq!(said().len(), 1, "{:?}", said());
    assert!(said()[0].contains("log-2"), "{:?}", said());

    cluster.node(1).start().expect("it starts anew");
    n += 1;
    assert_eq!(ask(cluster.node(1), json!({"n": n})).value, json!(1));
    assert_eq!(counted(cluster.node(1)), counted(cluster.node(0)));
    assert!(cluster.knows(1).is_voter(), "it kept its vote");
    assert_eq!(cluster.knows(1).incarnation, life);
}
