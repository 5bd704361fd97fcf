//! The two forms of the properties, compared: a path that stateright found is walked
//! once more, and `History`, which the other provers use, judges each of its steps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::NODES;
use super::model::{Action, Cluster, State};
use super::node::Node;
use crate::core::properties::{Broken, Disk, History};
use crate::core::types::Incarnation;

/// What the history of the other provers finds first on this path.
pub fn judge(cluster: &Cluster, path: &[(State, Option<Action>)]) -> Option<Broken> {
    let mut history = History::default();
    let mut known = BTreeSet::new();
    // A path may begin behind an election: what was true there is told as it is.
    let mut order: Vec<usize> = (0..NODES).collect();
    let leads = |place: usize| path[0].0.nodes[place].facts.leads;
    order.sort_by_key(|place| !leads(*place));
    let mut last: Option<[Arc<Node>; NODES]> = None;
    for (state, action) in path {
        let (before, after) = (last.as_ref().unwrap_or(&state.nodes), &state.nodes);
        for &place in &order {
            let same = last.is_some() && before[place].facts.digest == after[place].facts.digest;
            let found = if same { None } else { look(&mut history, after, place) };
            if found.is_some() {
                return found;
            }
        }
        last = Some(after.clone());
        let sent = action.map(|action| sent_by(cluster, state, action)).unwrap_or_default();
        for (place, node, envelope) in sent {
            if known.insert((place, super::node::digest(&envelope)))
                && let Err(broken) = history.check_outgoing(&node.core, &node.disk, &envelope)
            {
                return Some(broken);
            }
        }
    }
    None
}

type Said = (usize, Arc<Node>, crate::core::message::Envelope);

/// What an action lets out, with the node as it is then.
fn sent_by(cluster: &Cluster, state: &State, action: Action) -> Vec<Said> {
    let Action::Step(place, input) = action else { return Vec::new() };
    let sent = cluster.step(&state.nodes[place], input);
    let said = |envelope: &_| (place, sent.outcome.node.clone(), Clone::clone(envelope));
    sent.outcome.sends.iter().map(said).collect()
}

fn look(history: &mut History, nodes: &[Arc<Node>; NODES], place: usize) -> Option<Broken> {
    let disk = |node: &Arc<Node>| (node.core.me().incarnation, node.disk.clone());
    let disks: BTreeMap<Incarnation, Disk> = nodes.iter().map(disk).collect();
    let others = nodes.iter().map(|node| &node.core);
    history.check(&nodes[place].core, &disks, others).err()
}
