//! What `client_request` promises over real sockets, and all that a `Pending` can do.

mod common;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use common::machine::Tally;
use common::single::started;
use common::{Plan, answer, ask, ms, refusal, until, until_some};
use kontiki::{Config, Pending, RaftNode, Request, RequestError, Role};
use serde_json::{Value, json};

// ---------------------------------------------------------------- requests

/// A `Pending` gives the same answer by whichever way it is asked and however
/// often; a limit that passes leaves the request as it is.
#[test]
fn the_ways_to_wait() {
    let cluster = Plan::voters(3).make();
    cluster.node(0).start().expect("it starts");
    // Nobody to commit with yet: all ways say so without waiting for ever.
    let node = cluster.node(0);
    let mut timed = node.client_request(json!("timed")).expect("it is taken");
    let mut polled = node.client_request(json!("polled")).expect("it is taken");
    let waited = node.client_request(json!("waited")).expect("it is taken");
    let awaited = node.client_request(json!("awaited")).expect("it is taken");
    let dropped = Request::command(&json!("dropped")).id("dropped");
    drop(node.client_request(dropped).expect("it is taken"));
    assert_eq!(timed.wait_timeout(ms(20)), Ok(None));
    assert_eq!(timed.wait_timeout(Duration::ZERO), Ok(None));
    assert_eq!(polled.try_reply(), Ok(None));
    assert!(Pin::new(&mut polled).poll(&mut Context::from_waker(Waker::noop())).is_pending());
    let waiter = thread::spawn(move || waited.wait());
    let awaiter = thread::spawn(move || block_on(awaited));
    for place in [1, 2] {
        cluster.node(place).start().expect("it starts");
    }
    let reply = answer("the timed one", &mut timed).expect("it is committed");
    assert_eq!(timed.try_reply(), Ok(Some(reply.clone())));
    assert_eq!(timed.wait_timeout(Duration::MAX), Ok(Some(reply.clone())));
    assert_eq!(block_on(&mut timed), Ok(reply.clone()));
    assert_eq!(block_on(&mut timed), Ok(reply.clone()), "a future that may be polled again");
    assert_eq!(timed.wait(), Ok(reply));
    until_some("the polled one", || polled.try_reply().expect("it is committed"));
    until("the waited one", || waiter.is_finished());
    waiter.join().expect("no panic").expect("it is committed");
    until("the awaited one", || awaiter.is_finished());
    awaiter.join().expect("no panic").expect("it is committed");
    // The one that nobody waits for went on all the same.
    until("the dropped one", || {
        let found = node.client_request(Request::lookup("dropped")).expect("it is taken").wait();
        found.is_ok()
    });
}

/// The smallest executor: polls, and sleeps until it is woken.
fn block_on<F: Future + Unpin>(mut future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let deadline = Instant::now() + common::PATIENCE;
    loop {
        match Pin::new(&mut future).poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => {
                assert!(Instant::now() < deadline, "no answer within {:?}", common::PATIENCE);
                thread::park_timeout(common::PATIENCE);
            }
        }
    }
}

/// A `Pending` that is polled by one task and then moved to another wakes the
/// last one.
#[test]
fn a_pending_wakes_whoever_polled_last() {
    let cluster = Plan::voters(3).make();
    cluster.node(0).start().expect("it starts");
    let mut pending = cluster.node(0).client_request(json!(1)).expect("it is taken");
    assert!(Pin::new(&mut pending).poll(&mut Context::from_waker(Waker::noop())).is_pending());
    let waiter = thread::spawn(move || block_on(pending));
    for place in [1, 2] {
        cluster.node(place).start().expect("it starts");
    }
    until("the second task to be woken", || waiter.is_finished());
    waiter.join().expect("no panic").expect("it is committed");
}

/// Without a quorum a node takes 65,536 requests and then says that it is busy, at
/// once; each of them ends, with a refusal at its deadline; and then there is room
/// again. Pitfalls 54, 63.
#[test]
fn busy_at_the_bound_and_not_for_ever() {
    const BOUND: usize = 65_536;
    let keys = json!({"request_timeout_ms": 1_500});
    let cluster = Plan::voters(3).keys(keys).start();
    cluster.commit_everywhere(0, json!("before"));
    cluster.node(1).stop();
    cluster.node(2).stop();
    let node = cluster.node(0);
    until("the node to be alone", || node.check_committed_entry().leader.is_none());
    let mut open: Vec<Pending> = Vec::with_capacity(BOUND);
    let busy = until_some("the bound", || match node.client_request(json!(1)) {
        Ok(pending) => {
            open.push(pending);
            assert!(open.len() <= BOUND);
            // As many as there are in one look.
            while open.len() < BOUND {
                match node.client_request(json!(1)) {
                    Ok(pending) => open.push(pending),
                    Err(error) => return Some(error),
                }
            }
            None
        }
        Err(error) => Some(error),
    });
    assert!(matches!(busy, RequestError::Busy { limit: BOUND, .. }), "{busy:?}");
    for (n, pending) in open.iter_mut().enumerate() {
        let error =
            answer("a request without a quorum", pending).expect_err("nothing is committed");
        assert!(matches!(error, RequestError::Refused { .. }), "request {n}: {error}");
    }
    cluster.node(1).start().expect("it starts again");
    until("room, and a quorum", || {
        node.client_request(json!("after"))
            .is_ok_and(|mut pending| answer("a request with a quorum", &mut pending).is_ok())
    });
}

/// A request above `max_value_bytes` is refused with both numbers, one at the limit
/// is committed, and what cannot be a request is invalid; nothing is sent then.
#[test]
fn too_large_and_invalid_at_once() {
    let cluster = Plan::voters(3).keys(json!({"max_value_bytes": 100})).start();
    let text = |length: usize| json!("x".repeat(length - 2));
    ask(cluster.node(1), text(100));
    let index = cluster.commit_everywhere(1, json!("newest"));
    let error = cluster.node(1).client_request(text(101)).unwrap_err();
    assert!(matches!(error, RequestError::TooLarge { bytes: 101, limit: 100, .. }), "{error:?}");
    let error = cluster.node(1).client_request(Request::query(&text(150))).unwrap_err();
    assert!(matches!(error, RequestError::TooLarge { bytes: 150, limit: 100, .. }), "{error:?}");
    for bad in [
        Request::query(&1).id("a"),
        Request::command(&1).id(""),
        Request::command(&1).id("x".repeat(257)),
        Request::lookup(""),
        Request::lookup("a").id("b"),
        Request::command(&BTreeMap::from([((1, 2), 3)])),
    ] {
        let error = cluster.node(1).client_request(bad.clone()).unwrap_err();
        assert!(matches!(error, RequestError::Invalid { .. }), "{bad:?}: {error}");
    }
    ask(cluster.node(0), Request::query(&1));
    assert_eq!(cluster.knows(1).entry.map(|entry| entry.index), Some(index));
}

/// The same id is committed once: who asks again, at this node or another, before
/// or after a restart, gets the first one's reply; a lookup finds it everywhere, and
/// finds nothing where there is nothing. Pitfall 53.
#[test]
fn an_id_is_committed_once() {
    let cluster =
        Plan::voters(3).dress(|config| config.state_machine(|_| Tally::default())).start();
    let request = |n: u64| Request::command(&json!({ "n": n })).id("order-17");
    let first = ask(cluster.node(0), request(1));
    assert_eq!(first.value, json!(1));
    for place in [0, 1, 2] {
        // Another value under the same id is not committed either.
        assert_eq!(ask(cluster.node(place), request(place as u64)), first);
        assert_eq!(ask(cluster.node(place), Request::lookup("order-17")), first);
        let error = refusal(cluster.node(place), Request::lookup("order-18"));
        assert!(
            matches!(&error, RequestError::NotFound { id, .. } if id == "order-18"),
            "{error:?}"
        );
    }
    // Many at once, at all nodes.
    let all: Vec<Pending> = (0..60)
        .map(|n| {
            let request = Request::command(&json!("race")).id("race");
            cluster.node(n % 3).client_request(request).expect("it is taken")
        })
        .collect();
    let replies: Vec<_> = all
        .into_iter()
        .map(|mut pending| answer("the race", &mut pending).expect("fine"))
        .collect();
    assert!(replies.iter().all(|reply| *reply == replies[0]), "{replies:?}");
    cluster.node(1).stop();
    cluster.node(1).start().expect("it starts again");
    assert_eq!(ask(cluster.node(1), request(9)), first);
    for place in 0..3 {
        let expected = json!({"values": 2, "twice": [], "entries": 2});
        assert_eq!(ask(cluster.node(place), Request::query(&())).value, expected);
    }
    // The entry shows the id.
    let entry = cluster.knows(0).entry.expect("there is one");
    assert_eq!((entry.id(), entry.index), (Some("race"), replies[0].index));
}

/// A query is answered by each node with the state that all earlier commands made:
/// by its machine, or, without one, with the newest value. Pitfall 49.
#[test]
fn queries_see_what_was_written_before() {
    let plain = Plan::voters(3).start();
    assert_eq!(ask(plain.node(2), Request::query(&"anything")).value, Value::Null);
    let tallied =
        Plan::voters(3).dress(|config| config.state_machine(|_| Tally::default())).start();
    for n in 1..30 {
        // Written at one node, read at the next one.
        let (here, there) = (n % 3, (n + 1) % 3);
        let reply = ask(plain.node(here), json!({ "n": n }));
        assert_eq!(reply.value, Value::Null);
        let read = ask(plain.node(there), Request::query(&"anything"));
        assert_eq!(read.value, json!({ "n": n }));
        assert!(read.index >= reply.index && read.term >= reply.term);
        assert_eq!(ask(tallied.node(here), json!("same")).value, json!(n));
        assert_eq!(ask(tallied.node(there), Request::query(&"same")).value, json!(n));
    }
    // After a reply the node that was asked shows what was written.
    for n in 0..30 {
        let index = ask(plain.node(n % 3), json!(n)).index;
        let entry = plain.knows(n % 3).entry.expect("there is one");
        assert_eq!((entry.index, entry.value()), (index, json!(n)));
    }
}

/// Nodes at IPv6 addresses agree, too, where the system has such.
#[test]
fn a_cluster_over_ipv6() {
    let here = |port: u16| SocketAddr::from((Ipv6Addr::LOCALHOST, port));
    // Ports of this process alone, or nearly so.
    let first = 9_000 + (std::process::id() % 300) as u16 * 3;
    if (0..3).any(|n| UdpSocket::bind(here(first + n)).is_err()) {
        return;
    }
    let config = Config::new((0..3).map(|n| (format!("node{n}"), here(first + n))));
    let config = config.expect("the config is sound");
    let nodes: Vec<RaftNode> = config.names().map(|name| started(&config, name)).collect();
    for (n, node) in nodes.iter().enumerate() {
        ask(node, json!(n));
    }
    assert!(nodes[0].check_committed_entry().members[0].address.is_ipv6());
}

/// Clusters of one, two, five and nine voters commit through every node.
#[test]
fn clusters_of_all_sizes() {
    for count in [1, 2, 5, 9] {
        let cluster = Plan::voters(count).start();
        for place in 0..count {
            cluster.commit_everywhere(place, json!(place));
        }
        let leaders: Vec<_> = cluster.all().map(|node| node.check_committed_entry()).collect();
        for known in leaders {
            assert_eq!(known.members.len(), count);
            assert!(known.waiting_for.is_empty());
            assert!(known.quorum_ago.is_some(), "{known}");
        }
    }
}

/// Learners of the file follow, take requests, queries and lookups, and never
/// count: with a majority of the voters gone, nothing is committed however many
/// learners there are, and none of them stands for election. Pitfall 44.
#[test]
fn learners_serve_and_never_count() {
    let keys = json!({"request_timeout_ms": 1_000});
    let cluster = Plan::voters(3).learners(4).keys(keys).start();
    for place in 3..7 {
        until("the learners to learn", || cluster.knows(place).role == Role::Learner);
        let request = Request::command(&json!(place)).id(format!("by {place}"));
        let reply = ask(cluster.node(place), request);
        assert_eq!(ask(cluster.node(place), Request::query(&())).value, json!(place));
        assert_eq!(
            ask(cluster.node(place), Request::lookup(format!("by {place}"))).index,
            reply.index
        );
    }
    cluster.commit_everywhere(6, json!("all"));
    for place in 0..7 {
        let members = cluster.knows(place).members;
        let voters = members.iter().filter(|member| member.voter).count();
        assert_eq!((voters, members.len()), (3, 7));
    }
    cluster.node(0).stop();
    cluster.node(1).stop();
    for place in 2..7 {
        let error = refusal(cluster.node(place), json!("never"));
        assert!(matches!(error, RequestError::Refused { .. } | RequestError::Unknown), "{error}");
    }
    for place in 3..7 {
        let known = cluster.knows(place);
        assert_eq!(known.role, Role::Learner);
        assert_eq!(known.entry.map(|entry| entry.value()), Some(json!("all")));
    }
    cluster.node(0).start().expect("it starts again");
    cluster.wait_leader_among([0, 2]);
    until("a commit by a learner", || {
        cluster
            .node(5)
            .client_request(json!("again"))
            .is_ok_and(|mut pending| answer("a learner's request", &mut pending).is_ok())
    });
}
