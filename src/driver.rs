//! A node's thread: waits, and moves bytes between the engine and the operating
//! system. It decides nothing.
//!
//! ```text
//!   loop: sleep until socket, bell or deadline
//!         take all datagrams and all inputs that are there
//!         tick, flush
//!         send, publish, tell, answer
//! ```
//!
//! It never blocks on anything but that one wait: the user's state machine has a
//! thread of its own. All that is ready is taken before anything is answered, so
//! that what came together leaves together, and everybody is woken once.

mod courtesy;
mod disk;
mod machine;
mod narrate;
mod publish;
mod recovery;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Registry, Token};

use crate::config::{Config, NodeSettings};
use crate::core::lives::Neighbor;
use crate::core::types::{Incarnation, Life, Run, Time};
use crate::core::{self, Saved};
use crate::engine::{self, Engine, Host, Output};
use crate::error::{Error, RequestError};
use crate::guard;
use crate::machine::StateMachine;
use crate::replica::Replica;
use crate::secret::Secrets;
use crate::shared::{Input, Shared, Ticket};
use crate::storage::{OsFiles, Store};
use crate::wire::udp::{self, Bound};

use self::courtesy::Courtesy;
use self::disk::DiskThread;
use self::machine::MachineThread;
use self::narrate::Narrator;
use self::publish::Publisher;

/// The bell's name in the poll.
pub(crate) const WAKER: Token = Token(0);
const SOCKET: Token = Token(1);
/// So many datagrams and inputs are taken before the engine is flushed, so that
/// a flood cannot keep a node from answering.
const DATAGRAMS_A_TURN: usize = 512;
const INPUTS_A_TURN: usize = 65_536;

/// What a node needs of the operating system and of its program.
pub(crate) struct Prepared {
    bound: Bound,
    machine: Option<Box<dyn StateMachine>>,
    /// The log on disk, and what was found in it.
    disk: Option<(Store<OsFiles>, Saved)>,
    secrets: Option<Secrets>,
}

impl Prepared {
    /// What the node comes back as, where a disk says so.
    pub(crate) fn recovered(&self) -> Option<&Saved> {
        self.disk.as_ref().map(|(_, saved)| saved)
    }
}

/// Reads the secret, binds the socket, recovers the log and makes the state machine: all
/// that can fail.
pub(crate) fn prepare(config: &Config, name: &str, poll: &Registry) -> Result<Prepared, Error> {
    let own = config.settings().nodes.iter().find(|node| node.name == name);
    let own =
        own.ok_or_else(|| Error::Failed { reason: format!("{name} is not in the config") })?;
    let io = |doing: String| move |source: io::Error| Error::Io { doing, source };
    let secrets = config.secrets()?;
    let address = config.listens_at(name).unwrap_or(own.address);
    let mut bound = udp::bind(address).map_err(io(format!("start {name}")))?;
    poll.register(&mut bound.socket, SOCKET, Interest::READABLE)
        .map_err(io(format!("watch the socket of {name}")))?;
    let disk = recovery::open(config, name)?;
    let machine = catch_unwind(AssertUnwindSafe(|| {
        let _guard = guard::enter();
        config.make_machine(name).transpose()
    }))
    .unwrap_or_else(|panic| Err(format!("its maker panicked: {}", guard::said(&*panic)).into()))
    .map_err(|source| Error::Machine { source })?;
    Ok(Prepared { bound, machine, disk, secrets })
}

/// A random number that is not 0, from the operating system.
pub(crate) fn random_nonzero() -> Result<u64, Error> {
    loop {
        let number = getrandom::u64().map_err(|error| Error::Io {
            doing: "draw a random number".to_string(),
            source: io::Error::other(error.to_string()),
        })?;
        if number != 0 {
            return Ok(number);
        }
    }
}

/// What a node's thread owns.
pub(crate) struct NodeThread {
    pub(crate) shared: Arc<Shared>,
    pub(crate) config: Config,
    pub(crate) prepared: Prepared,
    pub(crate) poll: Poll,
    pub(crate) saved: Saved,
    pub(crate) run: u64,
}

/// What a node's thread leaves.
pub(crate) struct Ended {
    pub(crate) poll: Poll,
    pub(crate) saved: Saved,
}

impl NodeThread {
    /// The thread's life: waits to be started, runs, and leaves nobody waiting.
    pub(crate) fn run(self) -> Ended {
        // Whatever the program's code does in this thread (wakers, a logger, the
        // machine's `applied` and drop), it must not wait for this node.
        let _guard = guard::enter();
        let NodeThread { shared, config, prepared, mut poll, saved, run } = self;
        let mut saved = Some(saved);
        let caught = catch_unwind(AssertUnwindSafe(|| {
            if !wait_for_start(&shared, run) {
                drop(prepared);
                return Ok(());
            }
            let mut running = Running::new(&shared, &config, prepared, &mut saved, run)?;
            let left = running.turn_until_stopped(&mut poll);
            saved = Some(running.leave(left));
            Ok::<(), Error>(())
        }));
        let failure = match caught {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(panic) => Some(format!("the node's thread panicked: {}", guard::said(&*panic))),
        };
        if let Some(reason) = failure {
            narrate::failed(&shared, &reason);
            shared.fail(run, reason);
        }
        shared.stopped(run);
        let late = shared.refuse_all(&shared.refusal().unwrap_or(RequestError::Stopped));
        if let Some(reason) = late {
            narrate::failed_late(&shared, &reason);
        }
        // What a panic left behind is not trusted: the next start is a new life.
        let saved = saved.unwrap_or_else(|| Saved::empty(Incarnation(fallback_incarnation())));
        Ended { poll, saved }
    }
}

fn fallback_incarnation() -> u64 {
    // Without the operating system's chance there is no life to draw: 0 is nobody,
    // and the next start draws again.
    random_nonzero().unwrap_or(0)
}

/// Waits silently. False: the node is stopped before it was ever started.
fn wait_for_start(shared: &Shared, run: u64) -> bool {
    loop {
        match shared.inputs().recv() {
            Ok(Input::Start) => return true,
            Ok(Input::Stop(stopped)) if stopped == run => return false,
            Ok(Input::Request(ticket, _)) => ticket.answer(Err(RequestError::NotStarted)),
            Ok(_) => {}
            Err(_) => return false,
        }
    }
}

/// Why a run ended.
enum Left {
    Stopped,
    Failed(String),
}

/// A node that takes part.
struct Running<'a> {
    shared: &'a Arc<Shared>,
    run: u64,
    socket: UdpSocket,
    engine: Engine<Ticket>,
    output: Output<Ticket>,
    machine: Option<MachineThread>,
    disk: Option<DiskThread>,
    narrator: Narrator<'a>,
    clock: Instant,
    /// Whether the socket may hold more than was taken.
    more: bool,
    /// Whether receiving failed: the poll tells of what comes, not of what is there.
    look_again: bool,
    buffer: Vec<u8>,
    publisher: Publisher<'a>,
    lost: u64,
}

impl<'a> Running<'a> {
    fn new(
        shared: &'a Arc<Shared>,
        config: &'a Config,
        prepared: Prepared,
        kept: &mut Option<Saved>,
        run: u64,
    ) -> Result<Running<'a>, Error> {
        let Prepared { bound, machine, disk, secrets } = prepared;
        let (store, found) = disk.unzip();
        // What is on the disk is all that a node with a disk remembers.
        if found.is_some() {
            *kept = found;
        }
        let incarnation = match kept.as_ref().map(|saved| saved.incarnation) {
            Some(incarnation) if incarnation.0 != 0 => incarnation,
            _ => Incarnation(random_nonzero()?),
        };
        let life = Life { incarnation, run: Run(random_nonzero()?) };
        let narrator = Narrator::new(shared, config);
        narrator.started(&bound);
        narrator.seals(secrets.as_ref());
        let watchers = config.commit_watchers();
        let apart = machine.is_some() || !watchers.is_empty();
        let replica = Replica::new(&shared.name, life, machine, watchers.to_vec());
        let (host, machine) = if apart {
            (Host::elsewhere(&replica), Some(MachineThread::spawn(shared, replica)?))
        } else {
            (Host::here(replica), None)
        };
        let setup = engine_setup(config, &shared.name, secrets)?;
        let disk = store.map(|store| DiskThread::spawn(shared, run, store)).transpose()?;
        let seed = random_nonzero()?;
        // From here on nothing fails.
        let saved = kept.take().unwrap_or_else(|| Saved::empty(incarnation));
        let saved = Saved { incarnation, ..saved };
        let engine = Engine::new(setup, saved, life.run, seed, host, Time(0));
        let clock = Instant::now();
        Ok(Running {
            shared,
            run,
            socket: bound.socket,
            engine,
            output: Output::default(),
            machine,
            disk,
            narrator,
            clock,
            more: true,
            look_again: false,
            buffer: vec![0; udp::DATAGRAM_LIMIT_BYTES],
            publisher: Publisher::new(shared, clock),
            lost: 0,
        })
    }

    fn now(&self) -> Time {
        Time(u64::try_from(self.clock.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    fn turn_until_stopped(&mut self, poll: &mut Poll) -> Left {
        let mut events = Events::with_capacity(16);
        let mut courtesy = Courtesy::default();
        loop {
            self.engine.set_detail(self.narrator.detail());
            let due = self.engine.deadline();
            if let Err(error) = self.sleep(poll, &mut events, due) {
                return Left::Failed(format!("waiting for the socket failed: {error}"));
            }
            let now = self.now();
            self.take_datagrams(now);
            if let Err(left) = courtesy.gather(|| self.take_inputs(now)) {
                return left;
            }
            let now = self.now();
            // What has come to be due since then is met after the next sleep, which is none.
            if now >= due {
                self.engine.tick(now);
            }
            self.engine.flush(&mut self.output, now);
            if let Err(error) = self.hand_out(now) {
                return Left::Failed(error.to_string());
            }
            if let Some(failure) = self.engine.failure() {
                return Left::Failed(failure);
            }
        }
    }

    fn sleep(&mut self, poll: &mut Poll, events: &mut Events, due: Time) -> io::Result<()> {
        let wait = Duration::from_micros(due.since(self.now()));
        let sleeps = self.shared.may_sleep() && !self.more && !wait.is_zero();
        let timeout = match due {
            _ if !sleeps => Some(Duration::ZERO),
            Time(u64::MAX) => None,
            _ => Some(wait),
        };
        let polled = poll.poll(events, timeout);
        self.shared.awake();
        match polled {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => other?,
        }
        self.more |= std::mem::take(&mut self.look_again);
        self.more |= events.iter().any(|event| event.token() == SOCKET);
        Ok(())
    }

    fn take_datagrams(&mut self, now: Time) {
        if !self.more {
            return;
        }
        for _ in 0..DATAGRAMS_A_TURN {
            match udp::receive(&self.socket, &mut self.buffer) {
                Ok(Some((length, _))) => self.engine.datagram(&mut self.buffer[..length], now),
                Ok(None) => {
                    self.more = false;
                    return;
                }
                // Reports of datagrams that nobody took: there may be more behind.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return,
                // Whatever it is, it is no datagram; it is looked for again after the
                // next sleep.
                Err(error) => {
                    self.more = false;
                    self.look_again = true;
                    self.narrator.receive_failed(&error);
                    return;
                }
            }
        }
    }

    /// Takes the inputs that are there. Says how many requests were among them.
    fn take_inputs(&mut self, now: Time) -> Result<usize, Left> {
        let mut requests = 0;
        for _ in 0..INPUTS_A_TURN {
            match self.shared.inputs().try_recv() {
                Ok(Input::Request(ticket, kind)) => {
                    requests += 1;
                    self.engine.request(ticket, kind, now);
                }
                Ok(Input::Done(done)) => self.engine.done(*done),
                Ok(Input::Stop(run)) if run == self.run => {
                    return Err(Left::Stopped);
                }
                Ok(Input::Written(run, number)) if run == self.run => {
                    self.engine.written(number, now);
                }
                Ok(Input::Saved(run, None)) if run == self.run => self.engine.saved(now),
                Ok(Input::Saved(run, Some(why))) if run == self.run => {
                    self.engine.not_saved(&why);
                }
                Ok(Input::DiskFailed(run, reason)) if run == self.run => {
                    return Err(Left::Failed(format!(
                        "its disk failed: {reason}; nothing that it acknowledged is lost: start \
                         it again when that is mended"
                    )));
                }
                Ok(Input::MachinePanicked(said)) => {
                    return Err(Left::Failed(format!("the state machine panicked: {said}")));
                }
                // Of a run that is over.
                Ok(Input::Start | Input::Stop(_)) => {}
                Ok(Input::Written(..) | Input::Saved(..) | Input::DiskFailed(..)) => {}
                Err(_) => break,
            }
        }
        Ok(requests)
    }

    /// Carries out what the engine gave: datagrams first, for the others to work
    /// while this node writes, tells, publishes and answers.
    fn hand_out(&mut self, now: Time) -> Result<(), Error> {
        for (to, datagram) in &self.output.datagrams {
            if let Err(lost) = udp::send(&self.socket, datagram, *to) {
                self.lost += 1;
                self.narrator.lost(*to, lost);
            }
        }
        self.engine.recycle(&mut self.output.datagrams);
        if let Some(disk) = &mut self.disk {
            disk.write(&mut self.output.writes);
            if let Some(base) = self.output.trim.take() {
                disk.trim(base);
            }
            if let Some(snapshot) = self.output.save.take() {
                disk.save(snapshot)?;
            }
        }
        if let (Some(job), Some(machine)) = (self.output.job.take(), &self.machine) {
            machine.give(job);
        }
        // Who hears of an event sees in `Committed` what it speaks of.
        self.publisher.publish(&self.engine, !self.output.notes.is_empty(), now);
        self.narrator.tell(&self.engine, &mut self.output.notes);
        self.narrator.tell_of_seals(self.engine.counts());
        self.narrator.tell_counts(&self.engine, self.lost, now);
        answer(&mut self.output);
        Ok(())
    }

    /// The run is over: nobody is left waiting, the socket is let go.
    fn leave(mut self, left: Left) -> Saved {
        let error = match left {
            Left::Stopped => {
                self.shared.stopped(self.run);
                RequestError::Stopped
            }
            Left::Failed(reason) => {
                narrate::failed(self.shared, &reason);
                self.shared.fail(self.run, reason.clone());
                RequestError::Failed { reason }
            }
        };
        drop(self.socket);
        // As in a turn: who has a reply sees in `Committed` what it speaks of.
        self.shared.published.lock().reach(self.engine.newest());
        let mut saved = self.engine.stop(&error, &mut self.output);
        if self.disk.is_some() {
            // The disk remembers; nobody looks at what is left here but at its cluster.
            saved = Saved { hard: saved.hard, ..Saved::empty(saved.incarnation) };
        }
        answer(&mut self.output);
        // Everybody has an answer; only this thread waits for what the machine and the
        // disk are at.
        drop(self.machine);
        drop(self.disk);
        self.narrator.stopped();
        saved
    }
}

/// Hands out the answers; wakers of the program run here. The oldest comes last: that is
/// what a client waits for that has many, and when it wakes it finds all the others.
fn answer(output: &mut Output<Ticket>) {
    for (ticket, answer) in output.answers.drain(..).rev() {
        ticket.answer(answer);
    }
}

/// What the file says of a node, as its engine takes it.
pub(crate) fn engine_setup(
    config: &Config,
    name: &str,
    secrets: Option<Secrets>,
) -> Result<engine::Setup, Error> {
    let settings = config.settings();
    let neighbor = |node: &NodeSettings| Neighbor {
        name: node.name.clone(),
        address: node.address,
        voter: node.voter,
    };
    let own = settings.nodes.iter().find(|node| node.name == name).map(neighbor);
    let own =
        own.ok_or_else(|| Error::Failed { reason: format!("{name} is not in the config") })?;
    let others = settings.nodes.iter().filter(|node| node.name != name).map(neighbor).collect();
    Ok(engine::Setup {
        core: core::Setup {
            own,
            others,
            heartbeat: settings.heartbeat_us,
            failure_timeout: Some(settings.failure_timeout_us),
            election_timeout: settings.election_timeout_us,
            founding_by_majority: settings.founding_by_majority,
            tail_entries: settings.snapshot_every,
            append_bytes: engine::APPEND_BYTES,
        },
        request_timeout: settings.request_timeout_us,
        snapshot_every: settings.snapshot_every,
        keeps: match settings.data_dir {
            Some(_) => engine::Keeps::OnDisk,
            None => engine::Keeps::InMemory,
        },
        secrets,
    })
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::Mutex;
    use std::task::{Context, Wake, Waker};

    use super::*;
    use crate::shared::Gauge;

    struct Woken(usize, Arc<Mutex<Vec<usize>>>);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.1.lock().expect("a lock").push(self.0);
        }
    }

    /// A client with many requests waits for the oldest: when it is woken, the others are
    /// answered, and it is not woken for each.
    #[test]
    fn the_oldest_is_answered_last() {
        let (gauge, woken) = (Arc::<Gauge>::default(), Arc::<Mutex<Vec<usize>>>::default());
        let mut output = Output::default();
        let mut waiting = Vec::new();
        for number in 0..3 {
            let (sender, mut receiver) = oneshot::async_channel();
            let ticket = Ticket::take(&gauge, 0, sender).expect("there is room");
            let waker = Waker::from(Arc::new(Woken(number, woken.clone())));
            let polled = Pin::new(&mut receiver).poll(&mut Context::from_waker(&waker));
            assert!(polled.is_pending());
            output.answers.push((ticket, Err(RequestError::Stopped)));
            waiting.push(receiver);
        }
        answer(&mut output);
        assert_eq!(*woken.lock().expect("a lock"), [2, 1, 0]);
    }
}
