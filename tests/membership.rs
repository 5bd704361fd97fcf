//! Members that are added and removed by request, over real sockets: what is done, what is
//! refused and why, who waits, and who is silent.

mod common;

use std::time::{Duration, Instant};

use common::narration::narration;
use common::{Cluster, Plan, address, answer, ask, ms, refusal, until, until_some};
use kontiki::{Config, Event, RaftNode, Request, RequestError, Role};
use serde_json::{Value, json};

/// With timeouts of this length no machine is so busy that a leader is deposed for it.
fn calm(mut keys: Value) -> Value {
    keys["heartbeat_ms"] = json!(50);
    keys["election_timeout_ms"] = json!([700, 1_400]);
    keys
}

/// Why a request was refused.
#[track_caller]
fn reason(node: &RaftNode, request: Request) -> String {
    match refusal(node, request) {
        RequestError::Refused { reason, .. } => reason,
        error => panic!("{error}"),
    }
}

fn roles(members: &Value) -> Vec<(&str, &str)> {
    let members = members.as_object().expect("a map of the members");
    let role = |node: &Value| if node["role"] == "voter" { "voter" } else { "learner" };
    members.iter().map(|(name, node)| (name.as_str(), role(node))).collect()
}

/// Leader and term stay what they are for several election timeouts, while values are
/// committed all the time.
#[track_caller]
fn nobody_is_disturbed(cluster: &Cluster, through: usize) {
    let before = cluster.knows(through);
    let since = Instant::now();
    while since.elapsed() < ms(3_500) {
        ask(cluster.node(through), json!("undisturbed"));
        std::thread::sleep(ms(5));
    }
    let after = cluster.knows(through);
    assert_eq!((after.term, after.leader), (before.term, before.leader));
}

// ---------------------------------------------------------------- what is done

/// A node whose file names it beside the members, and which they do not know, founds
/// nothing and does not campaign: it waits, and says for whom, in `Committed` and to
/// whoever asks it something. Added, it votes; the reply says who the members are, and the
/// node that was asked shows it. Pitfall 47.
#[test]
fn a_newcomer_waits_until_it_is_added_and_then_votes() {
    let mut cluster = Plan::voters(3).keys(calm(json!({"request_timeout_ms": 2_000}))).start();
    cluster.commit_everywhere(0, json!("before"));
    let new = cluster.newcomer();
    until("it to say for whom it waits", || cluster.knows(new).waiting_for == cluster.names[..3]);
    let told = reason(cluster.node(new), json!("never").into());
    assert!(told.contains("for want of node0, node1, node2"), "{told}");
    assert!(told.contains("it has to be asked to add this node"), "{told}");
    let known = cluster.knows(new);
    assert!(known.members.is_empty() && !known.is_voter());
    assert_eq!((known.role, known.term, known.leader), (Role::Fresh, 0, None));

    let reply = ask(cluster.node(1), cluster.adding(new));
    let voter = "voter";
    let expected = [("node0", voter), ("node1", voter), ("node2", voter), ("node3", voter)];
    assert_eq!(roles(&reply.value), expected);
    let at = cluster.addresses[new];
    assert_eq!(reply.value["node3"]["ip"], at.ip().to_string());
    assert_eq!(reply.value["node3"]["port"], at.port());
    assert_eq!(cluster.standing(1, new), (1, 0), "the node that was asked shows it at once");
    cluster.wait_voter(new);
    assert!(cluster.knows(new).waiting_for.is_empty());
    cluster.commit_everywhere(new, json!("by the newcomer"));
    // Four voters: three are needed, and one of the three is the newcomer.
    let gone = (0..3).find(|&place| cluster.knows(place).role != Role::Leader);
    cluster.lose(gone.expect("two of them follow"));
    let there = (0..4).find(|&place| cluster.is_there(place)).expect("there are three");
    ask(cluster.node(there), json!("by three of four"));
}

/// Learners, of the file and by request, receive all, take requests and queries, and
/// never vote, however many they are; by request one becomes a voter. Pitfall 44.
#[test]
fn learners_serve_and_do_not_vote_until_they_are_made_voters() {
    let keys = json!({"request_timeout_ms": 1_500});
    let mut cluster = Plan::voters(2).learners(1).keys(keys).start();
    cluster.commit_everywhere(0, json!("before"));
    for _ in 0..2 {
        let new = cluster.newcomer();
        let request = Request::add_learner(&cluster.names[new], cluster.addresses[new]);
        let reply = ask(cluster.node(2), request);
        assert_eq!(reply.value[&cluster.names[new]]["role"], "learner");
    }
    for place in 2..5 {
        until("it to learn", || cluster.knows(place).role == Role::Learner);
        let reply = ask(cluster.node(place), json!(place));
        assert_eq!(ask(cluster.node(place), Request::query(&())).value, json!(place));
        cluster.wait_entry(0..5, reply.index);
        assert!(!cluster.knows(place).is_voter());
    }
    // One of two voters and three learners are no majority.
    let gone = cluster.wait_leader();
    cluster.node(gone).stop();
    for place in (0..5).filter(|&place| place != gone) {
        let error = refusal(cluster.node(place), json!("never"));
        assert!(matches!(error, RequestError::Refused { .. } | RequestError::Unknown), "{error}");
        assert_ne!(cluster.knows(place).role, Role::Leader);
    }
    assert!((2..5).all(|place| cluster.knows(place).role == Role::Learner));
    cluster.node(gone).start().expect("it starts again");
    until("a commit", || {
        let asked = cluster.node(3).client_request(json!("after"));
        asked.is_ok_and(|mut pending| answer("a command", &mut pending).is_ok())
    });
    let reply = ask(cluster.node(4), cluster.adding(3));
    assert_eq!(reply.value["node3"]["role"], "voter");
    cluster.wait_voter(3);
    // Of three voters one may be lost.
    cluster.node(gone).stop();
    until("a commit with the new voter's help", || {
        let asked = cluster.node(2).client_request(json!("by two of three"));
        asked.is_ok_and(|mut pending| answer("a command", &mut pending).is_ok())
    });
}

/// Whoever listens hears of the members at each node, in order, the newcomer's own
/// included.
#[test]
fn events_tell_of_the_members() {
    let mut cluster = Plan::voters(2).make();
    let events = cluster.configs[0].events();
    cluster.all().for_each(|node| node.start().expect("it starts"));
    cluster.commit_everywhere(0, json!("before"));
    let leader = cluster.wait_leader();
    let new = cluster.grow(leader);
    cluster.wait_voter(new);
    cluster.commit_everywhere(0, json!("between"));
    ask(cluster.node(new), Request::remove_member(&cluster.names[1 - leader]));
    let mut told: Vec<(String, u64, Vec<String>, Vec<String>)> = Vec::new();
    let gone = vec![cluster.names[leader].clone(), "node2".to_string()];
    until("the last members at those that are left", || {
        told.extend(events.try_iter().filter_map(|event| match event {
            Event::Members { node, index, voters, learners, .. } => {
                Some((node, index, voters, learners))
            }
            _ => None,
        }));
        gone.iter()
            .all(|name| told.iter().any(|(node, _, voters, _)| node == name && *voters == gone))
    });
    let at_leader: Vec<_> =
        told.iter().filter(|(node, ..)| *node == cluster.names[leader]).collect();
    let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
    let steps: Vec<_> =
        at_leader.iter().map(|(_, _, voters, learners)| (voters, learners)).collect();
    let two = names(&["node0", "node1"]);
    let all = names(&["node0", "node1", "node2"]);
    let expected = [(&two, &vec![]), (&two, &names(&["node2"])), (&all, &vec![]), (&gone, &vec![])];
    assert_eq!(steps, expected);
    assert!(at_leader.is_sorted_by(|a, b| a.1 < b.1));
}

// ---------------------------------------------------------------- what is refused

/// Each refusal says why and names whom it is about, at whichever node it is asked, and
/// leaves members, leader and term as they are.
#[test]
fn each_refusal_says_why_and_changes_nothing() {
    let cluster = Plan::voters(3).keys(calm(json!({}))).start();
    cluster.commit_everywhere(0, json!("before"));
    let before = cluster.knows(0);
    let names = |members: &[kontiki::Member]| {
        members.iter().map(|member| (member.name.clone(), member.incarnation)).collect::<Vec<_>>()
    };
    let nowhere = address();
    for through in 0..3 {
        let node = cluster.node(through);
        assert_eq!(reason(node, Request::remove_member("node7")), "no member is called node7");
        assert_eq!(reason(node, cluster.adding(2)), "node2 is a member already");
        let elsewhere = Request::add_member("node2", nowhere);
        assert_eq!(reason(node, elsewhere), "node2 is a member already");
        let learner = Request::add_learner("node2", cluster.addresses[2]);
        assert_eq!(reason(node, learner), "node2 is a member already");
        let taken = cluster.addresses[1];
        assert_eq!(
            reason(node, Request::add_member("node7", taken)),
            format!("another member is at {taken} already")
        );
        let told = reason(node, Request::add_member("node7", nowhere));
        assert!(
            told.starts_with(&format!("node7 does not answer at {nowhere}: start it")),
            "{told}"
        );
    }
    for bad in [Request::add_member("", nowhere), Request::remove_member("x".repeat(65))] {
        let error = refusal(cluster.node(0), bad);
        assert!(matches!(error, RequestError::Invalid { .. }), "{error}");
    }
    let unspecified: std::net::SocketAddr = ([0, 0, 0, 0], 5565).into();
    let error = refusal(cluster.node(0), Request::add_member("node7", unspecified));
    assert!(matches!(error, RequestError::Invalid { .. }), "{error}");
    let after = cluster.knows(0);
    assert_eq!(names(&after.members), names(&before.members));
    assert_eq!((after.leader, after.term), (before.leader, before.term));
}

/// One change at a time: while a newcomer is waited for, another change is refused, and
/// commands go on. Pitfall 42.
#[test]
fn another_change_under_way_is_refused() {
    let cluster = Plan::voters(3).keys(calm(json!({}))).start();
    cluster.commit_everywhere(0, json!("before"));
    let leader = cluster.wait_leader();
    let absent = Request::add_member("node7", address());
    let mut first = cluster.node(leader).client_request(absent).expect("it is taken");
    for through in 0..3 {
        let told = reason(cluster.node(through), Request::remove_member("node2"));
        assert!(told.starts_with("another change of the members is under way"), "{told}");
        let told = reason(cluster.node(through), Request::transfer_leadership("node1"));
        assert!(told.starts_with("another change of the members is under way"), "{told}");
        ask(cluster.node(through), json!(through));
    }
    assert_eq!(first.try_reply(), Ok(None), "it has not ended yet");
    let error = answer("the first change", &mut first).unwrap_err();
    assert!(error.to_string().contains("node7 does not answer"), "{error}");
    // Then it is the next one's turn.
    ask(cluster.node(leader), Request::remove_member(&cluster.names[(leader + 1) % 3]));
}

/// Of two that are asked at once one is done, and the other is done or told why not; and
/// so for many who ask the same.
#[test]
fn of_many_changes_at_once_each_ends() {
    let cluster = Plan::voters(5).start();
    cluster.commit_everywhere(0, json!("before"));
    let asked: Vec<_> = (0..20)
        .map(|n| {
            let request = Request::remove_member(if n % 2 == 0 { "node3" } else { "node4" });
            cluster.node(n % 3).client_request(request).expect("it is taken")
        })
        .collect();
    let mut done = 0;
    for mut pending in asked {
        match answer("a change", &mut pending) {
            Ok(_) => done += 1,
            Err(RequestError::Refused { reason, .. }) => assert!(
                reason.starts_with("another change") || reason.starts_with("no member is called"),
                "{reason}"
            ),
            Err(error) => panic!("{error}"),
        }
    }
    assert!((1..=2).contains(&done), "{done} were done");
    assert_eq!(cluster.voters(0).len(), 5 - done);
}

/// The last voter stays; and so does one without whom those that are left could not be
/// reached to agree on anything.
#[test]
fn a_removal_that_would_end_the_cluster_is_refused() {
    let cluster = Plan::voters(1).learners(1).start();
    cluster.commit_everywhere(0, json!("before"));
    for through in 0..2 {
        let told = reason(cluster.node(through), Request::remove_member("node0"));
        assert_eq!(told, "without node0 no voter would be left");
    }
    ask(cluster.node(1), Request::remove_member("node1"));
    ask(cluster.node(0), json!("alone"));

    let cluster = Plan::voters(3).keys(calm(json!({}))).start();
    cluster.commit_everywhere(0, json!("before"));
    let leader = cluster.wait_leader();
    let (gone, other) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.node(gone).stop();
    let name = &cluster.names[other];
    // It takes the leader a moment to know that one is gone.
    let told = until_some("the leader to miss one", || {
        cluster.knows(leader).members[gone]
            .heard_ago
            .is_some_and(|ago| ago > ms(1_500))
            .then(|| reason(cluster.node(leader), Request::remove_member(name)))
    });
    assert!(told.starts_with(&format!("without {name} too few of the voters")), "{told}");
    ask(cluster.node(other), json!("they go on"));
    // The one that is gone can go for good.
    ask(cluster.node(other), Request::remove_member(&cluster.names[gone]));
    assert_eq!(cluster.voters(other).len(), 2);
}

/// Nine vote, and no tenth.
#[test]
fn a_tenth_voter_is_refused() {
    let cluster = Plan::voters(9).keys(calm(json!({}))).start();
    cluster.commit_everywhere(0, json!("before"));
    let told = reason(cluster.node(4), Request::add_member("node9", address()));
    assert!(told.starts_with("a cluster has at most 9 voters"), "{told}");
}

/// A node that remembers another cluster is not taken in, and says nothing in either.
/// Pitfall 47.
#[test]
fn a_node_of_another_cluster_is_refused() {
    let folder = common::folder::Folder::new();
    let cluster = Plan::voters(1).start();
    cluster.commit_everywhere(0, json!("here"));
    let (name, at) = ("node1", address());
    let keys = json!({"data_dir": folder.path(), "request_timeout_ms": 700});
    let alone = Config::new([(name, at)]).expect("it is sound").with(keys.clone()).expect("so");
    let foreign = RaftNode::new(&alone, name).expect("it can be made");
    foreign.start().expect("it starts");
    ask(&foreign, json!("elsewhere"));
    drop(foreign);
    let both = Config::new([("node0", cluster.addresses[0]), (name, at)]).expect("it is sound");
    let both = both.with(keys).expect("the keys are sound");
    let foreign = RaftNode::new(&both, name).expect("it can be made");
    foreign.start().expect("it starts");
    let told = reason(cluster.node(0), Request::add_member(name, at));
    assert!(told.starts_with(&format!("{name} at {at} remembers another cluster")), "{told}");
    assert_eq!(cluster.knows(0).members.len(), 1);
    ask(&foreign, json!("elsewhere, and still so"));
    // With nothing in its folder it is anybody.
    drop(foreign);
    std::fs::remove_dir_all(folder.path().join(name)).expect("it can be removed");
    let anew = RaftNode::new(&both, name).expect("it can be made");
    anew.start().expect("it starts");
    ask(cluster.node(0), Request::add_member(name, at));
    until("it to vote", || anew.check_committed_entry().is_voter());
}

// ---------------------------------------------------------------- who is removed

/// A removed voter and a removed learner tell their program so, refuse what they are
/// asked, and disturb nobody: not now, not when they are started again, from memory or
/// from the disk. Added again they are members like any other. Pitfalls 43, 44.
#[test]
fn who_is_removed_is_silent_until_it_is_added_again() {
    for durable in [false, true] {
        let plan = Plan::voters(3).learners(1).keys(calm(json!({"request_timeout_ms": 2_000})));
        let mut cluster = plan.durable_if(durable).start();
        cluster.commit_everywhere(0, json!("before"));
        let leader = cluster.wait_leader();
        let (voter, left) = ((leader + 1) % 3, (leader + 2) % 3);
        for removed in [voter, 3] {
            let name = cluster.names[removed].clone();
            ask(cluster.node(left), Request::remove_member(&name));
            until("it to be told", || cluster.knows(removed).role == Role::Removed);
            for request in [Request::from(json!("never")), Request::query(&())] {
                let told = reason(cluster.node(removed), request);
                assert!(told.contains("removed from its cluster"), "{told}");
            }
        }
        nobody_is_disturbed(&cluster, left);
        for removed in [voter, 3] {
            match durable {
                true => {
                    cluster.lose(removed);
                    cluster.renew(removed);
                }
                false => {
                    cluster.node(removed).stop();
                    cluster.node(removed).start().expect("it starts again");
                }
            }
            until("it to be told once more", || cluster.knows(removed).role == Role::Removed);
        }
        nobody_is_disturbed(&cluster, left);
        assert_eq!(cluster.voters(left).len(), 2);

        let name = &cluster.names[voter];
        let reply = ask(cluster.node(left), cluster.adding(voter));
        assert_eq!(reply.value[name]["role"], "voter");
        cluster.wait_voter(voter);
        assert_eq!(cluster.knows(voter).role, Role::Follower);
        let index = ask(cluster.node(voter), json!("again")).index;
        cluster.wait_entry(0..3, index);
        // And its vote counts: without one of the others it makes up the majority.
        cluster.node(leader).stop();
        cluster.wait_leader_among([voter, left]);
        ask(cluster.node(voter), json!("by the two"));
    }
}

/// A member that is removed while it is away hears of it when it comes back, and its
/// campaigns, of which it began many, cost nobody a term. Pitfall 43.
#[test]
fn who_was_removed_while_it_was_away_disturbs_nobody() {
    let keys = calm(json!({"request_timeout_ms": 2_000}));
    let cluster = Plan::voters(4).keys(keys).relay(51).start();
    cluster.commit_everywhere(0, json!("before"));
    let leader = cluster.wait_leader();
    let (away, left) = ((leader + 1) % 4, (leader + 2) % 4);
    cluster.relay().cut_off(&[away]);
    until("it to campaign", || cluster.knows(away).role == Role::Candidate);
    ask(cluster.node(left), Request::remove_member(&cluster.names[away]));
    let before = cluster.knows(left);
    cluster.relay().heal();
    until("it to be told", || cluster.knows(away).role == Role::Removed);
    nobody_is_disturbed(&cluster, left);
    assert_eq!(cluster.knows(left).term, before.term);
}

/// A volatile member that was removed and lost its memory is nobody the members know: it
/// waits, does not take its old place by itself, and is let in when it is asked for.
/// Pitfalls 45, 47.
#[test]
fn who_was_removed_and_forgot_it_waits() {
    let keys = calm(json!({"request_timeout_ms": 1_500}));
    let mut cluster = Plan::voters(3).keys(keys).start();
    cluster.commit_everywhere(0, json!("before"));
    let leader = cluster.wait_leader();
    let (removed, left) = ((leader + 1) % 3, (leader + 2) % 3);
    ask(cluster.node(left), Request::remove_member(&cluster.names[removed]));
    cluster.lose(removed);
    cluster.renew(removed);
    until("it to wait for the others", || {
        let waits = cluster.knows(removed).waiting_for;
        waits.len() == 2 && !waits.contains(&cluster.names[removed])
    });
    nobody_is_disturbed(&cluster, left);
    assert_eq!(cluster.knows(removed).role, Role::Fresh);
    assert_eq!(cluster.standing(left, removed), (0, 0));
    ask(cluster.node(left), cluster.adding(removed));
    cluster.wait_voter(removed);
}

// ---------------------------------------------------------------- the file

/// A file that says something else than the members do is warned of once a start, with
/// each difference and the request that would bring it about; and it changes nothing.
/// Pitfall 47.
#[test]
fn a_file_that_differs_is_told_once_and_changes_nothing() {
    let told = |name: &str| {
        let said = format!("{name} ");
        let lines = narration().into_iter().map(|(_, line)| line);
        let mine = lines.filter(|line| line.starts_with(&said));
        mine.filter(|line| line.contains("the file and the members differ")).collect::<Vec<_>>()
    };
    narration(); // listens from now on
    let mut cluster = Plan::voters(2).named("filed").durable().start();
    cluster.commit_everywhere(0, json!("before"));
    let new = cluster.grow(0);
    cluster.wait_voter(new);

    // It knows nothing of the third, and says that the second is elsewhere, that it learns
    // only, and that there is a fourth.
    let (elsewhere, fourth) = (address(), address());
    let node = |address: std::net::SocketAddr, role: &str| json!({"ip": address.ip().to_string(), "port": address.port(), "role": role});
    let own = cluster.addresses[0];
    let nodes = json!({
        "filed0": node(own, "voter"),
        "filed1": node(elsewhere, "learner"),
        "filed9": node(fourth, "voter"),
    });
    cluster.configs[0] = cluster.configs[0].clone().with(json!({ "nodes": nodes })).expect("so");
    let listened = told("filed0").len();
    cluster.lose(0);
    cluster.renew(0);
    let line = until_some("the warning", || told("filed0").get(listened).cloned());
    for part in [
        format!("filed9 is no member: Request::add_member(\"filed9\", {fourth})"),
        format!("filed1 is a member at {}, and the file says {elsewhere}", cluster.addresses[1]),
        "Request::remove_member(\"filed1\")".to_string(),
        format!("filed2 at {} is a member and not in the file", cluster.addresses[2]),
    ] {
        assert!(line.contains(&part), "no {part:?} in: {line}");
    }
    let index = cluster.commit_everywhere(0, json!("as if nothing had been"));
    let since = Instant::now();
    until("some time for it to say so again", || {
        ask(cluster.node(0), json!("more"));
        since.elapsed() > Duration::from_secs(3)
    });
    assert_eq!(told("filed0").len(), listened + 1);
    assert!(told("filed2").is_empty(), "its file is as the members are: {:?}", told("filed2"));
    for at in 0..3 {
        assert_eq!(cluster.voters(at), ["filed0", "filed1", "filed2"]);
    }
    cluster.wait_entry(0..3, index);
}
