//! Jobs go to the workers that are up: `cargo run --example failure_detector` (on Unix).
//!
//! This program is the coordinator. It runs three voters, starts three worker processes, has
//! them admitted as learners, and deals out jobs to those that are agreed to be up. One worker
//! is stopped in the midst of a job until it is agreed to be down, and then woken: its result
//! comes too late. Another is killed. The jobs of both go to the others.
//!
//! ```text
//!   coordinator ──{"job": 7, "to": "worker1", "token": 12}─────────────► log ──► worker1
//!               ◄─{"done": {"job": 7, "to": "worker1", "token": 12}}──── log ◄──
//! ```
//!
//! The token is where the log says that the worker is up. A result counts if no other verdict
//! about its worker stands between the token and the result. All of these are entries of one
//! log, so everybody who reads it comes to the same answer, whenever that is.

use std::collections::BTreeMap;
use std::error::Error;
use std::net::{SocketAddr, UdpSocket};
use std::process::{self, Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, io, mem, thread};

use crossbeam_channel::{Receiver, unbounded};
use kontiki::{Config, Event, RaftNode, Request};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

const VOTERS: [&str; 3] = ["node0", "node1", "node2"];
const WORKERS: [&str; 3] = ["worker0", "worker1", "worker2"];
const JOBS: u64 = 15; // at first, and as many later
const WORK: Duration = Duration::from_millis(200); // for one job
const AT_HAND: usize = 3; // the job that a worker does, and the next ones
const LIMIT: Duration = Duration::from_secs(15); // several times what all of it takes

/// A job is given to a worker.
#[derive(Serialize, Deserialize)]
struct Deal {
    job: u64,
    to: String,
    token: u64,
}

/// The worker has done it.
#[derive(Serialize, Deserialize)]
struct Done {
    done: Deal,
}

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> Outcome {
    env_logger::init(); // RUST_LOG=info shows who is elected, and each verdict
    let arguments: Vec<String> = env::args().skip(1).collect();
    match &arguments[..] {
        [] => coordinate(),
        [name, port, cluster] => work(name, port, cluster),
        _ => Err("this program takes no arguments".into()),
    }
}

fn work(name: &str, port: &str, cluster: &str) -> Outcome {
    // It ends with the coordinator, however that ends.
    thread::spawn(|| {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        process::exit(0);
    });
    let mut file: Value = serde_json::from_str(cluster)?;
    file["nodes"][name] = json!({"ip": "127.0.0.1", "port": port, "role": "learner"});
    let (sender, deals) = unbounded();
    let config = Config::try_from(file)?.on_commit(move |name, entry| {
        // What is no deal does not parse as one.
        let deal = entry.parse().ok().filter(|deal: &Deal| deal.to == name);
        let _ = deal.map(|deal| sender.send(deal));
    });
    let node = RaftNode::new(&config, name)?;
    node.start()?;
    for deal in deals {
        // If it has been down since, the job is another's by now. This only saves work: its node
        // may be about to hear of it.
        if node.check_committed_entry().up_since.is_some_and(|since| since > deal.token) {
            continue;
        }
        thread::sleep(WORK);
        // Asked for until it is committed; under one id it is committed once.
        let id = format!("job {} by {name} under {}", deal.job, deal.token);
        let done = Request::command(&Done { done: deal }).id(id);
        while let Err(error) = node.client_request(done.clone())?.wait() {
            eprintln!("{name}: {error}");
        }
    }
    Ok(())
}

fn coordinate() -> Outcome {
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
    let mut all = Coordinator::start(&cluster, began)?;
    let mut workers = Workers(Vec::new());
    for (name, at) in WORKERS.iter().zip(for_workers) {
        let mut worker = Command::new(env::current_exe()?);
        worker.args([name, &*at.port().to_string(), &cluster.to_string()]);
        workers.0.push(worker.stdin(Stdio::piped()).spawn()?);
        all.voters[0].client_request(Request::add_learner(*name, *at))?.wait()?;
        all.say(&format!("{name} is registered, as a learner"));
    }
    all.turn_until("all workers up", |all| WORKERS.iter().all(|name| all.up.contains_key(*name)))?;

    all.jobs = JOBS;
    all.say(&format!("{JOBS} jobs come in"));
    all.turn_until("worker1 at work", |all| all.is_at_work("worker1", 1))?;
    thread::sleep(WORK / 3); // it has just begun another job
    let stopped = Instant::now();
    let id = workers.0[1].id().to_string();
    Command::new("kill").args(["-STOP", &id]).status()?;
    all.say("worker1 is stopped in the midst of a job (kill -STOP)");
    all.turn_until("worker1 down", |all| !all.up.contains_key("worker1"))?;
    let stop_known = stopped.elapsed().as_millis();
    all.turn_until("its jobs with others", |all| all.load("worker1") == 0)?;
    Command::new("kill").args(["-CONT", &id]).status()?;
    all.say("worker1 is woken (kill -CONT), and knows nothing of all that");
    all.turn_until("its late result", |all| all.fenced > 0)?;
    all.turn_until("worker1 up again", |all| all.up.contains_key("worker1"))?;

    all.jobs += JOBS;
    all.say(&format!("{JOBS} more jobs come in"));
    all.turn_until("worker2 at work", |all| all.is_at_work("worker2", JOBS + 1))?;
    thread::sleep(WORK / 3);
    let killed = Instant::now();
    workers.0[2].kill()?;
    all.say("worker2 is killed in the midst of a job (kill -KILL)");
    all.turn_until("worker2 down", |all| !all.up.contains_key("worker2"))?;
    let kill_known = killed.elapsed().as_millis();
    all.turn_until("all jobs done", |all| all.done.len() == 2 * JOBS as usize)?;
    let jobs_done = killed.elapsed().as_millis();

    all.say(&format!("all {} jobs are done, each once; fenced off: {}", all.jobs, all.fenced));
    println!("from the stop of worker1 until it was known to be down: {stop_known} ms");
    println!("from the kill of worker2 until it was known to be down: {kill_known} ms");
    println!("from the kill of worker2 until all jobs were done: {jobs_done} ms");
    println!("all in all: {} ms", began.elapsed().as_millis());
    Ok(())
}

/// The worker processes, which are killed in the end.
struct Workers(Vec<Child>);

impl Drop for Workers {
    fn drop(&mut self) {
        for worker in &mut self.0 {
            let _ = worker.kill();
            let _ = worker.wait();
        }
    }
}

struct Coordinator {
    began: Instant,
    voters: Vec<RaftNode>,
    /// What the first voter tells.
    events: Receiver<Event>,
    told: Receiver<(u64, Deal)>,
    /// Where in the log, and about whom: all verdicts, and who is up by them.
    verdicts: Vec<(u64, String)>,
    up: BTreeMap<String, u64>,
    /// Where in the log, and what: results that are not judged yet.
    results: Vec<(u64, Deal)>,
    /// The jobs have the numbers from 1 to this; who has them; who has done them.
    jobs: u64,
    dealt: BTreeMap<u64, Deal>,
    done: BTreeMap<u64, String>,
    fenced: usize,
}

impl Coordinator {
    fn start(cluster: &Value, began: Instant) -> Outcome<Coordinator> {
        let (sender, told) = unbounded();
        let config = Config::try_from(cluster)?.on_commit(move |node, entry| {
            let result = entry.parse().ok().filter(|_: &Done| node == VOTERS[0]);
            let _ = result.map(|result| sender.send((entry.index, result.done)));
        });
        let events = config.events();
        let voters = VOTERS.iter().map(|name| RaftNode::new(&config, name));
        let voters = voters.collect::<Result<Vec<RaftNode>, kontiki::Error>>()?;
        voters.iter().try_for_each(RaftNode::start)?;
        let (verdicts, up, results, jobs, dealt, done, fenced) = Default::default();
        Ok(Self { began, voters, events, told, verdicts, up, results, jobs, dealt, done, fenced })
    }

    fn say(&self, what: &str) {
        println!("{:6} ms  {what}", self.began.elapsed().as_millis());
    }

    fn load(&self, worker: &str) -> usize {
        self.dealt.values().filter(|deal| deal.to == worker).count()
    }

    /// Whether it has done a job from this number on, and has another.
    fn is_at_work(&self, worker: &str, from: u64) -> bool {
        self.done.range(from..).any(|(_, by)| by == worker) && self.load(worker) > 0
    }

    fn turn_until(&mut self, what: &str, reached: impl Fn(&Coordinator) -> bool) -> Outcome {
        while !reached(self) {
            if self.began.elapsed() > LIMIT {
                return Err(format!("no sign of {what} within {} s", LIMIT.as_secs()).into());
            }
            self.turn()?;
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Takes what is new, judges results, deals out jobs.
    fn turn(&mut self) -> Outcome {
        self.results.extend(self.told.try_iter());
        let known = self.voters[0].check_committed_entry();
        for event in self.events.try_iter() {
            let (member, index, verdict) = match event {
                _ if event.node() != VOTERS[0] => continue,
                Event::MemberUp { member, index, .. } => (member, index, "up"),
                Event::MemberDown { member, index, .. } => (member, index, "down"),
                Event::Missed { .. } => return Err("events were missed, verdicts perhaps".into()),
                _ => continue,
            };
            self.say(&format!("{member} is {verdict}, by entry {index}"));
            self.verdicts.push((index, member));
        }
        // Results and verdicts are told by two ways, each in its order. Results are judged when
        // the node knows of the last one, and all verdicts have come that it knew then.
        let agreed = known.members.iter().filter_map(|member| Some((member, member.verdict?)));
        let newest = agreed.clone().map(|(_, verdict)| verdict.index).max();
        let verdict = self.verdicts.last().map(|(index, _)| *index);
        let result = self.results.last().map(|(index, _)| *index);
        if verdict < newest || result > known.entry.as_ref().map(|entry| entry.index) {
            return Ok(());
        }
        let up = agreed.filter(|(_, verdict)| verdict.up);
        self.up = up.map(|(member, verdict)| (member.name.clone(), verdict.index)).collect();
        for (index, deal) in mem::take(&mut self.results) {
            self.judge(index, deal);
        }
        self.deal()
    }

    fn judge(&mut self, index: u64, Deal { job, to, token }: Deal) {
        let between = |(at, of): &&(u64, String)| *of == to && token < *at && *at < index;
        if let Some((at, _)) = self.verdicts.iter().find(between) {
            self.say(&format!("{to} did job {job} too late: entry {index} is fenced off by {at}"));
            self.fenced += 1;
        } else if !self.done.contains_key(&job) {
            // A job may have been dealt out anew while a result was on its way: the first counts.
            self.say(&format!("{to} did job {job}"));
            self.dealt.remove(&job);
            self.done.insert(job, to);
        }
    }

    /// Gives the jobs that nobody has to those who are up, each to the one with the fewest.
    fn deal(&mut self) -> Outcome {
        for job in 1..=self.jobs {
            let before = self.dealt.get(&job);
            let has_it = before.is_some_and(|deal| self.up.get(&deal.to) == Some(&deal.token));
            if has_it || self.done.contains_key(&job) {
                continue;
            }
            let up = WORKERS.iter().filter_map(|to| Some((self.load(to), *to, *self.up.get(*to)?)));
            let Some((_, to, token)) = up.filter(|(jobs, ..)| *jobs < AT_HAND).min() else {
                break;
            };
            let deal = Deal { job, to: to.to_string(), token };
            self.voters[0].client_request(Request::command(&deal))?.wait()?;
            if let Some(before) = self.dealt.insert(job, deal) {
                self.say(&format!("job {job} of {} goes to {to}", before.to));
            }
        }
        Ok(())
    }
}
