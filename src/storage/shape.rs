//! The shape of the log: which index has which term, without the entries. A record
//! says on which entry it follows, and of which term that is.

use std::collections::VecDeque;

use crate::core::log::Log;
use crate::core::types::{Index, Term};

/// The terms of the log, one run of equal ones after the other.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    /// Where each run begins. The first one is that of the base, below which
    /// nothing is known.
    runs: VecDeque<(Index, Term)>,
    last_index: Index,
}

impl Shape {
    /// A log without entries after this one.
    pub(super) fn with_base(index: Index, term: Term) -> Shape {
        Shape { runs: VecDeque::from([(index, term)]), last_index: index }
    }

    /// The shape of this log.
    pub(super) fn of(log: &Log) -> Shape {
        let mut shape = Shape::with_base(log.base_index(), log.base_term());
        for (_, entry) in log.from(log.base_index().next()) {
            shape.push(entry.term);
        }
        shape
    }

    /// The last entry's index and term.
    pub(super) fn last(&self) -> (Index, Term) {
        let (_, term) = self.runs.back().expect("the base has a run");
        (self.last_index, *term)
    }

    /// The term of an entry; `None` outside of what is known.
    pub(super) fn term_at(&self, index: Index) -> Option<Term> {
        let run = self.runs.partition_point(|(first, _)| *first <= index).checked_sub(1)?;
        (index <= self.last_index).then(|| self.runs[run].1)
    }

    /// The log is cut after `prev_index`, whose term is told.
    pub(super) fn cut(&mut self, prev_index: Index) -> Term {
        let Some(term) = self.term_at(prev_index) else {
            let base = self.runs.front().map_or(Index(0), |(index, _)| *index);
            let last = self.last_index;
            panic!("a record that follows on {prev_index} in a log from {base} to {last}");
        };
        self.last_index = prev_index;
        self.runs.truncate(self.runs.partition_point(|(first, _)| *first <= prev_index));
        term
    }

    /// An entry of this term follows.
    pub(super) fn push(&mut self, term: Term) {
        let (last_index, last_term) = self.last();
        assert!(term >= last_term, "an entry of term {term} after one of term {last_term}");
        self.last_index = last_index.next();
        if term > last_term {
            self.runs.push_back((self.last_index, term));
        }
    }

    /// What lies below `base` is never asked for again.
    pub(super) fn forget(&mut self, base: Index) {
        let Some(term) = self.term_at(base) else { return };
        while self.runs.front().is_some_and(|(first, _)| *first <= base) {
            self.runs.pop_front();
        }
        self.runs.push_front((base, term));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_answers_as_a_list_of_terms_does() {
        let terms = [0, 0, 1, 1, 1, 4, 4, 9];
        for base in 0..terms.len() {
            for cut in base..terms.len() {
                let mut shape = Shape::with_base(Index(0), Term(terms[0]));
                terms[1..].iter().for_each(|term| shape.push(Term(*term)));
                shape.forget(Index(base as u64));
                assert_eq!(shape.cut(Index(cut as u64)), Term(terms[cut]));
                shape.push(Term(9));
                let expected = |index: usize| match index {
                    _ if index < base => None,
                    _ if index <= cut => Some(Term(terms[index])),
                    _ => (index == cut + 1).then_some(Term(9)),
                };
                for index in 0..10 {
                    let found = shape.term_at(Index(index as u64));
                    assert_eq!(found, expected(index), "{index}, base {base}, cut at {cut}");
                }
                assert_eq!(shape.last(), (Index(cut as u64 + 1), Term(9)));
            }
        }
    }
}
