//! Marks the time in which a thread runs a user's code on a node's behalf:
//! `apply`, `query`, `on_commit`, a waker. What would wait there for that same
//! node (`Pending::wait`, `stop`, drop) would wait for itself; it asks
//! `inside_node` first and does not wait then.

use std::any::Any;
use std::cell::Cell;
use std::marker::PhantomData;

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Ends the marked time when it is dropped. It stays on its thread.
pub(crate) struct Guard {
    before: bool,
    _this_thread: PhantomData<*const ()>,
}

/// Marks this thread as a node's own until the guard is dropped. May be nested.
#[must_use]
pub(crate) fn enter() -> Guard {
    Guard { before: INSIDE.replace(true), _this_thread: PhantomData }
}

/// Whether this thread now runs on a node's behalf.
pub(crate) fn inside_node() -> bool {
    INSIDE.get()
}

/// What a panic said.
pub(crate) fn said(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_string())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no text".to_string())
}

impl Drop for Guard {
    fn drop(&mut self) {
        INSIDE.set(self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_this_thread_only_and_nests() {
        assert!(!inside_node());
        let outer = enter();
        drop(enter());
        assert!(inside_node(), "the inner guard must not end the outer one");
        std::thread::spawn(|| assert!(!inside_node())).join().unwrap();
        drop(outer);
        assert!(!inside_node());
    }

    #[test]
    fn ends_when_the_callback_panics() {
        let caught = std::panic::catch_unwind(|| {
            let _guard = enter();
            panic!("a callback's bug");
        });
        assert!(caught.is_err());
        assert!(!inside_node());
    }
}
