//! What a state machine, a watcher, a waker and a reader of events may do to a node;
//! and what a node does when there is nothing to do.

mod common;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::UdpSocket;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Context, Wake, Waker};
use std::thread::{self};
use std::time::{Duration, Instant};

use common::machine::Tally;
use common::single::{Doing, single, started};
use common::{Plan, address, answer, ask, ms, refusal, until, until_some};
use kontiki::{Config, Entry, Error, Event, Pending, RaftNode, Request, RequestError, Role};
use serde_json::{Value, json};

// ---------------------------------------------------------------- watching

/// Roles and leaders are told as events, those of one node in order, and they end
/// where `Committed` stands.
#[test]
fn events_tell_of_roles_and_leaders() {
    let addresses: Vec<_> = (0..3).map(|n| (format!("node{n}"), address())).collect();
    let config = Config::new(addresses).expect("the config is sound");
    let events = config.events();
    let also = config.events();
    let nodes: Vec<RaftNode> = (0..3).map(|n| started(&config, &format!("node{n}"))).collect();
    let mut seen: Vec<Event> = Vec::new();
    let mut take = |what: &str, enough: &dyn Fn(&[Event]) -> bool| {
        until(what, || {
            seen.extend(events.try_iter());
            enough(&seen)
        });
    };
    take("a leader, told by itself", &|seen| {
        seen.iter().any(|event| matches!(event, Event::Role { role: Role::Leader, .. }))
    });
    take("all to follow one leader", &|seen| {
        let mut newest: BTreeMap<&str, (u64, &str)> = BTreeMap::new();
        for event in seen {
            match event {
                Event::Leader { node, term, leader: Some(leader), .. } => {
                    newest.insert(node, (*term, leader));
                }
                Event::Leader { node, leader: None, .. } => {
                    newest.remove(node.as_str());
                }
                _ => {}
            }
        }
        newest.len() == 3 && newest.values().all(|leader| leader == &newest["node0"])
    });
    for name in ["node0", "node1", "node2"] {
        let terms: Vec<u64> = seen
            .iter()
            .filter(|event| event.node() == name)
            .filter_map(|event| match event {
                Event::Role { term, .. } | Event::Leader { term, .. } => Some(*term),
                Event::Members { index: 1, voters, .. } if voters.len() == 3 => None,
                Event::MemberUp { .. } => None,
                other => panic!("{other:?}"),
            })
            .collect();
        assert!(terms.is_sorted(), "the terms of {name} are told as {terms:?}");
    }
    until("the other reader to have them, too", || also.len() >= seen.len());
    drop(nodes);
    drop(config);
    // The channel ends with the last config and node.
    until("the channel's end", || {
        matches!(events.try_recv(), Err(crossbeam_channel::TryRecvError::Disconnected))
    });
}

/// A reader that never reads keeps no node from working, and is told how much it
/// missed once it reads. Pitfall 68.
#[test]
fn a_reader_that_never_reads() {
    let keys = json!({"heartbeat_ms": 1, "election_timeout_ms": [2, 4]});
    let config = single().with(keys).expect("the keys are sound");
    let never = config.events();
    let node = started(&config, "single");
    until("a full channel", || {
        node.stop();
        node.start().expect("it starts again");
        until("the node to lead", || node.check_committed_entry().role == Role::Leader);
        never.is_full()
    });
    for n in 0..3 {
        node.stop();
        node.start().expect("it starts again");
        ask(&node, json!(n));
    }
    let told = never.try_iter().count();
    assert!(told >= 1024);
    node.stop();
    node.start().expect("it starts again");
    until("the word that events were missed", || {
        never.try_iter().any(|event| matches!(event, Event::Missed { count: 1.., .. }))
    });
    ask(&node, json!("after"));
}

/// `on_commit` shows each entry at each node, in order, once; several watchers all
/// see all.
#[test]
fn watchers_see_every_entry_in_order() {
    type Seen = Arc<Mutex<BTreeMap<String, Vec<(u64, Value)>>>>;
    let seen: [Seen; 2] = Default::default();
    let watchers = seen.clone();
    let cluster = Plan::voters(3)
        .dress(move |config| {
            watchers.iter().cloned().fold(config, |config, seen| {
                config.on_commit(move |name, entry| {
                    let mut seen = seen.lock().expect("nobody panicked");
                    seen.entry(name.to_string()).or_default().push((entry.index, entry.value()));
                })
            })
        })
        .start();
    let sent: Vec<(u64, Value)> =
        (0..50).map(|n| (ask(cluster.node(n % 3), json!(n)).index, json!(n))).collect();
    for seen in &seen {
        for name in &cluster.names {
            until(&format!("all entries at {name}"), || {
                seen.lock().expect("nobody panicked").get(name).is_some_and(|it| it.len() >= 50)
            });
            assert_eq!(seen.lock().expect("nobody panicked")[name], sent, "at {name}");
        }
    }
}

// ---------------------------------------------------------------- machines

/// A panic in `apply`, `query` or `on_commit` stops that node alone: its outstanding
/// request ends, the next call says why, the others go on, and it can be started
/// again, with what it remembers. Pitfall 67.
#[test]
fn a_panic_in_user_code_stops_that_node_alone() {
    let armed = Arc::new(AtomicUsize::new(0));
    let (in_apply, in_watcher) = (Arc::clone(&armed), Arc::clone(&armed));
    let blows = |armed: &AtomicUsize, by: usize, name: &str, entry: &Entry| {
        let meant = name == "node1" && entry.value() == json!("bomb");
        if meant && armed.compare_exchange(by, 0, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            panic!("no {by}: a value that it cannot take");
        }
    };
    let cluster = Plan::voters(3)
        .dress(move |config| {
            let (in_apply, in_watcher) = (Arc::clone(&in_apply), Arc::clone(&in_watcher));
            config.on_commit(move |name, entry| blows(&in_watcher, 2, name, entry)).state_machine(
                move |name| {
                    let (armed, name) = (Arc::clone(&in_apply), name.to_string());
                    Doing(move |entry: &Entry| {
                        blows(&armed, 1, &name, entry);
                        entry.value()
                    })
                },
            )
        })
        .start();
    let index = cluster.commit_everywhere(0, json!("before"));
    let node = cluster.node(1);
    let life = node.check_committed_entry().incarnation;
    for by in 1..=3 {
        let said = match by {
            3 => "asked to panic".to_string(),
            by => format!("no {by}: a value that it cannot take"),
        };
        let request = match by {
            3 => Request::query(&"panic"),
            _ => Request::from(json!("bomb")),
        };
        armed.store(by, Ordering::SeqCst);
        let error = refusal(node, request);
        assert!(
            matches!(error, RequestError::Unknown | RequestError::Failed { .. }),
            "the request that blew up ended with: {error}"
        );
        let reason = until_some("the node to say why it takes no part", || {
            match node.client_request(json!(1)) {
                Err(RequestError::Failed { reason, .. }) => Some(reason),
                Err(error) => panic!("{error}"),
                Ok(_) => None,
            }
        });
        assert!(reason.contains(&said), "{reason}");
        assert_eq!(node.check_committed_entry().role, Role::Stopped);
        // The others go on.
        let other = ask(cluster.node(2), json!("meanwhile"));
        cluster.wait_entry([0, 2], other.index);
        if by == 2 {
            node.stop();
            node.stop();
        }
        node.start().expect("it starts again");
        assert_eq!(ask(node, json!("again")).value, json!("again"));
        assert_eq!(node.check_committed_entry().incarnation, life, "it is what it was");
        assert!(node.check_committed_entry().is_voter());
    }
    assert!(cluster.knows(1).entry.is_some_and(|entry| entry.index > index));
}

/// A query in which the machine panics has no effect, so its end is not unknown:
/// it says that the node failed, and so does the next call. Pitfall 67.
#[test]
fn a_query_that_panics_says_so() {
    let config = single().state_machine(|_| Doing(|entry: &Entry| entry.value()));
    let node = started(&config, "single");
    ask(&node, json!(1));
    let error = refusal(&node, Request::query(&"panic"));
    assert!(matches!(error, RequestError::Failed { .. }), "{error}");
    let error = node.client_request(json!(1)).expect_err("it takes no part any more");
    assert!(matches!(error, RequestError::Failed { .. }), "{error}");
}

/// A machine that cannot be made is an error of `new` or `start` that says why; nothing
/// is left behind, and the node remembers what it had.
#[test]
fn a_machine_that_cannot_be_made() {
    let place = address();
    let how = Arc::new(AtomicUsize::new(1));
    let theirs = Arc::clone(&how);
    let config = Config::new([("single", place)]).expect("the config is sound");
    let config = config.state_machine(move |_| match theirs.load(Ordering::SeqCst) {
        0 => Ok(Tally::default()),
        _ => Err("the database is locked"),
    });
    let error = RaftNode::new(&config, "single").expect_err("there is no machine");
    assert!(matches!(error, Error::Machine { .. }));
    assert!(error.to_string().contains("the database is locked"), "{error}");
    how.store(0, Ordering::SeqCst);
    let node = started(&config, "single");
    let index = ask(&node, json!("kept")).index;
    node.stop();
    how.store(1, Ordering::SeqCst);
    let error = node.start().expect_err("there is no machine");
    assert!(error.to_string().contains("the database is locked"), "{error}");
    drop(UdpSocket::bind(place).expect("nothing is left behind"));
    how.store(0, Ordering::SeqCst);
    node.start().expect("it starts again");
    let kept = json!({"values": 1, "twice": [], "entries": 1});
    until("what was committed", || ask(&node, Request::query(&())).value == kept);
    assert!(ask(&node, json!("more")).index > index);
}

/// A maker of machines that panics at a restart is the caller's panic; the node
/// stays stopped, keeps what it remembers, and starts when the maker is well again.
#[test]
fn a_maker_that_panics_costs_no_memory() {
    let panics = Arc::new(AtomicBool::new(false));
    let theirs = Arc::clone(&panics);
    let config = single().state_machine(move |_| {
        assert!(!theirs.load(Ordering::SeqCst), "the database is on fire");
        Tally::default()
    });
    let node = started(&config, "single");
    let index = ask(&node, json!("kept")).index;
    node.stop();
    panics.store(true, Ordering::SeqCst);
    let caught = catch_unwind(AssertUnwindSafe(|| node.start()));
    assert!(!matches!(caught, Ok(Ok(()))), "it cannot have started");
    panics.store(false, Ordering::SeqCst);
    node.start().expect("it starts again");
    assert!(ask(&node, json!("more")).index > index);
    let expected = json!({"values": 2, "twice": [], "entries": 2});
    assert_eq!(ask(&node, Request::query(&())).value, expected);
}

/// A waker that panics stops at most its node, which says so at the next call, and
/// starts again. Pitfall 67.
#[test]
fn a_waker_that_panics_stops_at_most_its_node() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("a waker's bug");
        }
    }
    let cluster = Plan::voters(3).make();
    cluster.node(0).start().expect("it starts");
    let mut pending = cluster.node(0).client_request(json!(1)).expect("it is taken");
    let waker = Waker::from(Arc::new(Panics));
    assert!(Pin::new(&mut pending).poll(&mut Context::from_waker(&waker)).is_pending());
    for place in [1, 2] {
        cluster.node(place).start().expect("it starts");
    }
    let index = cluster.commit_everywhere(1, json!("meanwhile"));
    until("the answer that wakes", || !matches!(pending.try_reply(), Ok(None)));
    until("a node that works or says why not", || match cluster.node(0).client_request(json!(2)) {
        Ok(mut pending) => answer("a request after it", &mut pending).is_ok(),
        Err(RequestError::Failed { reason, .. }) => {
            assert!(reason.contains("a waker's bug"), "{reason}");
            cluster.node(0).start().expect("it starts again");
            false
        }
        Err(error) => panic!("{error}"),
    });
    assert!(cluster.commit_everywhere(0, json!("after")) > index);
}

/// Wakers of several requests that panic one after the other, the later ones while
/// the first one's panic is on its way, do not end the program. Pitfall 67.
#[test]
fn wakers_that_panic_do_not_end_the_program() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("a waker's bug");
        }
    }
    // What may end the program is done in a program of its own.
    let me = "wakers_that_panic_do_not_end_the_program";
    if std::env::var_os("KONTIKI_TEST_CHILD").is_none() {
        let program = std::env::current_exe().expect("the program's path");
        let child = std::process::Command::new(program)
            .args(["--exact", me, "--include-ignored", "--nocapture"])
            .env("KONTIKI_TEST_CHILD", "1")
            .output()
            .expect("the program starts");
        let said = String::from_utf8_lossy(&child.stderr);
        assert!(child.status.success(), "{}: {said}", child.status);
        return;
    }
    let cluster = Plan::voters(3).make();
    cluster.node(0).start().expect("it starts");
    let mut open: Vec<Pending> =
        (0..3).map(|n| cluster.node(0).client_request(json!(n)).expect("it is taken")).collect();
    for pending in &mut open {
        let waker = Waker::from(Arc::new(Panics));
        assert!(Pin::new(pending).poll(&mut Context::from_waker(&waker)).is_pending());
    }
    for place in [1, 2] {
        cluster.node(place).start().expect("it starts");
    }
    for pending in &mut open {
        until("each request to end", || !matches!(pending.try_reply(), Ok(None)));
    }
}

/// An `apply` that takes a second costs the leader nothing: its heartbeats go on,
/// term and leader stay, and meanwhile calls return at once. Pitfall 67.
#[test]
fn a_slow_apply_costs_no_heartbeat() {
    let keys = json!({"election_timeout_ms": [200, 400]});
    let cluster = Plan::voters(3)
        .keys(keys)
        .dress(|config| {
            config.state_machine(|_| {
                Doing(|entry: &Entry| {
                    if entry.value() == json!("slow") {
                        thread::sleep(ms(1_000));
                    }
                    Value::Null
                })
            })
        })
        .start();
    cluster.commit_everywhere(0, json!("before"));
    // A machine that does much else may hold up a whole process for so long that
    // an election is right; never three times in a row.
    let kept = (0..3).any(|_| {
        let leader = cluster.wait_leader();
        let term = cluster.knows(leader).term;
        let slow = cluster.node(leader).client_request(json!("slow")).expect("it is taken");
        let quick: Vec<Pending> = (0..100)
            .map(|n| {
                let at = Instant::now();
                let pending = cluster.node(leader).client_request(json!(n)).expect("it is taken");
                assert!(at.elapsed() < ms(500), "a call waits for a slow machine");
                pending
            })
            .collect();
        answer("the slow one", &mut { slow }).expect("it is committed");
        for pending in quick {
            answer("one behind it", &mut { pending }).expect("it is committed");
        }
        (0..3).all(|place| cluster.knows(place).term == term)
    });
    assert!(kept, "the leader lost its office each time");
}

/// `stop` waits for the `apply` that is under way; the request that is in it ends,
/// with its reply or as unknown, since it is committed, and is there afterwards.
#[test]
fn stop_waits_for_the_apply_under_way() {
    let (entered, left) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let theirs = (Arc::clone(&entered), Arc::clone(&left));
    let config = single().state_machine(move |_| {
        let (entered, left) = theirs.clone();
        Doing(move |_: &Entry| {
            entered.store(true, Ordering::SeqCst);
            thread::sleep(ms(300));
            left.store(true, Ordering::SeqCst);
            json!("done")
        })
    });
    let node = started(&config, "single");
    let request = Request::command(&1).id("under way");
    let mut pending = node.client_request(request).expect("it is taken");
    until("the apply to begin", || entered.load(Ordering::SeqCst));
    node.stop();
    assert!(left.load(Ordering::SeqCst), "stop did not wait");
    match pending.try_reply() {
        Ok(Some(reply)) => assert_eq!(reply.value, json!("done")),
        Err(RequestError::Unknown) => {}
        other => panic!("the request under way: {other:?}"),
    }
    node.start().expect("it starts again");
    assert_eq!(ask(&node, Request::lookup("under way")).value, json!("done"));
}

/// Two hundred threads ask all nodes at once, each several times: all are
/// answered, each value once. Pitfall 68.
#[test]
fn two_hundred_threads_at_once() {
    const THREADS: usize = 200;
    let keys = json!({"request_timeout_ms": 40_000});
    let plan = Plan::voters(3).keys(keys);
    let cluster = plan.dress(|config| config.state_machine(|_| Tally::default())).start();
    let barrier = Barrier::new(THREADS);
    let answered = AtomicU64::new(0);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (cluster, barrier, answered) = (&cluster, &barrier, &answered);
            scope.spawn(move || {
                barrier.wait();
                for turn in 0..5 {
                    let node = cluster.node((thread + turn) % 3);
                    let reply = ask(node, json!({"n": thread * 5 + turn}));
                    assert_eq!(reply.value, json!(1));
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(answered.load(Ordering::Relaxed), 5 * THREADS as u64);
    let expected = json!({"values": 5 * THREADS, "twice": [], "entries": 5 * THREADS});
    assert_eq!(ask(cluster.node(0), Request::query(&())).value, expected);
}

// ---------------------------------------------------------------- at rest

/// A cluster with nothing to do sends heartbeats, their answers and little more,
/// and hardly uses a processor; a node that waits for the others does not spin,
/// and one that is not started does nothing at all.
#[test]
fn nodes_at_rest_wake_for_nothing() {
    let cluster = Plan::voters(3).named("resting").relay(20).start();
    cluster.commit_everywhere(0, json!("before"));
    let alone = Plan::voters(3).named("waiting").make();
    alone.node(0).start().expect("it starts");
    // What it was asked waits, and does not keep it awake.
    let _command = alone.node(0).client_request(json!(1)).expect("it is taken");
    let _query = alone.node(0).client_request(Request::query(&1)).expect("it is taken");
    let unstarted = RaftNode::new(
        Config::new([("unstarted", address())]).expect("the config is sound"),
        "unstarted",
    );
    // What follows the last commit is not rest yet, and a machine that does much
    // else may call an election: the quietest of some seconds counts.
    let used =
        |prefix: &str| -> Duration { common::threads(prefix).iter().map(|(_, used)| *used).sum() };
    let mut quietest = (u64::MAX, [Duration::MAX; 3]);
    for _ in 0..4 {
        let names = ["resting", "waiting", "unstarted"];
        let (at, passed, before) = (Instant::now(), cluster.relay().passed(), names.map(used));
        thread::sleep(ms(1_000));
        let seconds = at.elapsed().as_secs_f64();
        let rate = ((cluster.relay().passed() - passed) as f64 / seconds) as u64;
        quietest.0 = quietest.0.min(rate);
        for (place, name) in names.into_iter().enumerate() {
            quietest.1[place] = quietest.1[place].min(used(name) - before[place]);
        }
    }
    let (rate, [resting, waiting, unstarted_used]) = quietest;
    println!(
        "{rate} datagrams a second; a second of rest took {resting:?} of three nodes, {waiting:?} \
         of one that waits, {unstarted_used:?} of one that is not started"
    );
    assert!(rate < 200, "{rate} datagrams a second");
    assert!(rate > 20, "{rate} datagrams a second: the leader is silent");
    if cfg!(target_os = "linux") {
        assert!(resting < ms(300), "three nodes at rest used {resting:?} in a second");
        assert!(waiting < ms(100), "a node that waits used {waiting:?} in a second");
        assert!(unstarted_used < ms(5), "a node that is not started used {unstarted_used:?}");
    }
    drop(unstarted);
}
