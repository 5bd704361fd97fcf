//! From keys to `Settings`: every rule that a config must keep, one after the
//! other. The first one that does not hold is told, with the key, the value and
//! what would be right.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use serde_json::{Map, Value};

use super::{NodeSettings, SecretFrom, Settings};
use crate::core::membership::{MEMBERS_LIMIT, VOTERS_LIMIT};
use crate::error::Error;
use crate::secret::{self, Secrets};

type Keys = Map<String, Value>;

/// The keys of the file.
const KEYS: [&str; 11] = [
    "nodes",
    "data_dir",
    "secret_file",
    "secret",
    "heartbeat_ms",
    "election_timeout_ms",
    "failure_timeout_ms",
    "request_timeout_ms",
    "snapshot_every",
    "max_value_bytes",
    "founding",
];

/// The keys of one node.
const NODE_KEYS: [&str; 3] = ["ip", "port", "role"];

const NAME_BYTES_LIMIT: usize = 64;
const HEARTBEAT_MS: RangeInclusive<u64> = 1..=60_000;
const ELECTION_TIMEOUT_MS: RangeInclusive<u64> = 1..=600_000;
const FAILURE_TIMEOUT_MS: RangeInclusive<u64> = 20..=600_000;
const REQUEST_TIMEOUT_MS: RangeInclusive<u64> = 1..=3_600_000;
const SNAPSHOT_EVERY: RangeInclusive<u64> = 1..=1_000_000_000;
const VALUE_BYTES: RangeInclusive<u64> = 1..=super::MAX_VALUE_BYTES as u64;

const NODE_REMEDY: &str = "write a node such as {\"ip\": \"127.0.0.1\", \"port\": 5565}";

/// In a message, at most so many names are listed and characters of a value shown.
const NAMES_SHOWN: usize = 20;
const VALUE_SHOWN: usize = 60;

/// Checks keys in the full form. Relative paths are still as they are written.
pub(super) fn settings(keys: &Keys) -> Result<Settings, Error> {
    for key in keys.keys() {
        check_key(key, "", &KEYS)?;
    }
    let nodes = match keys.get("nodes") {
        Some(Value::Object(nodes)) => check_nodes(nodes, "nodes.")?,
        Some(other) => return Err(wrong("nodes", other, "write a map of names to nodes")),
        None => {
            let remedy = "write a map of names to nodes";
            return Err(Error::config("nodes", "is missing", remedy));
        }
    };
    let data_dir = data_dir(keys)?;
    let secret = secret(keys)?;
    if data_dir.is_some() {
        check_directories(&nodes)?;
    }
    let heartbeat_ms = number(keys, "heartbeat_ms", 30, HEARTBEAT_MS)?;
    let (shortest_ms, longest_ms) = election_timeout(keys, heartbeat_ms)?;
    let failure_timeout_ms = failure_timeout(keys, heartbeat_ms)?;
    let request_timeout_ms = number(keys, "request_timeout_ms", 10_000, REQUEST_TIMEOUT_MS)?;
    let snapshot_every = number(keys, "snapshot_every", 10_000, SNAPSHOT_EVERY)?;
    let value_bytes = number(keys, "max_value_bytes", 1 << 20, VALUE_BYTES)?;
    let founding = word(keys.get("founding"), "founding", ["all", "majority"])?;
    Ok(Settings {
        nodes,
        data_dir,
        secret,
        heartbeat_us: heartbeat_ms * 1000,
        election_timeout_us: (shortest_ms * 1000, longest_ms * 1000),
        failure_timeout_us: failure_timeout_ms * 1000,
        request_timeout_us: request_timeout_ms * 1000,
        snapshot_every,
        max_value_bytes: value_bytes as usize,
        founding_by_majority: founding == "majority",
    })
}

/// Whether the keys are names and their values nodes, as raft-lite has it. A
/// full file has `nodes`; but a node may be called so.
pub(super) fn is_flat(keys: &Keys) -> bool {
    match keys.get("nodes") {
        Some(Value::Object(nodes)) => {
            let is_field = |key| nodes.get(key).is_some_and(|field| !field.is_object());
            is_field("ip") || is_field("port")
        }
        Some(_) => false,
        None => keys.values().any(Value::is_object),
    }
}

/// Checks a flat map of names to nodes.
pub(super) fn flat(keys: &Keys) -> Result<(), Error> {
    for (key, value) in keys {
        if KEYS.contains(&key.as_str()) && !value.is_object() {
            return Err(Error::config(
                key,
                format!("{} stands among the nodes", show(value)),
                "put the nodes into a map of their own: {\"nodes\": {..}}, with this key beside it",
            ));
        }
    }
    check_nodes(keys, "").map(drop)
}

/// Checks that one of the nodes has this name.
pub(super) fn name_is_known(name: &str, nodes: &[NodeSettings]) -> Result<(), Error> {
    if nodes.iter().any(|node| node.name == name) {
        return Ok(());
    }
    let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
    Err(Error::config(
        "nodes",
        format!("no node is called {}", show(&name.into())),
        format!("{}the names are {}", did_you_mean(name, &names), list(&names)),
    ))
}

/// The error for something that should hold keys.
pub(super) fn not_an_object(what: &str, value: &Value) -> Error {
    let remedy = "write an object of keys, such as \
                  {\"nodes\": {\"node0\": {\"ip\": \"127.0.0.1\", \"port\": 5565}}}";
    wrong(what, value, remedy)
}

/// The path of a node's key, or of the node itself.
pub(super) fn path(prefix: &str, name: &str, key: &str) -> String {
    match key {
        "" => format!("{prefix}{}", quoted(name)),
        key => format!("{prefix}{}.{key}", quoted(name)),
    }
}

/// A part of a path, in quotes if it could be misread.
pub(super) fn quoted(key: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    match !key.is_empty() && key.chars().all(plain) {
        true => cut(key.to_string()),
        false => show(&key.into()),
    }
}

fn check_key(key: &str, before: &str, known: &[&str]) -> Result<(), Error> {
    if known.contains(&key) {
        return Ok(());
    }
    let at = format!("{before}{}", quoted(key));
    Err(Error::config(
        at,
        "there is no such key",
        format!("{}the keys are {}", did_you_mean(key, known), list(known)),
    ))
}

/// Checks the nodes; `prefix` is what stands before a node's name in paths.
fn check_nodes(nodes: &Keys, prefix: &str) -> Result<Vec<NodeSettings>, Error> {
    let all = "nodes";
    if nodes.is_empty() {
        return Err(Error::config(all, "there are no nodes", NODE_REMEDY));
    }
    if nodes.len() > MEMBERS_LIMIT {
        let problem = format!("there are {} nodes", nodes.len());
        return Err(Error::config(all, problem, format!("at most {MEMBERS_LIMIT} are possible")));
    }
    let mut checked = Vec::with_capacity(nodes.len());
    for (name, node) in nodes {
        checked.push(check_node(prefix, name, node)?);
    }
    checked.sort_by(|a, b| a.name.cmp(&b.name));
    check_addresses(&checked, prefix)?;
    let voters = checked.iter().filter(|node| node.voter).count();
    if voters == 0 {
        return Err(Error::config(
            all,
            "all nodes are learners, and somebody must vote",
            format!("leave \"role\" out for 1 to {VOTERS_LIMIT} of them"),
        ));
    }
    if voters > VOTERS_LIMIT {
        return Err(Error::config(
            all,
            format!("{voters} nodes are voters"),
            format!("at most {VOTERS_LIMIT} can be: give the others \"role\": \"learner\""),
        ));
    }
    Ok(checked)
}

fn check_node(prefix: &str, name: &str, node: &Value) -> Result<NodeSettings, Error> {
    let at = |key: &str| path(prefix, name, key);
    if let Some(problem) = name_problem(name) {
        let remedy = format!("use letters, digits and signs, 1 to {NAME_BYTES_LIMIT} bytes");
        return Err(Error::config(at(""), problem, remedy));
    }
    let Value::Object(keys) = node else {
        return Err(wrong(&at(""), node, NODE_REMEDY));
    };
    for key in keys.keys() {
        check_key(key, &format!("{}.", at("")), &NODE_KEYS)?;
    }
    let ip = check_ip(&at("ip"), keys.get("ip"))?;
    let port = check_port(&at("port"), keys.get("port"))?;
    let role = word(keys.get("role"), &at("role"), ["voter", "learner"])?;
    let address = SocketAddr::new(ip, port);
    Ok(NodeSettings { name: name.to_string(), address, voter: role == "voter" })
}

/// What is wrong with a node's name, if anything is.
pub(crate) fn name_problem(name: &str) -> Option<String> {
    match name.len() {
        1..=NAME_BYTES_LIMIT if name.contains(char::is_control) => {
            Some("a name with a control character".to_string())
        }
        1..=NAME_BYTES_LIMIT => None,
        bytes => Some(format!("a name of {bytes} bytes")),
    }
}

/// What is wrong with a node's address, if anything is.
pub(crate) fn address_problem(address: SocketAddr) -> Option<&'static str> {
    match address {
        _ if address.port() == 0 => Some("has no port"),
        SocketAddr::V6(v6) if v6.scope_id() != 0 => {
            Some("has a zone, which means something on one machine only")
        }
        _ => ip_problem(address.ip().to_canonical()),
    }
}

fn ip_problem(ip: IpAddr) -> Option<&'static str> {
    if ip.is_unspecified() {
        return Some("is no address that other nodes could speak to");
    }
    let many = ip.is_multicast() || ip == IpAddr::from([255; 4]);
    many.then_some("is not the address of one node")
}

fn check_ip(at: &str, value: Option<&Value>) -> Result<IpAddr, Error> {
    let remedy = "write an IP address such as \"127.0.0.1\" or \"::1\"";
    let Some(value) = value else {
        return Err(Error::config(at, "is missing", remedy));
    };
    let Value::String(text) = value else {
        return Err(wrong(at, value, remedy));
    };
    let refuse = |problem: &str, remedy: &str| {
        Err(Error::config(at, format!("{} {problem}", show(value)), remedy))
    };
    let Ok(ip) = text.parse::<IpAddr>() else {
        if text.parse::<SocketAddr>().is_ok() {
            return refuse("has a port", "write the address alone, and the port as \"port\"");
        }
        if text.contains('%') {
            let problem = "has a zone, which means something on one machine only";
            return refuse(problem, "write an address that all nodes can use");
        }
        let problem = "is not an IP address (host names are not looked up)";
        return refuse(problem, remedy);
    };
    // The same address in its IPv6 dress would escape the comparison with others.
    let ip = ip.to_canonical();
    match ip_problem(ip) {
        Some(problem) if ip.is_unspecified() => {
            refuse(problem, "write the address at which they reach this node")
        }
        Some(problem) => refuse(problem, remedy),
        None => Ok(ip),
    }
}

fn check_port(at: &str, value: Option<&Value>) -> Result<u16, Error> {
    let remedy = "write a number from 1 to 65535";
    let Some(value) = value else {
        return Err(Error::config(at, "is missing", remedy));
    };
    let number = match value {
        Value::String(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        Value::Number(number) => number.as_u64(),
        _ => None,
    };
    match number.map(u16::try_from) {
        Some(Ok(port)) if port > 0 => Ok(port),
        Some(_) => Err(Error::config(at, format!("{} is no port", show(value)), remedy)),
        None => Err(wrong(at, value, remedy)),
    }
}

/// No address may stand twice, and one socket cannot speak to both kinds of address.
fn check_addresses(nodes: &[NodeSettings], prefix: &str) -> Result<(), Error> {
    let mut owners: BTreeMap<SocketAddr, &NodeSettings> = BTreeMap::new();
    for node in nodes {
        if let Some(owner) = owners.insert(node.address, node) {
            return Err(Error::config(
                path(prefix, &node.name, ""),
                format!("{} is also the address of {}", node.address, quoted(&owner.name)),
                "give each node an address or a port of its own",
            ));
        }
    }
    let Some(first) = nodes.first() else {
        return Ok(());
    };
    match nodes.iter().find(|node| node.address.is_ipv4() != first.address.is_ipv4()) {
        None => Ok(()),
        Some(other) => Err(Error::config(
            path(prefix, &other.name, "ip"),
            format!(
                "{} and {} of {} are not of one kind, and a node speaks from one address",
                other.address.ip(),
                first.address.ip(),
                quoted(&first.name)
            ),
            "write IPv4 addresses for all nodes, or IPv6 addresses for all",
        )),
    }
}

fn data_dir(keys: &Keys) -> Result<Option<PathBuf>, Error> {
    let remedy = "write the path of a directory, such as \"data\", or leave the key out, and nodes \
                  keep what they know in memory only";
    path_in(keys, "data_dir", remedy)
}

/// Where the secret comes from. What is wrong with one that stands here is told without it.
fn secret(keys: &Keys) -> Result<Option<SecretFrom>, Error> {
    let remedy = "write the path of a file that holds the secret, such as \"cluster.key\", or \
                  leave the key out, and nodes trust their network";
    let file = path_in(keys, "secret_file", remedy)?;
    // It would be shown wherever a path is.
    if file.as_ref().is_some_and(|path| Secrets::parse(path.to_str()).is_ok()) {
        let problem = "is a secret, where the path of a file that holds it should be";
        return Err(Error::config("secret_file", problem, "write it into a file of its own"));
    }
    let Some(value) = keys.get("secret") else { return Ok(file.map(SecretFrom::File)) };
    let refuse = |problem: String, remedy| Err(Error::config("secret", problem, remedy));
    if file.is_some() {
        let problem = "stands beside secret_file".to_string();
        return refuse(problem, "write the one or the other");
    }
    let texts: Option<Vec<&str>> = match value {
        Value::String(text) => Some(vec![text]),
        Value::Array(texts) => texts.iter().map(Value::as_str).collect(),
        _ => None,
    };
    let Some(texts) = texts else {
        return refuse("is no text, and no list of texts".to_string(), secret::REMEDY);
    };
    match Secrets::parse(texts) {
        Ok(secrets) => Ok(Some(SecretFrom::Config(secrets))),
        Err(problem) => refuse(problem, secret::REMEDY),
    }
}

/// The path that stands under a key, if one does.
fn path_in(keys: &Keys, key: &str, remedy: &str) -> Result<Option<PathBuf>, Error> {
    let text = match keys.get(key) {
        None => return Ok(None),
        Some(Value::String(text)) => text,
        Some(other) => return Err(wrong(key, other, remedy)),
    };
    if text.is_empty() {
        return Err(Error::config(key, "\"\" is no path", remedy));
    }
    if text.contains('\0') {
        let problem = format!("{} has a zero byte, which no path can have", show(&keys[key]));
        return Err(Error::config(key, problem, remedy));
    }
    Ok(Some(PathBuf::from(text)))
}

/// With `data_dir`, each node has a directory of its own by its name: one directory, in that
/// place, on every system, and no other node's. (No name has a control character anyway,
/// a zero byte among them.)
fn check_directories(nodes: &[NodeSettings]) -> Result<(), Error> {
    // File systems that do not tell upper from lower case have folded both.
    let folded = |name: &str| name.to_uppercase().to_lowercase();
    let mut owners: BTreeMap<String, &str> = BTreeMap::new();
    for NodeSettings { name, .. } in nodes {
        let at = || path("nodes.", name, "");
        let refuse = |problem: &str| {
            let name = show(&name.as_str().into());
            Err(Error::config(
                at(),
                format!("{name} {problem}, and so cannot be a directory's name in data_dir"),
                "give the node a name without / and \\ that does not begin with a dot, such as \
                 \"node0\", or leave data_dir out",
            ))
        };
        match () {
            _ if name.starts_with('.') => return refuse("begins with a dot"),
            _ if name.contains('/') => return refuse("has a /"),
            _ if name.contains('\\') => return refuse("has a \\"),
            _ => (),
        }
        if let Some(owner) = owners.insert(folded(name), name) {
            return Err(Error::config(
                at(),
                format!(
                    "{} and {} differ in upper and lower case only, and not every file system \
                     keeps two such directories in data_dir apart",
                    show(&name.as_str().into()),
                    show(&owner.into())
                ),
                "give the nodes names that differ in more, or leave data_dir out",
            ));
        }
    }
    Ok(())
}

fn election_timeout(keys: &Keys, heartbeat_ms: u64) -> Result<(u64, u64), Error> {
    let key = "election_timeout_ms";
    let remedy = "write two whole numbers of milliseconds, such as [150, 300]";
    let (shortest, longest) = match keys.get(key) {
        None => (150, 300),
        Some(Value::Array(pair)) if pair.len() == 2 => match (pair[0].as_u64(), pair[1].as_u64()) {
            (Some(shortest), Some(longest)) => (shortest, longest),
            _ => return Err(wrong(key, &keys[key], remedy)),
        },
        Some(other) => return Err(wrong(key, other, remedy)),
    };
    let problem = match () {
        _ if longest < shortest => "ends before it begins".to_string(),
        _ if !ELECTION_TIMEOUT_MS.contains(&longest) => {
            format!("is longer than {} ms", ELECTION_TIMEOUT_MS.end())
        }
        _ if shortest < 2 * heartbeat_ms => {
            format!("begins before two heartbeats are due (heartbeat_ms is {heartbeat_ms})")
        }
        _ if longest - shortest < heartbeat_ms => format!(
            "is too narrow for nodes to campaign one after the other (heartbeat_ms is \
             {heartbeat_ms})"
        ),
        _ => return Ok((shortest, longest)),
    };
    Err(Error::config(
        key,
        format!("[{shortest}, {longest}] {problem}"),
        format!(
            "write [from, up to] with from at least twice heartbeat_ms ({}) and up to at least \
             heartbeat_ms more, at most {}: [{}, {}] would do",
            2 * heartbeat_ms,
            ELECTION_TIMEOUT_MS.end(),
            5 * heartbeat_ms,
            10 * heartbeat_ms
        ),
    ))
}

/// A whole number within a range.
/// Two heartbeats may be lost before a member is probed, and the probes need some time.
fn failure_timeout(keys: &Keys, heartbeat_ms: u64) -> Result<u64, Error> {
    let key = "failure_timeout_ms";
    let default = (6 * heartbeat_ms).max(200);
    let timeout = number(keys, key, default, FAILURE_TIMEOUT_MS)?;
    if timeout >= 4 * heartbeat_ms {
        return Ok(timeout);
    }
    Err(Error::config(
        key,
        format!(
            "{timeout} is over before four heartbeats are due (heartbeat_ms is {heartbeat_ms})"
        ),
        format!("write at least {}, or a lower heartbeat_ms", 4 * heartbeat_ms),
    ))
}

fn number(keys: &Keys, key: &str, default: u64, range: RangeInclusive<u64>) -> Result<u64, Error> {
    let Some(value) = keys.get(key) else {
        return Ok(default);
    };
    let remedy = format!("write a whole number from {} to {}", range.start(), range.end());
    match value.as_u64() {
        Some(number) if range.contains(&number) => Ok(number),
        Some(number) => Err(Error::config(key, format!("{number} is out of range"), remedy)),
        None => Err(wrong(key, value, &remedy)),
    }
}

/// One of two words; the first one by default.
fn word(value: Option<&Value>, at: &str, words: [&'static str; 2]) -> Result<&'static str, Error> {
    let Some(value) = value else {
        return Ok(words[0]);
    };
    let known = words.into_iter().find(|word| value.as_str() == Some(word));
    known.ok_or_else(|| wrong(at, value, &format!("write {:?} or {:?}", words[0], words[1])))
}

/// The error for a value that is not of the kind that it should be.
fn wrong(at: &str, value: &Value, remedy: &str) -> Error {
    let kind = match value {
        Value::Null => "",
        Value::Bool(_) => " (true or false)",
        Value::Number(_) => " (a number)",
        Value::String(_) => " (a text)",
        Value::Array(_) => " (an array)",
        Value::Object(_) => " (an object)",
    };
    Error::config(at, format!("{}{kind} cannot stand here", show(value)), remedy)
}

/// The value as JSON, cut if it is long.
fn show(value: &Value) -> String {
    cut(secret::hide(&value.to_string()))
}

fn cut(text: String) -> String {
    match text.char_indices().nth(VALUE_SHOWN) {
        Some((end, _)) => format!("{}..", &text[..end]),
        None => text,
    }
}

fn list(names: &[&str]) -> String {
    let shown: Vec<String> = names.iter().take(NAMES_SHOWN).map(|name| quoted(name)).collect();
    match names.len().saturating_sub(NAMES_SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// A question to lead a remedy with, if one of the names is near.
fn did_you_mean(wrong: &str, names: &[&str]) -> String {
    let lower = wrong.to_lowercase();
    let near = |name: &&&str| distance(&lower, &name.to_lowercase()) <= 1 + wrong.len() / 6;
    match names.iter().filter(near).min_by_key(|name| distance(&lower, name)) {
        Some(name) => format!("did you mean {}? ", quoted(name)),
        None => String::new(),
    }
}

/// How many letters must be put in, taken out or changed (Levenshtein). For
/// texts that are far longer than any name it is their length.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().max(b.len()) > 2 * NAME_BYTES_LIMIT {
        return a.len().max(b.len());
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let change = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("heartbeat_ms", "hartbeat_ms"), 1);
        assert_eq!(distance("same", "same"), 0);
    }

    #[test]
    fn long_values_are_cut_between_characters() {
        assert_eq!(cut("ä".repeat(61)), format!("{}..", "ä".repeat(60)));
        assert_eq!(cut("ä".repeat(60)), "ä".repeat(60));
    }
}
