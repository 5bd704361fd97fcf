//! Any number of cores with a clock, a network and disks: the smallest world in
//! which the protocol can be tried.
//!
//! Nothing happens by itself but what the plan says. `run_until` moves time from
//! event to event (an arrival, a deadline, the end of a write); a test or script
//! may as well deliver, drop or hold each envelope by hand. After each step of a
//! node `checks` looks at it. The same seed gives the same world.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use super::super::effect::{Effects, Note, ReadReady, RoleName};
use super::super::lives::Neighbor;
use super::super::membership::{Member, Membership, Standing};
use super::super::message::{Change, ChangeOutcome, ChangeReply, Envelope, Message, Propose, Wish};
use super::super::properties::{Disk, History, Verdict, check_bounds};
use super::super::rng::Rng;
use super::super::types::{ClusterId, Entry, Incarnation, Payload, Protocol, Run, Term, Time};
use super::super::{AppendBytes, Core, Hard, Record, Refused, Setup};
pub use super::plan::{Faults, Flight, MS, Plan};
use super::plan::{name, neighbor};

/// A write under way, and when it completes by itself.
pub struct Pending {
    pub record: Record,
    pub due: u64,
}

pub struct Node {
    pub name: String,
    pub core: Option<Core>,
    pub incarnation: Incarnation,
    /// The logs that the node has lost, the newest last.
    pub lost: Vec<Incarnation>,
    /// This node's clock runs ahead of the world's by so much.
    pub ahead: u64,
    /// Writes under way.
    pub writes: VecDeque<Pending>,
    /// Whether writes wait until they are completed by hand.
    pub holds_writes: bool,
    /// So many of the snapshots that come are spoiled before they are opened.
    pub spoils: usize,
    pub reads: Vec<ReadReady>,
    pub notes: Vec<(RoleName, Term, Note)>,
    /// What was answered to wishes of its clients.
    pub answers: Vec<ChangeReply>,
    /// The last of these wishes.
    wish: Option<Change>,
    reads_asked: u64,
}

pub struct World {
    pub plan: Plan,
    pub now: u64,
    pub nodes: Vec<Node>,
    pub disks: BTreeMap<Incarnation, Disk>,
    /// Under way, by time of arrival.
    pub flights: BTreeMap<(u64, u64), Flight>,
    pub faults: Faults,
    /// Directions in which nothing arrives.
    pub cut: BTreeSet<(usize, usize)>,
    pub history: History,
    pub rng: Rng,
    /// What was refused, and how often.
    pub refused: BTreeMap<Refused, u64>,
    /// What the flights carried since this was cleared, if wanted.
    pub sent: Option<Vec<Flight>>,
    pub steps: u64,
    /// How many snapshots took the place of a log.
    pub installs: u64,
    flight: u64,
}

impl World {
    /// Nodes that were never started: voters first, then learners, then spares.
    pub fn new(plan: Plan) -> World {
        let mut rng = Rng::new(plan.seed);
        let node = |place: usize, incarnation| Node {
            name: name(place),
            core: None,
            incarnation,
            lost: Vec::new(),
            ahead: 0,
            writes: VecDeque::new(),
            holds_writes: false,
            spoils: 0,
            reads: Vec::new(),
            notes: Vec::new(),
            answers: Vec::new(),
            wish: None,
            reads_asked: 0,
        };
        let count = plan.in_file() + plan.spares;
        let nodes: Vec<Node> =
            (0..count).map(|place| node(place, Incarnation(rng.next_nonzero()))).collect();
        let disks = nodes.iter().map(|node| (node.incarnation, Disk::default())).collect();
        World {
            plan,
            now: 1_000 * MS,
            nodes,
            disks,
            flights: BTreeMap::new(),
            faults: Faults::NONE,
            cut: BTreeSet::new(),
            history: History::default(),
            rng,
            refused: BTreeMap::new(),
            sent: None,
            steps: 0,
            installs: 0,
            flight: 0,
        }
    }

    /// A world of one cluster whose voters have these logs (terms of the entries
    /// behind the founding record) and stand in that term. Started, and believing
    /// each other.
    pub fn with_logs(plan: Plan, logs: &[&[u64]], term: u64) -> World {
        World::with_logs_and_terms(plan, logs, &vec![term; logs.len()])
    }

    pub fn with_logs_and_terms(plan: Plan, logs: &[&[u64]], terms: &[u64]) -> World {
        assert_eq!(plan.voters, logs.len());
        let mut world = World::new(plan);
        let member = |place: usize| Member {
            name: name(place),
            address: neighbor(place, 0).address,
            incarnation: Some(world.nodes[place].incarnation),
            standing: Standing::Voter,
        };
        let cluster = ClusterId(77);
        let members = Membership::new(cluster, (0..logs.len()).map(member).collect());
        for (place, log) in logs.iter().enumerate() {
            let record = Payload::Protocol(Protocol::Members(Box::new(members.clone())));
            let mut entries = vec![Entry { term: Term(0), payload: record }];
            entries.extend(log.iter().enumerate().map(|(at, &term)| Entry {
                term: Term(term),
                payload: Payload::Client(Bytes::from(format!("{}@{term}", at + 2))),
            }));
            let term = Term(terms[place]);
            let hard = Hard { cluster: Some(cluster), term, voted_for: None };
            world
                .disks
                .insert(world.nodes[place].incarnation, Disk { hard, entries, ..Disk::default() });
        }
        for place in 0..world.nodes.len() {
            world.start(place);
        }
        world.run_for(10 * MS);
        world
    }

    /// A cluster that was founded and has a leader.
    pub fn founded(plan: Plan) -> World {
        let mut world = World::new(plan);
        for place in 0..world.nodes.len() {
            world.start(place);
        }
        world.run_until(10_000 * MS, "a leader, followed by all", World::is_settled);
        world
    }

    fn setup(&self, place: usize) -> Setup {
        let in_file = self.plan.in_file();
        // A spare's file names all, and makes the spares voters.
        let spare = place >= in_file;
        let count = if spare { self.nodes.len() } else { in_file };
        let node = |place: usize| Neighbor {
            name: self.nodes[place].name.clone(),
            voter: place < self.plan.voters || place >= in_file,
            ..neighbor(place, self.plan.voters)
        };
        let own = node(place);
        let others = (0..count).map(node).filter(|other| other.name != own.name).collect();
        Setup {
            own,
            others,
            heartbeat: 30 * MS,
            failure_timeout: self.plan.failure_timeout,
            election_timeout: (150 * MS, 300 * MS),
            founding_by_majority: self.plan.by_majority,
            tail_entries: self.plan.tail_entries,
            append_bytes: AppendBytes { near: self.plan.append_bytes, far: self.plan.append_bytes },
        }
    }

    /// Starts a node with what is on its disk.
    pub fn start(&mut self, place: usize) {
        assert!(self.nodes[place].core.is_none(), "{} runs", self.nodes[place].name);
        let setup = self.setup(place);
        let (run, seed) = (Run(self.rng.next_nonzero()), self.rng.next());
        let clock = self.clock(place);
        let node = &mut self.nodes[place];
        let disk = &self.disks[&node.incarnation];
        let saved = disk.saved(node.incarnation);
        node.core = Some(Core::new(setup, saved, run, seed, clock));
        self.after_step(place);
    }

    /// The node dies; what was not written is lost.
    pub fn crash(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        node.core = None;
        node.writes.clear();
        node.reads.clear();
    }

    /// The disk of a dead node is replaced by an empty one.
    pub fn forget(&mut self, place: usize) {
        let incarnation = Incarnation(self.rng.next_nonzero());
        let node = &mut self.nodes[place];
        assert!(node.core.is_none(), "{} runs", node.name);
        node.lost.push(std::mem::replace(&mut node.incarnation, incarnation));
        self.disks.insert(incarnation, Disk::default());
    }

    /// The disk that a dead node lost last is put back, as it was.
    pub fn put_back(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        assert!(node.core.is_none(), "{} runs", node.name);
        let old = node.lost.pop().expect("it has lost a disk");
        node.lost.push(std::mem::replace(&mut node.incarnation, old));
    }

    pub fn core(&self, place: usize) -> &Core {
        self.nodes[place].core.as_ref().expect("the node runs")
    }

    pub fn is_up(&self, place: usize) -> bool {
        self.nodes[place].core.is_some()
    }

    pub fn clock(&self, place: usize) -> Time {
        Time(self.now + self.nodes[place].ahead)
    }

    /// Those that run and lead.
    pub fn leaders(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|&place| self.role(place) == Some(RoleName::Leader)).collect()
    }

    pub fn role(&self, place: usize) -> Option<RoleName> {
        self.nodes[place].core.as_ref().map(Core::role)
    }

    /// The leader of the newest term.
    pub fn leader(&self) -> Option<usize> {
        self.leaders().into_iter().max_by_key(|&place| self.core(place).term())
    }

    /// One leader, and all whose names are members, as far as they run, are members and
    /// follow it, with one log, all of it committed and on every disk.
    pub fn is_settled(&self) -> bool {
        let [leader] = self.leaders()[..] else { return false };
        let leader = self.core(leader);
        let Some(members) = leader.members() else { return false };
        let named = self.nodes.iter().filter(|node| members.named(&node.name).is_some());
        let mut running = named.filter_map(|node| node.core.as_ref());
        leader.commit_index() == leader.log().last_index()
            && running.all(|core| {
                core.leader() == Some(leader.me().incarnation)
                    && core.commit_index() == leader.commit_index()
                    && core.log().last_index() == leader.log().last_index()
                    && core.applicable() == leader.commit_index()
                    && members.names(core.me().incarnation)
            })
    }

    /// One step of a node: an input, then all that comes of it.
    pub fn step<T>(&mut self, place: usize, input: impl FnOnce(&mut Core, Time) -> T) -> Option<T> {
        let clock = self.clock(place);
        let value = self.nodes[place].core.as_mut().map(|core| input(core, clock));
        if value.is_some() {
            self.after_step(place);
        }
        value
    }

    pub(super) fn after_step(&mut self, place: usize) {
        let clock = self.clock(place);
        let mut effects = Effects::default();
        for round in 0.. {
            assert!(round < 20, "{} never comes to rest", self.nodes[place].name);
            let node = &mut self.nodes[place];
            let Some(core) = node.core.as_mut() else { return };
            core.flush(clock, &mut effects);
            if effects.is_empty() {
                break;
            }
            node.notes
                .extend(effects.notes.drain(..).map(|told| (told.role, told.term, told.note)));
            if let Some(write) = &effects.write {
                let due = self.now + self.rng.between(self.faults.write.0, self.faults.write.1);
                node.writes.push_back(Pending { record: core.record(write), due });
            }
            self.check_and_send(place, &mut effects);
            if let Some((id, data)) = effects.assembled.take() {
                self.open_and_install(place, id, data);
            }
            self.complete_due(place);
        }
        self.check(place);
    }

    fn check_and_send(&mut self, place: usize, effects: &mut Effects) {
        self.check_core(place);
        let node = &mut self.nodes[place];
        let Some(core) = &node.core else { return };
        let disk = &self.disks[&node.incarnation];
        for outgoing in &effects.sends {
            let verdict = self.history.check_outgoing(core, disk, &outgoing.envelope);
            expect(verdict, &self.plan, self.now, &node.name);
        }
        for read in effects.reads.drain(..) {
            let verdict = self.history.check_read(core.me().run, read.id, read.index);
            expect(verdict, &self.plan, self.now, &node.name);
            node.reads.push(read);
        }
        for answer in effects.changes.drain(..) {
            check_answer(&answer, &self.history, core);
            node.answers.push(answer);
        }
        for outgoing in effects.sends.drain(..) {
            let to = outgoing.address.port() as usize - 1;
            self.post(Flight { from: place, to, envelope: outgoing.envelope });
        }
    }

    fn post(&mut self, flight: Flight) {
        if let Some(sent) = &mut self.sent {
            sent.push(flight.clone());
        }
        if self.cut.contains(&(flight.from, flight.to)) {
            return;
        }
        let faults = self.faults.clone();
        if self.rng.between(1, 100) <= faults.lost_percent {
            return;
        }
        let copies = 1 + u64::from(self.rng.between(1, 100) <= faults.repeated_percent);
        for _ in 0..copies {
            let mut due = self.now + self.rng.between(faults.latency.0, faults.latency.1);
            if self.rng.between(1, 100) <= faults.late_percent {
                due += self.rng.between(0, faults.late);
            }
            self.flight += 1;
            self.flights.insert((due, self.flight), flight.clone());
        }
    }

    /// Completes the writes that are done by now, in order.
    pub(super) fn complete_due(&mut self, place: usize) {
        while self.is_write_due(place) {
            self.write_done(place);
        }
    }

    pub(super) fn is_write_due(&self, place: usize) -> bool {
        let node = &self.nodes[place];
        !node.holds_writes && node.writes.front().is_some_and(|write| write.due <= self.now)
    }

    /// The oldest write of a node reaches its disk, and the node is not told yet:
    /// the crash that follows finds it there.
    pub fn write_reaches_disk(&mut self, place: usize) -> Option<Pending> {
        let node = &mut self.nodes[place];
        let pending = node.writes.pop_front()?;
        self.disks.get_mut(&node.incarnation).expect("a disk").write(&pending.record);
        Some(pending)
    }

    /// The oldest write of a node completes. What comes of it is let out by the
    /// caller.
    pub(super) fn write_done(&mut self, place: usize) {
        let clock = self.clock(place);
        if let Some(pending) = self.write_reaches_disk(place)
            && let Some(core) = &mut self.nodes[place].core
        {
            core.written(pending.record.number, clock);
        }
    }

    /// Completes the oldest held write. False: there is none.
    pub fn complete(&mut self, place: usize) -> bool {
        let any = !self.nodes[place].writes.is_empty() && self.is_up(place);
        if any {
            self.write_done(place);
            self.after_step(place);
        }
        any
    }

    fn check_core(&mut self, place: usize) {
        let node = &self.nodes[place];
        let Some(core) = &node.core else { return };
        let others = self.nodes.iter().filter_map(|node| node.core.as_ref());
        let verdict = self.history.check(core, &self.disks, others);
        let verdict = verdict.and_then(|()| check_bounds(core));
        expect(verdict, &self.plan, self.now, &node.name);
    }

    fn check(&mut self, place: usize) {
        self.steps += 1;
        self.check_core(place);
    }

    /// An envelope arrives.
    pub fn arrive(&mut self, flight: Flight) {
        let Flight { from, to, envelope } = flight;
        if self.cut.contains(&(from, to)) || to >= self.nodes.len() {
            return;
        }
        let what = format!("{:?}", envelope.message);
        if let Some(Err(refused)) = self.step(to, |core, now| core.receive(envelope, now)) {
            assert_ne!(refused, Refused::Malformed, "from {from} to {to}: {what}");
            *self.refused.entry(refused).or_default() += 1;
        }
    }

    /// A node's time comes.
    pub fn tick(&mut self, place: usize) {
        self.step(place, |core, now| core.tick(now));
        if let Some(core) = &self.nodes[place].core {
            let (deadline, now) = (core.deadline(), self.clock(place));
            assert!(deadline > now, "{}: {deadline:?} is due at {now:?}", self.nodes[place].name);
        }
    }

    /// The node's election timer runs out now, whatever it heard.
    pub fn timeout(&mut self, place: usize) {
        self.step(place, |core, now| {
            core.election_at = now;
            core.leader_heard_at = None;
            core.tick(now);
        });
    }

    /// Nobody remembers to have heard a leader of late.
    pub fn silence(&mut self) {
        for node in &mut self.nodes {
            if let Some(core) = &mut node.core {
                core.leader_heard_at = None;
            }
        }
    }

    /// Asks a node to get an operation committed: it appends or forwards it.
    /// False: it can do neither.
    pub fn propose(&mut self, place: usize, operation: &str) -> bool {
        let operation = Bytes::from(operation.to_string());
        let taken = self.step(place, |core, _| {
            core.propose(operation.clone()).is_ok()
                || core.forward(Propose { retry: false, operations: vec![operation] })
        });
        taken == Some(true)
    }

    /// Asks a node for a read; its number. `None`: it knows nobody to ask.
    pub fn read(&mut self, place: usize) -> Option<u64> {
        let node = &mut self.nodes[place];
        node.reads_asked += 1;
        let id = node.reads_asked;
        let run = node.core.as_ref()?.me().run;
        self.history.read_asked(run, id);
        self.step(place, |core, _| core.read(id)).filter(|taken| *taken).map(|_| id)
    }

    /// A client of a node wants the members changed, or another leader. False: nobody to
    /// ask.
    pub fn wish(&mut self, place: usize, wish: Wish) -> bool {
        let node = &mut self.nodes[place];
        let id = node.wish.as_ref().map_or(1, |last| last.id + 1);
        let change = Change { id, retry: false, wish };
        node.wish = Some(change.clone());
        self.step(place, |core, now| core.change(change, now)) == Some(true)
    }

    /// The last wish of a node is sent again, as its engine would.
    pub fn wish_again(&mut self, place: usize) -> bool {
        let Some(wish) = &mut self.nodes[place].wish else { return false };
        wish.retry = true;
        let change = wish.clone();
        self.step(place, |core, now| core.change(change, now)) == Some(true)
    }

    /// The wish that a node becomes a member, where it lives.
    pub fn adding(&self, place: usize, voter: bool) -> Wish {
        let address = neighbor(place, 0).address;
        Wish::Add { name: self.nodes[place].name.clone(), address, voter }
    }

    /// The answer to the last wish of a node, if it has come.
    pub fn answer(&self, place: usize) -> Option<&ChangeReply> {
        let id = self.nodes[place].wish.as_ref()?.id;
        self.nodes[place].answers.iter().rev().find(|answer| answer.id == id)
    }

    /// Nothing passes between these groups and all others.
    pub fn isolate(&mut self, group: &[usize]) {
        for inside in group {
            for outside in (0..self.nodes.len()).filter(|place| !group.contains(place)) {
                self.cut.insert((*inside, outside));
                self.cut.insert((outside, *inside));
            }
        }
    }

    /// Delivers all flights that `which` picks now, and what comes of them, until
    /// none is left.
    pub fn deliver(&mut self, which: impl Fn(&Flight) -> bool) -> usize {
        let mut count = 0;
        loop {
            let picked = self.flights.iter().find(|(_, flight)| which(flight)).map(|(key, _)| *key);
            let Some(flight) = picked.and_then(|key| self.flights.remove(&key)) else {
                return count;
            };
            count += 1;
            assert!(count < 100_000, "messages without end");
            self.arrive(flight);
        }
    }

    /// Takes out of the network what `which` picks.
    pub fn take(&mut self, which: impl Fn(&Flight) -> bool) -> Vec<Flight> {
        self.take_some(usize::MAX, which)
    }

    /// The same, at most so many, first those that arrive first.
    pub fn take_some(&mut self, count: usize, which: impl Fn(&Flight) -> bool) -> Vec<Flight> {
        let picked = self.flights.iter().filter(|(_, flight)| which(flight));
        let keys: Vec<_> = picked.take(count).map(|(key, _)| *key).collect();
        keys.into_iter().filter_map(|key| self.flights.remove(&key)).collect()
    }

    /// Forges a message of one node to another, as the two know each other.
    pub fn forge(&mut self, from: usize, to: usize, message: Message) -> Result<(), Refused> {
        let sender = self.core(from);
        let cluster = sender.hard().cluster.unwrap_or_default();
        let envelope = Envelope { cluster, from: sender.me(), to: self.core(to).me(), message };
        self.step(to, |core, now| core.receive(envelope, now)).expect("the node runs")
    }
}

/// Who hears that the members are as wished finds that committed.
fn check_answer(answer: &ChangeReply, history: &History, core: &Core) {
    let ChangeOutcome::Done { index, members, .. } = &answer.outcome else { return };
    let committed = history.committed_in(core.hard().cluster.unwrap_or_default());
    let there = committed.get(index.0 as usize - 1).map(|(entry, _)| &entry.payload);
    let said = matches!(there, Some(Payload::Protocol(Protocol::Members(there))) if there.members == members.members);
    assert!(said, "{members:?} is said to be committed at {index}, and there is {there:?}");
}

pub fn expect(verdict: Verdict, plan: &Plan, now: u64, name: &str) {
    if let Err(violation) = verdict {
        panic!("seed {} at {now}, node {name}: {violation}", plan.seed);
    }
}
