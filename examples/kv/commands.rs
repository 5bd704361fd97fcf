//! What each command does, and how it answers: as Redis has it, to the letter of its errors.
//!
//! All nodes carry out the same commands, so nothing here may depend on anything but the board.

use std::collections::BTreeSet;

use redis_protocol::resp2::types::OwnedFrame as Frame;

use crate::resp::Words;
use crate::store::Board;

/// Who answers a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The node that was asked, by itself.
    Here,
    /// The board, as all have agreed on it.
    Read,
    /// The same, and it may change.
    Write,
}

/// A command's name; how many words it has, the name included (so many at least, if negative);
/// and which of them are keys: first, last, step.
pub const COMMANDS: [(&str, i64, Kind, [i64; 3]); 22] = [
    ("append", 3, Kind::Write, [1, 1, 1]),
    ("client", -2, Kind::Here, [0, 0, 0]),
    ("command", -1, Kind::Here, [0, 0, 0]),
    ("config", -2, Kind::Here, [0, 0, 0]),
    ("dbsize", 1, Kind::Read, [0, 0, 0]),
    ("del", -2, Kind::Write, [1, -1, 1]),
    ("discard", 1, Kind::Here, [0, 0, 0]),
    ("echo", 2, Kind::Here, [0, 0, 0]),
    ("exec", 1, Kind::Here, [0, 0, 0]),
    ("exists", -2, Kind::Read, [1, -1, 1]),
    ("get", 2, Kind::Read, [1, 1, 1]),
    ("getset", 3, Kind::Write, [1, 1, 1]),
    ("hello", -1, Kind::Here, [0, 0, 0]),
    ("incr", 2, Kind::Write, [1, 1, 1]),
    ("incrby", 3, Kind::Write, [1, 1, 1]),
    ("info", -1, Kind::Here, [0, 0, 0]),
    ("keys", 2, Kind::Read, [0, 0, 0]),
    ("mget", -2, Kind::Read, [1, -1, 1]),
    ("mset", -3, Kind::Write, [1, -1, 2]),
    ("multi", 1, Kind::Here, [0, 0, 0]),
    ("ping", -1, Kind::Here, [0, 0, 0]),
    ("set", -3, Kind::Write, [1, 1, 1]),
];

/// No value grows beyond this.
const VALUE_BYTES: usize = 512 << 20;

/// Who answers this command, or what is wrong with it: that much can be said before
/// anybody is asked.
pub fn kind(words: &Words) -> Result<Kind, Frame> {
    let mut all = COMMANDS.iter();
    let Some((_, arity, kind, _)) =
        all.find(|(name, ..)| words[0].eq_ignore_ascii_case(name.as_bytes()))
    else {
        return Err(unknown(words));
    };
    let count = words.len() as i64;
    if *arity == count || *arity < 0 && count >= -arity {
        return Ok(*kind);
    }
    Err(wrong_number(&words[0]))
}

/// Carries out a command of either kind on the board.
pub fn write(board: &mut dyn Board, words: &Words) -> Frame {
    let Some((name, arguments)) = words.split_first() else {
        return error("ERR no command");
    };
    match (name.to_ascii_uppercase().as_slice(), arguments) {
        (b"SET", [key, value, options @ ..]) => set(board, key, value, options),
        (b"GETSET", [key, value]) => {
            let old = board.get(key);
            board.set(key, value);
            bulk(old)
        }
        (b"MSET", pairs) if pairs.len() % 2 == 0 => {
            pairs.chunks(2).for_each(|pair| board.set(&pair[0], &pair[1]));
            ok()
        }
        (b"DEL", keys) => count(keys.iter().filter(|key| board.remove(key)).count()),
        (b"INCR", [key]) => add(board, key, Some(1)),
        (b"INCRBY", [key, by]) => add(board, key, integer(by)),
        (b"APPEND", [key, more]) => {
            let mut value = board.get(key).unwrap_or_default();
            if value.len() + more.len() > VALUE_BYTES {
                return error("ERR string exceeds maximum allowed size (proto-max-bulk-len)");
            }
            value.extend(more);
            board.set(key, &value);
            count(value.len())
        }
        _ => read(board, words),
    }
}

/// Carries out a command that changes nothing.
pub fn read(board: &dyn Board, words: &Words) -> Frame {
    let Some((name, arguments)) = words.split_first() else {
        return error("ERR no command");
    };
    match (name.to_ascii_uppercase().as_slice(), arguments) {
        (b"GET", [key]) => bulk(board.get(key)),
        (b"MGET", keys) => Frame::Array(keys.iter().map(|key| bulk(board.get(key))).collect()),
        (b"EXISTS", keys) => count(keys.iter().filter(|key| board.get(key).is_some()).count()),
        (b"DBSIZE", []) => count(board.len()),
        (b"KEYS", [pattern]) => {
            let mut found = Vec::new();
            board.each(&mut |key, _| {
                if matches(pattern, key) {
                    found.push(Frame::BulkString(key.to_vec()));
                }
            });
            Frame::Array(found)
        }
        _ => wrong_number(name),
    }
}

fn set(board: &mut dyn Board, key: &[u8], value: &[u8], options: &[Vec<u8>]) -> Frame {
    let options: BTreeSet<Vec<u8>> = options.iter().map(|word| word.to_ascii_uppercase()).collect();
    let has = |option: &[u8]| options.contains(option);
    let known = |option: &Vec<u8>| [&b"NX"[..], b"XX", b"GET"].contains(&option.as_slice());
    if !options.iter().all(known) || has(b"NX") && has(b"XX") {
        return error("ERR syntax error");
    }
    let old = board.get(key);
    let refused = if old.is_some() { has(b"NX") } else { has(b"XX") };
    if !refused {
        board.set(key, value);
    }
    match (has(b"GET"), refused) {
        (true, _) => bulk(old),
        (false, true) => Frame::Null,
        (false, false) => ok(),
    }
}

fn add(board: &mut dyn Board, key: &[u8], by: Option<i64>) -> Frame {
    let value = board.get(key).map_or(Some(0), |value| integer(&value));
    let (Some(value), Some(by)) = (value, by) else {
        return error("ERR value is not an integer or out of range");
    };
    let Some(sum) = value.checked_add(by) else {
        return error("ERR increment or decrement would overflow");
    };
    board.set(key, sum.to_string().as_bytes());
    Frame::Integer(sum)
}

/// A number as Redis would write it, and no other way: no `+1`, no `01`, no space.
fn integer(bytes: &[u8]) -> Option<i64> {
    let text = str::from_utf8(bytes).ok()?;
    text.parse().ok().filter(|number: &i64| number.to_string() == text)
}

/// Whether a key is like this pattern: `*`, `?`, `[abc]`, `[a-z]`, `[^a]`, and `\` before
/// a character that is meant as it is. What follows a `*` is tried at each later place in
/// turn; only the last `*` has to be gone back to, so no pattern takes for ever.
fn matches(pattern: &[u8], key: &[u8]) -> bool {
    let (mut p, mut k, mut star) = (0, 0, None);
    while k < key.len() {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            star = Some((p, k));
        } else if let Some(length) = one(&pattern[p..], key[k]) {
            (p, k) = (p + length, k + 1);
        } else if let Some((after, from)) = star {
            (p, k) = (after, from + 1);
            star = Some((p, k));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// How much of the pattern's beginning stands for this one byte, if it does.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match *pattern {
        [b'?', ..] => Some(1),
        [b'[', b'^', ref class @ ..] => set_of(class, byte, false).map(|length| length + 2),
        [b'[', ref class @ ..] => set_of(class, byte, true).map(|length| length + 1),
        [b'\\', literal, ..] => (literal == byte).then_some(2),
        [literal, ..] => (literal == byte).then_some(1),
        [] => None,
    }
}

/// The same of what is between brackets, if finding the byte there comes out as `wanted`. One
/// that is not closed goes on to the end.
fn set_of(class: &[u8], byte: u8, wanted: bool) -> Option<usize> {
    let (mut at, mut found) = (0, false);
    loop {
        let (hit, length) = match class[at..] {
            [] => break,
            [b']', ..] => {
                at += 1;
                break;
            }
            [b'\\', literal, ..] => (literal == byte, 2),
            [from, b'-', to, ..] => ((from.min(to)..=from.max(to)).contains(&byte), 3),
            [literal, ..] => (literal == byte, 1),
        };
        (at, found) = (at + length, found || hit);
    }
    (found == wanted).then_some(at)
}

pub fn ok() -> Frame {
    Frame::SimpleString(b"OK".to_vec())
}

pub fn bulk(value: Option<Vec<u8>>) -> Frame {
    value.map_or(Frame::Null, Frame::BulkString)
}

pub fn count(number: usize) -> Frame {
    Frame::Integer(number as i64)
}

/// An error is one line, whatever it speaks of.
pub fn error(text: &str) -> Frame {
    Frame::Error(text.replace(['\r', '\n'], " "))
}

pub fn wrong_number(name: &[u8]) -> Frame {
    let name = String::from_utf8_lossy(name).to_lowercase();
    error(&format!("ERR wrong number of arguments for '{name}' command"))
}

/// A command of several, and none of these.
pub fn unknown_part(words: &Words) -> Frame {
    let part = String::from_utf8_lossy(&words[1]);
    let name = String::from_utf8_lossy(&words[0]).to_uppercase();
    error(&format!("ERR unknown subcommand '{part}'. Try {name} HELP."))
}

/// Names a command that there is not, and the beginning of its arguments.
fn unknown(words: &Words) -> Frame {
    let part = |word: &[u8], most: usize| {
        String::from_utf8_lossy(&word[..word.len().min(most)]).into_owned()
    };
    let mut arguments = String::new();
    for word in &words[1..] {
        let Some(room) = 128_usize.checked_sub(arguments.len()).filter(|room| *room > 0) else {
            break;
        };
        arguments += &format!("'{}' ", part(word, room));
    }
    let name = part(&words[0], 128);
    error(&format!("ERR unknown command '{name}', with args beginning with: {arguments}"))
}
