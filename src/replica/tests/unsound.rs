//! The form of a snapshot field by field, and what no field may say.

use super::super::Limits;
use super::snapshot::{refusal, snapshot, with_ledger};
use super::{Step, command, life, open, plain, step, with_floor, with_id};
use crate::encoding::cursor::put_varint;

/// Index, term and value of an answer, as they are written; the index is 0 where
/// the place is free.
type Answer = (u64, u64, u64);

const FREE: Answer = (0, 0, 0);

#[derive(Clone)]
struct Session {
    id: u64,
    life: (u64, u64),
    touched: u64,
    floor: u64,
    places: Vec<Answer>,
}

/// A snapshot as its fields.
#[derive(Clone)]
struct Form {
    version: u8,
    applied: u64,
    term: u64,
    client_entries: u64,
    unreadable: u64,
    newest: Option<(u64, u64, Vec<u8>, Vec<u8>)>,
    values: (u64, Vec<Vec<u8>>),
    sessions: Vec<Session>,
    ids: (u64, Vec<(Vec<u8>, u64, Answer)>),
    machine: (u8, Vec<u8>),
}

impl Form {
    fn bytes(&self) -> Vec<u8> {
        let mut out = vec![self.version];
        let numbers = |out: &mut Vec<u8>, numbers: &[u64]| {
            numbers.iter().for_each(|number| put_varint(out, *number));
        };
        let text = |out: &mut Vec<u8>, text: &[u8]| {
            put_varint(out, text.len() as u64);
            out.extend_from_slice(text);
        };
        let answer = |out: &mut Vec<u8>, (index, term, value): Answer| match index {
            0 => out.push(0),
            _ => numbers(out, &[index, term, value]),
        };
        numbers(&mut out, &[self.applied, self.term, self.client_entries, self.unreadable]);
        match &self.newest {
            Some((index, term, id, json)) => {
                numbers(&mut out, &[*index, *term]);
                text(&mut out, id);
                text(&mut out, json);
            }
            None => out.push(0),
        }
        numbers(&mut out, &[self.values.0, self.values.1.len() as u64]);
        self.values.1.iter().for_each(|json| text(&mut out, json));
        put_varint(&mut out, self.sessions.len() as u64);
        for Session { id, life, touched, floor, places } in &self.sessions {
            put_varint(&mut out, *id);
            out.extend_from_slice(&life.0.to_le_bytes());
            out.extend_from_slice(&life.1.to_le_bytes());
            numbers(&mut out, &[*touched, *floor, places.len() as u64]);
            places.iter().for_each(|place| answer(&mut out, *place));
        }
        numbers(&mut out, &[self.ids.0, self.ids.1.len() as u64]);
        for (id, at, first) in &self.ids.1 {
            text(&mut out, id);
            put_varint(&mut out, *at);
            answer(&mut out, *first);
        }
        out.push(self.machine.0);
        out.extend_from_slice(&self.machine.1);
        out
    }
}

fn limits() -> Limits {
    Limits {
        session_span: 5,
        sessions: 3,
        window: 16,
        replies: 12,
        ids_span: 6,
        kept_bytes: 4 * 32,
    }
}

/// What the log of `the_form_is_as_drawn` makes.
fn form() -> Form {
    let (first, null) = ((4, 2, 2), (8, 3, 0));
    let places = vec![FREE, FREE, first, null];
    Form {
        version: 1,
        applied: 9,
        term: 3,
        client_entries: 8,
        unreadable: 1,
        newest: Some((8, 3, b"b".to_vec(), b"0".to_vec())),
        values: (1, vec![b"\"xxxxx\"".to_vec(), vec![]]),
        sessions: vec![
            Session { id: 1, life: (1, 1), touched: 6, floor: 1, places: vec![first] },
            Session { id: 2, life: (1, 2), touched: 7, floor: 7, places },
        ],
        ids: (0, vec![(b"a".to_vec(), 3, first), (b"b".to_vec(), 7, null)]),
        machine: (1, (((4 + 5) * 31 + 5 + 3) * 31 + 8u64).to_le_bytes().to_vec()),
    }
}

#[test]
fn the_form_is_as_drawn() {
    let mut replica = with_ledger(life(1), &limits());
    let in_term_2 = [
        open(1),
        open(2),
        Step::Protocol,
        Step::Command { session: 2, seq: 9, floor: 7, id: Some("a".to_string()), json: 5 },
        command(1, 0, 3),
        Step::Renew { session: 1, floor: 1 },
        with_id(1, 1, "a", 9),
    ];
    for entry in &in_term_2 {
        step(&mut replica, 2, entry);
    }
    let null = Step::Command { session: 2, seq: 10, floor: 7, id: Some("b".to_string()), json: 0 };
    step(&mut replica, 3, &null);
    step(&mut replica, 3, &Step::Junk);
    assert_eq!(snapshot(&replica), form().bytes());

    let empty = [1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0];
    assert_eq!(snapshot(&plain()), empty);
}

type Change = fn(&mut Form);

/// Each field at the last value that is taken.
#[test]
fn what_a_log_can_make_is_taken() {
    let cases: [(&str, Change); 11] = [
        ("as it is", |_| {}),
        ("the last index", |form| form.applied = (1 << 62) - 1),
        ("an entry for each index", |form| form.applied = 8),
        ("the values fell to the bound", |form| form.values = (3, vec![])),
        ("as many values as entries", |form| form.values = (9, vec![])),
        ("values of as many bytes", |form| form.values.1[0] = vec![b'1'; 64]),
        ("a value was not kept", |form| form.ids.1[1].2.2 = 1),
        ("touched by the first entry", |form| {
            (form.client_entries, form.ids.1[1].1) = (5, 5);
            (form.sessions[0].touched, form.sessions[1].touched) = (1, 5);
        }),
        ("untouched for as long", |form| form.sessions[0].touched = 3),
        ("the highest number of all", |form| form.sessions[0].floor = u64::MAX),
        ("as many ids as entries", |form| form.ids.0 = 6),
    ];
    for (what, change) in cases {
        let mut form = form();
        change(&mut form);
        let mut replica = with_ledger(life(5), &limits());
        let taken = replica.restore(&form.bytes(), &mut Vec::new());
        assert!(taken.is_ok(), "{what}: {taken:?}");
        assert_eq!(snapshot(&replica), form.bytes(), "{what}");
        for seq in 1..12 {
            step(&mut replica, 3, &with_floor(2, seq + 7, seq));
        }
    }
}

/// Each case with what the refusal says.
fn check(cases: &[(&str, &str, Change)]) {
    for (what, expected, change) in cases {
        let mut form = form();
        change(&mut form);
        let text = refusal(&mut with_ledger(life(1), &limits()), &form.bytes());
        assert!(text.contains(expected), "{what}: {text}");
    }
}

#[test]
fn heads_that_no_log_makes_are_refused() {
    check(&[
        ("another version", "version", |form| form.version = 2),
        ("beyond all logs", "client entries", |form| form.applied = 1 << 62),
        ("more of clients than there are", "10 client", |form| form.client_entries = 10),
        ("more unreadable than of clients", "9 of them", |form| form.unreadable = 9),
        ("a newest that is yet to come", "the newest at 10", |form| {
            form.newest = Some((10, 3, vec![], b"0".to_vec()));
        }),
        ("a newest of a later term", "of term 4", |form| {
            form.newest = Some((8, 4, vec![], b"0".to_vec()));
        }),
        ("an id that is too long", "257 bytes of id", |form| {
            form.newest = Some((8, 3, vec![b'i'; 257], b"0".to_vec()));
        }),
        ("an id that is no text", "malformed", |form| {
            form.newest = Some((8, 3, vec![0xff], b"0".to_vec()));
        }),
        ("no JSON", "0 of JSON", |form| form.newest = Some((8, 3, vec![], vec![]))),
        ("JSON that is no text", "malformed", |form| {
            form.newest = Some((8, 3, vec![], vec![0xff]));
        }),
        ("neither a machine nor none", "malformed", |form| form.machine.0 = 2),
    ]);
    let empty = |term| [1, 0, term, 0, 0, 0, 1, 0, 0, 0, 0, 0];
    assert!(plain().restore(&empty(0), &mut Vec::new()).is_ok());
    assert!(refusal(&mut plain(), &empty(1)).contains("up to 0 of term 1"));
    let longer = [&empty(0)[..], &[0]].concat();
    assert!(refusal(&mut plain(), &longer).contains("trailing"));
}

#[test]
fn values_that_no_log_makes_are_refused() {
    check(&[
        ("number 0 is Null", "values 0", |form| form.values.0 = 0),
        ("more than there are entries", "values 8", |form| form.values.0 = 8),
        ("far more", "values", |form| form.values.0 = u64::MAX),
        ("none of them is held", "holds the first value, 3", |form| form.values.0 = 3),
        ("a value without bytes", "hold value 1 of 0 bytes", |form| form.values.1[0].clear()),
        ("bytes that nobody holds", "0 hold value 2 of 1 bytes", |form| {
            form.values.1[1] = b"7".to_vec();
        }),
        ("more bytes than are kept", "values of 129 bytes", |form| {
            form.values.1[0] = vec![b'1'; 65];
        }),
        ("more than are kept", "too_many", |form| form.values.1 = vec![vec![]; 5]),
        ("a value that was not there yet", "ValueRef(3) is not there", |form| {
            form.ids.1[1].2.2 = 4;
        }),
        ("one that never will be", "is not there", |form| form.ids.1[1].2.2 = u64::MAX),
    ]);
}

#[test]
fn sessions_that_no_log_makes_are_refused() {
    check(&[
        ("opened before the log", "session 0", |form| form.sessions[0].id = 0),
        ("out of order", "behind 2", |form| form.sessions.swap(0, 1)),
        ("twice the same", "behind 1", |form| form.sessions[1].id = 1),
        ("yet to be opened", "session 10", |form| form.sessions[1].id = 10),
        ("of no log", "session 1", |form| form.sessions[0].life.0 = 0),
        ("of no run", "session 1", |form| form.sessions[0].life.1 = 0),
        ("twice of one life", "behind 1", |form| form.sessions[0].life.1 = 2),
        ("never touched", "touched by 0 of 5", |form| {
            (form.client_entries, form.ids.1[1].1) = (5, 5);
            (form.sessions[0].touched, form.sessions[1].touched) = (0, 5);
        }),
        ("yet to be touched", "touched by 9", |form| form.sessions[0].touched = 9),
        ("untouched for too long", "touched by 2", |form| form.sessions[0].touched = 2),
        ("numbers beyond all", "4 on", |form| form.sessions[1].floor = u64::MAX - 2),
        ("a ring that ends free", "ends free", |form| form.sessions[1].places.push(FREE)),
        ("a long ring", "too_many", |form| form.sessions[1].places = vec![(4, 2, 2); 17]),
        ("too many", "too_many", |form| {
            for id in 3..5 {
                let life = (2, id);
                form.sessions.push(Session { id, life, ..form.sessions[0].clone() });
            }
        }),
        ("too many places together", "25 places", |form| {
            form.sessions[0].places = vec![(4, 2, 2); 12];
            form.sessions[1].places = vec![(4, 2, 2); 13];
        }),
        ("a reply of nothing that was applied", "an answer of 9", |form| {
            form.sessions[1].places[3].0 = 9;
        }),
        ("a reply of a later term", "in term 4", |form| form.sessions[1].places[3].1 = 4),
        ("replies without a command", "the newest is (0, 0)", |form| form.newest = None),
    ]);
}

#[test]
fn ids_that_no_log_makes_are_refused() {
    check(&[
        ("more than there are entries", "ids 7", |form| form.ids.0 = 7),
        ("far more", "ids", |form| form.ids.0 = u64::MAX),
        ("an empty id", "the id \"\"", |form| form.ids.1[0].0.clear()),
        ("a long id", "the id \"iii", |form| form.ids.1[0].0 = vec![b'i'; 257]),
        ("an id that is no text", "malformed", |form| form.ids.1[0].0 = vec![0xff]),
        ("twice the same", "the id \"a\" twice", |form| form.ids.1[1].0 = b"a".to_vec()),
        ("two of one entry", "the id \"b\"", |form| form.ids.1[1].1 = 3),
        ("two at one index", "the id \"b\"", |form| {
            form.ids.1[1] = (b"b".to_vec(), 4, (4, 2, 2));
        }),
        ("more entries than indexes", "the id \"a\"", |form| form.ids.1[0].1 = 5),
        ("forgotten long ago", "the id \"a\"", |form| form.ids.1[0].1 = 2),
        ("yet to come", "the id \"b\"", |form| {
            form.applied = 20;
            form.newest = Some((20, 3, vec![], b"0".to_vec()));
            form.ids.1[1] = (b"b".to_vec(), 9, (20, 3, 0));
        }),
        ("of no command", "malformed", |form| form.ids.1[1].2 = FREE),
        ("too many", "too_many", |form| {
            form.ids.1 = (1..8).map(|at| (vec![b'a' + at as u8], at, (at, 2, 0))).collect();
        }),
    ]);
}
