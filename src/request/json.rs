//! A request's JSON: written into the buffer that travels, and only what can be read back.

use std::cell::RefCell;
use std::fmt;

use serde::Serialize;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// A thread keeps so much room to write JSON in.
const SCRATCH_KEPT_BYTES: usize = 64 * 1024;

thread_local! {
    /// Where a request's JSON is written before it is known how long it is.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// So many arrays and objects may stand one in another: what `serde_json` reads back.
pub(super) const DEPTH_LIMIT: usize = 127;

/// `serde_json` takes an object that begins with this key for text that is yet to
/// be parsed, and so would not read it back as it was.
pub(super) const RAW_VALUE_MARK: &str = "$serde_json::private::RawValue";

pub(super) fn encode<T: Serialize + ?Sized>(headroom: usize, value: &T) -> Result<Vec<u8>, String> {
    // Taken and put back: a value's own `serialize` may make requests, too, and a thread
    // that is ending has none.
    let mut scratch = SCRATCH.try_with(RefCell::take).unwrap_or_default();
    scratch.clear();
    let written = serde_json::to_writer(&mut scratch, value);
    let buffer = written.map(|()| {
        let mut buffer = Vec::with_capacity(headroom + scratch.len());
        buffer.resize(headroom, 0);
        buffer.extend_from_slice(&scratch);
        buffer
    });
    if scratch.capacity() <= SCRATCH_KEPT_BYTES {
        let _ = SCRATCH.try_with(|kept| kept.replace(scratch));
    }
    buffer.map_err(|error| format!("the value has no JSON: {error}"))
}

pub(super) fn encode_checked<T: Serialize + ?Sized>(
    headroom: usize,
    value: &T,
) -> Result<Vec<u8>, String> {
    let buffer = encode(headroom, value)?;
    match check_json(&buffer[headroom..]) {
        Ok(()) => Ok(buffer),
        Err(error) => Err(format!("the value's JSON could not be read back: {error}")),
    }
}

pub(super) fn check_depth(value: &Value, left: usize) -> Result<(), String> {
    let mark_leads = |map: &serde_json::Map<_, _>| {
        map.keys().next().is_some_and(|key: &String| key == RAW_VALUE_MARK)
    };
    match value {
        Value::Array(_) | Value::Object(_) if left == 0 => Err(format!(
            "the value is nested too deeply: at most {DEPTH_LIMIT} arrays and objects may stand \
             one in another"
        )),
        Value::Array(items) => items.iter().try_for_each(|item| check_depth(item, left - 1)),
        Value::Object(map) if mark_leads(map) => Err(format!(
            "an object begins with the key {RAW_VALUE_MARK}, which is serde_json's own"
        )),
        Value::Object(map) => map.values().try_for_each(|item| check_depth(item, left - 1)),
        _ => Ok(()),
    }
}

/// Whether `serde_json` would read this back as a `Value`; builds nothing.
pub(crate) fn check_json(json: &[u8]) -> Result<(), serde_json::Error> {
    serde_json::from_slice::<Readable>(json).map(|_| ())
}

/// Any JSON that can be read. `IgnoredAny` will not do: what is ignored is not
/// checked for depth, range or surrogates.
struct Readable;

impl<'de> Deserialize<'de> for Readable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Readable, D::Error> {
        deserializer.deserialize_any(Readable)
    }
}

impl<'de> Visitor<'de> for Readable {
    type Value = Readable;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Readable, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Readable, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Readable, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Readable, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Readable, E> {
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Readable, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Readable, A::Error> {
        while items.next_element::<Readable>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Readable, A::Error> {
        let mut first = true;
        while let Some(Key { is_mark }) = map.next_key()? {
            if first && is_mark {
                let text = format!("the key {RAW_VALUE_MARK} is serde_json's own");
                return Err(serde::de::Error::custom(text));
            }
            first = false;
            map.next_value::<Readable>()?;
        }
        Ok(self)
    }
}

/// An object's key, of which only this is of interest.
struct Key {
    is_mark: bool,
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_str(KeyVisitor)
    }
}

struct KeyVisitor;

impl Visitor<'_> for KeyVisitor {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Key, E> {
        Ok(Key { is_mark: key == RAW_VALUE_MARK })
    }
}
