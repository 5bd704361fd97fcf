//! Who is up, when the faults have ended: whoever lives is agreed to be up, in the run
//! that it is in, and whoever dies is agreed to be down, on every node.

use crate::core::Core;
use crate::core::membership::Member;
use crate::core::properties::{Property, broken};
use crate::core::verdicts::RELAPSES_MOST;

use super::members;
use super::world::{FAILURE_TIMEOUT, Step, World};

/// Eventual accuracy.
pub(super) const ACCURATE: Property = Property {
    name: "The Living Are Up",
    source: "Chandra and Toueg 1996, eventual accuracy, of verdicts in the log",
};

/// Eventual completeness.
pub(super) const COMPLETE: Property = Property {
    name: "The Dead Are Down",
    source: "Chandra and Toueg 1996, strong completeness, of verdicts in the log",
};

/// Who relapsed often has to be steady for so long, and then some.
const UP_WITHIN: u64 = (FAILURE_TIMEOUT << RELAPSES_MOST) + 4_000_000;
/// A leader's death takes an election or a few.
const DOWN_WITHIN: u64 = 4_000_000;

/// All that live are up; then one dies, of which a majority of the voters can do without.
pub(super) fn judge_all(world: &mut World) -> Step {
    let end = world.now + UP_WITHIN;
    if !world.run_while_not(end, agreed)? {
        let what = format!("within {} ms:\n{}", UP_WITHIN / 1_000, describe(world));
        return world.expect(None, broken(&ACCURATE, what));
    }
    let can_do_without: Vec<usize> =
        (0..world.nodes.len()).filter(|place| is_spared(world, *place)).collect();
    if can_do_without.is_empty() {
        return Ok(());
    }
    let dead = *world.chance.pick(&can_do_without);
    world.stop(dead)?;
    let end = world.now + DOWN_WITHIN;
    if !world.run_while_not(end, agreed)? {
        let what = format!("within {} ms:\n{}", DOWN_WITHIN / 1_000, describe(world));
        return world.expect(None, broken(&COMPLETE, what));
    }
    Ok(())
}

fn leader(world: &World) -> Option<&Core> {
    world.leader().and_then(|leader| world.core(leader))
}

fn is_spared(world: &World, place: usize) -> bool {
    let Some(members) = leader(world).and_then(Core::members) else { return false };
    let voters = members.voters().count();
    members.named(&world.nodes[place].name).is_some_and(|member| {
        let left = voters - usize::from(member.is_voter());
        left >= members.majority()
    })
}

/// Whether every member that runs has it that those are up that run, and nobody else.
fn agreed(world: &World) -> bool {
    let Some(members) = leader(world).and_then(Core::members) else { return false };
    let mut cores = (0..world.nodes.len())
        .filter(|place| members::is_member(world, *place))
        .filter_map(|place| world.core(place));
    let right = |core: &Core, member: &Member| {
        let node = world.nodes.iter().position(|node| node.name == member.name);
        let life = node.and_then(|place| world.core(place)).map(Core::me);
        let agreed = core.verdicts().of(&member.name);
        match life {
            Some(life) => agreed.is_some_and(|agreed| agreed.up && agreed.life == life),
            None => agreed.is_none_or(|agreed| !agreed.up),
        }
    };
    cores.all(|core| members.members.iter().all(|member| right(core, member)))
}

fn describe(world: &World) -> String {
    let of = |core: &Core| {
        let verdicts = core.verdicts().iter().map(|(name, agreed)| {
            let turn = if agreed.up { "up" } else { "down" };
            format!("{name} {turn} at {} in run {:x}", agreed.index, agreed.life.run.0)
        });
        let verdicts: Vec<String> = verdicts.collect();
        format!("run {:x}: {}", core.me().run.0, verdicts.join(", "))
    };
    let lines = (0..world.nodes.len()).filter_map(|place| {
        Some(format!("{} {}", world.nodes[place].name, of(world.core(place)?)))
    });
    lines.chain([world.describe()]).collect::<Vec<_>>().join("\n")
}
