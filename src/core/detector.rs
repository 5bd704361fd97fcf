//! Who is up: the leader watches all members, learners too, and proposes what the cluster
//! agrees on (`verdicts`).
//!
//! ```text
//!   two heartbeats missed          silent for `failure_timeout`         confirmed
//!   probed every few ms    ──────► a round of heartbeats begins ──────► `Down` is proposed
//!        │                                    │
//!        └──────── any answer ◄───────────────┘
//! ```
//!
//! Silence is counted from when the newest round began that the member has answered, so it
//! never looks shorter than it is, and what is lost costs probes and no verdict. What
//! keeps a leader from taking its own trouble for that of others:
//!
//! - It accuses only when a round that began after the silence was complete was confirmed
//!   by a majority without the accused: who was cut off or asleep accuses nobody. The
//!   accused had a heartbeat's time to answer that round, and the probes in it.
//! - If it looks later than it meant to, or most fell silent at once, it doubts itself,
//!   for one more failure timeout; then doubt needs a pause, so it ends.
//! - It proposes nothing before it has committed in its own term: then it knows every
//!   verdict there is. One verdict a member is outstanding.
//!
//! The first entry of a term says that its leader is up. The leader before it is judged by
//! what this node last heard of it while it followed; all others from the election on.
//!
//! Who is down is up again when it was heard without a longer pause than the failure
//! timeout for as long; each relapse doubles that, within a bound, until it stays up for
//! long. A run that was not known is a down and an up: the first is said at once.

use std::collections::BTreeMap;

use super::Core;
use super::message::{Heartbeat, Message};
use super::state::{Leader, Role};
use super::types::{Incarnation, Index, Life, Payload, Run, Time, Verdict};
use super::verdicts::{Agreed, RELAPSES_MOST};

/// Between probes at most and at least so long, in microseconds; a part of the heartbeat
/// in between.
const PROBE_MOST: u64 = 5_000;
const PROBE_LEAST: u64 = 1_000;
const PROBE_PART: u64 = 6;

/// What a leader knows of who is up.
#[derive(Clone, Debug)]
#[cfg_attr(test, derive(Hash))]
pub struct Detector {
    watched: BTreeMap<Incarnation, Watch>,
    /// When it means to look next.
    pub look_at: Time,
    /// When it last began to doubt itself.
    doubt_at: Option<Time>,
    /// When probes were last sent.
    probed_at: Option<Time>,
    /// Whether somebody's silence waits for the answers of others.
    pub accuses: bool,
}

/// One member.
#[derive(Clone, Debug)]
#[cfg_attr(test, derive(Hash))]
struct Watch {
    /// Its run, as it is believed; 0 while nobody is. Answers to what was sent up to
    /// `before` are not of that run.
    run: Run,
    before: u64,
    /// Counts as heard then, while it has answered nothing.
    since: Time,
    /// Without a pause since then.
    steady_since: Option<Time>,
    /// The round that began after its silence was complete, and when.
    round: Option<(u64, Time)>,
    /// A verdict that is not committed yet.
    outstanding: Option<Index>,
    /// Up since then, as far as this leader knows.
    up_since: Option<Time>,
}

impl Detector {
    /// That of a node that is elected now, or is asked for no verdicts (`None`). It has
    /// followed `before`, and heard of that last then.
    pub fn new(watches: bool, before: Option<(Incarnation, Time)>, now: Time) -> Detector {
        let before = before.map(|(leader, at)| (leader, Watch::new(at)));
        let look_at = if watches { now } else { Time(u64::MAX) };
        let watched = before.into_iter().collect();
        Detector { watched, look_at, doubt_at: None, probed_at: None, accuses: false }
    }

    /// It is a member anew: what was known of it is over.
    pub fn forget(&mut self, incarnation: Incarnation) {
        self.watched.remove(&incarnation);
    }

    fn doubts(&self, timeout: u64, now: Time) -> bool {
        self.doubt_at.is_some_and(|at| now.since(at) < timeout)
    }

    /// A doubt that could be renewed as it ends would never end.
    fn doubt(&mut self, timeout: u64, now: Time) {
        if self.doubt_at.is_none_or(|at| now.since(at) >= 2 * timeout) {
            self.doubt_at = Some(now);
        }
    }
}

#[cfg(test)]
impl Detector {
    /// For planted bugs.
    pub fn bug_forgets_rounds(&mut self) {
        self.watched.values_mut().for_each(|watch| watch.round = None);
    }

    /// For planted bugs.
    pub fn bug_forgets_steadiness(&mut self) {
        self.watched.values_mut().for_each(|watch| watch.steady_since = None);
    }
}

impl Watch {
    fn new(since: Time) -> Watch {
        Watch {
            run: Run(0),
            before: 0,
            since,
            steady_since: None,
            round: None,
            outstanding: None,
            up_since: None,
        }
    }

    /// It lives in this run, as far as anybody knows.
    fn lives_in(&mut self, run: Run, seq: u64) {
        if self.run != run {
            (self.run, self.before, self.steady_since) = (run, seq, None);
        }
    }

    /// How often it relapsed, if it goes down now; `Agreed` is what it is up by.
    fn relapses(&self, agreed: Option<&Agreed>, timeout: u64, now: Time) -> u8 {
        let Some(agreed) = agreed else { return 0 };
        let long = self.up_since.is_some_and(|at| now.since(at) > timeout << RELAPSES_MOST);
        if long { 0 } else { (agreed.relapses + 1).min(RELAPSES_MOST) }
    }
}

/// What one look comes to.
#[derive(Default)]
struct Findings {
    probes: Vec<Incarnation>,
    /// Whose silence is complete, and no round has begun since.
    silent: Vec<Incarnation>,
    verdicts: Vec<Verdict>,
    /// When somebody's silence is worth another look.
    next: Option<Time>,
}

impl Core {
    /// Looks if it is time.
    pub(super) fn tick_detector(&mut self, now: Time) {
        let Role::Leader(leader) = &self.role else { return };
        if now >= leader.detector.look_at {
            self.look(now);
        }
    }

    /// Somebody answered: perhaps that is what an accusation waited for. It looks when all
    /// that has come by now is taken in: the answer of the accused may be among it.
    pub(super) fn hear_for_detector(&mut self, now: Time) {
        let Role::Leader(leader) = &mut self.role else { return };
        if leader.detector.accuses {
            leader.detector.look_at = leader.detector.look_at.min(now);
        }
    }

    /// What the first entry of a term says: that its leader is up.
    pub(super) fn first_of_term(&self) -> Payload {
        if self.setup.failure_timeout.is_none() {
            return Payload::Empty;
        }
        let agreed = self.verdicts.of(&self.setup.own.name);
        let relapses = agreed.map_or(0, |agreed| agreed.relapses);
        Payload::Verdict(Verdict { life: self.me, up: true, relapses })
    }

    fn look(&mut self, now: Time) {
        let Some(timeout) = self.setup.failure_timeout else { return };
        let heartbeat = self.setup.heartbeat;
        let probe_every = (heartbeat / PROBE_PART).clamp(PROBE_LEAST, PROBE_MOST);
        let Role::Leader(leader) = &mut self.role else { return };
        if now.since(leader.detector.look_at) > heartbeat {
            leader.detector.doubt(timeout, now);
        }
        self.follow_lives(now);
        self.doubt_if_most_are_silent(timeout, now);
        let findings = self.find(timeout, now);
        if !findings.silent.is_empty() {
            let seq = self.send_heartbeats(now);
            self.each_watch(&findings.silent, |watch| watch.round = Some((seq, now)));
        } else if !findings.probes.is_empty() {
            self.send_probes(&findings.probes, probe_every, now);
        }
        for verdict in findings.verdicts {
            let index = self.append_own(Payload::Verdict(verdict));
            self.each_watch(&[verdict.life.incarnation], |watch| {
                watch.outstanding = Some(index);
                watch.round = None;
            });
        }
        let Role::Leader(leader) = &mut self.role else { return };
        let probes = (!findings.probes.is_empty()).then(|| now.plus(probe_every));
        let next = leader.heartbeat_at.min(findings.next.unwrap_or(leader.heartbeat_at));
        leader.detector.look_at = next.min(probes.unwrap_or(next)).max(now.plus(1));
        leader.detector.accuses = leader.detector.watched.values().any(|of| of.round.is_some());
    }

    fn each_watch(&mut self, of: &[Incarnation], change: impl Fn(&mut Watch)) {
        let Role::Leader(leader) = &mut self.role else { return };
        for incarnation in of {
            if let Some(watch) = leader.detector.watched.get_mut(incarnation) {
                change(watch);
            }
        }
    }

    /// All members but this one are watched, each in the run that is believed.
    fn follow_lives(&mut self, now: Time) {
        let Some(members) = self.configurations.current() else { return };
        let Role::Leader(leader) = &mut self.role else { return };
        let watched = &mut leader.detector.watched;
        watched.retain(|incarnation, _| leader.progress.contains_key(incarnation));
        for incarnation in leader.progress.keys() {
            let watch = watched.entry(*incarnation).or_insert_with(|| Watch::new(now));
            let peer = self.lives.by_incarnation(*incarnation);
            if let Some(life) = peer.and_then(|peer| peer.believed) {
                watch.lives_in(life.run, leader.seq);
            }
            watch.outstanding.take_if(|index| *index <= self.commit_index);
            let agreed = members.member(*incarnation).and_then(|m| self.verdicts.of(&m.name));
            match agreed.is_some_and(|agreed| agreed.up) {
                true => watch.up_since = watch.up_since.or(Some(now)),
                false => watch.up_since = None,
            }
        }
    }

    /// When the member counts as heard last.
    fn last_sign(leader: &Leader, incarnation: Incarnation, watch: &Watch) -> Time {
        match leader.progress.get(&incarnation) {
            Some(progress) if progress.acked_seq > 0 => progress.contact_at,
            _ => watch.since,
        }
    }

    /// Silence of one is its own affair; that of most may be this node's.
    fn doubt_if_most_are_silent(&mut self, timeout: u64, now: Time) {
        let long = (timeout / 2).max(self.probe_after());
        let Some(members) = self.configurations.current() else { return };
        let Role::Leader(leader) = &mut self.role else { return };
        let is_down = |incarnation: &Incarnation| {
            let member = members.member(*incarnation);
            let agreed = member.and_then(|member| self.verdicts.of(&member.name));
            agreed.is_some_and(|agreed| !agreed.up)
        };
        let (mut silent, mut all) = (0, 0);
        for (incarnation, watch) in leader.detector.watched.iter().filter(|(of, _)| !is_down(of)) {
            all += 1;
            silent += usize::from(now.since(Core::last_sign(leader, *incarnation, watch)) > long);
        }
        if silent >= 2 && silent * 2 > all {
            leader.detector.doubt(timeout, now);
        }
    }

    /// A member is probed after so long: two heartbeats are missed, and there was time to
    /// answer the second.
    fn probe_after(&self) -> u64 {
        self.setup.heartbeat * 5 / 2
    }

    fn find(&mut self, timeout: u64, now: Time) -> Findings {
        let mut found = Findings::default();
        let probe_after = self.probe_after();
        let grace = self.setup.heartbeat.min(timeout / 2);
        let me = self.me.incarnation;
        let Some(members) = self.configurations.current() else { return found };
        let Role::Leader(leader) = &mut self.role else { return found };
        let may_judge = self.commit_index >= leader.term_start && !leader.hands_over();
        let doubts = leader.detector.doubts(timeout, now);
        let mut watched = std::mem::take(&mut leader.detector.watched);
        for (incarnation, watch) in &mut watched {
            let Some(member) = members.member(*incarnation) else { continue };
            let agreed = self.verdicts.of(&member.name);
            // Its name was another's until an entry that is not committed yet.
            if agreed.is_some_and(|agreed| agreed.life.incarnation != *incarnation) {
                continue;
            }
            let acked = leader.progress.get(incarnation).map_or(0, |of| of.acked_seq);
            let heard_at = Core::last_sign(leader, *incarnation, watch);
            let silence = now.since(heard_at);
            let here = acked > watch.before && watch.run != Run(0);
            if !here || silence >= timeout {
                watch.steady_since = None;
            } else {
                watch.steady_since = watch.steady_since.or(Some(now));
            }
            let life = Life { incarnation: *incarnation, run: watch.run };
            let free = may_judge && watch.outstanding.is_none();
            if agreed.is_some_and(|agreed| !agreed.up) || agreed.is_none() && here {
                watch.round = None;
                let relapses = agreed.map_or(0, |agreed| agreed.relapses);
                let needed = agreed.map_or(0, |_| timeout << relapses.min(RELAPSES_MOST));
                if free && watch.steady_since.is_some_and(|at| now.since(at) >= needed) {
                    found.verdicts.push(Verdict { life, up: true, relapses });
                }
                continue;
            }
            let down = Verdict {
                life: agreed.map_or(life, |agreed| agreed.life),
                up: false,
                relapses: watch.relapses(agreed, timeout, now),
            };
            if here && agreed.is_some_and(|agreed| agreed.life.run != watch.run) {
                found.verdicts.extend(Some(down).filter(|_| free));
                continue;
            }
            if silence >= probe_after {
                found.probes.push(*incarnation);
            } else {
                let at = heard_at.plus(probe_after);
                found.next = Some(found.next.map_or(at, |next| next.min(at)));
            }
            if silence < timeout || doubts || !free {
                watch.round = None;
                continue;
            }
            let Some((seq, at)) = watch.round else {
                found.silent.push(*incarnation);
                continue;
            };
            let confirms = |voter: Incarnation| {
                voter == me || leader.progress.get(&voter).is_some_and(|of| of.acked_seq >= seq)
            };
            let others = members.voters().filter_map(|member| member.incarnation);
            let confirmed = others.filter(|of| of != incarnation && confirms(*of)).count();
            if confirmed >= members.majority() && now.since(at) >= grace {
                found.verdicts.push(down);
            }
        }
        leader.detector.watched = watched;
        found
    }

    /// Whether this node should have heard that member by now: one of the two leads. Who
    /// is cut off suspects nobody.
    pub fn suspects(&self, incarnation: Incarnation, now: Time) -> bool {
        let Some(timeout) = self.setup.failure_timeout else { return false };
        if self.quorum_at(now).is_none_or(|at| now.since(at) > timeout) {
            return false;
        }
        let heard_at = match &self.role {
            Role::Leader(leader) => {
                let watch = leader.detector.watched.get(&incarnation);
                watch.map(|watch| Core::last_sign(leader, incarnation, watch))
            }
            _ if self.leader() == Some(incarnation) => self.leader_heard_at,
            _ => None,
        };
        heard_at.is_some_and(|at| now.since(at) > self.probe_after())
    }

    /// A round of heartbeats for a few.
    fn send_probes(&mut self, to: &[Incarnation], every: u64, now: Time) {
        let (term, leader_commit) = (self.hard.term, self.commit_index);
        let quorum_age_us = self.quorum_at(now).map_or(0, |at| now.since(at));
        let Role::Leader(leader) = &mut self.role else { return };
        if leader.detector.probed_at.is_some_and(|at| now.since(at) < every) {
            return;
        }
        leader.detector.probed_at = Some(now);
        leader.begin_round(self.setup.heartbeat / 8, now);
        let seq = leader.next_seq();
        for member in to {
            let probe = Heartbeat { term, seq, leader_commit, quorum_age_us };
            self.send(*member, Message::Heartbeat(probe));
        }
    }
}
