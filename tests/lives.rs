//! Nodes that lose their memory, one or too many of them, over real sockets: who has its
//! vote back, what stops and says so, and what is never founded over what there is.

mod common;

use std::net::SocketAddr;

use common::machine::Tally;
use common::relay::Weather;
use common::{Cluster, Plan, answer, ask, ms, refusal, until, until_some};
use kontiki::{Config, RaftNode, Request, RequestError, Role};
use serde_json::{Value, json};

fn tally(plan: Plan) -> Plan {
    plan.dress(|config| config.state_machine(|_| Tally::default()))
}

/// What a node's machine holds, as a linearizable read has it.
fn counted(cluster: &Cluster, place: usize) -> Value {
    ask(cluster.node(place), Request::query(&())).value
}

/// A volatile node is lost and another made under its name, in bad weather: it joins as
/// a learner, catches up, serves requests and reads, and has its vote back by itself: with
/// another voter lost it makes up the majority, and leads or follows. Pitfalls 45, 46.
#[test]
fn a_node_that_lost_its_memory_catches_up_and_votes_again() {
    let keys = json!({"request_timeout_ms": 10_000});
    let mut cluster = tally(Plan::voters(3).relay(9).keys(keys)).start();
    for n in 0..50 {
        ask(cluster.node(n % 3), json!({ "n": n }));
    }
    cluster.relay().weather(Weather::all(20));
    let leader = cluster.wait_leader();
    let lost = (leader + 1) % 3;
    let before = cluster.knows(lost).incarnation;
    cluster.lose(lost);
    cluster.renew(lost);
    cluster.wait_voter(lost);
    assert_ne!(cluster.knows(lost).incarnation, before);
    cluster.relay().weather(Weather::default());
    assert_eq!(ask(cluster.node(lost), json!({"n": 50})).value, json!(1));
    assert_eq!(counted(&cluster, lost), json!({"values": 51, "twice": [], "entries": 51}));
    let id = Request::command(&json!({"n": 51})).id("by the new life");
    let reply = ask(cluster.node(lost), id);
    assert_eq!(ask(cluster.node(lost), Request::lookup("by the new life")), reply);

    // One more voter gone: two of three are left, and the vote of the new life is one of
    // them.
    let leader = cluster.wait_leader();
    let gone = if leader == lost { (lost + 1) % 3 } else { leader };
    let last = 3 - gone - lost;
    cluster.node(gone).stop();
    cluster.wait_leader_among([last, lost]);
    for (n, place) in [(52, last), (53, lost)] {
        assert_eq!(ask(cluster.node(place), json!({ "n": n })).value, json!(1));
    }
    cluster.node(gone).start().expect("it starts again");
    let reply = ask(cluster.node(gone), json!({"n": 54}));
    cluster.wait_entry(0..3, reply.index);
    for place in 0..3 {
        assert_eq!(counted(&cluster, place), json!({"values": 55, "twice": [], "entries": 55}));
    }
}

/// The vote of a life that is over counts for nobody: while one of three is cut off, what
/// came back in another's place makes no majority with the third. It is no voter, nobody
/// leads, nothing is committed; healed, all three vote. Pitfalls 44, 45.
#[test]
fn a_node_that_lost_its_memory_has_no_vote_before_it_is_admitted() {
    let keys = json!({"request_timeout_ms": 700});
    let mut cluster = tally(Plan::voters(3).relay(16).keys(keys)).start();
    cluster.commit_everywhere(0, json!("before"));
    let leader = cluster.wait_leader();
    let (lost, away) = ((leader + 1) % 3, (leader + 2) % 3);
    let before = cluster.knows(leader);
    cluster.relay().cut_off(&[away]);
    cluster.lose(lost);
    cluster.renew(lost);
    until("the leader to step down", || cluster.knows(leader).role != Role::Leader);
    // Time enough for many elections, if there could be one.
    for n in 0..3 {
        for place in [leader, lost] {
            let error = refusal(cluster.node(place), json!({ "never": n }));
            assert!(
                matches!(error, RequestError::Refused { .. } | RequestError::Unknown),
                "{error}"
            );
            assert_eq!(cluster.leader_among(0..3), None);
            assert!(!cluster.knows(lost).is_voter());
        }
    }
    let known = cluster.knows(leader);
    assert_eq!(known.entry, before.entry);
    assert_eq!(known.members.iter().filter(|member| member.voter).count(), 3, "as agreed");
    cluster.relay().heal();
    cluster.wait_voter(lost);
    let last = cluster.commit_everywhere(lost, json!("after"));
    cluster.wait_entry(0..3, last);
    for place in 0..3 {
        assert_eq!(counted(&cluster, place)["twice"], json!([]));
    }
}

/// The same voter, and the same learner, lose their memory again and again: each
/// new life takes the place of the last one with its role, and the members do not grow.
/// Pitfall 45.
#[test]
fn a_node_that_is_lost_again_and_again_is_one_member() {
    let mut cluster = Plan::voters(3).learners(1).relay(14).start();
    cluster.commit_everywhere(0, json!("before"));
    for (lost, expected) in [(2, (1, 0)), (3, (0, 1))] {
        for round in 0..4 {
            cluster.lose(lost);
            cluster.renew(lost);
            match expected {
                (1, 0) => cluster.wait_voter(lost),
                _ => until("it to learn", || cluster.knows(lost).role == Role::Learner),
            }
            cluster.commit_everywhere(lost, json!([lost, round]));
            let life = Some(cluster.knows(lost).incarnation);
            for at in 0..4 {
                until(&format!("the new life, as {} has it", cluster.names[at]), || {
                    let members = cluster.knows(at).members;
                    members.iter().any(|member| member.incarnation == life)
                });
                assert_eq!(cluster.standing(at, lost), expected, "as {} has it", cluster.names[at]);
                assert_eq!(cluster.knows(at).members.len(), 4);
            }
        }
    }
}

/// The founder is lost at any moment of the founding, in good weather and in bad,
/// and another takes its place: the others found without its record or go on with
/// it, but never stand still.
#[test]
fn a_founder_that_is_lost_amid_the_founding() {
    for round in 0..20 {
        let mut cluster = Plan::voters(3).relay(100 + round).start();
        if round % 2 == 1 {
            cluster.relay().weather(Weather::all(20));
        }
        // How far it came by then is left to chance.
        std::thread::sleep(ms(2 * round));
        cluster.lose(0);
        cluster.renew(0);
        let node = cluster.node((round % 3) as usize);
        until("a commit", || {
            let pending = node.client_request(json!(round)).expect("it is taken");
            answer("a request amid founding", &mut { pending }).is_ok()
        });
    }
}

/// Two of three lose their memory: nothing is committed any more, no second
/// cluster is founded over the first, the one that remembers keeps what it has,
/// and all say how they stand. Pitfalls 45, 46, 47.
#[test]
fn two_of_three_lost_is_no_cluster_and_says_so() {
    let keys = json!({"request_timeout_ms": 700});
    let mut cluster = Plan::voters(3).keys(keys).relay(10).start();
    let index = cluster.commit_everywhere(0, json!("before"));
    for place in [0, 1] {
        cluster.lose(place);
    }
    for place in [0, 1] {
        cluster.renew(place);
    }
    for place in [0, 1] {
        until("the new ones to know of the old cluster", || {
            cluster.knows(place).waiting_for == ["node2"]
        });
        let error = refusal(cluster.node(place), json!("never"));
        let RequestError::Refused { reason, .. } = error else { panic!("{error}") };
        assert!(reason.contains("node2"), "{reason}");
        assert_eq!(cluster.knows(place).role, Role::Fresh);
    }
    until("the last one to be out of touch", || {
        let known = cluster.knows(2);
        known.leader.is_none() && known.quorum_ago.is_some_and(|ago| ago > ms(500))
    });
    let error = refusal(cluster.node(2), json!("never"));
    let told = "node0, node1 lost what they knew, and without them no majority";
    assert!(error.to_string().contains(told), "{error}");
    // Nor does it serve what it has: the two may have agreed on more.
    let error = refusal(cluster.node(2), Request::query(&()));
    assert!(error.to_string().contains(told), "{error}");
    assert_eq!(cluster.leader_among(0..3), None);
    assert_eq!(cluster.knows(2).entry.map(|entry| entry.index), Some(index));
}

/// A minority of a volatile five may lose its memory, again and again: two at a time,
/// until each was lost twice and nobody remembers the beginning; as long as they vote
/// again before the next are lost, what was committed stays. Pitfall 46.
#[test]
fn a_minority_of_five_may_lose_its_memory_again_and_again() {
    let mut cluster = tally(Plan::voters(5).relay(11)).start();
    for n in 0..20 {
        ask(cluster.node(n % 5), json!({ "n": n }));
    }
    let mut last = 0;
    for round in 0..5 {
        let lost = [2 * round % 5, (2 * round + 1) % 5];
        lost.iter().for_each(|&place| cluster.lose(place));
        // The others go on without them, if need be after an election.
        ask(cluster.node((2 * round + 2) % 5), json!({"n": 20 + 2 * round}));
        lost.iter().for_each(|&place| cluster.renew(place));
        lost.iter().for_each(|&place| cluster.wait_voter(place));
        last = ask(cluster.node(lost[0]), json!({"n": 21 + 2 * round})).index;
    }
    cluster.wait_entry(0..5, last);
    for place in 0..5 {
        let expected = json!({"values": 30, "twice": [], "entries": 30});
        assert_eq!(counted(&cluster, place), expected, "on {}", cluster.names[place]);
    }
}

/// A cluster of two whose leader loses its memory stops, and each says whom it lacks: the
/// one that remembers is half of the votes and elects nobody. Pitfall 48.
#[test]
fn a_cluster_of_two_that_lost_its_leaders_memory_stops() {
    let keys = json!({"request_timeout_ms": 700});
    let mut cluster = Plan::voters(2).keys(keys).relay(12).start();
    let index = cluster.commit_everywhere(0, json!("before"));
    let lost = cluster.wait_leader();
    let left = 1 - lost;
    cluster.lose(lost);
    cluster.renew(lost);
    let (name, lost_name) = (cluster.names[left].clone(), cluster.names[lost].clone());
    until("the new one to know whom it waits for", || {
        cluster.knows(lost).waiting_for == [name.as_str()]
    });
    let reason = until_some("the one that is left to say whose memory is lost", || {
        match refusal(cluster.node(left), json!("never")) {
            RequestError::Refused { reason, .. } => reason.contains(&lost_name).then_some(reason),
            error => panic!("{error}"),
        }
    });
    assert!(reason.contains("lost what they knew"), "{reason}");
    assert!(reason.contains("no majority"), "{reason}");
    let error = refusal(cluster.node(lost), json!("never"));
    assert!(matches!(&error, RequestError::Refused { .. }), "{error}");
    assert!(error.to_string().contains(&name), "{error}");
    assert_eq!(cluster.knows(left).entry.map(|entry| entry.index), Some(index));
    assert_eq!(cluster.knows(lost).entry, None);
    assert_eq!(cluster.leader_among(0..2), None);
}

/// A cluster of two whose follower loses its memory goes on, as often as that happens: its
/// leader takes the old vote away by itself, and gives one to what came back. Pitfall 48.
#[test]
fn a_cluster_of_two_that_lost_its_followers_memory_goes_on() {
    let mut cluster = tally(Plan::voters(2).relay(17)).start();
    let mut n = 0;
    for _ in 0..4 {
        cluster.commit_everywhere(n % 2, json!({ "n": n }));
        n += 1;
        let leader = cluster.wait_leader();
        cluster.lose(1 - leader);
        cluster.renew(1 - leader);
        cluster.wait_voter(1 - leader);
        // The other leads next, and is the one that remembers.
        ask(cluster.node(leader), Request::transfer_leadership(&cluster.names[1 - leader]));
    }
    for place in 0..2 {
        assert_eq!(counted(&cluster, place), json!({"values": n, "twice": [], "entries": n}));
    }
}

/// Until all voters of the file were there once nothing is founded, and a node
/// says whom it waits for; a majority will do if the file says so. Pitfall 47.
#[test]
fn founding_waits_for_all_unless_the_file_says_otherwise() {
    let keys = json!({"request_timeout_ms": 500});
    let cluster = Plan::voters(3).keys(keys).make();
    for place in [0, 1] {
        cluster.node(place).start().expect("it starts");
    }
    for place in [0, 1] {
        until("the nodes to wait for the third", || cluster.knows(place).waiting_for == ["node2"]);
        let error = refusal(cluster.node(place), json!("never"));
        assert!(error.to_string().contains("for want of node2"), "{error}");
    }
    cluster.node(2).start().expect("it starts");
    cluster.commit_everywhere(2, json!("founded"));

    let cluster = Plan::voters(3).keys(json!({"founding": "majority"})).make();
    for place in [0, 2] {
        cluster.node(place).start().expect("it starts");
    }
    cluster.commit_everywhere(2, json!("by two"));
    cluster.node(1).start().expect("it starts");
    cluster.commit_everywhere(1, json!("by three"));
}

/// A file that grew from three voters to five starts no second cluster over the
/// first, though three of its five are new: the two that remember stop it, go on
/// as the members that they are, and give the third its vote back; the new ones say whom
/// they wait for, and stand for nothing until somebody adds them. Pitfall 47.
#[test]
fn a_grown_file_founds_no_second_cluster() {
    let mut cluster = Plan::voters(3).start();
    cluster.commit_everywhere(0, json!("before"));
    cluster.lose(2);
    let mut nodes: Vec<(String, SocketAddr)> =
        cluster.names.iter().cloned().zip(cluster.addresses.iter().copied()).collect();
    nodes.extend((3..5).map(|n| (format!("node{n}"), common::address())));
    let grown = Config::new(nodes).expect("the config is sound");
    let grown = grown.with(json!({"request_timeout_ms": 700})).expect("the keys are sound");
    let new: Vec<RaftNode> = (2..5)
        .map(|n| RaftNode::new(&grown, &format!("node{n}")).expect("it can be made"))
        .collect();
    new.iter().for_each(|node| node.start().expect("it starts"));
    // The one that the members know by name is admitted, the others are not.
    until("the known one to vote again", || new[0].check_committed_entry().is_voter());
    let term = cluster.knows(0).term;
    for node in &new[1..] {
        until("the unknown ones to say whom they wait for", || {
            !node.check_committed_entry().waiting_for.is_empty()
        });
        let error = refusal(node, json!("never"));
        assert!(matches!(error, RequestError::Refused { .. }), "{error}");
        let known = node.check_committed_entry();
        assert_eq!((known.role, known.term, known.leader), (Role::Fresh, 0, None));
        assert!(known.members.is_empty());
    }
    let index = ask(cluster.node(1), json!("after")).index;
    cluster.wait_entry([0, 1], index);
    until("the entry at the one that came back", || {
        new[0].check_committed_entry().entry.is_some_and(|entry| entry.index == index)
    });
    for at in [0, 1] {
        assert_eq!(cluster.standing(at, 2), (1, 0));
        assert_eq!(cluster.knows(at).members.len(), 3);
        assert_eq!(cluster.knows(at).term, term, "nobody was disturbed");
    }
}
