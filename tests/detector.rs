//! Who is up, over real sockets: what a program sees of verdicts, and when.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Cluster, Plan, ms, until};
use crossbeam_channel::Receiver;
use kontiki::{BoxError, Entry, Event, StateMachine, Verdict};
use parking_lot::Mutex;
use serde_json::{Value, json};

/// What each node was told of whom: name, up, index.
type Told = BTreeMap<String, Vec<(String, bool, u64)>>;

fn read(events: &Receiver<Event>, told: &mut Told) {
    for event in events.try_iter() {
        let (node, turn) = match event {
            Event::MemberUp { node, member, index, .. } => (node, (member, true, index)),
            Event::MemberDown { node, member, index, .. } => (node, (member, false, index)),
            Event::Missed { .. } => panic!("the test reads too slowly"),
            _ => continue,
        };
        told.entry(node).or_default().push(turn);
    }
}

fn knows(cluster: &Cluster, at: usize, of: usize) -> Option<Verdict> {
    let members = cluster.knows(at).members;
    members.into_iter().find(|member| member.name == cluster.names[of])?.verdict
}

fn wait(cluster: &Cluster, at: impl IntoIterator<Item = usize> + Clone, of: usize, up: bool) {
    let what = format!("{} to be {}", cluster.names[of], if up { "up" } else { "down" });
    let has = |at| knows(cluster, at, of).is_some_and(|verdict| verdict.up == up);
    until(&what, || at.clone().into_iter().all(has));
}

fn all_up(cluster: &Cluster) {
    for of in 0..cluster.count() {
        wait(cluster, 0..cluster.count(), of, true);
    }
}

/// A cluster whose members are all up, and what it tells from the beginning.
fn watched(plan: Plan) -> (Cluster, Receiver<Event>) {
    let cluster = plan.make();
    let events = cluster.configs[0].events();
    cluster.all().for_each(|node| node.start().expect("it starts"));
    all_up(&cluster);
    (cluster, events)
}

/// Voters and learners die and come back; each node passes through the same verdicts, and
/// what `Committed` says is the last of them.
#[test]
fn all_nodes_are_told_the_same_in_the_same_order() {
    let (cluster, events) = watched(Plan::voters(3).learners(2));
    for dead in [4, 1, 3, 0, 2] {
        let others: Vec<usize> = (0..5).filter(|place| *place != dead).collect();
        let before = knows(&cluster, others[0], dead).expect("it was up");
        let died = Instant::now();
        cluster.node(dead).stop();
        wait(&cluster, others.clone(), dead, false);
        println!("{} was known to be down after {:?}", cluster.names[dead], died.elapsed());
        let down = knows(&cluster, others[0], dead).expect("it is down");
        assert!(down.index > before.index, "a token grows: {before:?}, {down:?}");
        assert_eq!(cluster.knows(dead).up_since, None);
        cluster.node(dead).start().expect("it starts");
        wait(&cluster, 0..5, dead, true);
        until("it to know its token", || cluster.knows(dead).up_since > Some(down.index));
    }
    let mut told = Told::new();
    read(&events, &mut told);
    let of = |place: usize| &told[&cluster.names[place]];
    // Those that ran all the time, from the beginning; the others replay what they had.
    let longest = (0..5).map(of).max_by_key(|turns| turns.last().map(|turn| turn.2)).unwrap();
    let mut newest: Vec<(String, bool, u64)> = longest.clone();
    newest.sort_by_key(|turn| turn.2);
    newest.dedup();
    for place in 0..5 {
        let mut replayed: Vec<&[(String, bool, u64)]> = Vec::new();
        let turns = of(place);
        let mut from = 0;
        for at in 1..turns.len() {
            if turns[at].2 < turns[at - 1].2 {
                replayed.push(&turns[from..at]);
                from = at;
            }
        }
        replayed.push(&turns[from..]);
        for turns in replayed {
            let first = newest.iter().position(|turn| *turn == turns[0]).expect("it is agreed");
            assert_eq!(turns, &newest[first..first + turns.len()], "at {}", cluster.names[place]);
        }
    }
}

/// A node that is cut off knows it, suspects nobody and is told nothing; then it passes
/// through what it missed.
#[test]
fn who_is_cut_off_accuses_nobody() {
    let (cluster, events) = watched(Plan::voters(5).relay(61));
    let leader = cluster.wait_leader();
    let mate = (leader + 1) % 5;
    let mut told = Told::new();
    read(&events, &mut told);
    let before = told[&cluster.names[leader]].len();
    // The leader is on the smaller side.
    cluster.relay().cut_off(&[leader, mate]);
    let others: Vec<usize> = (0..5).filter(|place| ![leader, mate].contains(place)).collect();
    wait(&cluster, others.clone(), leader, false);
    wait(&cluster, others.clone(), mate, false);
    let knows = cluster.knows(leader);
    assert!(knows.quorum_ago > Some(ms(200)), "{knows:?}");
    assert!(knows.members.iter().all(|member| !member.suspected && member.is_up()), "{knows:?}");
    read(&events, &mut told);
    assert_eq!(told[&cluster.names[leader]].len(), before, "it accused somebody");
    cluster.relay().heal();
    all_up(&cluster);
    read(&events, &mut told);
    let missed = &told[&cluster.names[leader]][before..];
    let other = &told[&cluster.names[others[0]]];
    assert_eq!(missed, &other[other.len() - missed.len()..]);
    assert!(missed.len() >= 4, "{missed:?}");
}

/// Twenty milliseconds, if heartbeats are as quick.
#[test]
fn a_failure_timeout_may_be_short() {
    let keys = json!({
        "heartbeat_ms": 5, "failure_timeout_ms": 20, "election_timeout_ms": [150, 300]
    });
    let cluster = Plan::voters(3).learners(1).keys(keys).start();
    all_up(&cluster);
    let mut took: Vec<Duration> = Vec::new();
    for _ in 0..5 {
        // A busy machine may have it down by mistake, and then it comes back.
        wait(&cluster, 0..3, 3, true);
        let died = Instant::now();
        cluster.node(3).stop();
        wait(&cluster, 0..3, 3, false);
        took.push(died.elapsed());
        cluster.node(3).start().expect("it starts");
    }
    took.sort();
    assert!(took[2] < ms(150), "{took:?}");
}

/// Writes down what it is given, in order.
#[derive(Clone, Default)]
struct Diary(Arc<Mutex<Vec<Value>>>);

impl StateMachine for Diary {
    fn apply(&mut self, entry: &Entry) -> Value {
        self.0.lock().push(json!([entry.index, entry.value()]));
        Value::Null
    }

    fn verdict(&mut self, member: &str, verdict: Verdict) {
        self.0.lock().push(json!([verdict.index, member, verdict.up]));
    }

    fn query(&self, _: &Value) -> Value {
        json!(*self.0.lock())
    }

    fn snapshot(&self) -> Result<Vec<u8>, BoxError> {
        Ok(serde_json::to_vec(&*self.0.lock())?)
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), BoxError> {
        *self.0.lock() = serde_json::from_slice(snapshot)?;
        Ok(())
    }
}

/// A state machine is told of verdicts among the entries, where they stand in the log:
/// every machine the same, whatever its node was restarted from.
#[test]
fn machines_are_told_among_the_entries() {
    let keys = json!({"snapshot_every": 20});
    let plan = Plan::voters(3).durable().keys(keys);
    let mut cluster = plan.dress(|config| config.state_machine(|_| Diary::default())).start();
    all_up(&cluster);
    for dead in [1, 2, 0, 1] {
        cluster.commit_everywhere((dead + 1) % 3, json!({"before the death of": dead}));
        cluster.lose(dead);
        let others: Vec<usize> = (0..3).filter(|place| *place != dead).collect();
        wait(&cluster, others.clone(), dead, false);
        for value in 0..30 {
            common::ask(cluster.node(others[0]), json!(value));
        }
        cluster.renew(dead);
        wait(&cluster, 0..3, dead, true);
    }
    cluster.commit_everywhere(0, json!("the end"));
    let diary = |place: usize| {
        let query = kontiki::Request::query(&json!(null));
        common::ask(cluster.node(place), query).value.as_array().cloned().expect("a list")
    };
    let first = diary(0);
    let index = |line: &Value| line[0].as_u64();
    assert!(first.is_sorted_by_key(index), "{first:?}");
    let deaths = first.iter().filter(|line| line[2] == json!(false)).count();
    assert!(deaths >= 4, "{first:?}");
    for place in 1..3 {
        let (other, own) = (diary(place), diary(0));
        let shared = other.len().min(own.len());
        assert_eq!(other[..shared], own[..shared]);
    }
}
