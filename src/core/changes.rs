//! What clients want of the members, and of who leads: one wish at a time, carried out
//! by the leader (Raft §6, thesis §4.1, §4.2, §3.10).
//!
//! ```text
//!   Add       Settling ─► Meeting ─► Written ─► (catches up) ─► done: it votes
//!                            │          └─────────────────────► done: it learns
//!                            └ no answer: refused
//!   Remove    Settling ─► Written ─► done
//!   Transfer  HandingOver ─► it leads: done, as the next leader says
//!                └ not in time: refused, and the leader goes on
//! ```
//!
//! *Settling* waits for the leader's own first commit in its term and for the members
//! before to be committed (Ongaro's note of 2015): then one entry is written, effective
//! as soon as it is appended, rolled back with it. What follows an admission, the vote of
//! who has caught up, is in the members themselves (`Standing::Joining`), so that any
//! later leader sees to it (`members`). Who asked for it waits aside for that, and is in
//! nobody's way.
//!
//! A wish ends here with the leadership. Its node sends it again, to the next leader,
//! as a `retry`: what is as wished by then is done. So an answer that was lost does no
//! harm, and nothing is done twice.

use ::core::net::SocketAddr;

use super::Core;
use super::membership::{MEMBERS_LIMIT, Member, Membership, Standing, VOTERS_LIMIT};
use super::message::{Change, ChangeOutcome, ChangeReply, Message, TimeoutNow, WhyNot, Wish};
use super::state::{Refused, Role};
use super::types::{Incarnation, Index, Life, Time};

/// A newcomer that has not answered after so long is not there, in microseconds.
const MEET_FOR: u64 = 2_000_000;
/// So many wait for a newcomer to catch up.
const JOINING_KEPT: usize = 64;
/// So many answers are remembered, for askers that did not get them.
const ANSWERS_KEPT: usize = 16;

/// A wish that is being carried out.
#[derive(Clone, Debug)]
pub struct Changing {
    /// Who asked; `None`: this node.
    from: Option<Life>,
    change: Change,
    stage: Stage,
    since: Time,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing is done yet.
    Settling,
    /// The newcomer is asked who it is.
    Meeting,
    /// The entry stands there and is not committed yet.
    Written(Index),
    /// The next leader is brought up to date, and then asked to stand for election.
    HandingOver { to: Incarnation, asked_at: Option<Time> },
}

/// Who asked for a newcomer that is a member by now, and catches up.
#[derive(Clone, Debug)]
pub struct Joining {
    from: Option<Life>,
    id: u64,
    name: String,
}

/// The wishes that were answered of late, by who asked and their numbers.
#[derive(Clone, Debug, Default)]
pub struct Answered(std::collections::VecDeque<(Life, ChangeReply)>);

impl Changing {
    /// Whether another is about to lead.
    pub fn hands_over(&self) -> bool {
        matches!(self.stage, Stage::HandingOver { .. })
    }
}

/// What is to be done next.
enum Next {
    /// Nothing yet.
    Wait,
    /// The wish ends.
    End(Result<(), WhyNot>),
    /// These are to be the members.
    Write(Membership),
    /// The stage is another now.
    Stage(Stage),
    /// The newcomer is a member; what is left is that it catches up.
    Join,
}

impl Core {
    /// A wish of this node's own; its answer comes among the effects. False: this node
    /// knows no leader, or cannot reach it; ask again.
    pub fn change(&mut self, change: Change, now: Time) -> bool {
        if self.leads() {
            self.take_change(None, change, now);
            return true;
        }
        match self.leader() {
            Some(leader) => self.send(leader, Message::Change(change)),
            None => false,
        }
    }

    pub(super) fn on_change(
        &mut self,
        from: Life,
        change: Change,
        now: Time,
    ) -> Result<(), Refused> {
        if !self.leads() {
            return Err(Refused::NotLeader);
        }
        let answered = self.answered_changes.0.iter();
        let mut same = answered.filter(|(life, reply)| *life == from && reply.id == change.id);
        if let Some((_, reply)) = same.next_back().cloned() {
            self.send(from.incarnation, Message::ChangeReply(reply));
            return Ok(());
        }
        self.take_change(Some(from), change, now);
        Ok(())
    }

    fn take_change(&mut self, from: Option<Life>, change: Change, now: Time) {
        let Role::Leader(leader) = &mut self.role else { return };
        if leader.joining.iter().any(|of| of.from == from && of.id == change.id) {
            return;
        }
        if let Some(under_way) = &leader.changing {
            if under_way.from == from && under_way.change.id == change.id {
                return;
            }
            // What was asked before may be done already: nobody is told that it is not. It
            // is asked again.
            if !change.retry {
                self.answer_change(from, refusal(change.id, WhyNot::AnotherChange));
            }
            return;
        }
        self.step(|| format!("is asked to {}", in_words(&change.wish)));
        let Role::Leader(leader) = &mut self.role else { return };
        leader.changing = Some(Changing { from, change, stage: Stage::Settling, since: now });
        self.drive_change(now);
    }

    /// Goes on with what is under way, as far as that can be done now.
    pub(super) fn drive_change(&mut self, now: Time) {
        self.end_joined();
        // Each turn is another stage, and there are four.
        for _ in 0..5 {
            let Role::Leader(leader) = &self.role else { return };
            let Some(changing) = leader.changing.clone() else { return };
            match self.next_of(&changing, now) {
                Next::Wait => return,
                Next::End(result) => return self.end_change(result),
                Next::Write(members) => {
                    let index = self.append_members(members, now);
                    self.enter(Stage::Written(index));
                    self.advance_commit(now);
                }
                Next::Stage(stage) => self.enter(stage),
                Next::Join => return self.join(),
            }
        }
    }

    fn join(&mut self) {
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(Changing { from, change, .. }) = leader.changing.take() else { return };
        let Wish::Add { name, .. } = change.wish else { return };
        if leader.joining.len() == JOINING_KEPT {
            leader.joining.remove(0);
        }
        leader.joining.push(Joining { from, id: change.id, name: name.clone() });
        self.part(&name);
        self.end_joined();
    }

    /// Newcomers that vote by now, and that is committed; or that were removed meanwhile.
    fn end_joined(&mut self) {
        let Role::Leader(leader) = &mut self.role else { return };
        if leader.joining.is_empty() || self.commit_index < self.configurations.current_index() {
            return;
        }
        let Some(members) = self.configurations.current() else { return };
        let joins =
            |of: &Joining| members.named(&of.name).is_some_and(|m| m.standing == Standing::Joining);
        let (left, over): (Vec<_>, Vec<_>) =
            std::mem::take(&mut leader.joining).into_iter().partition(joins);
        leader.joining = left;
        for Joining { from, id, name } in over {
            let voter = self.members().and_then(|m| m.named(&name)).is_some_and(Member::is_voter);
            let reply = match voter {
                true => ChangeReply { id, outcome: self.change_done() },
                false => refusal(id, WhyNot::UnknownName),
            };
            self.answer_change(from, reply);
        }
    }

    fn enter(&mut self, stage: Stage) {
        if let Role::Leader(leader) = &mut self.role
            && let Some(changing) = &mut leader.changing
        {
            changing.stage = stage;
        }
    }

    fn next_of(&mut self, changing: &Changing, now: Time) -> Next {
        let retry = changing.change.retry;
        match (&changing.change.wish, &changing.stage) {
            (Wish::Transfer { to }, Stage::Settling) => self.begin_handing_over(to, retry),
            (Wish::Transfer { .. }, Stage::HandingOver { to, asked_at }) => {
                self.go_on_handing_over(*to, *asked_at, changing.since, now)
            }
            (_, Stage::Settling) if !self.is_settled_for_change() => Next::Wait,
            (Wish::Add { name, address, voter }, Stage::Settling) => {
                self.begin_adding(name, *address, *voter, retry)
            }
            (Wish::Add { name, address, voter }, Stage::Meeting) => {
                self.add_if_met(name, *address, *voter, changing.since, now)
            }
            (Wish::Remove { name }, Stage::Settling) => {
                self.begin_removing(name, retry, changing.since, now)
            }
            (_, Stage::Written(index)) if *index > self.commit_index => Next::Wait,
            (Wish::Add { voter: true, .. }, Stage::Written(_)) => Next::Join,
            (Wish::Remove { .. } | Wish::Add { .. }, Stage::Written(_)) => Next::End(Ok(())),
            (wish, stage) => panic!("{wish:?} at {stage:?}"),
        }
    }

    /// Whether the next change may be made: one at a time, and none before the leader has
    /// committed in its own term (pitfalls 41 and 42; Ongaro's note of 2015).
    pub(super) fn is_settled_for_change(&self) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        self.commit_index >= leader.term_start
            && self.commit_index >= self.configurations.current_index()
            && !leader.hands_over()
    }

    fn begin_adding(&mut self, name: &str, address: SocketAddr, voter: bool, retry: bool) -> Next {
        let Some(members) = self.configurations.current() else { return Next::Wait };
        if let Some(member) = members.named(name) {
            let promised = matches!(member.standing, Standing::Voter | Standing::Joining);
            let as_wished = member.address == address && promised == voter;
            return match (as_wished, voter, promised) {
                (true, true, _) if retry => Next::Join,
                (true, false, _) if retry => Next::End(Ok(())),
                // A learner may become a voter.
                (false, true, false) if member.address == address => {
                    if self.voters_promised() >= VOTERS_LIMIT {
                        return Next::End(Err(WhyNot::TooMany));
                    }
                    match members.with(Member { standing: Standing::Joining, ..member.clone() }) {
                        Some(next) => Next::Write(next),
                        None => Next::End(Err(WhyNot::TooMany)),
                    }
                }
                _ => Next::End(Err(WhyNot::AlreadyMember)),
            };
        }
        if members.members.iter().any(|member| member.address == address) {
            return Next::End(Err(WhyNot::AddressTaken));
        }
        let full = members.members.len() >= MEMBERS_LIMIT;
        if full || voter && self.voters_promised() >= VOTERS_LIMIT {
            return Next::End(Err(WhyNot::TooMany));
        }
        self.lives.meet(name, address);
        Next::Stage(Stage::Meeting)
    }

    /// How many vote, or will when they have caught up.
    fn voters_promised(&self) -> usize {
        let members = self.configurations.current().into_iter().flat_map(|m| &m.members);
        members.filter(|member| member.standing != Standing::Learner).count()
    }

    /// The newcomer has echoed: it is there, at the address that was given.
    fn add_if_met(
        &self,
        name: &str,
        address: SocketAddr,
        voter: bool,
        since: Time,
        now: Time,
    ) -> Next {
        let Some(members) = self.configurations.current() else { return Next::Wait };
        let Some(peer) = self.lives.met(name) else {
            return match now.since(since) >= MEET_FOR {
                true => Next::End(Err(WhyNot::Unreachable)),
                false => Next::Wait,
            };
        };
        if !peer.fresh && peer.cluster != members.cluster {
            return Next::End(Err(WhyNot::Foreign));
        }
        // Somebody else's change may have come between.
        if !self.is_settled_for_change() {
            return Next::Wait;
        }
        let standing = if voter { Standing::Joining } else { Standing::Learner };
        let incarnation = peer.believed.map(|life| life.incarnation);
        // A member's log that was started under another name: one log counts once.
        if incarnation.is_some_and(|incarnation| members.names(incarnation)) {
            return Next::End(Err(WhyNot::AlreadyMember));
        }
        let member = Member { name: name.to_string(), address, incarnation, standing };
        match members.with(member) {
            Some(next) => Next::Write(next),
            None => Next::End(Err(WhyNot::TooMany)),
        }
    }

    fn begin_removing(&self, name: &str, retry: bool, since: Time, now: Time) -> Next {
        let Some(members) = self.configurations.current() else { return Next::Wait };
        let Some(member) = members.named(name) else {
            return Next::End(if retry { Ok(()) } else { Err(WhyNot::UnknownName) });
        };
        let next = members.without(name);
        if next.voters().count() == 0 {
            return Next::End(Err(WhyNot::NoVoterLeft));
        }
        // The entry is in force as soon as it is appended: who could not commit it could
        // commit nothing any more, nor elect anybody who can. Those that are missed may be
        // heard in a moment, or come back as other lives and be replaced.
        if member.is_voter() && !self.reaches_majority(&next, since) {
            return match now.since(since) > self.setup.election_timeout.1 {
                true => Next::End(Err(WhyNot::NoMajorityLeft)),
                false => Next::Wait,
            };
        }
        Next::Write(next)
    }

    /// Whether a majority of these voters has answered a round that began since then: who
    /// died before that does not count any more.
    fn reaches_majority(&self, members: &Membership, since: Time) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        let me = self.me.incarnation;
        let in_touch = |voter: Incarnation| {
            let answered = leader
                .progress
                .get(&voter)
                .is_some_and(|progress| progress.acked_seq > 0 && progress.contact_at >= since);
            // Who came back as another life is gone, however lately it was heard.
            voter == me || answered && self.lives.by_incarnation(voter).is_some()
        };
        super::quorum::is_majority(members, in_touch)
    }

    fn begin_handing_over(&self, to: &str, retry: bool) -> Next {
        let Some(members) = self.members() else { return Next::Wait };
        if to == self.setup.own.name {
            // Not before it is known to lead in earnest.
            return match retry {
                true if self.is_settled_for_change() => Next::End(Ok(())),
                true => Next::Wait,
                false => Next::End(Err(WhyNot::LeadsAlready)),
            };
        }
        let Some(member) = members.named(to) else { return Next::End(Err(WhyNot::UnknownName)) };
        let Some(incarnation) = member.incarnation.filter(|_| member.is_voter()) else {
            return Next::End(Err(WhyNot::NotAVoter));
        };
        Next::Stage(Stage::HandingOver { to: incarnation, asked_at: None })
    }

    /// Thesis §3.10: nothing new is taken while the next leader is brought up to date;
    /// then it is asked to stand, again and again, for as long as the shortest election
    /// timeout.
    fn go_on_handing_over(
        &mut self,
        to: Incarnation,
        asked_at: Option<Time>,
        since: Time,
        now: Time,
    ) -> Next {
        if now.since(since) >= self.setup.election_timeout.0 {
            return Next::End(Err(WhyNot::NotTakenOver));
        }
        let last = self.log.last_index();
        let heartbeat = self.setup.heartbeat;
        let Role::Leader(leader) = &self.role else { return Next::Wait };
        let up_to_date =
            leader.progress.get(&to).is_some_and(|progress| progress.match_index() == last);
        let asked_lately = asked_at.is_some_and(|at| now.since(at) < heartbeat);
        if !up_to_date || asked_lately {
            return Next::Wait;
        }
        self.ask_to_stand(to);
        Next::Stage(Stage::HandingOver { to, asked_at: Some(now) })
    }

    pub(super) fn ask_to_stand(&mut self, to: Incarnation) {
        let name = self.name_of(to);
        self.step(|| format!("asks {name} to stand for election"));
        let term = self.hard.term;
        self.send(to, Message::TimeoutNow(TimeoutNow { term }));
    }

    fn end_change(&mut self, result: Result<(), WhyNot>) {
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(Changing { from, change, .. }) = leader.changing.take() else { return };
        if let Wish::Add { name, .. } = &change.wish {
            self.part(name);
        }
        let reply = match result {
            Ok(()) => ChangeReply { id: change.id, outcome: self.change_done() },
            Err(why) => refusal(change.id, why),
        };
        self.answer_change(from, reply);
    }

    /// The leadership is over: who asked asks the next leader.
    pub(super) fn forget_changes(&mut self) {
        let Role::Leader(leader) = &mut self.role else { return };
        if let Some(Changing { change: Change { wish: Wish::Add { name, .. }, .. }, .. }) =
            leader.changing.take()
        {
            self.part(&name);
        }
    }

    fn part(&mut self, name: &str) {
        let stated = self.configurations.current_index();
        self.lives.part(name, self.configurations.current(), stated);
    }

    fn change_done(&self) -> ChangeOutcome {
        let (index, members) = match self.configurations.at(self.commit_index) {
            Some((index, members)) => (*index, members.clone()),
            None => panic!("a change of members that are not known"),
        };
        let members = Membership { former: Vec::new(), ..members };
        ChangeOutcome::Done { index, term: self.hard.term, members }
    }

    fn answer_change(&mut self, from: Option<Life>, reply: ChangeReply) {
        self.step(|| format!("answers wish {}: {}", reply.id, outcome_in_words(&reply.outcome)));
        let Some(from) = from else { return self.changes_answered.push(reply) };
        let answered = &mut self.answered_changes.0;
        if answered.len() == ANSWERS_KEPT {
            answered.pop_front();
        }
        answered.push_back((from, reply.clone()));
        let peer = self.lives.by_incarnation(from.incarnation);
        if peer.is_some_and(|peer| peer.believed == Some(from)) {
            self.send(from.incarnation, Message::ChangeReply(reply));
        }
    }

    /// When a wish wants to be looked at again.
    pub(super) fn change_deadline(&self, changing: &Changing) -> Option<Time> {
        match changing.stage {
            Stage::Meeting => Some(changing.since.plus(MEET_FOR)),
            Stage::HandingOver { asked_at, .. } => {
                let again = asked_at.map(|at| at.plus(self.setup.heartbeat));
                let end = changing.since.plus(self.setup.election_timeout.0);
                Some(again.map_or(end, |again| again.min(end)))
            }
            Stage::Settling | Stage::Written(_) => None,
        }
    }
}

fn refusal(id: u64, why: WhyNot) -> ChangeReply {
    ChangeReply { id, outcome: ChangeOutcome::Refused(why) }
}

fn in_words(wish: &Wish) -> String {
    match wish {
        Wish::Add { name, address, voter: true } => format!("add {name} at {address}"),
        Wish::Add { name, address, voter: false } => {
            format!("add {name} at {address} as a learner")
        }
        Wish::Remove { name } => format!("remove {name}"),
        Wish::Transfer { to } => format!("let {to} lead"),
    }
}

fn outcome_in_words(outcome: &ChangeOutcome) -> String {
    match outcome {
        ChangeOutcome::Done { index, .. } => format!("done, by entry {index}"),
        ChangeOutcome::Refused(why) => format!("refused, {why:?}"),
    }
}
