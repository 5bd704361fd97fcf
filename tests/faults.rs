//! Whole clusters over real sockets, with a relay between the nodes that loses,
//! repeats, reorders and delays datagrams and cuts links.
//!
//! The file has the relay's addresses, and each node listens behind it (`listen_at`). So
//! these tests also show that a node may be elsewhere than where the others speak to it.

mod common;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::machine::Tally;
use common::relay::Weather;
use common::{Cluster, PATIENCE, Plan, answer, ask, ms, until, until_some};
use kontiki::{Pending, Reply, Request, RequestError, Role};
use serde_json::{Value, json};

fn tally(plan: Plan) -> Plan {
    plan.dress(|config| config.state_machine(|_| Tally::default()))
}

/// What a node's machine holds, as a linearizable read has it.
fn counted(cluster: &Cluster, place: usize) -> Value {
    ask(cluster.node(place), Request::query(&())).value
}

/// Nodes that listen elsewhere than where the file has them found a cluster, and all name
/// the same members, by the file's addresses.
#[test]
fn nodes_may_listen_elsewhere_than_where_they_are_spoken_to() {
    let cluster = Plan::voters(3).relay(1).start();
    for place in 0..3 {
        cluster.commit_everywhere(place, json!(place));
    }
    for place in 0..3 {
        let members = cluster.knows(place).members;
        let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
        assert_eq!(names, ["node0", "node1", "node2"]);
        for (place, member) in members.iter().enumerate() {
            assert!(member.voter && member.address == cluster.known_at(place), "{member:?}");
            assert_ne!(member.address, cluster.addresses[place]);
        }
    }
}

/// Ten thousand requests of eight threads, at all nodes, while a fifth of the
/// datagrams is lost and each other fault befalls a fifth: each is committed, none
/// twice, each at a place of its own; an id that is asked again at another node
/// gets the first one's reply. The leader is cut off for a while on the way.
/// Pitfalls 53, 54.
#[test]
fn ten_thousand_requests_none_lost_none_twice() {
    const THREADS: u64 = 8;
    const EACH: u64 = 1_250;
    const OUTSTANDING: usize = 200;
    let cluster =
        tally(Plan::voters(3).relay(2).keys(json!({"request_timeout_ms": 60_000}))).start();
    cluster.commit_everywhere(0, json!("before"));
    cluster.relay().weather(Weather::all(20));
    let replies: Mutex<BTreeMap<u64, Reply>> = Mutex::default();
    let answered = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (cluster, replies, answered) = (&cluster, &replies, &answered);
            scope.spawn(move || {
                let at = (thread % 3) as usize;
                let mut open: VecDeque<(u64, Pending)> = VecDeque::new();
                let settle = |open: &mut VecDeque<(u64, Pending)>| {
                    let Some((n, mut pending)) = open.pop_front() else { return };
                    let reply = match answer(&format!("request {n}"), &mut pending) {
                        Ok(reply) => reply,
                        Err(error) => panic!("request {n} ended with: {error}"),
                    };
                    answered.fetch_add(1, Ordering::Relaxed);
                    let mut replies = replies.lock().expect("no thread panicked");
                    // One that was asked twice has one reply.
                    let first = replies.entry(n).or_insert_with(|| reply.clone());
                    assert_eq!(*first, reply, "request {n}");
                };
                for n in thread * EACH..(thread + 1) * EACH {
                    let request = Request::command(&json!({ "n": n }));
                    if n % 25 == 0 {
                        let request = request.id(format!("order-{n}"));
                        let other = cluster.node((at + 1) % 3).client_request(request.clone());
                        open.push_back((n, other.expect("it is taken")));
                        let own = cluster.node(at).client_request(request);
                        open.push_back((n, own.expect("it is taken")));
                    } else {
                        let pending = cluster.node(at).client_request(request);
                        open.push_back((n, pending.expect("it is taken")));
                    }
                    while open.len() > OUTSTANDING {
                        settle(&mut open);
                    }
                }
                while !open.is_empty() {
                    settle(&mut open);
                }
            });
        }
        until("a third of the answers", || answered.load(Ordering::Relaxed) > THREADS * EACH / 3);
        let old = cluster.wait_leader();
        cluster.relay().cut_off(&[old]);
        cluster.wait_leader_among((0..3).filter(|&place| place != old));
        cluster.relay().heal();
    });
    let replies = replies.into_inner().expect("no thread panicked");
    assert_eq!(replies.len() as u64, THREADS * EACH);
    assert!(replies.values().all(|reply| reply.value == json!(1)), "a value was applied twice");
    let places: BTreeSet<u64> = replies.values().map(|reply| reply.index).collect();
    assert_eq!(places.len(), replies.len(), "two values have one place");
    cluster.relay().weather(Weather::default());
    let all = THREADS * EACH + 1;
    for place in 0..3 {
        let expected = json!({"values": all, "twice": [], "entries": all});
        assert_eq!(counted(&cluster, place), expected, "on {}", cluster.names[place]);
    }
}

/// A leader is lost in bad weather: the others elect another and go on, and the
/// old one, started again, has what was committed meanwhile.
#[test]
fn a_lost_leader_is_replaced_and_catches_up() {
    let cluster = tally(Plan::voters(3).relay(3)).start();
    cluster.commit_everywhere(1, json!(0));
    cluster.relay().weather(Weather::all(20));
    for round in 1..=3 {
        let old = cluster.wait_leader();
        cluster.node(old).stop();
        let new = cluster.wait_leader_among((0..3).filter(|&place| place != old));
        let other = 3 - old - new;
        ask(cluster.node(other), json!({"n": round}));
        ask(cluster.node(new), json!({"n": round * 100}));
        cluster.node(old).start().expect("it starts again");
        // In its own time, and whatever it was asked before.
        let reply = ask(cluster.node(old), json!({"n": round * 10_000}));
        assert_eq!(reply.value, json!(1));
        let expected = json!({"values": 3 * round + 1, "twice": [], "entries": 3 * round + 1});
        assert_eq!(counted(&cluster, old), expected);
    }
}

/// Two of five are cut off in bad weather: they commit nothing and know that they
/// are out of touch, the other three go on; healed, all have one history, with
/// what the two refused not in it.
#[test]
fn a_minority_that_was_cut_off_heals() {
    let keys = json!({"request_timeout_ms": 1_500});
    let cluster = tally(Plan::voters(5).relay(4).keys(keys)).start();
    let before = cluster.commit_everywhere(0, json!("before"));
    cluster.relay().weather(Weather::all(20));
    // The leader is one of the two.
    let leader = cluster.wait_leader();
    let other = (leader + 1) % 5;
    let few = [leader, other];
    let many: Vec<usize> = (0..5).filter(|place| !few.contains(place)).collect();
    cluster.relay().cut_off(&few);
    cluster.wait_leader_among(many.clone());
    until("the old leader to step down", || cluster.knows(leader).role != Role::Leader);
    let term = few.map(|place| cluster.knows(place).term);
    let asked = few.map(|place| cluster.node(place).client_request(json!({"n": place})).unwrap());
    let mut committed = 1;
    for n in 0..20 {
        // A request may meet a change of leader, in this weather and with this
        // short a limit; but then it says so.
        let mut pending =
            cluster.node(many[n % 3]).client_request(json!({"n": 100 + n})).expect("it is taken");
        match answer("a request at the majority", &mut pending) {
            Ok(_) => committed += 1,
            Err(RequestError::Unknown | RequestError::Refused { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert!(committed > 10, "the majority committed only {committed}");
    let mut refused = 0;
    for (place, mut pending) in few.into_iter().zip(asked) {
        match answer("a request at the minority", &mut pending) {
            Err(RequestError::Refused { reason, .. }) => {
                assert!(reason.contains("no leader was known"), "{reason}");
                refused += 1;
            }
            Err(RequestError::Unknown) => {}
            other => panic!("{} answered {other:?}", cluster.names[place]),
        }
        let known = cluster.knows(place);
        assert_eq!(known.entry.as_ref().map(|entry| entry.index), Some(before));
        assert!(known.quorum_ago.is_none_or(|ago| ago >= ms(300)), "{:?}", known.quorum_ago);
    }
    assert!(refused > 0, "a node without a leader has nobody to send to");
    // Pre-vote: who cannot win disturbs no term (pitfall 14).
    for (place, term) in few.into_iter().zip(term) {
        assert!(cluster.knows(place).term <= term + 1, "{} campaigns alone", cluster.names[place]);
    }
    cluster.relay().heal();
    cluster.relay().weather(Weather::default());
    let last = until_some("a commit after healing", || {
        cluster.node(leader).client_request(json!({"n": "after"})).ok()?.wait().ok()
    });
    cluster.wait_entry(0..5, last.index);
    let states: Vec<Value> = (0..5).map(|place| counted(&cluster, place)).collect();
    assert!(states.iter().all(|state| *state == states[0]), "{states:?}");
    assert_eq!(states[0]["twice"], json!([]));
}

/// A leader that is cut off steps down, and each request that it had ends: with
/// its reply, unknown, or refused; what was refused is nowhere, what was replied
/// is everywhere, and nothing came twice. Pitfall 54.
#[test]
fn a_cut_off_leader_steps_down_and_its_requests_end() {
    let keys = json!({"request_timeout_ms": 2_000});
    let cluster = tally(Plan::voters(3).relay(5).keys(keys)).start();
    cluster.commit_everywhere(0, json!("before"));
    cluster.relay().weather(Weather::all(20));
    let leader = cluster.wait_leader();
    let node = cluster.node(leader);
    let mut open = Vec::new();
    let give = |open: &mut Vec<(u64, Pending)>, numbers: std::ops::Range<u64>| {
        for n in numbers {
            open.push((n, node.client_request(json!({ "n": n })).expect("it is taken")));
        }
    };
    give(&mut open, 0..300);
    cluster.relay().cut_off(&[leader]);
    let cut_at = Instant::now();
    give(&mut open, 300..600);
    until("the leader to step down", || cluster.knows(leader).role != Role::Leader);
    give(&mut open, 600..900);
    let mut read = node.client_request(Request::query(&())).expect("it is taken");
    let lookup = node.client_request(Request::lookup("nothing")).expect("it is taken");
    let new = cluster.wait_leader_among((0..3).filter(|&place| place != leader));
    let mut replied = Vec::new();
    let mut refused = Vec::new();
    let mut unknown = 0;
    for (n, mut pending) in open {
        match answer(&format!("request {n}"), &mut pending) {
            Ok(reply) => {
                assert_eq!(reply.value, json!(1), "request {n}");
                replied.push(n);
            }
            Err(RequestError::Unknown) => unknown += 1,
            Err(RequestError::Refused { .. }) => refused.push(n),
            Err(error) => panic!("request {n} ended with: {error}"),
        }
    }
    // A read has no effect, so its end is never unknown.
    for pending in [&mut read, &mut { lookup }] {
        let error = answer("a read", pending).unwrap_err();
        assert!(matches!(error, RequestError::Refused { .. }), "{error}");
    }
    let took = cut_at.elapsed();
    assert!(took < PATIENCE / 2, "the last answer took {took:?} with a limit of 2 s");
    assert!(!refused.is_empty() && unknown > 0, "{} refused, {unknown} unknown", refused.len());
    cluster.relay().heal();
    cluster.relay().weather(Weather::default());
    until("the old leader to be back", || cluster.knows(leader).leader.is_some());
    ask(cluster.node(new), json!("after"));
    let found = |n: &u64| ask(cluster.node(leader), Request::query(&json!({ "n": n }))).value;
    assert!(replied.iter().all(|n| found(n) == json!(1)), "what was replied is there");
    assert!(refused.iter().all(|n| found(n) == json!(0)), "what was refused is not there");
    let states: Vec<Value> = (0..3).map(|place| counted(&cluster, place)).collect();
    assert_eq!(states[0]["twice"], json!([]));
    assert!(states.iter().all(|state| *state == states[0]), "{states:?}");
}

/// A leader whom nobody hears, and one who hears nobody, are replaced; a follower
/// who hears nobody, or whom nobody hears, does not keep the others from
/// committing, and catches up when it is healed.
#[test]
fn one_way_cuts() {
    let cluster = tally(Plan::voters(3).relay(6)).start();
    cluster.commit_everywhere(0, json!("before"));
    let mut n = 0;
    for is_leader in [true, false] {
        for is_deaf in [true, false] {
            let leader = cluster.wait_leader();
            let ill = if is_leader { leader } else { (leader + 1) % 3 };
            let well: Vec<usize> = (0..3).filter(|&place| place != ill).collect();
            for &other in &well {
                match is_deaf {
                    true => cluster.relay().cut_one_way(other, ill),
                    false => cluster.relay().cut_one_way(ill, other),
                }
            }
            if is_leader {
                let what = if is_deaf { "deaf" } else { "mute" };
                until(&format!("the {what} leader to step down"), || {
                    cluster.knows(ill).role != Role::Leader
                });
                cluster.wait_leader_among(well.clone());
            }
            for &place in &well {
                n += 1;
                assert_eq!(ask(cluster.node(place), json!({ "n": n })).value, json!(1));
            }
            cluster.relay().heal();
            n += 1;
            let reply = ask(cluster.node(ill), json!({ "n": n }));
            cluster.wait_entry(0..3, reply.index);
        }
    }
    for place in 0..3 {
        let expected = json!({"values": n + 1, "twice": [], "entries": n + 1});
        assert_eq!(counted(&cluster, place), expected);
    }
}

/// A link between two followers that is cut, and a chain of five in which each
/// hears only its neighbours, end in a leader that commits. Pitfall 13.
#[test]
fn a_chain_of_five_has_a_leader() {
    let cluster = Plan::voters(5).relay(7).start();
    cluster.commit_everywhere(0, json!("before"));
    for from in 0..5_usize {
        for to in 0..5 {
            if from.abs_diff(to) > 1 {
                cluster.relay().cut_one_way(from, to);
            }
        }
    }
    // Only the three in the middle reach a majority of five: themselves and two.
    cluster.wait_leader_among(1..4);
    for round in 0..20 {
        let leader = cluster.wait_leader_among(1..4);
        let pending = cluster.node(leader).client_request(json!(round)).expect("it is taken");
        let reply = answer("a request in a chain", &mut { pending });
        reply.unwrap_or_else(|error| panic!("round {round}: {error}"));
    }
    cluster.relay().heal();
    cluster.commit_everywhere(0, json!("after"));
}

/// Values of 300 KB, which no datagram holds, from each of three nodes in bad
/// weather: all arrive, whole, once. Pitfall 65.
#[test]
fn large_values_in_bad_weather() {
    large_values(Plan::voters(3).relay(8), 60_000);
}

/// The same on a path where datagrams are as short as a network wants them, and a
/// value is hundreds of them; small values meanwhile, too. Pitfall 65.
#[test]
fn large_values_in_small_datagrams() {
    // Not every machine has an address for it.
    let Some(at) = (0..3).map(|_| common::outer_address()).collect::<Option<Vec<_>>>() else {
        return;
    };
    large_values(Plan::voters(3).relay(15).at(at), 1_400);
}

fn large_values(plan: Plan, datagram_bytes: usize) {
    let cluster = plan.keys(json!({"request_timeout_ms": 60_000})).start();
    cluster.commit_everywhere(0, json!("before"));
    cluster.relay().weather(Weather::all(20));
    cluster.relay().start_tape();
    let value = |n: usize| {
        let unit = format!("value {n} ");
        let bytes = if n % 4 == 3 { 100 } else { 300_000 };
        json!({"n": n, "text": unit.repeat(bytes / unit.len())})
    };
    let mut open: Vec<(usize, Pending)> = Vec::new();
    for n in 0..12 {
        let request = Request::from(value(n)).id(format!("large-{n}"));
        open.push((n, cluster.node(n % 3).client_request(request).expect("it is taken")));
    }
    let mut last = (0, 0);
    let mut places = BTreeSet::new();
    for (n, mut pending) in open {
        match answer(&format!("large value {n}"), &mut pending) {
            Ok(reply) => {
                last = last.max((reply.index, n));
                places.insert(reply.index);
            }
            Err(error) => panic!("large value {n} ended with: {error}"),
        }
    }
    assert_eq!(places.len(), 12, "two values have one place");
    let longest = cluster.relay().take_tape().iter().map(|taped| taped.bytes.len()).max();
    let longest = longest.expect("there were some");
    // As long as they may be, and no longer.
    assert!(longest <= datagram_bytes && longest > datagram_bytes * 9 / 10, "{longest} bytes");
    cluster.relay().weather(Weather::default());
    cluster.wait_entry(0..3, last.0);
    for place in 0..3 {
        let entry = cluster.knows(place).entry.expect("there is one");
        assert_eq!((entry.index, entry.value()), (last.0, value(last.1)));
    }
}

/// In steady bad weather a cluster keeps committing through stops and starts of
/// every node in turn, and all end with one history.
#[test]
fn every_node_is_stopped_in_turn_under_load() {
    let keys = json!({"request_timeout_ms": 30_000});
    let cluster = tally(Plan::voters(3).relay(13).keys(keys)).start();
    cluster.commit_everywhere(0, json!("before"));
    cluster.relay().weather(Weather::all(10));
    let sent = AtomicU64::new(0);
    let over = std::sync::atomic::AtomicBool::new(false);
    let outcomes: Mutex<BTreeMap<u64, Result<Reply, RequestError>>> = Mutex::default();
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let (cluster, sent, over, outcomes) = (&cluster, &sent, &over, &outcomes);
            scope.spawn(move || {
                while !over.load(Ordering::SeqCst) {
                    let n = sent.fetch_add(1, Ordering::SeqCst);
                    let Ok(mut pending) = cluster.node(thread).client_request(json!({ "n": n }))
                    else {
                        std::thread::sleep(Duration::from_millis(1));
                        continue;
                    };
                    let outcome = answer(&format!("request {n}"), &mut pending);
                    outcomes.lock().expect("no thread panicked").insert(n, outcome);
                }
            });
        }
        let done = || outcomes.lock().expect("no thread panicked").len();
        for turn in 0..6 {
            cluster.node(turn % 3).stop();
            let before = done();
            until("requests to be answered while a node is stopped", || done() > before + 20);
            cluster.node(turn % 3).start().expect("it starts again");
        }
        over.store(true, Ordering::SeqCst);
    });
    cluster.relay().weather(Weather::default());
    ask(cluster.node(0), json!("after"));
    let states: Vec<Value> = (0..3).map(|place| counted(&cluster, place)).collect();
    assert!(states.iter().all(|state| *state == states[0]), "{states:?}");
    assert_eq!(states[0]["twice"], json!([]));
    for (n, outcome) in outcomes.into_inner().expect("no thread panicked") {
        let found = ask(cluster.node(0), Request::query(&json!({ "n": n }))).value;
        match outcome {
            Ok(reply) => assert_eq!((reply.value, found), (json!(1), json!(1)), "request {n}"),
            Err(RequestError::Unknown) => assert!(found == json!(0) || found == json!(1)),
            Err(error) => assert_eq!(found, json!(0), "request {n} was answered with: {error}"),
        }
    }
}

/// A node shows its vote, how far its log goes and how far it is agreed, and when it would
/// stand for election: a leader that is cut off holds what nobody agreed on, and loses it
/// when it hears of the next one.
#[test]
fn a_node_shows_its_vote_its_log_and_when_it_campaigns() {
    let cluster = Plan::voters(3).relay(11).start();
    let index = cluster.commit_everywhere(0, json!("agreed"));
    let leader = cluster.wait_leader();
    let known = cluster.knows(leader);
    assert_eq!(
        known.voted_for.as_deref(),
        Some(&*cluster.names[leader]),
        "who leads voted for itself"
    );
    assert_eq!(known.campaigns_in, None);
    assert!(index <= known.commit_index && known.commit_index <= known.last_index, "{known:?}");
    let others: Vec<usize> = (0..3).filter(|place| *place != leader).collect();
    until("a follower that voted for the leader", || {
        others.iter().any(|place| cluster.knows(*place).voted_for == known.voted_for)
    });
    for place in &others {
        until("a follower's patience with its leader", || {
            let left = cluster.knows(*place).campaigns_in;
            left.is_some_and(|left| ms(0) < left && left <= ms(300))
        });
    }

    cluster.relay().cut_off(&[leader]);
    let kept = known.last_index;
    let _alone = cluster.node(leader).client_request(json!("alone")).expect("it is taken");
    until("an entry that is not agreed", || {
        let known = cluster.knows(leader);
        known.last_index > kept && known.commit_index < known.last_index
    });
    cluster.wait_leader_among(others.iter().copied());
    cluster.relay().heal();
    until("one log, agreed to its end", || {
        let ends: Vec<(u64, u64)> = (0..3)
            .map(|place| cluster.knows(place))
            .map(|known| (known.commit_index, known.last_index))
            .collect();
        ends.iter().all(|(committed, last)| committed == last && ends[0].1 == *last)
    });
    let stopped = cluster.node(leader);
    stopped.stop();
    assert_eq!(cluster.knows(leader).campaigns_in, None, "who takes no part does not campaign");
    assert!(cluster.knows(leader).commit_index > kept);
}
