//! A node among its neighbours: hellos answered, the cluster founded or joined.
//! `lives` has the rules; this is where they meet the log.

use super::Core;
use super::effect::{Detail, Note, Outgoing, Waiting};
use super::lives::{Asker, Founding, Heard, Own, Says};
use super::membership::{Member, Membership};
use super::message::{Envelope, Found, Hello, Introduction, Message};
use super::state::{Refused, Role};
use super::types::{ClusterId, Entry, Incarnation, Index, Life, Payload, Protocol, Term, Time};

/// A node that waits says so this often, in microseconds.
const WAITING_NOTE: u64 = 3_000_000;
/// The first such note waits for what a start of all nodes takes anyway.
const WAITING_NOTE_FIRST: u64 = 500_000;

impl Core {
    pub(super) fn on_hello(
        &mut self,
        cluster: ClusterId,
        from: Life,
        to: Life,
        hello: Hello,
        now: Time,
    ) -> Result<(), Refused> {
        if to != Envelope::ANYONE && to != self.me {
            return Err(Refused::NotForThisLife);
        }
        if from.incarnation.0 == 0 || from.run.0 == 0 || hello.fresh != (cluster.0 == 0) {
            return Err(Refused::Malformed);
        }
        let says = Says {
            fresh: hello.fresh,
            cluster,
            foreign: cluster.0 != 0 && self.hard.cluster.is_some_and(|own| own != cluster),
            outlived: self.is_outlived(&hello.name, from.incarnation),
        };
        let heard = self
            .lives
            .on_hello(&hello.name, from, hello.echo, says, now)
            .ok_or(Refused::Stranger)?;
        let place = match heard {
            Heard::Believed { peer, news } => {
                self.on_believed(peer, news);
                peer
            }
            Heard::Known(peer) | Heard::Claims(peer) => peer,
            Heard::Superseded(peer) => {
                // It may live all the same, where somebody put an old folder in its place:
                // it is told, and believed in nothing.
                if hello.ask != 0 {
                    self.send_hello(peer, from, 0, hello.ask);
                }
                if hello.ask != 0 || hello.echo != 0 {
                    self.tell_superseded(peer, from);
                }
                return Err(Refused::Stranger);
            }
        };
        // The members may be many times as long as a hello: only who has echoed gets them,
        // or anybody could have them sent to somebody else.
        let echoed = matches!(heard, Heard::Believed { .. });
        let knows_less = hello.members < self.members_committed_at();
        if hello.ask != 0 {
            let ask = match heard {
                Heard::Claims(_) => self.lives.challenge(place, &mut self.rng),
                Heard::Known(_) if knows_less => self.lives.challenge(place, &mut self.rng),
                Heard::Believed { .. } | Heard::Known(_) | Heard::Superseded(_) => 0,
            };
            self.send_hello(place, from, ask, hello.ask);
        }
        if let Some(index) = self.parted(from.incarnation) {
            self.tell_removed(from, index);
        } else if !says.foreign && echoed {
            self.introduce_members(from.incarnation, hello.members);
        }
        self.try_found(now);
        // Last: with the members the peers change, and their places.
        if matches!(heard, Heard::Believed { .. }) && self.hard.cluster.is_some() {
            self.tend_members(now);
        }
        Ok(())
    }

    fn send_hello(&mut self, place: usize, to: Life, ask: u64, echo: u64) {
        let address = self.lives.peers()[place].node.address;
        let cluster = self.hard.cluster.unwrap_or(ClusterId(0));
        let hello = Hello {
            name: self.setup.own.name.clone(),
            ask,
            echo,
            fresh: self.hard.cluster.is_none(),
            members: self.members_committed_at(),
        };
        self.tell(Detail::Messages, || Note::Message(format!("to {address}: {hello:?}")));
        let envelope = Envelope { cluster, from: self.me, to, message: Message::Hello(hello) };
        self.post(Outgoing { address, envelope });
    }

    /// Where the newest members are stated that are known to be committed.
    fn members_committed_at(&self) -> Index {
        self.configurations.at(self.commit_index).map_or(Index(0), |(index, _)| *index)
    }

    /// Who knows older members than this node is told of the newer ones.
    fn introduce_members(&mut self, to: Incarnation, known: Index) {
        let Some((index, members)) = self.configurations.at(self.commit_index) else { return };
        if *index > known {
            let members = Membership { former: Vec::new(), ..members.clone() };
            let told = Introduction { index: *index, members };
            self.send(to, Message::Introduction(told));
        }
    }

    /// Somebody tells who the members are: whom to listen to, and no more.
    pub(super) fn on_introduction(
        &mut self,
        cluster: ClusterId,
        told: Introduction,
    ) -> Result<(), Refused> {
        if told.members.cluster != cluster || cluster.0 == 0 {
            return Err(Refused::Malformed);
        }
        if self.hard.cluster.is_some_and(|own| own != cluster) {
            return Err(Refused::ForeignCluster);
        }
        let stated = self.configurations.current_index();
        if told.index > stated {
            let own = (self.configurations.current(), stated);
            self.lives.introduce(told.index, &told.members, own);
        }
        Ok(())
    }

    /// A life is believed: a new one, or the same that echoed again.
    fn on_believed(&mut self, place: usize, news: bool) {
        let peer = &self.lives.peers()[place];
        let (name, fresh, cluster) = (peer.node.name.clone(), peer.fresh, peer.cluster);
        let Some(life) = peer.believed else { return };
        if news {
            let foreign = cluster.0 != 0 && self.hard.cluster.is_some_and(|own| own != cluster);
            let note = if foreign {
                Note::Foreign { peer: name, cluster }
            } else {
                Note::Believed { peer: name, fresh }
            };
            self.tell(Detail::Turns, || note);
            let (base, last_index) = (self.log.base_index(), self.log.last_index());
            if let Role::Leader(leader) = &mut self.role
                && let Some(progress) = leader.progress.get_mut(&life.incarnation)
            {
                progress.on_new_run(base, last_index);
            }
        }
        self.pass_on_record(place);
    }

    /// Any holder of the founding record passes it on to a fresh node that the
    /// record names. Where a snapshot stands for the record, the members of now tell a
    /// fresh node that they name that there is a cluster: it may have to vote before
    /// anybody leads who could send it the snapshot.
    fn pass_on_record(&mut self, place: usize) {
        let peer = &self.lives.peers()[place];
        let Some(life) = peer.believed.filter(|_| peer.fresh) else { return };
        let (first, members) = match self.log.entry(Index(1)) {
            Some(Entry {
                term: Term(0),
                payload: Payload::Protocol(Protocol::Members(record)),
            }) => (true, &**record),
            Some(_) => return,
            None => match self.members().filter(|_| self.log.base_index() > Index(0)) {
                Some(members) => (false, members),
                None => return,
            },
        };
        if members.names(life.incarnation) {
            let members = members.clone();
            self.send(life.incarnation, Message::Found(Found { first, members }));
        }
    }

    pub(super) fn pass_on_record_to_all(&mut self) {
        for place in 0..self.lives.peers().len() {
            self.pass_on_record(place);
        }
    }

    /// A founding record came.
    pub(super) fn on_found(
        &mut self,
        cluster: ClusterId,
        found: Found,
        now: Time,
    ) -> Result<(), Refused> {
        if found.members.cluster != cluster || cluster.0 == 0 {
            return Err(Refused::Malformed);
        }
        if self.hard.cluster.is_some_and(|own| own != cluster) {
            return Err(Refused::ForeignCluster);
        }
        if !found.members.names(self.me.incarnation) {
            return Err(Refused::NotForThisLife);
        }
        if self.log.is_empty() {
            self.adopt(cluster, found.first.then_some(found.members));
            self.reset_election_timer(now);
        }
        Ok(())
    }

    /// A message of a cluster came, addressed to exactly this life: a fresh node
    /// belongs to that cluster from now on, because only a configuration that
    /// names this incarnation makes anybody address it so.
    pub(super) fn check_cluster(&mut self, cluster: ClusterId) -> Result<(), Refused> {
        match self.hard.cluster {
            _ if cluster.0 == 0 => Err(Refused::Malformed),
            Some(own) if own == cluster => Ok(()),
            Some(_) => Err(Refused::ForeignCluster),
            None => {
                self.adopt(cluster, None);
                Ok(())
            }
        }
    }

    /// This node belongs to a cluster from now on, and its log begins with the
    /// record, if that is at hand.
    fn adopt(&mut self, cluster: ClusterId, record: Option<Membership>) {
        let news = self.hard.cluster.is_none();
        if news {
            self.hard.cluster = Some(cluster);
            self.durability.hard_changed();
        }
        if let Some(record) = record {
            self.begin_log(record);
        }
        if news {
            self.tell(Detail::Turns, || Note::Joined(cluster));
        }
    }

    fn begin_log(&mut self, members: Membership) {
        assert!(self.log.is_empty(), "a founding record is the first entry");
        let payload = Payload::Protocol(Protocol::Members(Box::new(members)));
        self.append_to_log(Entry { term: Term(0), payload });
    }

    /// Founds the cluster if it is this node's turn.
    fn try_found(&mut self, now: Time) {
        if self.hard.cluster.is_some() {
            return;
        }
        match self.founding(now) {
            Founding::Here(members) => self.found(members, now),
            Founding::Unsure(names) => self.lives.ask_again(&names, now),
            Founding::By(_) | Founding::Missing(_) | Founding::Remembered(_) => {}
        }
    }

    fn founding(&self, now: Time) -> Founding {
        let own = Own {
            name: &self.setup.own.name,
            address: self.own_address(),
            voter: self.setup.own.voter,
            incarnation: self.me.incarnation,
        };
        self.lives.founding(&own, self.setup.founding_by_majority, now)
    }

    fn found(&mut self, members: Vec<Member>, now: Time) {
        let cluster = ClusterId(self.rng.next_nonzero());
        self.tell(Detail::Turns, || Note::Founded(cluster));
        self.adopt(cluster, Some(Membership::new(cluster, members)));
        // Nobody leads and everybody knows it: no use in waiting.
        self.campaign(now);
    }

    /// Whom a fresh node waits for.
    pub fn waiting(&self, now: Time) -> Option<Waiting> {
        if self.hard.cluster.is_some() {
            return None;
        }
        match self.founding(now) {
            Founding::Here(_) => None,
            Founding::By(name) => Some(Waiting::ForFounder(name)),
            Founding::Missing(names) | Founding::Unsure(names) => Some(Waiting::ForVoters(names)),
            Founding::Remembered(names) => Some(Waiting::ForAdmission(names)),
        }
    }

    /// Whether this node knows nobody who tells it anything, and may not campaign: it asks
    /// whoever it knows, so as to be admitted, or told where it stands.
    pub(super) fn is_outside(&self) -> bool {
        let idle = || self.leader().is_none() && !self.may_campaign() && !self.is_removed();
        self.hard.cluster.is_none() || idle()
    }

    /// As whom this node asks others who they are.
    pub(super) fn asker(&self) -> Asker {
        Asker {
            fresh: self.hard.cluster.is_none(),
            outside: self.is_outside(),
            votes: self.members().map_or(self.setup.own.voter, |_| self.is_voter()),
            started_at: self.lives.started_at(),
        }
    }

    pub(super) fn tick_lives(&mut self, now: Time) {
        self.try_found(now);
        let fresh = self.hard.cluster.is_none();
        let leads = matches!(self.role, Role::Leader(_));
        self.lives.watch_unnamed(self.configurations.current().filter(|_| leads));
        self.tend_members(now);
        let silent = self.is_removed();
        for place in self.lives.due(self.asker(), now) {
            // But whoever speaks to it in a run that it has not met may have made it a
            // member again.
            if silent && !self.lives.peers()[place].is_claimed() {
                continue;
            }
            let ask = self.lives.challenge(place, &mut self.rng);
            self.send_hello(place, Envelope::ANYONE, ask, 0);
        }
        if !fresh {
            self.watch_majority();
            self.watch_file(now);
            return;
        }
        if now >= self.waiting_note_at {
            let first = self.waiting_note_at == self.born_at();
            if !first && let Some(waiting) = self.waiting(now) {
                self.tell(Detail::Turns, || Note::Waiting(waiting));
            }
            let pause = if first { WAITING_NOTE_FIRST } else { WAITING_NOTE };
            self.waiting_note_at = now.plus(pause);
        }
    }

    fn born_at(&self) -> Time {
        self.lives.started_at()
    }
}
