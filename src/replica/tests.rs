//! Each rule of the replica, as a story that a person can read.

mod sessions;
mod snapshot;
mod unsound;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use serde_json::{Value, json};

use super::values::VALUE_COST_BYTES;
use super::{Limits, Outcome, Replica};
use crate::committed::Entry;
use crate::core::types::{Incarnation, Index, Life, Run, Term};
use crate::error::{BoxError, RequestError};
use crate::machine::StateMachine;
use crate::operation;
use crate::request::{Draft, Reply};

/// One entry of the log, in words.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Open(Life),
    Command { session: u64, seq: u64, floor: u64, id: Option<String>, json: usize },
    Renew { session: u64, floor: u64 },
    Junk,
    Protocol,
}

impl Step {
    /// Its bytes in the log; `None` if it is the protocol's own.
    fn payload(&self) -> Option<Bytes> {
        Some(match self {
            Step::Open(life) => operation::open(life.incarnation, life.run),
            Step::Command { session, seq, floor, id, json } => {
                let draft = Draft::new(json.to_string().as_bytes());
                operation::command(draft, id.as_deref(), Index(*session), *seq, *floor)
            }
            Step::Renew { session, floor } => operation::renew(Index(*session), *floor),
            Step::Junk => Bytes::from_static(b"\x09junk"),
            Step::Protocol => return None,
        })
    }
}

/// Applies the step as the next entry.
pub(super) fn step(replica: &mut Replica, term: u64, step: &Step) -> Vec<Outcome> {
    let (index, mut outcomes) = (replica.applied().next(), Vec::new());
    match step.payload() {
        Some(payload) => replica.apply(index, Term(term), &payload, &mut outcomes),
        None => replica.skip(index, Term(term)),
    }
    outcomes
}

/// A machine that counts what it is given and answers a number with a text of
/// that length, and 0 with `Null`.
#[derive(Default)]
pub(super) struct Stretch {
    applied: Arc<AtomicU64>,
    has: u64,
}

impl Stretch {
    pub(super) fn value(length: usize) -> Value {
        if length == 0 { Value::Null } else { json!("x".repeat(length)) }
    }
}

impl StateMachine for Stretch {
    fn apply(&mut self, entry: &Entry) -> Value {
        self.applied.fetch_add(1, Ordering::Relaxed);
        Stretch::value(entry.parse().unwrap_or_default())
    }

    fn query(&self, query: &Value) -> Value {
        json!({"asked": query, "applied": self.applied.load(Ordering::Relaxed)})
    }

    fn snapshot(&self) -> Result<Vec<u8>, BoxError> {
        Ok(Vec::new())
    }

    fn restore(&mut self, _: &[u8]) -> Result<(), BoxError> {
        Ok(())
    }

    fn applied(&self) -> u64 {
        self.has
    }
}

pub(super) fn life(number: u64) -> Life {
    Life { incarnation: Incarnation(number.div_ceil(2)), run: Run(number) }
}

pub(super) fn replica_with(own: Life, limits: &Limits) -> Replica {
    Replica::with_limits("node0", own, Some(Box::new(Stretch::default())), Vec::new(), limits)
}

fn replica() -> Replica {
    replica_with(life(1), &Limits::default())
}

fn plain() -> Replica {
    Replica::new("node0", life(1), None, Vec::new())
}

fn open(number: u64) -> Step {
    Step::Open(life(number))
}

fn command(session: u64, seq: u64, json: usize) -> Step {
    Step::Command { session, seq, floor: 0, id: None, json }
}

fn with_floor(session: u64, seq: u64, floor: u64) -> Step {
    Step::Command { session, seq, floor, id: None, json: 1 }
}

fn with_id(session: u64, seq: u64, id: &str, json: usize) -> Step {
    Step::Command { session, seq, floor: 0, id: Some(id.to_string()), json }
}

fn opened(session: u64) -> Vec<Outcome> {
    vec![Outcome::Opened { session: Index(session) }]
}

fn expired(session: u64) -> Vec<Outcome> {
    vec![Outcome::Expired { session: Index(session) }]
}

fn refused(session: u64, seq: u64) -> Vec<Outcome> {
    vec![Outcome::Refused { session: Index(session), seq }]
}

fn replied(session: u64, seq: u64, index: u64, term: u64, value: Value) -> Vec<Outcome> {
    let reply = Reply { index, term, value, value_kept: true };
    vec![Outcome::Replied { session: Index(session), seq, reply }]
}

fn newest(replica: &Replica) -> Option<u64> {
    replica.newest().map(|entry| entry.index)
}

/// Pitfall 53: a command that stands in the log twice, through two leaders, is
/// applied where it stands first, on every node that goes through that log.
#[test]
fn a_command_that_is_in_the_log_twice_is_applied_once() {
    let log = [open(1), command(1, 0, 5), Step::Protocol, command(1, 0, 5), command(1, 1, 6)];
    let (mut first, mut second) = (replica(), replica_with(life(9), &Limits::default()));
    let outcomes: Vec<_> = log.iter().flat_map(|entry| step(&mut first, 3, entry)).collect();
    let values = ["xxxxx", "xxxxxx"].map(|value| json!(value));
    let [five, six] = values;
    let expected = [opened(1), replied(1, 0, 2, 3, five), replied(1, 1, 5, 3, six)].concat();
    assert_eq!(outcomes, expected);
    for entry in &log {
        step(&mut second, 3, entry);
    }
    assert_eq!(first.digest(), second.digest());
}

/// Pitfall 53: an entry that is truncated before it was committed left no trace,
/// so its retry is applied, once.
#[test]
fn a_truncated_entry_is_applied_when_it_is_retried() {
    let mut replica = replica();
    step(&mut replica, 1, &open(1));
    // Index 2 held the command in term 1; a leader of term 2 replaced it there.
    step(&mut replica, 2, &Step::Protocol);
    assert_eq!(step(&mut replica, 2, &command(1, 0, 1)), replied(1, 0, 3, 2, json!("x")));
    assert_eq!(step(&mut replica, 2, &command(1, 0, 1)), []);
}

#[test]
fn a_session_is_never_made_by_a_command() {
    let mut replica = replica();
    assert_eq!(step(&mut replica, 1, &command(7, 0, 1)), []);
    assert_eq!(step(&mut replica, 1, &with_id(7, 0, "a", 1)), []);
    assert_eq!(step(&mut replica, 1, &Step::Renew { session: 7, floor: 3 }), []);
    assert_eq!((newest(&replica), replica.state.ids.len()), (None, 0));
}

/// Pitfall 53, for the callers' own ids.
#[test]
fn the_second_with_an_id_gets_the_first_ones_reply() {
    let mut replica = replica();
    step(&mut replica, 1, &open(1));
    step(&mut replica, 1, &open(3));
    step(&mut replica, 4, &with_id(2, 0, "order-17", 3));
    let first = replied(1, 0, 3, 4, json!("xxx"));
    assert_eq!(step(&mut replica, 5, &with_id(1, 0, "order-17", 9)), first);
    assert_eq!(step(&mut replica, 5, &with_id(1, 0, "order-17", 9)), [], "its number is used");
    assert_eq!(step(&mut replica, 5, &command(1, 0, 9)), []);
    assert_eq!(newest(&replica), Some(3), "nothing was applied since");
    let found = replica.lookup("order-17").expect("it is remembered");
    assert_eq!((found.index, found.term, found.value), (3, 4, json!("xxx")));
    let missing = RequestError::NotFound { id: "order-18".to_string() };
    assert_eq!(replica.lookup("order-18"), Err(missing));
}

#[test]
fn an_id_is_forgotten_after_exactly_so_many_client_entries() {
    let limits = Limits { ids_span: 3, ..Limits::default() };
    let mut replica = replica_with(life(1), &limits);
    step(&mut replica, 1, &open(1));
    step(&mut replica, 1, &with_id(1, 0, "a", 1));
    step(&mut replica, 1, &Step::Protocol);
    step(&mut replica, 1, &Step::Junk);
    let again = step(&mut replica, 1, &with_id(1, 1, "a", 1));
    assert_eq!(again, replied(1, 1, 2, 1, json!("x")), "the repetition makes it no younger");
    assert!(replica.lookup("a").is_ok());
    step(&mut replica, 1, &Step::Junk);
    assert!(replica.lookup("a").is_err());
    let index = replica.applied().0 + 1;
    assert_eq!(step(&mut replica, 1, &with_id(1, 2, "a", 2)), replied(1, 2, index, 1, json!("xx")));
}

#[test]
fn values_beyond_the_bound_are_dropped_oldest_first_and_said_to_be() {
    let cost = VALUE_COST_BYTES + 12;
    let limits = Limits { kept_bytes: 2 * cost, ..Limits::default() };
    let mut replica = replica_with(life(1), &limits);
    step(&mut replica, 1, &open(1));
    for (seq, id) in ["a", "b", "c"].into_iter().enumerate() {
        let outcomes = step(&mut replica, 1, &with_id(1, seq as u64, id, 10));
        assert_eq!(outcomes, replied(1, seq as u64, seq as u64 + 2, 1, json!("xxxxxxxxxx")));
    }
    let oldest = replica.lookup("a").expect("the id is remembered");
    assert_eq!((oldest.index, oldest.value, oldest.value_kept), (2, Value::Null, false));
    assert!(replica.lookup("b").expect("kept").value_kept);
    let null = step(&mut replica, 1, &with_id(1, 3, "d", 0));
    assert_eq!(null, replied(1, 3, 5, 1, Value::Null));
    assert!(replica.lookup("d").expect("kept").value_kept, "Null is always kept");
    let again = step(&mut replica, 1, &with_id(1, 4, "a", 10));
    let reply = Reply { index: 2, term: 1, value: Value::Null, value_kept: false };
    assert_eq!(again, [Outcome::Replied { session: Index(1), seq: 4, reply }]);
}

#[test]
fn values_go_with_the_floor_the_id_and_the_session() {
    let limits = Limits { ids_span: 4, session_span: 6, ..Limits::default() };
    let mut replica = replica_with(life(1), &limits);
    step(&mut replica, 1, &open(1));
    step(&mut replica, 1, &with_id(1, 0, "a", 10));
    step(&mut replica, 1, &Step::Renew { session: 1, floor: 1 });
    assert!(replica.state.values.bytes() > 0, "the id still holds it");
    for _ in 0..3 {
        step(&mut replica, 1, &Step::Junk);
    }
    assert_eq!(replica.state.values.bytes(), 0);
    step(&mut replica, 1, &command(1, 1, 10));
    assert!(replica.state.values.bytes() > 0);
    for _ in 0..7 {
        step(&mut replica, 1, &Step::Junk);
    }
    assert_eq!(replica.session_age(Index(1)), None);
    assert_eq!((replica.state.values.bytes(), replica.state.sessions.places()), (0, 0));
}

#[test]
fn only_applied_commands_reach_the_machine_and_those_who_watch() {
    let applied = Arc::new(AtomicU64::new(0));
    let machine = Stretch { applied: Arc::clone(&applied), has: 0 };
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let watcher = Arc::new(move |node: &str, entry: &Entry| {
        assert!(crate::guard::inside_node());
        let id = entry.id().map(str::to_string);
        sink.lock().unwrap().push((node.to_string(), entry.index, id, entry.value()));
    });
    let mut replica = Replica::new("node7", life(1), Some(Box::new(machine)), vec![watcher]);
    let log = [
        open(1),
        command(1, 0, 5),
        command(1, 0, 5),
        with_id(1, 1, "a", 6),
        with_id(1, 2, "a", 7),
        command(9, 0, 8),
        command(1, u64::MAX, 9),
        Step::Junk,
        Step::Protocol,
    ];
    for entry in &log {
        step(&mut replica, 1, entry);
    }
    let first = ("node7".to_string(), 2, None, json!(5));
    let second = ("node7".to_string(), 4, Some("a".to_string()), json!(6));
    assert_eq!(*seen.lock().unwrap(), [first, second]);
    assert_eq!(applied.load(Ordering::Relaxed), 2);
    assert!(!crate::guard::inside_node());
}

#[test]
fn a_machine_with_a_disk_of_its_own_skips_what_it_has() {
    let applied = Arc::new(AtomicU64::new(0));
    let machine = Stretch { applied: Arc::clone(&applied), has: 3 };
    let mut replica = Replica::new("node0", life(1), Some(Box::new(machine)), Vec::new());
    step(&mut replica, 1, &open(1));
    step(&mut replica, 1, &with_id(1, 0, "a", 5));
    let outcomes = step(&mut replica, 1, &command(1, 1, 0));
    let reply = Reply { index: 3, term: 1, value: Value::Null, value_kept: false };
    assert_eq!(outcomes, [Outcome::Replied { session: Index(1), seq: 1, reply }]);
    assert_eq!(applied.load(Ordering::Relaxed), 0);
    assert!(!replica.lookup("a").expect("remembered").value_kept);
    assert_eq!(step(&mut replica, 1, &command(1, 2, 1)), replied(1, 2, 4, 1, json!("x")));
    assert_eq!(applied.load(Ordering::Relaxed), 1);
}

#[test]
fn a_query_asks_the_machine_or_the_newest_entry() {
    let mut with_machine = replica();
    step(&mut with_machine, 1, &open(1));
    step(&mut with_machine, 1, &command(1, 0, 5));
    step(&mut with_machine, 2, &Step::Protocol);
    let reply = with_machine.query(br#"{"of": 1}"#).expect("it is JSON");
    assert_eq!((reply.index, reply.term, reply.value_kept), (3, 2, true));
    assert_eq!(reply.value, json!({"asked": {"of": 1}, "applied": 1}));
    assert!(matches!(with_machine.query(b"{"), Err(RequestError::Invalid { .. })));

    let mut without = plain();
    assert_eq!(without.query(b"0").expect("no machine").value, Value::Null);
    step(&mut without, 1, &open(1));
    assert_eq!(step(&mut without, 1, &command(1, 0, 5)), replied(1, 0, 2, 1, Value::Null));
    assert_eq!(without.query(b"0").expect("no machine").value, json!(5));
}

#[test]
fn two_nodes_with_one_log_are_in_one_state() {
    let limits = Limits { session_span: 40, sessions: 4, ids_span: 30, ..Limits::default() };
    let mut nodes: Vec<_> = (1..4).map(|number| replica_with(life(number), &limits)).collect();
    let mut sessions = vec![1];
    for at in 1..3_000u64 {
        let session = sessions[(at * 7 % 5) as usize % sessions.len()];
        let entry = match at % 11 {
            1 => open(1 + at % 6),
            2 => Step::Protocol,
            3 => Step::Renew { session, floor: at / 50 },
            4..7 => with_id(session, at / 30, &format!("id {}", at % 17), 1),
            _ => command(session, at / 40 + at % 13, (at % 5) as usize),
        };
        if matches!(entry, Step::Open(_)) {
            sessions.insert(0, at);
            sessions.truncate(5);
        }
        let outcomes: Vec<_> = nodes.iter_mut().map(|node| step(node, at / 100, &entry)).collect();
        let told = outcomes.iter().filter(|outcomes| !outcomes.is_empty()).count();
        assert!(told <= 2, "at {at}: one entry is one run's, and may end another's session");
    }
    let digests: Vec<_> = nodes.iter().map(Replica::digest).collect();
    assert!(newest(&nodes[0]).is_some_and(|index| index > 2_000));
    assert_eq!(digests[0], digests[1]);
    assert_eq!(digests[0], digests[2]);
}

/// A hostile log cannot make the state grow beyond its bounds, whatever it says.
#[test]
fn hostile_logs_stay_within_bounds() {
    let limits = Limits {
        sessions: 16,
        window: 4096,
        replies: 8192,
        ids_span: 500,
        kept_bytes: 10_000,
        ..Limits::default()
    };
    let mut replica = replica_with(life(1), &limits);
    for number in 1..=40 {
        let session = replica.applied().0 + 1;
        step(&mut replica, 1, &open(number));
        for seq in [4095, 4096, u64::MAX, 2000, 511, 512, 0] {
            step(&mut replica, 1, &with_id(session, seq, &format!("{number} {seq}"), 600));
            step(&mut replica, 1, &Step::Junk);
        }
    }
    assert!(replica.state.sessions.places() <= limits.replies + 16 * 512);
    assert!(replica.state.values.bytes() <= limits.kept_bytes);
    assert!(replica.state.ids.len() <= 500);
    // Who has little outstanding is served however much others hold.
    let session = replica.applied().0 + 1;
    step(&mut replica, 1, &open(1));
    assert_eq!(step(&mut replica, 1, &command(session, 511, 1)).len(), 1);
    assert_eq!(step(&mut replica, 1, &command(session, 512, 1)), refused(session, 512));
}

#[test]
fn a_ring_that_was_long_gives_its_memory_back() {
    let mut replica = plain();
    step(&mut replica, 1, &open(1));
    step(&mut replica, 1, &command(1, 100_000, 1));
    assert!(replica.state.sessions.capacity() > 100_000);
    step(&mut replica, 1, &with_floor(1, 100_010, 100_001));
    assert!(replica.state.sessions.capacity() < 1024);
}

#[test]
#[should_panic(expected = "entry 3 of term 1 follows on 1 of term 1")]
fn a_gap_in_the_log_is_our_bug() {
    let mut replica = plain();
    replica.skip(Index(1), Term(1));
    replica.skip(Index(3), Term(1));
}

#[test]
fn a_replica_moves_to_a_thread_of_its_own() {
    fn moves<T: Send>() {}
    moves::<Replica>();
}

/// How long one entry takes: `cargo test --release --lib -- --ignored --nocapture entry_takes`.
#[test]
#[ignore = "prints a time, and proves nothing"]
fn how_long_an_entry_takes() {
    const ENTRIES: u64 = 2_000_000;
    for (what, machine, id) in
        [("plain", false, false), ("with a machine", true, false), ("with ids", false, true)]
    {
        let machine = machine.then(|| Box::new(Stretch::default()) as Box<dyn StateMachine>);
        let mut replica = Replica::new("node0", life(1), machine, Vec::new());
        step(&mut replica, 1, &open(1));
        // As they come from the wire: many of them in one buffer.
        let mut entries: Vec<Bytes> = Vec::new();
        for batch in 0..ENTRIES / 1000 {
            let (mut joined, mut ends) = (Vec::new(), Vec::new());
            for seq in batch * 1000..(batch + 1) * 1000 {
                let id = id.then(|| format!("order-{seq}"));
                let floor = seq.saturating_sub(1000);
                let draft = Draft::new(b"12");
                let bytes = operation::command(draft, id.as_deref(), Index(1), seq, floor);
                joined.extend_from_slice(&bytes);
                ends.push((joined.len() - bytes.len(), joined.len()));
            }
            let joined = Bytes::from(joined);
            entries.extend(ends.iter().map(|&(start, end)| joined.slice(start..end)));
        }
        let mut outcomes = Vec::new();
        let start = std::time::Instant::now();
        for (index, payload) in (2..).zip(&entries) {
            replica.apply(Index(index), Term(1), payload, &mut outcomes);
            if outcomes.len() >= 256 {
                outcomes.clear();
            }
        }
        let each = start.elapsed().as_nanos() as f64 / ENTRIES as f64;
        println!("{what}: {each:.0} ns an entry");
    }
}
