//! Puts the long messages of one run of a peer together.
//!
//! Nothing is made room for because a fragment announces it: a message takes the
//! bytes that have arrived of it, and at most as many again while its buffer
//! grows. When there are too many messages or bytes, the message that has waited
//! longest for a fragment is forgotten; the next acknowledgement says so, and a
//! sender that still wants it begins again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use crate::core::types::Time;

use super::{AHEAD_LIMIT, Fragment, FragmentAck, Refusal, put_ack};

/// At most so many messages are being put together at once. A sender has fewer
/// under way; the rest is for those that it gave up.
pub(super) const MESSAGES_LIMIT: usize = 8;
/// So many messages that were complete are remembered.
const COMPLETED_LIMIT: usize = 64;
/// At most so many acknowledgements wait to be taken. What finds no place is
/// acknowledged when its fragments come again.
pub(super) const TOUCHED_LIMIT: usize = 64;

/// What has arrived of one message.
#[derive(Debug)]
struct Assembly {
    total_bytes: u64,
    fragment_bytes: u64,
    /// The fragments before the first missing one, end to end.
    prefix: Vec<u8>,
    /// How many these are.
    prefix_count: u64,
    /// Fragments behind the first missing one, by index.
    ahead: BTreeMap<u64, Box<[u8]>>,
    /// When a fragment last came that was not there.
    progress_at: Time,
}

impl Assembly {
    fn new(fragment: &Fragment<'_>, now: Time) -> Assembly {
        Assembly {
            total_bytes: fragment.total_bytes,
            fragment_bytes: fragment.fragment_bytes,
            prefix: Vec::new(),
            prefix_count: 0,
            ahead: BTreeMap::new(),
            progress_at: now,
        }
    }

    fn held_bytes(&self) -> usize {
        self.prefix.len() + self.ahead.values().map(|bytes| bytes.len()).sum::<usize>()
    }

    fn has(&self, index: u64) -> bool {
        index < self.prefix_count || self.ahead.contains_key(&index)
    }

    fn store(&mut self, index: u64, bytes: &[u8]) {
        if index > self.prefix_count {
            self.ahead.insert(index, bytes.into());
            return;
        }
        self.lengthen(bytes);
        while let Some(bytes) = self.ahead.remove(&self.prefix_count) {
            self.lengthen(&bytes);
        }
    }

    fn lengthen(&mut self, bytes: &[u8]) {
        if self.prefix.capacity() - self.prefix.len() < bytes.len() {
            // To double is cheap, but never beyond the message's end: the whole
            // message then becomes `Bytes` without another copy.
            let left = self.total_bytes as usize - self.prefix.len();
            self.prefix.reserve_exact(self.prefix.len().max(bytes.len()).min(left));
        }
        self.prefix.extend_from_slice(bytes);
        self.prefix_count += 1;
    }

    /// Which fragments behind the missing one are there, as bits.
    fn following(&self) -> u128 {
        let first = self.prefix_count + 1;
        self.ahead.keys().fold(0, |bits, index| bits | 1 << (index - first))
    }
}

/// The long messages that one run of a peer sends to this node.
#[derive(Debug)]
pub struct Incoming {
    limit_bytes: usize,
    age_us: u64,
    /// The bytes of all fragments that are kept.
    held_bytes: usize,
    messages: BTreeMap<u64, Assembly>,
    /// The messages completed last, each with the number of its fragments.
    completed: VecDeque<(u64, u64)>,
    /// The messages that are to be acknowledged.
    touched: BTreeSet<u64>,
    ack_number: u64,
    evicted: u64,
    part: Vec<u8>,
}

impl Incoming {
    /// Takes messages of at most `limit_bytes`, and holds no more bytes of them
    /// than that altogether; forgets a message of which nothing new has come for
    /// `age_us` microseconds. The limit should be no less than that of the
    /// sender's `Outgoing`, or what it may send at once cannot be held.
    pub fn new(limit_bytes: usize, age_us: u64) -> Incoming {
        Incoming {
            limit_bytes,
            age_us,
            held_bytes: 0,
            messages: BTreeMap::new(),
            completed: VecDeque::new(),
            touched: BTreeSet::new(),
            ack_number: 0,
            evicted: 0,
            part: Vec::new(),
        }
    }

    /// Takes a fragment; gives the whole message with its last missing one. A
    /// message is given out once, however often its fragments come. A fragment
    /// that is refused has changed nothing.
    pub fn on_fragment(
        &mut self,
        now: Time,
        fragment: &Fragment<'_>,
    ) -> Result<Option<Bytes>, Refusal> {
        if fragment.total_bytes > self.limit_bytes as u64 {
            return Err(Refusal::TooLarge);
        }
        let id = fragment.id;
        if self.completed.iter().any(|(completed, _)| *completed == id) {
            self.touch(id);
            return Ok(None);
        }
        let mut prefix_count = 0;
        if let Some(assembly) = self.messages.get(&id) {
            let shape = (assembly.total_bytes, assembly.fragment_bytes);
            if shape != (fragment.total_bytes, fragment.fragment_bytes) {
                return Err(Refusal::Malformed);
            }
            if assembly.has(fragment.index) {
                self.touch(id);
                return Ok(None);
            }
            prefix_count = assembly.prefix_count;
        }
        self.touch(id);
        if fragment.index > prefix_count + AHEAD_LIMIT {
            // It goes on with a message that was forgotten here. The
            // acknowledgement tells its sender from where to begin again.
            return Ok(None);
        }
        self.make_room(id, fragment.bytes.len());
        let assembly = self.messages.entry(id).or_insert_with(|| Assembly::new(fragment, now));
        assembly.store(fragment.index, fragment.bytes);
        assembly.progress_at = now;
        self.held_bytes += fragment.bytes.len();
        if assembly.prefix_count < fragment.count() {
            return Ok(None);
        }
        Ok(self.complete(id))
    }

    /// Gives out one acknowledgement, as the part of a frame, for each message
    /// of which a fragment has come since the last time.
    pub fn poll_acks(&mut self, emit: &mut dyn FnMut(&[u8])) {
        while let Some(id) = self.touched.pop_first() {
            let (prefix, following) = match self.messages.get(&id) {
                Some(assembly) => (assembly.prefix_count, assembly.following()),
                // Nothing is held of a message that was forgotten.
                None => (self.completed_count(id).unwrap_or(0), 0),
            };
            self.ack_number += 1;
            self.part.clear();
            put_ack(
                &FragmentAck { id, number: self.ack_number, prefix, following },
                &mut self.part,
            );
            emit(&self.part);
        }
    }

    /// Forgets the messages of which nothing new has come for too long.
    pub fn expire(&mut self, now: Time) {
        let age_us = self.age_us;
        let is_old = |assembly: &Assembly| now >= assembly.progress_at.plus(age_us);
        let old: Vec<u64> =
            self.messages.iter().filter(|(_, old)| is_old(old)).map(|(id, _)| *id).collect();
        for id in old {
            self.forget(id);
        }
    }

    /// Forgets all messages, complete or not: the peer began another run. The
    /// acknowledgements are still numbered on, so that a peer that turns up again
    /// in a run that it was known in does not take new ones for old ones.
    pub fn clear(&mut self) {
        self.messages.clear();
        self.held_bytes = 0;
        self.completed.clear();
        self.touched.clear();
    }

    /// When `expire` has something to forget next.
    pub fn deadline(&self) -> Option<Time> {
        let oldest = self.messages.values().map(|assembly| assembly.progress_at).min()?;
        Some(oldest.plus(self.age_us))
    }

    /// The bytes of all fragments that are kept.
    #[cfg(any(test, feature = "sim"))]
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    #[cfg(test)]
    /// How many messages were forgotten before they were complete.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    fn touch(&mut self, id: u64) {
        if self.touched.len() < TOUCHED_LIMIT {
            self.touched.insert(id);
        }
    }

    fn completed_count(&self, id: u64) -> Option<u64> {
        self.completed.iter().find(|(completed, _)| *completed == id).map(|(_, count)| *count)
    }

    /// Makes room for so many bytes of message `id`. Its own bytes stay: alone it
    /// is never beyond the limit.
    fn make_room(&mut self, id: u64, bytes: usize) {
        let is_new = !self.messages.contains_key(&id);
        while self.held_bytes + bytes > self.limit_bytes
            || (is_new && self.messages.len() >= MESSAGES_LIMIT)
        {
            let others = self.messages.iter().filter(|(other, _)| **other != id);
            let Some((oldest, _)) = others.min_by_key(|(_, assembly)| assembly.progress_at) else {
                break;
            };
            self.forget(*oldest);
        }
        assert!(
            self.held_bytes + bytes <= self.limit_bytes,
            "{} bytes held and {bytes} more with a limit of {}",
            self.held_bytes,
            self.limit_bytes
        );
    }

    fn forget(&mut self, id: u64) {
        let Some(assembly) = self.messages.remove(&id) else { return };
        self.held_bytes -= assembly.held_bytes();
        self.evicted += 1;
    }

    fn complete(&mut self, id: u64) -> Option<Bytes> {
        let assembly = self.messages.remove(&id)?;
        self.held_bytes -= assembly.held_bytes();
        let length = assembly.prefix.len() as u64;
        assert_eq!(length, assembly.total_bytes, "message {id} was put together wrongly");
        if self.completed.len() >= COMPLETED_LIMIT {
            self.completed.pop_front();
        }
        self.completed.push_back((id, assembly.prefix_count));
        Some(assembly.prefix.into())
    }
}

#[cfg(any(test, fuzzing))]
impl Incoming {
    /// How much memory the messages take, as far as they asked for it.
    pub(super) fn reserved_bytes(&self) -> usize {
        let reserved = |assembly: &Assembly| {
            assembly.prefix.capacity() + assembly.ahead.values().map(|b| b.len()).sum::<usize>()
        };
        self.messages.values().map(reserved).sum()
    }

    /// Every bound that a peer must not be able to break.
    pub fn check_bounds(&self) {
        let held_bytes: usize = self.messages.values().map(Assembly::held_bytes).sum();
        assert_eq!(held_bytes, self.held_bytes, "the bytes are counted wrongly");
        assert!(held_bytes <= self.limit_bytes, "{held_bytes} bytes are held");
        let reserved_bytes = self.reserved_bytes();
        assert!(reserved_bytes <= 2 * held_bytes, "{reserved_bytes} for {held_bytes} bytes");
        assert!(self.messages.len() <= MESSAGES_LIMIT, "{} messages", self.messages.len());
        assert!(self.completed.len() <= COMPLETED_LIMIT, "{} completed", self.completed.len());
        assert!(self.touched.len() <= TOUCHED_LIMIT, "{} to acknowledge", self.touched.len());
        for assembly in self.messages.values() {
            let reach = assembly.prefix_count + 1..=assembly.prefix_count + AHEAD_LIMIT;
            let out_of_reach = assembly.ahead.keys().find(|index| !reach.contains(index));
            assert_eq!(out_of_reach, None, "it lies beyond what is acknowledged");
        }
    }
}

#[cfg(test)]
impl Incoming {
    /// How many messages are being put together.
    pub(super) fn messages(&self) -> usize {
        self.messages.len()
    }
}
