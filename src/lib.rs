//! Raft for programs that want agreement without a framework: no async runtime, no
//! network layer to write, no storage layer to write, no server to run.
//!
//! One shared JSON file names the nodes, one constructor joins the cluster, four
//! calls use it.

#![allow(dead_code)]

mod committed;
mod config;
mod core;
mod driver;
mod engine;
mod error;
mod event;
mod guard;
mod machine;
mod node;
mod operation;
mod replica;
mod request;
mod shared;
mod wire;

pub use committed::{Committed, Entry, Member, Role};
pub use config::Config;
pub use error::{BoxError, Error, RequestError};
pub use event::Event;
pub use machine::StateMachine;
pub use node::RaftNode;
pub use request::{Pending, Reply, Request};
