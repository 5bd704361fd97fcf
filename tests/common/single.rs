//! One node, and a machine that does what a test tells it to.

use std::sync::{Arc, Mutex};
use std::thread;

use kontiki::{BoxError, Config, Entry, RaftNode, StateMachine};
use serde_json::{Value, json};

use super::{address, until};

/// A config of one node at an address of its own.
pub fn single() -> Config {
    Config::new([("single", address())]).expect("the config is sound")
}

/// A node that takes part.
pub fn started(config: &Config, name: &str) -> RaftNode {
    let node = RaftNode::new(config, name).expect("the node can be made");
    node.start().expect("the node starts");
    node
}

/// A machine that does with each entry what it is told to.
pub struct Doing<F>(pub F);

impl<F: FnMut(&Entry) -> Value + Send + 'static> StateMachine for Doing<F> {
    fn apply(&mut self, entry: &Entry) -> Value {
        (self.0)(entry)
    }
    fn query(&self, query: &Value) -> Value {
        assert_ne!(*query, json!("panic"), "asked to panic");
        query.clone()
    }
    fn snapshot(&self) -> Result<Vec<u8>, BoxError> {
        Ok(Vec::new())
    }
    fn restore(&mut self, _: &[u8]) -> Result<(), BoxError> {
        Ok(())
    }
}

/// A node that a callback of its own can get hold of.
pub type Handle = Arc<Mutex<Option<RaftNode>>>;

/// Waits in a thread of its own, so that a deadlock is a failure and no hang.
#[track_caller]
pub fn without_deadlock<T: Send + 'static>(
    what: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> T {
    let thread = thread::spawn(body);
    until(what, || thread.is_finished());
    thread.join().expect("the thread did not panic")
}
