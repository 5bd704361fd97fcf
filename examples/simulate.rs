//! Whole clusters from seeds, on all cores, and every property of Raft checked in each:
//! `cargo run --release --features sim --example simulate -- --seeds 1000`.
//!
//! A seed decides all that happens: who the nodes are, what fails and when, what clients ask.
//! So what goes wrong in a run goes wrong again with its seed, and can be read as a story:
//! `cargo run --release --features sim --example simulate -- --seed 5 --trace`.
//!
//! ```text
//!   seeds ──► one thread a core ──► reports ────► one line that sums them up
//!                                └► violations ──► printed as they come, the first one
//!                                                  with the end of its story
//! ```

use std::cell::Cell;
use std::fmt::Display;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::ops::{Range, RangeInclusive};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::Instant;
use std::{panic, process, thread};

use kontiki::sim::{Report, Simulation, VOTERS_LIMIT, Violation};

const USAGE: &str = "Usage: simulate [--seeds N] [--first S] [--members] [--nodes N]
       simulate --seed S [--trace] [--members] [--nodes N]";

const HELP: &str = "Runs clusters in which all that happens follows from a seed, and checks them.
  --seeds N   runs so many seeds, on all cores (100 if this is not given)
  --first S   the first of them (0 if this is not given)
  --seed S    runs this seed alone and says how it went
  --trace     tells it as a story, one line an event
  --members   in worlds whose members come and go, forget and are replaced
  --nodes N   with N voters, 1 to 9, and no learners (else the seed decides)
  --help      shows this
Ends with 0 if everything held, 1 if something did not, 2 if it could not be run.";

/// So many lines of its story are shown with the first violation.
const LAST_LINES: usize = 40;

fn main() -> ExitCode {
    let (task, recipe) = match arguments() {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            say(&mut io::stdout(), format_args!("{USAGE}\n\n{HELP}"));
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            say(&mut io::stderr(), format_args!("simulate: {error}\n\n{USAGE}"));
            return ExitCode::from(2);
        }
    };
    hush_runs();
    let tally = match task {
        Task::Seeds(seeds) => run_seeds(&recipe, seeds, &mut io::stdout()),
        Task::Seed { seed, trace } => run_seed(&recipe, seed, trace),
    };
    say(&mut io::stdout(), tally.summary());
    if tally.violations == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

enum Task {
    Seeds(Range<u64>),
    Seed { seed: u64, trace: bool },
}

/// What to run, and what to make of each seed; `None` for `--help`.
fn arguments() -> Result<Option<(Task, Recipe)>, lexopt::Error> {
    use lexopt::prelude::*;
    let mut parser = lexopt::Parser::from_env();
    let (mut seeds, mut first, mut seed, mut nodes, mut trace) = (None, None, None, None, false);
    let mut members = false;
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(None),
            Long("seeds") => seeds = Some(number(&mut parser, "--seeds", 1..=u64::MAX)?),
            Long("first") => first = Some(number(&mut parser, "--first", 0..=u64::MAX)?),
            Long("seed") => seed = Some(number(&mut parser, "--seed", 0..=u64::MAX)?),
            Long("nodes") => {
                nodes = Some(number(&mut parser, "--nodes", 1..=VOTERS_LIMIT as u64)? as usize);
            }
            Long("members") => members = true,
            Long("trace") => trace = true,
            other => return Err(other.unexpected()),
        }
    }
    let task = match seed {
        Some(_) if seeds.is_some() || first.is_some() => {
            return Err("--seed runs one seed: it goes neither with --seeds nor --first".into());
        }
        Some(seed) => Task::Seed { seed, trace },
        None if trace => return Err("--trace tells one seed: say which, with --seed".into()),
        None => {
            let first = first.unwrap_or(0);
            let end = first.checked_add(seeds.unwrap_or(100));
            Task::Seeds(first..end.ok_or("there are not so many seeds from --first on")?)
        }
    };
    let make = if members { Simulation::of_members } else { Simulation::new };
    Ok(Some((task, Recipe { make, members, nodes })))
}

fn number(
    parser: &mut lexopt::Parser,
    option: &str,
    range: RangeInclusive<u64>,
) -> Result<u64, lexopt::Error> {
    let value = parser.value()?;
    let number = value.to_str().and_then(|text| text.parse().ok());
    number.filter(|number| range.contains(number)).ok_or_else(|| {
        let (least, most) = (range.start(), range.end());
        format!("{option} takes a number from {least} to {most}, not {value:?}").into()
    })
}

/// What each seed is made into.
pub struct Recipe {
    /// The simulation of a seed.
    pub make: fn(u64) -> Simulation,
    /// Whether that is a world whose members come and go.
    pub members: bool,
    /// So many voters, instead of what the seed says.
    pub nodes: Option<usize>,
}

impl Recipe {
    fn simulation(&self, seed: u64) -> Simulation {
        let simulation = (self.make)(seed);
        match self.nodes {
            // The learners first: those of the seed may be too many beside so many voters.
            Some(nodes) => simulation.learners(0).voters(nodes),
            None => simulation,
        }
    }

    /// A violation for a person: what did not hold, how to see it again, the end of its story.
    fn explain(&self, violation: &Violation, with_story: bool) -> String {
        let Violation { seed, at, node, property, source, what, .. } = violation;
        let node = node.as_ref().map(|node| format!(", {node}")).unwrap_or_default();
        let release = if cfg!(debug_assertions) { "" } else { "--release " };
        let nodes = self.nodes.map(|nodes| format!(" --nodes {nodes}")).unwrap_or_default();
        let members = if self.members { " --members" } else { "" };
        let story = if with_story { self.last_lines(*seed) } else { String::new() };
        format!(
            "seed {seed} violates \"{property}\"\n  source   {source}\n  cluster  {}\n  \
             seen     at {:.6} s{node}: {}\n  replay   cargo run {release}--features sim \
             --example simulate -- --seed {seed} --trace{members}{nodes}{story}",
            self.simulation(*seed).describe(),
            at.as_secs_f64(),
            what.replace('\n', "\n           "),
        )
    }

    /// The end of a seed's story. What happens in it is the same whoever listens.
    fn last_lines(&self, seed: u64) -> String {
        let (sender, lines) = mpsc::channel();
        let listen = move |line: &str| sender.send(format!("\n{line}")).unwrap_or_default();
        let _ = run(self.simulation(seed).trace(listen)); // the violation is known
        let lines: Vec<String> = lines.iter().collect();
        let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
        format!("\n  story    the last {} of {} lines:{}", last.len(), lines.len(), last.concat())
    }
}

/// What came of all seeds.
#[derive(Default)]
pub struct Tally {
    seeds: u64,
    steps: u64,
    faults: u64,
    violations: u64,
}

impl Tally {
    fn add(&mut self, ran: &Result<Report, String>) {
        self.seeds += 1;
        match ran {
            Ok(report) => {
                (self.steps, self.faults) = (self.steps + report.steps, self.faults + report.faults)
            }
            Err(_) => self.violations += 1,
        }
    }

    /// One line.
    pub fn summary(&self) -> String {
        let Tally { seeds, steps, faults, violations } = *self;
        [(seeds, "seed"), (steps, "step"), (faults, "fault"), (violations, "violation")]
            .map(|(count, what)| format!("{count} {what}{}", if count == 1 { "" } else { "s" }))
            .join(", ")
    }
}

/// Runs all of them, whatever is found, and prints each violation when it is found.
pub fn run_seeds(recipe: &Recipe, seeds: Range<u64>, out: &mut impl Write) -> Tally {
    let (mut tally, began) = (Tally::default(), Instant::now());
    let all = (seeds.end - seeds.start) as f64;
    let terminal = io::stderr().is_terminal();
    let show = |progress: String| {
        if terminal {
            let _ = write!(io::stderr(), "\r\x1b[K{progress}");
        }
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let (seeds, is_first) = (Mutex::new(seeds), AtomicBool::new(true));
    let (sender, results) = mpsc::channel();
    let work = |sender: mpsc::Sender<_>| {
        let next = || seeds.lock().ok()?.next();
        while let Some(seed) = next() {
            let ran = run(recipe.simulation(seed)).map_err(|violation| {
                recipe.explain(&violation, is_first.swap(false, Ordering::Relaxed))
            });
            let _ = sender.send(ran); // it is heard until all of them are done
        }
    };
    thread::scope(|scope| {
        for sender in vec![sender; cores] {
            scope.spawn(|| work(sender));
        }
        for ran in results {
            tally.add(&ran);
            if let Err(violation) = ran {
                show(String::new());
                say(out, violation);
            }
            show(bar(tally.seeds as f64 / all, began.elapsed().as_secs_f64()));
        }
    });
    show(String::new());
    tally
}

/// Runs one, as a story if that is wanted, and says how it went.
fn run_seed(recipe: &Recipe, seed: u64, trace: bool) -> Tally {
    let mut simulation = recipe.simulation(seed);
    say(&mut io::stdout(), format_args!("seed {seed}: {}", simulation.describe()));
    if trace {
        let mut out = BufWriter::new(io::stdout());
        simulation = simulation.trace(move |line| say(&mut out, line));
    }
    let ran = run(simulation).map_err(|violation| recipe.explain(&violation, !trace));
    say(&mut io::stdout(), ran.as_ref().map_or_else(String::clone, how_it_went));
    let mut tally = Tally::default();
    tally.add(&ran);
    tally
}

fn how_it_went(report: &Report) -> String {
    let Report { requests, answered, unknown, committed, leaders, lasted, healed_in, .. } = report;
    format!(
        "  lasted    {lasted:?} of virtual time; {healed_in:?} after the last fault all was well\n  \
         log       {committed} entries; {leaders} elections were won\n  \
         requests  {requests}: {answered} answered, {unknown} ended unknown, {} refused\n  \
         digest    {:016x}",
        requests - answered - unknown,
        report.digest,
    )
}

thread_local! {
    /// Where this thread's run has panicked; `None` while it runs nothing.
    static PANICKED: Cell<Option<String>> = const { Cell::new(None) };
}

/// A panic inside a run becomes a violation; the usual message would only disturb.
pub fn hush_runs() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |panic| match PANICKED.take() {
        Some(_) => PANICKED.set(panic.location().map(|place| format!(" ({place})"))),
        None => usual(panic),
    }));
}

/// Runs it. If it panics, the violation says where.
fn run(simulation: Simulation) -> Result<Report, Violation> {
    PANICKED.set(Some(String::new()));
    let ran = simulation.run();
    let place = PANICKED.take().unwrap_or_default();
    ran.map_err(|mut violation| {
        violation.what += &place;
        violation
    })
}

/// Prints a line. When nobody listens any more (`| head`) the run goes on all the same:
/// its exit code still counts.
fn say(out: &mut impl Write, line: impl Display) {
    match writeln!(out, "{line}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let _ = writeln!(io::stderr(), "simulate: this cannot be printed: {error}");
            process::exit(2)
        }
        _ => {}
    }
}

/// How far it is: so much of the whole, after so many seconds.
fn bar(done: f64, seconds: f64) -> String {
    let left = seconds * (1.0 / done - 1.0);
    format!("[{:<30}] {:.0} %, {left:.0} s left", "=".repeat((30.0 * done) as usize), 100.0 * done)
}
