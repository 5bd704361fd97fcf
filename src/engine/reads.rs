//! Queries and lookups of this node's own program, on their way to be served.
//!
//! ```text
//!   waiting ──asked──► under way ──confirmed──► confirmed ──applied──► serving ──► answer
//!                      │      ▲
//!                      └──────┘ leader changed, or nothing came back for a while
//! ```
//!
//! What comes between two flushes shares one asking for a read index. An asking is
//! repeated under a number of its own each time, and any of its numbers answers it:
//! what a leader confirmed after the first asking is true for all that were asked
//! then. A read has no effect, so it ends with a refusal at its deadline, never
//! with `Unknown`.

use std::collections::BTreeMap;

use crate::core::Core;
use crate::core::effect::ReadReady;
use crate::core::types::{Index, Time};

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

/// So many askings are under way; what comes meanwhile shares the next one.
const ASKINGS_MOST: usize = 64;
/// So many numbers of one asking are remembered, the newest.
const NUMBERS_KEPT: usize = 16;

/// Reads that were asked for together.
#[derive(Debug)]
struct Asking<T> {
    numbers: Vec<u64>,
    /// How often the present leader was asked: the wait doubles with each.
    tries: u32,
    again_at: Time,
    reads: Vec<Read<T>>,
}

/// This node's reads that have not ended yet.
#[derive(Debug)]
pub(crate) struct Reads<T> {
    patience: u64,
    last_number: u64,
    /// No read ends before this.
    soonest: Time,
    waiting: Vec<Read<T>>,
    under_way: Vec<Asking<T>>,
    /// With the index that must be applied first.
    confirmed: Vec<(Index, Vec<Read<T>>)>,
    /// With the state machine: who is answered, and until when.
    serving: BTreeMap<u64, (T, Time)>,
    last_served: u64,
}

impl<T> Reads<T> {
    pub(crate) fn new(patience: u64) -> Reads<T> {
        Reads {
            patience,
            last_number: 0,
            soonest: Time(u64::MAX),
            waiting: Vec::new(),
            under_way: Vec::new(),
            confirmed: Vec::new(),
            serving: BTreeMap::new(),
            last_served: 0,
        }
    }

    /// A read comes.
    pub(crate) fn push(&mut self, read: Read<T>) {
        self.soonest = self.soonest.min(read.deadline);
        self.waiting.push(read);
    }

    /// What was asked of the old leader is asked of the new one, too.
    pub(crate) fn on_leader_change(&mut self) {
        for asking in &mut self.under_way {
            asking.again_at = Time(0);
            asking.tries = 0;
        }
    }

    /// Asks for all that waits, if there is a leader to ask.
    pub(crate) fn drive(&mut self, core: &mut Core, now: Time) {
        for asking in self.under_way.iter_mut().filter(|asking| asking.again_at <= now) {
            asking.again_at = now.plus(self.patience << asking.tries.min(4));
            if core.read(self.last_number + 1) {
                asking.tries += 1;
                self.last_number += 1;
                if asking.numbers.len() == NUMBERS_KEPT {
                    asking.numbers.remove(0);
                }
                asking.numbers.push(self.last_number);
            }
        }
        if self.waiting.is_empty() || self.under_way.len() >= ASKINGS_MOST {
            return;
        }
        if core.read(self.last_number + 1) {
            self.last_number += 1;
            let reads = std::mem::take(&mut self.waiting);
            let again_at = now.plus(self.patience);
            let numbers = vec![self.last_number];
            self.under_way.push(Asking { numbers, tries: 1, again_at, reads });
        }
    }

    /// Whether some were not asked for yet.
    pub(crate) fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// An asking was answered.
    pub(crate) fn on_ready(&mut self, ready: &ReadReady) {
        let answered = |asking: &Asking<T>| asking.numbers.contains(&ready.id);
        if let Some(place) = self.under_way.iter().position(answered) {
            let asking = self.under_way.swap_remove(place);
            self.confirmed.push((ready.index, asking.reads));
        }
    }

    /// What the state machine is asked once this much is applied.
    pub(crate) fn serve(&mut self, applied: Index) -> Vec<(u64, Question)> {
        if self.confirmed.iter().all(|(index, _)| *index > applied) {
            return Vec::new();
        }
        let (ready, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.confirmed)
            .into_iter()
            .partition(|(index, _)| *index <= applied);
        self.confirmed = rest;
        let mut questions = Vec::new();
        for read in ready.into_iter().flat_map(|(_, reads)| reads) {
            self.last_served += 1;
            self.serving.insert(self.last_served, (read.ticket, read.deadline));
            questions.push((self.last_served, read.question));
        }
        questions
    }

    /// The state machine has answered; `None` if the read has ended before.
    pub(crate) fn take_served(&mut self, number: u64) -> Option<T> {
        self.serving.remove(&number).map(|(ticket, _)| ticket)
    }

    /// What met its deadline.
    pub(crate) fn expire(&mut self, now: Time) -> Vec<T> {
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
        self.under_way.iter_mut().for_each(|asking| keep(&mut asking.reads));
        self.confirmed.iter_mut().for_each(|(_, reads)| keep(reads));
        self.under_way.retain(|asking| !asking.reads.is_empty());
        self.confirmed.retain(|(_, reads)| !reads.is_empty());
        let late = self.serving.iter().filter(|(_, (_, deadline))| *deadline <= now);
        for number in late.map(|(number, _)| *number).collect::<Vec<u64>>() {
            over.extend(self.take_served(number));
        }
        self.soonest = self.first_deadline();
        over
    }

    fn first_deadline(&self) -> Time {
        let waiting = self.waiting.iter();
        let asked = self.under_way.iter().flat_map(|asking| &asking.reads);
        let confirmed = self.confirmed.iter().flat_map(|(_, reads)| reads);
        let all = waiting.chain(asked).chain(confirmed).map(|read| read.deadline);
        let serving = self.serving.values().map(|(_, deadline)| *deadline);
        all.chain(serving).min().unwrap_or(Time(u64::MAX))
    }

    /// When something is due.
    pub(crate) fn deadline(&self) -> Time {
        let again = self.under_way.iter().map(|asking| asking.again_at).min();
        self.soonest.min(again.unwrap_or(Time(u64::MAX)))
    }

    /// Everything ends.
    pub(crate) fn take_all(&mut self) -> Vec<T> {
        let waiting = std::mem::take(&mut self.waiting);
        let asked = self.under_way.drain(..).flat_map(|asking| asking.reads);
        let confirmed =
            std::mem::take(&mut self.confirmed).into_iter().flat_map(|(_, reads)| reads);
        let serving = std::mem::take(&mut self.serving).into_values().map(|(ticket, _)| ticket);
        let all = waiting.into_iter().chain(asked).chain(confirmed).map(|read| read.ticket);
        all.chain(serving).collect()
    }
}
