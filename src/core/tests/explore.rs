//! Every way in which a small cluster can go, walked with stateright over the real
//! core: not a model of the protocol, but `Core` itself, cloned from state to state.
//!
//! ```text
//!   Action ──► one node's real Core ──► flush ──► messages ──► the network's set
//!                       │                  └────► a write ───► under way ──► the disk
//!                       └── the past learns of it, the properties are judged
//! ```
//!
//! # What a state is
//!
//! Three nodes, each with its core, its disk (what a crash leaves) and its writes
//! under way; the network, as the set of all that was ever sent; the past, as far as
//! the properties need it; and what is used up of what is bounded.
//!
//! *Loss, repetition and reordering* need no actions of their own. What arrives stays
//! in the network, so any message arrives at any time, any number of times, or never:
//! there is no bound on any of the three.
//!
//! *Time* stands still. What it brings about is an action that may happen at any
//! moment: an election timer runs out, heartbeats are due, appends are given up, a
//! leader finds that it reaches no majority, a promise to a leader lapses (looked at
//! when somebody asks for a vote, because only then does it count).
//!
//! *A crash and its restart* are one action: a node that is down and one that came
//! back and has not been heard yet look the same to everybody. The crash finds any
//! number of the writes on the disk, and of the next one the first entries, if it
//! carries no term and vote. The new run is met by each of the others later, or never;
//! until then they take what the old run sent.
//!
//! *Votes and acknowledgements* wait for the disk in the runs with slow disks: a write
//! is done by an action of its own. In the others a step ends with it on the disk.
//!
//! *Snapshots* are taken by an action, at any moment, of all that may be applied, and
//! the log is cut behind them at once. The state in one is the list of the entries that
//! it came from (`Stamp`): so whatever is cut, a log is compared from its start, and
//! what a snapshot stands for entry by entry. Each travels in one piece: `transfer` and
//! the soak have the pieces.
//!
//! *Pre-votes* are walked in runs of their own. In the others a majority gives them at
//! once, whatever its logs: more than can happen, so what is safe then is safe.
//!
//! Not in here: new members and reads; a driver that hands over several inputs before it
//! lets anything out; a `Hello` answered by a run that is over by the time it arrives.
//! Founding, greetings and who comes back without its memory are explored in `lives`.
//!
//! # Why states may be merged
//!
//! Two states are one if their fingerprints are (64 bits: with ten million states, two
//! are taken for one by accident in fewer than one of a hundred thousand runs). The
//! fingerprint holds all of a node but this (`Node::digest`):
//!
//! - The election timer and all that is drawn for it: timers run out by an action. The
//!   source of chance is set anew before a number is drawn that anybody compares (the
//!   round of a pre-vote), from the node's run and the count of its askings, which are
//!   in the fingerprint. Any other time is the one time there is.
//! - What is only told: notes, how often a node campaigned in vain, when it was last in
//!   touch with a majority.
//! - Reads and repeated operations of a leader: there are none. Of the peers, only which
//!   lives are believed: the rest serves greetings and admission.
//!
//! Three things are put in order in the state itself after each step (`Node::settle`).
//! With no write under way the writes are numbered from 0 again: numbers are only
//! compared with each other. What waits for the same write is held in one order and
//! once: it leaves together, into a network that repeats and reorders. And where
//! promises are not walked, whoever heard a leader heard it long ago.
//!
//! Envelopes to or from a run that is over leave the network when the core would
//! refuse them for good. Runs that *sweep* also drop answers of a term that their
//! addressee has left (`Cluster::says_nothing`): tried out before it is done. Each of
//! their kinds has a smaller run that does not.
//!
//! Nodes with one fingerprint do the same, so what came of an input is remembered: a
//! run of a million states takes some ten thousand steps of a core.
//!
//! # The rooms
//!
//! `bounds` how far a run goes, and bugs to plant; `node` and `step` one node; `past`
//! the properties; `model` the whole; `runs` what is walked; `bugs` the proof that bugs
//! are found; `tour` how that is done; `walk` the comparison with `History`, by which the
//! other provers judge; `lives` the other exploration.

mod bounds;
mod bugs;
mod lives;
mod model;
mod node;
mod past;
mod runs;
mod step;
mod tour;
mod walk;

use std::sync::atomic::Ordering;

use self::bounds::Bounds;
use self::model::{Action, Cluster, State};
use self::tour::Explored;
use crate::core::properties::Broken;

/// How many nodes there are.
const NODES: usize = 3;

/// Walks through all that lies within the bounds (`tour`). What was left out is what should
/// be.
fn explore(bounds: Bounds, expected: &[&str]) {
    let (name, newest_seq) = (bounds.name, bounds.newest_seq);
    let left_out = tour::walk_all(name, Cluster::new(bounds), expected);
    assert_eq!(left_out, newest_seq != u64::MAX, "{name}: what bounded it is what should");
}

impl Explored for Cluster {
    fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    fn left_out(&self) -> Option<String> {
        let newest_seq = self.bounds.newest_seq;
        match self.cut_off.load(Ordering::Relaxed) {
            0 => None,
            ways => Some(format!("{ways} ways were left at their leader's message {newest_seq}")),
        }
    }

    fn judge(&self, path: &[(State, Option<Action>)]) -> Option<Broken> {
        walk::judge(self, path)
    }
}
