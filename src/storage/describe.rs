//! The files of a folder told to a person, line by line: for when a node does not
//! start and somebody has to find out why.
//!
//! Reads only, and tells as much as can be read, whatever is damaged. At the end
//! stands what a start of the node would say.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use crate::core::Hard;
use crate::core::membership::{Membership, Standing};
use crate::core::types::{Entry, Incarnation, Index, Payload, Protocol, Term, Verdict};

use super::error::StorageError;
use super::files::{Files, read_whole};
use super::format::{NodeFile, Origin, SegmentHead, SnapshotHead, Unsound, decode_mark};
use super::frames::{Frame, Walk, heads_from};
use super::names::{self, NODE};
use super::os::Onlooker;
use super::record::{Change, take_record};
use super::recover::{self, Found, Listing, list};
use super::snapshots;

/// Tells what a durable node's folder holds (`<data_dir>/<name>/`), line by line: each
/// file, each record with its offset, indexes, terms and votes, each snapshot, damage
/// and what to do about it. Says whether a node could start with it.
///
/// For people who look at a node that does not start; the text may change from version
/// to version. Reads only and takes no lock: the folder may be damaged, and of a node
/// that runs it shows some moment, which may look like a log that was cut off.
///
/// An error if the folder cannot be read, or `out` not written to.
///
/// ```no_run
/// let sound = kontiki::inspect("data/node0", &mut std::io::stdout())?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn inspect(dir: impl AsRef<Path>, out: &mut impl io::Write) -> io::Result<bool> {
    let dir = dir.as_ref();
    std::fs::read_dir(dir)?;
    describe_files(&Onlooker(dir.to_path_buf()), out)
}

pub(super) fn describe_files<F: Files>(files: &F, out: &mut dyn io::Write) -> io::Result<bool> {
    let listing = match list(files) {
        Ok(listing) => listing,
        Err(StorageError::Io { source, .. }) => return Err(source),
        Err(error) => return writeln!(out, "{error}").map(|()| false),
    };
    let incarnation = tell_node(files, &listing, out)?;
    for &number in &listing.segments {
        tell_segment(files, &names::segment(number), out)?;
    }
    for name in &listing.snapshots {
        tell_snapshot(files, name, incarnation, out)?;
    }
    for name in &listing.asides {
        writeln!(out, "{name}\n  was not written to its end: the next start removes it")?;
    }
    tell_start(files, &listing, out)
}

fn tell_unsound(unsound: Unsound, out: &mut dyn io::Write) -> io::Result<()> {
    match unsound {
        Unsound::Version(version) => {
            writeln!(out, "  of format version {version}, which this build does not know")
        }
        Unsound::Damaged(problem) => writeln!(out, "  DAMAGED: {problem}"),
    }
}

fn tell_node<F: Files>(
    files: &F,
    listing: &Listing,
    out: &mut dyn io::Write,
) -> io::Result<Option<Incarnation>> {
    if !listing.has_node {
        writeln!(out, "there is no file {NODE:?}")?;
        return Ok(None);
    }
    writeln!(out, "{NODE}")?;
    let bytes = match read_whole(files, NODE) {
        Ok(bytes) => bytes,
        Err(error) => return writeln!(out, "  {error}").map(|()| None),
    };
    match NodeFile::decode(&bytes) {
        Ok(NodeFile { incarnation, name, first, newest }) => {
            writeln!(out, "  {name:?}, log {incarnation}, segments {first} to {newest}")?;
            Ok(Some(incarnation))
        }
        Err(unsound) => tell_unsound(unsound, out).map(|()| None),
    }
}

fn hard_text(hard: &Hard) -> String {
    let mut text = format!("term {}", hard.term);
    match hard.voted_for {
        Some(candidate) => write!(text, ", vote for {candidate}"),
        None => write!(text, ", no vote"),
    }
    .and_then(|()| match hard.cluster {
        Some(cluster) => write!(text, ", cluster {cluster}"),
        None => write!(text, ", no cluster"),
    })
    .expect("a text takes anything");
    text
}

fn members_text(members: &Membership) -> String {
    let member_text = |member: &crate::core::membership::Member| {
        let kind = match member.standing {
            Standing::Voter => "voter",
            Standing::Joining => "learner that joins",
            Standing::Learner => "learner",
        };
        let log = match member.incarnation {
            Some(incarnation) => format!("log {incarnation}"),
            None => "not yet heard".to_string(),
        };
        format!("{} ({kind} at {}, {log})", member.name, member.address)
    };
    let members: Vec<String> = members.members.iter().map(member_text).collect();
    members.join(", ")
}

fn tell_segment<F: Files>(files: &F, name: &str, out: &mut dyn io::Write) -> io::Result<()> {
    let bytes = match read_whole(files, name) {
        Ok(bytes) => bytes,
        Err(error) => return writeln!(out, "{name}\n  {error}"),
    };
    writeln!(out, "{name} ({} bytes)", bytes.len())?;
    let head = match SegmentHead::decode(&bytes) {
        Ok(head) => head,
        Err(unsound) => return tell_unsound(unsound, out),
    };
    let SegmentHead { incarnation, number, len, before, checkpoint } = &head;
    writeln!(
        out,
        "  segment {number} of log {incarnation}, made with {len} bytes; before it: entry {} of \
         term {}, {}; the segment before ends at byte {}",
        checkpoint.last_index,
        checkpoint.last_term,
        hard_text(&checkpoint.hard),
        before.at
    )?;
    match decode_mark(&bytes, &head.salt()) {
        Some(synced) => writeln!(out, "  mark: all up to byte {synced} is on the disk")?,
        None => writeln!(out, "  no mark")?,
    }
    let mut walk = Walk::new(&bytes, head.salt());
    while let Some(frame) = walk.next() {
        tell_frame(&frame, out)?;
    }
    let end = walk.end().at;
    let written = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1);
    match written > end {
        true => writeln!(out, "  byte {end}: no sound record; not zero up to byte {written}")?,
        false => writeln!(out, "  byte {end}: the end; nothing is written behind it")?,
    }
    // What the walk does not reach is told all the same, for whoever wants to save it.
    for (at, head) in heads_from(&bytes, head.salt(), end + 1) {
        let (len, synced) = (head.payload_len, head.synced);
        writeln!(out, "  byte {at}: behind it a record of {len} bytes, synced up to {synced}")?;
    }
    Ok(())
}

fn tell_frame(frame: &Frame<'_>, out: &mut dyn io::Write) -> io::Result<()> {
    let Frame { at, head, payload } = frame;
    let (len, synced) = (payload.len(), head.synced);
    writeln!(out, "  byte {at}: record of {len} bytes, synced up to {synced}")?;
    let Ok(record) = take_record(payload) else {
        return writeln!(out, "    DAMAGED: it makes no sense");
    };
    if let Some(hard) = &record.hard {
        writeln!(out, "    {}", hard_text(hard))?;
    }
    if let Some(id) = &record.install {
        let (index, term, length) = (id.index, id.term, id.length);
        writeln!(
            out,
            "    the log is replaced by the snapshot at entry {index} of term {term} ({length} \
             bytes)"
        )?;
    }
    match record.change {
        Some(change) => tell_change(&change, out),
        None => Ok(()),
    }
}

fn tell_change(change: &Change, out: &mut dyn io::Write) -> io::Result<()> {
    let Change { prev_index, prev_term, entries } = change;
    writeln!(out, "    the log ends at entry {prev_index} of term {prev_term}, then")?;
    let mut index = *prev_index;
    for entry in entries {
        index = index.next();
        writeln!(out, "    {}", entry_text(index, entry))?;
    }
    Ok(())
}

fn entry_text(index: Index, entry: &Entry) -> String {
    let Entry { term, payload } = entry;
    let payload = match payload {
        Payload::Protocol(Protocol::Empty) => "empty".to_string(),
        Payload::Protocol(Protocol::Members(members)) => {
            format!("members of cluster {}: {}", members.cluster, members_text(members))
        }
        Payload::Client(bytes) => format!("{} bytes of a client", bytes.len()),
        Payload::Protocol(Protocol::Verdict(Verdict { life, up, .. })) => {
            format!("{} is {}", life.incarnation, if *up { "up" } else { "down" })
        }
    };
    format!("entry {index}, term {term}: {payload}")
}

fn tell_snapshot<F: Files>(
    files: &F,
    name: &str,
    incarnation: Option<Incarnation>,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    writeln!(out, "{name}")?;
    let bytes = match read_whole(files, name) {
        Ok(bytes) => bytes,
        Err(error) => return writeln!(out, "  {error}"),
    };
    let head = match SnapshotHead::decode(&bytes) {
        Ok(head) => head,
        Err(unsound) => return tell_unsound(unsound, out),
    };
    let origin = match head.origin {
        Origin::Taken => "taken",
        Origin::Received => "received from a leader",
    };
    let (index, term, length) = (head.id.index, head.id.term, head.id.length);
    writeln!(
        out,
        "  {origin} by log {}: up to entry {index} of term {term}, {length} bytes",
        head.incarnation
    )?;
    match snapshots::load(files, name, incarnation.unwrap_or(head.incarnation)) {
        Ok(kept) => {
            let (stated, members) = (kept.snapshot.members_index, &kept.snapshot.members);
            writeln!(out, "  members, stated at entry {stated}: {}", members_text(members))
        }
        Err(error) => writeln!(out, "  {error}"),
    }
}

/// What a start of the node would say.
fn tell_start<F: Files>(files: &F, listing: &Listing, out: &mut dyn io::Write) -> io::Result<bool> {
    let found = match recover::read(files, listing, None) {
        Ok(Some(found)) => found,
        Ok(None) => return writeln!(out, "a start begins a new log here").map(|()| true),
        Err(error) => return writeln!(out, "a start fails: {error}").map(|()| false),
    };
    let Found { saved, leftovers, notes, .. } = &found;
    let log = &saved.log;
    let entry = |index: Index, term: Term| format!("entry {index} of term {term}");
    writeln!(
        out,
        "a start finds {}, a log behind {} up to {}, {}",
        hard_text(&saved.hard),
        entry(log.base_index(), log.base_term()),
        entry(log.last_index(), log.last_term()),
        match &saved.snapshot {
            Some(snapshot) => {
                format!("the snapshot at {}", entry(snapshot.id.index, snapshot.id.term))
            }
            None => "no snapshot".to_string(),
        }
    )?;
    for leftover in leftovers {
        writeln!(out, "it removes {}: {}", leftover.name, leftover.why)?;
    }
    for note in notes {
        writeln!(out, "{note}")?;
    }
    Ok(true)
}
