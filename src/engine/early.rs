//! Appends that came before what they continue.
//!
//! The core refuses an append that does not fit on its log, and tells the leader so. Where
//! a datagram was lost or overtaken the missing one comes next, and what followed it would
//! have to travel once more: over a wide area that is a round trip for all that was under
//! way. So a copy is held here, and given to the core again when the gap before it is
//! filled. To the core this is a network that was slow and delivered twice, which it bears
//! anyway: it checks term and place as ever (Raft §5.3), and no promise rests on what is
//! held. Nor is a leader believed to live for it: it is given on only when another append
//! of the same term has just come. With a change of term all of it goes.

use std::collections::BTreeMap;

use crate::core::message::{AppendEntries, Message};
use crate::core::types::{Entry, Index, Term};
use crate::wire::frame::Header;

/// So many bytes of entries are held at most, and so many appends: more than a leader has
/// under way to one node (`core::progress`, `core::pipeline`).
const HELD_BYTES: usize = 2 * 1024 * 1024;
const HELD_APPENDS: usize = 1024;

/// Those of one term, by what they continue.
#[derive(Debug, Default)]
pub(super) struct Early {
    term: Term,
    held: BTreeMap<Index, (Header, AppendEntries)>,
    bytes: usize,
}

impl Early {
    /// A copy of this append, if it comes before what it continues.
    pub(super) fn copy(message: &Message, last_index: Index) -> Option<AppendEntries> {
        match message {
            Message::AppendEntries(append) if append.prev_log_index > last_index => {
                Some(append.clone())
            }
            _ => None,
        }
    }

    /// The core has refused it for now. If there is no room, what lies furthest ahead goes:
    /// it is needed last.
    pub(super) fn hold(&mut self, header: Header, append: AppendEntries, term: Term) {
        self.forget_others(term);
        if append.term != term || append.entries.is_empty() {
            return;
        }
        self.bytes += size_of(&append);
        if let Some((_, again)) = self.held.insert(append.prev_log_index, (header, append)) {
            self.bytes -= size_of(&again);
        }
        while self.bytes > HELD_BYTES || self.held.len() > HELD_APPENDS {
            let Some((_, (_, furthest))) = self.held.pop_last() else { return };
            self.bytes -= size_of(&furthest);
        }
    }

    /// The next that fits on the log by now.
    pub(super) fn next(&mut self, term: Term, last_index: Index) -> Option<(Header, Message)> {
        self.forget_others(term);
        let first = self.held.first_entry().filter(|held| *held.key() <= last_index)?;
        let (header, append) = first.remove();
        self.bytes -= size_of(&append);
        Some((header, Message::AppendEntries(append)))
    }

    /// Only what this term's leader sent is held.
    pub(super) fn forget_others(&mut self, term: Term) {
        if self.term != term {
            *self = Early { term, ..Early::default() };
        }
    }
}

fn size_of(append: &AppendEntries) -> usize {
    append.entries.iter().map(Entry::size_bytes).sum()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::core::message::Envelope;
    use crate::core::types::{ClusterId, Payload};

    const TERM: Term = Term(3);

    fn append(prev: u64, size: usize) -> AppendEntries {
        let payload = Payload::Client(Bytes::from(vec![7; size]));
        AppendEntries {
            term: TERM,
            seq: prev,
            prev_log_index: Index(prev),
            prev_log_term: TERM,
            leader_commit: Index(0),
            entries: vec![Entry { term: TERM, payload }],
        }
    }

    fn header() -> Header {
        Header { cluster: ClusterId(1), from: Envelope::ANYONE, to: Envelope::ANYONE }
    }

    fn hold(early: &mut Early, append: AppendEntries) {
        early.hold(header(), append, TERM);
    }

    fn drain(early: &mut Early, mut last_index: u64) -> Vec<u64> {
        let mut all = Vec::new();
        while let Some((_, Message::AppendEntries(append))) = early.next(TERM, Index(last_index)) {
            last_index = last_index.max(append.prev_log_index.0 + append.entries.len() as u64);
            all.push(append.prev_log_index.0);
        }
        all
    }

    /// In the order of the log, however they came, and nothing across a gap.
    #[test]
    fn what_fits_by_now_is_given_on_in_order() {
        let mut early = Early::default();
        for prev in [9, 6, 5, 7, 6] {
            hold(&mut early, append(prev, 10));
        }
        assert!(drain(&mut early, 4).is_empty(), "5 is missing");
        assert_eq!(drain(&mut early, 5), [5, 6, 7], "9 is missing");
        assert_eq!(drain(&mut early, 9), [9]);
        assert_eq!((early.bytes, early.held.len()), (0, 0));
    }

    /// Only what came early is copied: what fits, or is old, the core has seen to.
    #[test]
    fn what_fits_is_not_copied() {
        let came = |prev| Early::copy(&Message::AppendEntries(append(prev, 10)), Index(5));
        assert!(came(4).is_none() && came(5).is_none());
        assert!(came(6).is_some());
    }

    #[test]
    fn a_new_term_drops_all() {
        let mut early = Early::default();
        hold(&mut early, append(5, 10));
        assert!(early.next(Term(4), Index(5)).is_none());
        assert_eq!((early.bytes, early.held.len()), (0, 0));
        hold(&mut early, append(5, 10));
        early.hold(header(), append(6, 10), Term(4));
        assert!(early.held.is_empty(), "nor is anything of an old term held");
    }

    /// Bytes and appends are bounded, and what is needed first stays.
    #[test]
    fn what_lies_furthest_ahead_finds_no_room() {
        let mut early = Early::default();
        for prev in (1..=3_000).rev() {
            hold(&mut early, append(prev, 10));
        }
        assert_eq!(drain(&mut early, 1), (1..=HELD_APPENDS as u64).collect::<Vec<_>>());
        for prev in 1..=100 {
            hold(&mut early, append(prev, 60_000));
            assert!(early.bytes <= HELD_BYTES, "{} bytes", early.bytes);
        }
        let kept = (HELD_BYTES / 60_016) as u64;
        assert_eq!(drain(&mut early, 1), (1..=kept).collect::<Vec<_>>());
    }
}
