//! The values that replies carried, kept as encoded JSON in the order of the log.
//!
//! A value is held by the session and by the caller's id that may still ask for
//! it, and goes when nobody holds it. All together stay within a bound: beyond it
//! the oldest go first, and their replies say that the value was not kept. `Null`,
//! the value of every reply without a state machine, takes no place here at all.

use std::collections::VecDeque;

use serde_json::Value;

use crate::encoding::cursor::{Cursor, put_varint};

use super::snapshot::{Unsound, ensure, put_bytes};

/// What a kept value is charged beside its own bytes. One that nobody holds any
/// more costs this until all before it are gone.
pub(super) const VALUE_COST_BYTES: usize = 32;

/// Where a reply's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ValueRef(u64);

impl ValueRef {
    /// The value is `Null`, and needs no keeping.
    pub const NULL: ValueRef = ValueRef(0);
    /// There was a value, and it was not kept.
    pub const NOT_KEPT: ValueRef = ValueRef(u64::MAX);

    /// Appends it as snapshots have it.
    pub fn put(self, out: &mut Vec<u8>) {
        let written = match self {
            ValueRef::NULL => 0,
            ValueRef::NOT_KEPT => 1,
            ValueRef(number) => number + 1,
        };
        put_varint(out, written);
    }

    /// Reads it. Whether there is such a value is for `Values::claim` to say.
    pub fn take(from: &mut Cursor<'_>) -> Result<ValueRef, Unsound> {
        Ok(match from.varint()? {
            0 => ValueRef::NULL,
            1 => ValueRef::NOT_KEPT,
            written => ValueRef(written - 1),
        })
    }
}

/// The kept values, numbered from 1 in the order in which they came.
pub(super) struct Values {
    /// The number of the first in `kept`.
    first: u64,
    /// In order. The first is always held, so that equal states look equal.
    kept: VecDeque<Kept>,
    bytes: usize,
    limit_bytes: usize,
}

#[derive(Debug)]
struct Kept {
    /// Encoded; empty when nobody holds it.
    json: Box<[u8]>,
    holders: u32,
}

impl Kept {
    fn cost(&self) -> usize {
        VALUE_COST_BYTES + self.json.len()
    }
}

impl Values {
    pub fn new(limit_bytes: usize) -> Values {
        Values { first: 1, kept: VecDeque::new(), bytes: 0, limit_bytes }
    }

    /// Keeps a value for one holder.
    pub fn keep(&mut self, value: &Value) -> ValueRef {
        if value.is_null() {
            return ValueRef::NULL;
        }
        let Ok(json) = serde_json::to_vec(value) else {
            return ValueRef::NOT_KEPT;
        };
        let kept = Kept { json: json.into_boxed_slice(), holders: 1 };
        if kept.cost() > self.limit_bytes {
            return ValueRef::NOT_KEPT;
        }
        self.bytes += kept.cost();
        self.kept.push_back(kept);
        let number = self.first + self.kept.len() as u64 - 1;
        while self.bytes > self.limit_bytes {
            self.drop_first();
        }
        self.trim();
        ValueRef(number)
    }

    /// One more holder.
    pub fn hold(&mut self, value: ValueRef) {
        if let Some(kept) = self.kept_mut(value) {
            kept.holders += 1;
        }
    }

    /// One holder less. A holder's value may have been dropped meanwhile.
    pub fn release(&mut self, value: ValueRef) {
        if value == ValueRef::NULL {
            return;
        }
        let Some(kept) = self.kept_mut(value) else {
            return;
        };
        assert!(kept.holders > 0, "value {value:?} was released more often than held");
        kept.holders -= 1;
        if kept.holders == 0 {
            let json = std::mem::take(&mut kept.json);
            self.bytes -= json.len();
            self.trim();
        }
    }

    /// The value; `None` if it was not kept.
    pub fn value(&self, value: ValueRef) -> Option<Value> {
        if value == ValueRef::NULL {
            return Some(Value::Null);
        }
        let kept = self.kept.get(self.place(value)?)?;
        serde_json::from_slice(&kept.json).ok()
    }

    /// Appends the values as snapshots have them. Who holds them is not said.
    pub fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, self.first);
        put_varint(out, self.kept.len() as u64);
        for kept in &self.kept {
            put_bytes(&kept.json, out);
        }
    }

    /// About how many bytes `put` writes.
    pub fn size_bytes(&self) -> usize {
        self.bytes - self.kept.len() * (VALUE_COST_BYTES - 4)
    }

    /// Reads values of `client_entries` entries. Nobody holds them yet: who refers
    /// to one claims it, and `check_holders` is asked when all have.
    pub fn take(
        from: &mut Cursor<'_>,
        client_entries: u64,
        limit_bytes: usize,
    ) -> Result<Values, Unsound> {
        let mut values = Values::new(limit_bytes);
        values.first = from.varint()?;
        let count = from.count(limit_bytes / VALUE_COST_BYTES)?;
        // Each client entry makes at most one.
        let numbers = 1..=(client_entries + 1).saturating_sub(count as u64);
        ensure(numbers.contains(&values.first), || {
            format!("values {} and on, {count} of {client_entries} entries", values.first)
        })?;
        for _ in 0..count {
            let length = from.length()?;
            let kept = Kept { json: from.take(length)?.into(), holders: 0 };
            values.bytes += kept.cost();
            values.kept.push_back(kept);
        }
        ensure(values.bytes <= limit_bytes, || format!("values of {} bytes", values.bytes))?;
        Ok(values)
    }

    /// One more holder of what was read; false if there never was such a value.
    pub fn claim(&mut self, value: ValueRef) -> bool {
        self.hold(value);
        let end = self.first + self.kept.len() as u64;
        value == ValueRef::NOT_KEPT || value.0 < end
    }

    /// What is held has its bytes, and all else has none.
    pub fn check_holders(&self) -> Result<(), Unsound> {
        let first_is_held = self.kept.front().is_none_or(|kept| kept.holders > 0);
        ensure(first_is_held, || format!("nobody holds the first value, {}", self.first))?;
        for (number, kept) in (self.first..).zip(&self.kept) {
            ensure((kept.holders > 0) != kept.json.is_empty(), || {
                format!("{} hold value {number} of {} bytes", kept.holders, kept.json.len())
            })?;
        }
        Ok(())
    }

    #[cfg(test)]
    /// What all that is kept is charged.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn place(&self, value: ValueRef) -> Option<usize> {
        usize::try_from(value.0.checked_sub(self.first)?).ok()
    }

    fn kept_mut(&mut self, value: ValueRef) -> Option<&mut Kept> {
        let place = self.place(value)?;
        self.kept.get_mut(place)
    }

    fn drop_first(&mut self) {
        if let Some(kept) = self.kept.pop_front() {
            self.bytes -= kept.cost();
            self.first += 1;
        }
    }

    fn trim(&mut self) {
        while self.kept.front().is_some_and(|kept| kept.holders == 0) {
            self.drop_first();
        }
        if self.kept.capacity() > 1024 && self.kept.len() < self.kept.capacity() / 8 {
            self.kept.shrink_to(self.kept.len() * 2);
        }
    }

    #[cfg(test)]
    pub fn digest(&self) -> String {
        format!("{} {:?} {}", self.first, self.kept, self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_goes_with_its_last_holder() {
        let mut values = Values::new(1000);
        let first = values.keep(&json!("one"));
        let second = values.keep(&json!([2]));
        values.hold(first);
        values.release(second);
        assert_eq!(values.value(second), None);
        values.release(first);
        assert_eq!(values.value(first), Some(json!("one")));
        assert_eq!(values.bytes(), 2 * VALUE_COST_BYTES + 5);
        values.release(first);
        assert_eq!((values.value(first), values.bytes()), (None, 0));
        assert_eq!(values.digest(), "3 [] 0");
    }

    #[test]
    fn beyond_the_bound_the_oldest_go() {
        let mut values = Values::new(3 * VALUE_COST_BYTES + 3);
        let refs: Vec<_> = (0..4).map(|n| values.keep(&json!(n))).collect();
        assert_eq!(values.value(refs[0]), None);
        assert_eq!(values.value(refs[1]), Some(json!(1)));
        let large = values.keep(&json!("x".repeat(500)));
        assert_eq!(large, ValueRef::NOT_KEPT);
        assert_eq!(values.value(refs[1]), Some(json!(1)), "too large a value drops no other");
        values.release(refs[0]);
        values.release(large);
        assert_eq!(values.bytes(), 3 * VALUE_COST_BYTES + 3);
    }

    #[test]
    fn null_takes_no_place() {
        let mut values = Values::new(0);
        let null = values.keep(&Value::Null);
        values.hold(null);
        values.release(null);
        assert_eq!((values.value(null), values.bytes()), (Some(Value::Null), 0));
        assert_eq!(values.kept.capacity(), 0);
    }
}
