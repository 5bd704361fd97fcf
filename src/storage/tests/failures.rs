//! A disk that says no.

use std::io::ErrorKind;

use super::super::model::Op;
use super::crashes::{Ledger, goes_on, run};
use super::*;

fn begun() -> (SimFiles, Store<SimFiles>) {
    let files = SimFiles::new();
    let (mut store, _) = open(&files).unwrap();
    store.append(&[vote(1, 0)]).unwrap();
    store.sync().unwrap();
    (files, store)
}

/// Every call answers with the first error.
fn assert_stays_down(store: &mut Store<SimFiles>, first: &StorageError) {
    let record = append(1, vec![entry(1, b"more")]);
    for _ in 0..2 {
        let again = [
            store.sync().unwrap_err(),
            store.append(std::slice::from_ref(&record)).unwrap_err(),
            store.append(&[]).unwrap_err(),
            store.trim(Index(0)).unwrap_err(),
            store.mark().unwrap_err(),
        ];
        for error in again {
            let text = error.to_string();
            assert!(text.contains(&first.to_string()), "{text} for {first}");
        }
    }
}

/// Pitfall 56: a sync fails once, then would succeed: the log stays down.
#[test]
fn after_a_failed_sync_nothing_is_synced_any_more() {
    let (files, mut store) = begun();
    store.append(&[vote(2, 9)]).unwrap();
    files.fail_next(Op::Sync, ErrorKind::Other);
    let first = store.sync().unwrap_err();
    assert!(first.to_string().starts_with("cannot sync disk/log-1: "), "{first}");
    let operations = files.operations();
    assert_stays_down(&mut store, &first);
    assert_eq!(files.operations(), operations, "the disk is left alone");

    // All that the sync did not save is lost: what was acknowledged before is there.
    files.crash(&mut |_| 0);
    let (_, recovered) = open(&files).unwrap();
    assert_eq!(recovered.saved.hard, hard(1, 0));
}

/// Pitfall 56: the same for a write.
#[test]
fn after_a_failed_write_nothing_is_written_any_more() {
    let (files, mut store) = begun();
    files.fail_next(Op::Write, ErrorKind::Other);
    let first = store.append(&[vote(2, 9)]).unwrap_err();
    assert!(first.to_string().starts_with("cannot write disk/log-1: "), "{first}");
    assert_stays_down(&mut store, &first);
    drop(store);
    let (mut store, recovered) = open(&files).unwrap();
    assert_eq!(recovered.saved.hard, hard(1, 0));
    store.append(&[vote(2, 9)]).unwrap();
    store.sync().unwrap();
}

/// Pitfall 60: disk full. The error says so and what to do; when there is room again,
/// a start goes on with what was acknowledged.
#[test]
fn a_full_disk_is_told_and_gone_on_from() {
    let (files, mut store) = begun();
    files.set_room(Some(2 * SEGMENT + 300));
    let mut acknowledged = 0;
    let first = loop {
        let next = append(acknowledged + 1, vec![entry(1, &[7; 100])]);
        match store.append(&[next]).and_then(|()| store.sync()) {
            Ok(()) => acknowledged += 1,
            Err(error) => break error,
        }
    };
    assert!(acknowledged > 5, "{acknowledged} entries fit");
    let text = first.to_string();
    assert!(text.starts_with("cannot begin disk/log-3 (9216 bytes): "), "{text}");
    assert!(text.contains("make room"), "{text}");
    assert_stays_down(&mut store, &first);

    let again = open(&files).err().expect("it is still full").to_string();
    assert!(again.contains("make room"), "{again}");
    files.set_room(None);
    let (mut store, recovered) = open(&files).unwrap();
    let last = recovered.saved.log.last_index();
    assert!(last.0 == acknowledged || last.0 == acknowledged + 1, "{last}");
    store.append(&[append(last.0 + 1, vec![entry(1, b"and on")])]).unwrap();
    store.sync().unwrap();
}

/// A snapshot that does not fit leaves the log as it was.
#[test]
fn a_snapshot_that_finds_no_room_is_not_there_and_the_log_goes_on() {
    let (files, mut store) = begun();
    store.append(&[append(1, vec![entry(1, b"a"), entry(1, b"b")])]).unwrap();
    store.sync().unwrap();
    files.set_room(Some(SEGMENT + 200));
    let text = store.saver().save(&snapshot(Index(2), Term(1))).unwrap_err().to_string();
    assert!(text.starts_with("cannot save disk/snapshot-2-1 (") && text.contains("room"), "{text}");
    assert!(recover::list(&files).unwrap().asides.is_empty(), "its space is free again");
    store.append(&[append(3, vec![entry(1, b"c")])]).unwrap();
    store.sync().unwrap();
    files.set_room(None);
    store.saver().save(&snapshot(Index(3), Term(1))).unwrap();
    let (_, recovered) = open(&files).unwrap();
    assert_eq!(recovered.saved.snapshot, Some(snapshot(Index(3), Term(1))));
}

/// Pitfall 60: disk full at each operation of a run; and an error of another kind.
#[test]
fn each_operation_may_fail_and_a_start_goes_on() {
    let seed = 3;
    let whole = SimFiles::new();
    run(&whole, seed, &mut Ledger::default()).unwrap();
    for operation in 0..whole.operations() {
        for (kind, crashes) in
            [(ErrorKind::StorageFull, false), (ErrorKind::Other, false), (ErrorKind::Other, true)]
        {
            let files = SimFiles::new();
            files.fail_at(operation, kind);
            let mut ledger = Ledger::default();
            // What only gives space back may fail and be passed over.
            let _ = run(&files, seed, &mut ledger);
            let mut rng = Rng::new(operation);
            match crashes {
                true => files.crash(&mut |of| rng.between(0, of - 1)),
                false => files.restart(),
            }
            let when = format!("operation {operation} fails with {kind}");
            goes_on(&files, &ledger, &when, operation);
        }
    }
}
