//! What happens, told line by line, and a digest of it by which two runs compare.

use std::fmt;

use crate::core::effect::Detail;

/// Who is told.
pub(super) type Sink = Box<dyn FnMut(&str)>;

/// The story of one run.
pub(super) struct Story {
    sink: Option<Sink>,
    digest: u64,
}

impl fmt::Debug for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Story").field("digest", &self.digest).finish_non_exhaustive()
    }
}

impl Story {
    pub(super) fn new(sink: Option<Sink>) -> Story {
        // FNV-1a of nothing.
        Story { sink, digest: 0xcbf2_9ce4_8422_2325 }
    }

    /// Whether anybody listens.
    pub(super) fn is_told(&self) -> bool {
        self.sink.is_some()
    }

    /// How much nodes tell.
    pub(super) fn detail(&self) -> Detail {
        if self.is_told() { Detail::Steps } else { Detail::Turns }
    }

    /// One line, led by the world's time and whom it is about.
    pub(super) fn tell(&mut self, now: u64, who: &str, what: impl FnOnce() -> String) {
        if let Some(sink) = &mut self.sink {
            let (seconds, micros) = (now / 1_000_000, now % 1_000_000);
            sink(&format!("{seconds:4}.{micros:06}  {who:<8} {}", what()));
        }
    }

    /// Something happened: these numbers say what.
    pub(super) fn mark(&mut self, numbers: [u64; 4]) {
        for byte in numbers.into_iter().flat_map(u64::to_le_bytes) {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// The digest of all that happened so far.
    pub(super) fn digest(&self) -> u64 {
        self.digest
    }
}

/// The beginning of a text that may be long.
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}... ({} bytes)", &text[..end], text.len()),
        None => text.to_string(),
    }
}
