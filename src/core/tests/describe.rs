//! A world in words: for people who look at a failure, and for the scripts.

use super::super::Core;
use super::super::types::{Incarnation, Index};
use super::world::{Node, World};

/// Of a long log only so many entries are shown.
const TERMS_SHOWN: usize = 50;

impl World {
    /// A line a node: for people who look at a failure.
    pub fn describe(&self) -> String {
        let mut lines = String::new();
        for place in 0..self.nodes.len() {
            lines.push_str(&self.describe_node(place));
            lines.push('\n');
        }
        lines
    }

    pub fn describe_node(&self, place: usize) -> String {
        let node = &self.nodes[place];
        let Some(core) = &node.core else { return format!("{} down", node.name) };
        let mut line = format!("{} {} term {}", node.name, core.role(), core.term());
        if let Some(candidate) = core.hard().voted_for {
            line += &format!(" voted {}", self.name_of(candidate));
        }
        if let Some(leader) = core.leader() {
            line += &format!(" leader {}", self.name_of(leader));
        }
        line += &format!("{} commit {}", describe_log(core), core.commit_index());
        if core.durability.durable() < core.log().last_index() {
            line += &format!(" durable {}", core.durability.durable());
        }
        if let Some((incoming, _)) = &core.incoming {
            let (id, received) = (incoming.id(), incoming.received());
            line += &format!(" has {received} of {} bytes of {}@{}", id.length, id.index, id.term);
        }
        line
    }

    /// The node with that log; an older one of its logs is marked.
    pub fn name_of(&self, incarnation: Incarnation) -> String {
        let node = self.nodes.iter().find(|node| node.incarnation == incarnation);
        match node {
            Some(node) => node.name.clone(),
            None => {
                let lost = |node: &&Node| {
                    node.core.as_ref().and_then(Core::members).is_some_and(|m| m.names(incarnation))
                };
                let member = self.nodes.iter().find(lost).and_then(|node| {
                    node.core.as_ref()?.members()?.member(incarnation).map(|m| m.name.clone())
                });
                format!("{}(lost)", member.unwrap_or("?".to_string()))
            }
        }
    }
}

/// The terms of the entries, behind what is not held any more; and the snapshot, if it
/// stands for some that are.
fn describe_log(core: &Core) -> String {
    let log = core.log();
    let mut terms: Vec<String> =
        log.from(Index(1)).map(|(_, entry)| entry.term.to_string()).collect();
    if terms.len() > TERMS_SHOWN {
        terms.splice(..terms.len() - TERMS_SHOWN, ["...".to_string()]);
    }
    let mut line = String::new();
    if let Some(id) = core.snapshot().map(|s| s.id).filter(|id| id.index > log.base_index()) {
        line += &format!(" snapshot {}@{}", id.index, id.term);
    }
    line += " log ";
    if log.base_index() > Index(0) {
        line += &format!("after {}@{} ", log.base_index(), log.base_term());
    }
    line + &format!("[{}]", terms.join(" "))
}
