//! What a node shows of itself in `Committed`, as one value.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::committed::Verdict;
use crate::core;
use crate::core::membership::Standing;
use crate::core::types::{Incarnation, Time};
use crate::engine::{self, Engine};
use crate::shared::{Heard, Published, PublishedMember, Shared, Ticket};

/// The published evidence is brought up to date this often at most, in microseconds.
const EVIDENCE_EVERY: u64 = 1_000;

/// Shows one node.
pub(super) struct Publisher<'a> {
    shared: &'a Arc<Shared>,
    clock: Instant,
    /// When evidence was last brought up to date.
    at: Option<Time>,
}

impl<'a> Publisher<'a> {
    /// Of a node whose time began at `clock`.
    pub(super) fn new(shared: &'a Arc<Shared>, clock: Instant) -> Publisher<'a> {
        Publisher { shared, clock, at: None }
    }

    /// Before anybody is answered: who has a reply sees in `Committed` what it
    /// speaks of.
    pub(super) fn publish(&mut self, engine: &Engine<Ticket>, turned: bool, now: Time) {
        let core = engine.core();
        let role = engine::public_role(core.role());
        let at = |time: Time| self.clock + Duration::from_micros(time.0);
        let mut published = self.shared.published.lock();
        published.reach(engine.newest());
        published.quorum_at = core.quorum_at(now).filter(|at| at.0 > 0).map(at);
        published.commit_index = published.commit_index.max(core.commit_index().0);
        published.last_index = core.log().last_index().0;
        published.campaigns_at = core.campaigns_at().map(at);
        let members_at = core.members_agreed().map_or(0, |(index, _)| index.0);
        let turned = turned || published.role != role || published.term != core.term().0;
        let others = published.members_at != members_at || published.turns != core.turns();
        let vote = core.hard().voted_for;
        let turned = turned || others || published.vote != vote;
        let due = self.at.is_none_or(|last| now.since(last) >= EVIDENCE_EVERY);
        if !turned && !due {
            return;
        }
        self.at = Some(now);
        published.role = role;
        published.term = core.term().0;
        published.incarnation = core.me().incarnation.0;
        // Their names are copied only when they are others, or stand otherwise.
        if others {
            publish_members(core, &mut published);
        }
        published.members_at = members_at;
        published.turns = core.turns();
        published.up_since = core.up_since().map(|index| index.0);
        let leader = core.leader().and_then(|leader| core.known_name(leader));
        if published.leader.as_deref() != leader {
            published.leader = leader.map(str::to_string);
        }
        published.vote = vote;
        let voted_for = vote.and_then(|vote| core.known_name(vote));
        if published.voted_for.as_deref() != voted_for {
            published.voted_for = voted_for.map(str::to_string);
        }
        published.waiting_for = core.waiting(now).map_or_else(Vec::new, |waiting| waiting.names());
        publish_evidence(core, &mut published, now, at);
    }
}

/// The members as they are agreed.
fn publish_members(core: &core::Core, published: &mut Published) {
    published.members.clear();
    for member in core.members_agreed().into_iter().flat_map(|(_, members)| &members.members) {
        published.members.push(PublishedMember {
            name: member.name.clone(),
            address: member.address,
            voter: member.is_voter(),
            joining: member.standing == Standing::Joining,
            incarnation: member.incarnation.map(|incarnation| incarnation.0),
            verdict: core
                .verdicts()
                .of(&member.name)
                .map(|agreed| Verdict { up: agreed.up, index: agreed.index.0 }),
            heard: Heard::Never,
            suspected: false,
        });
    }
}

/// What this node has heard of them itself.
fn publish_evidence(
    core: &core::Core,
    published: &mut Published,
    now: Time,
    at: impl Fn(Time) -> Instant,
) {
    let (me, suspects) = (core.me().incarnation, core.suspects(now));
    for member in &mut published.members {
        let Some(incarnation) = member.incarnation.map(Incarnation) else { continue };
        member.heard = match core.heard_at(incarnation) {
            _ if incarnation == me => Heard::Own,
            Some(time) => Heard::At(at(time)),
            None => Heard::Never,
        };
        member.suspected = suspects(incarnation);
    }
}
