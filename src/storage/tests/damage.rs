//! Every way in which one place of the files can change after all was synced: what is
//! found is exactly what was acknowledged, or an error.

use super::super::format::{Salt, decode_mark};
use super::*;

/// Longer than in the other tests: much of the log stands in the newest one too.
const SEGMENT_HERE: u64 = FRAMES_AT + 6 * 1024;

/// A log of 300 records, the snapshots that go with it, and what it holds.
fn log_of_300() -> (SimFiles, Twin) {
    let files = SimFiles::new();
    let opened = Store::open_sized(files.clone(), NAME, LOG, SEGMENT_HERE);
    let (mut store, _) = opened.unwrap();
    let mut maker = Maker::new(12, 12);
    maker.entries = 2;
    for number in 1..=300 {
        // The end of the log is no snapshot.
        maker.installs = if number < 50 { 4 } else { 0 };
        store.append(&[maker.next()]).unwrap();
        if maker.chance(60) || number == 300 {
            store.sync().unwrap();
            store.mark().unwrap();
        }
        if number % 10 == 0 {
            maker.commit();
        }
        if number % 150 == 75 {
            store.sync().unwrap();
            let taken = maker.take_snapshot().expect("something is committed");
            store.saver().save(&taken).unwrap();
        }
    }
    (files, maker.twin)
}

/// Does it to each of these places, in as many threads as there are processors: each
/// has a copy of the files.
fn each_place(files: &SimFiles, places: &[usize], act: impl Fn(&SimFiles, usize) + Sync) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for part in places.chunks(places.len().div_ceil(threads).max(1)) {
            let (files, act) = (files.copy(), &act);
            scope.spawn(move || part.iter().for_each(|place| act(&files, *place)));
        }
    });
}

/// Of a damaged folder: an error, or what was acknowledged.
fn assert_noticed(files: &SimFiles, twin: &Twin, what: impl Fn() -> String) {
    let differs = match read(files) {
        Err(StorageError::Io { doing, source }) => Some(format!("cannot {doing}: {source}")),
        Err(_) => None,
        Ok(None) => Some("nothing is there".to_string()),
        Ok(Some(saved)) => twin.differs(&saved),
    };
    assert_eq!(differs, None, "{}", what());
}

fn names(files: &SimFiles) -> Vec<String> {
    let listing = recover::list(files).unwrap();
    let segments = listing.segments.iter().map(|number| format!("log-{number}"));
    segments.chain(listing.snapshots.clone()).chain(["node".to_string()]).collect()
}

/// The places of a file: all that were written to, and of the others one in a
/// hundred.
fn places(bytes: &[u8]) -> Vec<usize> {
    let block = |place: usize| &bytes[place / 64 * 64..bytes.len().min(place / 64 * 64 + 64)];
    let written = |place: usize| block(place).iter().any(|byte| *byte != 0);
    (0..bytes.len()).filter(|place| written(*place) || place % 101 == 0).collect()
}

fn end_of_written(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

#[test]
fn the_log_of_these_tests_is_as_they_need_it() {
    let (files, twin) = log_of_300();
    let listing = recover::list(&files).unwrap();
    assert!(listing.segments.len() >= 2, "{:?}", listing.segments);
    assert!(!listing.snapshots.is_empty());
    let places: usize =
        names(&files).iter().map(|name| places(&files.content(name).unwrap()).len()).sum();
    assert!((12_000..30_000).contains(&places), "{places} bytes");
    assert!(twin.entries.len() > 50, "{} entries", twin.entries.len());
    assert_noticed(&files, &twin, || "undamaged".to_string());
}

/// Pitfall 57: flip every bit of a small log.
#[test]
fn every_flipped_bit_is_harmless_or_reported() {
    let (files, twin) = log_of_300();
    for name in names(&files) {
        each_place(&files, &places(&files.content(&name).unwrap()), |files, place| {
            for bit in 0..8 {
                files.damage(&name, |bytes| bytes[place] ^= 1 << bit);
                assert_noticed(files, &twin, || format!("bit {bit} of byte {place} of {name}"));
                files.damage(&name, |bytes| bytes[place] ^= 1 << bit);
            }
        });
    }
}

/// Pitfall 57: zero every byte, or make it another.
#[test]
fn every_lost_byte_is_harmless_or_reported() {
    let (files, twin) = log_of_300();
    for name in names(&files) {
        let content = files.content(&name).unwrap();
        each_place(&files, &places(&content), |files, place| {
            for other in [0, 0xff] {
                files.damage(&name, |bytes| bytes[place] = other);
                assert_noticed(files, &twin, || format!("byte {place} of {name} is {other}"));
                files.damage(&name, |bytes| bytes[place] = content[place]);
            }
        });
    }
}

/// Pitfall 57: cut the file at every length. And with zeros behind the cut, as a
/// repair may leave it.
#[test]
fn every_cut_is_harmless_or_reported() {
    let (files, twin) = log_of_300();
    for name in names(&files) {
        let content = files.content(&name).unwrap();
        each_place(&files, &places(&content), |files, len| {
            files.damage(&name, |bytes| bytes.truncate(len));
            assert_noticed(files, &twin, || format!("{name} cut to {len} bytes"));
            files.damage(&name, |bytes| bytes.resize(content.len(), 0));
            // Of the mark nothing may be left if all the records are gone.
            if len >= FRAMES_AT as usize || !name.starts_with("log-") {
                assert_noticed(files, &twin, || format!("{name} is zero from {len} on"));
            }
            files.damage(&name, |bytes| bytes.clone_from(&content));
        });
    }
}

/// Stretches of the file that are lost, as a disk loses them.
#[test]
fn every_lost_stretch_is_harmless_or_reported() {
    let (files, twin) = log_of_300();
    for name in names(&files) {
        let content = files.content(&name).unwrap();
        let end = end_of_written(&content);
        for len in [16, 512, 4096] {
            let starts: Vec<usize> = (0..end).step_by(len).collect();
            each_place(&files, &starts, |files, start| {
                for lost in [0, 0xff] {
                    let end = content.len().min(start + len);
                    files.damage(&name, |bytes| bytes[start..end].fill(lost));
                    assert_noticed(files, &twin, || format!("{name} lost {start} to {end}"));
                }
                files.damage(&name, |bytes| bytes.clone_from(&content));
            });
        }
    }
}

/// Each file that is missing is missed.
#[test]
fn every_lost_file_is_reported() {
    let (files, twin) = log_of_300();
    for name in names(&files) {
        let content = files.content(&name).unwrap();
        files.lose(&name);
        assert_noticed(&files, &twin, || format!("{name} is lost"));
        if !name.starts_with("snapshot") {
            let text = read(&files).err().map(|error| error.to_string());
            assert!(text.is_some_and(|text| text.contains("missing")), "{name}");
        }
        files.put(&name, &content);
    }
    assert_noticed(&files, &twin, || "all files back".to_string());
}

/// A record that only changes the vote takes so many.
const VOTE_BYTES: usize = 56;

/// What an operator reads: which file, where in it, what is wrong, what to do.
#[test]
fn damage_names_file_and_place_and_what_to_do() {
    let files = SimFiles::new();
    let (mut store, _) = open(&files).unwrap();
    for index in 0..3 {
        store.append(&[vote(index + 1, 0)]).unwrap();
        store.sync().unwrap();
    }
    store.mark().unwrap();
    let second = FRAMES_AT as usize + VOTE_BYTES;
    files.damage("log-1", |bytes| bytes[second + 40] ^= 1);
    let error = read(&files).unwrap_err();
    let StorageError::Damaged { file, offset, problem, remedy } = &error else {
        panic!("{error}");
    };
    assert_eq!((file.as_str(), *offset), ("disk/log-1", second as u64));
    let third = second + VOTE_BYTES;
    assert!(problem.contains(&format!("all up to byte {third} was on the disk")), "{problem}");
    assert!(remedy.contains("restore the file") && remedy.contains("directory disk"), "{remedy}");
    let text = error.to_string();
    assert!(text.starts_with(&format!("disk/log-1, byte {second}: ")), "{text}");
}

/// The same in a segment that is finished, where nothing may be torn.
#[test]
fn damage_in_a_finished_segment_is_never_taken_for_a_torn_write() {
    let files = SimFiles::new();
    let (mut store, _) = open(&files).unwrap();
    for term in 1..=30 {
        store.append(&[vote(term, 0)]).unwrap();
    }
    store.sync().unwrap();
    assert_eq!(recover::list(&files).unwrap().segments, [1, 2]);
    let content = files.content("log-1").unwrap();
    let last = content.len() - VOTE_BYTES;
    files.damage("log-1", |bytes| bytes[last..].fill(0));
    let text = read(&files).unwrap_err().to_string();
    let start = format!("disk/log-1, byte {last}: a record is not as it was written");
    assert!(text.starts_with(&start), "{text}");
    files.damage("log-1", |bytes| bytes.truncate(last));
    let text = read(&files).unwrap_err().to_string();
    let goes_on = format!("the segment goes on to byte {}", content.len());
    assert!(text.starts_with("disk/log-1, byte ") && text.contains(&goes_on), "{text}");
}

/// The last write of a crash is cut off and told, what was synced before stays.
#[test]
fn a_torn_tail_is_cut_off_and_told() {
    let files = SimFiles::new();
    let (mut store, _) = open(&files).unwrap();
    store.append(&[vote(1, 0)]).unwrap();
    store.sync().unwrap();
    let torn = FRAMES_AT as usize + VOTE_BYTES;
    store.append(&[vote(2, 0), vote(3, 0)]).unwrap();
    files.damage("log-1", |bytes| bytes[torn + 3] ^= 1);
    let (mut store, recovered) = open(&files).unwrap();
    assert_eq!(recovered.saved.hard, hard(1, 0));
    let [note] = &recovered.notes[..] else { panic!("{:?}", recovered.notes) };
    let place = format!(" at byte {torn}");
    assert!(note.contains("disk/log-1: cut off ") && note.contains(&place), "{note}");
    store.append(&[vote(4, 0)]).unwrap();
    store.sync().unwrap();

    let (_, recovered) = open(&files).unwrap();
    assert_eq!(recovered.saved.hard, hard(4, 0));
    assert!(recovered.notes.is_empty(), "told once: {:?}", recovered.notes);
}

/// Nothing is written over what a crash left, not even where no record was whole: what
/// stands behind would seem to follow.
#[test]
fn what_was_torn_never_comes_back() {
    let files = SimFiles::new();
    let (mut store, _) = open(&files).unwrap();
    store.append(&[vote(1, 0), vote(9, 9)]).unwrap();
    files.damage("log-1", |bytes| bytes[FRAMES_AT as usize] = 0);
    let (mut store, recovered) = open(&files).unwrap();
    assert_eq!((recovered.saved.hard, recovered.notes.len()), (Hard::default(), 1));
    store.append(&[vote(2, 0)]).unwrap();
    store.sync().unwrap();
    assert_eq!(read(&files).unwrap().unwrap().hard, hard(2, 0));
}

/// Power was lost before the mark was written: then the frames tell, and only of the last
/// batch nobody knows whether it was ever synced.
#[test]
fn without_the_mark_each_frame_speaks_for_those_before_it() {
    let files = SimFiles::new();
    let (mut store, _) = open(&files).unwrap();
    for term in 1..=6 {
        store.append(&[vote(term, 0)]).unwrap();
        store.sync().unwrap();
    }
    assert!(store.lacks_mark());
    assert_eq!(read(&files).unwrap().unwrap().hard, hard(6, 0));
    let last = FRAMES_AT as usize + 5 * VOTE_BYTES;
    for place in FRAMES_AT as usize..last + VOTE_BYTES {
        files.damage("log-1", |bytes| bytes[place] ^= 4);
        match read(&files) {
            Err(StorageError::Damaged { .. }) => assert!(place < last, "byte {place}"),
            Err(error) => panic!("byte {place}: {error}"),
            Ok(saved) => {
                assert!(place >= last, "byte {place} is damaged and nobody says so");
                assert_eq!(saved.unwrap().hard, hard(5, 0));
            }
        }
        files.damage("log-1", |bytes| bytes[place] ^= 4);
    }
}

/// Batches that follow each other have one place of the disk to write: what says that the
/// last one is durable is written when it is quiet, once.
#[test]
fn the_mark_is_written_when_it_is_asked_for_and_once() {
    let files = SimFiles::new();
    let (mut store, _) = open(&files).unwrap();
    assert!(!store.lacks_mark(), "there is nothing");
    let before = files.operations();
    for term in 1..=3 {
        store.append(&[vote(term, 0)]).unwrap();
        store.sync().unwrap();
        assert!(store.lacks_mark());
    }
    assert_eq!(files.operations() - before, 6, "a write and a sync each");
    let mark = |files: &SimFiles| {
        decode_mark(&files.content("log-1").unwrap(), &Salt::new(LOG, 1)).map(|at| at as usize)
    };
    assert_eq!(mark(&files), None);
    for _ in 0..2 {
        store.mark().unwrap();
        assert!(!store.lacks_mark());
        assert_eq!(mark(&files), Some(FRAMES_AT as usize + 3 * VOTE_BYTES));
        assert_eq!(files.operations() - before, 7);
    }
    store.append(&[vote(4, 0)]).unwrap();
    assert!(!store.lacks_mark(), "what is not durable has none");
    assert_eq!(read(&files).unwrap().unwrap().hard, hard(4, 0));
}
