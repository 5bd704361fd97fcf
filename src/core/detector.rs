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

use super::Core;
use super::message::{Heartbeat, Message};
use super::progress::Progress;
use super::state::Role;
use super::types::{Incarnation, Index, Life, Payload, Protocol, Run, Time, Verdict};
use super::verdicts::{Agreed, RELAPSES_MOST};

/// Between probes at most and at least so long, in microseconds; a part of the heartbeat
/// in between.
const PROBE_MOST: u64 = 5_000;
const PROBE_LEAST: u64 = 1_000;
const PROBE_PART: u64 = 6;

/// How a leader looks at the members.
#[derive(Clone, Debug)]
pub struct Detector {
    /// When it means to look next.
    pub look_at: Time,
    /// When it last began to doubt itself.
    doubt_at: Option<Time>,
    /// When probes were last sent.
    probed_at: Option<Time>,
    /// Whether somebody's silence waits for the answers of others.
    accuses: bool,
}

/// What a leader knows of one member beside its log.
#[derive(Clone, Debug)]
#[cfg_attr(test, derive(Hash))]
pub struct Watch {
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
    /// That of a node that is elected now; whether it `watches` at all.
    pub fn new(watches: bool, now: Time) -> Detector {
        let look_at = if watches { now } else { Time(u64::MAX) };
        Detector { look_at, doubt_at: None, probed_at: None, accuses: false }
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
impl Watch {
    /// For planted bugs.
    pub fn bug_forgets_its_round(&mut self) {
        self.round = None;
    }

    /// For planted bugs.
    pub fn bug_forgets_its_steadiness(&mut self) {
        self.steady_since = None;
    }
}

impl Watch {
    /// Of one that counts as heard at `since`.
    pub fn new(since: Time) -> Watch {
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

impl Progress {
    /// When the member counts as heard last.
    fn last_sign(&self) -> Time {
        if self.acked_seq > 0 { self.contact_at } else { self.watch.since }
    }
}

/// What one look comes to.
#[derive(Default)]
struct Findings {
    probes: Vec<Incarnation>,
    /// Whose silence is complete, and no round has begun since.
    silent: Vec<Incarnation>,
    verdicts: Vec<(Incarnation, Verdict)>,
    /// When somebody's silence is worth another look.
    next: Option<Time>,
    /// Whether somebody's silence waits for the answers of others.
    accuses: bool,
}

/// What a leader goes by when it looks.
struct Sight {
    now: Time,
    timeout: u64,
    probe_after: u64,
    /// So long the accused may take to answer the round.
    grace: u64,
    doubts: bool,
    may_judge: bool,
    majority: usize,
    /// The newest message that each voter has answered.
    acked: Vec<(Incarnation, u64)>,
}

impl Sight {
    fn look_at(
        &self,
        incarnation: Incarnation,
        progress: &mut Progress,
        agreed: Option<&Agreed>,
        found: &mut Findings,
    ) {
        let silence = self.now.since(progress.last_sign());
        let watch = &mut progress.watch;
        let here = progress.acked_seq > watch.before && watch.run != Run(0);
        watch.steady_since = match here && silence < self.timeout {
            true => watch.steady_since.or(Some(self.now)),
            false => None,
        };
        let life = Life { incarnation, run: watch.run };
        let free = self.may_judge && watch.outstanding.is_none();
        if agreed.is_some_and(|agreed| !agreed.up) || agreed.is_none() && here {
            watch.round = None;
            let relapses = agreed.map_or(0, |agreed| agreed.relapses);
            let needed = agreed.map_or(0, |_| self.timeout << relapses.min(RELAPSES_MOST));
            if free && watch.steady_since.is_some_and(|at| self.now.since(at) >= needed) {
                found.verdicts.push((incarnation, Verdict { life, up: true, relapses }));
            }
            return;
        }
        let relapses = watch.relapses(agreed, self.timeout, self.now);
        let meant = agreed.map_or(life, |agreed| agreed.life);
        let down = (incarnation, Verdict { life: meant, up: false, relapses });
        if here && meant.run != watch.run {
            found.verdicts.extend(Some(down).filter(|_| free));
            return;
        }
        if silence >= self.probe_after {
            found.probes.push(incarnation);
        } else {
            let at = self.now.plus(self.probe_after - silence);
            found.next = Some(found.next.map_or(at, |next| next.min(at)));
        }
        if silence < self.timeout || self.doubts || !free {
            watch.round = None;
            return;
        }
        let Some((seq, at)) = watch.round else {
            found.silent.push(incarnation);
            return;
        };
        found.accuses = true;
        if self.is_confirmed(seq, incarnation) && self.now.since(at) >= self.grace {
            found.verdicts.push(down);
        }
    }

    /// Whether a majority has answered since `seq`, the accused left out.
    fn is_confirmed(&self, seq: u64, accused: Incarnation) -> bool {
        let confirms = |(voter, acked): &&(Incarnation, u64)| *voter != accused && *acked >= seq;
        self.acked.iter().filter(confirms).count() >= self.majority
    }
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

    /// It is elected, and has heard the leader before it last at that time.
    pub(super) fn remember_leader(&mut self, before: Option<(Incarnation, Time)>) {
        let Role::Leader(leader) = &mut self.role else { return };
        if let Some((incarnation, at)) = before
            && let Some(progress) = leader.progress.get_mut(&incarnation)
        {
            progress.watch = Watch::new(at);
        }
    }

    /// What the first entry of a term says: that its leader is up.
    pub(super) fn first_of_term(&self) -> Payload {
        if self.setup.failure_timeout.is_none() {
            return Payload::Protocol(Protocol::Empty);
        }
        let agreed = self.verdicts.of(&self.setup.own.name);
        let relapses = agreed.map_or(0, |agreed| agreed.relapses);
        Payload::Protocol(Protocol::Verdict(Verdict { life: self.me, up: true, relapses }))
    }

    fn look(&mut self, now: Time) {
        let Some(timeout) = self.setup.failure_timeout else { return };
        let heartbeat = self.setup.heartbeat;
        let probe_every = (heartbeat / PROBE_PART).clamp(PROBE_LEAST, PROBE_MOST);
        let Role::Leader(leader) = &mut self.role else { return };
        if now.since(leader.detector.look_at) > heartbeat {
            leader.detector.doubt(timeout, now);
        }
        self.follow_lives(timeout, now);
        let mut found = self.find(timeout, now);
        if !found.silent.is_empty() {
            let seq = self.send_heartbeats(now);
            for member in &found.silent {
                self.change_watch(*member, |watch| watch.round = Some((seq, now)));
            }
            found.accuses = true;
        } else if !found.probes.is_empty() {
            self.send_probes(&found.probes, probe_every, now);
        }
        for (member, verdict) in found.verdicts {
            let index = self.append_own(Payload::Protocol(Protocol::Verdict(verdict)));
            self.change_watch(member, |watch| {
                (watch.outstanding, watch.round) = (Some(index), None);
            });
        }
        let Role::Leader(leader) = &mut self.role else { return };
        let probes = (!found.probes.is_empty()).then(|| now.plus(probe_every));
        let next = [probes, found.next].into_iter().flatten().min();
        let next = leader.heartbeat_at.min(next.unwrap_or(leader.heartbeat_at));
        leader.detector.look_at = next.max(now.plus(1));
        leader.detector.accuses = found.accuses;
    }

    fn change_watch(&mut self, member: Incarnation, change: impl FnOnce(&mut Watch)) {
        let Role::Leader(leader) = &mut self.role else { return };
        if let Some(progress) = leader.progress.get_mut(&member) {
            change(&mut progress.watch);
        }
    }

    /// Each member is watched in the run that is believed. Silence of one is its own
    /// affair; that of most may be this node's.
    fn follow_lives(&mut self, timeout: u64, now: Time) {
        let long = (timeout / 2).max(self.probe_after());
        let Some(members) = self.configurations.current() else { return };
        let Role::Leader(leader) = &mut self.role else { return };
        let (mut silent, mut all) = (0, 0);
        for member in &members.members {
            let Some(incarnation) = member.incarnation else { continue };
            let Some(progress) = leader.progress.get_mut(&incarnation) else { continue };
            let peer = self.lives.by_incarnation(incarnation);
            if let Some(life) = peer.and_then(|peer| peer.believed) {
                progress.watch.lives_in(life.run, leader.seq);
            }
            progress.watch.outstanding.take_if(|index| *index <= self.commit_index);
            let up = self.verdicts.of(&member.name).map(|agreed| agreed.up);
            let up_since = progress.watch.up_since;
            progress.watch.up_since = (up == Some(true)).then(|| up_since.unwrap_or(now));
            if up != Some(false) {
                all += 1;
                silent += usize::from(now.since(progress.last_sign()) > long);
            }
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
        let (me, probe_after) = (self.me.incarnation, self.probe_after());
        let Some(members) = self.configurations.current() else { return found };
        let Role::Leader(leader) = &mut self.role else { return found };
        let acked = |voter: Incarnation| match leader.progress.get(&voter) {
            Some(progress) => progress.acked_seq,
            None => {
                if voter == me {
                    u64::MAX
                } else {
                    0
                }
            }
        };
        let voters = members.voters().filter_map(|member| member.incarnation);
        let sight = Sight {
            now,
            timeout,
            probe_after,
            grace: self.setup.heartbeat.min(timeout / 2),
            doubts: leader.detector.doubts(timeout, now),
            may_judge: self.commit_index >= leader.term_start && !leader.hands_over(),
            majority: members.majority(),
            acked: voters.map(|voter| (voter, acked(voter))).collect(),
        };
        for member in &members.members {
            let Some(incarnation) = member.incarnation else { continue };
            let Some(progress) = leader.progress.get_mut(&incarnation) else { continue };
            let agreed = self.verdicts.of(&member.name);
            // Else its name was another's until an entry that is not committed yet.
            if agreed.is_none_or(|agreed| agreed.life.incarnation == incarnation) {
                sight.look_at(incarnation, progress, agreed, &mut found);
            }
        }
        found
    }

    /// Whether this node should have heard a member by now: one of the two leads. Who is
    /// cut off suspects nobody.
    pub fn suspects(&self, now: Time) -> impl Fn(Incarnation) -> bool {
        let timeout = self.setup.failure_timeout;
        let in_touch =
            self.quorum_at(now).zip(timeout).is_some_and(|(at, timeout)| now.since(at) <= timeout);
        move |incarnation| {
            let heard_at = match &self.role {
                _ if !in_touch => None,
                Role::Leader(leader) => leader.progress.get(&incarnation).map(Progress::last_sign),
                _ if self.leader() == Some(incarnation) => self.leader_heard_at,
                _ => None,
            };
            heard_at.is_some_and(|at| now.since(at) > self.probe_after())
        }
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
