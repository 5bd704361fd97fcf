//! Hostile bytes: what must be true whatever they are.
//!
//! Each function here takes any bytes, makes of them what a part of the library
//! gets from outside, and asserts what that part promises. They run in two ways:
//! from a seed in every `cargo test`, and guided by coverage under `tests/fuzz`.
//!
//! ```text
//!   decoder      the bytes as datagram, part, message, operation
//!   reassembler  a sender, a network and a liar before one receiver
//!   config       the bytes as the cluster's file
//!   engine       three nodes, and datagrams that none of them should have got
//! ```
//!
//! None of this is compiled into the library as a program gets it.

mod cluster;
mod config;
mod decoder;
mod engine;
mod forge;
mod reassembler;
#[cfg(test)]
mod tests;

pub use self::config::config;
pub use self::decoder::decoder;
pub use self::engine::engine;
pub use self::reassembler::reassembler;

/// Reads an input as a row of decisions. Where it has ended, all of them are zero:
/// a shorter input is a simpler story.
struct Feed<'a> {
    bytes: &'a [u8],
}

impl<'a> Feed<'a> {
    fn new(bytes: &'a [u8]) -> Feed<'a> {
        Feed { bytes }
    }

    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    /// At most so many bytes: what is left.
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.bytes.split_at(count.min(self.bytes.len()));
        self.bytes = rest;
        taken
    }

    /// A number below `limit`, which is at least one; from one byte if that is enough.
    fn below(&mut self, limit: usize) -> usize {
        let high = if limit > 256 { usize::from(self.byte()) << 8 } else { 0 };
        (high | usize::from(self.byte())) % limit
    }

    fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    fn u64(&mut self) -> u64 {
        self.take(8).iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// A number at which something may turn over, near one of `known`, or any.
    fn number(&mut self, known: &[u64]) -> u64 {
        let choice = usize::from(self.byte());
        match choice % 8 {
            0 => (choice / 8) as u64,
            1 => u64::MAX - (choice / 8) as u64,
            2 => 1 << (self.byte() % 64),
            3 => (1_u64 << (self.byte() % 64)).wrapping_sub(1),
            4 => self.u64(),
            _ if known.is_empty() => u64::from(self.byte()),
            _ => {
                let near = u64::from(self.byte() % 8);
                known[choice / 8 % known.len()].wrapping_add(near).wrapping_sub(3)
            }
        }
    }
}
