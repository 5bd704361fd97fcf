//! The log on a simulated disk, against a naive twin: what was acknowledged must come
//! back, whatever happens to the disk.

mod crashes;
mod damage;
mod describing;
mod failures;
mod folders;
mod round_trips;

use bytes::Bytes;

use crate::core::membership::{Member, Membership, Standing};
use crate::core::rng::Rng;
use crate::core::snapshot::Snapshot;
use crate::core::types::{
    ClusterId, Entry, Incarnation, Index, Life, Payload, Protocol, Run, Term, Verdict, WriteNumber,
};
use crate::core::{Hard, Record, Saved};
use crate::encoding;

use super::format::FRAMES_AT;
use super::model::SimFiles;
use super::recover;
use super::store::Recovered;
use super::{StorageError, Store};

/// Whose folder it is.
const NAME: &str = "node0";
const LOG: Incarnation = Incarnation(0xfeed);
/// So short that a few records fill a segment.
const SEGMENT: u64 = FRAMES_AT + 1024;

fn open(files: &SimFiles) -> Result<(Store<SimFiles>, Recovered), StorageError> {
    Store::open_sized(files.clone(), NAME, LOG, SEGMENT)
}

/// What a start would find; changes nothing.
fn read(files: &SimFiles) -> Result<Option<Saved>, StorageError> {
    let listing = recover::list(files)?;
    Ok(recover::read(files, &listing, Some(NAME))?.map(|found| found.saved))
}

fn members() -> Membership {
    let member = |number: u64| Member {
        name: format!("node{number}"),
        address: ([127, 0, 0, 1], 5000 + number as u16).into(),
        incarnation: Some(Incarnation(number + 1)),
        standing: if number < 2 { Standing::Voter } else { Standing::Learner },
    };
    Membership::new(ClusterId(9), (0..3).map(member).collect())
}

/// The snapshot up to an entry: there is only one.
fn snapshot(index: Index, term: Term) -> Snapshot {
    let state = format!("the state at {index} of term {term}");
    encoding::snapshot::make(
        (index, term),
        (Index(1), &members()),
        &Default::default(),
        state.as_bytes(),
    )
}

fn verdict() -> Verdict {
    Verdict { life: Life { incarnation: Incarnation(2), run: Run(7) }, up: true, relapses: 3 }
}

fn entry(term: u64, bytes: &[u8]) -> Entry {
    Entry { term: Term(term), payload: Payload::Client(Bytes::copy_from_slice(bytes)) }
}

fn hard(term: u64, vote: u64) -> Hard {
    let voted_for = (vote != 0).then_some(Incarnation(vote));
    Hard { cluster: Some(ClusterId(9)), term: Term(term), voted_for }
}

/// A record that changes only term and vote.
fn vote(term: u64, vote: u64) -> Record {
    Record {
        number: WriteNumber(0),
        hard: Some(hard(term, vote)),
        from: None,
        entries: Vec::new(),
        install: None,
    }
}

/// A record that changes only the log.
fn append(from: u64, entries: Vec<Entry>) -> Record {
    let from = Some(Index(from));
    Record { number: WriteNumber(0), hard: None, from, entries, install: None }
}

/// What a log comes to, by a list of its entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Twin {
    hard: Hard,
    base: (Index, Term),
    entries: Vec<Entry>,
}

impl Twin {
    fn last_index(&self) -> Index {
        Index(self.base.0.0 + self.entries.len() as u64)
    }

    fn entry(&self, index: Index) -> Option<&Entry> {
        self.entries.get(index.0.checked_sub(self.base.0.0 + 1)? as usize)
    }

    fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.base.0 {
            return Some(self.base.1);
        }
        self.entry(index).map(|entry| entry.term)
    }

    fn apply(&mut self, record: &Record) {
        if let Some(hard) = &record.hard {
            self.hard = hard.clone();
        }
        if let Some(snapshot) = &record.install {
            self.base = (snapshot.id.index, snapshot.id.term);
            self.entries.clear();
        }
        if let Some(from) = record.from {
            self.entries.truncate((from.0 - self.base.0.0 - 1) as usize);
            assert_eq!(self.last_index().next(), from);
            self.entries.extend(record.entries.iter().cloned());
        }
    }

    /// Whether a log that was found is this one, as far as it reaches down. Says what
    /// differs.
    fn differs(&self, saved: &Saved) -> Option<String> {
        let log = &saved.log;
        if saved.hard != self.hard {
            return Some(format!("{:?} for {:?}", saved.hard, self.hard));
        }
        if log.last_index() != self.last_index() {
            return Some(format!("ends at {} for {}", log.last_index(), self.last_index()));
        }
        let base = log.base_index();
        if base < self.base.0 || self.term_at(base) != Some(log.base_term()) {
            return Some(format!("begins after {base} of term {}", log.base_term()));
        }
        for (index, entry) in log.from(base.next()) {
            if self.entry(index) != Some(entry) {
                return Some(format!("{entry:?} at {index} for {:?}", self.entry(index)));
            }
        }
        let covered = saved.snapshot.as_ref().map_or(Index(0), |snapshot| snapshot.id.index);
        if covered < base {
            return Some(format!("begins after {base} with a snapshot at {covered}"));
        }
        match &saved.snapshot {
            Some(found) if *found != snapshot(found.id.index, found.id.term) => {
                Some(format!("another snapshot at {covered}"))
            }
            Some(found) if self.term_at(covered).is_some_and(|term| term != found.id.term) => {
                Some(format!("a snapshot at {covered} of term {}", found.id.term))
            }
            _ => None,
        }
    }
}

/// Makes records as the core does: numbers rise, what is committed stays, terms do
/// not fall, nothing is of a later term than the current one.
struct Maker {
    rng: Rng,
    twin: Twin,
    committed: Index,
    number: u64,
    /// A client's entry has at most so many bytes.
    bytes: u64,
    /// A record has at most so many entries.
    entries: u64,
    /// So many records of a hundred install a snapshot.
    installs: u64,
}

impl Maker {
    fn new(seed: u64, bytes: u64) -> Maker {
        let (twin, committed) = (Twin::default(), Index(0));
        let rng = Rng::new(seed);
        Maker { rng, twin, committed, number: 0, bytes, entries: 4, installs: 4 }
    }

    fn chance(&mut self, of_hundred: u64) -> bool {
        self.rng.between(1, 100) <= of_hundred
    }

    fn record(&mut self) -> Record {
        let mut hard = None;
        if self.twin.hard.term == Term(0) || self.chance(20) {
            let mut next = self.twin.hard.clone();
            next.cluster = Some(ClusterId(9));
            if next.term == Term(0) || self.chance(70) {
                next.term = Term(next.term.0 + self.rng.between(1, 3));
                next.voted_for = None;
            }
            if self.chance(60) {
                next.voted_for = Some(Incarnation(self.rng.between(1, 5)));
            }
            hard = Some(next);
        }
        let current = hard.as_ref().unwrap_or(&self.twin.hard).term;
        let last = self.twin.last_index();
        self.number += 1;
        let number = WriteNumber(self.number);
        if self.chance(self.installs) {
            // From a leader whose log is longer, or another one.
            let index = Index(self.rng.between(self.committed.0 + 1, last.0 + 20));
            let here = self.twin.term_at(index);
            if here != Some(current) {
                let install = Some(snapshot(index, current));
                let count = self.rng.between(0, 3);
                let entries = self.entries(current, current, count);
                let from = (count > 0).then_some(index.next());
                return Record { number, hard, from, entries, install };
            }
        }
        if hard.is_some() && self.chance(50) {
            return Record { number, hard, from: None, entries: Vec::new(), install: None };
        }
        let cut = self.chance(15);
        let from =
            if cut { self.rng.between(self.committed.0 + 1, last.0 + 1) } else { last.0 + 1 };
        let least = if cut && from <= last.0 { 0 } else { 1 };
        let count = self.rng.between(least, self.entries);
        let before = self.twin.term_at(Index(from - 1)).expect("what is committed is there");
        let entries = self.entries(before, current, count);
        Record { number, hard, from: Some(Index(from)), entries, install: None }
    }

    fn entries(&mut self, before: Term, current: Term, count: u64) -> Vec<Entry> {
        let mut term = before.0;
        let mut entries = Vec::new();
        for _ in 0..count {
            if self.chance(60) {
                term = self.rng.between(term, current.0);
            }
            entries.push(match self.rng.between(0, 20) {
                0 => Entry { term: Term(term), payload: Payload::Protocol(Protocol::Empty) },
                1 => Entry {
                    term: Term(term),
                    payload: Payload::Protocol(Protocol::Members(Box::new(members()))),
                },
                2 => Entry {
                    term: Term(term),
                    payload: Payload::Protocol(Protocol::Verdict(verdict())),
                },
                _ => {
                    let len = self.rng.between(0, self.bytes);
                    let bytes: Vec<u8> = (0..len).map(|_| self.rng.next() as u8).collect();
                    entry(term, &bytes)
                }
            });
        }
        entries
    }

    /// The next record; it counts as written.
    fn next(&mut self) -> Record {
        let record = self.record();
        self.twin.apply(&record);
        self.committed = self.committed.max(self.twin.base.0);
        record
    }

    /// Some of what is written is committed.
    fn commit(&mut self) {
        self.committed = Index(self.rng.between(self.committed.0, self.twin.last_index().0));
    }

    /// A snapshot of what is committed.
    fn take_snapshot(&self) -> Option<Snapshot> {
        let term = self.twin.term_at(self.committed)?;
        (self.committed > Index(0)).then(|| snapshot(self.committed, term))
    }
}
