//! Members that come and go in a simulated world: whom an operator adds and removes,
//! who may lose its memory, and what must have become of everybody in the end.

use std::collections::BTreeSet;

use crate::core::Core;
use crate::core::effect::RoleName;
use crate::core::membership::{Member, Membership, Standing};
use crate::core::types::{Incarnation, Index, Payload, Protocol};
use crate::request::Request;

use super::world::World;

/// The members that are committed and all that some log states after them, and what they
/// become when one that joins gets its vote: whichever of these comes to count, the cluster
/// must be able to go on with it.
fn may_come(world: &World) -> Vec<Membership> {
    let mut all = in_force(world);
    for members in all.clone() {
        let joins = members.members.iter().filter(|m| m.standing == Standing::Joining);
        let votes = |member: &Member| Member { standing: Standing::Voter, ..member.clone() };
        all.extend(joins.filter_map(|member| members.with(votes(member))));
    }
    all
}

/// The members that are committed and all that some log states after them.
fn in_force(world: &World) -> Vec<Membership> {
    let end = Index(world.history.committed_entries().len() as u64);
    let mut all: Vec<Membership> = committed(world).cloned().into_iter().collect();
    for node in &world.nodes {
        let disk = &world.disks[&node.incarnation];
        let entries = disk.entries.iter().map(|entry| &entry.payload);
        let from = (disk.base.0.0 + 1..).map(Index);
        let behind = from.zip(entries).filter(|(index, _)| *index > end);
        all.extend(behind.filter_map(|(_, payload)| stated(payload)).cloned());
        if let Some(running) = &node.running {
            let log = running.engine.core().log().from(end.next());
            all.extend(log.filter_map(|(_, entry)| stated(&entry.payload)).cloned());
        }
    }
    all
}

/// How many of these voters have lost what they knew, if these logs are gone.
fn lost(members: &Membership, gone: &BTreeSet<Incarnation>) -> usize {
    let is_gone = |member: &&Member| member.incarnation.is_some_and(|of| gone.contains(&of));
    members.voters().filter(is_gone).count()
}

/// Whether a node may lose its memory: the lost stay a minority of the voters (design,
/// "Lives": a member counts as lost until the members that are committed name its new
/// incarnation as a voter), and one voter of the file remembers, or a new cluster would
/// rightly be founded by the file. `beyond` says that so many more may be lost.
pub(super) fn may_lose(world: &World, place: usize, beyond: usize) -> bool {
    let mut gone = world.gone.clone();
    gone.insert(world.nodes[place].incarnation);
    let survives = |members: &Membership| {
        lost(members, &gone) <= (members.voters().count().saturating_sub(1)) / 2 + beyond
    };
    let remembers = |other: &usize| {
        *other != place && world.disks[&world.nodes[*other].incarnation].hard.cluster.is_some()
    };
    let founded = world.disks.values().any(|disk| disk.hard.cluster.is_some());
    let anybody = (0..world.plan.voters).any(|other| remembers(&other));
    may_come(world).iter().all(survives) && (anybody || !founded)
}

fn stated(payload: &Payload) -> Option<&Membership> {
    match payload {
        Payload::Protocol(Protocol::Members(members)) => Some(members),
        _ => None,
    }
}

/// The newest members that are committed.
fn committed(world: &World) -> Option<&Membership> {
    let entries = world.history.committed_entries();
    entries.iter().rev().find_map(|(entry, _)| stated(&entry.payload))
}

/// Whether one that the first file does not name was ever a member.
pub(super) fn has_grown(world: &World) -> bool {
    let first = world.plan.voters + world.plan.learners;
    let later: Vec<&String> = world.nodes[first..].iter().map(|node| &node.name).collect();
    let names = |members: &Membership| later.iter().any(|name| members.named(name).is_some());
    let entries = world.history.committed_entries().iter();
    entries.filter_map(|(entry, _)| stated(&entry.payload)).any(names)
}

/// Somebody asks at some node that one that is no member become one.
pub(super) fn add(world: &mut World) {
    let Some(members) = committed(world) else { return };
    let outside: Vec<usize> = (0..world.nodes.len())
        .filter(|place| members.named(&world.nodes[*place].name).is_none())
        .collect();
    // Now and then one that is a member already.
    let of = match outside.is_empty() || world.chance.permille(50) {
        true => world.chance.between(0, world.nodes.len() as u64 - 1) as usize,
        false => *world.chance.pick(&outside),
    };
    let neighbor = world.plan.neighbor(of);
    let request = match world.chance.permille(250) {
        true => Request::add_learner(neighbor.name, neighbor.address),
        false => Request::add_member(neighbor.name, neighbor.address),
    };
    wish(world, request);
}

/// Somebody asks that a member be none any more.
pub(super) fn remove(world: &mut World) {
    let Some(members) = committed(world) else { return };
    let names = names(members);
    let name = world.chance.pick(&names).clone();
    wish(world, Request::remove_member(name));
}

/// Somebody asks that another lead.
pub(super) fn transfer(world: &mut World) {
    let Some(members) = committed(world) else { return };
    let names = names(members);
    let name = world.chance.pick(&names).clone();
    wish(world, Request::transfer_leadership(name));
}

fn names(members: &Membership) -> Vec<String> {
    members.members.iter().map(|member| member.name.clone()).collect()
}

fn wish(world: &mut World, request: Request) {
    let running: Vec<usize> =
        (0..world.nodes.len()).filter(|place| world.running(*place).is_some()).collect();
    if running.is_empty() {
        return;
    }
    let place = *world.chance.pick(&running);
    let asked = world.clients.wish(&request);
    world.ask(place, request, asked);
}

/// How a world stands when its faults have ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stands {
    /// One leader whom all members follow, with one log; who joins has joined; who is no
    /// member is silent.
    Settled,
    /// A majority of the voters has lost its memory: nobody leads, nobody serves, there is
    /// no second cluster, and everybody says why.
    Stopped,
    /// It goes on healing.
    Neither,
}

pub(super) fn stands(world: &World) -> Stands {
    let cores: Vec<&Core> = (0..world.nodes.len()).filter_map(|place| world.core(place)).collect();
    if cores.len() < world.nodes.len() {
        return Stands::Neither;
    }
    let leaders: Vec<&&Core> =
        cores.iter().filter(|core| core.role() == RoleName::Leader).collect();
    match leaders[..] {
        [leader] if follow(world, leader) => Stands::Settled,
        [] if is_stopped(world, &cores) => Stands::Stopped,
        _ => Stands::Neither,
    }
}

fn follow(world: &World, leader: &Core) -> bool {
    let Some(members) = leader.members() else { return false };
    let joins = |member: &Member| member.standing == Standing::Joining;
    let last = leader.log().last_index();
    leader.commit_index() == last
        && !members.members.iter().any(joins)
        && (0..world.nodes.len()).all(|place| {
            let Some(running) = world.running(place) else { return false };
            let core = running.engine.core();
            if members.named(&world.nodes[place].name).is_none() {
                return is_silent(core);
            }
            members.names(core.me().incarnation)
                && core.leader() == Some(leader.me().incarnation)
                && core.commit_index() == last
                && core.log().last_index() == last
                && core.applicable() == last
                && running.engine.applied() == last
        })
}

/// Who is no member neither leads nor campaigns: it waits to be admitted, or knows that
/// it was removed, or was never made a voter.
fn is_silent(core: &Core) -> bool {
    matches!(core.role(), RoleName::Fresh | RoleName::Removed | RoleName::Learner)
}

/// Design, "Lives": when a majority lost its memory the cluster refuses to pretend.
fn is_stopped(world: &World, cores: &[&Core]) -> bool {
    let clusters: BTreeSet<_> = cores.iter().filter_map(|core| core.hard().cluster).collect();
    // Of those that vote one at least knows that no majority is left; who is new says whom
    // it waits for; a learner has nothing to say, and neither has who was removed and came
    // back without hearing of it: by its log others are the voters. (Seed 51,109.)
    let in_force = in_force(world);
    let counts = |core: &&&Core| {
        let me = core.me().incarnation;
        core.may_campaign() && in_force.iter().any(|members| members.is_voter(me))
    };
    let now = |place: usize| world.running(place).map(|running| running.clock.shows(world.now));
    let mut voters = cores.iter().filter(counts).peekable();
    let told = voters.peek().is_none() || voters.any(|core| core.majority_lost().is_some());
    let says = |place: usize| {
        let waits = now(place).is_some_and(|now| cores[place].waiting(now).is_some());
        cores[place].role() != RoleName::Fresh || waits
    };
    let needed =
        in_force.iter().any(|members| lost(members, &world.gone) * 2 >= members.voters().count());
    needed && clusters.len() == 1 && told && (0..cores.len()).all(says)
}

/// Whether a node is a member by the newest members that its leader knows.
pub(super) fn is_member(world: &World, place: usize) -> bool {
    let leader = world.leader().and_then(|leader| world.core(leader));
    let members = leader.and_then(Core::members);
    members.is_some_and(|members| members.named(&world.nodes[place].name).is_some())
}
