//! A node that restores a snapshot is as one that went through the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::twin::{Drawn, Twin, drawn, limits, named};
use super::super::values::VALUE_COST_BYTES;
use super::super::{Limits, Outcome, Replica, State};
use super::{Step, Stretch, life, newest, open, opened, plain, replied, step, with_floor, with_id};
use crate::committed::Entry;
use crate::core::types::{Index, Life, Term};
use crate::error::BoxError;
use crate::guard;
use crate::machine::StateMachine;
use crate::request::Reply;

/// A machine whose state depends on each entry that it was given, and on their
/// order.
#[derive(Default)]
pub(super) struct Ledger {
    total: u64,
    has: u64,
    /// Shared with the test: how often it was restored.
    restored: Arc<AtomicU64>,
    broken: bool,
}

impl StateMachine for Ledger {
    fn apply(&mut self, entry: &Entry) -> Value {
        let number: usize = entry.parse().unwrap_or_default();
        self.total = self.total.wrapping_mul(31).wrapping_add(entry.index + number as u64);
        Stretch::value(number)
    }

    fn query(&self, _: &Value) -> Value {
        json!(self.total)
    }

    fn snapshot(&self) -> Result<Vec<u8>, BoxError> {
        assert!(guard::inside_node());
        if self.broken { Err("no room".into()) } else { Ok(self.total.to_le_bytes().to_vec()) }
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), BoxError> {
        assert!(guard::inside_node());
        self.total = u64::from_le_bytes(snapshot.try_into()?);
        self.restored.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn applied(&self) -> u64 {
        self.has
    }
}

pub(super) fn with_ledger(own: Life, limits: &Limits) -> Replica {
    Replica::with_limits("node0", own, Some(Box::new(Ledger::default())), Vec::new(), limits)
}

/// A node whose machine has a disk of its own, and how often that is restored.
fn with_disk(has: u64) -> (Replica, Arc<AtomicU64>) {
    let restored = Arc::new(AtomicU64::new(0));
    let machine = Ledger { total: 5, has, restored: Arc::clone(&restored), broken: false };
    (Replica::new("node0", life(1), Some(Box::new(machine)), Vec::new()), restored)
}

pub(super) fn snapshot(replica: &Replica) -> Vec<u8> {
    let bytes = replica.snapshot().expect("the machine is sound");
    assert!(!guard::inside_node());
    bytes
}

fn restore(replica: &mut Replica, bytes: &[u8]) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    replica.restore(bytes, &mut outcomes).expect("the snapshot is sound");
    assert!(!guard::inside_node());
    outcomes
}

/// Why the snapshot was refused. Nothing may have changed then.
pub(super) fn refusal(replica: &mut Replica, bytes: &[u8]) -> String {
    let (mut outcomes, before) = (Vec::new(), replica.digest());
    let error = replica.restore(bytes, &mut outcomes).expect_err("it is refused");
    assert_eq!((outcomes, replica.digest()), (vec![], before));
    error.to_string()
}

fn total(replica: &Replica) -> Value {
    replica.query(b"0").expect("it is JSON").value
}

/// The drawn steps with the term of each.
fn log_of(drawn: &[Drawn]) -> Vec<(u64, Step)> {
    let mut opened = Vec::new();
    let mut log = Vec::new();
    for (at, drawn) in drawn.iter().enumerate() {
        let step = named(drawn, &opened);
        if matches!(step, Step::Open(_)) {
            opened.push(at as u64 + 1);
        }
        log.push((at as u64 / 9, step));
    }
    log
}

/// A node that went through all this.
fn after(log: &[(u64, Step)], limits: &Limits) -> Replica {
    let mut replica = with_ledger(life(1), limits);
    for (term, entry) in log {
        step(&mut replica, *term, entry);
    }
    replica
}

/// Pitfall 38: sessions, ids, and the last index and term are in a snapshot. On an
/// empty node that restored it, what is repeated is not applied again.
#[test]
fn what_is_repeated_after_a_snapshot_is_not_applied_again() {
    let mut origin = with_ledger(life(1), &Limits::default());
    let log = [open(1), open(2), with_id(1, 0, "order-17", 5), Step::Protocol, with_floor(2, 9, 7)];
    for entry in &log {
        step(&mut origin, 3, entry);
    }
    let mut empty = with_ledger(life(4), &Limits::default());
    assert_eq!(restore(&mut empty, &snapshot(&origin)), []);
    assert_eq!((empty.applied(), newest(&empty)), (Index(5), Some(5)));
    assert_eq!(empty.query(b"0").expect("it is JSON").term, 3);
    let before = total(&empty);
    assert_eq!(before, total(&origin));

    let (by_number, below) = (with_id(1, 0, "order-17", 5), with_floor(2, 6, 6));
    for repeated in [by_number, with_floor(2, 9, 7), below, with_id(2, 10, "order-17", 5)] {
        step(&mut empty, 4, &repeated);
        assert_eq!((newest(&empty), total(&empty)), (Some(5), before.clone()), "{repeated:?}");
    }
    let found = empty.lookup("order-17").expect("the id is in the snapshot");
    assert_eq!((found.index, found.term, found.value), (3, 3, json!("xxxxx")));
    assert_eq!(step(&mut empty, 4, &open(4)), opened(10), "a life without a session gets one");
    step(&mut empty, 4, &open(2));
    let again = step(&mut empty, 4, &with_id(10, 0, "order-17", 5));
    assert_eq!(again, replied(10, 0, 3, 3, json!("xxxxx")));
    step(&mut empty, 4, &with_floor(2, 11, 7));
    assert_eq!(newest(&empty), Some(13), "a session that was live is live");
}

/// This run's requests are answered that were applied in what it never saw.
#[test]
fn own_requests_are_answered_from_a_snapshot() {
    let limits = Limits { kept_bytes: 2 * VALUE_COST_BYTES + 11, ..Limits::default() };
    let mut origin = with_ledger(life(9), &limits);
    let log = [open(1), open(2), with_floor(1, 4, 4), with_id(1, 6, "a", 3), with_id(1, 7, "b", 4)];
    for entry in &log {
        step(&mut origin, 2, entry);
    }
    let null = with_id(2, 0, "c", 0);
    step(&mut origin, 2, &null);
    let bytes = snapshot(&origin);

    let reply = Reply { index: 3, term: 2, value: Value::Null, value_kept: false };
    let dropped = vec![Outcome::Replied { session: Index(1), seq: 4, reply }];
    let six = replied(1, 6, 4, 2, json!("xxx"));
    let seven = replied(1, 7, 5, 2, json!("xxxx"));
    let expected = [opened(1), dropped, six, seven].concat();
    let mut fresh = with_ledger(life(1), &limits);
    assert_eq!(restore(&mut fresh, &bytes), expected);
    assert_eq!(fresh.own_session_age(), Some(1));
    let mut behind = with_ledger(life(1), &limits);
    step(&mut behind, 2, &open(1));
    assert_eq!(restore(&mut behind, &bytes), expected, "it may be told what it knows");
    let mut other = with_ledger(life(2), &limits);
    assert_eq!(restore(&mut other, &bytes), [opened(2), replied(2, 0, 6, 2, Value::Null)].concat());
    // From here on what is its own is told as before.
    assert_eq!(step(&mut fresh, 2, &with_floor(1, 5, 4)), replied(1, 5, 7, 2, json!("x")));
    assert_eq!(step(&mut other, 2, &with_floor(1, 5, 4)), []);
}

/// A session that ended in what the node never saw has ended for it too, and what
/// was opened then for the same run is the run's.
#[test]
fn an_own_session_that_is_not_in_the_snapshot_has_expired() {
    let limits = Limits { session_span: 3, ..Limits::default() };
    let mut behind = with_ledger(life(1), &limits);
    let mut origin = with_ledger(life(2), &limits);
    for node in [&mut behind, &mut origin] {
        step(node, 1, &open(1));
    }
    for _ in 0..4 {
        step(&mut origin, 1, &Step::Junk);
    }
    let ended = vec![Outcome::Expired { session: Index(1) }];
    let mut second = with_ledger(life(1), &limits);
    step(&mut second, 1, &open(1));
    assert_eq!(restore(&mut second, &snapshot(&origin)), ended);
    assert_eq!(second.own_session_age(), None);
    assert_eq!(step(&mut second, 1, &with_floor(1, 0, 0)), ended, "a late command is known as own");

    step(&mut origin, 1, &open(1));
    assert_eq!(restore(&mut behind, &snapshot(&origin)), [ended, opened(6)].concat());
    assert_eq!(behind.own_session_age(), Some(0));
}

#[test]
fn a_machine_that_has_as_much_keeps_what_it_has() {
    let mut origin = with_ledger(life(2), &Limits::default());
    step(&mut origin, 1, &open(1));
    step(&mut origin, 1, &with_id(1, 0, "a", 5));
    let bytes = snapshot(&origin);
    for (has, is_restored) in [(0, 1), (1, 1), (2, 0), (3, 0)] {
        let (mut replica, restored) = with_disk(has);
        assert_eq!(restore(&mut replica, &bytes).len(), 2);
        assert_eq!((replica.machine_has(), restored.load(Ordering::Relaxed)), (has, is_restored));
        let expected = if is_restored == 1 { total(&origin) } else { json!(5) };
        assert_eq!(total(&replica), expected, "it had {has}");
        assert!(replica.lookup("a").expect("it is in the snapshot").value_kept);
        let next = &step(&mut replica, 1, &with_id(1, 1, "b", 5))[..];
        let [Outcome::Replied { reply, .. }] = next else { panic!("{next:?}") };
        assert_eq!(reply.value_kept, has < 3, "entry 3 is given to whom has it not");
    }
}

/// A machine's state of a later entry than the sessions' would be given the entries
/// between a second time, on another node.
#[test]
fn a_machine_that_is_ahead_of_the_log_is_in_no_snapshot() {
    let (mut replica, _) = with_disk(2);
    step(&mut replica, 1, &open(1));
    let error = replica.snapshot().expect_err("the machine is ahead").to_string();
    assert_eq!(error, "the state machine has entry 2, the log only entry 1");
    step(&mut replica, 1, &with_id(1, 0, "a", 5));
    let mut other = with_ledger(life(2), &Limits::default());
    assert_eq!(restore(&mut other, &snapshot(&replica)), []);
    assert_eq!((total(&other), other.digest()), (json!(5), replica.digest()));
    assert!(!other.lookup("a").expect("it is in the snapshot").value_kept, "the origin had none");
}

#[test]
fn what_the_machine_answers_is_passed_on() {
    let machine = Ledger { broken: true, ..Ledger::default() };
    let mut broken = Replica::new("node0", life(1), Some(Box::new(machine)), Vec::new());
    step(&mut broken, 1, &open(1));
    assert_eq!(broken.snapshot().expect_err("it has no room").to_string(), "no room");
    let mut bytes = snapshot(&after(&[(1, open(2))], &Limits::default()));
    bytes.truncate(bytes.len() - 1);
    let mut fresh = with_ledger(life(1), &Limits::default());
    assert_eq!(refusal(&mut fresh, &bytes), "could not convert slice to array");
    assert!(!guard::inside_node());
}

#[test]
fn nodes_with_and_without_a_machine_share_no_snapshot() {
    let (mut with, mut without) = (with_ledger(life(1), &Limits::default()), plain());
    let texts = [
        (refusal(&mut with, &snapshot(&without)), "is of a node without a state machine"),
        (refusal(&mut without, &snapshot(&with)), "is of a node with a state machine"),
    ];
    for (text, expected) in texts {
        assert!(text.contains(expected), "{text}");
    }
    let mut log = vec![open(1), with_id(1, 0, "a", 5)];
    log.extend((0..3).map(|seq| with_id(1, seq, "b", 6)));
    for entry in &log {
        step(&mut without, 1, entry);
    }
    let mut restored = plain();
    restore(&mut restored, &snapshot(&without));
    assert_eq!((restored.digest(), total(&restored)), (without.digest(), json!(6)));
    assert_eq!(restored.newest().and_then(Entry::id), Some("b"));
}

#[test]
fn a_snapshot_never_leads_back() {
    let log = [(1, open(1)), (3, Step::Junk), (3, Step::Junk)];
    let mut replica = after(&log[..2], &Limits::default());
    let shorter = snapshot(&after(&log[..1], &Limits::default()));
    let text =
        "the snapshot ends with entry 1 of term 1, and entry 2 of term 3 is applied here already";
    assert_eq!(refusal(&mut replica, &shorter), text);
    for other in [[(1, open(1)), (2, Step::Junk)], [(1, open(1)), (4, Step::Junk)]] {
        let other = snapshot(&after(&other, &Limits::default()));
        assert!(refusal(&mut replica, &other).contains("ends with entry 2"));
    }
    let longer = [(1, open(1)), (2, Step::Junk), (2, Step::Junk)];
    let other = snapshot(&after(&longer, &Limits::default()));
    assert!(refusal(&mut replica, &other).contains("entry 3 of term 2, and entry 2 of term 3"));
    let same = snapshot(&replica);
    assert_eq!(restore(&mut replica, &same), opened(1), "the same once more changes nothing");
    assert_eq!(snapshot(&replica), same);
    restore(&mut replica, &snapshot(&after(&log, &Limits::default())));
    assert_eq!(replica.applied(), Index(3));
}

/// Restores these bytes on an empty node. What is taken has this one form, and
/// breaks nothing in what comes after it.
fn take_or_refuse(bytes: &[u8], limits: &Limits, then: &[(u64, Step)]) -> bool {
    let mut replica = with_ledger(life(1), limits);
    if replica.restore(bytes, &mut Vec::new()).is_err() {
        return false;
    }
    // Before the first entry a machine has what it starts with.
    assert!(replica.applied() == Index(0) || snapshot(&replica) == bytes);
    for (_, entry) in then {
        let State { sessions, ids, values, .. } = &replica.state;
        assert!(sessions.places() <= 2 * limits.replies && ids.len() as u64 <= limits.ids_span);
        assert!(values.bytes() <= limits.kept_bytes);
        let term = replica.state.term.0;
        step(&mut replica, term, entry);
    }
    snapshot(&replica);
    true
}

/// Each byte cut off and each bit turned, in a state that has something of all.
#[test]
fn a_damaged_snapshot_is_refused_or_sound() {
    let limits = Limits { session_span: 30, sessions: 3, ids_span: 9, ..Limits::default() };
    let mut log = vec![open(1), open(2), Step::Protocol, with_floor(2, 9, 7), Step::Junk];
    log.extend((0..5).map(|seq| with_id(1, seq * seq, ["a", "b", "cd"][seq as usize % 3], 6)));
    log.push(Step::Renew { session: 1, floor: 4 });
    let then: Vec<_> = log.iter().cycle().take(60).map(|entry| (0, entry.clone())).collect();
    let log: Vec<_> = log.into_iter().map(|entry| (2, entry)).collect();
    let bytes = snapshot(&after(&log, &limits));
    assert!(take_or_refuse(&bytes, &limits, &then));
    for end in 0..bytes.len() {
        assert!(!take_or_refuse(&bytes[..end], &limits, &then), "cut at {end}");
    }
    assert!(!take_or_refuse(&[&bytes[..], &[0]].concat(), &limits, &then), "a byte too many");
    let mut taken = 0;
    for bit in 0..bytes.len() * 8 {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        taken += usize::from(take_or_refuse(&bytes, &limits, &then));
    }
    // Texts, lives and the machine's own may be anything.
    assert!((100..bytes.len() * 6).contains(&taken), "{taken} of {}", bytes.len() * 8);
}

fn small_or_any() -> impl Strategy<Value = u8> {
    prop_oneof![0..4u8, any::<u8>()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Nodes that restore a snapshot, empty or behind, go on as the one that made it,
    /// and are told what the twin says.
    #[test]
    fn who_restores_goes_on_as_the_origin(
        limits in limits(), drawn in proptest::collection::vec(drawn(), 1..80),
        (cut, behind) in (0..80usize, 0..80usize),
    ) {
        let log = log_of(&drawn);
        let cut = cut % (log.len() + 1);
        let (own, other) = (life(1), life(3));
        let mut twin = Twin::new(own, &limits);
        let mut origin = after(&log[..cut], &limits);
        for (index, (term, entry)) in (1..).zip(&log[..cut]) {
            twin.apply(index, *term, entry);
        }
        let bytes = snapshot(&origin);
        let mut follower = after(&log[..behind % (cut + 1)], &limits);
        let mut empty = with_ledger(other, &limits);
        let known: Vec<_> = follower.own_sessions.iter().copied().collect();
        prop_assert_eq!(restore(&mut follower, &bytes), twin.restored(own, &known));
        prop_assert_eq!(restore(&mut empty, &bytes), twin.restored(other, &[]));
        for (term, entry) in &log[cut..] {
            for node in [&follower, &empty] {
                prop_assert_eq!(node.digest(), origin.digest());
                prop_assert_eq!(total(node), total(&origin));
                prop_assert_eq!(snapshot(node), snapshot(&origin));
            }
            // What ended before it was known here is not told as its own.
            let mut told = step(&mut origin, *term, entry);
            told.retain(|outcome| match outcome {
                Outcome::Expired { session } => follower.own_sessions.contains(session),
                _ => true,
            });
            prop_assert_eq!(step(&mut follower, *term, entry), told);
            step(&mut empty, *term, entry);
        }
        prop_assert_eq!(follower.digest(), origin.digest());
        prop_assert_eq!(empty.digest(), origin.digest());
        prop_assert_eq!(follower.own_session_age(), origin.own_session_age());
    }

    /// However the entries come, how many at a time and in whose buffers, and however
    /// often a snapshot stood in for them: one state, and the same bytes.
    #[test]
    fn equal_states_are_equal_bytes(
        limits in limits(), drawn in proptest::collection::vec(drawn(), 1..80), size in 1..20usize,
    ) {
        let log = log_of(&drawn);
        let one_by_one = snapshot(&after(&log, &limits));
        let (mut batched, mut handed_on) = (with_ledger(life(2), &limits), plain());
        let mut restored = with_ledger(life(3), &limits);
        for batch in log.chunks(size) {
            let mut joined = Vec::new();
            let payloads: Vec<_> = batch.iter().map(|(_, entry)| entry.payload()).collect();
            let ranges: Vec<_> = payloads.iter().map(|payload| {
                let start = joined.len();
                joined.extend_from_slice(payload.as_deref().unwrap_or_default());
                start..joined.len()
            }).collect();
            let (joined, mut outcomes) = (Bytes::from(joined), Vec::new());
            for (at, (term, entry)) in batch.iter().enumerate() {
                let (index, term) = (batched.applied().next(), Term(*term));
                match payloads[at] {
                    Some(_) => {
                        let payload = joined.slice(ranges[at].clone());
                        batched.apply(index, term, &payload, &mut outcomes);
                    }
                    None => batched.skip(index, term),
                }
                step(&mut restored, term.0, entry);
            }
            handed_on = std::mem::replace(&mut restored, with_ledger(life(3), &limits));
            restore(&mut restored, &snapshot(&handed_on));
        }
        prop_assert_eq!(&snapshot(&batched), &one_by_one);
        prop_assert_eq!(&snapshot(&handed_on), &one_by_one);
        prop_assert_eq!(&snapshot(&restored), &one_by_one);
    }

    #[test]
    fn bytes_that_were_changed_are_refused_or_sound(
        limits in limits(), drawn in proptest::collection::vec(drawn(), 1..60),
        changes in proptest::collection::vec((any::<u16>(), small_or_any()), 1..4),
        cut in 0..60usize,
    ) {
        let log = log_of(&drawn);
        let cut = cut % (log.len() + 1);
        let mut bytes = snapshot(&after(&log[..cut], &limits));
        for (at, byte) in changes {
            let at = usize::from(at) % bytes.len();
            bytes[at] = byte;
        }
        take_or_refuse(&bytes, &limits, &log[cut..]);
    }

    #[test]
    fn any_bytes_are_refused_or_sound(
        limits in limits(), drawn in proptest::collection::vec(drawn(), 1..20),
        mut bytes in proptest::collection::vec(small_or_any(), 0..80),
        ours in any::<bool>(),
    ) {
        if ours && let Some(version) = bytes.first_mut() {
            *version = 1;
        }
        take_or_refuse(&bytes, &limits, &log_of(&drawn));
        let mut replica = plain();
        if replica.restore(&bytes, &mut Vec::new()).is_ok() {
            prop_assert_eq!(snapshot(&replica), bytes);
        }
    }
}
