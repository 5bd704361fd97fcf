//! A cluster in which nobody dies, watched for long: how often the living are taken for
//! dead, and how long leaders keep their office.

use std::time::Duration;

use crate::core::types::{Payload, Protocol};

use super::chance::micros;
use super::faults::Faults;
use super::story::Story;
use super::world::{Step, World};
use super::{Simulation, Violation};

const SECOND: u64 = 1_000_000;

/// A quiet cluster with the default times, and what makes it hard to tell who is up.
///
/// ```
/// use kontiki::sim::{OneWay, Vigil};
/// use std::time::Duration;
///
/// let watched = Vigil::new(7).lost(100).run(Duration::from_secs(60))?;
/// assert_eq!(watched.false_verdicts, 0);
///
/// // Five voters, one of which has more to do than it can, and one that its leader cannot hear.
/// let hard = Vigil::new(7).members(5, 0).overload(8).one_way(OneWay::ToTheLeader);
/// assert_eq!(hard.run(Duration::from_secs(10))?.false_verdicts, 1);
/// # Ok::<(), kontiki::sim::Violation>(())
/// ```
#[derive(Clone, Debug)]
pub struct Vigil {
    seed: u64,
    voters: usize,
    learners: usize,
    lost: u32,
    overload: u32,
    one_way: Option<OneWay>,
}

/// Which links carry datagrams in one direction only. See [`Vigil`] for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OneWay {
    /// One follower is not heard by another.
    BetweenFollowers,
    /// One follower hears its leader and is not heard by it: nobody can know that it is
    /// up, so one verdict about it is right.
    ToTheLeader,
}

/// What was seen. See [`Vigil`] for an example.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Watched {
    /// How often a member was agreed to be down. Nobody was.
    pub false_verdicts: u64,
    /// How many terms had a leader.
    pub leaders: u64,
    /// How long a leader was in office, on average.
    pub office: Duration,
    /// How many turns of nodes there were.
    pub steps: u64,
}

impl Vigil {
    /// Three voters and a learner on a network that loses nothing.
    pub fn new(seed: u64) -> Vigil {
        Vigil { seed, voters: 3, learners: 1, lost: 0, overload: 0, one_way: None }
    }

    /// So many voters and learners.
    pub fn members(self, voters: usize, learners: usize) -> Vigil {
        Vigil { voters, learners, ..self }
    }

    /// Of a thousand datagrams so many are lost.
    pub fn lost(self, lost: u32) -> Vigil {
        Vigil { lost, ..self }
    }

    /// One follower has so many times as much to do as its processor can: whenever it
    /// has done something it waits for its turn, up to 4 ms for each of the others.
    pub fn overload(self, times: u32) -> Vigil {
        Vigil { overload: times, ..self }
    }

    /// Some links carry datagrams in one direction only.
    pub fn one_way(self, links: OneWay) -> Vigil {
        Vigil { one_way: Some(links), ..self }
    }

    /// Watches for so long, in virtual time.
    ///
    /// # Panics
    ///
    /// If there are no voters, or too many nodes.
    pub fn run(self, lasts: Duration) -> Result<Watched, Violation> {
        let simulation = Simulation::new(self.seed).voters(self.voters).learners(self.learners);
        let mut plan = simulation.plan;
        (plan.clients, plan.spares, plan.disks) = (0, 0, false);
        let mut world = World::new(plan, Faults::NONE, Story::new(None));
        self.watch(&mut world, micros(lasts)).map_err(|violation| *violation)?;
        let seconds = Duration::from_micros(micros(lasts));
        let leaders = world.history.leaders() as u64;
        Ok(Watched {
            false_verdicts: deaths(&world),
            leaders,
            office: seconds / u32::try_from(leaders).unwrap_or(u32::MAX).max(1),
            steps: world.steps,
        })
    }

    fn watch(&self, world: &mut World, lasts: u64) -> Step {
        for place in 0..world.nodes.len() {
            world.start(place)?;
        }
        world.run_until(2 * SECOND)?;
        world.faults = Faults { lost: self.lost, ..Faults::NONE };
        let leader = world.leader().unwrap_or(0);
        let [one, other] = [1, 2].map(|on| (leader + on) % self.voters);
        if self.overload > 1 {
            world.nodes[one].busy = u64::from(self.overload - 1) * 4_000;
        }
        match self.one_way {
            Some(OneWay::BetweenFollowers) => world.network.cut(one, other),
            Some(OneWay::ToTheLeader) => world.network.cut(one, leader),
            None => {}
        }
        world.run_until(world.now + lasts)
    }
}

fn deaths(world: &World) -> u64 {
    let entries = world.history.committed_entries().iter();
    let down = |payload: &Payload| matches!(payload, Payload::Protocol(Protocol::Verdict(verdict)) if !verdict.up);
    entries.filter(|(entry, _)| down(&entry.payload)).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTES: Duration = Duration::from_secs(300);

    #[test]
    fn loss_overload_and_one_way_links_kill_nobody() {
        for vigil in [
            Vigil::new(1),
            Vigil::new(2).lost(100),
            Vigil::new(3).lost(300),
            Vigil::new(4).overload(8),
            Vigil::new(5).one_way(OneWay::BetweenFollowers),
        ] {
            let watched = vigil.clone().run(MINUTES).expect("all holds");
            assert_eq!((watched.false_verdicts, watched.leaders), (0, 1), "{vigil:?}");
        }
    }

    /// Who cannot be heard is down as far as anybody can tell, and nobody else is.
    #[test]
    fn who_is_not_heard_is_down_once() {
        let vigil = Vigil::new(6).one_way(OneWay::ToTheLeader);
        let watched = vigil.run(MINUTES).expect("all holds");
        assert_eq!((watched.false_verdicts, watched.leaders), (1, 1));
    }
}
