//! What a person is told about a folder.

use super::super::describe::{describe_files, inspect};
use super::super::os::OsFiles;
use super::*;

/// What is told, and whether it says what a start would.
fn told(files: &SimFiles) -> String {
    let operations = files.operations();
    let mut out = Vec::new();
    let could_start = describe_files(files, &mut out).unwrap();
    assert_eq!(files.operations(), operations, "it only looks");
    let text = String::from_utf8(out).unwrap();
    assert_eq!(could_start, read(files).is_ok(), "{text}");
    text
}

fn folder() -> SimFiles {
    let files = SimFiles::new();
    let (mut store, _) = open(&files).unwrap();
    let founding =
        Entry { term: Term(0), payload: Payload::Protocol(Protocol::Members(Box::new(members()))) };
    store.append(&[vote(3, 7), append(1, vec![founding, entry(2, b"hello")])]).unwrap();
    store.sync().unwrap();
    let empty = Entry { term: Term(3), payload: Payload::Protocol(Protocol::Empty) };
    store.append(&[append(2, vec![empty])]).unwrap();
    store.sync().unwrap();
    store.mark().unwrap();
    store.saver().save(&snapshot(Index(2), Term(3))).unwrap();
    files
}

#[test]
fn all_that_the_files_hold_is_told() {
    let text = told(&folder());
    let lines = [
        "  \"node0\", log 000000000000feed, segments 1 to 1",
        "log-1 (9216 bytes)",
        "  mark: all up to byte 8408 is on the disk",
        "  byte 8192: record of 18 bytes, synced up to 8192",
        "    term 3, vote for 0000000000000007, cluster 0000000000000009",
        "    the log ends at entry 0 of term 0, then",
        "    entry 1, term 0: members of cluster 0000000000000009: node0 (voter at \
         127.0.0.1:5000, log 0000000000000001), node1 (voter at 127.0.0.1:5001, log \
         0000000000000002), node2 (learner at 127.0.0.1:5002, log 0000000000000003)",
        "    entry 2, term 2: 5 bytes of a client",
        "    the log ends at entry 1 of term 0, then",
        "    entry 2, term 3: empty",
        "  byte 8408: the end; nothing is written behind it",
        "snapshot-2-3",
        "a start finds term 3, vote for 0000000000000007, cluster 0000000000000009, a log behind \
         entry 0 of term 0 up to entry 2 of term 3, the snapshot at entry 2 of term 3",
    ];
    for line in lines {
        assert!(text.lines().any(|told| told == line), "no line {line:?} in\n{text}");
    }
}

/// Whatever is damaged, the rest is told, and what a start would say.
#[test]
fn a_damaged_folder_is_told_too() {
    let whole = folder();
    for name in ["node", "log-1", "snapshot-2-3"] {
        let content = whole.content(name).unwrap();
        for place in (0..content.len()).filter(|place| content[*place] != 0) {
            let files = whole.copy();
            files.damage(name, |bytes| bytes[place] ^= 0x55);
            let text = told(&files);
            let others = ["node", "log-1", "snapshot-2-3"].map(|name| text.contains(name));
            assert_eq!(others, [true; 3], "{text}");
            assert!(text.contains("\na start "), "{text}");
            if name == "log-1" && place >= 8192 {
                assert!(text.contains(": no sound record; not zero up to byte "), "{text}");
            }
        }
        let files = whole.copy();
        files.lose(name);
        assert!(told(&files).contains("\na start "));
    }
    assert_eq!(
        told(&SimFiles::new()),
        "there is no file \"node\"\na start begins a new log here\n"
    );
}

#[test]
fn a_running_nodes_folder_is_told_without_its_lock() {
    let dir = std::env::temp_dir().join(format!("kontiki-{}-told", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    let files = OsFiles::new(&dir).unwrap();
    let (mut store, _) = Store::open_sized(files, NAME, LOG, SEGMENT).unwrap();
    store.append(&[vote(3, 7)]).unwrap();
    let mut out = Vec::new();
    assert!(inspect(&dir, &mut out).unwrap());
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("vote for 0000000000000007"), "{text}");
    store.sync().unwrap();
    drop(store);
    std::fs::remove_dir_all(&dir).unwrap();
    assert!(inspect(&dir, &mut Vec::new()).is_err(), "no folder is no log");
}
