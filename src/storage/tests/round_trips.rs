//! What was written comes back.

use proptest::prelude::*;

use super::*;

/// Writes the records, each in an append and a sync of its own.
fn write(store: &mut Store<SimFiles>, records: &[Record]) -> Twin {
    let mut twin = Twin::default();
    for record in records {
        store.append(std::slice::from_ref(record)).expect("there is a disk");
        store.sync().expect("there is a disk");
        twin.apply(record);
    }
    twin
}

fn assert_same(files: &SimFiles, twin: &Twin) -> Recovered {
    let (_, recovered) = open(files).expect("nothing is wrong");
    assert_eq!(twin.differs(&recovered.saved), None);
    recovered
}

#[test]
fn a_new_folder_begins_a_log_and_keeps_its_name() {
    let files = SimFiles::new();
    let (_, first) = open(&files).unwrap();
    assert_eq!(first.saved.incarnation, LOG);
    assert_eq!(Twin::default().differs(&first.saved), None);
    let second = Store::open_sized(files.clone(), NAME, Incarnation(77), SEGMENT).unwrap().1;
    assert_eq!(second.saved.incarnation, LOG, "a log keeps the name that it was begun with");
    assert!(first.notes.is_empty() && second.notes.is_empty());
}

#[test]
fn votes_entries_and_cuts_come_back() {
    let files = SimFiles::new();
    let (mut store, _) = open(&files).unwrap();
    let members = Payload::Protocol(Protocol::Members(Box::new(members())));
    let twin = write(
        &mut store,
        &[
            vote(1, 5),
            append(1, vec![Entry { term: Term(0), payload: members }]),
            append(2, vec![entry(1, b"one"), entry(1, b""), entry(1, b"three")]),
            vote(4, 0),
            append(3, vec![]), // only a cut
            append(3, vec![entry(4, b"other")]),
            append(
                2,
                vec![
                    entry(4, b"another"),
                    Entry { term: Term(4), payload: Payload::Protocol(Protocol::Empty) },
                ],
            ),
            vote(4, 7),
        ],
    );
    assert_eq!(twin.last_index(), Index(3));
    let notes = assert_same(&files, &twin).notes;
    assert!(notes.is_empty(), "{notes:?}");
}

#[test]
fn a_batch_is_many_records() {
    let files = SimFiles::new();
    let (mut store, _) = open(&files).unwrap();
    let mut maker = Maker::new(2, 30);
    let writes = files.operations();
    let batch: Vec<Record> = (0..10).map(|_| maker.next()).collect();
    assert!(batch.iter().all(|record| record.install.is_none()), "choose another seed");
    store.append(&batch).unwrap();
    assert_eq!(files.operations(), writes + 1, "one write");
    store.sync().unwrap();
    assert_same(&files, &maker.twin);
}

#[test]
fn a_record_that_is_longer_than_a_segment_has_one_of_its_own() {
    let files = SimFiles::new();
    let (mut store, _) = open(&files).unwrap();
    let long = vec![7; 5 * SEGMENT as usize];
    let records = [vote(1, 0), append(1, vec![entry(1, &long)]), append(2, vec![entry(1, b"x")])];
    let twin = write(&mut store, &records);
    assert_same(&files, &twin);
    assert_eq!(files.content("log-1").unwrap().len() % 8, 0);
    assert_eq!(files.content("log-1").unwrap().len(), FRAMES_AT as usize + 56, "given back");
}

#[test]
fn nothing_to_sync_costs_nothing() {
    let files = SimFiles::new();
    let (mut store, _) = open(&files).unwrap();
    store.append(&[vote(1, 0)]).unwrap();
    store.sync().unwrap();
    let operations = files.operations();
    store.sync().unwrap();
    store.append(&[]).unwrap();
    store.trim(Index(0)).unwrap();
    assert_eq!(files.operations(), operations);
}

#[test]
fn a_snapshot_from_the_leader_takes_the_place_of_the_log() {
    let files = SimFiles::new();
    let (mut store, _) = open(&files).unwrap();
    let install = |index: u64, term: u64| Record {
        install: Some(snapshot(Index(index), Term(term))),
        ..vote(term, 0)
    };
    let mut records = vec![vote(2, 0), append(1, vec![entry(2, b"a"), entry(2, b"b")])];
    records.push(install(50, 2));
    records.push(append(51, vec![entry(2, b"c")]));
    let twin = write(&mut store, &records);
    assert_eq!(twin.last_index(), Index(51));
    let saved = assert_same(&files, &twin).saved;
    assert_eq!(saved.log.base_index(), Index(50));
    assert_eq!(saved.snapshot, Some(snapshot(Index(50), Term(2))));

    // One in whose record entries follow, over a log that ends behind it.
    let (mut store, _) = open(&files).unwrap();
    store.append(&[append(52, vec![entry(2, b"d"); 9])]).unwrap();
    let both = Record {
        from: Some(Index(56)),
        entries: vec![entry(3, b"e"), entry(3, b"f")],
        ..install(55, 3)
    };
    store.append(std::slice::from_ref(&both)).unwrap();
    store.sync().unwrap();
    let mut twin = twin;
    twin.apply(&both);
    let saved = assert_same(&files, &twin).saved;
    assert_eq!((saved.log.base_index(), saved.log.last_index()), (Index(55), Index(57)));
}

/// The entries of the log are not lost with the segments, and the disk is freed.
#[test]
fn what_a_snapshot_covers_is_removed_by_whole_segments() {
    let files = SimFiles::new();
    let (mut store, _) = open(&files).unwrap();
    let mut records = vec![vote(1, 0)];
    records.extend((1..=200).map(|index| append(index, vec![entry(1, &[9; 40])])));
    let twin = write(&mut store, &records);
    let segments = || recover::list(&files).unwrap().segments;
    let before = segments().len();
    store.trim(Index(150)).unwrap();
    assert_eq!(segments().len(), before, "nothing goes before there is a snapshot");

    let saver = store.saver();
    saver.save(&snapshot(Index(100), Term(1))).unwrap();
    saver.save(&snapshot(Index(160), Term(1))).unwrap();
    store.trim(Index(150)).unwrap();
    assert!(segments().len() < before / 2, "{:?}", segments());
    assert_eq!(recover::list(&files).unwrap().snapshots, ["snapshot-160-1"]);
    let saved = assert_same(&files, &twin).saved;
    let base = saved.log.base_index();
    assert!(base <= Index(150) && base > Index(130), "begins after {base}");

    let (mut store, _) = open(&files).unwrap();
    store.trim(Index(u64::MAX)).unwrap();
    let base = assert_same(&files, &twin).saved.log.base_index();
    assert!(base <= Index(160), "the log begins after {base}, behind its snapshot");
}

/// A follower's log may have ended, when a segment was begun, with entries that were
/// cut off later: below the first segment that is left nothing is known of them.
#[test]
fn a_log_that_was_cut_below_where_its_first_segment_begins_comes_back() {
    let files = SimFiles::new();
    let (mut store, _) = open(&files).unwrap();
    let mut records = vec![vote(1, 0)];
    records.extend((1..=40).map(|index| append(index, vec![entry(1, &[1; 40])])));
    records.push(vote(2, 0));
    records.push(append(10, vec![entry(2, b"of another leader")]));
    let installed = Record { install: Some(snapshot(Index(30), Term(2))), ..vote(2, 0) };
    records.push(installed);
    records.push(append(31, vec![entry(2, b"after")]));
    let twin = write(&mut store, &records);
    store.trim(Index(0)).unwrap();
    let (node, first) = {
        let listing = recover::list(&files).unwrap();
        let node = recover::read_node(&files, None).unwrap();
        (node, listing.segments[0])
    };
    assert_eq!(node.first, first);
    assert!(first > 1, "what was before the install is gone");
    assert_same(&files, &twin);
}

#[test]
fn starts_in_a_loop_take_no_space() {
    let files = SimFiles::new();
    let mut maker = Maker::new(5, 20);
    for _ in 0..50 {
        let (mut store, recovered) = open(&files).unwrap();
        assert_eq!(maker.twin.differs(&recovered.saved), None);
        store.append(&[maker.next()]).unwrap();
        store.sync().unwrap();
    }
    let count = recover::list(&files).unwrap().segments.len();
    for _ in 0..50 {
        assert_same(&files, &maker.twin);
    }
    let after = recover::list(&files).unwrap().segments.len();
    assert!(after <= count + 1, "{count} segments, then {after}: an unused one is used again");
    for number in 1..after {
        let len = files.content(&format!("log-{number}")).unwrap().len() as u64;
        assert!(len < FRAMES_AT + SEGMENT / 8, "log-{number} has {len} bytes");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Write(u8),
    Sync,
    Commit,
    Snapshot,
    Trim(u8),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..6u8).prop_map(Step::Write),
        3 => Just(Step::Sync),
        2 => Just(Step::Commit),
        1 => Just(Step::Snapshot),
        1 => any::<u8>().prop_map(Step::Trim),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Any records that the core could write, against a list of entries.
    #[test]
    fn it_holds_what_the_naive_twin_holds(
        seed in any::<u64>(),
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        let files = SimFiles::new();
        let (mut store, _) = open(&files).unwrap();
        let mut maker = Maker::new(seed, 60);
        let (mut covered, mut trimmed) = (Index(0), Index(0));
        for step in steps.into_iter().chain([Step::Reopen]) {
            match step {
                Step::Write(count) => {
                    let records: Vec<Record> = (0..count).map(|_| maker.next()).collect();
                    store.append(&records).unwrap();
                    covered = covered.max(maker.twin.base.0);
                }
                Step::Sync => store.sync().unwrap(),
                Step::Commit => maker.commit(),
                Step::Snapshot => {
                    if let Some(snapshot) = maker.take_snapshot() {
                        store.sync().unwrap();
                        store.saver().save(&snapshot).unwrap();
                        covered = covered.max(snapshot.id.index);
                    }
                }
                Step::Trim(part) => {
                    trimmed = trimmed.max(Index(covered.0 * u64::from(part) / 255));
                    store.trim(trimmed).unwrap();
                }
                Step::Reopen => {
                    let (opened, recovered) = open(&files).unwrap();
                    store = opened;
                    let saved = recovered.saved;
                    prop_assert_eq!(maker.twin.differs(&saved), None);
                    prop_assert!(saved.log.base_index() <= trimmed.max(maker.twin.base.0));
                    let newest = saved.snapshot.map_or(Index(0), |snapshot| snapshot.id.index);
                    prop_assert_eq!(newest, covered);
                    prop_assert!(recovered.notes.is_empty(), "{:?}", recovered.notes);
                }
            }
        }
    }
}
