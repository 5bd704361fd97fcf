//! Folders: whose they are, what is in them that should not be, and real ones.

use std::fs;
use std::path::PathBuf;

use super::super::files::Files;
use super::super::format::{Origin, SNAPSHOT_HEAD_BYTES, SnapshotHead};
use super::super::names::{self, NODE};
use super::super::os::OsFiles;
use super::super::snapshots;
use super::*;
use crate::core::snapshot::SnapshotId;

/// A folder with a few segments, a snapshot taken at 20 of term 1, entries up to 40.
fn folder(log: Incarnation) -> SimFiles {
    let files = SimFiles::new();
    let opened = Store::open_sized(files.clone(), NAME, log, SEGMENT);
    let (mut store, _) = opened.unwrap();
    store.append(&[vote(1, 0)]).unwrap();
    for index in 1..=40 {
        store.append(&[append(index, vec![entry(1, &[3; 50])])]).unwrap();
        store.sync().unwrap();
    }
    store.saver().save(&snapshot(Index(20), Term(1))).unwrap();
    files
}

fn error(files: &SimFiles) -> String {
    let before = files.operations();
    let error = open(files).err().expect("something is wrong").to_string();
    assert_eq!(files.operations(), before, "nothing is changed: {error}");
    error
}

#[test]
fn another_nodes_folder_is_refused() {
    let files = folder(LOG);
    let error = Store::open(files.clone(), "node1", LOG, |_| Ok(())).err().unwrap().to_string();
    assert!(error.contains("is that of node \"node0\", not of \"node1\""), "{error}");
    assert!(error.contains("a directory of its own"), "{error}");
}

/// What the caller knows of the cluster is asked before anything is changed.
#[test]
fn a_folder_that_the_caller_refuses_stays_as_it_is() {
    let files = folder(LOG);
    files.put("snapshot-30-1.new", b"half");
    let before = files.operations();
    let refused = Store::open(files.clone(), NAME, LOG, |saved| {
        assert_eq!(saved.log.last_index(), Index(40));
        let (file, problem, remedy) = ("disk".into(), "it is theirs".into(), "ask".into());
        Err(StorageError::Unusable { file, problem, remedy })
    });
    assert!(refused.err().unwrap().to_string().contains("it is theirs"));
    assert_eq!(files.operations(), before);
    assert!(files.content("snapshot-30-1.new").is_some());
}

/// A file of another node's folder, or of a folder that was removed.
#[test]
fn files_of_another_log_are_refused() {
    let other = folder(Incarnation(0xbad));
    for name in ["log-1", "log-2", "snapshot-20-1"] {
        let files = folder(LOG);
        files.put(name, &other.content(name).unwrap());
        let error = error(&files);
        assert!(error.starts_with(&format!("disk/{name}: it belongs to the log 0000")), "{error}");
        assert!(error.contains("put the file of this directory back"), "{error}");
    }
    // With the other folder's `node` it is the others that are strangers.
    let files = folder(LOG);
    files.put(NODE, &other.content(NODE).unwrap());
    assert!(error(&files).contains("it belongs to the log 000000000000feed"));
}

/// A file of the same log from another time: a copy of the folder that went on by
/// itself.
#[test]
fn a_segment_from_a_copy_of_the_folder_is_refused() {
    let begun = || {
        let files = SimFiles::new();
        let (mut store, _) = open(&files).unwrap();
        store.append(&[vote(1, 0)]).unwrap();
        store.sync().unwrap();
        (files, store)
    };
    let ((files, mut store), (copy, mut other)) = (begun(), begun());
    for index in 1..=30 {
        store.append(&[append(index, vec![entry(1, &[3; 50])])]).unwrap();
        other.append(&[append(index, vec![entry(1, &[4; 50])])]).unwrap();
    }
    store.sync().unwrap();
    other.sync().unwrap();
    files.put("log-1", &copy.content("log-1").unwrap());
    assert!(error(&files).contains("log-2 goes on from another end"), "{}", error(&files));
}

#[test]
fn files_under_other_names_are_refused() {
    let files = folder(LOG);
    files.put("log-2", &files.content("log-1").unwrap());
    assert!(error(&files).contains("it is segment 1 of the log under another name"));

    let files = folder(LOG);
    files.put("snapshot-21-1", &files.content("snapshot-20-1").unwrap());
    assert!(error(&files).contains("the snapshot at entry 20 of term 1 under another name"));
}

/// A format of a later time is told from damage, so that nobody "repairs" it.
#[test]
fn another_version_of_the_format_is_refused() {
    for name in [NODE, "log-1", "snapshot-20-1"] {
        let files = folder(LOG);
        files.damage(name, |bytes| bytes[8] = 1);
        let error = error(&files);
        assert!(error.starts_with(&format!("disk/{name}: its format version is 1")), "{error}");
        assert!(error.contains("the version of the program that wrote it"), "{error}");
    }
}

/// The same of what a snapshot holds, in a file that is sound.
#[test]
fn another_version_of_a_snapshots_content_is_refused() {
    let files = folder(LOG);
    let incarnation = recover::read_node(&files, None).unwrap().incarnation;
    let content = files.content("snapshot-20-1").unwrap();
    let id = SnapshotHead::decode(&content).unwrap().id;
    let mut data = content[SNAPSHOT_HEAD_BYTES..].to_vec();
    data[0] = 99;
    let id = SnapshotId { checksum: crc32fast::hash(&data), ..id };
    let head = SnapshotHead { incarnation, origin: Origin::Taken, id }.encode();
    files.put("snapshot-20-1", &[head, data].concat());
    let error = error(&files);
    assert!(error.starts_with("disk/snapshot-20-1: its format version is 99"), "{error}");
}

/// The segments are those that `node` names, no more and no less.
#[test]
fn an_older_copy_of_the_nodes_file_is_noticed() {
    let files = SimFiles::new();
    let (mut store, _) = open(&files).unwrap();
    let old = files.content(NODE).unwrap();
    store.append(&[vote(1, 0)]).unwrap();
    for index in 1..=40 {
        store.append(&[append(index, vec![entry(1, &[3; 50])])]).unwrap();
    }
    store.sync().unwrap();
    files.put(NODE, &old);
    assert!(error(&files).contains("disk/log-2, byte 0: it is a segment of the log that the file"));
    for number in 3..20 {
        files.lose(&names::segment(number));
    }
    assert!(error(&files).contains("whose newest is 1: that file is older"), "{}", error(&files));
}

/// A segment is begun when the one before is named: two are never under way.
#[test]
fn a_segment_from_nowhere_is_refused() {
    let files = folder(LOG);
    let newest = recover::read_node(&files, None).unwrap().newest;
    let name = names::segment(newest + 2);
    files.put(&name, &[0; 100]);
    assert!(error(&files).starts_with(&format!("disk/{name}, byte 0: it is a segment of the log")));
}

/// What the log let go is in its snapshot, or lost.
#[test]
fn a_log_without_its_snapshot_is_refused() {
    let files = folder(LOG);
    let (mut store, _) = open(&files).unwrap();
    store.trim(Index(20)).unwrap();
    files.lose("snapshot-20-1");
    let text = error(&files);
    assert!(text.contains("and no snapshot covers what was before"), "{text}");
    // An older one does not help: what is between is gone.
    let older = snapshot(Index(5), Term(1));
    snapshots::save(&files, LOG, Origin::Taken, &older).unwrap();
    assert!(error(&files).contains("and no snapshot covers what was before"));
}

/// Pitfalls 37, 59: another thread has renamed its snapshot and not yet synced the
/// name when the one before goes.
#[test]
fn a_snapshot_goes_only_when_the_next_ones_name_is_durable() {
    let files = folder(LOG);
    let (mut store, _) = open(&files).unwrap();
    store.trim(Index(20)).unwrap();
    files.sync_dir().unwrap();
    let other = SimFiles::new();
    let next = snapshot(Index(30), Term(1));
    snapshots::save(&other, LOG, Origin::Taken, &next).unwrap();
    let bytes = other.content("snapshot-30-1").unwrap();
    snapshots::write_aside(&files, "snapshot-30-1.new", &[&bytes]).unwrap();
    files.rename("snapshot-30-1.new", "snapshot-30-1").unwrap();
    store.trim(Index(20)).unwrap();
    assert!(files.content("snapshot-20-1").is_none());
    for kept in 0..8 {
        let files = files.copy();
        let mut kept = (0..3).map(|bit| kept >> bit & 1);
        files.crash(&mut |_| kept.next().unwrap_or(0));
        let (_, recovered) = open(&files).unwrap();
        assert!(recovered.saved.snapshot.is_some(), "both are gone");
    }
}

/// What a snapshot was taken of is in the log, or the log has lost it.
#[test]
fn a_log_that_does_not_reach_its_snapshot_is_refused() {
    let files = folder(LOG);
    let (store, _) = open(&files).unwrap();
    store.saver().save(&snapshot(Index(41), Term(1))).unwrap();
    let text = error(&files);
    assert!(text.starts_with("disk/snapshot-41-1, byte 0: this snapshot was taken"), "{text}");
    assert!(text.contains("ends at entry 40: it has lost entries"), "{text}");

    let files = folder(LOG);
    let (store, _) = open(&files).unwrap();
    store.saver().save(&snapshot(Index(30), Term(2))).unwrap();
    assert!(error(&files).contains("has term 1 there: it has lost entries"));
}

/// Pitfall 37: the node died between a snapshot from the leader and its record.
#[test]
fn a_snapshot_that_was_never_installed_is_removed() {
    let files = folder(LOG);
    let received = snapshot(Index(90), Term(1));
    snapshots::save(&files, LOG, Origin::Received, &received).unwrap();
    let (_, recovered) = open(&files).unwrap();
    assert_eq!(recovered.saved.snapshot, Some(snapshot(Index(20), Term(1))));
    let [note] = &recovered.notes[..] else { panic!("{:?}", recovered.notes) };
    assert!(note.starts_with("disk/snapshot-90-1: removed: a snapshot from the leader"), "{note}");
    assert!(files.content("snapshot-90-1").is_none());
}

#[test]
fn what_a_crash_left_is_removed_and_told_and_strangers_are_left_alone() {
    let files = folder(LOG);
    let newest = recover::read_node(&files, None).unwrap().newest;
    let begun = names::segment(newest + 1);
    let leftovers = ["node.new", "snapshot-30-1.new", "snapshot-50-1.received.new", &begun];
    for name in leftovers {
        files.put(name, &[0; 100]);
    }
    files.put("README", b"do not touch");
    files.put("notes.new", b"nor this");
    let (_, recovered) = open(&files).unwrap();
    for name in &leftovers[..3] {
        assert!(files.content(name).is_none(), "{name}");
    }
    for name in leftovers {
        let start = format!("disk/{name}: removed: ");
        assert!(recovered.notes.iter().any(|note| note.starts_with(&start)), "{name}");
    }
    assert_eq!(recovered.notes.len(), 4, "{:?}", recovered.notes);
    assert!(files.content("README").is_some() && files.content("notes.new").is_some());
    assert!(open(&files).unwrap().1.notes.is_empty(), "told once");
}

/// A folder of the system's own, removed at the end.
struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str) -> Temporary {
        let path = std::env::temp_dir().join(format!("kontiki-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Temporary(path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Pitfall 61: two processes, or two nodes of one, in one folder.
#[test]
fn a_folder_is_one_nodes_at_a_time() {
    let temporary = Temporary::new("lock");
    let files = OsFiles::new(&temporary.0).unwrap();
    let (store, _) = Store::open_sized(files.clone(), NAME, LOG, SEGMENT).unwrap();
    let refused = || OsFiles::new(&temporary.0).err().map(|error| error.to_string());
    let text = refused().expect("it is taken");
    let path = temporary.0.display().to_string();
    assert!(text.starts_with(&format!("cannot lock the directory {path}: another proc")), "{text}");
    drop(files);
    let saver = store.saver();
    drop(store);
    assert!(refused().is_some(), "a snapshot may still be on its way");
    drop(saver);
    assert_eq!(refused(), None);
}

#[test]
fn real_files_hold_what_simulated_ones_do() {
    let temporary = Temporary::new("real");
    let dir = temporary.0.join("data").join("node0");
    let open = || {
        let files = OsFiles::new(&dir).unwrap();
        Store::open_sized(files, NAME, LOG, 64 * 1024).unwrap()
    };
    let mut maker = Maker::new(21, 900);
    let mut covered = Index(0);
    for _ in 0..4 {
        let (mut store, recovered) = open();
        assert_eq!(maker.twin.differs(&recovered.saved), None);
        let newest = recovered.saved.snapshot.map_or(Index(0), |snapshot| snapshot.id.index);
        assert_eq!(newest, covered.max(maker.twin.base.0));
        assert!(recovered.notes.is_empty(), "{:?}", recovered.notes);
        for _ in 0..60 {
            let records: Vec<Record> = (0..3).map(|_| maker.next()).collect();
            store.append(&records).unwrap();
            store.sync().unwrap();
        }
        maker.commit();
        if let Some(snapshot) = maker.take_snapshot() {
            store.saver().save(&snapshot).unwrap();
            covered = snapshot.id.index;
            store.trim(covered).unwrap();
        }
    }
    let (_, recovered) = open();
    assert_eq!(maker.twin.differs(&recovered.saved), None);
    assert!(fs::metadata(dir.join("log-1")).is_err(), "what is covered is gone");
    let newest = recover::read_node(&OsFiles::new(&dir).unwrap(), None).unwrap().newest;
    let len = fs::metadata(dir.join(names::segment(newest))).unwrap().len();
    assert_eq!(len, 64 * 1024, "its space is taken ahead");
}
