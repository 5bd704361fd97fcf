//! Snapshots on the disk: written aside, synced, renamed; and which of those that
//! are found is the one to start from.
//!
//! A snapshot that was *taken* here is of entries that this log holds, durable before
//! they were applied. If the log that is found does not hold its last entry, the log
//! has lost some: that is an error, and the only sign of it that there may be. One
//! that was *received* becomes part of the log by a record of its own, which is
//! written when the file is durable. If there is none, the node died in between.

use std::io;

use crate::core::log::Log;
use crate::core::snapshot::{Snapshot, SnapshotId};
use crate::core::types::{Incarnation, Index};
use crate::encoding::{self, Refusal};

use bytes::Bytes;

use super::error::{Doing, StorageError, damaged, version};
use super::files::{Files, read_whole};
use super::format::{Origin, SNAPSHOT_HEAD_BYTES, SnapshotHead, Unsound};
use super::names;

/// Saves this node's own snapshots, beside the log and in a thread of its own.
#[derive(Clone)]
pub(crate) struct Saver<F: Files> {
    files: F,
    incarnation: Incarnation,
}

impl<F: Files> Saver<F> {
    pub(super) fn new(files: F, incarnation: Incarnation) -> Saver<F> {
        Saver { files, incarnation }
    }

    /// Makes a snapshot durable that this node took. What it covers must be durable
    /// in the log. After an error the snapshot counts as not saved; one that says
    /// that the disk is full leaves the log as it is, after any other the node stops.
    pub(crate) fn save(&self, snapshot: &Snapshot) -> Result<(), StorageError> {
        save(&self.files, self.incarnation, Origin::Taken, snapshot)
    }
}

/// Makes a snapshot durable.
pub(super) fn save<F: Files>(
    files: &F,
    incarnation: Incarnation,
    origin: Origin,
    snapshot: &Snapshot,
) -> Result<(), StorageError> {
    let length = snapshot.data.len() as u64;
    assert_eq!(length, snapshot.id.length, "a snapshot of another length than its own");
    let name = names::snapshot(snapshot.id.index, snapshot.id.term);
    let aside = match origin {
        Origin::Taken => names::aside(&name),
        Origin::Received => names::aside_received(&name),
    };
    let head = SnapshotHead { incarnation, origin, id: snapshot.id }.encode();
    let saved = write_aside(files, &aside, &[&head, &snapshot.data]);
    let saved = saved.and_then(|()| files.rename(&aside, &name));
    if saved.is_err() {
        // It may take much of a disk that is full. If it stays, the next start
        // removes it.
        let _ = files.remove(&aside);
    }
    saved
        .and_then(|()| files.sync_dir())
        .doing(|| format!("save {} ({length} bytes)", files.describe(&name)))
}

/// Writes a file that will be renamed, and syncs it.
pub(super) fn write_aside<F: Files>(files: &F, aside: &str, parts: &[&[u8]]) -> io::Result<()> {
    let len = parts.iter().map(|part| part.len() as u64).sum();
    let file = match files.create(aside, len) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            files.remove(aside)?; // of an attempt that failed
            files.create(aside, len)?
        }
        created => created?,
    };
    let mut at = 0;
    for part in parts {
        files.write_at(&file, at, part)?;
        at += part.len() as u64;
    }
    files.sync(&file)
}

/// A snapshot's file that is sound.
pub(super) struct Kept {
    pub(super) origin: Origin,
    pub(super) snapshot: Snapshot,
}

/// Reads a snapshot's file.
pub(super) fn load<F: Files>(
    files: &F,
    name: &str,
    incarnation: Incarnation,
) -> Result<Kept, StorageError> {
    let bytes = read_whole(files, name)?;
    let SnapshotHead { incarnation: of, origin, id } =
        SnapshotHead::decode(&bytes).map_err(|unsound| match unsound {
            Unsound::Version(number) => version(files, name, number),
            Unsound::Damaged(problem) => damaged(files, name, 0, problem),
        })?;
    if of != incarnation {
        return Err(foreign(files, name, of, incarnation));
    }
    if names::snapshot(id.index, id.term) != name {
        let problem = format!(
            "it is the snapshot at entry {} of term {} under another name",
            id.index, id.term
        );
        return Err(damaged(files, name, 0, problem));
    }
    let data = Bytes::from(bytes).slice(SNAPSHOT_HEAD_BYTES..);
    // What a snapshot holds has a version of its own, since it travels too. It comes first.
    let inner = data.first().copied().unwrap_or_default();
    let snapshot = encoding::snapshot::open(id, data).map_err(|refusal| match refusal {
        Refusal::Version => version(files, name, inner.into()),
        _ => {
            let problem = "the snapshot is not the one that was written";
            damaged(files, name, SNAPSHOT_HEAD_BYTES as u64, problem)
        }
    })?;
    Ok(Kept { origin, snapshot })
}

/// A file of another log than the folder's.
pub(super) fn foreign<F: Files>(
    files: &F,
    name: &str,
    of: Incarnation,
    expected: Incarnation,
) -> StorageError {
    let dir = files.describe("");
    StorageError::Unusable {
        file: files.describe(name),
        problem: format!(
            "it belongs to the log {of}, while the directory is that of the log {expected}"
        ),
        remedy: format!(
            "put the file of this directory back in its place, or remove the directory {dir}: the \
             node then comes back as a new member and is brought up to date by the others"
        ),
    }
}

/// Which snapshot to start from.
#[derive(Default)]
pub(super) struct Choice {
    pub(super) snapshot: Option<Snapshot>,
    /// Received and never made part of the log: to be removed.
    pub(super) leftovers: Vec<String>,
}

/// Chooses among the snapshots' files by what the journal comes to.
pub(super) fn choose<F: Files>(
    files: &F,
    names: &[String],
    incarnation: Incarnation,
    log: &Log,
    installed: Option<SnapshotId>,
) -> Result<Choice, StorageError> {
    let mut choice = Choice::default();
    for name in names {
        let Kept { origin, snapshot } = load(files, name, incarnation)?;
        let SnapshotId { index, term, .. } = snapshot.id;
        if index < log.base_index() {
            continue; // an older one, of entries that are gone
        }
        let here = log.term_at(index);
        if here != Some(term) {
            match origin {
                Origin::Taken => return Err(log_is_short(files, name, snapshot.id, log)),
                Origin::Received => choice.leftovers.push(name.clone()),
            }
            continue;
        }
        let of_install = installed.filter(|id| (id.index, id.term) == (index, term));
        if origin == Origin::Received && of_install.is_some_and(|id| id != snapshot.id) {
            let problem = "it is another snapshot than the one that the log was replaced by";
            return Err(damaged(files, name, 0, problem));
        }
        if choice.snapshot.as_ref().is_none_or(|other| other.id.index < index) {
            choice.snapshot = Some(snapshot);
        }
    }
    if choice.snapshot.is_none() && log.base_index() > Index(0) {
        let (index, term) = (log.base_index(), log.base_term());
        let problem = format!(
            "it is missing, or a later one: the log begins after entry {index} of term {term}, and \
             no snapshot covers what was before"
        );
        return Err(damaged(files, &names::snapshot(index, term), 0, problem));
    }
    Ok(choice)
}

/// The log does not reach up to a snapshot that was taken of it.
fn log_is_short<F: Files>(files: &F, name: &str, id: SnapshotId, log: &Log) -> StorageError {
    let (index, term) = (id.index, id.term);
    let found = match log.term_at(index) {
        Some(other) => format!("has term {other} there"),
        None => format!("ends at entry {}", log.last_index()),
    };
    let problem = format!(
        "this snapshot was taken of a log with entry {index} of term {term}, but the log that is \
         found {found}: it has lost entries"
    );
    damaged(files, name, 0, problem)
}
