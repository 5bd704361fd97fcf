//! A naive twin of the replica: the same rules over plain maps that are searched
//! from end to end, and a proof by chance that both say the same.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::tests::{Step, Stretch, replica_with, step};
use super::values::VALUE_COST_BYTES;
use super::{Limits, Outcome};
use crate::core::types::{Index, Life};
use crate::request::Reply;

#[derive(Clone)]
struct TwinReply {
    index: u64,
    term: u64,
    /// Which of all values that ever were.
    value: Option<usize>,
}

struct TwinSession {
    life: Life,
    touched: u64,
    floor: u64,
    replies: BTreeMap<u64, TwinReply>,
    /// One more than the highest number that has a place in the ring.
    reach: u64,
}

pub(super) struct Twin {
    limits: Limits,
    own: Life,
    now: u64,
    sessions: BTreeMap<u64, TwinSession>,
    own_sessions: Vec<u64>,
    /// Which client entry, its id, what it came to.
    ids: Vec<(u64, String, TwinReply)>,
    /// Each value that was ever kept, and whether it fell to the bound.
    values: Vec<(Value, bool)>,
    newest: Value,
}

impl Twin {
    pub(super) fn new(own: Life, limits: &Limits) -> Twin {
        Twin {
            limits: limits.clone(),
            own,
            now: 0,
            sessions: BTreeMap::new(),
            own_sessions: Vec::new(),
            ids: Vec::new(),
            values: Vec::new(),
            newest: Value::Null,
        }
    }

    fn held(&self, value: usize) -> bool {
        let in_sessions = self.sessions.values().flat_map(|session| session.replies.values());
        let in_ids = self.ids.iter().map(|(_, _, reply)| reply);
        !self.values[value].1 && in_sessions.chain(in_ids).any(|reply| reply.value == Some(value))
    }

    fn bytes(&self, also: Option<usize>) -> usize {
        let held = |value: &usize| self.held(*value) || also == Some(*value);
        let Some(first) = (0..self.values.len()).find(held) else {
            return 0;
        };
        let cost = |value: usize| match held(&value) {
            true => VALUE_COST_BYTES + self.values[value].0.to_string().len(),
            false => VALUE_COST_BYTES,
        };
        (first..self.values.len()).map(cost).sum()
    }

    fn keep(&mut self, value: Value) -> Option<usize> {
        if value.is_null() {
            return None;
        }
        let too_large = VALUE_COST_BYTES + value.to_string().len() > self.limits.kept_bytes;
        let number = self.values.len();
        if too_large {
            // Takes no place among the others, so it stands before them all.
            self.values.insert(0, (value, true));
            let replies = self.sessions.values_mut().flat_map(|s| s.replies.values_mut());
            for reply in replies.chain(self.ids.iter_mut().map(|(_, _, reply)| reply)) {
                reply.value = reply.value.map(|value| value + 1);
            }
            return Some(0);
        }
        self.values.push((value, false));
        while self.bytes(Some(number)) > self.limits.kept_bytes {
            let oldest = (0..number).find(|value| self.held(*value)).expect("the newest fits");
            self.values[oldest].1 = true;
        }
        Some(number)
    }

    fn reply(&self, reply: &TwinReply) -> Reply {
        let (value, dropped) = match reply.value {
            Some(value) => self.values[value].clone(),
            None => (Value::Null, false),
        };
        Reply {
            index: reply.index,
            term: reply.term,
            value: if dropped { Value::Null } else { value },
            value_kept: !dropped,
        }
    }

    fn lookup(&self, id: &str) -> Option<Reply> {
        let found = self.ids.iter().find(|(_, known, _)| known == id)?;
        Some(self.reply(&found.2))
    }

    fn close(&mut self, session: u64, outcomes: &mut Vec<Outcome>) {
        self.sessions.remove(&session);
        if self.own_sessions.contains(&session) {
            outcomes.push(Outcome::Expired { session: Index(session) });
        }
    }

    pub(super) fn apply(&mut self, index: u64, term: u64, step: &Step) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        if matches!(step, Step::Protocol) {
            return outcomes;
        }
        self.now += 1;
        match step {
            Step::Open(life) => self.open(index, *life, &mut outcomes),
            Step::Renew { session, floor } => self.touch(*session, *floor),
            Step::Command { session, seq, floor, id, json } => {
                self.touch(*session, *floor);
                let id = id.as_deref();
                outcomes.extend(self.command(index, term, *session, *seq, id, *json));
            }
            Step::Junk | Step::Protocol => {}
        }
        let span = self.limits.session_span;
        let old = |session: &TwinSession| self.now - session.touched > span;
        let expired: Vec<u64> =
            self.sessions.iter().filter(|(_, s)| old(s)).map(|(id, _)| *id).collect();
        for session in expired {
            self.close(session, &mut outcomes);
        }
        let (now, span) = (self.now, self.limits.ids_span);
        self.ids.retain(|(at, _, _)| now - at < span);
        outcomes
    }

    /// What `own` is told that restores this, where it knew of these sessions, the
    /// last opened in front.
    pub(super) fn restored(&self, own: Life, known: &[Index]) -> Vec<Outcome> {
        let ended = known.iter().rev().filter(|session| !self.sessions.contains_key(&session.0));
        let mut outcomes: Vec<_> =
            ended.map(|session| Outcome::Expired { session: *session }).collect();
        for (id, live) in self.sessions.iter().filter(|(_, live)| live.life == own) {
            let session = Index(*id);
            outcomes.push(Outcome::Opened { session });
            outcomes.extend(live.replies.iter().map(|(seq, reply)| {
                let reply = self.reply(reply);
                Outcome::Replied { session, seq: *seq, reply }
            }));
        }
        outcomes
    }

    fn open(&mut self, index: u64, life: Life, outcomes: &mut Vec<Outcome>) {
        let live = self.sessions.iter().find(|(_, s)| s.life == life).map(|(id, _)| *id);
        if live.is_none() && self.sessions.len() == self.limits.sessions {
            let oldest = self.sessions.iter().min_by_key(|(_, s)| s.touched).map(|(id, _)| *id);
            self.close(oldest.expect("some are live"), outcomes);
        }
        let id = live.unwrap_or(index);
        let session = self.sessions.entry(id).or_insert(TwinSession {
            life,
            touched: 0,
            floor: 0,
            replies: BTreeMap::new(),
            reach: 0,
        });
        session.touched = self.now;
        if life == self.own {
            self.own_sessions.push(id);
            outcomes.push(Outcome::Opened { session: Index(id) });
        }
    }

    fn touch(&mut self, session: u64, floor: u64) {
        if let Some(session) = self.sessions.get_mut(&session) {
            session.touched = self.now;
            session.floor = session.floor.max(floor);
            session.replies.retain(|seq, _| *seq >= session.floor);
        }
    }

    fn places(&self) -> u64 {
        self.sessions.values().map(|s| s.reach.saturating_sub(s.floor)).sum()
    }

    fn command(
        &mut self,
        index: u64,
        term: u64,
        session: u64,
        seq: u64,
        id: Option<&str>,
        json: usize,
    ) -> Option<Outcome> {
        let name = Index(session);
        let places = self.places();
        let Some(live) = self.sessions.get(&session) else {
            let own = self.own_sessions.contains(&session);
            return own.then_some(Outcome::Expired { session: name });
        };
        let own = live.life == self.own;
        if seq < live.floor || live.replies.contains_key(&seq) {
            return None;
        }
        let share = (self.limits.replies / self.limits.sessions) as u64;
        let more = (seq + 1).saturating_sub(live.reach.max(live.floor));
        let fits = places + more <= self.limits.replies as u64;
        if seq - live.floor >= self.limits.window
            || (more > 0 && seq - live.floor >= share && !fits)
        {
            return own.then_some(Outcome::Refused { session: name, seq });
        }
        let known = self.ids.iter().find(|(_, known, _)| Some(&known[..]) == id);
        let known = known.map(|(_, _, reply)| reply.clone());
        let mut at_once = None;
        let reply = known.unwrap_or_else(|| {
            self.newest = json!(json);
            let value = Stretch::value(json);
            at_once = Some(Reply { index, term, value: value.clone(), value_kept: true });
            let reply = TwinReply { index, term, value: self.keep(value) };
            if let Some(id) = id {
                self.ids.push((self.now, id.to_string(), reply.clone()));
            }
            reply
        });
        let live = self.sessions.get_mut(&session).expect("it is live");
        live.replies.insert(seq, reply.clone());
        live.reach = live.reach.max(seq + 1);
        let reply = at_once.unwrap_or_else(|| self.reply(&reply));
        own.then_some(Outcome::Replied { session: name, seq, reply })
    }
}

/// A step as it is drawn: sessions are named by their place among all that were
/// ever opened.
#[derive(Clone, Debug)]
pub(super) enum Drawn {
    Open(u64),
    Command { pick: usize, seq: u64, below: u64, id: Option<usize>, json: usize },
    Renew { pick: usize, floor: u64 },
    Junk,
    Protocol,
}

pub(super) fn drawn() -> impl Strategy<Value = Drawn> {
    let id = proptest::option::weighted(0.3, 0..IDS.len());
    prop_oneof![
        3 => (1..6u64).prop_map(Drawn::Open),
        12 => (0..8usize, 0..20u64, 0..7u64, id, 0..40usize).prop_map(
            |(pick, seq, below, id, json)| Drawn::Command { pick, seq, below, id, json }
        ),
        1 => (0..8usize, 0..20u64).prop_map(|(pick, floor)| Drawn::Renew { pick, floor }),
        1 => Just(Drawn::Junk),
        1 => Just(Drawn::Protocol),
    ]
}

pub(super) fn limits() -> impl Strategy<Value = Limits> {
    (1..15u64, 1..5usize, 1..12u64, 0..16usize, 0..10u64, 0..300usize).prop_map(
        |(session_span, sessions, window, replies, ids_span, kept_bytes)| Limits {
            session_span,
            sessions,
            window,
            replies,
            ids_span,
            kept_bytes,
        },
    )
}

const IDS: [&str; 4] = ["a", "b", "c", "order-17"];

fn life(number: u64) -> Life {
    super::tests::life(number)
}

pub(super) fn named(drawn: &Drawn, opened: &[u64]) -> Step {
    // The latest first; beyond them an index that opened nothing.
    let session = |pick: &usize| opened.iter().rev().nth(*pick).copied().unwrap_or(1_000);
    match drawn {
        Drawn::Open(number) => Step::Open(life(*number)),
        Drawn::Command { pick, seq, below, id, json } => Step::Command {
            session: session(pick),
            seq: *seq,
            floor: seq.saturating_sub(*below),
            id: id.map(|id| IDS[id].to_string()),
            json: *json,
        },
        Drawn::Renew { pick, floor } => Step::Renew { session: session(pick), floor: *floor },
        Drawn::Junk => Step::Junk,
        Drawn::Protocol => Step::Protocol,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    /// Pitfalls 51 to 53 by chance: the replica and its twin agree after each
    /// entry, and a replica of another run has the same state.
    #[test]
    fn the_replica_is_as_its_twin(
        limits in limits(), log in proptest::collection::vec(drawn(), 1..80),
    ) {
        let own = life(1);
        let mut twin = Twin::new(own, &limits);
        let mut replica = replica_with(own, &limits);
        let mut other = replica_with(life(2), &limits);
        let mut opened = Vec::new();
        for (at, drawn) in log.iter().enumerate() {
            let (index, term) = (at as u64 + 1, at as u64 / 9);
            let next = named(drawn, &opened);
            if matches!(next, Step::Open(_)) {
                opened.push(index);
            }
            let outcomes = step(&mut replica, term, &next);
            step(&mut other, term, &next);
            prop_assert_eq!(outcomes, twin.apply(index, term, &next), "at {} {:?}", index, next);
            prop_assert_eq!(replica.client_entries(), twin.now);
            prop_assert_eq!(replica.applied(), Index(index));
            prop_assert_eq!(replica.newest().map_or(Value::Null, |e| e.value()), twin.newest.clone());
            prop_assert_eq!(replica.state.values.bytes(), twin.bytes(None));
            prop_assert_eq!(replica.state.sessions.places() as u64, twin.places());
            for id in IDS {
                prop_assert_eq!(replica.lookup(id).ok(), twin.lookup(id));
            }
            for session in &opened {
                let age = twin.sessions.get(session).map(|session| twin.now - session.touched);
                prop_assert_eq!(replica.session_age(Index(*session)), age);
            }
            prop_assert_eq!(replica.digest(), other.digest());
        }
    }
}
