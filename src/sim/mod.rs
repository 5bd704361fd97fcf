//! Whole clusters in one thread, from a seed: the library's own proof, and a bench
//! for state machines of your own (cargo feature `sim`).
//!
//! A [`Simulation`] runs any number of nodes. They are the library's own engine, down
//! to the bytes of each datagram; around it time, network, disks, clocks and clients
//! are made up. All that happens follows from one seed: the same seed gives the same
//! run, event for event, on any machine.
//!
//! ```
//! use kontiki::sim::Simulation;
//!
//! match Simulation::new(7).run() {
//!     Ok(report) => println!("{} steps, {} faults, all held", report.steps, report.faults),
//!     Err(violation) => panic!("{violation}"),
//! }
//! ```
//!
//! # What happens in it
//!
//! First a storm: datagrams are lost, repeated, reordered, delayed and damaged, links
//! fail in one direction or both, nodes stop, die in the middle of a write, stand
//! still or lose what they remember, clocks jump, disks hang; all of it as [`Faults`]
//! says. Meanwhile clients at all nodes ask. Then all faults end, and everything must
//! heal within a bounded time: one leader, equal logs, an end to every outstanding
//! request, an answer from every node.
//!
//! # What is checked
//!
//! After every turn of a node: Raft's five properties (Raft Figure 3), and that terms
//! and commit indexes never go back, a log votes once a term, nothing is said before
//! it is durable, nothing is applied twice or left out, every node's state machine
//! comes to the same values, what was acknowledged is committed, and queues are
//! bounded. In the end: that what clients saw is linearizable, by [`linear`], whose
//! checker knows nothing of Raft. A property that does not hold ends the run with a
//! [`Violation`] that names it, its source and the seed.
//!
//! # Your own state machine
//!
//! ```
//! use kontiki::sim::Simulation;
//! use kontiki::{BoxError, Entry, StateMachine};
//! use serde_json::{Value, json};
//!
//! #[derive(Default)]
//! struct Sum(i64);
//!
//! impl StateMachine for Sum {
//!     fn apply(&mut self, entry: &Entry) -> Value {
//!         self.0 += entry.value().as_i64().unwrap_or(0);
//!         json!(self.0)
//!     }
//!     fn query(&self, _: &Value) -> Value {
//!         json!(self.0)
//!     }
//!     fn snapshot(&self) -> Result<Vec<u8>, BoxError> {
//!         Ok(self.0.to_le_bytes().to_vec())
//!     }
//!     fn restore(&mut self, snapshot: &[u8]) -> Result<(), BoxError> {
//!         self.0 = i64::from_le_bytes(snapshot.try_into()?);
//!         Ok(())
//!     }
//! }
//!
//! for seed in 0..3 {
//!     Simulation::new(seed)
//!         .state_machine(|_| Sum::default(), |chance| json!(chance.between(1, 9)))
//!         .queries(|_| json!("sum"))
//!         .run()?;
//! }
//! # Ok::<(), kontiki::sim::Violation>(())
//! ```
//!
//! Every entry is applied at every node, and again after each restart; the values
//! must be the same. Each query is compared with what a new machine says that was
//! given the same entries and asked nothing before.
//!
//! # What it does not show
//!
//! Threads, sockets and the operating system are made up here; `tests/` has the real
//! ones. It proves nothing about what was not tried: more seeds try more.

mod cells;
mod chance;
mod clients;
mod clock;
mod drive;
mod faults;
pub mod linear;
mod members;
mod network;
mod node;
mod plan;
mod report;
mod storm;
mod story;
#[cfg(test)]
mod tests;
mod verdicts;
mod vigil;
mod wide;
mod witness;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::core::properties::{Broken, Property};
use crate::guard;
use crate::machine::StateMachine;

pub use self::chance::Chance;
pub use self::faults::Faults;
pub use self::report::{Report, Violation};
pub use self::vigil::{OneWay, Vigil, Watched};
pub use self::wide::{Crossed, WideArea};

use self::chance::micros;
use self::plan::{Load, Plan};
use self::storm::Storm;
use self::story::{Sink, Story};
use self::world::World;

/// At most so many voters does a simulation have, as a cluster does. See [`Simulation`] for an
/// example of what it bounds.
pub const VOTERS_LIMIT: usize = 9;

/// At most so many nodes does a simulation have, learners included. See [`Simulation`] for an
/// example of what it bounds.
pub const NODES_LIMIT: usize = 60;

/// No step panics: an assertion that fails is a bug like any other.
const NO_PANIC: Property =
    Property { name: "No Panic", source: "design, promise 4: nothing makes a node panic" };

/// One run of a cluster, from a seed.
///
/// The seed decides all that is not set: how many nodes there are, whether they have
/// disks, what goes wrong, how long it lasts, what clients ask.
///
/// ```
/// use kontiki::sim::Simulation;
/// use std::time::Duration;
///
/// let simulation = Simulation::new(7).voters(3).learners(1).storm(Duration::from_secs(2));
/// println!("{}", simulation.describe());
/// let report = simulation.run()?;
/// assert!(report.committed > 0);
/// # Ok::<(), kontiki::sim::Violation>(())
/// ```
///
/// All that can be set is set like that:
///
/// ```
/// # use kontiki::sim::Simulation;
/// // Members come and go, and once too many may lose their memory.
/// let report = Simulation::of_members(7)
///     .voters(3)
///     .spares(1)
///     .beyond_a_minority()
///     .disks(true)
///     .sealed(true)
///     .snapshot_every(20)
///     .clients(2)
///     .trace(|line| println!("{line}"))
///     .run()?;
/// println!("{} changes; did it have to stop? {}", report.changes, report.stopped);
/// # Ok::<(), kontiki::sim::Violation>(())
/// ```
pub struct Simulation {
    plan: Plan,
    faults: Faults,
    sink: Option<Sink>,
}

impl Simulation {
    /// The run of this seed.
    pub fn new(seed: u64) -> Simulation {
        let mut chance = Chance::new(seed ^ 0x0f1a_4e5b);
        let voters = match chance.between(0, 9) {
            0 => 1,
            1 => 2,
            2..6 => 3,
            6 => 4,
            7..9 => 5,
            _ => 7,
        };
        let plan = Plan {
            seed,
            voters,
            learners: *chance.pick(&[0, 0, 0, 1, 2]),
            spares: 0,
            beyond: false,
            disks: chance.permille(700),
            loopback: chance.permille(500),
            sealed: seed % 3 == 2,
            storm: chance.between(2_000_000, 10_000_000),
            calm_start: chance.permille(700),
            request_timeout: *chance.pick(&[1_000_000, 3_000_000, 10_000_000]),
            clients: chance.between(1, 8) as usize,
            think: *chance.pick(&[2_000, 20_000, 100_000]),
            load: if chance.permille(200) { Load::Newest } else { Load::Cells },
            snapshot_every: *chance.pick(&[4, 20, 100, 10_000]),
        };
        let faults = Faults::of_seed(seed);
        let spares = if faults.additions > 0 { chance.between(0, 2) as usize } else { 0 };
        let plan = Plan { spares, ..plan };
        Simulation { plan, faults, sink: None }
    }

    /// The run of this seed in a world whose members come and go: they are added,
    /// removed and replaced, lose their memory again and again, and hand over. In one of
    /// four worlds one voter more than a minority may be lost.
    pub fn of_members(seed: u64) -> Simulation {
        let mut chance = Chance::new(seed ^ 0x3e3b_e125);
        let mut some = |of: &[u32]| *chance.pick(of);
        let faults = Faults {
            additions: some(&[0, 4, 8]),
            removals: some(&[0, 3, 6]),
            transfers: some(&[0, 3, 6]),
            losses: some(&[1, 3, 6]),
            crashes: some(&[0, 2]),
            ..Faults::of_seed(seed)
        };
        let voters = *chance.pick(&[1, 2, 2, 3, 3, 4, 5]);
        let spares = chance.between(0, 3) as usize;
        let beyond = chance.permille(250);
        let Simulation { plan, sink, .. } = Simulation::new(seed);
        Simulation { plan: Plan { voters, spares, beyond, ..plan }, faults, sink }
    }

    /// Whether datagrams are sealed. If they are, each start of a node seals by the other
    /// of two secrets, as if these were being changed.
    pub fn sealed(mut self, sealed: bool) -> Simulation {
        self.plan.sealed = sealed;
        self
    }

    /// So many voters, 1 to [`VOTERS_LIMIT`].
    ///
    /// # Panics
    ///
    /// If there are none, or too many.
    pub fn voters(mut self, voters: usize) -> Simulation {
        self.plan.voters = voters;
        self.checked()
    }

    /// So many learners: nodes that follow and do not vote. At most [`NODES_LIMIT`]
    /// nodes together with the voters.
    ///
    /// # Panics
    ///
    /// If there are too many.
    pub fn learners(mut self, learners: usize) -> Simulation {
        self.plan.learners = learners;
        self.checked()
    }

    /// So many nodes that the others' file does not name: they wait until they are asked
    /// to become members ([`Faults::additions`]). At most [`NODES_LIMIT`] nodes in all.
    ///
    /// # Panics
    ///
    /// If there are too many.
    pub fn spares(mut self, spares: usize) -> Simulation {
        self.plan.spares = spares;
        self.checked()
    }

    /// Once in its life one voter more than a minority may lose its memory
    /// ([`Faults::losses`]). The cluster then goes on only if its leader can carry on
    /// without it; else it must stop, and say so, and serve nothing in place of what is
    /// lost.
    pub fn beyond_a_minority(mut self) -> Simulation {
        self.plan.beyond = true;
        self
    }

    fn checked(self) -> Simulation {
        let (voters, size) = (self.plan.voters, self.plan.size());
        assert!(
            (1..=VOTERS_LIMIT).contains(&voters) && size <= NODES_LIMIT,
            "a simulation has 1 to {VOTERS_LIMIT} voters and at most {NODES_LIMIT} nodes; \
             {voters} voters of {size} nodes were asked for"
        );
        self
    }

    /// Whether nodes keep their logs on disks, or in memory only.
    pub fn disks(mut self, disks: bool) -> Simulation {
        self.plan.disks = disks;
        self
    }

    /// Nodes take a snapshot after so many entries, and let go of the log behind it.
    ///
    /// # Panics
    ///
    /// If it is 0.
    pub fn snapshot_every(mut self, entries: u64) -> Simulation {
        assert!(entries > 0, "a snapshot after every 0 entries");
        self.plan.snapshot_every = entries;
        self
    }

    /// What goes wrong. See [`Faults`] for an example.
    pub fn faults(mut self, faults: Faults) -> Simulation {
        self.faults = faults;
        self
    }

    /// How long it goes wrong, in virtual time.
    pub fn storm(mut self, storm: Duration) -> Simulation {
        self.plan.storm = micros(storm);
        self
    }

    /// How many clients there are; each has one request outstanding, at any of the
    /// nodes.
    pub fn clients(mut self, clients: usize) -> Simulation {
        self.plan.clients = clients;
        self
    }

    /// Nodes run this state machine, `make` given the node's name, and clients send
    /// it commands. See the head of [`sim`](crate::sim) for an example.
    pub fn state_machine<M: StateMachine>(
        mut self,
        make: impl Fn(&str) -> M + 'static,
        commands: impl Fn(&mut Chance) -> Value + 'static,
    ) -> Simulation {
        let machine: plan::MakeMachine = Arc::new(move |name| Box::new(make(name)));
        self.plan.load = Load::Own { machine, commands: Arc::new(commands), queries: None };
        self
    }

    /// Clients ask the state machine this, too. Without a state machine of your own
    /// it changes nothing. See the head of [`sim`](crate::sim) for an example.
    pub fn queries(mut self, ask: impl Fn(&mut Chance) -> Value + 'static) -> Simulation {
        if let Load::Own { queries, .. } = &mut self.plan.load {
            *queries = Some(Arc::new(ask));
        }
        self
    }

    /// What clients do.
    #[cfg(test)]
    fn on(mut self, load: Load) -> Simulation {
        self.plan.load = load;
        self
    }

    /// The run is told, one line an event, each led by the virtual time in seconds and
    /// whom it is about. What becomes of each datagram is not told, or nobody would
    /// find the rest.
    pub fn trace(mut self, tell: impl FnMut(&str) + 'static) -> Simulation {
        self.sink = Some(Box::new(tell));
        self
    }

    /// What the seed and the settings make of it, in a few words.
    pub fn describe(&self) -> String {
        let Plan { voters, learners, spares, disks, .. } = self.plan;
        let Plan { loopback, clients, snapshot_every, sealed, .. } = self.plan;
        let (sealed, disks, paths) = (
            if sealed { "sealed " } else { "" },
            if disks { "disks" } else { "no disks" },
            if loopback { "long datagrams" } else { "datagrams of 1,400 bytes" },
        );
        format!(
            "{voters} voters, {learners} learners, {spares} others, {disks}, {sealed}{paths}, {clients} \
             clients, a snapshot every {snapshot_every} entries"
        )
    }

    /// Runs it. Blocks for some milliseconds to seconds, as fast as it can.
    ///
    /// The error says what did not hold; a panic of a state machine, or of the
    /// library, is one too.
    pub fn run(self) -> Result<Report, Violation> {
        self.run_with(|_| {})
    }

    /// The same, after something was done to the world.
    fn run_with(self, prepare: impl FnOnce(&mut World)) -> Result<Report, Violation> {
        let Simulation { plan, faults, sink } = self;
        let mut world = World::new(plan, faults, Story::new(sink));
        prepare(&mut world);
        let ran = catch_unwind(AssertUnwindSafe(|| run(&mut world))).unwrap_or_else(|panic| {
            Err(world.panicked(Broken { property: &NO_PANIC, what: guard::said(&*panic) }))
        });
        ran.map_err(|violation| {
            world.tell_of_all(|| violation.to_string());
            *violation
        })
    }
}

fn run(world: &mut World) -> Result<Report, Box<Violation>> {
    let mut storm = Storm::new(world);
    storm.rage(world)?;
    let healed = storm.heal(world)?;
    world.check_all()?;
    Ok(Report {
        seed: world.plan.seed,
        steps: world.steps,
        faults: world.faults_so_far(),
        requests: world.clients.asked(),
        answered: world.clients.answered(),
        unknown: world.clients.unknown,
        committed: world.history.committed().0,
        leaders: world.history.leaders() as u64,
        lasted: Duration::from_micros(world.now),
        changes: world.history.changes(),
        stopped: healed.stopped,
        healed_in: Duration::from_micros(healed.took),
        digest: world.story.digest(),
    })
}
