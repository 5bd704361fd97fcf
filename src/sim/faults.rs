//! All that can go wrong in a simulated world, in one place.

use std::time::Duration;

use super::Chance;

/// What goes wrong, and how often.
///
/// The first part happens to each datagram, turn or write of its own; the second is
/// done to the world by an adversary, one thing about every [`between`](Faults::between),
/// each as often as its weight among the others says (0: never). Rates are of a
/// thousand. [`Faults::NONE`] is a quiet world; [`Faults::of_seed`] draws a mixture,
/// which is what a simulation has unless it is told otherwise.
///
/// ```
/// use kontiki::sim::{Faults, Simulation};
///
/// // Nothing but a network that loses a tenth.
/// let faults = Faults { lost: 100, ..Faults::NONE };
/// let report = Simulation::new(7).faults(faults).run()?;
/// assert!(report.faults > 0);
/// // A mixture, on disks that never fail.
/// let faults = Faults { disk_failures: 0, full_disks: 0, ..Faults::of_seed(7) };
/// Simulation::new(7).faults(faults).run()?;
/// # Ok::<(), kontiki::sim::Violation>(())
/// ```
///
/// New faults become new fields: write `..Faults::NONE`, as here, or `..Faults::of_seed(seed)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    /// How long a datagram travels, at least and at most. What left later may arrive
    /// earlier: the wider this is, the more are reordered.
    pub delay: (Duration, Duration),
    /// Of a thousand datagrams so many are late, most by a little, few by all of
    /// `late_by`.
    pub late: u32,
    /// The long tail: how late a late datagram is at most.
    pub late_by: Duration,
    /// Of a thousand datagrams so many are lost.
    pub lost: u32,
    /// Of a thousand datagrams so many arrive twice.
    pub repeated: u32,
    /// Of a thousand datagrams so many arrive with bits flipped, cut short, or with
    /// bytes added.
    pub damaged: u32,
    /// How long a node is away at most between two turns, while what arrives piles up.
    pub turn: Duration,
    /// How long a disk takes for a write, at most.
    pub write: Duration,
    /// How long a state machine takes for a batch of entries, at most.
    pub apply: Duration,

    /// How long it is between two of the following, on average.
    pub between: Duration,
    /// The network falls apart: into halves, a chain, or two sides that one node
    /// between them still hears.
    pub partitions: u32,
    /// One node, often the leader, is cut off from all others.
    pub isolations: u32,
    /// Some directions fail: a node is heard and hears nobody, or the other way round.
    pub one_way: u32,
    /// A link goes up and down.
    pub flaps: u32,
    /// All links are whole again.
    pub mends: u32,
    /// A node is stopped and started as a program does it, with what it remembers.
    pub stops: u32,
    /// A node dies in the middle of what it does: of its datagrams and writes some are
    /// done, and a write may be torn.
    pub crashes: u32,
    /// A node dies and comes back without its memory or disk. Only a minority of the
    /// voters is ever lost at a time: one counts as lost until it votes again.
    pub losses: u32,
    /// A node stands still for up to a second, and then sees all at once what came.
    pub pauses: u32,
    /// A node's clock jumps ahead, by up to an hour.
    pub jumps: u32,
    /// A node's clock runs at another rate: half to twice as fast.
    pub rates: u32,
    /// A disk hangs, for up to two seconds.
    pub hangs: u32,
    /// A write or sync fails, and the node stops; it is started again.
    pub disk_failures: u32,
    /// A disk is full: the node stops when it needs more room, and cannot start until
    /// there is some.
    pub full_disks: u32,
    /// Somebody asks that a node become a member, a learner at times.
    pub additions: u32,
    /// Somebody asks that a member be none any more.
    pub removals: u32,
    /// Somebody asks that another lead.
    pub transfers: u32,
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

impl Faults {
    /// Nothing goes wrong: datagrams take a tenth of a millisecond.
    pub const NONE: Faults = Faults {
        delay: (Duration::from_micros(100), Duration::from_micros(120)),
        late: 0,
        late_by: Duration::ZERO,
        lost: 0,
        repeated: 0,
        damaged: 0,
        turn: Duration::ZERO,
        write: Duration::ZERO,
        apply: Duration::ZERO,
        between: ms(500),
        partitions: 0,
        isolations: 0,
        one_way: 0,
        flaps: 0,
        mends: 0,
        stops: 0,
        crashes: 0,
        losses: 0,
        pauses: 0,
        jumps: 0,
        rates: 0,
        hangs: 0,
        disk_failures: 0,
        full_disks: 0,
        additions: 0,
        removals: 0,
        transfers: 0,
    };

    /// A mixture of this seed: some worlds have a bad network, some bad disks, some
    /// bad clocks, some all of it.
    pub fn of_seed(seed: u64) -> Faults {
        let mut chance = Chance::new(seed ^ 0xfa17);
        let mut some = |of: &[u32]| *chance.pick(of);
        let mut faults = Faults {
            late: some(&[0, 0, 5, 50]),
            lost: some(&[0, 0, 10, 50, 100, 300]),
            repeated: some(&[0, 10, 100]),
            damaged: some(&[0, 0, 10]),
            partitions: some(&[0, 2, 6]),
            isolations: some(&[0, 2, 6]),
            one_way: some(&[0, 0, 4]),
            flaps: some(&[0, 0, 4]),
            mends: 8,
            stops: some(&[0, 2, 4]),
            crashes: some(&[0, 3, 8]),
            losses: some(&[0, 0, 1]),
            pauses: some(&[0, 2, 6]),
            jumps: some(&[0, 0, 2]),
            rates: some(&[0, 0, 2]),
            hangs: some(&[0, 2, 4]),
            disk_failures: some(&[0, 0, 2]),
            full_disks: some(&[0, 0, 2]),
            additions: some(&[0, 0, 3, 6]),
            removals: some(&[0, 0, 3]),
            transfers: some(&[0, 0, 4]),
            ..Faults::NONE
        };
        let mut upto = |of: &[u64]| Duration::from_micros(*chance.pick(of));
        faults.delay = (upto(&[50, 200]), upto(&[200, 1_000, 5_000, 20_000]));
        faults.late_by = upto(&[50_000, 400_000, 3_000_000]);
        faults.turn = upto(&[0, 0, 200, 5_000]);
        faults.write = upto(&[0, 500, 5_000, 40_000]);
        faults.apply = upto(&[0, 0, 1_000, 50_000]);
        faults.between = upto(&[50_000, 150_000, 400_000]);
        faults
    }

    /// What the adversary may do, by weight, in the order of `Disturbance::ALL`.
    pub(super) fn weights(&self) -> [u32; 17] {
        [
            self.partitions,
            self.isolations,
            self.one_way,
            self.flaps,
            self.mends,
            self.stops,
            self.crashes,
            self.losses,
            self.pauses,
            self.jumps,
            self.rates,
            self.hangs,
            self.disk_failures,
            self.full_disks,
            self.additions,
            self.removals,
            self.transfers,
        ]
    }
}
