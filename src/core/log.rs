//! The log in memory: entries by index, from the one after `base` on.
//!
//! What lies at or below the base is gone: a snapshot stands for it (Raft §7). Of the
//! entry at the base itself index and term are known, for what follows to be checked
//! against.
//!
//! Invariants, asserted where they could break: terms never fall from one entry
//! to the next; an append continues the log without a gap; a truncation leaves
//! the base alone. What may be truncated is for the protocol to say (nothing at
//! or below the commit index), and so is what may be compacted (nothing that no
//! durable snapshot covers).

use std::collections::VecDeque;

use super::types::{Entry, Index, Term};

/// The log of one node.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// What precedes the first entry held here: (0, 0) until a log is compacted.
    base_index: Index,
    base_term: Term,
    /// Behind those that are no longer of the log, and whose memory is given back bit by
    /// bit: ten thousand at once would keep the node from its work, and what an allocator
    /// gets back in one piece goes to the operating system and comes again page by page.
    entries: VecDeque<Entry>,
    /// How many those are.
    gone: usize,
}

/// A log that was once long gives its memory back.
const CAPACITY_LEAST: usize = 4096;
/// So many go together, and of many such a part more.
const GO_AT_ONCE: usize = 64;
const GO_A_PART: usize = 64;
/// With each entry that comes, so many go of those that are no longer of the log.
const GO_FOR_ONE: usize = 2;

impl Log {
    /// An empty log.
    pub fn new() -> Log {
        Log::default()
    }

    /// A log that begins after an entry that a snapshot covers.
    pub fn with_base(index: Index, term: Term) -> Log {
        Log { base_index: index, base_term: term, ..Log::default() }
    }

    /// What precedes the first entry that is held here; 0 if nothing is missing.
    pub fn base_index(&self) -> Index {
        self.base_index
    }

    /// The term of the entry at the base.
    pub fn base_term(&self) -> Term {
        self.base_term
    }

    /// The index of the last entry; 0 if there is none.
    pub fn last_index(&self) -> Index {
        Index(self.base_index.0 + self.len() as u64)
    }

    fn len(&self) -> usize {
        self.entries.len() - self.gone
    }

    /// The term of the last entry; 0 if there is none.
    pub fn last_term(&self) -> Term {
        self.entries.range(self.gone..).next_back().map_or(self.base_term, |entry| entry.term)
    }

    /// Whether no entry was ever appended.
    pub fn is_empty(&self) -> bool {
        self.last_index() == Index(0)
    }

    /// The term of the entry at `index`; `None` outside of the log.
    pub fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.base_index {
            return Some(self.base_term);
        }
        self.entry(index).map(|entry| entry.term)
    }

    /// The entry at `index`.
    pub fn entry(&self, index: Index) -> Option<&Entry> {
        let position = usize::try_from(index.0.checked_sub(self.base_index.0 + 1)?).ok()?;
        self.entries.get(self.gone.checked_add(position)?)
    }

    /// The entries from `from` to the end, with their indexes.
    pub fn from(&self, from: Index) -> impl Iterator<Item = (Index, &Entry)> {
        let from = from.0.max(self.base_index.0 + 1);
        let skipped = (from - self.base_index.0 - 1).min(self.len() as u64) as usize;
        (from..).map(Index).zip(self.entries.range(self.gone + skipped..))
    }

    /// Adds an entry at the end and says where it stands.
    pub fn append(&mut self, entry: Entry) -> Index {
        assert!(
            entry.term >= self.last_term(),
            "an entry of term {} after one of term {}",
            entry.term,
            self.last_term()
        );
        self.let_go(GO_FOR_ONE);
        self.entries.push_back(entry);
        self.last_index()
    }

    /// Removes the entries from `from` to the end.
    pub fn truncate_from(&mut self, from: Index) {
        assert!(
            from > self.base_index,
            "truncation from {from} reaches into the base at {}",
            self.base_index
        );
        let keep = (from.0 - self.base_index.0 - 1).min(self.len() as u64);
        self.entries.truncate(self.gone + keep as usize);
    }

    /// The entries up to `index` are no longer of the log.
    pub fn compact_to(&mut self, index: Index) {
        assert!(index <= self.last_index(), "compaction to {index} of {}", self.last_index());
        let Some(term) = self.term_at(index).filter(|_| index > self.base_index) else { return };
        self.let_go(self.gone);
        self.gone = (index.0 - self.base_index.0) as usize;
        (self.base_index, self.base_term) = (index, term);
    }

    /// Gives back the memory of a part of what is no longer of the log: all of it before
    /// long, however much it is, and never so much that it takes long.
    pub fn let_some_go(&mut self) {
        self.let_go(GO_AT_ONCE + self.gone / GO_A_PART);
    }

    /// Gives back the memory of so many entries that are no longer of the log, or of all
    /// that there are.
    pub fn let_go(&mut self, most: usize) {
        if self.gone == 0 {
            return;
        }
        let count = self.gone.min(most);
        self.entries.drain(..count);
        self.gone -= count;
        let (length, capacity) = (self.entries.len(), self.entries.capacity());
        if self.gone == 0 && capacity > CAPACITY_LEAST && length < capacity / 4 {
            self.entries.shrink_to(length * 2);
        }
    }

    /// Whether a log that ends with (`last_term`, `last_index`) is at least as
    /// up-to-date as this one: terms first, then lengths (Raft §5.4.1).
    pub fn is_at_most(&self, last_term: Term, last_index: Index) -> bool {
        (last_term, last_index) >= (self.last_term(), self.last_index())
    }

    /// The last index at or below `index` whose term is not above `term`, with
    /// its term: where two logs that differ at `index` may still agree. Terms
    /// rise along a log, so a whole term is passed over at once (Raft §5.3). Below
    /// the base nothing is known: there it is `index` itself, with `term`.
    pub fn last_not_above(&self, index: Index, term: Term) -> (Index, Term) {
        if index < self.base_index {
            return (index, term);
        }
        let within = self.last_index().min(index).0.saturating_sub(self.base_index.0) as usize;
        // Of those that are gone no term is above the base's.
        let below = self.entries.partition_point(|entry| entry.term <= term);
        let below = below.saturating_sub(self.gone).min(within);
        match below.checked_sub(1) {
            Some(position) => {
                (Index(self.base_index.0 + below as u64), self.entries[self.gone + position].term)
            }
            None => (self.base_index, self.base_term),
        }
    }
}

/// What is gone makes no difference.
#[cfg(test)]
impl std::hash::Hash for Log {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        let Log { base_index, base_term, entries, gone } = self;
        (base_index, base_term, entries.len() - gone).hash(state);
        entries.range(gone..).for_each(|entry| entry.hash(state));
    }
}

#[cfg(test)]
mod tests {
    use super::super::types::{Payload, Protocol};
    use super::*;

    impl Log {
        fn base(&self) -> (Index, Term) {
            (self.base_index, self.base_term)
        }
    }

    fn log(terms: &[u64]) -> Log {
        let mut log = Log::new();
        for &term in terms {
            log.append(Entry { term: Term(term), payload: Payload::Protocol(Protocol::Empty) });
        }
        log
    }

    /// Pitfall 4: index and term compared separately.
    #[test]
    fn the_term_of_the_last_entry_comes_before_the_length() {
        let long_and_old = log(&[1, 1, 1, 1]);
        assert!(long_and_old.is_at_most(Term(2), Index(2)));
        assert!(!log(&[1, 2]).is_at_most(Term(1), Index(4)));
        assert!(log(&[1, 2]).is_at_most(Term(2), Index(2)));
        assert!(!log(&[1, 2, 2]).is_at_most(Term(2), Index(2)));
    }

    #[test]
    fn the_last_index_not_above_a_term_is_what_a_walk_finds() {
        let log = log(&[1, 1, 3, 3, 3, 6, 6]);
        for index in 0..10 {
            for term in 0..8 {
                let mut walk = Index(index).min(log.last_index());
                while walk > Index(0) && log.term_at(walk).unwrap() > Term(term) {
                    walk = walk.previous();
                }
                let found = log.last_not_above(Index(index), Term(term));
                assert_eq!(found, (walk, log.term_at(walk).unwrap()), "at {index}, term {term}");
            }
        }
    }

    #[test]
    fn a_compacted_log_answers_as_the_whole_one_from_its_base_on() {
        let terms = [1, 1, 3, 3, 3, 6, 6];
        for base in 0..=7 {
            let (whole, mut cut) = (log(&terms), log(&terms));
            cut.compact_to(Index(base));
            // Before, while and after what is gone gives its memory back.
            for _ in 0..=7 {
                assert_eq!((cut.base_index(), cut.last_index()), (Index(base), Index(7)));
                assert_eq!(cut.last_term(), Term(6));
                for index in 0..10 {
                    let at = Index(index);
                    let here = index >= base && index <= 7;
                    assert_eq!(cut.term_at(at), whole.term_at(at).filter(|_| here));
                    assert_eq!(cut.entry(at).is_some(), here && index > base);
                    let rest: Vec<_> = whole.from(Index(index.max(base + 1))).collect();
                    assert_eq!(cut.from(at).collect::<Vec<_>>(), rest);
                    for term in (0..8).map(Term) {
                        let (found, _) = whole.last_not_above(at, term);
                        let known = found >= Index(base) && at >= Index(base);
                        let below = if index < base { (at, term) } else { cut.base() };
                        let found = if known { whole.last_not_above(at, term) } else { below };
                        assert_eq!(cut.last_not_above(at, term), found);
                    }
                }
                cut.let_go(1);
            }
            assert_eq!(cut.gone, 0);
            cut.compact_to(Index(base.saturating_sub(1)));
            assert_eq!(cut.base_index(), Index(base), "what is gone is gone");
            cut.append(Entry { term: Term(7), payload: Payload::Protocol(Protocol::Empty) });
            assert_eq!(cut.last_index(), Index(8));
        }
        assert_eq!(Log::with_base(Index(9), Term(4)).term_at(Index(9)), Some(Term(4)));
    }

    /// What is gone gives its memory back bit by bit, with what comes and with each flush.
    #[test]
    fn the_memory_of_what_is_gone_is_not_given_back_at_once() {
        let mut log = log(&[1; 20]);
        log.compact_to(Index(12));
        assert_eq!((log.entries.len(), log.len()), (20, 8));
        log.append(Entry { term: Term(1), payload: Payload::Protocol(Protocol::Empty) });
        assert_eq!((log.entries.len(), log.len()), (19, 9));
        log.let_go(4);
        assert_eq!((log.entries.len(), log.len()), (15, 9));
        // As much as one compaction leaves is kept at most.
        log.compact_to(Index(14));
        assert_eq!((log.entries.len(), log.len()), (9, 7));
        log.truncate_from(Index(16));
        assert_eq!((log.last_index(), log.len()), (Index(15), 1));
        log.let_go(100);
        assert_eq!(log.entries.len(), 1);
    }

    /// A large log that is cut is gone within a few hundred turns, and no turn has to let
    /// go more than a part of it.
    #[test]
    fn much_that_is_gone_goes_in_parts() {
        let mut log = log(&vec![1; 1_000_000]);
        log.compact_to(Index(1_000_000));
        let mut turns = 0;
        while log.gone > 0 {
            let before = log.gone;
            log.let_some_go();
            assert!(before - log.gone <= 64 + before / 64);
            turns += 1;
        }
        assert!((200..600).contains(&turns), "{turns} turns");
        assert!(log.entries.capacity() <= CAPACITY_LEAST);
    }

    #[test]
    fn a_truncation_beyond_the_end_changes_nothing() {
        let mut log = log(&[1, 2]);
        log.truncate_from(Index(3));
        assert_eq!(log.last_index(), Index(2));
        log.truncate_from(Index(1));
        assert!(log.is_empty());
        assert_eq!(log.from(Index(1)).count(), 0);
    }
}
