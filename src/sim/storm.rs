//! First everything is broken, then everything must heal.

use crate::core::lives::Neighbor;
use crate::core::properties::{Property, broken};

use super::chance::micros;
use super::clock::TRUE_RATE;
use super::drive::Drive;
use super::faults::Faults;
use super::members::{self, Stands, stands};
use super::verdicts;
use super::world::{Step, World};

/// When all faults have ended, the cluster serves again, within a bounded time.
pub(super) const HEALS: Property = Property {
    name: "Everything Heals",
    source: "Raft §5.6: a leader is elected and serves as long as a majority can communicate",
};

/// Within so long after the last late datagram all nodes agree, microseconds of
/// virtual time: a lost founder's timeouts, a few elections, the longest retry.
const HEALED_WITHIN: u64 = 10_000_000;
/// Within so long each node answers a command and a query in a healthy cluster.
const ANSWERED_WITHIN: u64 = 2_000_000;

const MS: u64 = 1_000;
const SECOND: u64 = 1_000_000;

/// What the adversary does, in the order of `Faults::weights`.
#[derive(Clone, Copy, Debug)]
enum Disturbance {
    Partition,
    Isolation,
    OneWay,
    Flap,
    Mend,
    Stop,
    Crash,
    Loss,
    Pause,
    Jump,
    Rate,
    Hang,
    Fail,
    Full,
    Add,
    Remove,
    Transfer,
}

const ALL: [Disturbance; 17] = [
    Disturbance::Partition,
    Disturbance::Isolation,
    Disturbance::OneWay,
    Disturbance::Flap,
    Disturbance::Mend,
    Disturbance::Stop,
    Disturbance::Crash,
    Disturbance::Loss,
    Disturbance::Pause,
    Disturbance::Jump,
    Disturbance::Rate,
    Disturbance::Hang,
    Disturbance::Fail,
    Disturbance::Full,
    Disturbance::Add,
    Disturbance::Remove,
    Disturbance::Transfer,
];

/// Who does it, and what is left to do.
pub(super) struct Storm {
    /// How many more than a minority may lose their memory.
    beyond: usize,
    /// When each node that is down is started again.
    start_at: Vec<u64>,
}

impl Storm {
    pub(super) fn new(world: &World) -> Storm {
        Storm { beyond: usize::from(world.plan.beyond), start_at: vec![0; world.nodes.len()] }
    }

    /// Lives through it.
    pub(super) fn rage(&mut self, world: &mut World) -> Step {
        let faults = world.faults.clone();
        if world.plan.calm_start {
            world.faults = Faults { write: faults.write, apply: faults.apply, ..Faults::NONE };
            for place in 0..world.nodes.len() {
                world.start(place)?;
            }
            world.run_until(SECOND)?;
            world.faults = faults.clone();
        } else {
            for at in &mut self.start_at {
                *at = world.chance.between(0, 500 * MS);
            }
        }
        let end = world.now + world.plan.storm;
        let apart = micros(faults.between).max(MS);
        let mut next = world.now + world.chance.between(0, 2 * apart);
        while world.now < end {
            let start = self.next_start(world);
            world.run_until(end.min(next).min(start))?;
            self.start_due(world)?;
            if world.now >= next {
                self.disturb(world)?;
                next = world.now + world.chance.between(0, 2 * apart);
            }
        }
        Ok(())
    }

    fn next_start(&self, world: &World) -> u64 {
        let down = (0..world.nodes.len()).filter(|place| world.running(*place).is_none());
        down.map(|place| self.start_at[place]).min().unwrap_or(u64::MAX)
    }

    fn start_due(&mut self, world: &mut World) -> Step {
        for (place, at) in self.start_at.iter_mut().enumerate() {
            if *at <= world.now && world.running(place).is_none() && !world.start(place)? {
                *at = world.now + world.chance.between(100 * MS, SECOND);
            }
        }
        Ok(())
    }

    fn disturb(&mut self, world: &mut World) -> Step {
        let Some(which) = world.chance.weighed(&world.faults.weights()) else { return Ok(()) };
        // What is done to a leader matters most, and nothing matters to who is down.
        let leader = world.leader().filter(|_| world.chance.permille(400));
        let place = leader.unwrap_or_else(|| any(world));
        if world.running(place).is_none() {
            return Ok(());
        }
        world.faults_done += 1;
        world.story.mark([world.now, 6, which as u64, place as u64]);
        match ALL[which] {
            Disturbance::Partition => partition(world),
            Disturbance::Isolation => {
                split(world, |of| of == place);
                world.tell(place, || "is cut off; all others hear each other".to_string());
            }
            Disturbance::OneWay => one_way(world, place),
            Disturbance::Flap => flap(world, place),
            Disturbance::Mend => {
                world.network.mend();
                world.tell_of_all(|| "all links are whole again".to_string());
            }
            Disturbance::Stop => {
                world.stop(place)?;
                self.start_at[place] = world.now + world.chance.between(0, 1_500 * MS);
            }
            Disturbance::Crash => self.crash(world, place),
            Disturbance::Loss => self.lose(world, place),
            Disturbance::Pause => pause(world, place),
            Disturbance::Jump => jump(world, place),
            Disturbance::Rate => rate(world, place),
            Disturbance::Hang => hang(world, place),
            Disturbance::Fail => fail_disk(world, place),
            Disturbance::Full => fill_disk(world, place),
            Disturbance::Add => members::add(world),
            Disturbance::Remove => members::remove(world),
            Disturbance::Transfer => members::transfer(world),
        }
        Ok(())
    }

    /// With a disk a node dies in the middle of its next turn; without one, its
    /// memory dies with it.
    fn crash(&mut self, world: &mut World, place: usize) {
        if !world.plan.disks {
            return self.lose(world, place);
        }
        self.start_at[place] = world.now + world.chance.between(0, 1_500 * MS);
        if let Some(running) = &mut world.nodes[place].running {
            running.doomed = true;
        }
    }

    /// A node loses its disk or memory; of the voters only a minority does at a time, or
    /// one more, once, where that is wanted.
    fn lose(&mut self, world: &mut World, place: usize) {
        if !members::may_lose(world, place, 0) {
            if self.beyond == 0 || !members::may_lose(world, place, self.beyond) {
                world.faults_done -= 1;
                return;
            }
            self.beyond = 0;
            world.tell(place, || "is one more than may be lost".to_string());
        }
        world.crash(place);
        world.lose_memory(place);
        self.start_at[place] = world.now + world.chance.between(0, 1_500 * MS);
    }

    /// All faults end. One leader, equal logs, every request that is outstanding
    /// ends, and each node answers. Says how long the healing took.
    ///
    /// Where more than a minority of the voters lost their memory the cluster may have
    /// stopped instead: then nobody serves, and those that remember say so.
    pub(super) fn heal(&mut self, world: &mut World) -> Result<Healed, Box<super::Violation>> {
        let late = micros(world.faults.late_by) + micros(world.faults.delay.1);
        end_faults(world);
        let began = world.now;
        for place in 0..world.nodes.len() {
            if world.running(place).is_none() {
                world.start(place)?;
            }
        }
        let end = began + late + HEALED_WITHIN + world.plan.request_timeout;
        world.clients_rest();
        let stopped = |world: &World| stands(world) == Stands::Stopped;
        let healed = world.run_while_not(end, |world| {
            let over = world.clients.open().next().is_none();
            over && (world.is_settled() || stopped(world))
        })?;
        if !healed {
            return fail(world, "nodes do not agree, or requests do not end", end - began);
        }
        let took = world.now - began;
        // What is later still may depose a leader once more, or elect one.
        world.run_until(began + late)?;
        if stopped(world) {
            return Ok(Healed { took, stopped: true });
        }
        for round in 0.. {
            let refused = world.clients.refused + world.clients.unknown;
            for place in 0..world.nodes.len() {
                if !members::is_member(world, place) {
                    continue;
                }
                for (request, asked) in world.clients.probes() {
                    world.ask(place, request, asked);
                }
            }
            let end = world.now + ANSWERED_WITHIN;
            let answered =
                world.run_while_not(end, |world| world.clients.open().next().is_none())?;
            if answered && world.clients.refused + world.clients.unknown == refused {
                break;
            }
            if round == 2 {
                return fail(
                    world,
                    "not every node answers a command and a query",
                    ANSWERED_WITHIN,
                );
            }
        }
        let end = world.now + SECOND;
        if !world.run_while_not(end, World::is_settled)? {
            return fail(world, "nodes do not agree after the last request", SECOND);
        }
        verdicts::judge_all(world)?;
        Ok(Healed { took, stopped: false })
    }
}

/// How it ended.
pub(super) struct Healed {
    /// How long that took, in microseconds.
    pub(super) took: u64,
    /// Whether the cluster stopped, because a majority had lost its memory.
    pub(super) stopped: bool,
}

fn fail(world: &World, what: &str, within: u64) -> Result<Healed, Box<super::Violation>> {
    let what = format!("{what} within {} ms:\n{}", within / MS, world.describe());
    world.expect(None, broken(&HEALS, what)).map(|()| Healed { took: 0, stopped: false })
}

fn end_faults(world: &mut World) {
    world.faults = Faults::NONE;
    world.network.mend();
    world.end_flaps();
    let now = world.now;
    for node in &mut world.nodes {
        node.rate = TRUE_RATE;
        if let Some(running) = &mut node.running {
            running.clock.set_rate(now, TRUE_RATE);
            running.hangs_until = now;
            running.doomed = false;
            running.away_until = now;
            running.rest(now, 0);
        }
    }
    world.drives.values_mut().for_each(Drive::mend);
    world.disks_go_on();
    world.tell_of_all(|| "all faults have ended".to_string());
}

fn any(world: &mut World) -> usize {
    let last = world.nodes.len() as u64 - 1;
    world.chance.between(0, last) as usize
}

fn names(world: &World, which: impl Fn(usize) -> bool) -> String {
    let named = |place: &usize| which(*place);
    let nodes: Vec<Neighbor> =
        (0..world.nodes.len()).filter(named).map(|place| world.plan.neighbor(place)).collect();
    nodes.into_iter().map(|node| node.name).collect::<Vec<_>>().join(", ")
}

/// Between those inside and those outside nothing arrives; all other links are whole.
fn split(world: &mut World, inside: impl Fn(usize) -> bool) {
    world.network.mend();
    for from in 0..world.nodes.len() {
        for to in 0..world.nodes.len() {
            if inside(from) != inside(to) {
                world.network.cut(from, to);
            }
        }
    }
}

/// Two sides of those that count, a bit a node; neither is empty if that can be.
fn side(world: &mut World, counts: impl Fn(usize) -> bool) -> u64 {
    let all =
        (0..world.nodes.len()).filter(|place| counts(*place)).fold(0, |bits, at| bits | 1 << at);
    for _ in 0..10 {
        let side = world.chance.number() & all;
        if side != 0 && side != all {
            return side;
        }
    }
    0
}

fn partition(world: &mut World) {
    let size = world.nodes.len();
    match world.chance.between(0, 3) {
        // A chain: each hears its neighbors only.
        0 => {
            world.network.mend();
            for from in 0..size {
                for to in (0..size).filter(|to| to.abs_diff(from) > 1) {
                    world.network.cut(from, to);
                }
            }
            world.tell_of_all(|| "the network is a chain".to_string());
        }
        // Two sides, and one node between them that both still hear.
        1 => {
            let bridge = any(world);
            let side = side(world, |place| place != bridge);
            let left = |place: usize| side >> place & 1 == 0;
            world.network.mend();
            for from in (0..size).filter(|place| *place != bridge) {
                for to in (0..size).filter(|place| *place != bridge) {
                    if left(from) != left(to) {
                        world.network.cut(from, to);
                    }
                }
            }
            let sides = names(world, |place| place != bridge && left(place));
            world.tell(bridge, || format!("alone hears both {{{sides}}} and the others"));
        }
        _ => {
            let side = side(world, |_| true);
            let left = |place: usize| side >> place & 1 == 0;
            let sides = names(world, left);
            split(world, left);
            world.tell_of_all(|| format!("the network splits: {{{sides}}} and the others"));
        }
    }
}

/// A node hears nobody and is heard, or is not heard and hears.
fn one_way(world: &mut World, place: usize) {
    let deaf = world.chance.permille(500);
    for other in (0..world.nodes.len()).filter(|other| *other != place) {
        let (from, to) = if deaf { (other, place) } else { (place, other) };
        if world.chance.permille(800) {
            world.network.cut(from, to);
        }
    }
    let told = if deaf { "hears hardly anybody" } else { "is heard by hardly anybody" };
    world.tell(place, || told.to_string());
}

fn flap(world: &mut World, place: usize) {
    let other = any(world);
    let times = world.chance.between(4, 40);
    world.tell(place, || format!("its link to node{other} goes up and down"));
    world.link_turns(place, other, false, times);
}

fn pause(world: &mut World, place: usize) {
    let until = world.now + world.chance.between(10 * MS, SECOND);
    let now = world.now;
    world.tell(place, || format!("stands still for {} ms", (until - now) / MS));
    if let Some(running) = &mut world.nodes[place].running {
        running.pause(until);
    }
}

fn jump(world: &mut World, place: usize) {
    let far = *world.chance.pick(&[20 * MS, 400 * MS, 3_600 * SECOND]);
    let by = world.chance.between(0, far);
    let now = world.now;
    world.tell(place, || format!("its clock jumps ahead by {} ms", by / MS));
    if let Some(running) = &mut world.nodes[place].running {
        running.clock.jump(now, by);
        running.rest(now, 0);
    }
}

fn rate(world: &mut World, place: usize) {
    let rate = world.chance.between(TRUE_RATE / 2, TRUE_RATE * 2);
    let now = world.now;
    world.nodes[place].rate = rate;
    world.tell(place, || format!("its clock runs at {} % of the true rate", rate / 10_000));
    if let Some(running) = &mut world.nodes[place].running {
        running.clock.set_rate(now, rate);
        running.rest(now, 0);
    }
}

fn hang(world: &mut World, place: usize) {
    let until = world.now + world.chance.between(10 * MS, 2 * SECOND);
    let now = world.now;
    world.tell(place, || format!("its disk hangs for {} ms", (until - now) / MS));
    if let Some(running) = &mut world.nodes[place].running {
        running.hangs_until = until;
    }
}

/// The next write or sync fails, and with it the node.
fn fail_disk(world: &mut World, place: usize) {
    let incarnation = world.nodes[place].incarnation;
    world.tell(place, || "its disk is about to fail".to_string());
    if let Some(drive) = world.drives.get_mut(&incarnation) {
        drive.fail_next(&mut world.chance);
    }
}

/// There is hardly any room left; when the node is started again there may be.
fn fill_disk(world: &mut World, place: usize) {
    let incarnation = world.nodes[place].incarnation;
    world.tell(place, || "its disk is full".to_string());
    if let Some(drive) = world.drives.get_mut(&incarnation) {
        drive.set_full(true);
    }
}
