//! Founding, lost memories and replacement: every way in which three voters without any
//! memory can become a cluster, and in which one of them loses its memory again and is
//! taken back, walked over the real core.
//!
//! ```text
//!   a, b, c start fresh ──► hellos ──► the record ──► votes ──► entries
//!                   at any moment: c is over, c' starts fresh
//!        what c had sent, and what was sent to c, is still under way
//! ```
//!
//! # What a state is
//!
//! The nodes, each a core in one of its lives; the network, as the set of all that was
//! ever sent; the past, as far as the properties need it; and what is used up of what is
//! bounded. As in the other exploration nothing is ever taken out of the network by its
//! arrival, so loss, repetition and reordering need no actions. Nodes are volatile: a
//! write is done at once, and a memory that is lost is lost as a whole. The next life is
//! another incarnation, and a' is told from a by its number.
//!
//! *Time* stands still, and always suits: an echo is always recent, who joins has always
//! caught up quickly, nobody keeps faith with a leader. That allows more than can happen.
//! What time brings about is an action: asking a peer who it is (whether or not the core
//! would have a reason to ask it again), and standing for election, with the pre-votes of
//! a majority. A life begins with asking all others, as a node's first tick does.
//!
//! *Loss of memory* is an action at any moment, of a node in any state.
//!
//! Not in here: disks that remember (the other exploration has them), snapshots,
//! heartbeats, appends that are given up, wishes of clients for other members, more than
//! three nodes.
//!
//! # Why states may be merged
//!
//! The fingerprint holds all of a core that the other exploration takes of it, and of its
//! peers: the life that is believed and what it said, what is asked, who is superseded,
//! and an order of events. What is put in order after each step:
//!
//! - *Events of lives* (`core::lives::orders`) are counted by each node, and only compared
//!   in two ways: while it is fresh, when a peer's challenge was drawn, with when the
//!   others were first believed, and only by who would found, which is the first; once it
//!   belongs, when it was drawn, with when the members came to name another life. So they
//!   are kept as before or after that.
//! - *What leads to asking* is forgotten: asking is always allowed, within bounds. Each
//!   asking has a number of its own, drawn from the life, the peer and the count.
//! - *Numbers of appends* are their addressee's own, from 1 on: a leader only compares
//!   those of one member, and those of heartbeat rounds, which there are none of.
//! - *Who asks for pre-votes* waits as a follower does; whoever may stand, stands.
//!
//! And what is taken out of the network (`Cluster::tidy`):
//!
//! - *Hellos are taken apart* into what they ask and what they echo. To be asked changes
//!   nobody (that is asserted), and it costs nothing to have an echo that is
//!   never received. So who is asked echoes at once, and again when it belongs to a
//!   cluster, and in each of its lives; and what it would ask in turn it may ask at any
//!   time.
//! - A question whose sender is over or has its answer is of no use; nor is the echo of
//!   one. A challenge is a random number, drawn once: no later one will ever be the same.
//!   So a dead life's hello can only make somebody ask, which all may do anyway.
//! - What is meant for a life that is over is refused by all that follow.
//! - What a life sent is refused by who believes a later one, as is judged in each state;
//!   and by who never believed it, and has no echo of it under way, if it is over.
//!
//! What dead lives have sent and may still be taken, votes, acknowledgements, appends and
//! echoes, stays under way for ever.
//!
//! # What is judged
//!
//! The properties of the other exploration that are of more than disks, over all clusters
//! and lives: never two leaders in a term, nor two clusters with a leader each, or with
//! commits beyond the record; one vote of an incarnation in a term; logs and commits. And
//! of this one's own: members differ by one voter at most, and change one by one; lives
//! are believed, and named, in order; the founders of a record were fresh when all of them
//! were born.
//!
//! # The rooms
//!
//! `bounds` how far a run goes; `node` and `step` one node; `past` the properties; `model`
//! the whole; `runs` what is walked; `sometimes` what must come to pass in them; `bugs` the
//! proof that bugs are found; `walk` the comparison with `History`.

mod bounds;
mod bugs;
mod model;
mod node;
mod past;
mod runs;
mod sometimes;
mod step;
mod walk;

use std::sync::atomic::Ordering;

use self::bounds::Bounds;
use self::model::{Action, Cluster, State};
use super::tour::{self, Explored};
use crate::core::properties::Broken;

pub use self::past::{BELIEVED_IN_ORDER, FOUNDED_BY_THE_FRESH, NAMED_IN_ORDER, SETTLED_CHANGE};

/// Walks through all that lies within the bounds, to the end of every way.
fn explore(bounds: Bounds, expected: &[&str]) {
    let name = bounds.name;
    assert!(!tour::walk_all(name, Cluster::new(bounds), expected));
}

impl Explored for Cluster {
    fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    fn judge(&self, path: &[(State, Option<Action>)]) -> Option<Broken> {
        walk::judge(self, path)
    }
}
