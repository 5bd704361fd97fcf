//! The world: nodes, disks, network and programs, and time that goes from event to
//! event.
//!
//! ```text
//!        events, by time ──► arrival, end of a write or job, client, link
//!               │
//!               ▼ into the node's queue
//!   turn of a node: all that waits goes in ─► flush ─► datagrams ─► network
//!                                                   ├─► writes ───► disk
//!                                                   ├─► job ──────► state machine
//!                                                   └─► answers ──► clients
//!               then every property is checked
//! ```
//!
//! Nothing but the seed decides what happens, and nothing takes time but what is
//! said to.

mod disks;
mod turn;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::core::effect::RoleName;
use crate::core::lives::Neighbor;
use crate::core::properties::{Broken, Disk, History, Verdict};
use crate::core::types::{Incarnation, Life, Run};
use crate::core::{self, Core};
use crate::engine::{Engine, Host, Keeps, Output, Setup};
use crate::error::RequestError;
use crate::machine::StateMachine;
use crate::replica::Replica;
use crate::request::Request;

use super::cells::Cells;
use super::chance::Chance;
use super::clients::{Asked, Clients};
use super::clock::{Clock, TRUE_RATE};
use super::drive::Drive;
use super::faults::Faults;
use super::members::{self, Stands, stands};
use super::network::Network;
use super::node::{Input, MachineThread, Node, Running};
use super::plan::{Load, MakeMachine, Plan};
use super::report::Violation;
use super::story::Story;
use super::witness::{Ledger, Witness};

/// What a step comes to.
pub(super) type Step = Result<(), Box<Violation>>;

/// Something that happens at a time. What belongs to a start of a node is void when
/// that start is over.
enum Event {
    Arrives { from: usize, to: usize, bytes: Vec<u8> },
    DiskIsDone { node: usize, start: u64 },
    MachineIsDone { node: usize, start: u64 },
    SnapshotIsSaved { node: usize, start: u64 },
    ClientAsks(usize),
    LinkTurns { from: usize, to: usize, open: bool, left: u64 },
}

/// Who is silent for so long is agreed to be down, in microseconds.
pub(super) const FAILURE_TIMEOUT: u64 = 200_000;
/// Whole logs are compared at each of so many turns.
const THOROUGH_EVERY: u64 = 128;

pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) faults: Faults,
    pub(super) now: u64,
    pub(super) nodes: Vec<Node>,
    /// By log; those of lost memories too, to tell what was true once.
    pub(super) disks: BTreeMap<Incarnation, Disk>,
    /// Logs that are lost for good.
    pub(super) gone: BTreeSet<Incarnation>,
    /// The same in bytes, where nodes have disks.
    pub(super) drives: BTreeMap<Incarnation, Drive>,
    pub(super) network: Network,
    pub(super) history: History,
    pub(super) clients: Clients,
    pub(super) story: Story,
    pub(super) steps: u64,
    /// How much went wrong beside the network.
    pub(super) faults_done: u64,
    pub(super) chance: Chance,
    ledger: Option<Arc<Mutex<Ledger>>>,
    make: Option<MakeMachine>,
    events: BTreeMap<(u64, u64), Event>,
    event: u64,
    output: Output<u64>,
    /// Whose turn it is, or was last: who panics, if anybody does.
    at_turn: Option<usize>,
    /// What tests put wrong.
    #[cfg(test)]
    pub(super) bug: Option<Box<dyn super::tests::Bug>>,
}

impl World {
    /// Nodes that were never started.
    pub(super) fn new(plan: Plan, faults: Faults, story: Story) -> World {
        let mut chance = Chance::new(plan.seed);
        let node = |place: usize, chance: &mut Chance| Node {
            name: plan.neighbor(place).name,
            incarnation: Incarnation(chance.nonzero()),
            starts: 0,
            running: None,
            remembers: None,
            busy: 0,
            rate: TRUE_RATE,
        };
        let nodes: Vec<Node> = (0..plan.size()).map(|place| node(place, &mut chance)).collect();
        let make: Option<MakeMachine> = match &plan.load {
            Load::Newest => None,
            Load::Cells => Some(Arc::new(|_: &str| Box::new(Cells::default()))),
            Load::Own { machine, .. } => Some(Arc::clone(machine)),
        };
        let mut world = World {
            now: 0,
            disks: nodes.iter().map(|node| (node.incarnation, Disk::default())).collect(),
            drives: nodes.iter().map(|node| (node.incarnation, Drive::new())).collect(),
            nodes,
            gone: BTreeSet::new(),
            network: Network::new(chance.branch()),
            history: History::with_thorough_every(THOROUGH_EVERY),
            clients: Clients::new(plan.load.clone(), chance.branch()),
            story,
            steps: 0,
            faults_done: 0,
            ledger: make.as_ref().map(|_| Arc::default()),
            make,
            events: BTreeMap::new(),
            event: 0,
            output: Output::default(),
            at_turn: None,
            chance,
            faults,
            plan,
            #[cfg(test)]
            bug: None,
        };
        for client in 0..world.plan.clients {
            world.client_rests(client);
        }
        world
    }

    fn at(&mut self, time: u64, event: Event) {
        self.event += 1;
        self.events.insert((time, self.event), event);
    }

    pub(super) fn running(&self, place: usize) -> Option<&Running> {
        self.nodes[place].running.as_ref()
    }

    pub(super) fn core(&self, place: usize) -> Option<&Core> {
        self.running(place).map(|running| running.engine.core())
    }

    /// The leader of the newest term, of those that run.
    pub(super) fn leader(&self) -> Option<usize> {
        let leads =
            |place: &usize| self.core(*place).is_some_and(|core| core.role() == RoleName::Leader);
        let term = |place: &usize| self.core(*place).map(Core::term);
        (0..self.nodes.len()).filter(leads).max_by_key(term)
    }

    /// Somebody panicked.
    pub(super) fn panicked(&self, broken: Broken) -> Box<Violation> {
        self.violation(self.at_turn, broken)
    }

    fn violation(&self, place: Option<usize>, broken: Broken) -> Box<Violation> {
        let node = place.map(|place| self.nodes[place].name.clone());
        Box::new(Violation::new(self.plan.seed, self.now, node, &broken))
    }

    pub(super) fn expect(&self, place: Option<usize>, verdict: Verdict) -> Step {
        verdict.map_err(|broken| self.violation(place, broken))
    }

    pub(super) fn tell(&mut self, place: usize, what: impl FnOnce() -> String) {
        self.story.tell(self.now, &self.nodes[place].name, what);
    }

    pub(super) fn tell_of_all(&mut self, what: impl FnOnce() -> String) {
        self.story.tell(self.now, "world", what);
    }

    /// Starts a node with what is on its disk, or what it remembers. Says whether it
    /// could.
    pub(super) fn start(&mut self, place: usize) -> Result<bool, Box<Violation>> {
        assert!(self.nodes[place].running.is_none(), "{} runs", self.nodes[place].name);
        let (run, seed) = (Run(self.chance.nonzero()), self.chance.number());
        let Some(saved) = self.recover(place)? else { return Ok(false) };
        let node = &mut self.nodes[place];
        node.starts += 1;
        let incarnation = node.incarnation;
        let last = saved.log.last_index();
        let life = Life { incarnation, run };
        let clock = Clock::starting(self.now, node.rate);
        let machine = self.make.as_ref().map(|make| self.witness(place, make));
        let replica = Replica::new(&self.nodes[place].name, life, machine, Vec::new());
        let (host, machine) = match self.make.is_some() {
            true => (Host::elsewhere(&replica), Some(MachineThread { replica, job: None })),
            false => (Host::here(replica), None),
        };
        let setup = self.setup(place);
        let mut engine = Engine::new(setup, saved, run, seed, host, clock.shows(self.now));
        engine.set_detail(self.story.detail());
        self.nodes[place].running = Some(Running::new(engine, machine, clock, self.now));
        self.story.mark([self.now, 1, place as u64, last.0]);
        self.tell(place, || format!("starts, with {last} entries"));
        Ok(true)
    }

    fn witness(&self, place: usize, make: &MakeMachine) -> Box<dyn StateMachine> {
        let node = self.nodes[place].name.clone();
        let ledger = self.ledger.clone().unwrap_or_default();
        Box::new(Witness { machine: make(&node), ledger, node, last: 0 })
    }

    fn setup(&self, place: usize) -> Setup {
        // Who has a cluster grow gives all nodes the new file at their next start.
        let grown = members::has_grown(self);
        let others: Vec<Neighbor> = self.plan.file_of(place, grown).collect();
        Setup {
            core: core::Setup {
                own: self.plan.neighbor(place),
                others,
                heartbeat: 30_000,
                failure_timeout: Some(FAILURE_TIMEOUT),
                election_timeout: (150_000, 300_000),
                founding_by_majority: false,
                tail_entries: self.plan.snapshot_every / 2,
                append_bytes: crate::engine::APPEND_BYTES,
            },
            request_timeout: self.plan.request_timeout,
            snapshot_every: self.plan.snapshot_every,
            keeps: if self.plan.disks { Keeps::OnDisk } else { Keeps::InMemory },
            secrets: self.plan.secrets(self.nodes[place].starts),
        }
    }

    /// Stops a node as a program does: it keeps what it has.
    pub(super) fn stop(&mut self, place: usize) -> Step {
        let Some(running) = self.nodes[place].running.take() else { return Ok(()) };
        self.story.mark([self.now, 2, place as u64, 0]);
        self.tell(place, || "is stopped".to_string());
        for ticket in running.unread_requests() {
            self.answered(place, ticket, Err(RequestError::Stopped))?;
        }
        self.finish_writes(place, &running)?;
        let mut output = Output::default();
        let saved = running.engine.stop(&RequestError::Stopped, &mut output);
        if !self.plan.disks {
            self.nodes[place].remembers = Some(saved);
        }
        for (ticket, answer) in output.answers {
            self.answered(place, ticket, answer)?;
        }
        Ok(())
    }

    /// A node dies. Of what was on its way to the disk any first part is there.
    pub(super) fn crash(&mut self, place: usize) {
        let Some(running) = self.nodes[place].running.take() else { return };
        let under_way = running.writes.len();
        self.crash_disk(place, &running);
        self.story.mark([self.now, 3, place as u64, under_way as u64]);
        let gone = self.clients.node_is_gone(place);
        let requests = gone.len();
        self.tell(place, || {
            let writes = match under_way {
                0 => String::new(),
                _ => format!(" with {under_way} writes under way"),
            };
            let requests = match requests {
                0 => String::new(),
                1 => "; nobody hears what became of a request".to_string(),
                _ => format!("; nobody hears what became of {requests} requests"),
            };
            format!("dies{writes}{requests}")
        });
        for asked in gone {
            asked.client.into_iter().for_each(|client| self.client_rests(client));
        }
    }

    /// What a dead node had on its disk, or in its memory, is gone.
    pub(super) fn lose_memory(&mut self, place: usize) {
        assert!(self.nodes[place].running.is_none(), "{} runs", self.nodes[place].name);
        let incarnation = Incarnation(self.chance.nonzero());
        self.gone.insert(self.nodes[place].incarnation);
        self.nodes[place].incarnation = incarnation;
        self.nodes[place].remembers = None;
        self.disks.insert(incarnation, Disk::default());
        self.drives.insert(incarnation, Drive::new());
        self.tell(place, || "has lost all that it remembered".to_string());
    }

    fn client_rests(&mut self, client: usize) {
        if client >= self.plan.clients {
            return;
        }
        let pause = self.chance.between(0, self.plan.think);
        self.at(self.now + pause, Event::ClientAsks(client));
    }

    fn client_asks(&mut self, client: usize) {
        let running: Vec<usize> =
            (0..self.nodes.len()).filter(|place| self.running(*place).is_some()).collect();
        if running.is_empty() {
            return self.client_rests(client);
        }
        // Programs mostly ask nodes that can answer.
        let serves = |place: &usize| {
            let role = self.core(*place).map(Core::role);
            !matches!(role, Some(RoleName::Fresh | RoleName::Removed))
        };
        let serving: Vec<usize> = running.iter().copied().filter(serves).collect();
        let any = serving.is_empty() || self.chance.permille(50);
        let place = *self.chance.pick(if any { &running } else { &serving });
        let requests = self.clients.next();
        let last = requests.len() - 1;
        for (number, (request, asked)) in requests.into_iter().enumerate() {
            let client = (number == last).then_some(client);
            self.ask(place, request, asked.by(client));
        }
    }

    /// A program at a node asks.
    pub(super) fn ask(&mut self, place: usize, request: Request, asked: Asked) -> u64 {
        let who = asked.client.map_or("a program".to_string(), |client| format!("client {client}"));
        let what = self.story.is_told().then(|| asked.describe());
        let ticket = self.clients.made(asked, place, self.now);
        if let Some(what) = what {
            self.tell(place, || format!("{who} asks {ticket}: {what}"));
        }
        let now = self.now;
        if let Some(running) = &mut self.nodes[place].running {
            running.put(Input::Request(ticket, request.into_kind()), now);
        }
        ticket
    }

    fn answered(&mut self, place: usize, ticket: u64, answer: crate::request::Answer) -> Step {
        let committed = self.history.committed_entries();
        let ended = self.clients.ended(ticket, &answer, committed, self.now);
        let asked = ended.map_err(|broken| self.violation(Some(place), broken))?;
        self.story.mark([self.now, 4, ticket, answer.as_ref().map_or(0, |reply| reply.index)]);
        self.tell(place, || match &answer {
            Ok(reply) => format!("answers {ticket}: {} at index {}", reply.value, reply.index),
            Err(error) => format!("answers {ticket}: {error}"),
        });
        asked.client.into_iter().for_each(|client| self.client_rests(client));
        Ok(())
    }

    /// Lives until `end`.
    pub(super) fn run_until(&mut self, end: u64) -> Step {
        while self.step(end)? {}
        Ok(())
    }

    /// Lives until `reached`, at most until `end`. Says whether it was reached.
    pub(super) fn run_while_not(
        &mut self,
        end: u64,
        reached: impl Fn(&World) -> bool,
    ) -> Result<bool, Box<Violation>> {
        while !reached(self) {
            if !self.step(end)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The next thing that happens, unless it is after `end`.
    fn step(&mut self, end: u64) -> Result<bool, Box<Violation>> {
        let event = self.events.first_key_value().map_or(u64::MAX, |((at, _), _)| *at);
        let turn_of = |place: usize| self.running(place).map(|running| (running.turn_at, place));
        let turn = (0..self.nodes.len()).filter_map(turn_of).min();
        let turn = turn.filter(|(at, _)| *at < event);
        let next = turn.map_or(event, |(at, _)| at);
        if next > end {
            self.now = self.now.max(end);
            return Ok(false);
        }
        self.now = self.now.max(next);
        match turn {
            Some((_, place)) => self.turn(place)?,
            None => self.happen()?,
        }
        Ok(true)
    }

    fn happen(&mut self) -> Step {
        let Some((_, event)) = self.events.pop_first() else { return Ok(()) };
        match event {
            Event::Arrives { from, to, bytes } => self.arrive(from, to, bytes),
            Event::DiskIsDone { node, start } if self.nodes[node].starts == start => {
                return self.disk_is_done(node);
            }
            Event::MachineIsDone { node, start } if self.nodes[node].starts == start => {
                self.machine_is_done(node);
            }
            Event::SnapshotIsSaved { node, start } if self.nodes[node].starts == start => {
                return self.snapshot_is_saved(node);
            }
            Event::DiskIsDone { .. }
            | Event::MachineIsDone { .. }
            | Event::SnapshotIsSaved { .. } => {}
            Event::ClientAsks(client) => self.client_asks(client),
            Event::LinkTurns { from, to, open, left } => self.link_turns(from, to, open, left),
        }
        Ok(())
    }

    fn arrive(&mut self, from: usize, to: usize, bytes: Vec<u8>) {
        // A link that was cut takes with it what was under way.
        let open = self.network.is_open(from, to);
        #[cfg(test)]
        let bytes = match &mut self.bug {
            Some(bug) => super::tests::rewritten(&bytes, |message| bug.arrives(message)),
            None => bytes,
        };
        let now = self.now;
        if let Some(running) = self.nodes[to].running.as_mut().filter(|_| open) {
            running.put(Input::Datagram(bytes), now);
        }
    }

    /// No client asks any more.
    pub(super) fn clients_rest(&mut self) {
        self.events.retain(|_, event| !matches!(event, Event::ClientAsks(_)));
        self.plan.clients = 0;
    }

    fn machine_is_done(&mut self, place: usize) {
        self.at_turn = Some(place);
        let now = self.now;
        let Some(running) = &mut self.nodes[place].running else { return };
        let before = running.engine.applied();
        let Some(done) = running.machine.as_mut().and_then(MachineThread::work) else { return };
        let applied = done.applied;
        running.put(Input::Done(Box::new(done)), now);
        let told = self.story.is_told() && applied > before;
        if let Some(ledger) = self.ledger.clone().filter(|_| told) {
            for line in ledger.lock().in_words(before.0 + 1..=applied.0) {
                self.tell(place, || line);
            }
        }
    }

    /// A link goes up and down so many times more.
    pub(super) fn link_turns(&mut self, from: usize, to: usize, open: bool, left: u64) {
        match open || left == 0 {
            true => self.network.join(from, to),
            false => self.network.cut(from, to),
        }
        if left > 0 {
            let later = self.now + self.chance.between(1_000, 300_000);
            self.at(later, Event::LinkTurns { from, to, open: !open, left: left - 1 });
        }
    }

    /// Links stay as they are.
    pub(super) fn end_flaps(&mut self) {
        self.events.retain(|_, event| !matches!(event, Event::LinkTurns { .. }));
    }

    /// What is left to check when all is over.
    pub(super) fn check_all(&mut self) -> Step {
        self.history.thorough_every = 1;
        for place in 0..self.nodes.len() {
            self.check(place)?;
        }
        let seen = self.clients.check();
        self.expect(None, seen)?;
        if let (Some(ledger), Some(make)) = (&self.ledger, &self.make) {
            let verdict = ledger.lock().check_queries(make);
            self.expect(None, verdict)?;
        }
        Ok(())
    }

    /// How much went wrong so far.
    pub(super) fn faults_so_far(&self) -> u64 {
        self.faults_done + self.network.faults
    }

    /// One leader whom all members follow, with one log, all of it committed, durable and
    /// applied everywhere.
    pub(super) fn is_settled(&self) -> bool {
        stands(self) == Stands::Settled
    }

    /// A line a node: for people who look at a failure.
    pub(super) fn describe(&self) -> String {
        let line = |node: &Node| match &node.running {
            None => format!("{} is down", node.name),
            Some(running) => {
                let core = running.engine.core();
                format!(
                    "{} {} term {} log {} commit {} durable {} applied {} leader {}",
                    node.name,
                    core.role(),
                    core.term(),
                    core.log().last_index(),
                    core.commit_index(),
                    core.applicable(),
                    running.engine.applied(),
                    core.leader().map_or("none".to_string(), |of| running.engine.name_of(of))
                )
            }
        };
        let mut lines: Vec<String> = self.nodes.iter().map(line).collect();
        let open = self.clients.open().count();
        lines.push(format!("{open} requests are outstanding"));
        lines.join("\n")
    }
}
