//! The log as it is written: records appended, made durable, and let go.

use std::io;

use crate::core::snapshot::Snapshot;
use crate::core::types::{Incarnation, Index, Term};
use crate::core::{Hard, Record, Saved};

use super::error::{Doing, StorageError};
use super::files::Files;
use super::format::{
    Checkpoint, End, FRAMES_AT, MARK_AT, NodeFile, Origin, Salt, SegmentHead, chain_of_head,
    encode_mark,
};
use super::frames::Batch;
use super::names::{self, Kind, NODE};
use super::record::put_record;
use super::recover::{self, Found, Newest, Past};
use super::shape::Shape;
use super::snapshots::{self, Saver};

/// How long a segment is, unless one batch of records needs more. What a snapshot
/// covers is freed by whole segments.
pub(super) const SEGMENT_BYTES: u64 = 16 << 20;

/// Whenever a write reaches behind one of these, in bytes, the zeros up to the next
/// are written along. A file system takes note of each block that is written for the
/// first time, which can cost a sync as much as the data does; so it does that for
/// many blocks at once. (Zeros in all of the segment, when it is begun, would be
/// written twice at a time when somebody waits.)
const WINDOW_BYTES: u64 = 64 << 10;

/// What a node comes back with.
pub(crate) struct Recovered {
    /// Its log, and all that belongs to it.
    pub(crate) saved: Saved,
    /// What a person should know: what was cut off, what was removed.
    pub(crate) notes: Vec<String>,
}

/// One node's log on the disk, open.
pub(crate) struct Store<F: Files> {
    files: F,
    node: NodeFile,
    /// All segments, the one that is written to last.
    segments: Vec<Past>,
    active: Active<F::File>,
    /// As they are after all that was appended.
    hard: Hard,
    shape: Shape,
    batch: Batch,
    segment_bytes: u64,
    failed: Option<String>,
}

/// The segment that is written to.
struct Active<File> {
    file: File,
    salt: Salt,
    len: u64,
    end: End,
    /// Up to here all was written once, be it zeros.
    written: u64,
    /// Up to here all is durable.
    synced: u64,
    /// Whether a record was appended since.
    is_dirty: bool,
    /// Up to here the mark says so.
    marked: u64,
}

impl<File> Active<File> {
    /// Nothing is written behind its head, which ends there.
    fn unused(file: File, salt: Salt, len: u64, end: End) -> Active<File> {
        let (written, synced, marked) = (end.at, end.at, end.at);
        Active { file, salt, len, end, written, synced, is_dirty: false, marked }
    }
}

impl<F: Files> Store<F> {
    /// Recovers what is there if `check` has nothing against it, or begins a log, then
    /// with this incarnation. On an error the folder holds what it held, but for
    /// leftovers; after one of `check` those, too.
    pub(crate) fn open(
        files: F,
        node_name: &str,
        new_incarnation: Incarnation,
        check: impl FnOnce(&Saved) -> Result<(), StorageError>,
    ) -> Result<(Store<F>, Recovered), StorageError> {
        Store::open_with(files, node_name, new_incarnation, SEGMENT_BYTES, check)
    }

    /// The same with segments of another length, and nothing against what is there.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn open_sized(
        files: F,
        node_name: &str,
        new_incarnation: Incarnation,
        segment_bytes: u64,
    ) -> Result<(Store<F>, Recovered), StorageError> {
        Store::open_with(files, node_name, new_incarnation, segment_bytes, |_| Ok(()))
    }

    fn open_with(
        files: F,
        node_name: &str,
        new_incarnation: Incarnation,
        segment_bytes: u64,
        check: impl FnOnce(&Saved) -> Result<(), StorageError>,
    ) -> Result<(Store<F>, Recovered), StorageError> {
        let listing = recover::list(&files)?;
        let found = recover::read(&files, &listing, Some(node_name))?;
        found.as_ref().map_or(Ok(()), |found| check(&found.saved))?;
        let mut notes = Vec::new();
        let mut leftovers: Vec<(&str, &str)> = Vec::new();
        let why = "a file that was not written to its end";
        leftovers.extend(listing.asides.iter().map(|name| (name.as_str(), why)));
        let known = found.iter().flat_map(|found| &found.leftovers);
        leftovers.extend(known.map(|leftover| (leftover.name.as_str(), leftover.why)));
        // Names that another process gave and did not live to sync are relied on from
        // here on: what they make a leftover may be needed without them.
        files.sync_dir().doing(|| format!("sync the directory {}", files.describe("")))?;
        for (name, why) in leftovers {
            let path = files.describe(name);
            files.remove(name).doing(|| format!("remove {path}, {why}"))?;
            notes.push(format!("{path}: removed: {why}"));
        }
        let found = match found {
            Some(found) => found,
            None => begin(&files, node_name, new_incarnation)?,
        };
        notes.extend(found.notes.iter().cloned());
        let (store, saved) = Store::go_on(files, found, segment_bytes)?;
        Ok((store, Recovered { saved, notes }))
    }

    /// Goes on where the log that was found ends: in a new segment, so that nothing
    /// is ever written over what a crash left behind.
    fn go_on(
        files: F,
        found: Found,
        segment_bytes: u64,
    ) -> Result<(Store<F>, Saved), StorageError> {
        let Found { mut node, saved, mut segments, newest, .. } = found;
        let hard = saved.hard.clone();
        let (last_index, last_term) = (saved.log.last_index(), saved.log.last_term());
        let checkpoint = Checkpoint { hard: hard.clone(), last_index, last_term };
        let active = match &newest {
            Some(newest) if newest.is_unused() => reuse(&files, &node, newest)?,
            Some(newest) => {
                let old = node.newest;
                settle(&files, old, newest)?;
                let active =
                    begin_segment(&files, &mut node, newest.end, checkpoint, segment_bytes)?;
                shorten(&files, old, newest.end.at);
                active
            }
            None => begin_segment(&files, &mut node, End::default(), checkpoint, segment_bytes)?,
        };
        if segments.last().is_none_or(|past| past.number < node.newest) {
            segments.push(Past::begun(node.newest, last_index));
        }
        let shape = Shape::of(&saved.log);
        let (batch, failed) = (Batch::default(), None);
        let store =
            Store { files, node, segments, active, hard, shape, batch, segment_bytes, failed };
        Ok((store, saved))
    }

    /// Appends the records, in order and in one write, and does not sync. What they
    /// install is durable before. After an error, here or below, nothing more may be
    /// asked of the store: every call answers with that error.
    pub(crate) fn append(&mut self, records: &[Record]) -> Result<(), StorageError> {
        self.unless_failed(|store| store.append_all(records))
    }

    /// Makes all that was appended durable. Each batch says so of those before it; of the
    /// last one `mark` does.
    pub(crate) fn sync(&mut self) -> Result<(), StorageError> {
        self.unless_failed(Store::sync_active)
    }

    /// Whether nothing says yet that the last batch is durable.
    pub(crate) fn lacks_mark(&self) -> bool {
        self.active.marked < self.active.synced && self.failed.is_none()
    }

    /// Leaves a mark that says so, where there is none. To be called when no more comes
    /// for a moment: a sync that follows has two places of the disk to write.
    pub(crate) fn mark(&mut self) -> Result<(), StorageError> {
        self.unless_failed(Store::mark_active)
    }

    /// The log up to `base` is covered by a durable snapshot, and not wanted any more:
    /// removes what only that needs, whole segments and all but the newest snapshot.
    /// Also what was before an install, whatever `base` is.
    pub(crate) fn trim(&mut self, base: Index) -> Result<(), StorageError> {
        self.unless_failed(|store| store.trim_to(base))
    }

    /// A handle by which another thread saves this node's own snapshots.
    pub(crate) fn saver(&self) -> Saver<F> {
        Saver::new(self.files.clone(), self.node.incarnation)
    }

    /// After one failed write or sync nobody knows what is on the disk: what a later
    /// sync says is not about the bytes of the one that failed (pitfall 56).
    fn unless_failed(
        &mut self,
        act: impl FnOnce(&mut Self) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        if let Some(failed) = &self.failed {
            let doing = "go on with the log after it failed".to_string();
            return Err(StorageError::Io { doing, source: io::Error::other(failed.clone()) });
        }
        let done = act(self);
        self.failed = done.as_ref().err().map(StorageError::to_string);
        done
    }

    fn path(&self) -> String {
        self.files.describe(&names::segment(self.node.newest))
    }

    fn checkpoint(&self) -> Checkpoint {
        let (last_index, last_term) = self.shape.last();
        Checkpoint { hard: self.hard.clone(), last_index, last_term }
    }

    fn append_all(&mut self, records: &[Record]) -> Result<(), StorageError> {
        if records.is_empty() {
            return Ok(());
        }
        for snapshot in records.iter().filter_map(|record| record.install.as_ref()) {
            snapshots::save(&self.files, self.node.incarnation, Origin::Received, snapshot)?;
        }
        let checkpoint = self.checkpoint();
        self.batch.clear();
        for record in records {
            self.put(record);
        }
        if self.active.end.at + self.batch.len() > self.active.len {
            self.rotate(checkpoint, self.batch.len())?;
        }
        let active = &mut self.active;
        let end = active.end.at + self.batch.len();
        if end > active.written {
            active.written = end.next_multiple_of(WINDOW_BYTES).min(active.len);
            self.batch.extend_by_zeros(active.written - active.end.at);
        }
        let (bytes, end) = self.batch.seal(&active.salt, active.end, active.synced);
        let written = self.files.write_at(&active.file, active.end.at, bytes);
        (active.end, active.is_dirty) = (end, true);
        if records.iter().any(|record| record.install.is_some()) {
            self.segments.last_mut().expect("one is written to").installs = true;
        }
        written.doing(|| format!("write {}", self.path()))
    }

    /// Adds a record to the batch. That it fits the log is the core's to know: it is
    /// checked here and when it is read.
    fn put(&mut self, record: &Record) {
        if let Some(hard) = &record.hard {
            let (term, before) = (hard.term, self.hard.term);
            assert!(term >= before, "the term falls from {before} to {term}");
            self.hard = hard.clone();
        }
        let current = self.hard.term;
        if let Some(Snapshot { id, .. }) = &record.install {
            assert!(id.term <= current, "a snapshot of term {} in term {current}", id.term);
            self.shape = Shape::with_base(id.index, id.term);
        }
        let prev = record.from.map(|from| {
            assert!(from > Index(0), "the log starts at 1");
            (from.previous(), self.shape.cut(from.previous()))
        });
        let terms = record.entries.iter().map(|entry| entry.term);
        assert!(prev.is_some() || record.entries.is_empty(), "entries without a place");
        terms.for_each(|term: Term| {
            assert!(term <= current, "an entry of term {term} in term {current}");
            self.shape.push(term);
        });
        self.batch.add(|out| put_record(record, prev, out));
    }

    /// Goes on in a new segment with room for `need` bytes. `checkpoint` is what was
    /// before them.
    fn rotate(&mut self, checkpoint: Checkpoint, need: u64) -> Result<(), StorageError> {
        self.sync_active()?;
        let Store { files, node, active, .. } = self;
        let (number, end, last_index) = (node.newest, active.end, checkpoint.last_index);
        let bytes = self.segment_bytes.max(FRAMES_AT + need);
        *active = begin_segment(files, node, end, checkpoint, bytes)?;
        self.segments.push(Past::begun(node.newest, last_index));
        shorten(files, number, end.at);
        Ok(())
    }

    fn sync_active(&mut self) -> Result<(), StorageError> {
        if !self.active.is_dirty {
            return Ok(());
        }
        let path = self.path();
        let active = &mut self.active;
        self.files.sync(&active.file).doing(|| format!("sync {path}"))?;
        (active.synced, active.is_dirty) = (active.end.at, false);
        Ok(())
    }

    /// The mark is not synced itself: if it is lost, so is nothing else.
    fn mark_active(&mut self) -> Result<(), StorageError> {
        if !self.lacks_mark() {
            return Ok(());
        }
        let path = self.path();
        let active = &mut self.active;
        let mark = encode_mark(&active.salt, active.synced);
        let written = self.files.write_at(&active.file, MARK_AT, &mark);
        active.marked = active.synced;
        written.doing(|| format!("write {path}"))
    }

    fn trim_to(&mut self, base: Index) -> Result<(), StorageError> {
        let listing = recover::list(&self.files)?;
        let Some((newest, older)) = listing.snapshots.split_last() else { return Ok(()) };
        let Some(Kind::Snapshot(covered, _)) = names::kind(newest) else { return Ok(()) };
        // The log never begins behind its snapshot, whoever asks.
        let base = base.min(covered);
        let needed = |past: &&Past| past.begins_after <= base || past.installs;
        let first = self.segments.iter().rfind(needed).map_or(self.node.first, |past| past.number);
        if older.is_empty() && first <= self.node.first {
            return Ok(());
        }
        // An install, and the names of the snapshots listed, must be durable before
        // what they replace goes.
        self.sync_active()?;
        let Store { files, node, .. } = self;
        files.sync_dir().doing(|| format!("sync the directory {}", files.describe("")))?;
        let gone = node.first..first;
        if !gone.is_empty() {
            // First the promise that they are not needed: a crash may undo the removal
            // of any of them, and of the others not.
            node.first = first;
            write_node(files, node)?;
        }
        for name in gone.map(names::segment).chain(older.iter().cloned()) {
            files.remove(&name).doing(|| format!("remove {}", files.describe(&name)))?;
        }
        self.segments.retain(|past| past.number >= first);
        self.shape.forget(base);
        Ok(())
    }
}

impl Newest {
    /// Whether nothing was ever written behind its head.
    fn is_unused(&self) -> bool {
        self.end.at == FRAMES_AT && self.is_clean
    }
}

/// Makes a folder a node's. A crash leaves one that is begun again, or one without
/// segments, which is gone on with.
fn begin<F: Files>(files: &F, name: &str, incarnation: Incarnation) -> Result<Found, StorageError> {
    let node = NodeFile { incarnation, name: name.to_string(), first: 1, newest: 0 };
    write_node(files, &node)?;
    Ok(Found {
        node,
        saved: Saved::empty(incarnation),
        segments: Vec::new(),
        newest: None,
        leftovers: Vec::new(),
        notes: Vec::new(),
    })
}

/// Puts the node's file in the place of the one before, durably.
fn write_node<F: Files>(files: &F, node: &NodeFile) -> Result<(), StorageError> {
    let aside = names::aside(NODE);
    snapshots::write_aside(files, &aside, &[&node.encode()])
        .and_then(|()| files.rename(&aside, NODE))
        .and_then(|()| files.sync_dir())
        .doing(|| format!("write {}", files.describe(NODE)))
}

/// Begins the segment after the newest one, durably, and then names it in the node's
/// file: one that is missing from then on is missed.
fn begin_segment<F: Files>(
    files: &F,
    node: &mut NodeFile,
    before: End,
    checkpoint: Checkpoint,
    len: u64,
) -> Result<Active<F::File>, StorageError> {
    let number = node.newest + 1;
    let name = names::segment(number);
    let head = SegmentHead { incarnation: node.incarnation, number, len, before, checkpoint };
    let bytes = head.encode();
    let create = || -> io::Result<F::File> {
        let file = files.create(&name, len)?;
        files.write_at(&file, 0, &bytes)?;
        files.sync(&file)?;
        files.sync_dir()?;
        Ok(file)
    };
    let file = create().doing(|| format!("begin {} ({len} bytes)", files.describe(&name)))?;
    node.newest = number;
    write_node(files, node)?;
    let end = End { at: FRAMES_AT, chain: chain_of_head(&bytes) };
    Ok(Active::unused(file, head.salt(), len, end))
}

/// Opens the newest segment to be written to from its head on.
fn reuse<F: Files>(
    files: &F,
    node: &NodeFile,
    newest: &Newest,
) -> Result<Active<F::File>, StorageError> {
    let name = names::segment(node.newest);
    let file = files.open(&name).doing(|| format!("open {}", files.describe(&name)))?;
    let Newest { len, end, .. } = *newest;
    let salt = Salt::new(node.incarnation, node.newest);
    Ok(Active::unused(file, salt, len, end))
}

/// Makes durable what was found. It was read, but perhaps only from memory: if the
/// sync of the process that wrote it failed, the system takes these bytes for written
/// and no later sync saves them. So they are written once more.
fn settle<F: Files>(files: &F, number: u64, newest: &Newest) -> Result<(), StorageError> {
    let name = names::segment(number);
    let (from, bytes) = &newest.in_doubt;
    if bytes.is_empty() {
        return Ok(());
    }
    let settle = || -> io::Result<()> {
        let file = files.open(&name)?;
        files.write_at(&file, *from, bytes)?;
        files.sync(&file)
    };
    settle().doing(|| format!("write {} anew from byte {from} on", files.describe(&name)))
}

/// Gives back the space behind the end of a segment that is finished. If that fails,
/// it costs nothing but the space.
fn shorten<F: Files>(files: &F, number: u64, end: u64) {
    let file = files.open(&names::segment(number));
    let _ = file.and_then(|file| files.set_len(&file, end));
}
