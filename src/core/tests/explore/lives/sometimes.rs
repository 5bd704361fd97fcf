//! What must happen somewhere, or the model is asleep. Each run says which of it lies
//! within its bounds.

use std::sync::Arc;

use super::model::{Condition, State};
use super::node::Node;
use crate::core::membership::Standing;
use crate::core::state::Role;
use crate::core::types::{ClusterId, Incarnation, Index};

pub const FOUNDED: &str = "a cluster is founded, and all belong to it";
pub const REFOUNDED: &str = "a cluster is founded with a life that is not the first";
pub const TWO_RECORDS: &str = "two clusters are founded, and one of them comes to nothing";
pub const BELIEVED_THE_DEAD: &str = "a life that is over is believed";
pub const ELECTED: &str = "a leader is elected";
pub const TWO_LEAD: &str = "two lead at once, in different terms";
pub const COMMITTED: &str = "a client's entry is committed";
pub const ADMITTED: &str = "who lost its memory is admitted";
pub const VOTES_AGAIN: &str = "who lost its memory votes again";
pub const LEADS_AGAIN: &str = "who lost its memory leads";
pub const SURVIVES: &str =
    "what was committed before the loss is there after the vote of who lost it";
pub const NEEDED: &str = "the entry that gives the vote back is committed by it";

fn reborn(state: &State) -> impl Iterator<Item = Incarnation> {
    state.past.reborn.iter().map(|reborn| reborn.who)
}

/// Whether members that are committed name this life, and a voter only.
fn is_named(state: &State, who: Incarnation, standing: Standing) -> bool {
    state.nodes.iter().any(|node| {
        let agreed = node.core.members_at(node.core.commit_index());
        let member = agreed.and_then(|(_, members)| members.member(who));
        member.is_some_and(|member| member.standing == standing)
    })
}

/// Leaders that one that lost its memory helped to elect.
fn elected_by_reborn(state: &State) -> impl Iterator<Item = &Arc<Node>> {
    state.leaders().filter(|node| {
        let me = node.me().incarnation;
        let mut votes = state.past.votes.iter();
        reborn(state).any(|who| votes.any(|vote| *vote == (who, node.facts.term, me)))
    })
}

pub const SOMETIMES: [(&str, Condition); 12] = [
    (FOUNDED, |_, state| {
        let cluster = state.nodes[0].facts.cluster;
        let belongs =
            |node: &Arc<Node>| node.facts.cluster == cluster && !node.facts.log.is_empty();
        cluster != ClusterId(0) && state.nodes.iter().all(belongs)
    }),
    (REFOUNDED, |_, state| {
        let record = |node: &Arc<Node>| node.core.members_at(Index(1)).cloned();
        let mut records = state.nodes.iter().filter_map(record);
        records.any(|(_, record)| reborn(state).any(|who| record.names(who)))
    }),
    (TWO_RECORDS, |_, state| {
        let mut clusters: Vec<_> = state.nodes.iter().map(|node| node.facts.cluster).collect();
        clusters.retain(|cluster| *cluster != ClusterId(0));
        clusters.sort_unstable();
        clusters.dedup();
        clusters.len() > 1
    }),
    (BELIEVED_THE_DEAD, |_, state| {
        let dead = |(place, number): (usize, &u64)| {
            *number > 0 && state.nodes.get(place).is_some_and(|node| node.number() > *number)
        };
        state.nodes.iter().any(|node| node.facts.believed.iter().enumerate().any(dead))
    }),
    (ELECTED, |_, state| state.leaders().next().is_some()),
    (TWO_LEAD, |_, state| state.leaders().count() == 2),
    (COMMITTED, |_, state| state.nodes.iter().any(|node| node.has_committed_for_clients())),
    (ADMITTED, |_, state| reborn(state).any(|who| is_named(state, who, Standing::Joining))),
    (VOTES_AGAIN, |_, state| elected_by_reborn(state).next().is_some()),
    (LEADS_AGAIN, |_, state| state.leaders().any(|node| node.number() > 1)),
    (SURVIVES, |_, state| {
        let committed = state.past.reborn.iter().any(|reborn| reborn.committed);
        committed && elected_by_reborn(state).any(|node| node.has_for_clients(u64::MAX))
    }),
    (NEEDED, |_, state| {
        state.leaders().any(|node| {
            let Some((index, members)) = node.core.members_at(node.core.commit_index()) else {
                return false;
            };
            let Role::Leader(leader) = &node.core.role else { return false };
            let mut known = leader.progress.iter();
            reborn(state).any(|who| members.is_voter(who))
                && members.voters().count() == 3
                && known.all(|(who, known)| {
                    reborn(state).any(|of| of == *who) || known.match_index() < *index
                })
        })
    }),
];
