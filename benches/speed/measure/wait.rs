//! How clients wait for an answer.

use std::cell::Cell;
use std::thread;
use std::time::{Duration, Instant};

/// As who waits for the library's answers: looks for a while whether this one is `there`
/// before it parks, if the last one was there by then and others let it have the core.
pub fn look_then<T>(mut there: impl FnMut() -> Option<T>, park: impl FnOnce() -> T) -> T {
    const AT_MOST: Duration = Duration::from_micros(400);
    const AWAY: Duration = Duration::from_micros(200);
    thread_local! {
        static PARKS: Cell<u32> = const { Cell::new(0) };
    }
    let began = Instant::now();
    while PARKS.get() == 0 && began.elapsed() < AT_MOST {
        if let Some(answer) = there() {
            return answer;
        }
        let left = Instant::now();
        thread::yield_now();
        if left.elapsed() > AWAY {
            PARKS.set(64);
        }
    }
    let answer = park();
    let quick = began.elapsed() < AT_MOST;
    PARKS.set(if quick { PARKS.get().saturating_sub(1) } else { PARKS.get().max(1) });
    answer
}
