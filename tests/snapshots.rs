//! State machines that live on: through restarts and over gaps in the log, by snapshots
//! or by a disk of their own, each entry once. Logs that stay short, on a disk and in
//! memory; and followers that were away for longer than the log goes back, which get
//! the leader's snapshot instead.

mod common;

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use common::folder::{Folder, on_disk};
use common::machine::Tally;
use common::relay::Weather;
use common::single::{single, started};
use common::{Plan, answer, ask, ms, refusal, until, until_some};
use kontiki::{
    BoxError, Entry, Event, Pending, RaftNode, Request, RequestError, Role, StateMachine,
};
use serde_json::{Value, json};

/// What was asked of a node's machines, all of them, one after the other.
#[derive(Clone, Debug, PartialEq)]
enum Asked {
    /// There is a new one.
    Made,
    /// This entry was applied.
    Applied(u64),
    /// It gave a snapshot.
    Gave(Vec<u8>),
    /// It got one.
    Restored(Vec<u8>),
}

/// What the machines of all nodes of a test were asked, and what they are to do.
#[derive(Clone, Default)]
struct Diary(Arc<Pages>);

#[derive(Default)]
struct Pages {
    asked: Mutex<BTreeMap<String, Vec<Asked>>>,
    gives_no_snapshot: AtomicBool,
    takes_no_snapshot: AtomicBool,
    slow: AtomicBool,
}

impl Diary {
    fn pages(&self) -> MutexGuard<'_, BTreeMap<String, Vec<Asked>>> {
        self.0.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a node's machines were asked since the last one was made.
    fn since_made(&self, node: &str) -> Vec<Asked> {
        let asked = self.all(node);
        let made = asked.iter().rposition(|asked| *asked == Asked::Made).expect("one was made");
        asked[made + 1..].to_vec()
    }

    fn all(&self, node: &str) -> Vec<Asked> {
        self.pages().get(node).cloned().unwrap_or_default()
    }

    /// The snapshots that any node's machines gave.
    fn given(&self) -> Vec<Vec<u8>> {
        let gave = |asked: &Asked| match asked {
            Asked::Gave(bytes) => Some(bytes.clone()),
            _ => None,
        };
        self.pages().values().flatten().filter_map(gave).collect()
    }

    fn dress(&self, plan: Plan) -> Plan {
        let diary = self.clone();
        plan.dress(move |config| {
            let diary = diary.clone();
            config.state_machine(move |node| Diarist::new(&diary, node))
        })
    }
}

/// A tally that keeps a diary.
struct Diarist {
    diary: Diary,
    node: String,
    tally: Tally,
}

impl Diarist {
    fn new(diary: &Diary, node: &str) -> Diarist {
        let diarist =
            Diarist { diary: diary.clone(), node: node.to_string(), tally: Tally::default() };
        diarist.note(Asked::Made);
        diarist
    }

    fn note(&self, asked: Asked) {
        self.diary.pages().entry(self.node.clone()).or_default().push(asked);
    }

    /// Takes a second, if it is to be slow.
    fn take_its_time(&self) {
        if self.diary.0.slow.load(Ordering::SeqCst) {
            thread::sleep(ms(1_000));
        }
    }
}

impl StateMachine for Diarist {
    fn apply(&mut self, entry: &Entry) -> Value {
        self.note(Asked::Applied(entry.index));
        if entry.value()["slow"] == json!(true) {
            self.take_its_time();
        }
        self.tally.apply(entry)
    }

    fn query(&self, query: &Value) -> Value {
        self.tally.query(query)
    }

    fn snapshot(&self) -> Result<Vec<u8>, BoxError> {
        if self.diary.0.gives_no_snapshot.load(Ordering::SeqCst) {
            return Err("its ink is dry".into());
        }
        self.take_its_time();
        let bytes = self.tally.snapshot()?;
        self.note(Asked::Gave(bytes.clone()));
        Ok(bytes)
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), BoxError> {
        if self.diary.0.takes_no_snapshot.load(Ordering::SeqCst) {
            return Err("it cannot read this hand".into());
        }
        self.note(Asked::Restored(snapshot.to_vec()));
        self.tally.restore(snapshot)
    }
}

/// How often a snapshot was restored, and the indexes that were applied afterwards; in
/// between nothing else was asked.
fn restored_then_applied(asked: &[Asked]) -> (Vec<Vec<u8>>, Vec<u64>) {
    let (mut restored, mut applied) = (Vec::new(), Vec::new());
    for asked in asked {
        match asked {
            Asked::Restored(bytes) => {
                restored.push(bytes.clone());
                applied.clear();
            }
            Asked::Applied(index) => applied.push(*index),
            Asked::Gave(_) => {}
            Asked::Made => panic!("another machine was made"),
        }
    }
    (restored, applied)
}

/// What a node's machine holds, as a linearizable read has it.
fn counted(node: &RaftNode) -> Value {
    ask(node, Request::query(&())).value
}

/// So many entries, all different, none twice.
fn all(entries: u64) -> Value {
    json!({"values": entries, "twice": [], "entries": entries})
}

// ---------------------------------------------------------------- one node, again and again

/// A machine that is made anew gets a snapshot that one of its predecessors gave, to the
/// byte, and then the entries after it, in order, and none twice. The folder holds no
/// more than that needs.
#[test]
fn a_machine_gets_its_snapshot_back_and_what_follows_it() {
    let diary = Diary::default();
    let keys = json!({"snapshot_every": 10});
    let mut cluster = diary.dress(Plan::voters(1).durable().keys(keys)).start();
    let mut entries = 0;
    for round in 0..6 {
        for n in 0..37 {
            ask(cluster.node(0), json!({"n": [round, n]}));
            entries += 1;
        }
        cluster.lose(0);
        cluster.renew(0);
        assert_eq!(counted(cluster.node(0)), all(entries));
        let (restored, applied) = restored_then_applied(&diary.since_made("node0"));
        assert_eq!(restored.len(), 1, "one snapshot is the whole state");
        assert!(diary.given().contains(&restored[0]), "it is one that was given");
        let (_, before): (BTreeMap<String, u64>, u64) =
            serde_json::from_slice(&restored[0]).expect("it is a tally's");
        assert_eq!(before + applied.len() as u64, entries, "{applied:?}");
        assert!(applied.is_sorted_by(|one, next| one < next), "{applied:?}");
        // Only what was not covered yet when the last one was begun.
        assert!(applied.len() <= 37, "{} entries after the snapshot", applied.len());
    }
    // As many as there were, what nobody needs goes while it works on.
    let count = |names: &[String], kind| names.iter().filter(|n| n.starts_with(kind)).count();
    until("a short folder", || {
        entries += 1;
        ask(cluster.node(0), json!({ "n": entries }));
        let (names, _) = on_disk(&cluster.folder(0));
        count(&names, "snapshot-") <= 2 && count(&names, "log-") <= 3
    });
    assert_eq!(counted(cluster.node(0)), all(entries));
}

/// A machine that gives no snapshot leaves the log as long as it is, is asked again
/// later, and nothing else is different; when it gives one, that is taken.
#[test]
fn a_machine_that_gives_no_snapshot_is_asked_again() {
    for durable in [true, false] {
        let diary = Diary::default();
        diary.0.gives_no_snapshot.store(true, Ordering::SeqCst);
        let keys = json!({"snapshot_every": 10});
        let plan = Plan::voters(1).durable_if(durable).keys(keys);
        let cluster = diary.dress(plan).make();
        let events = cluster.configs[0].events();
        cluster.node(0).start().expect("it starts");
        for n in 0..50 {
            assert_eq!(ask(cluster.node(0), json!({ "n": n })).value, json!(1));
        }
        let snapshot = |event: &Event| matches!(event, Event::Snapshot { received: false, .. });
        assert!(!events.try_iter().any(|event| snapshot(&event)));
        cluster.node(0).stop();
        cluster.node(0).start().expect("it starts without a snapshot");
        assert_eq!(counted(cluster.node(0)), all(50));

        diary.0.gives_no_snapshot.store(false, Ordering::SeqCst);
        let mut n = 50;
        until("a snapshot, now that it gives one", || {
            ask(cluster.node(0), json!({ "n": n }));
            n += 1;
            events.try_iter().any(|event| snapshot(&event))
        });
        cluster.node(0).stop();
        cluster.node(0).start().expect("it starts with a snapshot");
        assert_eq!(counted(cluster.node(0)), all(n));
    }
}

/// A machine that does not take its snapshot back stops its node, which says so at every
/// call. Once it does take it, a start goes on.
#[test]
fn a_machine_that_takes_no_snapshot_stops_its_node() {
    let diary = Diary::default();
    let keys = json!({"snapshot_every": 10});
    let mut cluster = diary.dress(Plan::voters(1).durable().keys(keys)).start();
    for n in 0..25 {
        ask(cluster.node(0), json!({ "n": n }));
    }
    diary.0.takes_no_snapshot.store(true, Ordering::SeqCst);
    cluster.lose(0);
    cluster.renew(0);
    for again in [false, true] {
        if again {
            cluster.node(0).start().expect("it tries anew");
        }
        until("it to stop", || cluster.knows(0).role == Role::Stopped);
        let error = refusal(cluster.node(0), json!({"n": 25}));
        let RequestError::Failed { reason, .. } = &error else { panic!("{error}") };
        assert!(reason.contains("it cannot read this hand"), "{reason}");
    }
    diary.0.takes_no_snapshot.store(false, Ordering::SeqCst);
    cluster.node(0).start().expect("it starts anew");
    assert_eq!(counted(cluster.node(0)), all(25));
}

/// An `apply` or a `snapshot` that takes a second costs no heartbeat: leader and term
/// stay, on a disk as in memory. Pitfall 67.
#[test]
fn a_slow_machine_costs_no_heartbeat() {
    for (durable, slow_apply) in [(true, true), (true, false), (false, false)] {
        let diary = Diary::default();
        let keys = json!({"election_timeout_ms": [200, 400], "snapshot_every": 5});
        let plan = Plan::voters(3).durable_if(durable).keys(keys);
        let cluster = diary.dress(plan).make();
        let events = cluster.configs[0].events();
        cluster.all().for_each(|node| node.start().expect("it starts"));
        cluster.commit_everywhere(0, json!({"n": "before"}));
        // A machine that does much else may hold up a whole process for so long that an
        // election is right; never three times in a row.
        let kept = (0..3).any(|attempt| {
            let leader = cluster.wait_leader();
            let term = cluster.knows(leader).term;
            let (before, mut kept, mut n) = (diary.given().len(), 0, 0);
            events.try_iter().for_each(drop);
            diary.0.slow.store(true, Ordering::SeqCst);
            let slow = json!({"n": [attempt, "slow"], "slow": slow_apply});
            let mut pending = cluster.node(leader).client_request(slow).expect("it is taken");
            // Each node takes a second for its snapshots now, and then keeps them.
            until("slow snapshots", || {
                n += 1;
                let at = Instant::now();
                let request = json!({"n": [attempt, n]});
                let pending = cluster.node(leader).client_request(request).expect("it is taken");
                assert!(at.elapsed() < ms(500), "a call waits for a slow machine");
                answer("one behind a slow machine", &mut { pending }).expect("it is committed");
                let snapshot = |event: &Event| matches!(event, Event::Snapshot { .. });
                kept += events.try_iter().filter(snapshot).count();
                diary.given().len() >= before + 3 && kept >= 3
            });
            answer("the slow one", &mut pending).expect("it is committed");
            diary.0.slow.store(false, Ordering::SeqCst);
            (0..3).all(|place| cluster.knows(place).term == term)
        });
        assert!(kept, "the leader lost its office each time");
    }
}

// ---------------------------------------------------------------- a disk of its own

/// A machine that keeps its state in a file: the entries, a line each. It notes what it
/// is given in a diary.
struct Filed {
    diary: Diary,
    node: String,
    path: PathBuf,
    lines: Vec<(u64, Value)>,
}

impl Filed {
    fn new(diary: &Diary, node: &str, path: &Path) -> Result<Filed, BoxError> {
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            text => text?,
        };
        let lines = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        let (diary, node) = (diary.clone(), node.to_string());
        diary.pages().entry(node.clone()).or_default().push(Asked::Made);
        Ok(Filed { diary, node, path: path.to_path_buf(), lines })
    }

    fn note(&self, asked: Asked) {
        self.diary.pages().entry(self.node.clone()).or_default().push(asked);
    }
}

impl StateMachine for Filed {
    fn apply(&mut self, entry: &Entry) -> Value {
        self.note(Asked::Applied(entry.index));
        let line = (entry.index, entry.value());
        // What is written is there after any end of this process, if not of the power.
        let file = OpenOptions::new().create(true).append(true).open(&self.path);
        let text = serde_json::to_string(&line).expect("it is JSON");
        writeln!(file.expect("it can be opened"), "{text}").expect("it can be written");
        self.lines.push(line);
        json!(self.lines.len())
    }

    fn query(&self, _: &Value) -> Value {
        json!(self.lines)
    }

    fn snapshot(&self) -> Result<Vec<u8>, BoxError> {
        let bytes = serde_json::to_vec(&self.lines)?;
        self.note(Asked::Gave(bytes.clone()));
        Ok(bytes)
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), BoxError> {
        self.note(Asked::Restored(snapshot.to_vec()));
        self.lines = serde_json::from_slice(snapshot)?;
        let lines: Result<Vec<String>, _> = self.lines.iter().map(serde_json::to_string).collect();
        fs::write(&self.path, lines?.iter().map(|line| format!("{line}\n")).collect::<String>())?;
        Ok(())
    }

    fn applied(&self) -> u64 {
        self.lines.last().map_or(0, |(index, _)| *index)
    }
}

/// The values that a node's `Filed` holds, by a linearizable read.
fn filed(node: &RaftNode) -> Vec<Value> {
    let lines: Vec<(u64, Value)> =
        serde_json::from_value(ask(node, Request::query(&())).value).expect("it is a list");
    lines.into_iter().map(|(_, value)| value).collect()
}

/// A machine with a disk of its own is given only what follows what it has, also where
/// the snapshot is older than that; a reply that it did not make says so. If its disk is
/// gone, it gets the snapshot and what follows.
#[test]
fn a_machine_on_a_disk_of_its_own_is_given_what_follows() {
    for snapshot_every in [10_000, 10] {
        let (diary, files) = (Diary::default(), Folder::new());
        let (theirs, place) = (diary.clone(), files.path().to_path_buf());
        let keys = json!({"snapshot_every": snapshot_every});
        let mut cluster = Plan::voters(3)
            .durable()
            .keys(keys)
            .dress(move |config| {
                let (diary, place) = (theirs.clone(), place.clone());
                config.state_machine(move |node| Filed::new(&diary, node, &place.join(node)))
            })
            .start();
        let first = ask(cluster.node(0), Request::command(&json!("first")).id("first"));
        let mut values = vec![json!("first")];
        for round in 0..4 {
            for n in 0..25 {
                values.push(json!([round, n]));
                ask(cluster.node(n % 3), values[values.len() - 1].clone());
            }
            for place in 0..3 {
                assert_eq!(filed(cluster.node(place)), values);
            }
            (0..3).for_each(|place| cluster.lose(place));
            let lost_its_file = (round == 2).then_some(1);
            if let Some(place) = lost_its_file {
                let path = files.path().join(&cluster.names[place]);
                fs::remove_file(path).expect("the file is there");
            }
            (0..3).for_each(|place| cluster.renew(place));
            for place in 0..3 {
                assert_eq!(filed(cluster.node(place)), values, "on {}", cluster.names[place]);
                let (restored, applied) =
                    restored_then_applied(&diary.since_made(&cluster.names[place]));
                if lost_its_file == Some(place) {
                    assert_eq!(restored.len(), usize::from(snapshot_every == 10));
                    continue;
                }
                assert_eq!((restored.len(), applied.len()), (0, 0), "{restored:?}, {applied:?}");
                // It was committed, and once; what the machine said then nobody kept here.
                let again = ask(cluster.node(place), Request::lookup("first"));
                assert_eq!((again.index, again.term), (first.index, first.term));
                assert!(again.value == first.value || !again.value_kept, "{again:?}");
            }
        }
        // Each entry was applied once by whoever did not lose its file.
        for node in ["node0", "node2"] {
            let asked = diary.all(node);
            let applied: Vec<&Asked> =
                asked.iter().filter(|asked| matches!(asked, Asked::Applied(_))).collect();
            assert_eq!(applied.len(), values.len(), "{node}");
        }
    }
}

/// A machine that is ahead of the log, since its disk kept what the node's did not: a
/// query waits until the log has caught up, for it would see what is not agreed, and so
/// does a snapshot; and what the machine has it is not given again.
#[test]
fn a_machine_that_is_ahead_of_the_log_makes_queries_wait() {
    let (diary, files) = (Diary::default(), Folder::new());
    let path = files.path().join("single");
    const AHEAD: u64 = 300;
    fs::write(&path, format!("[{AHEAD},\"of another time\"]\n")).expect("it can be written");
    let theirs = diary.clone();
    let keys = json!({
        "data_dir": files.path().join("data"), "request_timeout_ms": 60_000, "snapshot_every": 10,
    });
    let config = single().with(keys).expect("the keys are sound");
    let config = config.state_machine(move |node| Filed::new(&theirs, node, &path));
    let node = started(&config, "single");
    let mut query = node.client_request(Request::query(&())).expect("it is taken");
    let mut last = 0;
    while last < AHEAD {
        assert!(matches!(query.try_reply(), Ok(None)), "answered at {last}: {query:?}");
        assert!(diary.given().is_empty(), "a snapshot at {last} holds entry {AHEAD}");
        let reply = ask(&node, json!("passed over"));
        assert!(reply.index > AHEAD || !reply.value_kept, "{reply:?}");
        last = reply.index;
    }
    let reply = answer("the query", &mut query).expect("it is answered");
    assert!(reply.index >= AHEAD, "answered at {}", reply.index);
    let reply = ask(&node, json!("applied"));
    assert_eq!(filed(&node).last(), Some(&json!("applied")));
    let (_, applied) = restored_then_applied(&diary.since_made("single"));
    assert!(applied.iter().all(|index| *index > AHEAD), "{applied:?}");
    assert_eq!(applied.last(), Some(&reply.index));
}

// ---------------------------------------------------------------- far behind

/// A follower that was stopped while several hundred entries passed gets the leader's
/// snapshot, to the byte, and the entries behind it; in memory and on a disk, stopped
/// and, if it has a disk, dropped. So does one that comes back without its memory.
#[test]
fn a_follower_that_was_away_comes_back_through_a_snapshot() {
    for (durable, dropped) in [(true, false), (true, true), (false, false), (false, true)] {
        let diary = Diary::default();
        // What a member may need that was in touch of late is kept for it for a while, and
        // the while goes by these timeouts.
        let keys = json!({
            "heartbeat_ms": 10, "election_timeout_ms": [50, 100], "snapshot_every": 10,
        });
        let plan = Plan::voters(3).durable_if(durable).keys(keys);
        let mut cluster = diary.dress(plan).make();
        let events = cluster.configs[0].events();
        cluster.all().for_each(|node| node.start().expect("it starts"));
        cluster.commit_everywhere(0, json!({"n": "before"}));
        let leader = cluster.wait_leader();
        let (away, here) = ((leader + 1) % 3, (leader + 2) % 3);
        let name = cluster.names[away].clone();
        match dropped {
            true => cluster.lose(away),
            false => cluster.node(away).stop(),
        }
        let (since, mut n) = (Instant::now(), 0);
        while n < 400 || since.elapsed() < ms(2_500) {
            ask(cluster.node(here), json!({ "n": n }));
            n += 1;
        }
        events.try_iter().for_each(drop);
        match dropped {
            true => cluster.renew(away),
            false => cluster.node(away).start().expect("it starts again"),
        }
        assert_eq!(counted(cluster.node(away)), all(n + 1), "durable: {durable}");
        until("the event of it", || {
            events.try_iter().any(|event| {
                matches!(&event, Event::Snapshot { node, received: true, .. } if *node == name)
            })
        });
        let (restored, applied) = restored_then_applied(&diary.since_made(&name));
        let received = restored.last().expect("it was restored");
        assert!(diary.given().contains(received), "it is one that was given");
        let (_, before): (BTreeMap<String, u64>, u64) =
            serde_json::from_slice(received).expect("it is a tally's");
        assert_eq!(before + applied.len() as u64, n + 1);
        // And it is a voter like any other, also if it lost its memory.
        cluster.wait_voter(away);
        until("its role", || cluster.knows(away).role == Role::Follower);
        ask(cluster.node(away), json!({ "n": n }));
        let newest = cluster.commit_everywhere(away, json!({ "n": n + 1 }));
        if durable {
            // What it received it keeps.
            cluster.lose(away);
            cluster.renew(away);
            cluster.wait_entry([away], newest);
            assert_eq!(counted(cluster.node(away)), all(n + 3));
        }
    }
}

/// A follower is away while 100,000 entries pass, and comes back while a fifth of the
/// datagrams is lost: it gets a snapshot, piece by piece, and serves, while the others
/// go on. Pitfalls 37, 39.
#[test]
fn a_hundred_thousand_entries_behind_at_a_fifth_lost() {
    far_behind(Plan::voters(3).relay(21));
}

/// The same where datagrams are as short as a network wants them: the snapshot is a
/// thousand of them.
#[test]
fn a_hundred_thousand_entries_behind_in_small_datagrams() {
    // Not every machine has an address for it.
    let Some(at) = (0..3).map(|_| common::outer_address()).collect::<Option<Vec<_>>>() else {
        return;
    };
    far_behind(Plan::voters(3).relay(22).at(at));
}

/// Says that something is over when it is dropped, also by a test that panics: no thread
/// is waited for in vain.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn far_behind(plan: Plan) {
    const ENTRIES: u64 = 100_000;
    const OUTSTANDING: usize = 1_000;
    let diary = Diary::default();
    let keys = json!({"request_timeout_ms": 60_000});
    let cluster = diary.dress(plan.durable().keys(keys)).start();
    cluster.commit_everywhere(0, json!({"n": "before"}));
    let leader = cluster.wait_leader();
    let (away, here) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.node(away).stop();
    // For three seconds the leader keeps what a member may need that was in touch of late.
    let (since, mut entries) = (Instant::now(), 0);
    while since.elapsed() < ms(3_500) {
        ask(cluster.node(here), json!({ "n": entries }));
        entries += 1;
    }
    let mut open: VecDeque<Pending> = VecDeque::new();
    let last = entries + ENTRIES;
    while entries < last || !open.is_empty() {
        if entries == last || open.len() == OUTSTANDING {
            let pending = open.pop_front().expect("there is one");
            answer("an entry", &mut { pending }).expect("it is committed");
            continue;
        }
        let request = json!({ "n": entries });
        open.push_back(cluster.node(here).client_request(request).expect("it is taken"));
        entries += 1;
    }

    cluster.relay().weather(Weather { lost: 20, ..Weather::default() });
    let events = cluster.configs[away].events();
    let (back, served, slowest) =
        (AtomicBool::new(false), AtomicU64::new(0), Mutex::new(Duration::ZERO));
    let since = Instant::now();
    let took = thread::scope(|scope| {
        let over = Over(&back);
        scope.spawn(|| {
            while !back.load(Ordering::SeqCst) {
                let at = Instant::now();
                let n = entries + served.fetch_add(1, Ordering::SeqCst);
                assert_eq!(ask(cluster.node(leader), json!({ "n": n })).value, json!(1));
                let mut slowest = slowest.lock().expect("nobody panicked");
                *slowest = at.elapsed().max(*slowest);
            }
        });
        cluster.node(away).start().expect("it starts again");
        let received = until_some("a snapshot", || {
            events.try_iter().find_map(|event| match event {
                Event::Snapshot { index, received: true, .. } => Some((index, since.elapsed())),
                _ => None,
            })
        });
        let reply = ask(cluster.node(away), json!({"n": "back"}));
        let took = since.elapsed();
        drop(over);
        assert!(reply.index > received.0 && received.0 > ENTRIES / 2, "{received:?}");
        (received.1, took)
    });
    let (served, slowest) = (served.into_inner(), slowest.into_inner().expect("nobody panicked"));
    let bytes = diary.given().iter().map(Vec::len).max().unwrap_or_default();
    println!(
        "a snapshot of {bytes} bytes came in {:?}; it served after {:?}; meanwhile {served} \
         requests were served, the slowest in {slowest:?}",
        took.0, took.1
    );
    assert!(served > 10, "the leader served {served} requests meanwhile");
    cluster.relay().weather(Weather::default());
    let expected = all(entries + served + 2);
    for place in 0..3 {
        assert_eq!(counted(cluster.node(place)), expected, "on {}", cluster.names[place]);
    }
}
