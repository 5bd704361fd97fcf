//! How clients wait for an answer.

/// The library's own rule, and not another like it.
#[path = "../../../src/request/look.rs"]
#[allow(dead_code)] // in its tests, which are the library's
mod look;

use self::look::Look;

/// As who waits for the library's answers: looks for a while whether this one is `there`
/// before it parks.
pub fn look_then<T>(mut there: impl FnMut() -> Option<T>, park: impl FnOnce() -> T) -> T {
    if let Some(answer) = there() {
        return answer;
    }
    let mut look = Look::begin();
    while look.again(None) {
        if let Some(answer) = there() {
            return answer;
        }
    }
    let answer = park();
    look.parked();
    answer
}
