//! The disk of one log, down to its bytes: a real store on simulated files.
//!
//! What a node may find when it comes back is known beforehand: what was durable, and
//! of what was under way any first part. Each recovery is held against that.

use crate::core::properties::{Disk, Property, Verdict, broken, ensure};
use crate::core::snapshot::Snapshot;
use crate::core::types::{Incarnation, Index};
use crate::core::{Record, Saved};
use crate::storage::model::{Op, SimFiles};
use crate::storage::{Files, Saver, StorageError, Store};

use super::chance::Chance;

/// A node comes back with what was durable, and with nothing that was never written.
pub(super) const RECOVERED: Property =
    Property { name: "What Was Durable Comes Back", source: "Raft §5.2: persistent state" };

/// A segment of a simulated log, in bytes: short, so that many begin and go.
const SEGMENT_BYTES: u64 = 16 << 10;

/// One log's disk.
pub(super) struct Drive {
    files: SimFiles,
    /// While its node runs.
    open: Option<(Store<SimFiles>, Saver<SimFiles>)>,
    /// What may be found, if a crash or a failure left that open.
    possible: Vec<Disk>,
    /// Whether there is hardly any room left.
    full: bool,
    /// How often was written: what is marked and what is not hangs on that.
    writes: u64,
    /// Says that it has synced, and has not: a bug that tests put in.
    #[cfg(test)]
    pub(super) lies: bool,
}

impl Drive {
    pub(super) fn new() -> Drive {
        Drive {
            files: SimFiles::new(),
            open: None,
            possible: Vec::new(),
            full: false,
            writes: 0,
            #[cfg(test)]
            lies: false,
        }
    }

    /// A node starts with it; `model` is what is durable. An error: it cannot start,
    /// for there is no room.
    pub(super) fn start(
        &mut self,
        name: &str,
        incarnation: Incarnation,
        model: &mut Disk,
    ) -> Result<Result<Saved, String>, crate::core::properties::Broken> {
        assert!(self.open.is_none(), "{name} runs already");
        let opened = Store::open_sized(self.files.clone(), name, incarnation, SEGMENT_BYTES);
        let (store, recovered) = match opened {
            Ok(opened) => opened,
            Err(error) if self.full => {
                self.files.restart();
                return Ok(Err(error.to_string()));
            }
            Err(error) => {
                broken(&RECOVERED, format!("{name} cannot start: {error}"))?;
                return Ok(Err(String::new()));
            }
        };
        let saved = recovered.saved;
        self.check(name, incarnation, &saved, model)?;
        *model = as_disk(&saved);
        let saver = store.saver();
        self.open = Some((store, saver));
        Ok(Ok(saved))
    }

    fn check(
        &mut self,
        name: &str,
        incarnation: Incarnation,
        saved: &Saved,
        model: &Disk,
    ) -> Verdict {
        let possible = std::mem::take(&mut self.possible);
        let found = as_disk(saved);
        let fits = match possible.is_empty() {
            true => is_as(&found, model),
            false => possible.iter().any(|disk| is_as(&found, disk)),
        };
        ensure(&RECOVERED, fits && saved.incarnation == incarnation, || {
            let told = |disk: &Disk| {
                let snapshot = disk.snapshot.as_ref().map(|snapshot| snapshot.id.index);
                let (base, last) = (disk.base.0, disk.last_index());
                format!("{:?}, snapshot {snapshot:?}, log from {base} to {last}", disk.hard)
            };
            let could: Vec<String> = possible.iter().chain([model]).map(told).collect();
            format!("{name} finds {}; possible were: {}", told(&found), could.join("; "))
        })
    }

    /// Writes end: they are durable, or the disk has failed.
    pub(super) fn write(&mut self, records: &[Record]) -> Result<(), StorageError> {
        let Some((store, _)) = &mut self.open else { return Ok(()) };
        store.append(records)?;
        #[cfg(test)]
        if self.lies {
            return Ok(());
        }
        store.sync()?;
        // It is quiet after some writes, and not after others.
        self.writes += 1;
        if self.writes.is_multiple_of(2) { store.mark() } else { Ok(()) }
    }

    /// A snapshot is saved, or the disk has failed.
    pub(super) fn save(&mut self, snapshot: &Snapshot) -> Result<(), StorageError> {
        self.open.as_ref().map_or(Ok(()), |(_, saver)| saver.save(snapshot))
    }

    /// The log up to there is not needed any more.
    pub(super) fn trim(&mut self, base: Index) -> Result<(), StorageError> {
        self.open.as_mut().map_or(Ok(()), |(store, _)| store.trim(base))
    }

    /// Its node has stopped with nothing under way.
    pub(super) fn stop(&mut self) {
        self.open = None;
        self.files.restart();
    }

    /// Its node has stopped because the disk failed: of what was under way any first
    /// part may be there.
    pub(super) fn failed(&mut self, model: &Disk, writes: &[Record], saving: Option<&Snapshot>) {
        self.possible = futures(model, writes, saving);
        self.open = None;
        self.files.restart();
        self.set_full(self.full);
    }

    /// Its node dies in one of the next operations of the disk, and power is lost.
    pub(super) fn crash(
        &mut self,
        model: &Disk,
        writes: &[Record],
        saving: Option<&Snapshot>,
        chance: &mut Chance,
    ) {
        self.possible = futures(model, writes, saving);
        if let Some((mut store, saver)) = self.open.take() {
            self.files.crash_at(self.files.operations() + chance.between(0, 16));
            let first = chance.between(0, writes.len() as u64) as usize;
            let (first, rest) = writes.split_at(first);
            let late = chance.permille(500);
            let save = || saving.map(|snapshot| saver.save(snapshot));
            // It dies somewhere in here.
            let _ = (!late).then(save);
            let _ = store.append(first).and_then(|()| store.sync());
            let _ = store.append(rest).and_then(|()| store.sync());
            let _ = late.then(save);
        }
        self.files.crash(&mut |of| chance.between(0, of - 1));
        self.full = false;
    }

    /// The next write or sync fails.
    pub(super) fn fail_next(&mut self, chance: &mut Chance) {
        let op = *chance.pick(&[Op::Write, Op::Sync]);
        self.files.fail_next(op, std::io::ErrorKind::Other);
    }

    /// There is hardly any room left, or again as much as it likes.
    pub(super) fn set_full(&mut self, full: bool) {
        self.full = full;
        let used =
            || self.files.list().into_iter().flatten().filter_map(|name| self.files.content(&name));
        let room = full.then(|| used().map(|content| content.len() as u64).sum::<u64>() + 512);
        self.files.set_room(room);
    }

    /// Whether there is hardly any room left.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// It fails no more.
    pub(super) fn mend(&mut self) {
        self.files.forget_faults();
        self.full = false;
    }
}

fn as_disk(saved: &Saved) -> Disk {
    let Saved { incarnation: _, hard, snapshot, log } = saved;
    let base = (log.base_index(), log.base_term());
    let entries = log.from(base.0.next()).map(|(_, entry)| entry.clone()).collect();
    let mut disk =
        Disk { hard: hard.clone(), snapshot: snapshot.clone(), base, entries, ..Disk::default() };
    disk.ended = disk.last_index();
    disk
}

/// Whether this is that disk; what a snapshot stands for may be there or not.
fn is_as(found: &Disk, disk: &Disk) -> bool {
    let base = found.base.0.max(disk.base.0);
    let behind = |disk: &Disk| (base.0 - disk.base.0.0) as usize;
    let id = |disk: &Disk| disk.snapshot.as_ref().map(|snapshot| snapshot.id);
    found.hard == disk.hard
        && id(found) == id(disk)
        && found.last_index() == disk.last_index()
        && found.last_index() >= base
        && found.entries[behind(found)..] == disk.entries[behind(disk)..]
}

/// What may be on the disk when some of this was done, in order; the snapshot beside
/// it, at any time.
fn futures(model: &Disk, writes: &[Record], saving: Option<&Snapshot>) -> Vec<Disk> {
    let mut disk = model.clone();
    let mut futures = vec![disk.clone()];
    for record in writes {
        disk.write(record);
        futures.push(disk.clone());
    }
    let saved = saving.into_iter().flat_map(|snapshot| {
        let with = |disk: &Disk| {
            let mut disk = disk.clone();
            disk.compacted(snapshot, Index(0));
            disk
        };
        futures.iter().map(with).collect::<Vec<_>>()
    });
    let saved: Vec<Disk> = saved.collect();
    futures.extend(saved);
    futures
}
