//! What the files of a folder come to. Nothing is changed here: what is to be done
//! about what a crash left behind is told to whoever called.

use crate::core::Saved;
use crate::core::snapshot::SnapshotId;
use crate::core::types::Index;

use super::error::{Doing, StorageError, damaged, version};
use super::files::{Files, read_whole};
use super::format::{End, FRAMES_AT, NodeFile, Salt, SegmentHead, Unsound, decode_mark};
use super::frames::{Walk, heads_from};
use super::names::{self, Kind, NODE};
use super::record::take_record;
use super::replay::Replay;
use super::snapshots::{self, foreign};

/// The files of a folder, by kind.
#[derive(Default)]
pub(super) struct Listing {
    pub(super) has_node: bool,
    /// In order.
    pub(super) segments: Vec<u64>,
    /// In order of their entries.
    pub(super) snapshots: Vec<String>,
    pub(super) asides: Vec<String>,
}

/// Which files there are. Those that are none of ours are left out.
pub(super) fn list<F: Files>(files: &F) -> Result<Listing, StorageError> {
    let mut listing = Listing::default();
    let mut snapshots = Vec::new();
    let listed = files.list().doing(|| format!("list the directory {}", files.describe("")));
    for name in listed? {
        match names::kind(&name) {
            Some(Kind::Node) => listing.has_node = true,
            Some(Kind::Segment(number)) => listing.segments.push(number),
            Some(Kind::Snapshot(index, term)) => snapshots.push((index, term, name)),
            Some(Kind::Aside) => listing.asides.push(name),
            None => {}
        }
    }
    listing.segments.sort_unstable();
    listing.asides.sort_unstable();
    snapshots.sort_unstable();
    listing.snapshots = snapshots.into_iter().map(|(_, _, name)| name).collect();
    Ok(listing)
}

/// A file that nobody needs, and why.
pub(super) struct Leftover {
    pub(super) name: String,
    pub(super) why: &'static str,
}

/// A segment, as far as it matters to what may be removed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Past {
    pub(super) number: u64,
    /// Where the log ended when it was begun.
    pub(super) begins_after: Index,
    /// Whether a snapshot takes the place of the log in it.
    pub(super) installs: bool,
}

impl Past {
    /// One without records.
    pub(super) fn begun(number: u64, begins_after: Index) -> Past {
        Past { number, begins_after, installs: false }
    }
}

/// The segment that was written to last.
pub(super) struct Newest {
    pub(super) len: u64,
    pub(super) end: End,
    /// Whether nothing but zeros stands behind its end.
    pub(super) is_clean: bool,
    /// What is not known to be durable: from there to the end.
    pub(super) in_doubt: (u64, Vec<u8>),
}

/// What a folder holds.
pub(super) struct Found {
    pub(super) node: NodeFile,
    /// What the node comes back with.
    pub(super) saved: Saved,
    /// All segments, the newest last; none while the folder is being made.
    pub(super) segments: Vec<Past>,
    pub(super) newest: Option<Newest>,
    pub(super) leftovers: Vec<Leftover>,
    /// What a person should know.
    pub(super) notes: Vec<String>,
}

/// Reads the folder; `None` if there is no log in it yet. `node_name` is whose it
/// should be, if somebody knows.
pub(super) fn read<F: Files>(
    files: &F,
    listing: &Listing,
    node_name: Option<&str>,
) -> Result<Option<Found>, StorageError> {
    if !listing.has_node {
        let first = listing.segments.first().map(|number| names::segment(*number));
        let Some(present) = first.as_ref().or(listing.snapshots.first()) else { return Ok(None) };
        let problem = format!("it is missing, though there is {present}");
        return Err(damaged(files, NODE, 0, problem));
    }
    let node = read_node(files, node_name)?;
    let mut found = Found {
        saved: Saved::empty(node.incarnation),
        segments: Vec::new(),
        newest: None,
        leftovers: Vec::new(),
        notes: Vec::new(),
        node,
    };
    leftover_segments(files, listing, &mut found)?;
    let installed = read_segments(files, listing, &mut found)?;
    let log = &found.saved.log;
    let names = &listing.snapshots;
    let choice = snapshots::choose(files, names, found.node.incarnation, log, installed)?;
    found.saved.snapshot = choice.snapshot;
    let why = "a snapshot from the leader whose installation was cut short";
    found.leftovers.extend(choice.leftovers.into_iter().map(|name| Leftover { name, why }));
    Ok(Some(found))
}

/// What a head that was not taken means for the folder.
fn unsound<F: Files>(files: &F, name: &str, unsound: Unsound) -> StorageError {
    match unsound {
        Unsound::Version(number) => version(files, name, number),
        Unsound::Damaged(problem) => damaged(files, name, 0, problem),
    }
}

pub(super) fn read_node<F: Files>(
    files: &F,
    node_name: Option<&str>,
) -> Result<NodeFile, StorageError> {
    let bytes = read_whole(files, NODE)?;
    let node = NodeFile::decode(&bytes).map_err(|problem| unsound(files, NODE, problem))?;
    match node_name {
        Some(name) if name != node.name => Err(StorageError::Unusable {
            file: files.describe(NODE),
            problem: format!("the directory is that of node {:?}, not of {name:?}", node.name),
            remedy: "give each node a directory of its own".to_string(),
        }),
        _ => Ok(node),
    }
}

/// Segments that the node's file does not name: older ones are not needed any more,
/// and one may have been begun when the node died.
fn leftover_segments<F: Files>(
    files: &F,
    listing: &Listing,
    found: &mut Found,
) -> Result<(), StorageError> {
    let NodeFile { incarnation, first, newest, .. } = found.node;
    for &number in &listing.segments {
        let name = names::segment(number);
        let why = if number < first {
            "an old segment of the log, whose entries a snapshot covers"
        } else if number > newest {
            // A segment is named before the first record is written to it.
            let bytes = read_whole(files, &name)?;
            let salt = Salt::new(incarnation, number);
            let at = heads_from(&bytes, salt, FRAMES_AT).next();
            if at.is_some() || number > newest + 1 {
                let problem = format!(
                    "it is a segment of the log that the file {NODE:?} does not know, whose newest \
                     is {newest}: that file is older than this one"
                );
                return Err(damaged(files, &name, 0, problem));
            }
            "a segment of the log that was being begun"
        } else {
            continue;
        };
        found.leftovers.push(Leftover { name, why });
    }
    Ok(())
}

/// Replays all segments; says which snapshot took the place of the log last.
fn read_segments<F: Files>(
    files: &F,
    listing: &Listing,
    found: &mut Found,
) -> Result<Option<SnapshotId>, StorageError> {
    let NodeFile { first, newest, .. } = found.node;
    let mut replay: Option<Replay> = None;
    let mut pending: Option<Segment> = None;
    for number in first..=newest {
        if listing.segments.binary_search(&number).is_err() {
            let problem = format!("it is missing: segments {first} to {newest} make up the log");
            return Err(damaged(files, &names::segment(number), 0, problem));
        }
        let segment = Segment::read(files, number, &found.node)?;
        // Only its successor says where a segment ends.
        if let (Some(before), Some(replay)) = (pending.take(), &mut replay) {
            found.segments.push(before.replay_finished(files, &segment, replay)?);
        }
        replay.get_or_insert_with(|| Replay::new(&segment.head.checkpoint));
        pending = Some(segment);
    }
    let (Some(last), Some(mut replay)) = (pending, replay) else { return Ok(None) };
    let (past, newest, note) = last.replay_newest(files, &mut replay)?;
    found.segments.push(past);
    found.newest = Some(newest);
    found.notes.extend(note);
    (found.saved.hard, found.saved.log) = (replay.hard, replay.log);
    Ok(replay.installed)
}

/// A segment that was read.
struct Segment {
    name: String,
    head: SegmentHead,
    bytes: Vec<u8>,
}

impl Segment {
    fn read<F: Files>(files: &F, number: u64, node: &NodeFile) -> Result<Segment, StorageError> {
        let name = names::segment(number);
        let bytes = read_whole(files, &name)?;
        let head = SegmentHead::decode(&bytes).map_err(|head| unsound(files, &name, head))?;
        if head.incarnation != node.incarnation {
            return Err(foreign(files, &name, head.incarnation, node.incarnation));
        }
        if head.number != number {
            let problem = format!("it is segment {} of the log under another name", head.number);
            return Err(damaged(files, &name, 0, problem));
        }
        Ok(Segment { name, head, bytes })
    }

    /// Carries out all sound frames of `walk`.
    fn carry_out<F: Files>(
        &self,
        files: &F,
        walk: &mut Walk<'_>,
        replay: &mut Replay,
    ) -> Result<Past, StorageError> {
        let SegmentHead { number, checkpoint, .. } = &self.head;
        let mut past = Past::begun(*number, checkpoint.last_index);
        while let Some(frame) = walk.next() {
            let applied = take_record(frame.payload)
                .map_err(|_| "it makes no sense".to_string())
                .and_then(|record| {
                    past.installs |= record.install.is_some();
                    replay.apply(record)
                });
            applied.map_err(|problem| {
                let problem = format!("the record there is whole, but {problem}");
                damaged(files, &self.name, frame.at, problem)
            })?;
        }
        Ok(past)
    }

    /// A segment that has a successor: sound up to where that one says, exactly.
    fn replay_finished<F: Files>(
        &self,
        files: &F,
        next: &Segment,
        replay: &mut Replay,
    ) -> Result<Past, StorageError> {
        let problem = |at: u64, problem: String| damaged(files, &self.name, at, problem);
        let SegmentHead { before, checkpoint, .. } = &next.head;
        let Some(bytes) = self.bytes.get(..before.at as usize) else {
            let len = self.bytes.len();
            let text = format!("the file ends here, but the segment goes on to byte {}", before.at);
            return Err(problem(len as u64, text));
        };
        let mut walk = Walk::new(bytes, self.head.salt());
        let past = self.carry_out(files, &mut walk, replay)?;
        let end = walk.end();
        if end.at != before.at {
            let text = "a record is not as it was written".to_string();
            return Err(problem(end.at, text));
        }
        if end.chain != before.chain || replay.checkpoint() != *checkpoint {
            let text = format!("{} goes on from another end than the segment's", next.name);
            return Err(problem(end.at, text));
        }
        Ok(past)
    }

    /// The segment that was written to last: what stands behind the last sound record
    /// was being written when the node died, unless somebody says that it was synced.
    fn replay_newest<F: Files>(
        self,
        files: &F,
        replay: &mut Replay,
    ) -> Result<(Past, Newest, Option<String>), StorageError> {
        let Segment { name, head, bytes } = &self;
        let len = bytes.len() as u64;
        if len != head.len {
            let text = format!("the file has {len} bytes, but was made with {}", head.len);
            return Err(damaged(files, name, len.min(head.len), text));
        }
        let mut walk = Walk::new(bytes, head.salt());
        let past = self.carry_out(files, &mut walk, replay)?;
        let end = walk.end();
        let marked = decode_mark(bytes, &head.salt()).unwrap_or(FRAMES_AT);
        let later = heads_from(bytes, head.salt(), end.at + 1).map(|(_, head)| head.synced);
        if let Some(synced) = later.chain([marked]).find(|synced| *synced > end.at) {
            let text = format!(
                "a record is not as it was written; it is not the unfinished write of a crash, for \
                 all up to byte {synced} was on the disk before"
            );
            return Err(damaged(files, name, end.at, text));
        }
        let synced = walk.synced().max(marked);
        let written = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1);
        let note = (written > end.at).then(|| {
            format!(
                "{}: cut off {} bytes at byte {}: a write that was not finished, so nothing of it \
                 was acknowledged",
                files.describe(name),
                written - end.at,
                end.at
            )
        });
        let in_doubt = bytes[synced as usize..end.at as usize].to_vec();
        let is_clean = note.is_none();
        let newest = Newest { len, end, is_clean, in_doubt: (synced, in_doubt) };
        Ok((past, newest, note))
    }
}
