//! Raft for programs that want agreement without a framework: no async runtime, no
//! network layer to write, no storage layer to write, no server to run.
//!
//! ```toml
//! [dependencies]
//! kontiki = "0.1"
//! serde_json = "1"
//! ```
//!
//! One constructor makes a node, four calls use it. Here are three nodes in one program:
//!
//! ```
//! use kontiki::{BoxError, Config, RaftNode, Request};
//! use serde_json::json;
//! use std::net::UdpSocket;
//!
//! fn main() -> Result<(), BoxError> {
//!     // Three ports of this machine that are free.
//!     let names = ["node0", "node1", "node2"];
//!     let sockets = names.map(|_| UdpSocket::bind("127.0.0.1:0").unwrap());
//!     let addresses = sockets.map(|socket| socket.local_addr().unwrap());
//!
//!     let config = Config::new(names.into_iter().zip(addresses))?;
//!     let nodes = names.map(|name| RaftNode::new(&config, name).unwrap());
//!     for node in &nodes {
//!         node.start()?;
//!     }
//!
//!     // Any node takes a request, and sees it to the leader.
//!     let reply = nodes[1].client_request(json!({"val": 1}))?.wait()?;
//!     println!("committed at {} in term {}", reply.index, reply.term);
//!
//!     // The node that was asked shows it now, the others a little later.
//!     let entry = nodes[1].check_committed_entry().entry.unwrap();
//!     assert_eq!((entry.index, entry.value()), (reply.index, json!({"val": 1})));
//!
//!     // Who must not miss it asks for a linearizable read.
//!     let newest = nodes[2].client_request(Request::query(&()))?.wait()?;
//!     assert_eq!(newest.value, json!({"val": 1}));
//!
//!     // Two of three are a majority.
//!     nodes[0].stop();
//!     nodes[2].client_request(json!({"val": 2}))?.wait()?;
//!     Ok(()) // dropping a node stops it
//! }
//! ```
//!
//! Usually each node is a process of its own, on a host of its own, and one shared JSON file
//! names them all:
//!
//! ```json
//! {
//!   "nodes": {
//!     "node0": {"ip": "10.0.0.1", "port": 5565},
//!     "node1": {"ip": "10.0.0.2", "port": 5565},
//!     "node2": {"ip": "10.0.0.3", "port": 5565}
//!   },
//!   "data_dir": "/var/lib/my-program"
//! }
//! ```
//!
//! ```no_run
//! // Not run here: it waits for the other two processes.
//! # fn main() -> Result<(), kontiki::BoxError> {
//! let name = std::env::args().nth(1).ok_or("usage: my-program NAME")?;
//! let node = kontiki::RaftNode::new("cluster.json", &name)?;
//! node.start()?;
//! # Ok(())
//! # }
//! ```
//!
//! With `data_dir` a node keeps its log on the disk, without it in memory. Without a
//! [`StateMachine`] of your own the state is the newest committed value.
//!
//! [`RaftNode`] has five calls. What goes in: a [`Config`] (the file, and what only a
//! program can give: a [`StateMachine`], watchers) and [`Request`]s. What comes out:
//! a [`Pending`] reply to each request, [`Committed`] (what this node knows to be
//! agreed), [`Event`]s, and lines through the `log` crate: at `info` level a person
//! can follow an election, at `debug` each vote, append and commit.
//!
//! The [`guide`] goes on from here: to each of three uses, to secrets, to timeouts, to nodes
//! that do not start, to upgrades, and to what it takes of memory, disk and network.
//!
//! # What is promised
//!
//! On a network that loses, repeats, reorders, delays and corrupts datagrams, with
//! nodes that stop, start, are killed at any instruction and are lost:
//!
//! 1. Raft's five properties (Raft Figure 3).
//! 2. Commands and queries are linearizable. A request is committed at most once;
//!    the same [`id`](Request::id) once among the last 131,072 client entries.
//! 3. What was acknowledged survives. With `"data_dir"` in the file a node keeps its
//!    log on disk: it survives all nodes' loss of power, and the loss of any minority's
//!    disks. Without, it keeps it in memory: between [`stop`](RaftNode::stop) and
//!    [`start`](RaftNode::start) of the same `RaftNode` it remembers, but a
//!    `RaftNode` that is gone is a lost voter. Any minority of the voters may be lost,
//!    again and again: a new node under the name of a lost one joins by itself, is
//!    brought up to date, and votes. It counts as lost until
//!    [`is_voter`](Committed::is_voter) says so. Where a majority is lost at once the
//!    cluster stops, and says so; so does one of two voters whose leader is lost.
//! 4. Members are added and removed by request, one change at a time, while clients
//!    commit ([`Request::add_member`]); a removed one disturbs nobody. The file starts a
//!    cluster and never changes one, nor founds a second over the first.
//! 5. Who is up is decided once for all: verdicts are entries of the log, so every node
//!    passes through the same ones in the same order, and the index of the newest is a
//!    fencing token ([`Member::verdict`], [`Event::MemberDown`]). A member that died is
//!    agreed to be down some `failure_timeout_ms` later. One that lives may be taken for
//!    dead if it cannot be heard for so long; a node that is cut off accuses nobody.
//! 6. Nothing that comes from the network or the disk makes a node panic or grow
//!    without bound. The log is cut behind snapshots, in memory and on disk.
//! 7. A node that cannot do its work says why, once, in its log and its results: also
//!    when its disk fails, is full, or holds what it should not ([`inspect`] tells the
//!    files of such a node to a person).
//! 8. With a secret (`secret_file`, see [`guide::secrets`]) only what a holder of it sent is
//!    taken, and that once. Without one, let only trusted hosts reach the nodes' ports.
//!
//! # How it works
//!
//! ```text
//!  your program ──► RaftNode ──► queue ─────────┐                        ┌─► Pending, Event
//!                                               ▼                        │
//!    UDP socket ──► frame ──► message ──► core ──► effects ──► frame ──► UDP socket
//!                                         │    ▲
//!                              committed ─┼────┤ applied: state machine, in its own thread
//!                              log writes ┴────┘ written: disk, in its own thread
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | `core` | the protocol, pure: time and messages in, effects out |
//! | `wire` | messages as bytes, frames, fragments, the socket |
//! | `encoding` | entries, members and snapshots as bytes, for the wire and the disk |
//! | `storage` | a node's log, vote and snapshots on disk, and how they are read back |
//! | `operation`, `replica` | what clients' entries say, and the state they make: sessions, ids, state machine |
//! | `engine` | one node as bytes: all of the above, and the way of each request |
//! | `driver`, `shared`, `node` | the node's thread, what it shares with its callers, the five calls |
//! | `config`, `secret`, `request`, `committed`, `event`, `machine`, `error` | what goes in and what comes out |
//! | `sim` | the driver's stand-in, with time, network and disks of its own |
//! | `guide` | no code: how to use it |
//!
//! A request has a number in its node's session. Its node sends it to the leader and
//! sees in the log that comes back whether it arrived; it answers it when it applies
//! it. So no answer travels, and after [`Pending::wait`] the node that was asked
//! shows what was written.
//!
//! # Where it departs from the paper
//!
//! - Votes and acknowledgements count by *incarnation*, a random number that names a
//!   log, not by name: a node that lost its memory cannot vote twice under its name.
//! - The log begins with a founding record at index 1, term 0, written once, when all
//!   voters of the file have said that they are new (`"founding"` in [`Config`]).
//! - Pre-vote, leader stickiness and check-quorum are always on (thesis §9.6, §4.2.3,
//!   §6.2): a node that was cut off deposes nobody, and a leader that cannot reach a
//!   majority steps down.
//! - Members change one at a time (thesis §4.1), and none before the leader has committed in
//!   its term (Ongaro's note of 2015). A voter that comes back without its memory is
//!   replaced by the leader: one entry takes the old vote away, a second gives one to the
//!   new life.
//! - Heartbeats are messages of their own and carry no entries. A commit is told with the
//!   next append; where none comes, within a millisecond, and at once to who waits for it.
//! - Pieces of a snapshot may be lost, repeated and reordered, and a transfer goes on
//!   with another leader if it has the same snapshot (Raft §7 sends them one by one).
//! - A leader's own write goes on while its appends travel, and counts when it is done
//!   (thesis §10.2.1); one whose disk hangs steps down.
//! - A leader starts its term with an entry that says that it is up, where Raft §8 has an
//!   empty one; later entries of its own say who else is, and who is not.
//! - Queries are served by ReadIndex (thesis §6.4) on any node; there are no leases.
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `sim` | no | the module `sim`: whole clusters in one thread, from a seed, for tests of your own state machine. It adds no dependency |
//!
//! # What it needs
//!
//! Rust 1.89 or later, and the standard library. It is tried on Linux. No async runtime: a
//! [`Pending`] is a `Future` that any of them can await.
//!
//! # Packages in the public items
//!
//! What a program sees of other packages, so that another major version of one of them is
//! another one of this package:
//!
//! | package | where |
//! |---|---|
//! | `serde` 1 | [`Request::command`] and [`Request::query`] take what is `Serialize`, [`Entry::parse`] gives what is `Deserialize` |
//! | `serde_json` 1 | [`Value`](serde_json::Value) in configs, requests and replies; [`Error`](serde_json::Error) of [`Entry::new`] and [`Entry::parse`] |
//! | `crossbeam-channel` 0.5 | the [`Receiver`](crossbeam_channel::Receiver) of [`Config::events`] |
//! | `log` 0.4 | where the narration goes, with the target `kontiki` |

#![cfg_attr(docsrs, feature(doc_cfg))]

mod committed;
mod config;
mod core;
mod driver;
mod encoding;
mod engine;
mod error;
mod event;
#[cfg(any(test, all(fuzzing, feature = "sim")))]
#[doc(hidden)]
pub mod fuzzing;
mod guard;
pub mod guide;
mod machine;
mod node;
mod operation;
mod replica;
mod request;
mod secret;
mod shared;
#[cfg(any(test, feature = "sim"))]
#[cfg_attr(docsrs, doc(cfg(feature = "sim")))]
pub mod sim;
mod storage;
mod wire;

pub use committed::{Committed, Entry, Member, Role, Verdict};
pub use config::Config;
pub use error::{BoxError, Error, RequestError};
pub use event::Event;
pub use machine::StateMachine;
pub use node::RaftNode;
pub use request::{Pending, Reply, Request};
pub use storage::inspect;

/// The README's programs compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
