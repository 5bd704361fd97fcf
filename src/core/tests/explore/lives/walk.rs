//! A path that stateright found is walked once more, and `History`, which the other
//! provers use, judges each of its steps. A disk is a life's memory, and is kept when
//! that is lost: what was true once stays so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::node::digest;
use super::model::{Action, Cluster, State};
use super::node::Node;
use crate::core::properties::{Broken, Disk, History};
use crate::core::types::Incarnation;

/// What the history of the other provers finds first on this path.
pub fn judge(cluster: &Cluster, path: &[(State, Option<Action>)]) -> Option<Broken> {
    let mut history = History::default();
    let mut disks: BTreeMap<Incarnation, Disk> = BTreeMap::new();
    let mut known = BTreeSet::new();
    // A path may begin behind an election: what was true there is told as it is.
    let mut order: Vec<usize> = (0..cluster.bounds.voters).collect();
    order.sort_by_key(|place| !path[0].0.nodes[*place].facts.leads);
    let mut last: Vec<Arc<Node>> = Vec::new();
    for (state, action) in path {
        for node in &state.nodes {
            disks.entry(node.me().incarnation).or_default().mirror(&node.core);
        }
        for &place in &order {
            let node = &state.nodes[place];
            let same = last.get(place).is_some_and(|of| of.facts.digest == node.facts.digest);
            let others = state.nodes.iter().map(|node| &node.core);
            if let Some(Err(broken)) = (!same).then(|| history.check(&node.core, &disks, others)) {
                return Some(broken);
            }
        }
        last = state.nodes.clone();
        let Some(Action::Step(place, input)) = *action else { continue };
        let sent = cluster.step(&state.nodes[place], input);
        let node = &sent.outcome.node;
        let mut disk = disks[&node.me().incarnation].clone();
        disk.mirror(&node.core);
        for (_, envelope) in &sent.outcome.sends {
            if known.insert(digest(envelope))
                && let Err(broken) = history.check_outgoing(&node.core, &disk, envelope)
            {
                return Some(broken);
            }
        }
    }
    None
}
