//! The search for an order: calls and answers in one list by time, from which what
//! is placed is taken out, and into which it comes back when the search turns back.
//!
//! ```text
//!   call 0 ─ call 1 ─ call 2 ─ answer 1 ─ call 3 ─ answer 0 ─ answer 3
//!  └── each may come first ──┘    ▲
//!                                 └ the search looks no further: whatever is called
//!                                   after an answer comes after what was answered
//! ```
//!
//! A call that is placed takes its answer out with it, and so the first answer moves
//! on. When no answer is left, all that had to be explained is.

use std::collections::HashSet;

use super::{Call, Model, Verdict};

/// What it costs to remember a point of the search, beside its words: about as much
/// time as to try so many calls, and some 100 bytes.
const REMEMBERED: u64 = 16;

/// A call as the search takes it.
pub(super) struct Piece<'a, M: Model> {
    /// Its place in the history.
    pub number: usize,
    /// It took effect at this time or later.
    pub from: u64,
    /// It took effect at this time or earlier; `None`: perhaps never.
    pub until: Option<u64>,
    pub operation: &'a M::Operation,
    /// `None`: nobody knows what it gave.
    pub answer: Option<&'a M::Answer>,
}

impl<'a, M: Model> Piece<'a, M> {
    /// The call as its client saw it.
    pub fn of(number: usize, call: &'a Call<M::Operation, M::Answer>) -> Piece<'a, M> {
        let (from, until) = call.span();
        let answer = call.answered.as_ref().map(|(_, answer)| answer);
        Piece { number, from, until, operation: &call.operation, answer }
    }

    fn step(&self, state: &M::State) -> Option<M::State> {
        M::step(state, self.operation, self.answer)
    }

    fn goes_first(&self) -> bool {
        self.answer.is_some_and(|answer| M::goes_first(self.operation, answer))
    }
}

/// Looks for an order, from this state on and with at most so much work.
pub(super) fn search<M: Model>(
    start: M::State,
    mut pieces: Vec<Piece<'_, M>>,
    limit: u64,
) -> Verdict {
    // By the times of the calls: then what is placed is nearly always all of the
    // first ones and a few of the next, which takes little room to remember.
    pieces.sort_by_key(|piece| (piece.from, piece.number));
    Search::new(&pieces).run(start, limit)
}

struct Search<'a, M: Model> {
    pieces: &'a [Piece<'a, M>],
    /// What is not placed.
    timeline: Timeline,
    /// What is placed.
    placed: Set,
    /// The same, in order.
    steps: Vec<Step<M::State>>,
    /// So many pieces must be placed and are not.
    missing: usize,
    /// Where the search has been. For finding only: its order is never looked at.
    known: HashSet<Point<M::State>>,
    deepest: Deepest,
}

/// A piece that was placed.
struct Step<S> {
    piece: usize,
    /// The state before it.
    before: S,
}

/// All that the rest of the search depends on.
#[derive(PartialEq, Eq, Hash)]
struct Point<S> {
    placed: (usize, Box<[u64]>),
    state: S,
}

/// How far the search ever came.
#[derive(Default)]
struct Deepest {
    order: Vec<usize>,
    /// What could have come next but for its answer. Empty at first, and never after.
    stuck: Vec<usize>,
    /// The first so many of `order` are those of the present `steps`. So each step
    /// is copied once, however often the search comes a little further.
    shared: usize,
}

impl<'a, M: Model> Search<'a, M> {
    fn new(pieces: &'a [Piece<'a, M>]) -> Search<'a, M> {
        Search {
            pieces,
            timeline: Timeline::new(pieces),
            placed: Set::new(pieces.len()),
            steps: Vec::new(),
            missing: pieces.iter().filter(|piece| piece.until.is_some()).count(),
            known: HashSet::new(),
            deepest: Deepest::default(),
        }
    }

    fn run(mut self, mut state: M::State, limit: u64) -> Verdict {
        let mut work = 0;
        let mut event = self.timeline.first();
        while self.missing > 0 {
            let Event::Call(piece) = event else {
                // Nothing that was called before this answer fits here.
                self.remember_how_far();
                let Some(step) = self.turn_back() else { return self.refused() };
                state = step.before;
                event = self.timeline.after(step.piece);
                continue;
            };
            work += 1;
            if work > limit {
                return Verdict::Undecided { limit };
            }
            match self.pieces[piece].step(&state) {
                Some(after) if self.is_new(piece, &after, &mut work) => {
                    let before = std::mem::replace(&mut state, after);
                    self.place(Step { piece, before });
                    event = self.timeline.first();
                }
                _ => event = self.timeline.after(piece),
            }
        }
        let order = self.steps.iter().map(|step| self.pieces[step.piece].number).collect();
        Verdict::Linearizable { order }
    }

    /// Whether the search has never been where this piece, placed next, would bring
    /// it (Lowe 2017). It has from now on.
    fn is_new(&mut self, piece: usize, after: &M::State, work: &mut u64) -> bool {
        self.placed.insert(piece);
        let placed = self.placed.packed();
        self.placed.remove(piece);
        let cost = REMEMBERED + placed.1.len() as u64;
        let is_new = self.known.insert(Point { placed, state: after.clone() });
        *work += if is_new { cost } else { 0 };
        is_new
    }

    fn place(&mut self, step: Step<M::State>) {
        self.placed.insert(step.piece);
        self.timeline.take_out(step.piece);
        self.missing -= usize::from(self.pieces[step.piece].until.is_some());
        self.steps.push(step);
    }

    /// Puts the last step back in whose stead another can be tried.
    fn turn_back(&mut self) -> Option<Step<M::State>> {
        loop {
            let step = self.steps.pop()?;
            self.deepest.shared = self.deepest.shared.min(self.steps.len());
            self.missing += usize::from(self.pieces[step.piece].until.is_some());
            self.timeline.put_back(step.piece);
            self.placed.remove(step.piece);
            // What goes first is in nobody's way: what failed after it fails without.
            if !self.pieces[step.piece].goes_first() {
                return Some(step);
            }
        }
    }

    fn remember_how_far(&mut self) {
        let deepest = &mut self.deepest;
        if !deepest.stuck.is_empty() && self.steps.len() <= deepest.order.len() {
            return;
        }
        deepest.order.truncate(deepest.shared);
        deepest.order.extend(self.steps[deepest.shared..].iter().map(|step| step.piece));
        deepest.shared = deepest.order.len();
        deepest.stuck.clear();
        let mut event = self.timeline.first();
        while let Event::Call(piece) = event {
            deepest.stuck.push(piece);
            event = self.timeline.after(piece);
        }
    }

    fn refused(self) -> Verdict {
        let numbers = |pieces: Vec<usize>| -> Vec<usize> {
            pieces.into_iter().map(|piece| self.pieces[piece].number).collect()
        };
        Verdict::NotLinearizable {
            placed: numbers(self.deepest.order),
            stuck: numbers(self.deepest.stuck),
        }
    }
}

/// What stands at a place of the timeline.
#[derive(Clone, Copy)]
enum Event {
    /// The call of this piece.
    Call(usize),
    /// An answer, or the end.
    Answer,
}

/// Calls and answers by time: a ring, doubly linked, so that what is taken out can
/// be put back where it was. It begins and ends at place 0; the call of piece `n` is
/// at place `2n + 1`, its answer at `2n + 2`.
struct Timeline {
    next: Vec<usize>,
    previous: Vec<usize>,
    is_answered: Vec<bool>,
}

impl Timeline {
    fn new<M: Model>(pieces: &[Piece<'_, M>]) -> Timeline {
        let mut places: Vec<(u64, bool, usize)> = Vec::new();
        for (number, piece) in pieces.iter().enumerate() {
            places.push((piece.from, false, 2 * number + 1));
            places.extend(piece.until.map(|until| (until, true, 2 * number + 2)));
        }
        // At one time calls stand before answers, so that they overlap.
        places.sort_unstable();
        let mut timeline = Timeline {
            next: vec![0; 2 * pieces.len() + 1],
            previous: vec![0; 2 * pieces.len() + 1],
            is_answered: pieces.iter().map(|piece| piece.until.is_some()).collect(),
        };
        let mut last = 0;
        for (_, _, place) in places {
            timeline.next[last] = place;
            timeline.previous[place] = last;
            last = place;
        }
        timeline.previous[0] = last;
        timeline
    }

    fn first(&self) -> Event {
        self.at(self.next[0])
    }

    /// What stands after the call of this piece.
    fn after(&self, piece: usize) -> Event {
        self.at(self.next[2 * piece + 1])
    }

    fn at(&self, place: usize) -> Event {
        if place % 2 == 1 { Event::Call(place / 2) } else { Event::Answer }
    }

    fn take_out(&mut self, piece: usize) {
        self.unlink(2 * piece + 1);
        if self.is_answered[piece] {
            self.unlink(2 * piece + 2);
        }
    }

    /// Undoes the last `take_out` that was not undone: a place finds back between
    /// its neighbours only if they are as they were when it left.
    fn put_back(&mut self, piece: usize) {
        if self.is_answered[piece] {
            self.link(2 * piece + 2);
        }
        self.link(2 * piece + 1);
    }

    fn unlink(&mut self, place: usize) {
        let (previous, next) = (self.previous[place], self.next[place]);
        self.next[previous] = next;
        self.previous[next] = previous;
    }

    fn link(&mut self, place: usize) {
        let (previous, next) = (self.previous[place], self.next[place]);
        self.next[previous] = place;
        self.previous[next] = place;
    }
}

/// A set of pieces, a bit each, most of them at the front.
pub(super) struct Set {
    words: Vec<u64>,
    /// All words before this one are full.
    full: usize,
    /// All words from this one on are empty; not below `full`.
    used: usize,
}

impl Set {
    pub fn new(pieces: usize) -> Set {
        Set { words: vec![0; pieces.div_ceil(64)], full: 0, used: 0 }
    }

    pub fn insert(&mut self, piece: usize) {
        let word = piece / 64;
        self.words[word] |= 1 << (piece % 64);
        self.used = self.used.max(word + 1);
        while self.full < self.used && self.words[self.full] == u64::MAX {
            self.full += 1;
        }
    }

    pub fn remove(&mut self, piece: usize) {
        let word = piece / 64;
        self.words[word] &= !(1 << (piece % 64));
        self.full = self.full.min(word);
        while self.used > self.full && self.words[self.used - 1] == 0 {
            self.used -= 1;
        }
    }

    /// The set in as few words as tell it from any other.
    pub fn packed(&self) -> (usize, Box<[u64]>) {
        (self.full, self.words[self.full..self.used].into())
    }
}
