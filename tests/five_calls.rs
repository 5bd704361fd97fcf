//! `new`, `start`, `stop` and drop, over real sockets: idempotent, from any thread, and
//! from within a node's own callbacks.

mod common;

use std::future::Future;
use std::net::UdpSocket;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex, OnceLock, Weak};
use std::task::{Context, Wake, Waker};
use std::thread::{self};

use common::machine::Tally;
use common::single::{Doing, Handle, single, started, without_deadlock};
use common::{Plan, address, answer, ask, ms, until};
use kontiki::{Config, Entry, Error, Pending, RaftNode, Request, RequestError, Role};
use serde_json::{Value, json};

// ---------------------------------------------------------------- new, start, stop

/// Each of `start` and `stop` may be called at any time and again; calls say at
/// once that a node takes no part, and the node says so of itself.
#[test]
fn start_and_stop_are_idempotent() {
    let config = single();
    let node = RaftNode::new(&config, "single").expect("it can be made");
    assert_eq!(node.check_committed_entry().role, Role::Stopped);
    assert_eq!(node.client_request(json!(1)).unwrap_err(), RequestError::NotStarted);
    for _ in 0..3 {
        node.start().expect("it starts");
    }
    let reply = ask(&node, json!(1));
    for _ in 0..3 {
        node.stop();
        assert_eq!(node.client_request(json!(2)).unwrap_err(), RequestError::Stopped);
        let known = node.check_committed_entry();
        assert_eq!((known.role, known.leader), (Role::Stopped, None));
        assert_eq!(known.entry.map(|entry| entry.index), Some(reply.index));
    }
    node.start().expect("it starts again");
    assert!(ask(&node, json!(2)).index > reply.index);

    // Stopped before it was ever started, and started then.
    drop(node);
    let node = RaftNode::new(&config, "single").expect("it can be made");
    node.stop();
    node.stop();
    assert_eq!(node.client_request(json!(1)).unwrap_err(), RequestError::Stopped);
    node.start().expect("it starts");
    ask(&node, json!(1));
}

/// All nodes of a cluster are stopped and started: each is the same member as
/// before, a voter, with its log and with no lower term. Pitfalls 48, 69.
#[test]
fn a_restarted_node_remembers() {
    for count in [1, 3] {
        let cluster = Plan::voters(count).start();
        let index = cluster.commit_everywhere(0, json!("before"));
        let terms: Vec<u64> = (0..count).map(|place| cluster.knows(place).term).collect();
        cluster.all().for_each(RaftNode::stop);
        for node in cluster.all() {
            node.start().expect("it starts again");
        }
        cluster.wait_entry(0..count, index);
        for (place, term) in terms.into_iter().enumerate() {
            let known = cluster.knows(place);
            assert_eq!(known.entry.map(|entry| entry.value()), Some(json!("before")));
            assert!(known.term >= term);
            assert_eq!(known.members.len(), count);
            assert_eq!(cluster.standing(place, place), (1, 0), "{count} nodes");
        }
        assert!(cluster.commit_everywhere(count - 1, json!("after")) > index);
    }
}

/// A node that starts again holds no office and knows no leader: what it shows is
/// of this run, from the first look on, not what it was when it was stopped.
#[test]
fn a_restarted_node_does_not_show_its_former_office() {
    let cluster = Plan::voters(3).start();
    cluster.commit_everywhere(0, json!("before"));
    let leader = cluster.wait_leader();
    cluster.all().for_each(RaftNode::stop);
    cluster.node(leader).start().expect("it starts again");
    // Alone, it cannot be what it was.
    let known = cluster.knows(leader);
    assert_ne!(known.role, Role::Leader);
    assert_eq!(known.leader, None);
    assert_eq!(known.quorum_ago, None);
    let others = known.members.iter().filter(|member| member.name != known.node);
    for member in others {
        assert_eq!(member.heard_ago, None, "{} was not heard in this run", member.name);
    }
}

/// Where a node was stopped or dropped another may take its place at once; while it
/// is there none may, and the error names the address. Pitfall 61.
#[test]
fn the_place_of_a_node_is_its_own_and_free_at_once() {
    let place = address();
    let config = Config::new([("single", place)]).expect("the config is sound");
    for round in 0..30 {
        let node = RaftNode::new(&config, "single").expect("the place is free");
        if round % 3 > 0 {
            node.start().expect("it starts");
        }
        if round % 3 > 1 {
            ask(&node, json!(1));
        }
        let second = RaftNode::new(&config, "single").expect_err("the place is taken");
        assert!(matches!(second, Error::Io { .. }), "{second:?}");
        assert!(second.to_string().contains(&place.to_string()), "{second}");
        if round % 2 == 0 {
            node.stop();
            drop(UdpSocket::bind(place).expect("the place is free at once"));
        }
    }
}

/// A stopped node whose place was taken meanwhile does not start, says why, and
/// still remembers when the place is free again.
#[test]
fn a_start_that_fails_changes_nothing() {
    let place = address();
    let config = Config::new([("single", place)]).expect("the config is sound");
    let node = started(&config, "single");
    let index = ask(&node, json!("kept")).index;
    node.stop();
    let thief = UdpSocket::bind(place).expect("the place is free");
    for _ in 0..3 {
        let error = node.start().expect_err("the place is taken");
        assert!(error.to_string().contains(&place.to_string()), "{error}");
        assert_eq!(node.client_request(json!(1)).unwrap_err(), RequestError::Stopped);
    }
    drop(thief);
    node.start().expect("it starts again");
    assert!(ask(&node, json!(2)).index > index);
    assert_eq!(node.check_committed_entry().members.len(), 1);
}

/// `start` and `stop` from eight threads at once, with requests and looks between
/// them: no call hangs, each request that was taken ends, and the node works
/// afterwards. Pitfall 69.
#[test]
fn start_and_stop_from_many_threads() {
    let keys =
        json!({"heartbeat_ms": 5, "election_timeout_ms": [10, 20], "request_timeout_ms": 250});
    let cluster = Arc::new(Plan::voters(3).keys(keys).start());
    let hammer = Arc::clone(&cluster);
    without_deadlock("the end of all calls", move || {
        thread::scope(|scope| {
            for thread in 0..8_usize {
                let cluster = &hammer;
                scope.spawn(move || {
                    for turn in 0..40_usize {
                        let node = cluster.node((thread + turn) % 3);
                        match (thread * 31 + turn * 17) % 5 {
                            0 => node.stop(),
                            1 | 2 => node.start().expect("it starts"),
                            _ => match node.client_request(json!([thread, turn])) {
                                Ok(mut pending) => {
                                    let _ = answer("a request amid starts and stops", &mut pending);
                                }
                                Err(RequestError::Stopped) => {}
                                Err(error) => panic!("{error}"),
                            },
                        }
                        let _ = node.check_committed_entry();
                    }
                });
            }
        });
    });
    for node in cluster.all() {
        node.start().expect("it starts");
    }
    cluster.commit_everywhere(0, json!("after"));
}

/// `stop` from many threads, and drop at the same time as other nodes': all return,
/// and the node's threads are gone. Pitfall 69.
#[test]
fn stop_from_many_threads_at_once() {
    let config = single();
    let node = Arc::new(started(&config, "single"));
    ask(&node, json!(1));
    let barrier = Arc::new(Barrier::new(8));
    let stoppers: Vec<_> = (0..8)
        .map(|_| {
            let (node, barrier) = (Arc::clone(&node), Arc::clone(&barrier));
            thread::spawn(move || {
                barrier.wait();
                node.stop();
                assert_eq!(node.client_request(json!(1)).unwrap_err(), RequestError::Stopped);
            })
        })
        .collect();
    for stopper in stoppers {
        until("a stop to return", || stopper.is_finished());
        stopper.join().expect("it did not panic");
    }
    node.start().expect("it starts");
    ask(&node, json!(2));
}

/// A node is stopped in the middle of hundreds of requests, again and again: each
/// request ends, with its reply, `Stopped` or `Unknown`, and those that were
/// `Stopped` are not in the log. Pitfalls 54, 69.
#[test]
fn stop_in_the_middle_of_requests() {
    let cluster =
        Plan::voters(3).dress(|config| config.state_machine(|_| Tally::default())).start();
    cluster.commit_everywhere(0, json!("before"));
    let mut stopped = Vec::new();
    let mut ended = 0;
    for round in 0..12_u64 {
        let node = cluster.node(round as usize % 3);
        let mut open: Vec<(u64, Pending)> = Vec::new();
        for n in round * 1_000..round * 1_000 + 40 * round {
            open.push((n, node.client_request(json!({ "n": n })).expect("it is taken")));
        }
        node.stop();
        for (n, mut pending) in open {
            // Whoever is stopped waits for nothing any more.
            match pending.try_reply() {
                Ok(Some(_)) | Err(RequestError::Unknown) => {}
                Err(RequestError::Stopped) => stopped.push(n),
                other => panic!("round {round}: {other:?}"),
            }
            ended += 1;
        }
        node.start().expect("it starts again");
    }
    assert_eq!(ended, (0..12).map(|round| 40 * round).sum::<u64>());
    cluster.commit_everywhere(1, json!("after"));
    assert_eq!(ask(cluster.node(2), Request::query(&())).value["twice"], json!([]));
    for n in stopped {
        assert_eq!(ask(cluster.node(0), Request::query(&json!({ "n": n }))).value, json!(0), "{n}");
    }
}

/// The thread of a node has its name, the machine's has it in its own, and both are
/// gone when the node is stopped.
#[cfg(target_os = "linux")]
#[test]
fn threads_are_named_after_the_node_and_end_with_it() {
    let name = "a-name-longer-than-fifteen-bytes";
    let config = Config::new([(name, address())]).expect("the config is sound");
    let config = config.on_commit(|_, _| {});
    let node = RaftNode::new(&config, name).expect("it can be made");
    let here = || common::threads("a-name-longer-t").len();
    until("the node's thread", || here() == 1);
    node.start().expect("it starts");
    until("the machine's thread, too", || here() == 2);
    node.stop();
    until("both to be gone", || here() == 0);
    node.start().expect("it starts again");
    until("both to be there again", || here() == 2);
    drop(node);
    until("both to be gone", || here() == 0);
}

// ---------------------------------------------------------------- within callbacks

/// `stop` from within `apply`, `on_commit` and a waker returns at once and the node
/// ends soon after; what was outstanding ends; it can be started again. Pitfall 69.
#[test]
fn stop_from_within_a_callback() {
    for place in ["apply", "on_commit", "waker"] {
        let handle = Handle::default();
        let armed = Arc::new(AtomicBool::new(false));
        let open = Arc::new(AtomicBool::new(true));
        let stop = {
            let (handle, armed) = (Arc::clone(&handle), Arc::clone(&armed));
            move || {
                if armed.swap(false, Ordering::SeqCst)
                    && let Some(node) = &*handle.lock().expect("nobody panicked")
                {
                    node.stop();
                    // Idempotent here, too; and a start says that it cannot be.
                    node.stop();
                    let _ = node.start();
                    let _ = node.client_request(json!("from within"));
                    let _ = node.check_committed_entry();
                }
            }
        };
        let config = match place {
            "apply" => {
                let stop = stop.clone();
                single().state_machine(move |_| {
                    let stop = stop.clone();
                    Doing(move |_: &Entry| {
                        stop();
                        Value::Null
                    })
                })
            }
            "on_commit" => {
                let stop = stop.clone();
                single().on_commit(move |_, _| stop())
            }
            _ => {
                // Holds the answer back until the waker is there.
                let open = Arc::clone(&open);
                single().on_commit(move |_, _| {
                    until("the waker to be there", || open.load(Ordering::SeqCst));
                })
            }
        };
        let node = started(&config, "single");
        ask(&node, json!(0));
        open.store(place != "waker", Ordering::SeqCst);
        *handle.lock().expect("nobody panicked") = Some(node);
        armed.store(true, Ordering::SeqCst);
        let mut first = {
            let handle = handle.lock().expect("nobody panicked");
            let node = handle.as_ref().expect("it is there");
            node.client_request(json!(1)).expect("it is taken")
        };
        if place == "waker" {
            let waker = Waker::from(Arc::new(Calls(Mutex::new(Some(stop.clone())))));
            let poll = Pin::new(&mut first).poll(&mut Context::from_waker(&waker));
            assert!(poll.is_pending(), "the answer is held back: {poll:?}");
            open.store(true, Ordering::SeqCst);
        }
        let look = Arc::clone(&handle);
        until(&format!("the node to be stopped from within {place}"), || {
            let handle = look.lock().expect("nobody panicked");
            let node = handle.as_ref().expect("it is there");
            node.client_request(json!(2)).err() == Some(RequestError::Stopped)
        });
        let _ = answer("the request that was outstanding", &mut first);
        without_deadlock("a stop, and a start after it", move || {
            let node = handle.lock().expect("nobody panicked").take().expect("it is there");
            node.stop();
            node.start().expect("it starts again");
            ask(&node, json!(3));
        });
    }
}

/// Calls once what it was given, when it is woken.
struct Calls<F>(Mutex<Option<F>>);

impl<F: FnOnce() + Send> Wake for Calls<F> {
    fn wake(self: Arc<Self>) {
        let call = self.0.lock().expect("nobody panicked").take();
        if let Some(call) = call {
            call();
        }
    }
}

/// A running node that is dropped from within its own callback ends, and its place
/// is free soon after. Pitfall 69.
#[test]
fn drop_from_within_a_callback() {
    let place = address();
    let handle = Handle::default();
    let config = Config::new([("single", place)]).expect("the config is sound");
    let theirs = Arc::clone(&handle);
    let config = config.on_commit(move |_, entry| {
        if entry.value() == json!("drop") {
            let node = theirs.lock().expect("nobody panicked").take();
            drop(node);
        }
    });
    let node = started(&config, "single");
    let pending = node.client_request(json!("drop")).expect("it is taken");
    // The callback may be there first, and then finds nothing to drop.
    *handle.lock().expect("nobody panicked") = Some(node);
    let mut pending = pending;
    let _ = answer("the request that drops its node", &mut pending);
    let left = handle.lock().expect("nobody panicked").take();
    if let Some(node) = left {
        *handle.lock().expect("nobody panicked") = None;
        drop(node);
    }
    until("the place to be free", || UdpSocket::bind(place).is_ok());
}

/// A node that was never started and is dropped from within another node's callback
/// leaves nothing behind: no thread, and its place is free. Pitfall 69.
#[test]
fn drop_of_a_node_that_was_not_started_from_within_a_callback() {
    let place = address();
    let other = Config::new([("unstarted", place)]).expect("the config is sound");
    let handle: Handle =
        Arc::new(Mutex::new(Some(RaftNode::new(&other, "unstarted").expect("it can be made"))));
    let theirs = Arc::clone(&handle);
    let config = single().on_commit(move |_, _| drop(theirs.lock().expect("fine").take()));
    let node = started(&config, "single");
    ask(&node, json!(1));
    assert!(handle.lock().expect("fine").is_none(), "it was dropped");
    until("the place of the dropped node to be free", || UdpSocket::bind(place).is_ok());
}

/// `wait` from within `apply`, `query` and `on_commit` answers with an error instead of
/// keeping the answer from coming, and the request goes on; so does `wait_timeout`.
#[test]
fn wait_from_within_a_callback_is_an_error() {
    let node_of: Arc<OnceLock<Weak<RaftNode>>> = Arc::default();
    let seen: Arc<Mutex<Vec<RequestError>>> = Arc::default();
    let asks = {
        let (node_of, seen) = (Arc::clone(&node_of), Arc::clone(&seen));
        move |entry: &Entry| {
            if entry.value() != json!("outer") {
                return;
            }
            let Some(node) = node_of.get().and_then(Weak::upgrade) else { return };
            let mut first = node.client_request(json!("inner")).expect("it is taken");
            let second = node.client_request(json!("inner")).expect("it is taken");
            let mut seen = seen.lock().expect("nobody panicked");
            seen.push(first.wait_timeout(ms(60_000)).expect_err("it does not wait"));
            seen.push(second.wait().expect_err("it does not wait"));
        }
    };
    let watch = asks.clone();
    let config = single().on_commit(move |_, entry| watch(entry)).state_machine(move |_| {
        let asks = asks.clone();
        Doing(move |entry: &Entry| {
            asks(entry);
            Value::Null
        })
    });
    let node = Arc::new(started(&config, "single"));
    node_of.set(Arc::downgrade(&node)).expect("it is set once");
    ask(&node, json!("outer"));
    // A read sees all that was there before it, the four of them included.
    until("the inner requests", || {
        ask(&node, Request::query(&1));
        node.check_committed_entry().entry.is_some_and(|entry| entry.value() == json!("inner"))
    });
    let seen = seen.lock().expect("nobody panicked");
    assert_eq!(seen.len(), 4);
    assert!(seen.iter().all(|error| matches!(error, RequestError::Invalid { .. })), "{seen:?}");
}
