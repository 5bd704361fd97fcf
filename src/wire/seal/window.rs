//! Which counters of one sender were taken.

/// So far behind the newest may a counter be. A sender counts all that it sends, to
/// whomever; what is overtaken by more than this is as good as lost.
pub const WINDOW: u64 = 4_096;
const WORDS: usize = (WINDOW / 64) as usize;

/// The counters that were taken, of the newest `WINDOW`: those before are refused.
#[derive(Clone, Debug)]
pub struct Window {
    /// One more than the newest; 0: none was taken.
    next: u64,
    /// Whether a counter was taken, at its place modulo `WINDOW`.
    taken: [u64; WORDS],
}

impl Window {
    /// Nothing was taken.
    pub fn new() -> Window {
        Window { next: 0, taken: [0; WORDS] }
    }

    /// Whether this counter was not taken yet, as far as is known: what is too old to be
    /// known counts as taken.
    pub fn is_new(&self, counter: u64) -> bool {
        if counter >= self.next {
            // One more than this cannot be told.
            return counter < u64::MAX;
        }
        let (word, bit) = place(counter);
        self.next - counter <= WINDOW && self.taken[word] & bit == 0
    }

    /// Takes this counter. False: it was not new.
    pub fn take(&mut self, counter: u64) -> bool {
        if !self.is_new(counter) {
            return false;
        }
        // What falls out at the other end makes room; at most all of it.
        for passed in self.next.max(counter.saturating_sub(WINDOW - 1))..=counter {
            let (word, bit) = place(passed);
            self.taken[word] &= !bit;
        }
        self.next = self.next.max(counter + 1);
        let (word, bit) = place(counter);
        self.taken[word] |= bit;
        true
    }
}

fn place(counter: u64) -> (usize, u64) {
    let at = counter % WINDOW;
    ((at / 64) as usize, 1 << (at % 64))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_is_taken_once_in_any_order() {
        let mut window = Window::new();
        for counter in [5, 3, 0, 4_000, 2, 1, 4] {
            assert!(window.take(counter), "{counter}");
            assert!(!window.take(counter), "{counter} again");
        }
    }

    #[test]
    fn what_is_older_than_the_window_is_refused() {
        let mut window = Window::new();
        assert!(window.take(WINDOW));
        assert!(!window.is_new(0));
        assert!(window.take(1));
        assert!(window.take(10 * WINDOW));
        assert!(!window.is_new(9 * WINDOW));
        assert!(window.take(9 * WINDOW + 1));
    }

    #[test]
    fn the_last_counter_of_all_is_never_taken() {
        let mut window = Window::new();
        assert!(!window.is_new(u64::MAX) && !window.take(u64::MAX));
        assert!(window.take(u64::MAX - 1) && !window.take(u64::MAX - 1));
    }

    proptest! {
        /// Beside a twin that remembers all of them.
        #[test]
        fn it_knows_what_a_set_knows(
            start in prop_oneof![Just(0), any::<u64>()],
            steps in proptest::collection::vec(
                prop_oneof![4 => 0..10u64, 2 => 0..2 * WINDOW, 1 => 0..100 * WINDOW],
                1..300,
            ),
            back in proptest::collection::vec(0..WINDOW + 10, 300),
        ) {
            let (mut window, mut seen) = (Window::new(), BTreeSet::new());
            let mut newest = start;
            for (step, back) in steps.into_iter().zip(back) {
                newest = newest.saturating_add(step).min(u64::MAX - 1);
                for counter in [newest, newest.saturating_sub(back)] {
                    let last = seen.last().copied();
                    let old = last.is_some_and(|last: u64| last >= counter && last - counter >= WINDOW);
                    let fresh = !old && !seen.contains(&counter);
                    prop_assert_eq!(window.is_new(counter), fresh);
                    prop_assert_eq!(window.take(counter), fresh);
                    if fresh {
                        seen.insert(counter);
                    }
                }
            }
        }
    }
}
