//! The appends under way to one peer that follow each other without waiting.

use std::collections::VecDeque;

use super::types::{Index, Time};

/// At most so many appends are under way to one peer.
const APPENDS_MOST: usize = 1024;

/// One append under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub struct Sent {
    /// The leader's number of it.
    pub seq: u64,
    /// The last entry that it carries.
    pub last: Index,
    /// How many bytes of entries.
    pub bytes: usize,
    /// When it left.
    pub at: Time,
}

/// Those under way, in the order of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub struct Pipeline {
    under_way: VecDeque<Sent>,
    bytes: usize,
}

impl Pipeline {
    /// Whether another may leave within a window of so many bytes.
    pub fn has_room(&self, window: usize) -> bool {
        self.under_way.len() < APPENDS_MOST && (self.bytes < window || self.under_way.is_empty())
    }

    /// The one that continues what the peer is known to have.
    pub fn front(&self) -> Option<Sent> {
        self.under_way.front().copied()
    }

    /// Whether the append of that number is under way.
    pub fn has(&self, seq: u64) -> bool {
        self.under_way.iter().any(|sent| sent.seq == seq)
    }

    /// Another one left.
    pub fn push(&mut self, sent: Sent) {
        self.under_way.push_back(sent);
        self.bytes += sent.bytes;
    }

    /// The peer matches up to there, it says in answer to `seq`: how many bytes are under
    /// way no more, and when what it answered had left, if that is among them.
    pub fn on_matched(&mut self, seq: u64, match_index: Index) -> (usize, Option<Time>) {
        let (mut freed, mut left_at) = (0, None);
        while let Some(sent) = self.front().filter(|sent| sent.last <= match_index) {
            freed += sent.bytes;
            if sent.seq == seq {
                left_at = Some(sent.at);
            }
            self.under_way.pop_front();
        }
        self.bytes -= freed;
        (freed, left_at)
    }

    /// For the exploration: what is under way bears the numbers that `number` gives.
    #[cfg(test)]
    pub fn number(&mut self, number: impl Fn(u64) -> u64) {
        self.under_way.iter_mut().for_each(|sent| sent.seq = number(sent.seq));
    }

    #[cfg(test)]
    pub fn sent(&self) -> Vec<Sent> {
        self.under_way.iter().copied().collect()
    }

    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}
