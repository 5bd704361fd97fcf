//! The members in force, and what the leader does for them by itself (design, "Lives").
//!
//! ```text
//!   a voter comes back without its memory           the leader
//!     fresh, another incarnation, believed  ──►   entry: the old voter goes, the new life
//!                                                 joins, as a learner
//!     receives the log, has caught up       ──►   entry: it votes
//! ```
//!
//! Never one swap of the two: between them a late vote of the old life could elect one
//! leader by the members of before, and the new life's another by those of after. In two
//! entries, each committed before the next is written, any majority of one meets any of
//! the next (thesis §4.1). While the name has no vote the cluster counts one voter less,
//! so what is needed for a majority never grows by a loss.
//!
//! What is proved by that. A vote and an acknowledgement are an incarnation's; one that
//! lost its memory is another, and nothing that it says counts for the old one. An entry
//! that is committed is on a majority of the voters that were in force; as long as those
//! that are *lost* (from their death until the members that are committed show their new
//! incarnation as a voter) are a minority, some voter that remembers is in every majority
//! that elects or commits. Assumed: what `lives` assumes; and that nobody counts a member
//! as whole before the members that are *committed* say so. Three nodes and their losses
//! are walked in every order (`tests/explore/lives`), larger clusters by chance (`sim`).
//!
//! Two limits follow from the rule that members count from when they are appended (Raft
//! §6). Who has caught up is relied on from the entry that gives it a vote: beside a single
//! voter its loss, from then on, is a voter's. And a removal rests on a round that began
//! after it was asked for: a voter whose memory is lost within that moment is relied on
//! once more. In both cases the cluster may stop, and says so; nothing is lost in silence.
//!
//! Where the lost are no minority the cluster goes on only if its leader lives, has
//! committed in its term and can commit the change by those that are left (two voters,
//! one of them lost: by itself). Else nobody can ever be elected; that is told, and
//! nothing is served in place of what is lost.
//!
//! *Removed* is who is named as former by members that are committed, or is told so by
//! somebody who knows: it falls silent. Whatever it says to a leader is dropped, newer
//! terms too, and so it disturbs nobody; followers keep faith with their leader anyway
//! (thesis §4.2.3). A voter whose removal is not known to be committed still stands for
//! election: it may be the only one that has that entry (thesis §4.2.2).

use super::Core;
use super::effect::{Detail, Note};
use super::lives::Peer;
use super::membership::{Member, Membership, Standing};
use super::message::{Envelope, Message, Removed};
use super::progress::Progress;
use super::state::{Refused, Role};
use super::types::{Incarnation, Index, Life, Payload, Protocol, Time};

/// Who is removed is told at so many heartbeats.
const FAREWELLS: u32 = 20;
/// After so many elections in vain it is asked whether a majority is left.
const IN_VAIN: u64 = 4;
/// Differences between file and members are told so long after the start, in microseconds,
/// or as much later again, when the members are known.
pub(super) const DIFFERENCES_AFTER: u64 = 2_000_000;

/// How far a learner that joins has caught up, in rounds (thesis §4.2.1).
#[derive(Clone, Copy, Debug)]
#[cfg_attr(test, derive(Hash))]
pub struct Newcomer {
    /// Where the leader's log ended when the round began.
    target: Index,
    began: Time,
}

impl Core {
    /// Whether the members name this node's incarnation as a voter.
    pub(crate) fn is_voter(&self) -> bool {
        self.members().is_some_and(|members| members.is_voter(self.me.incarnation))
    }

    /// Whether this node stands for election: a voter, also one whose removal is not known
    /// to be committed (thesis §4.2.2).
    pub(crate) fn may_campaign(&self) -> bool {
        let removal = || {
            let voted = self.configurations.before_current();
            self.configurations.current_index() > self.commit_index
                && voted.is_some_and(|members| members.is_voter(self.me.incarnation))
        };
        (self.is_voter() || removal()) && !self.is_removed()
    }

    /// Whether this node was a member and is none any more, as far as it knows.
    pub fn is_removed(&self) -> bool {
        let Some(members) = self.members() else { return false };
        let stated = self.configurations.current_index();
        let by_log = members.is_former(self.me.incarnation) && stated <= self.commit_index;
        // Who is named by what came after that has come back; unless the log has something
        // else there: then it is not the cluster's, and what it states behind came to
        // nothing.
        let told = self.removed_at.is_some_and(|index| {
            let newest = index > stated || index == stated && !members.names(self.me.incarnation);
            newest || index > self.commit_index && !self.parts_here(index)
        });
        by_log || told
    }

    /// Whether the entry at `index` states members without this node.
    fn parts_here(&self, index: Index) -> bool {
        let entry = self.log.entry(index);
        let parts = |members: &Membership| !members.names(self.me.incarnation);
        entry.is_some_and(|entry| match &entry.payload {
            Payload::Protocol(Protocol::Members(members)) => parts(members),
            _ => false,
        })
    }

    /// Where the members are stated and committed of whom this incarnation is a former one.
    pub(super) fn parted(&self, incarnation: Incarnation) -> Option<Index> {
        let (index, committed) = self.configurations.at(self.commit_index)?;
        let current = self.configurations.current()?;
        let gone = committed.is_former(incarnation) && !current.names(incarnation);
        gone.then_some(*index)
    }

    /// Tells a life that it is no member any more.
    pub(super) fn tell_removed(&mut self, to: Life, index: Index) {
        let Some(peer) = self.lives.by_incarnation(to.incarnation) else { return };
        let (address, believed) = (peer.node.address, peer.believed == Some(to));
        if believed {
            self.post_to(address, to, Message::Removed(Removed { index }));
        }
    }

    pub(super) fn on_removed(&mut self, m: Removed, now: Time) {
        let before = self.is_removed();
        self.removed_at = self.removed_at.max(Some(m.index));
        if !before && self.is_removed() {
            if !matches!(self.role, Role::Follower(_)) || self.leader().is_some() {
                self.become_follower(self.hard.term, None, now, "was removed");
            }
            self.note_removed();
        }
    }

    /// Says so once in a row.
    pub(super) fn note_removed(&mut self) {
        let removed = self.is_removed();
        if removed != self.removal_told {
            self.removal_told = removed;
            if removed {
                let known = self.configurations.current_index();
                let index = self.removed_at.map_or(known, |told| told.max(known));
                self.tell(Detail::Turns, || Note::Removed(index));
            }
        }
    }

    /// A leader changes members: what a client wants, then who comes back, then who has
    /// caught up. One change at a time, and none before it has committed in its term
    /// (Ongaro's note of 2015).
    pub(super) fn tend_members(&mut self, now: Time) {
        if !self.leads() {
            return;
        }
        self.drive_change(now);
        if !self.is_settled_for_change() {
            return;
        }
        let Some(members) = self.members() else { return };
        if let Some(next) = self.lives.comeback(members, now) {
            return self.change_members(next, "takes back", now);
        }
        if let Some(next) = self.promotion(now) {
            self.change_members(next, "gives a vote to", now);
        }
    }

    fn change_members(&mut self, next: Membership, what: &str, now: Time) {
        let before = self.members();
        let changed = next
            .members
            .iter()
            .find(|member| before.is_none_or(|before| before.named(&member.name) != Some(member)));
        let name = changed.map_or(String::new(), |member| member.name.clone());
        self.step(|| format!("{what} {name}"));
        self.append_members(next, now);
        self.advance_commit(now);
    }

    /// These are the members from now on. Where they are fewer, more may be committed by
    /// that alone, so `advance_commit` is due.
    pub(super) fn append_members(&mut self, next: Membership, now: Time) -> Index {
        let index = self.append_own(Payload::Protocol(Protocol::Members(Box::new(next))));
        self.follow_members(now);
        index
    }

    /// The members when one that joins has caught up: it followed a round of the log within
    /// an election timeout, and is in touch.
    fn promotion(&mut self, now: Time) -> Option<Membership> {
        let last = self.log.last_index();
        let patience = self.setup.election_timeout.1;
        let members = self.configurations.current()?;
        let Role::Leader(leader) = &mut self.role else { return None };
        let joining = |member: &&Member| member.standing == Standing::Joining;
        leader.newcomers.retain(|incarnation, _| {
            members.member(*incarnation).is_some_and(|member| joining(&member))
        });
        for member in members.members.iter().filter(joining) {
            let Some(incarnation) = member.incarnation else { continue };
            let Some(progress) = leader.progress.get(&incarnation) else { continue };
            // Who came back as yet another life is gone.
            if self.lives.by_incarnation(incarnation).is_none() {
                continue;
            }
            let begin = Newcomer { target: last, began: now };
            let round = leader.newcomers.entry(incarnation).or_insert(begin);
            if progress.match_index() < round.target {
                continue;
            }
            let quick = now.since(round.began) <= patience;
            *round = begin;
            if quick && now.since(progress.contact_at) <= patience {
                return members.with(Member { standing: Standing::Voter, ..member.clone() });
            }
        }
        None
    }

    /// The leader keeps a progress of each member but itself, and of nobody else.
    pub(super) fn follow_members(&mut self, now: Time) {
        let me = self.me.incarnation;
        let last_index = self.log.last_index();
        let Some(members) = self.configurations.current() else { return };
        let Role::Leader(leader) = &mut self.role else { return };
        leader.progress.retain(|incarnation, _| members.names(*incarnation));
        for incarnation in members.members.iter().filter_map(|member| member.incarnation) {
            if incarnation != me {
                leader
                    .progress
                    .entry(incarnation)
                    .or_insert_with(|| Progress::new(last_index, now));
            }
        }
    }

    /// The members that are committed are others now.
    pub(super) fn members_committed(&mut self, now: Time) {
        self.note_removed();
        let Some((_, members)) = self.configurations.at(self.commit_index) else { return };
        let me = self.me.incarnation;
        let latest = members.former.last().map(|former| former.incarnation);
        let names_me = members.names(me);
        let Role::Leader(leader) = &mut self.role else { return };
        // Whose name was taken by another life is gone already.
        if let Some(former) = latest.filter(|former| *former != me) {
            leader.farewells.insert(former, FAREWELLS);
        }
        if !names_me {
            self.leave_office(now);
        }
    }

    /// A leader that removed itself leads until that is committed (thesis §4.2.2); then
    /// who has most of the log is asked to stand, so that nobody waits for a timeout.
    fn leave_office(&mut self, now: Time) {
        self.drive_change(now);
        let Some(members) = self.configurations.current() else { return };
        let Role::Leader(leader) = &self.role else { return };
        let voters = members.voters().filter_map(|member| member.incarnation);
        let known = voters.filter_map(|of| Some((leader.progress.get(&of)?.match_index(), of)));
        if let Some((_, next)) = known.max() {
            self.ask_to_stand(next);
        }
        self.become_follower(self.hard.term, None, now, "has removed itself");
    }

    /// Who was removed hears of it by way of the heartbeats, for a while.
    pub(super) fn say_farewell(&mut self) {
        let Role::Leader(leader) = &mut self.role else { return };
        let told: Vec<Incarnation> = leader.farewells.keys().copied().collect();
        leader.farewells.retain(|_, left| {
            *left -= 1;
            *left > 0
        });
        for former in told {
            let life = self.lives.by_incarnation(former).and_then(|peer| peer.believed);
            if let (Some(life), Some(index)) = (life, self.parted(former)) {
                self.tell_removed(life, index);
            }
        }
    }

    /// A former member speaks. To a leader nothing that it says counts, not even a newer
    /// term; who follows one answers it as anybody, and tells it how it stands.
    pub(super) fn check_member(&mut self, from: Life, message: &Message) -> Result<(), Refused> {
        let asks = matches!(message, Message::PreVote(_) | Message::RequestVote(_));
        let leads = self.leads();
        if !asks && !leads || matches!(message, Message::Removed(_)) {
            return Ok(());
        }
        let Some(index) = self.parted(from.incarnation) else { return Ok(()) };
        self.tell_removed(from, index);
        if leads { Err(Refused::NoMember) } else { Ok(()) }
    }

    /// A life speaks that is not believed. If the members name it, or did, it is asked who
    /// it is: a member takes part again then, and one that is none any more is told.
    pub(super) fn ask_who_it_is(&mut self, from: Life, now: Time) {
        if self.lives.by_incarnation(from.incarnation).is_some() {
            return;
        }
        let Some(members) = self.configurations.current() else { return };
        let member = members.member(from.incarnation).map(|member| &member.name);
        let mut former = members.former.iter().filter(|of| of.incarnation == from.incarnation);
        match (member, former.next()) {
            (Some(name), _) => self.lives.claims(name, from, false, now),
            (None, Some(former)) => self.lives.claims(&former.name, from, true, now),
            (None, None) => {}
        }
    }

    /// The voters that came back under their names as other lives: what they knew is gone.
    /// `None`: a majority of the voters may still remember. Who is merely behind would be
    /// told of newer members by their leader: so this waits for a few elections in vain.
    pub fn majority_lost(&self) -> Option<Vec<String>> {
        let members = self.members().filter(|_| self.campaigns >= IN_VAIN)?;
        let gone = |member: &&Member| {
            let ours = |peer: &&Peer| peer.fresh || peer.cluster == members.cluster;
            let peer = self.lives.by_name(&member.name).filter(ours);
            let life = peer.and_then(|peer| peer.believed);
            life.is_some_and(|life| member.incarnation.is_some_and(|of| of != life.incarnation))
        };
        let lost: Vec<String> =
            members.voters().filter(gone).map(|member| member.name.clone()).collect();
        let left = members.voters().count() - lost.len();
        (left < members.majority() && self.may_campaign()).then_some(lost)
    }

    /// Says once that no majority is left.
    pub(super) fn watch_majority(&mut self) {
        if self.leader().is_some() {
            self.majority_lost_told = false;
        } else if !self.majority_lost_told
            && let Some(names) = self.majority_lost()
        {
            self.majority_lost_told = true;
            self.tell(Detail::Turns, || Note::MajorityLost(names));
        }
    }

    /// The file starts a cluster, and never changes one: where the two differ, that is said
    /// once a run, with the request that would bring it about (pitfall 47).
    pub(super) fn watch_file(&mut self, now: Time) {
        let Some(at) = self.differences_at.filter(|_| self.hard.cluster.is_some()) else { return };
        if now < at {
            return;
        }
        self.differences_at = Some(now.plus(DIFFERENCES_AFTER));
        let committed = self.configurations.at(self.commit_index);
        let Some((_, members)) = committed.filter(|_| self.commit_index > Index(0)) else { return };
        let me = members.member(self.me.incarnation);
        if me.is_none_or(|me| me.standing == Standing::Joining) {
            return;
        }
        let differences = self.differences(members);
        self.differences_at = None;
        if !differences.is_empty() {
            self.tell(Detail::Turns, || Note::FileDiffers(differences));
        }
    }

    fn differences(&self, members: &Membership) -> Vec<String> {
        let file = || self.setup.others.iter().chain([&self.setup.own]);
        let mut differences = Vec::new();
        for node in file() {
            let (name, address) = (&node.name, node.address);
            let add = if node.voter { "add_member" } else { "add_learner" };
            match members.named(name) {
                None => differences.push(format!(
                    "{name} is no member: Request::{add}({name:?}, {address}) makes it one"
                )),
                Some(member) if member.address != address => differences.push(format!(
                    "{name} is a member at {}, and the file says {address}: \
                     Request::remove_member({name:?}), then Request::{add} with the new address",
                    member.address
                )),
                Some(member) if node.voter && member.standing == Standing::Learner => {
                    differences.push(format!(
                        "{name} is a learner: Request::add_member({name:?}, {address}) makes it \
                         a voter"
                    ));
                }
                Some(member) if !node.voter && member.is_voter() => differences.push(format!(
                    "{name} is a voter: Request::remove_member({name:?}), then \
                     Request::add_learner({name:?}, {address}) makes it a learner"
                )),
                Some(_) => {}
            }
        }
        for member in &members.members {
            if !file().any(|node| node.name == member.name) {
                differences.push(format!(
                    "{} at {} is a member and not in the file: write it there, or \
                     Request::remove_member({:?})",
                    member.name, member.address, member.name
                ));
            }
        }
        differences
    }

    fn post_to(&mut self, address: ::core::net::SocketAddr, to: Life, message: Message) {
        let cluster = self.hard.cluster.unwrap_or_default();
        self.tell(Detail::Messages, || Note::Message(format!("to {address}: {message:?}")));
        let envelope = Envelope { cluster, from: self.me, to, message };
        self.post(super::effect::Outgoing { address, envelope });
    }

    /// A life that is superseded, or was removed, is told so where the members say it.
    pub(super) fn tell_superseded(&mut self, place: usize, to: Life) {
        if let Some(index) = self.parted(to.incarnation) {
            let address = self.lives.peers()[place].node.address;
            self.post_to(address, to, Message::Removed(Removed { index }));
        }
    }

    /// Whether a hello is of a life whose name has another one by now.
    pub(super) fn is_outlived(&self, name: &str, incarnation: Incarnation) -> bool {
        let Some(members) = self.members() else { return false };
        let another = members.named(name).is_some_and(|m| m.incarnation != Some(incarnation));
        another && members.is_former(incarnation)
    }
}
