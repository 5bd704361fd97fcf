//! How long a waiting thread looks for its answer before it parks.
//!
//! To wake a thread that has parked costs a good part of what a commit on one machine
//! takes. So a thread looks first, and lets others go on between two looks. That is of no
//! use where answers take longer: a thread whose last one did parks at once, until one was
//! quick again.

use std::cell::Cell;
use std::thread;
use std::time::{Duration, Instant};

/// For so long at most. Commits on one machine take less unless it is busy, and those of
/// another machine, or on a disk, mostly more.
const AT_MOST: Duration = Duration::from_micros(400);

thread_local! {
    /// Whether the last answer was there within that time.
    static QUICK: Cell<bool> = const { Cell::new(true) };
}

/// One wait.
pub(super) struct Look {
    began: Instant,
    looks: bool,
}

impl Look {
    pub(super) fn begin() -> Look {
        let looks = QUICK.try_with(Cell::get).unwrap_or(true);
        Look { began: Instant::now(), looks }
    }

    /// Lets others go on. False: it is time to park.
    pub(super) fn again(&self, deadline: Option<Instant>) -> bool {
        let now = Instant::now();
        let looks = self.looks && now.duration_since(self.began) < AT_MOST;
        if !looks || deadline.is_some_and(|deadline| now >= deadline) {
            return false;
        }
        thread::yield_now();
        true
    }

    /// The wait is over, after this thread has parked.
    pub(super) fn parked(self) {
        let quick = self.began.elapsed() < AT_MOST;
        let _ = QUICK.try_with(|last| last.set(quick));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_looks_for_a_while_if_its_last_answer_was_quick() {
        let first = Look::begin();
        assert!(first.again(None));
        thread::sleep(AT_MOST);
        assert!(!first.again(None), "it is time to park");
        first.parked();
        let second = Look::begin();
        assert!(!second.again(None), "the last one was slow");
        second.parked();
        assert!(Look::begin().again(None), "and this one was quick");
    }

    #[test]
    fn nobody_looks_beyond_the_end_of_a_wait() {
        let look = Look::begin();
        assert!(look.again(Some(Instant::now() + Duration::from_secs(60))));
        assert!(!look.again(Some(Instant::now())));
    }
}
