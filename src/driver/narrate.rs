//! The node tells what it does: lines of log, and events.
//!
//! Each line leads with node, term and role. `info` tells of roles, leaders,
//! members and whom a node waits for; `debug` each vote, append and commit;
//! `trace` each message.

use std::io;
use std::net::SocketAddr;

use log::Level;

use crate::committed::Role;
use crate::config::Config;
use crate::core::effect::{Detail, Note, Told};
use crate::core::membership::{Member, Membership};
use crate::core::types::{Index, Time};
use crate::core::verdicts::Turn;
use crate::engine::{self, Counts, Engine};
use crate::event::Event;
use crate::secret::Secrets;
use crate::shared::{Shared, Ticket};
use crate::wire::Refusal;
use crate::wire::seal;
use crate::wire::udp::{Bound, Lost};

/// What was dropped is told this often at most, in microseconds.
const COUNTS_EVERY: u64 = 10_000_000;

/// Tells of one node.
pub(super) struct Narrator<'a> {
    shared: &'a Shared,
    config: &'a Config,
    role: Option<(Role, u64)>,
    leader: Option<(Option<String>, u64)>,
    members: Index,
    counts_told: (Counts, u64),
    counts_at: Time,
    receive_failed: bool,
    /// Whether it was told, for each way in which others seal otherwise.
    strangers_told: [bool; 3],
}

impl<'a> Narrator<'a> {
    pub(super) fn new(shared: &'a Shared, config: &'a Config) -> Narrator<'a> {
        Narrator {
            shared,
            config,
            role: None,
            leader: None,
            members: Index(0),
            counts_told: (Counts::default(), 0),
            counts_at: Time(COUNTS_EVERY),
            receive_failed: false,
            strangers_told: [false; 3],
        }
    }

    /// How much of the story anybody listens to.
    pub(super) fn detail(&self) -> Detail {
        if log::log_enabled!(target: "kontiki", Level::Trace) {
            Detail::Messages
        } else if log::log_enabled!(target: "kontiki", Level::Debug) {
            Detail::Steps
        } else {
            Detail::Turns
        }
    }

    fn line(&self, level: Level, told: &Told, text: &str) {
        log::log!(target: "kontiki", level, "{} term {} {}: {text}", self.shared.name, told.term, told.role);
    }

    pub(super) fn started(&self, bound: &Bound) {
        let Bound { address, receive_buffer_bytes, send_buffer_bytes, .. } = bound;
        log::info!(
            target: "kontiki",
            "{} starts at {address}; the socket's buffers hold {receive_buffer_bytes} bytes in, \
             {send_buffer_bytes} out",
            place(self.shared, Some(Role::Stopped))
        );
    }

    /// What keeps strangers out, or that nothing does.
    pub(super) fn seals(&self, secrets: Option<&Secrets>) {
        let place = place(self.shared, Some(Role::Stopped));
        match secrets.map(seal::names).as_deref() {
            Some([only]) => {
                log::info!(target: "kontiki", "{place} seals its datagrams by the secret {only}");
            }
            Some(names) => log::info!(
                target: "kontiki",
                "{place} seals its datagrams by the secret {}, and opens those sealed by {} too",
                names[0],
                names[1..].join(", ")
            ),
            None if self.is_on_a_network() => log::warn!(
                target: "kontiki",
                "{place} has no secret: it trusts whoever can send it a datagram (see secret_file)"
            ),
            None => {}
        }
    }

    /// Whether any datagram leaves this machine.
    fn is_on_a_network(&self) -> bool {
        let listens = self.config.listens_at(&self.shared.name);
        let nodes = self.config.settings().nodes.iter().map(|node| node.address);
        nodes.chain(listens).any(|address| !address.ip().to_canonical().is_loopback())
    }

    /// Others do not seal as this node does: somebody has the wrong file, most likely.
    pub(super) fn tell_of_seals(&mut self, counts: &Counts) {
        let sealed = self.config.settings().secret.is_some();
        let reasons = [
            (Refusal::Closing, "datagrams come that are not sealed"),
            (Refusal::Secret, "datagrams come that are sealed by a secret it does not have"),
            (Refusal::Forged, "datagrams come whose seal is broken"),
        ];
        for ((refusal, what), told) in reasons.into_iter().zip(&mut self.strangers_told) {
            if *told || counts.refused[refusal as usize] == 0 {
                continue;
            }
            *told = true;
            let what = if sealed { what } else { "sealed datagrams come, and it has no secret" };
            log::warn!(
                target: "kontiki",
                "{} {what}; they are dropped (do all nodes have the same secret_file?)",
                place(self.shared, None)
            );
        }
    }

    pub(super) fn stopped(&self) {
        log::info!(target: "kontiki", "{} has stopped", place(self.shared, Some(Role::Stopped)));
    }

    pub(super) fn lost(&self, to: SocketAddr, lost: Lost) {
        if log::log_enabled!(target: "kontiki", Level::Trace) {
            let place = place(self.shared, None);
            log::trace!(target: "kontiki", "{place} a datagram to {to} was lost: {}", lost.name());
        }
    }

    pub(super) fn receive_failed(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.receive_failed, true) {
            log::warn!(
                target: "kontiki",
                "{} receiving failed, and is tried again: {error}",
                place(self.shared, None)
            );
        }
    }

    /// Tells the notes, and the events that follow from them.
    pub(super) fn tell(&mut self, engine: &Engine<Ticket>, notes: &mut Vec<Told>) {
        for told in notes.drain(..) {
            let told = &told;
            let level = match &told.note {
                Note::Warning(_)
                | Note::Foreign { .. }
                | Note::FileDiffers(_)
                | Note::MajorityLost(_) => Level::Warn,
                Note::Step(_) => Level::Debug,
                Note::Message(_) => Level::Trace,
                _ => Level::Info,
            };
            match &told.note {
                Note::Leader(leader) => self.on_leader(engine, told, *leader),
                note => {
                    if log::log_enabled!(target: "kontiki", level) {
                        self.line(level, told, &engine.in_words(note));
                    }
                }
            }
            self.on_role(engine::public_role(told.role), told.term.0);
            match &told.note {
                Note::Compacted(index) => self.on_snapshot(*index, false),
                Note::Installed(index) => self.on_snapshot(*index, true),
                Note::Verdict(turn) => self.on_turn(turn),
                _ => {}
            }
        }
        let core = engine.core();
        self.on_role(engine::public_role(core.role()), core.term().0);
        self.on_members(core.members_agreed());
    }

    fn on_members(&mut self, agreed: Option<&(Index, Membership)>) {
        let Some((index, members)) = agreed.filter(|(index, _)| *index > self.members) else {
            return;
        };
        self.members = *index;
        let (voters, learners): (Vec<&Member>, Vec<&Member>) =
            members.members.iter().partition(|member| member.is_voter());
        let names = |of: Vec<&Member>| of.into_iter().map(|member| member.name.clone()).collect();
        self.config.emit(&Event::Members {
            node: self.shared.name.clone(),
            index: index.0,
            voters: names(voters),
            learners: names(learners),
        });
    }

    fn on_role(&mut self, role: Role, term: u64) {
        if self.role == Some((role, term)) {
            return;
        }
        self.role = Some((role, term));
        self.config.emit(&Event::Role { node: self.shared.name.clone(), term, role });
    }

    fn on_snapshot(&self, index: Index, received: bool) {
        let (node, index) = (self.shared.name.clone(), index.0);
        self.config.emit(&Event::Snapshot { node, index, received });
    }

    fn on_turn(&self, turn: &Turn) {
        let (node, member, index) = (self.shared.name.clone(), turn.name.clone(), turn.index.0);
        self.config.emit(&match turn.up {
            true => Event::MemberUp { node, member, index },
            false => Event::MemberDown { node, member, index },
        });
    }

    fn on_leader(
        &mut self,
        engine: &Engine<Ticket>,
        told: &Told,
        leader: Option<crate::core::types::Incarnation>,
    ) {
        let leader = leader.map(|leader| engine.name_of(leader));
        let term = told.term.0;
        if self.leader.as_ref() == Some(&(leader.clone(), term)) {
            return;
        }
        if leader.as_ref() != Some(&self.shared.name) {
            self.line(Level::Info, told, &engine.in_words(&told.note));
        }
        self.leader = Some((leader.clone(), term));
        self.config.emit(&Event::Leader { node: self.shared.name.clone(), term, leader });
    }

    /// What was dropped since it was last told.
    pub(super) fn tell_counts(&mut self, engine: &Engine<Ticket>, lost: u64, now: Time) {
        if now < self.counts_at {
            return;
        }
        self.counts_at = now.plus(COUNTS_EVERY);
        let counts = engine.counts();
        let news = counts.lost() != self.counts_told.0.lost() || lost != self.counts_told.1;
        if news && log::log_enabled!(target: "kontiki", Level::Debug) {
            log::debug!(
                target: "kontiki",
                "{} of {} datagrams so far, dropped: {}; could not be sent: {lost}",
                place(self.shared, None),
                counts.received,
                counts.describe()
            );
            self.counts_told = (counts.clone(), lost);
        }
    }
}

/// The node takes no part any more, and says why.
pub(super) fn failed(shared: &Shared, reason: &str) {
    let place = place(shared, Some(Role::Stopped));
    log::error!(target: "kontiki", "{place} takes no part any more: {reason}");
}

/// The node has stopped, and then its disk failed.
pub(super) fn failed_late(shared: &Shared, reason: &str) {
    let place = place(shared, Some(Role::Stopped));
    log::warn!(
        target: "kontiki",
        "{place} its last writes did not reach the disk: {reason}; nothing that it acknowledged \
         is lost"
    );
}

/// How a line begins that no step of the protocol tells: node, term and role, the
/// published one if no other is given.
fn place(shared: &Shared, role: Option<Role>) -> String {
    let published = shared.published.lock();
    format!("{} term {} {}:", shared.name, published.term, role.unwrap_or(published.role))
}
