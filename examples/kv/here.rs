//! What a node answers by itself: whether it is there, what it knows, what it can do.

use kontiki::RaftNode;
use redis_protocol::resp2::types::OwnedFrame as Frame;

use crate::commands::{COMMANDS, Kind, bulk, count, error, ok, unknown_part, wrong_number};
use crate::resp::Words;

/// Answers a command that is of this kind. `HELLO` changes how its client is spoken to.
pub fn here(node: &RaftNode, words: &Words, resp3: &mut bool) -> Frame {
    let argument = |place: usize| words.get(place).map(|word| word.to_ascii_uppercase());
    match (words[0].to_ascii_uppercase().as_slice(), argument(1).as_deref()) {
        (b"PING", None) => Frame::SimpleString(b"PONG".to_vec()),
        (b"PING", Some(_)) if words.len() > 2 => wrong_number(&words[0]),
        (b"PING" | b"ECHO", _) => bulk(words.get(1).cloned()),
        (b"INFO", _) => bulk(Some(info(node).into_bytes())),
        (b"COMMAND", None) => Frame::Array(COMMANDS.iter().map(described).collect()),
        (b"COMMAND", Some(b"COUNT")) => count(COMMANDS.len()),
        (b"COMMAND", Some(b"DOCS")) => Frame::Array(Vec::new()),
        // There is nothing to set; redis-benchmark looks, and clients say who they are.
        (b"CONFIG", Some(b"GET")) => Frame::Array(
            words[2..]
                .iter()
                .flat_map(|name| [name.clone(), Vec::new()])
                .map(Frame::BulkString)
                .collect(),
        ),
        (b"CLIENT", Some(b"SETNAME" | b"SETINFO")) => ok(),
        (b"HELLO", version) => hello(version, words.len(), resp3),
        _ => unknown_part(words),
    }
}

/// Agrees on the protocol, 2 or 3. There are no users and no passwords.
fn hello(version: Option<&[u8]>, words: usize, resp3: &mut bool) -> Frame {
    match version {
        Some(b"2") if words == 2 => *resp3 = false,
        Some(b"3") if words == 2 => *resp3 = true,
        Some(b"2" | b"3") => return error("ERR Syntax error in HELLO option"),
        Some(_) => return error("NOPROTO unsupported protocol version"),
        None => {}
    }
    let text = |text: &str| Frame::BulkString(text.as_bytes().to_vec());
    let version = Frame::Integer(if *resp3 { 3 } else { 2 });
    Frame::Array(vec![text("server"), text("kontiki"), text("proto"), version])
}

/// What a client is told of a command.
fn described((name, arity, kind, keys): &(&str, i64, Kind, [i64; 3])) -> Frame {
    let flags = match kind {
        Kind::Write => vec![Frame::SimpleString(b"write".to_vec())],
        Kind::Read => vec![Frame::SimpleString(b"readonly".to_vec())],
        Kind::Here => Vec::new(),
    };
    let name = Frame::BulkString(name.as_bytes().to_vec());
    let [first, last, step] = keys.map(Frame::Integer);
    let mut known = vec![name, Frame::Integer(*arity), Frame::Array(flags), first, last, step];
    // Who may use it, hints, more about its keys, its parts: clients look for them.
    known.extend((0..4).map(|_| Frame::Array(Vec::new())));
    Frame::Array(known)
}

/// What this node knows, in the form that clients parse: `key:value`, or `key:name=value,..`.
fn info(node: &RaftNode) -> String {
    let known = node.check_committed_entry();
    let leader = known.leader.as_deref().unwrap_or("");
    let mut text = format!(
        "# Kontiki\r\nnode:{}\r\nrole:{}\r\nterm:{}\r\nleader:{leader}\r\nmembers:{}\r\n",
        known.node,
        known.role,
        known.term,
        known.members.len(),
    );
    for (number, member) in known.members.iter().enumerate() {
        let (name, address) = (&member.name, member.address);
        let (voter, up) = (u8::from(member.voter), u8::from(member.is_up()));
        text += &format!("member{number}:name={name},address={address},voter={voter},up={up}\r\n");
    }
    text
}
