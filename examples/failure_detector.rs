//! Jobs go to the workers that are up: `cargo run --example failure_detector` (on Unix).
//!
//! This program is the coordinator. It runs three voters, starts three worker processes, has
//! them admitted as learners, and deals out jobs to those that are agreed to be up. One worker
//! is stopped in the midst of a job until it is agreed to be down, and then woken: its result
//! comes too late. Another one is killed. The jobs of both go to the others. If a job is left
//! in the end, or all of it takes too long, that is an error.
//!
//! ```text
//!   coordinator ──{"job": 7, "to": "worker1", "token": 12}───► log ──► worker1
//!               ◄─{"done": 7, "by": "worker1", "token": 12}─── log ◄──
//! ```
//!
//! The token is where the log says that the worker is up. A result counts if no other verdict
//! about its worker stands between the token and the result. All of these are entries of one
//! log, so everybody who reads it comes to the same answer, whenever that is.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Display;
use std::net::{SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::process::{self, Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, io, thread};

use crossbeam_channel::{Receiver, unbounded};
use kontiki::{Committed, Config, Event, Pending, RaftNode, Request, RequestError};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

const VOTERS: [&str; 3] = ["node0", "node1", "node2"];
const WORKERS: [&str; 3] = ["worker0", "worker1", "worker2"];
/// So many jobs come at first, and as many later.
const JOBS: u64 = 15;
/// So long a worker takes for a job.
const WORK: Duration = Duration::from_millis(200);
/// So many jobs a worker has at most: the one that it does, and the next ones.
const AT_HAND: usize = 3;
/// All of it takes a third of this.
const LIMIT: Duration = Duration::from_secs(15);

/// A job is a worker's, under this token.
#[derive(Serialize, Deserialize)]
struct Deal {
    job: u64,
    to: String,
    token: u64,
}

/// A job is done.
#[derive(Serialize, Deserialize)]
struct Done {
    done: u64,
    by: String,
    token: u64,
}

fn main() -> Result<(), Box<dyn Error>> {
    env_logger::init(); // RUST_LOG=info shows who is elected, and each verdict
    let arguments: Vec<String> = env::args().skip(1).collect();
    match &arguments[..] {
        [] => coordinate(),
        [name, port, cluster] => work(name, port, cluster),
        _ => Err("this program takes no arguments".into()),
    }
}

// ---------------------------------------------------------------- a worker

fn work(name: &str, port: &str, cluster: &str) -> Result<(), Box<dyn Error>> {
    // It ends with the coordinator, however that ends.
    thread::spawn(|| {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        process::exit(0);
    });
    let mut file: Value = serde_json::from_str(cluster)?;
    file["nodes"][name] = json!({"ip": "127.0.0.1", "port": port, "role": "learner"});
    let (sender, deals) = unbounded();
    let own = name.to_string();
    let config = Config::try_from(file)?.on_commit(move |_, entry| {
        // What is no deal does not parse as one.
        let deal = entry.parse().ok().filter(|deal: &Deal| deal.to == own);
        let _ = deal.map(|deal| sender.send(deal));
    });
    let node = RaftNode::new(&config, name)?;
    node.start()?;
    thread::scope(|scope| {
        for Deal { job, token, .. } in deals {
            if is_void(&node, token) {
                continue;
            }
            thread::sleep(WORK);
            // The next job does not wait until this one's result is committed.
            let done = Done { done: job, by: name.to_string(), token };
            scope.spawn(|| report(&node, done));
        }
    });
    Ok(())
}

/// Whether this worker has been down since: what it had then is another's by now. This only
/// saves work. Who is stopped right behind it does no harm, since it is the log that decides.
fn is_void(node: &RaftNode, token: u64) -> bool {
    loop {
        match node.check_committed_entry().up_since {
            Some(since) if since >= token => return since > token,
            // It is down, or its node is about to say that it is up.
            _ => thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// Asks until it is committed; under one id it is committed once.
fn report(node: &RaftNode, done: Done) {
    let id = format!("job {} by {} under {}", done.done, done.by, done.token);
    let request = Request::command(&done).id(id);
    while let Err(error) = node.client_request(request.clone()).and_then(Pending::wait) {
        eprintln!("{}: {error}", done.by);
        thread::sleep(Duration::from_millis(100));
    }
}

// ---------------------------------------------------------------- the coordinator

fn coordinate() -> Result<(), Box<dyn Error>> {
    let began = Instant::now();
    // At ports that are free now.
    let sockets = [(); VOTERS.len() + WORKERS.len()].map(|()| UdpSocket::bind("127.0.0.1:0"));
    let addresses = sockets.into_iter().map(|socket| socket?.local_addr());
    let addresses = addresses.collect::<io::Result<Vec<SocketAddr>>>()?;
    let (for_voters, for_workers) = addresses.split_at(VOTERS.len());
    let mut nodes = json!({});
    for (name, at) in VOTERS.iter().zip(for_voters) {
        nodes[name] = json!({"ip": "127.0.0.1", "port": at.port()});
    }
    let cluster = json!({"nodes": nodes, "request_timeout_ms": 3000});

    let mut workers = Workers(Vec::new());
    for (name, at) in WORKERS.iter().zip(for_workers) {
        workers.start(name, at.port(), &cluster)?;
    }
    let mut all = Coordinator::start(cluster, began)?;
    for (name, at) in WORKERS.iter().zip(for_workers) {
        all.ask(Request::add_learner(*name, *at))?;
        all.say(format!("{name} is registered, as a learner"));
    }
    all.turn_until("workers that are up", |all| WORKERS.iter().all(|name| all.is_up(name)))?;

    all.bring(1..=JOBS);
    all.turn_until_in_the_midst("worker1")?;
    let stopped = Instant::now();
    workers.signal(1, "-STOP")?;
    all.say("worker1 is stopped in the midst of a job (kill -STOP)");
    all.turn_until("worker1 being down", |all| !all.is_up("worker1"))?;
    let stop_known = stopped.elapsed();
    let moves = |job: &Job| matches!(job, Job::Waits { was: Some(_) });
    all.turn_until("its jobs with others", |all| !all.jobs.values().any(moves))?;
    workers.signal(1, "-CONT")?;
    all.say("worker1 is woken (kill -CONT), and knows nothing of all that");
    all.turn_until("its late result", |all| all.fenced > 0)?;
    all.turn_until("worker1 being up again", |all| all.is_up("worker1"))?;

    all.bring(JOBS + 1..=2 * JOBS);
    all.turn_until_in_the_midst("worker2")?;
    let killed = Instant::now();
    workers.0[2].kill()?;
    all.say("worker2 is killed in the midst of a job (kill -KILL)");
    all.turn_until("worker2 being down", |all| !all.is_up("worker2"))?;
    let kill_known = killed.elapsed();
    let done = |job: &Job| matches!(job, Job::Done { .. });
    all.turn_until("the last result", |all| all.jobs.values().all(done))?;
    let jobs_done = killed.elapsed();
    all.say(format!("all {} jobs are done; results fenced off: {}", all.jobs.len(), all.fenced));

    for (what, took) in [
        ("from the stop of worker1 until its verdict was known", stop_known),
        ("from the kill of worker2 until its verdict was known", kill_known),
        ("from the kill of worker2 until all jobs were done", jobs_done),
        ("all in all", began.elapsed()),
    ] {
        println!("{what:54}{:5} ms", took.as_millis());
    }
    Ok(())
}

/// How a job stands, as the coordinator knows it.
enum Job {
    /// Nobody has it, or not any more.
    Waits { was: Option<String> },
    /// This worker has it under this token.
    With { worker: String, token: u64 },
    /// A result counted.
    Done { by: String },
}

struct Coordinator {
    began: Instant,
    voters: Vec<RaftNode>,
    /// What the first voter knew at the last turn.
    known: Committed,
    /// What it tells: of verdicts, and of results with their places in the log.
    events: Receiver<Event>,
    told: Receiver<(u64, Done)>,
    /// All verdicts, by their places in the log: about whom.
    verdicts: Vec<(u64, String)>,
    /// The results that are not judged yet.
    results: BTreeMap<u64, Done>,
    jobs: BTreeMap<u64, Job>,
    fenced: usize,
}

impl Coordinator {
    fn start(cluster: Value, began: Instant) -> Result<Coordinator, Box<dyn Error>> {
        let (sender, told) = unbounded();
        let config = Config::try_from(cluster)?.on_commit(move |node, entry| {
            let done = entry.parse().ok().filter(|_: &Done| node == VOTERS[0]);
            let _ = done.map(|done| sender.send((entry.index, done)));
        });
        let events = config.events();
        let voters = VOTERS.iter().map(|name| RaftNode::new(&config, name));
        let voters = voters.collect::<Result<Vec<RaftNode>, kontiki::Error>>()?;
        voters.iter().try_for_each(RaftNode::start)?;
        let known = voters[0].check_committed_entry();
        let (verdicts, results, jobs, fenced) = Default::default();
        Ok(Coordinator { began, voters, known, events, told, verdicts, results, jobs, fenced })
    }

    fn say(&self, what: impl Display) {
        println!("{:6} ms  {what}", self.began.elapsed().as_millis());
    }

    fn ask(&self, request: Request) -> Result<(), RequestError> {
        self.voters[0].client_request(request)?.wait().map(drop)
    }

    fn bring(&mut self, jobs: RangeInclusive<u64>) {
        self.say(format!("jobs {} to {} come in", jobs.start(), jobs.end()));
        self.jobs.extend(jobs.map(|job| (job, Job::Waits { was: None })));
    }

    /// Where the log says that this worker is up, if it does.
    fn token(&self, worker: &str) -> Option<u64> {
        let member = self.known.members.iter().find(|member| member.name == worker)?;
        member.verdict.filter(|verdict| verdict.up).map(|verdict| verdict.index)
    }

    fn is_up(&self, worker: &str) -> bool {
        self.token(worker).is_some()
    }

    /// How many jobs this worker has.
    fn at_hand(&self, who: &str) -> usize {
        let up = self.token(who);
        let its = |job: &&Job| matches!(job, Job::With { worker, token } if worker == who && Some(*token) == up);
        self.jobs.values().filter(its).count()
    }

    fn turn_until(
        &mut self,
        what: &str,
        reached: impl Fn(&Coordinator) -> bool,
    ) -> Result<(), Box<dyn Error>> {
        while !reached(self) {
            if self.began.elapsed() > LIMIT {
                return Err(format!("no sign of {what} within {} s", LIMIT.as_secs()).into());
            }
            self.turn()?;
        }
        Ok(())
    }

    fn turn_until_in_the_midst(&mut self, worker: &str) -> Result<(), Box<dyn Error>> {
        let by_it = |job: &&Job| matches!(job, Job::Done { by } if by == worker);
        let done = |all: &Coordinator| all.jobs.values().filter(by_it).count();
        let before = done(self);
        self.turn_until("a worker at work", |all| done(all) > before && all.at_hand(worker) > 0)?;
        // It has just begun the next one.
        let midst = Instant::now() + WORK / 3;
        self.turn_until("the midst of it", |_| Instant::now() >= midst)
    }

    /// Takes what is new, judges results, deals out jobs.
    fn turn(&mut self) -> Result<(), Box<dyn Error>> {
        let known = self.voters[0].check_committed_entry();
        self.results.extend(self.told.try_iter());
        let first = self.events.recv_timeout(Duration::from_millis(2));
        for event in first.into_iter().chain(self.events.try_iter()) {
            let (member, index, verdict) = match event {
                _ if event.node() != VOTERS[0] => continue,
                Event::MemberUp { member, index, .. } => (member, index, "up"),
                Event::MemberDown { member, index, .. } => (member, index, "down"),
                Event::Missed { .. } => return Err("events were missed, verdicts perhaps".into()),
                _ => continue,
            };
            self.say(format!("{member} is {verdict}, by entry {index}"));
            self.verdicts.push((index, member));
        }
        // Entries and verdicts come by two ways, each in its order. A result can be judged when
        // the node has it behind it, and all verdicts have come that the node knew then.
        let newest = known.members.iter().filter_map(|member| member.verdict).map(|v| v.index);
        if self.verdicts.last().map(|(index, _)| *index) < newest.max() {
            return Ok(());
        }
        let reached = known.entry.as_ref().map_or(0, |entry| entry.index);
        self.known = known;
        let later = self.results.split_off(&(reached + 1));
        for (index, done) in std::mem::replace(&mut self.results, later) {
            self.judge(index, done);
        }
        self.deal()
    }

    fn judge(&mut self, index: u64, Done { done: job, by, token }: Done) {
        let between = |(at, of): &&(u64, String)| *of == by && token < *at && *at < index;
        if let Some((at, _)) = self.verdicts.iter().find(between) {
            self.say(format!(
                "{by} did job {job} under token {token}, and is down by entry {at}: its result, \
                 entry {index}, is fenced off"
            ));
            self.fenced += 1;
        } else if let Some(Job::Done { by: first }) = self.jobs.get(&job) {
            // The verdict on `first` was known here sooner than the result in front of it.
            self.say(format!("{by} did job {job} as well: the result of {first} counts"));
        } else {
            self.say(format!("{by} did job {job}"));
            self.jobs.insert(job, Job::Done { by });
        }
    }

    /// Each job that nobody has goes to the worker that has the fewest.
    fn deal(&mut self) -> Result<(), Box<dyn Error>> {
        let jobs: Vec<u64> = self.jobs.keys().copied().collect();
        for job in jobs {
            let was = match &self.jobs[&job] {
                Job::With { worker, token } if self.token(worker) == Some(*token) => continue,
                Job::With { worker, .. } => Some(worker.clone()),
                Job::Waits { was } => was.clone(),
                Job::Done { .. } => continue,
            };
            let up = WORKERS.iter().filter_map(|to| Some((self.at_hand(to), *to, self.token(to)?)));
            let Some((_, to, token)) = up.filter(|(jobs, ..)| *jobs < AT_HAND).min() else {
                self.jobs.insert(job, Job::Waits { was });
                continue;
            };
            self.ask(Request::command(&Deal { job, to: to.to_string(), token }))?;
            if let Some(was) = was {
                self.say(format!("job {job} of {was} goes to {to}"));
            }
            self.jobs.insert(job, Job::With { worker: to.to_string(), token });
        }
        Ok(())
    }
}

/// The worker processes, which are killed in the end.
struct Workers(Vec<Child>);

impl Workers {
    fn start(&mut self, name: &str, port: u16, cluster: &Value) -> io::Result<()> {
        let mut worker = Command::new(env::current_exe()?);
        worker.args([name, &port.to_string(), &cluster.to_string()]).stdin(Stdio::piped());
        self.0.push(worker.spawn()?);
        Ok(())
    }

    fn signal(&self, worker: usize, signal: &str) -> Result<(), Box<dyn Error>> {
        let id = self.0[worker].id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status()?;
        if sent.success() { Ok(()) } else { Err(format!("kill {signal} {id}: {sent}").into()) }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for worker in &mut self.0 {
            let _ = worker.kill();
            let _ = worker.wait();
        }
    }
}
