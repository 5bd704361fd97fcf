//! The protocol of Redis's clients (RESP2): commands from bytes, answers to bytes, and bytes as text.
//! Some clients insist on its successor (RESP3); commands are the same there, and most answers.
//!
//! The package `redis-protocol` reads and writes each part. That a command is a flat list of strings is
//! seen to here: what it would read as well are lists within lists, however deep, and it has a stack.

use redis_protocol::resp2::decode::{decode, decode_range};
use redis_protocol::resp2::encode;
use redis_protocol::resp2::types::{OwnedFrame as Frame, RangeFrame, Resp2Frame};

/// A command with its arguments, which are any bytes.
pub type Words = Vec<Vec<u8>>;

/// So many commands of a pipeline go out together at most.
const PIPELINE: usize = 1024;
/// And so many bytes of it: as JSON, which has six bytes for the worst one, they are
/// still below the default of `"max_value_bytes"`. A longer command goes out alone.
const PIPELINE_BYTES: usize = 128 << 10;
/// A command that is longer ends its connection.
pub const COMMAND_BYTES: usize = 1 << 20;
/// No command is so short that it could have more.
const WORDS: usize = COMMAND_BYTES / 6;

/// The next commands that have come as a whole, to be taken together.
#[derive(Default)]
pub struct Pipeline {
    pub commands: Vec<Words>,
    /// How many bytes of the input they are.
    pub used: usize,
    /// What comes next is no command, and there is no telling where the one after it begins.
    pub broken: Option<Frame>,
}

impl Pipeline {
    pub fn of(input: &[u8]) -> Pipeline {
        let mut pipeline = Pipeline::default();
        while pipeline.commands.len() < PIPELINE {
            let rest = &input[pipeline.used..];
            let (words, length) = match command(rest) {
                Ok(Some(found)) => found,
                Ok(None) if rest.len() <= COMMAND_BYTES => break,
                wrong => {
                    let too_long = match rest.first() {
                        Some(b'*') => "invalid bulk length",
                        _ => "too big inline request",
                    };
                    let problem = wrong.err().unwrap_or(too_long.to_string());
                    pipeline.broken = Some(Frame::Error(format!("ERR Protocol error: {problem}")));
                    break;
                }
            };
            if pipeline.used > 0 && pipeline.used + length > PIPELINE_BYTES {
                break;
            }
            pipeline.used += length;
            if !words.is_empty() {
                pipeline.commands.push(words); // an empty line is no command, and no mistake
            }
        }
        pipeline
    }
}

/// The first command, and how many bytes it has; `None` while there are not all of them.
fn command(input: &[u8]) -> Result<Option<(Words, usize)>, String> {
    let Some(end) = input.iter().position(|byte| *byte == b'\n') else {
        return Ok(None);
    };
    let (line, mut at) = (input[..end].trim_ascii(), end + 1);
    let Some(count) = line.strip_prefix(b"*") else {
        let words = typed(line).ok_or("unbalanced quotes in request")?;
        return Ok(Some((words, at)));
    };
    let count = str::from_utf8(count).ok().and_then(|count| count.parse::<i64>().ok());
    let count = usize::try_from(count.ok_or("invalid multibulk length")?).unwrap_or(0);
    if count > WORDS {
        return Err("invalid multibulk length".to_string());
    }
    let mut words = Words::new();
    for _ in 0..count {
        match input.get(at) {
            Some(b'$') => {}
            Some(other) => return Err(format!("expected '$', got '{}'", other.escape_ascii())),
            None => return Ok(None),
        }
        match decode_range(&input[at..]) {
            Ok(Some((RangeFrame::BulkString((from, to)), length))) => {
                words.push(input[at + from..at + to].to_vec());
                at += length;
            }
            Ok(None) => return Ok(None),
            _ => return Err("invalid bulk length".to_string()),
        }
    }
    Ok(Some((words, at)))
}

/// The words of a line as a person types it: quotes keep a word together. `None` if they do not match.
fn typed(line: &[u8]) -> Option<Words> {
    let (mut words, mut rest) = (Words::new(), line.trim_ascii_start());
    while !rest.is_empty() {
        let (word, after) = typed_word(rest)?;
        words.push(word);
        rest = after.trim_ascii_start();
    }
    Some(words)
}

/// The first word, which is not empty unless by quotes, and what comes behind it.
fn typed_word(mut rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let (mut word, mut quote) = (Vec::new(), None);
    loop {
        let (byte, length) = match (quote, rest) {
            (None, []) => return Some((word, rest)),
            (None, [space, ..]) if space.is_ascii_whitespace() => return Some((word, rest)),
            (None, [mark @ (b'"' | b'\''), after @ ..]) => {
                (quote, rest) = (Some(*mark), after);
                continue;
            }
            (Some(mark), [byte, after @ ..]) if *byte == mark => {
                let ends = after.first().is_none_or(u8::is_ascii_whitespace);
                return ends.then_some((word, after));
            }
            (Some(_), []) => return None,
            (Some(b'"'), [b'\\', escaped, after @ ..]) => match (escaped, after) {
                (b'x', [high, low, ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                    let digit = |digit: u8| char::from(digit).to_digit(16);
                    ((digit(*high)? * 16 + digit(*low)?) as u8, 4)
                }
                (b'n', _) => (b'\n', 2),
                (b'r', _) => (b'\r', 2),
                (b't', _) => (b'\t', 2),
                (b'b', _) => (8, 2),
                (b'a', _) => (7, 2),
                _ => (*escaped, 2),
            },
            (Some(b'\''), [b'\\', b'\'', ..]) => (b'\'', 2),
            (_, [byte, ..]) => (*byte, 1),
        };
        word.push(byte);
        rest = &rest[length..];
    }
}

/// An answer as the client gets it.
pub fn encode(frame: &Frame) -> Vec<u8> {
    let mut answer = vec![0; frame.encode_len(false)];
    encode::encode(&mut answer, frame, false).expect("it is as long as it said");
    answer
}

/// The same answer for a client that speaks RESP3: what is not there is `_`, and a list of names with
/// their values is a map.
pub fn newer(answer: &[u8], map: bool) -> Vec<u8> {
    let part = |frame: &Frame| match frame {
        Frame::Null => b"_\r\n".to_vec(),
        frame => encode(frame),
    };
    match decode(answer) {
        Ok(Some((Frame::Array(parts), _))) => {
            let (sign, length) = if map { ('%', parts.len() / 2) } else { ('*', parts.len()) };
            let mut newer = format!("{sign}{length}\r\n").into_bytes();
            parts.iter().for_each(|frame| newer.extend(part(frame)));
            newer
        }
        Ok(Some((frame, _))) => part(&frame),
        _ => answer.to_vec(),
    }
}

/// Bytes as text, since entries are JSON: each is the character with its number. What is ASCII
/// looks as it should, in the log as well.
pub fn text(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

/// And back. A character that stands for no byte is of nobody's making, and becomes any.
pub fn bytes(text: &str) -> Vec<u8> {
    text.chars().map(|character| character as u8).collect()
}
