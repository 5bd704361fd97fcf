//! From a file to keys. `serde_json` keeps the last of two equal keys and
//! says nothing, so the objects are read here pair by pair.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::check;
use crate::error::Error;

/// No file of nodes is larger; what is, is another file.
const FILE_BYTES_LIMIT: u64 = 1 << 20;

/// What the file at this path says, its objects' keys each once.
pub(super) fn keys(bytes: &[u8], path: &Path) -> Result<Value, Error> {
    let shown = shown(path);
    if bytes.len() as u64 > FILE_BYTES_LIMIT {
        return Err(Error::config(
            shown,
            format!("the file is larger than {FILE_BYTES_LIMIT} bytes"),
            "give the path of the cluster's JSON file",
        ));
    }
    let remedy = "the file must be JSON, such as \
                  {\"nodes\": {\"node0\": {\"ip\": \"127.0.0.1\", \"port\": 5565}}}";
    let not_json = |problem: String| Error::config(shown.clone(), problem, remedy);
    let text = str::from_utf8(bytes).map_err(|error| {
        not_json(format!("not JSON: byte {} is not UTF-8 text", error.valid_up_to()))
    })?;
    // Some editors put a mark in front that JSON does not allow.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // The parser's words end with line and column. It also bounds the depth,
    // so that what follows need not.
    serde_json::from_str::<Value>(text).map_err(|error| not_json(format!("not JSON: {error}")))?;
    value(text, "")
}

/// The path as messages show it.
pub(super) fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// The same error, and in which file.
pub(super) fn in_file(error: Error, path: &Path) -> Error {
    match error {
        Error::Config { key, problem, remedy } if key != shown(path) => {
            Error::config(key, format!("{problem} (in {})", shown(path)), remedy)
        }
        other => other,
    }
}

/// The keys for these nodes, each name once.
pub(super) fn nodes(
    given: impl Iterator<Item = (String, SocketAddr)>,
) -> Result<Map<String, Value>, Error> {
    let mut nodes = Map::new();
    for (name, address) in given {
        if let SocketAddr::V6(v6) = address
            && v6.scope_id() != 0
        {
            return Err(Error::config(
                check::path("nodes.", &name, "ip"),
                format!("{v6} has a zone, which means something on one machine only"),
                "give an address that all nodes can use",
            ));
        }
        if nodes.contains_key(&name) {
            return Err(twice(&check::path("nodes.", &name, "")));
        }
        nodes.insert(name, json!({"ip": address.ip().to_string(), "port": address.port()}));
    }
    Ok(Map::from_iter([("nodes".to_string(), Value::Object(nodes))]))
}

/// The file's bytes, one more than the limit at most.
pub(super) fn file(path: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let result =
        File::open(path).and_then(|file| file.take(FILE_BYTES_LIMIT + 1).read_to_end(&mut bytes));
    let Err(source) = result else {
        return Ok(bytes);
    };
    if path.to_str().is_some_and(|text| text.trim_start().starts_with('{')) {
        return Err(Error::config(
            "the config",
            "text that begins with { was taken for a path, and there is no such file",
            "give a path, or parse JSON text first: serde_json::from_str::<Value>(text)",
        ));
    }
    let mut doing = format!("read the cluster's file {:?}", shown(path));
    if path.is_relative()
        && let Ok(here) = std::env::current_dir()
    {
        doing.push_str(&format!(" from the directory {:?}", shown(&here)));
    }
    Err(Error::Io { doing, source })
}

/// Reads JSON that is known to be well-formed; `at` is its path in the file.
fn value(text: &str, at: &str) -> Result<Value, Error> {
    let not_json = |error| Error::config(at, format!("not JSON: {error}"), "write JSON");
    if !text.trim_start().starts_with('{') {
        return serde_json::from_str(text).map_err(not_json);
    }
    let Pairs(pairs) = serde_json::from_str(text).map_err(not_json)?;
    let mut map = Map::new();
    for (key, raw) in pairs {
        let at = match at {
            "" => check::quoted(&key),
            at => format!("{at}.{}", check::quoted(&key)),
        };
        if map.contains_key(&key) {
            return Err(twice(&at));
        }
        let value = value(raw.get(), &at)?;
        map.insert(key, value);
    }
    Ok(Value::Object(map))
}

fn twice(at: &str) -> Error {
    Error::config(at, "stands twice", "each key and each name may stand once in its object")
}

/// An object's pairs as they stand in the text.
struct Pairs<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Pairs<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Pairs<'de>, D::Error> {
        deserializer.deserialize_map(PairsVisitor)
    }
}

struct PairsVisitor;

impl<'de> Visitor<'de> for PairsVisitor {
    type Value = Pairs<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<'de>, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(Pairs(pairs))
    }
}
