//! How long a waiting thread looks for its answer before it parks.
//!
//! To wake a thread that has parked costs a good part of what a commit on one machine
//! takes. So a thread looks first, and lets others go on between two looks. That is of no
//! use where answers take longer: a thread whose last one did parks at once, until one was
//! quick again. And it does harm where others want the core for themselves: who is woken
//! goes before them, and who has let them go on waits for its turn. Then it parks at once
//! for a while.

use std::cell::Cell;
use std::thread;
use std::time::{Duration, Instant};

/// For so long at most. Commits on one machine take less unless it is busy, and those of
/// another machine, or on a disk, mostly more.
const AT_MOST: Duration = Duration::from_micros(400);

/// Who let others go on and was away for so long shares the core with them.
const AWAY: Duration = Duration::from_micros(200);
/// So many quick answers are then awaited parked.
const AT_ONCE: u32 = 64;

thread_local! {
    /// So many quick answers are awaited parked before this thread looks again.
    static PARKS: Cell<u32> = const { Cell::new(0) };
}

fn parks() -> u32 {
    PARKS.try_with(Cell::get).unwrap_or(0)
}

fn park_next(times: u32) {
    let _ = PARKS.try_with(|parks| parks.set(times));
}

/// One wait.
pub(super) struct Look {
    began: Instant,
    looks: bool,
}

impl Look {
    pub(super) fn begin() -> Look {
        Look { began: Instant::now(), looks: parks() == 0 }
    }

    /// Lets others go on. False: it is time to park.
    pub(super) fn again(&mut self, deadline: Option<Instant>) -> bool {
        self.again_after(deadline, thread::yield_now)
    }

    fn again_after(&mut self, deadline: Option<Instant>, give_way: impl FnOnce()) -> bool {
        let now = Instant::now();
        let looks = self.looks && now.duration_since(self.began) < AT_MOST;
        if !looks || deadline.is_some_and(|deadline| now >= deadline) {
            return false;
        }
        give_way();
        if now.elapsed() > AWAY {
            park_next(AT_ONCE);
            self.looks = false;
        }
        true
    }

    /// The wait is over, after this thread has parked.
    pub(super) fn parked(self) {
        let quick = self.began.elapsed() < AT_MOST;
        park_next(if quick { parks().saturating_sub(1) } else { parks().max(1) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A wait that began so long ago is over.
    fn end(ago: Duration) {
        let began = Instant::now().checked_sub(ago).expect("the machine is up for longer");
        Look { began, looks: false }.parked();
    }

    /// One is over that was quick, however long others keep the core here.
    fn end_quickly() {
        Look { began: Instant::now() + Duration::from_secs(60), looks: false }.parked();
    }

    #[test]
    fn a_thread_looks_for_a_while_if_its_last_answer_was_quick() {
        assert!(Look::begin().again(None));
        park_next(0);
        end(AT_MOST);
        assert!(!Look::begin().again(None), "the last one was slow");
        end_quickly();
        assert!(Look::begin().looks, "and this one was quick");
        let began = Instant::now().checked_sub(AT_MOST).expect("the machine is up for longer");
        assert!(!Look { began, looks: true }.again(None), "it is time to park");
    }

    #[test]
    fn who_shares_the_core_with_others_parks_for_a_while() {
        let mut away = Look::begin();
        assert!(away.again_after(None, || thread::sleep(2 * AWAY)), "it looks once more");
        assert!(!away.again(None));
        for _ in 0..AT_ONCE {
            assert!(!Look::begin().again(None));
            end_quickly();
        }
        assert!(Look::begin().looks, "after so many quick answers");
    }

    #[test]
    fn nobody_looks_beyond_the_end_of_a_wait() {
        let mut look = Look::begin();
        assert!(look.again(Some(Instant::now() + Duration::from_secs(60))));
        assert!(!look.again(Some(Instant::now())));
    }
}
