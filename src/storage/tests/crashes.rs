//! A run that is cut off at each of its operations, and of what was not synced any
//! part kept: what was acknowledged is there, exactly, perhaps with some of what was
//! under way, record by record.

use super::super::model::Op;
use super::*;

/// What was asked of the log, and what it said was durable.
#[derive(Default)]
pub(super) struct Ledger {
    /// The log after each record, the empty one first.
    states: Vec<Twin>,
    /// So many records are acknowledged.
    acknowledged: usize,
    /// There is a snapshot of this entry or a later one.
    covered: Index,
    /// The log up to here may be gone.
    trimmed: Index,
}

impl Ledger {
    /// Which of the states was found. Panics if it is none that may be.
    fn find(&self, saved: &Saved, when: &str) -> usize {
        let may_be = self.acknowledged..self.states.len();
        let same = |number: &usize| self.states[*number].differs(saved).is_none();
        let Some(found) = may_be.clone().rev().find(same) else {
            let elsewhere = (0..self.states.len()).find(same);
            let differs = self.states[self.acknowledged].differs(saved);
            panic!("{when}: none of {may_be:?}, but {elsewhere:?}; {differs:?}");
        };
        let base = saved.log.base_index();
        let least = self.trimmed.max(self.states[found].base.0);
        assert!(base <= least, "{when}: the log begins after {base}, trimmed to {least}");
        let covered = saved.snapshot.as_ref().map_or(Index(0), |snapshot| snapshot.id.index);
        assert!(covered >= self.covered, "{when}: a snapshot at {covered} for {}", self.covered);
        found
    }
}

/// Does all that a node does to its log, until something fails.
pub(super) fn run(files: &SimFiles, seed: u64, ledger: &mut Ledger) -> Result<(), StorageError> {
    let mut maker = Maker::new(seed, 90);
    maker.installs = 6;
    ledger.states.push(maker.twin.clone());
    let (mut store, _) = open(files)?;
    for _ in 0..60 {
        match maker.rng.between(0, 9) {
            0..5 => {
                let count = maker.rng.between(1, 4);
                let mut records = Vec::new();
                for _ in 0..count {
                    records.push(maker.next());
                    ledger.states.push(maker.twin.clone());
                }
                store.append(&records)?;
            }
            5 | 6 => {
                store.sync()?;
                acknowledge(&mut maker, ledger);
                if maker.chance(50) {
                    store.mark()?;
                }
            }
            7 => {
                // Nothing is applied that is not durable.
                store.sync()?;
                acknowledge(&mut maker, ledger);
                maker.commit();
                if let Some(snapshot) = maker.take_snapshot() {
                    store.saver().save(&snapshot)?;
                    ledger.covered = ledger.covered.max(snapshot.id.index);
                }
            }
            8 => {
                let trimmed = Index(maker.rng.between(0, ledger.covered.0));
                ledger.trimmed = ledger.trimmed.max(trimmed);
                store.trim(trimmed)?;
            }
            _ => {
                let (opened, recovered) = open(files)?;
                store = opened;
                assert_eq!(maker.twin.differs(&recovered.saved), None, "nothing crashed");
                acknowledge(&mut maker, ledger);
            }
        }
    }
    Ok(())
}

/// All that was written is durable.
fn acknowledge(maker: &mut Maker, ledger: &mut Ledger) {
    ledger.acknowledged = ledger.states.len() - 1;
    // A snapshot that takes the place of the log is durable with its record.
    ledger.covered = ledger.covered.max(maker.twin.base.0);
}

/// What a crash keeps: nothing, all, or anything.
fn choice(image: u64, seed: u64) -> impl FnMut(u64) -> u64 {
    let mut rng = Rng::new(seed);
    move |of| match image {
        0 => 0,
        1 => 1,
        _ => rng.between(0, of - 1),
    }
}

/// The process is gone: killed, and the system lives on, or with all that was not
/// synced.
fn stop(files: &SimFiles, image: u64, seed: u64) {
    match image {
        KILLED => files.restart(),
        image => files.crash(&mut choice(image, seed)),
    }
}

/// The image of a process that was killed while the system lives on.
const KILLED: u64 = 2;

/// A folder after a crash goes on: what was found stays, and what is written then.
pub(super) fn goes_on(files: &SimFiles, ledger: &Ledger, when: &str, seed: u64) {
    let mut rng = Rng::new(seed ^ 77);
    // The first start may be cut off as well.
    files.crash_at(files.operations() + rng.between(0, 12));
    let first = open(files).map(|(_, recovered)| recovered.saved);
    if let Ok(saved) = &first {
        ledger.find(saved, when);
    }
    stop(files, rng.between(0, 5), seed ^ 99);

    let opened = open(files);
    let (mut store, recovered) = opened.unwrap_or_else(|error| panic!("{when}, then: {error}"));
    let found = ledger.find(&recovered.saved, when);
    if let Ok(saved) = &first {
        let before = ledger.find(saved, when);
        assert_eq!(found, before, "{when}: a start that was finished promised more");
    }
    let mut twin = ledger.states[found].clone();
    let record = append(twin.last_index().0 + 1, vec![entry(twin.hard.term.0, b"and on")]);
    store.append(std::slice::from_ref(&record)).unwrap();
    store.sync().unwrap();
    twin.apply(&record);
    files.crash(&mut choice(rng.between(0, 5), seed ^ 111));
    let (_, recovered) = open(files).unwrap_or_else(|error| panic!("{when}, at last: {error}"));
    assert_eq!(twin.differs(&recovered.saved), None, "{when}");
}

fn crash_everywhere(seed: u64, images: u64) {
    let whole = SimFiles::new();
    run(&whole, seed, &mut Ledger::default()).expect("nothing fails");
    for operation in 0..whole.operations() {
        let files = SimFiles::new();
        files.crash_at(operation);
        let mut ledger = Ledger::default();
        let ended = run(&files, seed, &mut ledger);
        let is_last = operation + 1 == whole.operations();
        assert!(ended.is_err() || is_last, "operation {operation} failed and nobody said so");
        for image in 0..images {
            let files = files.copy();
            let image_seed = operation * images + image;
            stop(&files, image, image_seed);
            let when = format!("seed {seed}, operation {operation}, image {image}");
            goes_on(&files, &ledger, &when, image_seed);
        }
    }
}

/// Pitfalls 1, 2: what was acknowledged, votes too, survives a crash at any operation;
/// a record, with term and vote in it, is there as a whole or not at all.
/// Pitfall 37: so do snapshots that are written, renamed, installed, and what they
/// cover removed.
/// Pitfall 58: of the writes that were not synced any subset is kept, also of the
/// sectors of one.
/// Pitfall 59: of the names that were not synced any subset is kept.
#[test]
fn what_was_acknowledged_survives_a_crash_at_any_operation() {
    std::thread::scope(|scope| {
        for seed in 0..6 {
            scope.spawn(move || crash_everywhere(seed, 8));
        }
    });
}

/// The runs above do what they are meant to.
#[test]
fn the_runs_that_crash_do_everything() {
    let (mut installs, mut trims, mut rotations) = (0, 0, 0);
    for seed in 0..6 {
        let (files, mut ledger) = (SimFiles::new(), Ledger::default());
        run(&files, seed, &mut ledger).unwrap();
        let bases = |pair: &[Twin]| pair[0].base != pair[1].base;
        installs += ledger.states.windows(2).filter(|pair| bases(pair)).count();
        let node = recover::read_node(&files, None).unwrap();
        trims += u64::from(node.first > 1);
        rotations += node.newest;
        assert!(ledger.acknowledged > 20 && files.operations() > 150, "seed {seed}");
    }
    assert!(installs >= 6 && trims >= 4 && rotations >= 60, "{installs} {trims} {rotations}");
}

/// The system takes what a failed sync leaves for written. A process that starts anew
/// sees it and builds on it, so it must not be lost later.
#[test]
fn what_a_failed_sync_left_behind_is_durable_once_it_was_found() {
    for image in 0..20 {
        let files = SimFiles::new();
        let (mut store, _) = open(&files).unwrap();
        store.append(&[vote(1, 0)]).unwrap();
        store.sync().unwrap();
        store.append(&[vote(2, 7), append(1, vec![entry(2, &[8; 600])])]).unwrap();
        files.fail_next(Op::Sync, std::io::ErrorKind::Other);
        store.sync().unwrap_err();
        files.restart();
        let (_, recovered) = open(&files).unwrap();
        assert_eq!(recovered.saved.hard, hard(2, 7), "the system still shows it");
        files.crash(&mut choice(image, image));
        let (_, recovered) = open(&files).unwrap();
        assert_eq!(recovered.saved.hard, hard(2, 7), "image {image}");
        assert_eq!(recovered.saved.log.last_index(), Index(1), "image {image}");
    }
}
