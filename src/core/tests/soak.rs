//! Random worlds: faults from a seed, safety after every step, then the faults end
//! and everything must heal.

use super::super::rng::Rng;
use super::world::{Faults, MS, Plan, World};

/// The world of a seed, and how it is treated.
struct Soak {
    world: World,
    chance: Rng,
    /// Voters that may still lose their memory.
    may_forget: usize,
    /// Voters that have lost it; they are learners now.
    forgot: Vec<usize>,
    operations: u64,
    proposed: u64,
}

impl Soak {
    fn new(seed: u64, by_majority: bool) -> Soak {
        let mut chance = Rng::new(seed ^ 0x5eed);
        let voters = chance.between(1, if seed.is_multiple_of(4) { 9 } else { 5 }) as usize;
        let learners = chance.between(0, 2).min(9 - voters as u64) as usize;
        let append_bytes = [20, 60, 400, 5_000][chance.between(0, 3) as usize];
        let plan = Plan { voters, learners, by_majority, append_bytes, seed };
        let may_forget = if by_majority { 0 } else { (voters - 1) / 2 };
        let mut world = World::new(plan);
        world.faults = faults(&mut chance);
        Soak { world, chance, may_forget, forgot: Vec::new(), operations: 0, proposed: 0 }
    }

    fn node(&mut self) -> usize {
        self.chance.between(0, self.world.nodes.len() as u64 - 1) as usize
    }

    /// One thing that a client or an adversary does, often to the leader.
    fn disturb(&mut self) {
        let leader = self.world.leader().filter(|_| self.chance.between(0, 3) == 0);
        let place = leader.unwrap_or_else(|| self.node());
        match self.chance.between(0, 99) {
            0..30 => self.propose(place),
            30..45 => {
                self.world.read(place);
            }
            45..53 => self.stop_or_start(place),
            53..57 => self.forget(place),
            57..65 => {
                let other = self.node();
                self.world.cut.insert((place, other));
                if self.chance.between(0, 1) == 0 {
                    self.world.cut.insert((other, place));
                }
            }
            65..68 => {
                let group: Vec<usize> =
                    (0..self.world.nodes.len()).filter(|_| self.chance.between(0, 1) == 0).collect();
                self.world.isolate(&group);
            }
            68..78 => self.world.cut.clear(),
            78..82 => self.world.nodes[place].holds_writes ^= true,
            82..86 => {
                self.world.complete(place);
            }
            86..88 => {
                // The write is on the disk, the node dies before it hears of it.
                self.world.write_reaches_disk(place);
                self.world.crash(place);
            }
            88..90 => {
                let jump = [20 * MS, 400 * MS, 3_600_000 * MS][self.chance.between(0, 2) as usize];
                self.world.nodes[place].ahead += self.chance.between(0, jump);
            }
            90..93 => self.world.faults = faults(&mut self.chance),
            _ => {
                let pause = self.chance.between(50, 600) * MS;
                self.world.run_for(pause);
            }
        }
    }

    fn propose(&mut self, place: usize) {
        for _ in 0..self.chance.between(1, 4) {
            self.operations += 1;
            let operation = format!("operation {}", self.operations);
            self.proposed += u64::from(self.world.propose(place, &operation));
        }
    }

    fn stop_or_start(&mut self, place: usize) {
        if self.world.is_up(place) {
            self.world.crash(place);
        } else {
            self.world.start(place);
        }
    }

    /// A node loses its disk; of the voters only a minority does.
    fn forget(&mut self, place: usize) {
        let voter = place < self.world.plan.voters && !self.forgot.contains(&place);
        if voter && self.may_forget == 0 {
            return;
        }
        if voter {
            self.may_forget -= 1;
            self.forgot.push(place);
        }
        self.world.crash(place);
        self.world.forget(place);
    }

    /// All faults end; one leader, one log, and an operation commits.
    fn heal(&mut self) {
        let world = &mut self.world;
        world.faults = Faults::NONE;
        world.cut.clear();
        for place in 0..world.nodes.len() {
            world.nodes[place].holds_writes = false;
            if !world.is_up(place) {
                world.start(place);
            }
        }
        world.run_until(20_000 * MS, "healing", World::is_settled);
        let last = world.nodes.len() - 1;
        assert!(world.propose(last, "the last one"));
        let committed = |world: &World| {
            world.is_settled() && world.history.times_committed(b"the last one") > 0
        };
        world.run_until(1_000 * MS, "an operation to commit", committed);
        for place in 0..world.nodes.len() {
            let read = world.read(place).expect("a leader to ask");
            let served = |world: &World| {
                world.nodes[place].reads.iter().any(|ready| {
                    ready.id == read && ready.index <= world.core(place).applicable()
                })
            };
            world.run_until(1_000 * MS, "a read", served);
        }
    }
}

fn faults(chance: &mut Rng) -> Faults {
    let pick = |chance: &mut Rng, of: &[u64]| of[chance.between(0, of.len() as u64 - 1) as usize];
    Faults {
        latency: (100, pick(chance, &[200, 2 * MS, 20 * MS])),
        lost_percent: pick(chance, &[0, 0, 2, 10, 30]),
        repeated_percent: pick(chance, &[0, 5, 30]),
        late_percent: pick(chance, &[0, 5, 20]),
        late: pick(chance, &[50 * MS, 400 * MS, 3_000 * MS]),
        write: (0, pick(chance, &[0, 0, MS, 10 * MS, 100 * MS])),
    }
}

/// Lives through one seed; how many steps it took.
fn live_through(seed: u64, by_majority: bool) -> World {
    let mut soak = Soak::new(seed, by_majority);
    for place in 0..soak.world.nodes.len() {
        if soak.chance.between(0, 5) > 0 {
            soak.world.start(place);
        }
    }
    let disturbances = soak.chance.between(10, 200);
    // Most worlds are founded before it begins; in some it begins at once.
    if soak.chance.between(0, 2) > 0 {
        let quiet = std::mem::replace(&mut soak.world.faults, Faults::NONE);
        soak.world.run_for(600 * MS);
        soak.world.faults = quiet;
    }
    for _ in 0..disturbances {
        let pause = soak.chance.between(0, 80) * MS;
        soak.world.run_for(pause);
        soak.disturb();
    }
    soak.heal();
    soak.world
}

fn seeds(default: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let first = number("CORE_SEED").unwrap_or(0);
    first..first + number("CORE_SEEDS").unwrap_or(default)
}

#[test]
fn whatever_happens_safety_holds_and_everything_heals() {
    let (mut steps, mut leaders, mut counted) = (0, 0, 0);
    for seed in seeds(300) {
        let world = live_through(seed, false);
        steps += world.steps;
        leaders += world.history.leaders();
        counted += world.history.counted;
    }
    println!("{steps} steps, {leaders} leaders, the commit rule compared {counted} times");
}
