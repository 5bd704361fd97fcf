//! Queries and lookups of this node's own program, on their way to be served.
//!
//! What comes between two flushes shares one asking for a read index. Askings are
//! never repeated under the same number: a new one is made when the leader changes
//! or when nothing comes back for a while. A read has no effect, so it may be
//! asked and served as often as it takes, and it ends with a refusal at its
//! deadline, never with `Unknown`.

use std::collections::VecDeque;

use crate::core::Core;
use crate::core::effect::ReadReady;
use crate::core::types::{Index, Time};
use crate::error::RequestError;

/// What is read.
#[derive(Debug)]
pub(crate) enum Question {
    /// A question to the state machine, as JSON.
    Query(Vec<u8>),
    /// A caller's id.
    Lookup(String),
}

/// One read that waits.
#[derive(Debug)]
pub(crate) struct Read<T> {
    pub(crate) ticket: T,
    pub(crate) question: Question,
    pub(crate) deadline: Time,
}

#[derive(Debug)]
struct Asking<T> {
    id: u64,
    asked_at: Time,
    reads: Vec<Read<T>>,
}

/// This node's reads that have not ended yet.
#[derive(Debug)]
pub(crate) struct Reads<T> {
    patience: u64,
    last_id: u64,
    /// No read that waits ends before this.
    soonest: Time,
    waiting: Vec<Read<T>>,
    askings: VecDeque<Asking<T>>,
    /// Confirmed, in order of the index that must be applied first.
    confirmed: Vec<(Index, Vec<Read<T>>)>,
}

impl<T> Reads<T> {
    pub(crate) fn new(patience: u64) -> Reads<T> {
        Reads {
            patience,
            last_id: 0,
            soonest: Time(u64::MAX),
            waiting: Vec::new(),
            askings: VecDeque::new(),
            confirmed: Vec::new(),
        }
    }

    /// A read comes.
    pub(crate) fn push(&mut self, read: Read<T>) {
        self.soonest = self.soonest.min(read.deadline);
        self.waiting.push(read);
    }

    /// What was asked of the old leader is asked of the new one.
    pub(crate) fn on_leader_change(&mut self) {
        for asking in self.askings.drain(..) {
            self.waiting.extend(asking.reads);
        }
    }

    /// Asks for all that waits, if there is a leader to ask.
    pub(crate) fn drive(&mut self, core: &mut Core, now: Time) {
        while self.askings.front().is_some_and(|asking| now.since(asking.asked_at) >= self.patience)
        {
            let late = self.askings.pop_front();
            self.waiting.extend(late.into_iter().flat_map(|asking| asking.reads));
        }
        if self.waiting.is_empty() {
            return;
        }
        let id = self.last_id + 1;
        if core.read(id) {
            self.last_id = id;
            let reads = std::mem::take(&mut self.waiting);
            self.askings.push_back(Asking { id, asked_at: now, reads });
        }
    }

    /// An asking was answered.
    pub(crate) fn on_ready(&mut self, ready: &ReadReady) {
        let Some(place) = self.askings.iter().position(|asking| asking.id == ready.id) else {
            return;
        };
        if let Some(asking) = self.askings.remove(place) {
            self.confirmed.push((ready.index, asking.reads));
        }
    }

    /// What may be served once this much is applied.
    pub(crate) fn take_ready(&mut self, applied: Index) -> Vec<Read<T>> {
        if self.confirmed.iter().all(|(index, _)| *index > applied) {
            return Vec::new();
        }
        let (ready, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.confirmed)
            .into_iter()
            .partition(|(index, _)| *index <= applied);
        self.confirmed = rest;
        ready.into_iter().flat_map(|(_, reads)| reads).collect()
    }

    /// What met its deadline.
    pub(crate) fn expire(
        &mut self,
        core: &Core,
        timeout: u64,
        now: Time,
    ) -> Vec<(T, RequestError)> {
        if self.soonest > now {
            return Vec::new();
        }
        let mut over = Vec::new();
        let mut keep = |reads: &mut Vec<Read<T>>| {
            let (late, rest): (Vec<_>, Vec<_>) =
                std::mem::take(reads).into_iter().partition(|read| read.deadline <= now);
            *reads = rest;
            over.extend(late.into_iter().map(|read| read.ticket));
        };
        keep(&mut self.waiting);
        self.askings.iter_mut().for_each(|asking| keep(&mut asking.reads));
        self.confirmed.iter_mut().for_each(|(_, reads)| keep(reads));
        self.askings.retain(|asking| !asking.reads.is_empty());
        self.confirmed.retain(|(_, reads)| !reads.is_empty());
        self.soonest = self.first_deadline();
        over.into_iter().map(|ticket| (ticket, super::out_of_time(core, timeout, now))).collect()
    }

    fn first_deadline(&self) -> Time {
        let waiting = self.waiting.iter();
        let asked = self.askings.iter().flat_map(|asking| &asking.reads);
        let confirmed = self.confirmed.iter().flat_map(|(_, reads)| reads);
        let all = waiting.chain(asked).chain(confirmed);
        all.map(|read| read.deadline).min().unwrap_or(Time(u64::MAX))
    }

    /// When something is due.
    pub(crate) fn deadline(&self) -> Time {
        let again = self.askings.front().map(|asking| asking.asked_at.plus(self.patience));
        self.soonest.min(again.unwrap_or(Time(u64::MAX)))
    }

    /// Everything ends.
    pub(crate) fn take_all(&mut self) -> Vec<T> {
        let waiting = std::mem::take(&mut self.waiting);
        let asked = self.askings.drain(..).flat_map(|asking| asking.reads);
        let confirmed =
            std::mem::take(&mut self.confirmed).into_iter().flat_map(|(_, reads)| reads);
        waiting.into_iter().chain(asked).chain(confirmed).map(|read| read.ticket).collect()
    }
}
