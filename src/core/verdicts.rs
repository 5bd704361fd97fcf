//! What the cluster agrees on of who is up: verdicts are entries of the log, so every
//! node passes through the same ones in the same order, and the index of the newest one
//! of a member is a fencing token.
//!
//! ```text
//!        ┌────────── Up ──────────┐          Up of another run: down and up at once
//!        ▼                        │
//!   (nothing) ── Up ──► up ── Down ──► down ── Up ──► up ...
//!                        │                ▲
//!                        └── other members┘  the name is another life's now, or nobody's
//! ```
//!
//! A verdict names a life, log and run: what starts anew has been down, however quick it
//! was, and the two verdicts are never merged. Which verdicts are proposed, and when, is
//! for `detector` to say; what they come to is said here, and the same everywhere.

use std::collections::BTreeMap;

use super::membership::Membership;
use super::types::{Index, Life, Payload, Protocol, Run, Verdict};

/// So often the steady time that `up` needs is doubled at most.
pub const RELAPSES_MOST: u8 = 5;

/// What is agreed of one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Agreed {
    /// The life that is meant. The run is 0 for one that has never been up.
    pub life: Life,
    /// Whether it is up.
    pub up: bool,
    /// Where in the log that was decided.
    pub index: Index,
    /// How often it went down soon after it had come up.
    pub relapses: u8,
}

/// A member is up, or down, from this index on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Its name.
    pub name: String,
    /// Whether it is up.
    pub up: bool,
    /// Where in the log that was decided.
    pub index: Index,
}

/// What is agreed of the members, as of one entry of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Verdicts {
    of: BTreeMap<String, Agreed>,
}

impl Verdicts {
    /// Those of a snapshot.
    pub fn new(of: BTreeMap<String, Agreed>) -> Verdicts {
        Verdicts { of }
    }

    /// What is agreed of that member.
    pub fn of(&self, name: &str) -> Option<&Agreed> {
        self.of.get(name)
    }

    /// All of them, in order of name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&String, &Agreed)> {
        self.of.iter()
    }

    /// An entry is committed; `members` are those in force there. Says what turns.
    pub fn apply(&mut self, index: Index, payload: &Payload, members: &Membership) -> Vec<Turn> {
        match payload {
            Payload::Protocol(Protocol::Verdict(verdict)) => self.judge(index, *verdict, members),
            Payload::Protocol(Protocol::Members(members)) => self.rename(index, members),
            Payload::Protocol(Protocol::Empty) | Payload::Client(_) => Vec::new(),
        }
    }

    fn judge(&mut self, index: Index, verdict: Verdict, members: &Membership) -> Vec<Turn> {
        let Verdict { life, up, relapses } = verdict;
        // It was removed, or another has its name, since its leader wrote this.
        let Some(member) = members.member(life.incarnation) else { return Vec::new() };
        let turn = |up| Turn { name: member.name.clone(), up, index };
        let before = self.of.get(&member.name).copied();
        let turns = match (before.filter(|before| before.up), up) {
            (Some(before), true) if before.life == life => return Vec::new(),
            (Some(before), false) if before.life != life => return Vec::new(),
            (Some(_), true) => vec![turn(false), turn(true)],
            (None, false) if before.is_some() => return Vec::new(),
            (_, up) => vec![turn(up)],
        };
        self.of.insert(member.name.clone(), Agreed { life, up, index, relapses });
        turns
    }

    /// Whose name is another life's now, or nobody's, was up and is not any more.
    fn rename(&mut self, index: Index, members: &Membership) -> Vec<Turn> {
        let mut turns = Vec::new();
        self.of.retain(|name, agreed| {
            let member = members.named(name);
            let incarnation = member.and_then(|member| member.incarnation);
            if incarnation == Some(agreed.life.incarnation) {
                return true;
            }
            if agreed.up {
                turns.push(Turn { name: name.clone(), up: false, index });
                (agreed.up, agreed.index) = (false, index);
            }
            agreed.life =
                Life { incarnation: incarnation.unwrap_or(agreed.life.incarnation), run: Run(0) };
            member.is_some()
        });
        turns
    }

    /// What turns for somebody who knew `before` and passes to this at once.
    pub fn since(&self, before: &Verdicts) -> Vec<Turn> {
        let gone =
            before.of.iter().filter(|(name, agreed)| agreed.up && !self.of.contains_key(*name));
        // Where nobody knows: when it was removed. It is not up as of what is left.
        let newest = self.of.values().map(|agreed| agreed.index).max().unwrap_or_default();
        let mut turns: Vec<Turn> = gone
            .map(|(name, agreed)| Turn {
                name: name.clone(),
                up: false,
                index: newest.max(agreed.index),
            })
            .collect();
        turns.extend(
            self.of
                .iter()
                .filter(|(name, agreed)| {
                    let known = before.of.get(*name);
                    known.is_none_or(|known| (known.up, known.index) != (agreed.up, agreed.index))
                })
                .map(|(name, agreed)| Turn {
                    name: name.clone(),
                    up: agreed.up,
                    index: agreed.index,
                }),
        );
        turns.sort_by(|a, b| (a.index, &a.name).cmp(&(b.index, &b.name)));
        turns
    }
}

#[cfg(test)]
mod tests {
    use super::super::membership::{Member, Standing};
    use super::super::types::{ClusterId, Incarnation};
    use super::*;

    fn members(lives: &[(&str, u64)]) -> Membership {
        let member = |(name, incarnation): &(&str, u64)| Member {
            name: (*name).to_string(),
            address: ([127, 0, 0, 1], 5000).into(),
            incarnation: Some(Incarnation(*incarnation)),
            standing: Standing::Voter,
        };
        Membership::new(ClusterId(1), lives.iter().map(member).collect())
    }

    fn verdict(incarnation: u64, run: u64, up: bool) -> Payload {
        let life = Life { incarnation: Incarnation(incarnation), run: Run(run) };
        Payload::Protocol(Protocol::Verdict(Verdict { life, up, relapses: 0 }))
    }

    fn told(turns: &[Turn]) -> Vec<(&str, bool, u64)> {
        turns.iter().map(|turn| (turn.name.as_str(), turn.up, turn.index.0)).collect()
    }

    #[test]
    fn what_is_said_twice_turns_once() {
        let (mut verdicts, abc) = (Verdicts::default(), members(&[("a", 1), ("b", 2), ("c", 3)]));
        let mut turns = Vec::new();
        let say = [(2, 1, true), (2, 1, true), (3, 1, false), (3, 1, false), (2, 1, false)];
        for (at, (incarnation, run, up)) in say.into_iter().enumerate() {
            let index = Index(at as u64 + 2);
            turns.extend(verdicts.apply(index, &verdict(incarnation, run, up), &abc));
        }
        assert_eq!(told(&turns), [("b", true, 2), ("c", false, 4), ("b", false, 6)]);
    }

    /// A new run is a down and an up, however it came about.
    #[test]
    fn a_new_run_was_down() {
        let (mut verdicts, a) = (Verdicts::default(), members(&[("a", 1)]));
        verdicts.apply(Index(2), &verdict(1, 1, true), &a);
        let turns = verdicts.apply(Index(3), &verdict(1, 2, true), &a);
        assert_eq!(told(&turns), [("a", false, 3), ("a", true, 3)]);
        // What is said of the run before is late.
        assert_eq!(verdicts.apply(Index(4), &verdict(1, 1, false), &a), []);
        assert_eq!(told(&verdicts.apply(Index(5), &verdict(1, 2, false), &a)), [("a", false, 5)]);
    }

    #[test]
    fn who_is_replaced_or_removed_is_down() {
        let before = members(&[("a", 1), ("b", 2)]);
        let mut verdicts = Verdicts::default();
        verdicts.apply(Index(2), &verdict(1, 1, true), &before);
        verdicts.apply(Index(3), &verdict(2, 1, true), &before);
        let after = members(&[("a", 7)]);
        let stated = Payload::Protocol(Protocol::Members(Box::new(after.clone())));
        let turns = verdicts.apply(Index(4), &stated, &after);
        assert_eq!(told(&turns), [("a", false, 4), ("b", false, 4)]);
        assert_eq!(verdicts.of("b"), None);
        assert!(!verdicts.of("a").unwrap().up);
        // Nobody is meant by that any more.
        assert_eq!(verdicts.apply(Index(5), &verdict(1, 1, true), &after), []);
        assert_eq!(told(&verdicts.apply(Index(6), &verdict(7, 3, true), &after)), [("a", true, 6)]);
    }

    #[test]
    fn after_a_snapshot_the_present_is_told() {
        let abc = members(&[("a", 1), ("b", 2), ("c", 3)]);
        let mut before = Verdicts::default();
        for (at, incarnation) in [(2, 1), (3, 2), (4, 3)] {
            before.apply(Index(at), &verdict(incarnation, 1, true), &abc);
        }
        let mut now = before.clone();
        now.apply(Index(7), &verdict(2, 1, false), &abc);
        now.apply(Index(8), &verdict(3, 1, false), &abc);
        now.apply(Index(9), &verdict(3, 1, true), &abc);
        assert_eq!(told(&now.since(&before)), [("b", false, 7), ("c", true, 9)]);
        let ab = members(&[("a", 1), ("b", 2)]);
        now.apply(Index(10), &Payload::Protocol(Protocol::Members(Box::new(ab.clone()))), &ab);
        assert_eq!(told(&now.since(&before)), [("b", false, 7), ("c", false, 7)]);
        assert_eq!(told(&before.since(&Verdicts::default())).len(), 3);
    }
}
