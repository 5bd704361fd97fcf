//! A request's JSON: only what can be read back.

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

/// What `keep` makes of the value's JSON, once that was read back.
pub(super) fn encode<T: Serialize + ?Sized, K>(
    value: &T,
    keep: impl FnOnce(&[u8]) -> K,
) -> Result<K, String> {
    let keep = |json: &[u8]| match check_json(json) {
        Ok(()) => Ok(keep(json)),
        Err(error) => Err(format!("the value's JSON could not be read back: {error}")),
    };
    encode_by(|out| serde_json::to_writer(out, value), keep)?
}

/// As `encode`, quicker: a `Value` holds nothing that cannot be read back but its depth, so
/// the text need not be parsed.
pub(super) fn encode_value<K>(value: &Value, keep: impl FnOnce(&[u8]) -> K) -> Result<K, String> {
    // First: the encoder goes as deep as the value does.
    check_depth(value, DEPTH_LIMIT)?;
    encode_by(|out| put_value(out, value), keep)
}

/// What `serde_json` writes. Text that needs no escape, which most is, is found to be so
/// many bytes at a time, and copied.
fn put_value(out: &mut Vec<u8>, value: &Value) -> serde_json::Result<()> {
    match value {
        Value::String(text) => put_text(out, text),
        Value::Array(items) => {
            let mut before = b'[';
            for item in items {
                out.push(before);
                put_value(out, item)?;
                before = b',';
            }
            out.extend_from_slice(if items.is_empty() { b"[]" } else { b"]" });
            Ok(())
        }
        Value::Object(map) => {
            let mut before = b'{';
            for (key, value) in map {
                out.push(before);
                put_text(out, key)?;
                out.push(b':');
                put_value(out, value)?;
                before = b',';
            }
            out.extend_from_slice(if map.is_empty() { b"{}" } else { b"}" });
            Ok(())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => serde_json::to_writer(out, value),
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) -> serde_json::Result<()> {
    let escaped = |byte: &u8| (*byte < 0x20) | (*byte == b'"') | (*byte == b'\\');
    let mut plain = true;
    for piece in text.as_bytes().chunks(64) {
        plain &= !piece.iter().fold(false, |any, byte| any | escaped(byte));
    }
    if !plain {
        return serde_json::to_writer(out, text);
    }
    out.reserve(text.len() + 2);
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
    Ok(())
}

fn encode_by<K>(
    write: impl FnOnce(&mut Vec<u8>) -> serde_json::Result<()>,
    keep: impl FnOnce(&[u8]) -> K,
) -> Result<K, String> {
    // Taken and put back: a value's own `serialize` may make requests, too, and a thread
    // that is ending has none.
    let mut scratch = SCRATCH.try_with(RefCell::take).unwrap_or_default();
    scratch.clear();
    let written = write(&mut scratch);
    let kept = written.map(|()| keep(&scratch));
    if scratch.capacity() <= SCRATCH_KEPT_BYTES {
        let _ = SCRATCH.try_with(|kept| kept.replace(scratch));
    }
    kept.map_err(|error| format!("the value has no JSON: {error}"))
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            // Around the length of a piece, with something to escape anywhere.
            "[a-z]{50,80}[\"\\\\\n\u{7f}é]?[a-z]{0,80}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            let items = prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from);
            let map = prop::collection::btree_map(any::<String>(), inner, 0..6);
            prop_oneof![items, map.prop_map(|map| Value::Object(map.into_iter().collect()))]
        })
    }

    proptest! {
        #[test]
        fn a_value_is_written_as_serde_json_writes_it(value in value()) {
            let quick = encode_value(&value, <[u8]>::to_vec).unwrap();
            prop_assert_eq!(&quick, &serde_json::to_vec(&value).unwrap());
            prop_assert_eq!(quick, encode(&value, <[u8]>::to_vec).unwrap());
        }
    }
}
