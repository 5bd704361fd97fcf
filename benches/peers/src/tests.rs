//! The measurements, the same for every peer.

use std::thread;
use std::time::{Duration, Instant};

use oneshot::{Receiver, TryRecvError};
use serde_json::json;

use crate::cluster::{Asking, Cluster, Outcome, Way, value};
use crate::measure::{self, Asked, Client, Sample, Test, closed_loop, many_threads};

pub fn run<C: Cluster>(asked: &Asked) -> Outcome<()> {
    if asked.k.contains(&0) {
        return Err("--k is at least 1".into());
    }
    if asked.size.iter().any(|&size| size > C::LONGEST) {
        return Err(format!("{} takes values of {} bytes at most", C::NAME, C::LONGEST).into());
    }
    match asked.test {
        Test::Load | Test::Threads => loads::<C>(asked),
        Test::Failover => failover::<C>(asked),
        Test::Idle => idle::<C>(asked),
        Test::Mem => mem::<C>(asked),
        _ => Err("the peers have load, threads, failover, idle and mem".into()),
    }
}

fn loads<C: Cluster>(asked: &Asked) -> Outcome<()> {
    let cluster = C::begin(asked.nodes, true)?;
    for &size in &asked.size {
        for &k in &asked.k {
            let run = |way, seconds| load(&cluster, asked.test, (k, size), way, seconds);
            let way = quicker(asked.seconds / 8, run);
            measure::load_line(C::NAME, asked.test, k, size, &run(way, asked.seconds));
        }
    }
    Ok(())
}

fn load<C: Cluster>(
    cluster: &C,
    test: Test,
    (k, size): (usize, usize),
    way: Way,
    seconds: Duration,
) -> Sample {
    let client = || Asking::new(cluster, size, way);
    match test {
        Test::Threads => many_threads((0..k).map(|_| client()).collect(), seconds),
        _ => closed_loop(&mut client(), k, seconds),
    }
}

/// The way to wait in which a system does more here: each is tried, twice in turn.
fn quicker(seconds: Duration, run: impl Fn(Way, Duration) -> Sample) -> Way {
    let rate = |way| run(way, seconds).per_second();
    let (mut parked, mut looked) = (0.0, 0.0);
    for _ in 0..2 {
        parked += rate(Way::Parks);
        looked += rate(Way::Looks);
    }
    if looked > parked { Way::Looks } else { Way::Parks }
}

fn idle<C: Cluster>(asked: &Asked) -> Outcome<()> {
    let _cluster = C::begin(asked.nodes, true)?;
    thread::sleep(Duration::from_secs(1));
    measure::idle_line(C::NAME, asked.seconds);
    Ok(())
}

/// Kills the leader, again and again.
fn failover<C: Cluster>(asked: &Asked) -> Outcome<()> {
    if asked.nodes < 3 {
        return Err("failover takes three nodes".into());
    }
    let mut cluster = C::begin(asked.nodes, true)?;
    let since = Instant::now();
    let mut round = 0;
    while since.elapsed() < asked.seconds {
        // Whole, and at another moment between two heartbeats each time.
        let mut client = Asking::new(&cluster, asked.size[0], Way::Parks);
        let ticket = client.send();
        client.wait(ticket);
        cluster.all_have(cluster.applied(cluster.leader()));
        thread::sleep(Duration::from_millis(700 + 37 * round % 200));

        // Now, for it may have changed in the meantime.
        let leader = cluster.leader();
        let died = Instant::now();
        cluster.kill(leader);
        next_commit(&cluster, leader, asked.size[0]);
        measure::failover_line(C::NAME, died.elapsed());
        cluster.restart(leader);
        round += 1;
    }
    Ok(())
}

/// Asks all but the dead one, every millisecond, until one has committed.
fn next_commit<C: Cluster>(cluster: &C, dead: usize, size: usize) {
    let mut tickets: Vec<Option<Receiver<()>>> = (0..cluster.len()).map(|_| None).collect();
    loop {
        for (node, ticket) in tickets.iter_mut().enumerate() {
            let answer = ticket.as_ref().map(|ticket| ticket.try_recv());
            match answer {
                _ if node == dead => {}
                Some(Ok(())) => return,
                Some(Err(TryRecvError::Empty)) => {}
                Some(Err(TryRecvError::Disconnected)) | None => {
                    *ticket = Some(cluster.ask(node, value(size)));
                }
            }
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// What the entries of a log that nobody shortens take.
fn mem<C: Cluster>(asked: &Asked) -> Outcome<()> {
    // What one cluster has given back, the next would take without a trace.
    let [size] = asked.size[..] else { return Err("mem takes one --size".into()) };
    let cluster = C::begin(asked.nodes, false)?;
    let mut client = Asking::new(&cluster, size, Way::Parks);
    cluster.all_have(cluster.applied(cluster.leader()));
    let before = measure::rss_kb();
    let mut flying = std::collections::VecDeque::with_capacity(measure::WINDOW);
    for _ in 0..asked.entries {
        if flying.len() == measure::WINDOW
            && let Some(first) = flying.pop_front()
        {
            client.wait(first);
        }
        flying.push_back(client.send());
    }
    flying.into_iter().for_each(|ticket| client.wait(ticket));
    cluster.all_have(cluster.applied(cluster.leader()));
    let after = measure::rss_kb();
    let copies = (asked.entries * asked.nodes as u64).max(1) as f64;
    let each = after.saturating_sub(before) as f64 * 1024.0 / copies;
    let rest = json!({
        "entries": asked.entries,
        "size": size,
        "rss_kb": after,
        "bytes_per_entry_node": each.round(),
    });
    measure::line(C::NAME, "mem", &rest);
    Ok(())
}
