//! Real processes on real networks: five `examples/node.rs`, each in a network namespace
//! of its own, on one bridge at an MTU of 1,500. Links are cut, datagrams are lost, nodes
//! are stopped and killed, while ten clients write and read. After each fault all nodes
//! serve again within two seconds, and what the clients saw has one order. Most of it is
//! done by nodes with logs on the disk, and the kills also by nodes without.
//!
//! Linux's root can have namespaces; elsewhere these tests say so and are skipped.
#![cfg(target_os = "linux")]

#[path = "../common/chance.rs"]
#[allow(dead_code)] // other tests use more of it
mod chance;
mod cluster;
mod history;
mod net;
mod nodes;
#[path = "../common/program.rs"]
#[allow(dead_code)]
mod program;
#[path = "../common/skipped.rs"]
mod skipped;

use std::io::{self, BufRead, BufReader};
use std::panic::{self, AssertUnwindSafe};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use serde_json::json;

use crate::chance::Chance;
use crate::cluster::{ALL, Cluster, ELECTION, HEALING};
use crate::history::{Asked, Ending, Request};
use crate::net::Weather;

/// Requests that are cut off end soon, so that many of them do.
fn impatient() -> serde_json::Value {
    json!({"request_timeout_ms": 700})
}

/// Who hears whom changes, in every way that is known for its trouble. Each part says what
/// Raft with pre-vote and check-quorum must do.
#[test]
fn a_cut_network_serves_where_a_majority_is_and_everywhere_when_healed() {
    let Some(mut cluster) = Cluster::durable(impatient()) else { return };
    halves(&mut cluster);
    one_way(&mut cluster);
    one_link_one_way(&mut cluster);
    bridge(&mut cluster);
    star(&mut cluster);
    chain(&mut cluster);
    deaf_leader(&mut cluster);
    storm(&mut cluster);
    cluster.finish("partitions");
}

/// A part of a test: cuts links and sees what the nodes do, for how long it took the
/// majority to serve, or what happened that must not.
type Part = fn(&mut Cluster, &str) -> Result<Duration, String>;

/// Cuts that end the leader's time, where no one knows how many terms it takes.
fn elect(cluster: &mut Cluster, what: &str, part: Part) {
    let fault = part(cluster, what).unwrap_or_else(|problem| panic!("{what}: {problem}"));
    let healed = cluster.heal(what);
    cluster.measure(what, fault, healed);
}

/// Cuts that cost no term, neither while they last nor when they end: whoever hears no
/// leader campaigns all the time, and by pre-vote nobody else has to care.
///
/// A machine that does much else may let the leader wait for longer than the others'
/// patience. They rightly elect another then, so there are three tries; who is disturbed by
/// campaigns is disturbed in each of them.
fn stay(cluster: &mut Cluster, what: &str, part: Part) {
    for _ in 0..3 {
        let term = cluster.term();
        let done = part(cluster, what);
        let healed = cluster.heal(what);
        if cluster.term() == term {
            let fault = done.unwrap_or_else(|problem| panic!("{what}: {problem}"));
            return cluster.measure(what, fault, healed);
        }
        cluster.note(&format!("{what}: the term has risen"));
    }
    panic!("{what}: the term rose in each try\n{}", cluster.story());
}

/// Two and three. The three elect a leader if theirs is not among them, and the two, who
/// have none or one that cannot commit, do nothing.
fn halves(cluster: &mut Cluster) {
    elect(cluster, "halves, the leader among the two", |cluster, what| {
        let (leader, [a, b, c, d]) = cluster.roles();
        let since = cluster.set(&Weather::calm().deaf(&[leader, a]).mute(&[leader, a]));
        let fault = cluster.served(what, since, [b, c, d], ELECTION);
        cluster.in_vain(since, [leader, a]).map(|()| fault)
    });
    stay(cluster, "halves, the leader among the three", |cluster, what| {
        let (leader, [a, b, c, d]) = cluster.roles();
        let since = cluster.set(&Weather::calm().deaf(&[a, b]).mute(&[a, b]));
        let fault = cluster.served(what, since, [leader, c, d], ELECTION);
        // Not even while another is elected: they are two.
        let vain = cluster.in_vain(since, [a, b]);
        vain.unwrap_or_else(|problem| panic!("{what}: {problem}"));
        Ok(fault)
    });
}

/// Two and three, and only one of the two ways between them is closed.
fn one_way(cluster: &mut Cluster) {
    // The three do not hear their leader any more and elect another. The two hear that one,
    // and follow it; but it does not hear them, so it serves none of theirs.
    elect(cluster, "one way, the leader among two that are not heard", |cluster, what| {
        let (leader, [a, b, c, d]) = cluster.roles();
        let since = cluster.set(&Weather::calm().mute(&[leader, a]));
        let fault = cluster.served(what, since, [b, c, d], ELECTION);
        cluster.in_vain(since, [leader, a]).map(|()| fault)
    });
    // The leader's heartbeats reach all, but of their answers only one arrives. Check-quorum
    // makes it step down, or the three, who hear it, would never elect another.
    elect(cluster, "one way, the leader among two that hear nobody else", |cluster, what| {
        let (leader, [a, b, c, d]) = cluster.roles();
        let since = cluster.set(&Weather::calm().deaf(&[leader, a]));
        let fault = cluster.served(what, since, [b, c, d], ELECTION);
        cluster.in_vain(since, [leader, a]).map(|()| fault)
    });
}

/// One follower hears all but the leader. It asks again and again who would vote for it, and
/// all refuse, as they hear the leader and have newer entries: nothing comes of it.
fn one_link_one_way(cluster: &mut Cluster) {
    stay(cluster, "one link one way, a follower does not hear its leader", |cluster, what| {
        let (leader, [a, b, c, d]) = cluster.roles();
        let since = cluster.set(&Weather::calm().not_heard(a, leader));
        let fault = cluster.served(what, since, [leader, b, c, d], ELECTION);
        cluster.in_vain(since, [a]).map(|()| fault)
    });
}

/// Two, two, and one between them that both still hear: the leader's side and the bridge
/// are a majority and go on. The others' campaigns end at the bridge, which hears the leader.
fn bridge(cluster: &mut Cluster) {
    stay(cluster, "a bridge between two and two", |cluster, what| {
        let (leader, [a, bridge, c, d]) = cluster.roles();
        let ours = [(leader, a), (leader, bridge), (a, bridge)];
        let theirs = [(bridge, c), (bridge, d), (c, d)];
        let since = cluster.set(&Weather::only(&[ours, theirs].concat()));
        let fault = cluster.served(what, since, [leader, a, bridge], ELECTION);
        cluster.in_vain(since, [c, d]).map(|()| fault)
    });
}

/// Only one node is heard by more than one, and it does not lead. The leader steps down for
/// want of a majority, nobody else can reach one, so that node is elected, and all hear it.
fn star(cluster: &mut Cluster) {
    elect(cluster, "a star, the leader not in its middle", |cluster, what| {
        let (leader, [middle, b, c, d]) = cluster.roles();
        let links = [leader, b, c, d].map(|node| (middle, node));
        let since = cluster.set(&Weather::only(&links));
        let fault = cluster.served(what, since, ALL, ELECTION);
        match cluster.roles().0 {
            leads if leads == middle => Ok(fault),
            other => Err(format!("node{other} leads, in the middle is node{middle}")),
        }
    });
}

/// Each node hears its neighbours only.
fn chain(cluster: &mut Cluster) {
    // It steps down, and one of the three in the middle is elected: these reach a majority.
    elect(cluster, "a chain, the leader at its end", |cluster, what| {
        let (leader, [a, b, c, d]) = cluster.roles();
        let since = cluster.set(&Weather::only(&[(leader, a), (a, b), (b, c), (c, d)]));
        let fault = cluster.served_any(what, since, 3, ELECTION);
        match cluster.roles().0 {
            leads if [a, b, c].contains(&leads) => Ok(fault),
            end => Err(format!("node{end} leads, which hears one other")),
        }
    });
    // Its neighbours and it are a majority; the ends' campaigns end at the neighbours.
    stay(cluster, "a chain, the leader in its middle", |cluster, what| {
        let (leader, [a, b, c, d]) = cluster.roles();
        let since = cluster.set(&Weather::only(&[(a, b), (b, leader), (leader, c), (c, d)]));
        let fault = cluster.served(what, since, [b, leader, c], ELECTION);
        cluster.in_vain(since, [a, d]).map(|()| fault)
    });
}

/// A leader that hears nobody but is heard by all. As long as it sends heartbeats nobody
/// else can be elected, so it must step down by itself: check-quorum (thesis §6.2).
fn deaf_leader(cluster: &mut Cluster) {
    elect(cluster, "a leader that hears nobody but is heard", |cluster, what| {
        let (leader, others) = cluster.roles();
        let since = cluster.set(&Weather::calm().deaf(&[leader]));
        let fault = cluster.served(what, since, others, ELECTION);
        cluster.in_vain(since, [leader]).map(|()| fault)
    });
}

/// All of it at random, and gone before anybody has got over it: nothing is promised but
/// that what is seen has an order, and that it ends when the storm does.
fn storm(cluster: &mut Cluster) {
    let seed = u64::from(std::process::id());
    let what = format!("a storm (seed {seed})");
    let mut chance = Chance::new(seed);
    for _ in 0..20 {
        let since = cluster.set(&Weather::any(&mut chance));
        cluster.wait(since, Duration::from_millis(50 + chance.draw() % 400));
    }
    let healed = cluster.heal(&what);
    cluster.measure(&what, Duration::ZERO, healed);
}

/// Loss, a node that sleeps, and nodes that are killed, up to all at once, and come back
/// with their logs.
#[test]
fn losses_sleepers_and_kills_are_got_over() {
    let Some(mut cluster) = Cluster::durable(json!({"snapshot_every": 200})) else { return };
    for percent in [10, 30] {
        let what = format!("{percent} % loss");
        let since = cluster.set(&Weather::loss(percent));
        // What is lost is sent again, less often each time: it takes as long as chance has it.
        let fault = cluster.served(&what, since, ALL, Duration::from_secs(20));
        // Long enough for many requests to meet it, and for many timeouts to pass.
        cluster.wait(since, Duration::from_secs(3));
        let healed = cluster.heal(&what);
        cluster.measure(&what, fault, healed);
    }
    patience(&mut cluster);
    sleepers(&mut cluster);
    for round in 1..=3 {
        kill(&format!("SIGKILL of the leader, {round}"), &mut cluster);
    }
    kill_many("SIGKILL of three", &mut cluster, 3);
    kill_many("SIGKILL of all", &mut cluster, 5);
    cluster.finish("losses, sleepers and kills");
}

/// Without a log on the disk who is killed comes back without its vote, and is given
/// another: so every node may be killed, and every leader, as often as one likes, if each
/// votes again before the next.
#[test]
fn kills_without_a_disk_are_got_over_again_and_again() {
    let Some(mut cluster) = Cluster::new(json!({})) else { return };
    for round in 1..=6 {
        let what = format!("SIGKILL of the leader, {round}");
        let (leader, _) = cluster.roles();
        kill(&what, &mut cluster);
        cluster.votes_again(&what, leader);
    }
    cluster.finish("kills without a disk");
}

/// Requests that a cut meets are pursued for ten seconds. Each was sent again a few times in
/// vain, so the next time is far off; it is done as soon as it can be all the same.
fn patience(cluster: &mut Cluster) {
    elect(cluster, "halves, and requests that wait for the end of it", |cluster, what| {
        let (leader, [a, b, c, d]) = cluster.roles();
        let since = cluster.set(&Weather::calm().deaf(&[leader, a]).mute(&[leader, a]));
        let fault = cluster.served(what, since, [b, c, d], ELECTION);
        cluster.wait(since, Duration::from_secs(3));
        cluster.none_done(since, [leader, a]).map(|()| fault)
    });
}

/// SIGSTOP for a second: longer than any election timeout.
fn sleepers(cluster: &mut Cluster) {
    let (leader, [follower, ..]) = cluster.roles();
    for (what, sleeper) in [("the leader", leader), ("a follower", follower)] {
        let what = format!("SIGSTOP of {what}");
        cluster.node(sleeper).signal("STOP");
        let since = cluster.history.now();
        let others = ALL.filter(|&node| node != sleeper);
        let fault = cluster.served(&what, since, others, ELECTION);
        cluster.wait(since, Duration::from_secs(1));
        cluster.node(sleeper).signal("CONT");
        let since = cluster.history.now();
        let healed = cluster.served(&format!("{what}, awake"), since, ALL, HEALING);
        cluster.measure(&what, fault, healed);
    }
}

fn kill(what: &str, cluster: &mut Cluster) {
    let (leader, others) = cluster.roles();
    let since = cluster.kill(leader);
    let fault = cluster.served(what, since, others, ELECTION);
    let since = cluster.history.now();
    cluster.start(leader);
    let healed = cluster.served(&format!("{what}, back"), since, ALL, HEALING);
    cluster.measure(what, fault, healed);
}

/// The leader and others are killed in the same moment, so many that nobody can commit, and
/// all of them are started again.
fn kill_many(what: &str, cluster: &mut Cluster, count: usize) {
    let (leader, others) = cluster.roles();
    let killed = [&[leader], &others[..count - 1]].concat();
    for &node in &killed {
        cluster.kill(node);
    }
    let dead = cluster.history.now();
    cluster.wait(dead, ELECTION / 2);
    let vain = cluster.none_done(dead, others[count - 1..].iter().copied());
    vain.unwrap_or_else(|problem| panic!("{what}: {problem}"));
    let since = cluster.history.now();
    killed.into_iter().for_each(|node| cluster.start(node));
    // Processes are begun and logs read before there is anything to heal.
    let healed = cluster.served(&format!("{what}, back"), since, ALL, 2 * HEALING);
    cluster.measure(what, Duration::ZERO, healed);
}

/// A value of 200 KB goes in datagrams that the network carries whole, also where one in
/// ten is lost. That no system had to break one up is looked at in the end of each test.
#[test]
fn long_values_go_in_short_datagrams() {
    const BYTES: usize = 200_000;
    let Some(mut cluster) = Cluster::durable(json!({})) else { return };
    for (what, weather) in [("200 KB", Weather::calm()), ("200 KB, 10 % loss", Weather::loss(10))] {
        let (leader, [follower, ..]) = cluster.roles();
        let since = cluster.set(&weather);
        let before = cluster.sent(leader);
        let within = Duration::from_secs(5);
        let long = [leader, follower].map(|node| cluster.write_long(node, BYTES, within));
        cluster.served(what, since, ALL, within);
        // Both values, to each of the others.
        let least = (2 * 4 * BYTES / net::MTU) as u64;
        let sent = cluster.sent(leader) - before;
        assert!(sent >= least, "{sent} datagrams hold no less than {least}");
        let healed = cluster.heal(what);
        cluster.measure(what, long[0].max(long[1]), healed);
    }
    cluster.finish("long values");
}

/// What is seen goes to the checker as what it is: a stale read has no order, nor has one
/// that found what was refused; what is unknown may have been done, or not.
#[test]
fn a_history_that_has_no_order_is_found() {
    let request =
        |asked, called, ending| Request { client: 0, node: 0, asked, long: 0, called, ending };
    let done = Ending::Done { at: 30, value: None };
    for (second, found, sound) in [
        (done, 2, true),
        (done, 1, false),
        (Ending::Refused, 1, true),
        (Ending::Refused, 2, false),
        (Ending::Unknown, 1, true),
        (Ending::Unknown, 2, true),
        (Ending::Open, 1, true),
        (Ending::Open, 2, true),
    ] {
        let seen = [
            request(Asked::Write(1), 0, Ending::Done { at: 10, value: None }),
            request(Asked::Write(2), 20, second),
            request(Asked::Read, 40, Ending::Done { at: 50, value: Some(found) }),
        ];
        let checked = history::check(&seen);
        assert_eq!(checked.is_ok(), sound, "{second:?}, {found} was read: {checked:?}");
    }
}

/// A test that fails takes everything with it.
#[test]
fn a_run_that_fails_leaves_nothing() {
    let mut seen = None;
    let run = || {
        let Some(cluster) = Cluster::new(json!({})) else { return };
        cluster.set(&Weather::loss(10));
        seen = Some((cluster.pids(), cluster.network().name().to_string()));
        panic::resume_unwind(Box::new("as a test does that fails"));
    };
    let _ = panic::catch_unwind(AssertUnwindSafe(run));
    let Some((pids, network)) = seen else { return };
    assert_eq!(net::traces(&network), [""; 0]);
    assert_eq!(pids.len(), 5);
    assert!(!pids.into_iter().any(net::runs));
}

/// So does one that is killed, which can do nothing about it; also with a node that is
/// stopped, which does not see that its input has ended.
#[test]
fn a_run_that_is_killed_leaves_nothing() {
    const NAME: &str = "a_run_that_is_killed_leaves_nothing";
    const INNER: &str = "KONTIKI_INNER_RUN";
    if env::var_os(INNER).is_some() {
        let Some(cluster) = Cluster::new(json!({})) else { return };
        cluster.node(0).signal("STOP");
        println!("{NAME} {} {:?}", cluster.network().name(), cluster.pids());
        // Until it is killed, or whoever should do so is gone.
        let _ = io::stdin().read_line(&mut String::new());
        return;
    }
    let _turn = cluster::turn();
    let mut inner = Command::new(env::current_exe().expect("this program"))
        .args(["--exact", NAME, "--nocapture"])
        .env(INNER, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program can be run again");
    let lines = BufReader::new(inner.stdout.take().expect("it is piped")).lines();
    let told = lines.map_while(Result::ok).find_map(|line| {
        let (_, told) = line.split_once(&format!("{NAME} kontiki-net-"))?;
        Some(format!("kontiki-net-{told}"))
    });
    inner.kill().expect("it can be killed");
    inner.wait().expect("it can be waited for");
    let Some(told) = told else { return }; // it was skipped, and said so
    let (network, pids) = told.split_once(' ').expect("a name, and process ids");
    let pids: Vec<u32> = serde_json::from_str(pids).expect("a list of numbers");
    assert_eq!(pids.len(), 5);
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let left = (net::traces(network), pids.iter().filter(|&&pid| net::runs(pid)).count());
        if left == (Vec::new(), 0) {
            return;
        }
        assert!(Instant::now() < deadline, "left behind: {left:?}");
        thread::sleep(Duration::from_millis(5));
    }
}
