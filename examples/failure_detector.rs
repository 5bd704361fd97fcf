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
//! The token is where the log says that the worker is up. A result counts if its worker is
//! still up by that entry when the result is committed. Deals, results and verdicts are entries
//! of one log, and a state machine is given them in its order: so each voter comes to the same
//! answer, and nobody has to compare clocks or queues.

use std::collections::BTreeMap;
use std::error::Error;
use std::net::{SocketAddr, UdpSocket};
use std::process::{self, Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, io, thread};

use crossbeam_channel::{Receiver, Sender, unbounded};
use kontiki::{BoxError, Config, Entry, RaftNode, Request, StateMachine, Verdict};
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

/// What every voter makes of the log: who is up, and by which entry.
#[derive(Default)]
struct Board {
    up: BTreeMap<String, u64>,
    told: Option<Sender<News>>,
}

/// What the coordinator hears of that, in the order of the log.
enum News {
    Turn(String, Verdict),
    Result { deal: Deal, counts: bool },
}

impl Board {
    fn tell(&self, news: News) {
        let _ = self.told.as_ref().map(|told| told.send(news));
    }
}

impl StateMachine for Board {
    fn apply(&mut self, entry: &Entry) -> Value {
        let Ok(Done { done: deal }) = entry.parse() else { return Value::Null };
        let counts = self.up.get(&deal.to) == Some(&deal.token);
        self.tell(News::Result { deal, counts });
        json!(counts)
    }

    fn verdict(&mut self, member: &str, verdict: Verdict) {
        match verdict.up {
            true => self.up.insert(member.to_string(), verdict.index),
            false => self.up.remove(member),
        };
        self.tell(News::Turn(member.to_string(), verdict));
    }

    fn query(&self, _: &Value) -> Value {
        json!(self.up)
    }

    fn snapshot(&self) -> Result<Vec<u8>, BoxError> {
        Ok(serde_json::to_vec(&self.up)?)
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), BoxError> {
        self.up = serde_json::from_slice(snapshot)?;
        Ok(())
    }
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
    /// What the board of the first voter tells, and the same put together.
    news: Receiver<News>,
    up: BTreeMap<String, u64>,
    done: BTreeMap<u64, String>,
    /// The jobs have the numbers from 1 to this; who has them.
    jobs: u64,
    dealt: BTreeMap<u64, Deal>,
    fenced: usize,
}

impl Coordinator {
    fn start(cluster: &Value, began: Instant) -> Outcome<Coordinator> {
        let (sender, news) = unbounded();
        let config = Config::try_from(cluster)?.state_machine(move |node| Board {
            told: (node == VOTERS[0]).then(|| sender.clone()),
            ..Board::default()
        });
        let voters = VOTERS.iter().map(|name| RaftNode::new(&config, name));
        let voters = voters.collect::<Result<Vec<RaftNode>, kontiki::Error>>()?;
        voters.iter().try_for_each(RaftNode::start)?;
        let (up, done, jobs, dealt, fenced) = Default::default();
        Ok(Self { began, voters, news, up, done, jobs, dealt, fenced })
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

    /// Takes what is new, then deals out jobs.
    fn turn(&mut self) -> Outcome {
        for news in self.news.try_iter() {
            match news {
                News::Turn(member, Verdict { up: true, index, .. }) => {
                    self.say(&format!("{member} is up, by entry {index}"));
                    self.up.insert(member, index);
                }
                News::Turn(member, Verdict { index, .. }) => {
                    self.say(&format!("{member} is down, by entry {index}"));
                    self.up.remove(&member);
                }
                News::Result { deal: Deal { job, to, token }, counts: false } => {
                    self.say(&format!("{to} did job {job} too late: no longer up by {token}"));
                    self.fenced += 1;
                }
                News::Result { deal: Deal { job, to, .. }, .. } => {
                    // A job may be dealt out anew while a result is on its way: the first counts.
                    if !self.done.contains_key(&job) {
                        self.say(&format!("{to} did job {job}"));
                        self.dealt.remove(&job);
                        self.done.insert(job, to);
                    }
                }
            }
        }
        self.deal()
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
