//! The table: every case, all systems in turn, medians and ratios.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lexopt::prelude::*;
use serde_json::Value;

use crate::ours::NAME;
use crate::plots;

/// What is measured in one go, and of whom.
struct Case {
    /// What is said of it: a name, and a field of the lines.
    rows: &'static [(&'static str, &'static str)],
    args: &'static str,
    /// On one core only.
    pinned: bool,
    durable: bool,
    systems: &'static [&'static str],
    quick: bool,
}

const FLOOR: &[&str] = &["floor", NAME];
/// All systems.
pub const ALL: &[&str] =
    &["floor", NAME, "openraft/tcp", "raft-rs/udp", "openraft/memory", "raft-rs/channels"];
const ALL_BUT_FLOOR: &[&str] = ALL.split_at(1).1;
const OURS: &[&str] = &[NAME];

const fn case(
    rows: &'static [(&'static str, &'static str)],
    args: &'static str,
    systems: &'static [&'static str],
) -> Case {
    Case { rows, args, pinned: false, durable: false, systems, quick: false }
}

impl Case {
    const fn quick(self) -> Case {
        Case { quick: true, ..self }
    }

    const fn pinned(self) -> Case {
        Case { pinned: true, ..self }
    }

    const fn durable(self) -> Case {
        Case { durable: true, ..self }
    }
}

const CASES: &[Case] = &[
    case(&[("one client, one core", "p50_us")], "load --k 1", ALL).pinned().quick(),
    case(&[("one client", "p50_us"), ("    99 % within", "p99_us")], "load --k 1", ALL).quick(),
    case(&[("    sealed", "p50_us")], "load --k 1 --sealed", OURS).quick(),
    case(&[("64 outstanding", "per_s")], "load --k 64", ALL).quick(),
    case(
        &[("1,024 outstanding", "per_s"), ("    CPU a commit", "cpu_us_per_commit")],
        "load --k 1024",
        ALL,
    )
    .quick(),
    case(&[("    sealed", "per_s")], "load --k 1024 --sealed", OURS).quick(),
    case(&[("16,384 outstanding", "per_s")], "load --k 16384", ALL),
    case(&[("1,024 of 1 KB", "per_s")], "load --k 1024 --size 1024", ALL).quick(),
    case(&[("64 threads that wait", "per_s")], "threads --k 64", ALL).quick(),
    case(&[("five nodes, 1,024", "per_s")], "load --k 1024 --nodes 5", FLOOR),
    case(&[("nine nodes, 1,024", "per_s")], "load --k 1024 --nodes 9", FLOOR),
    case(&[("queries, one", "p50_us")], "queries --k 1", OURS),
    case(&[("queries, 1,024", "per_s")], "queries --k 1024", OURS),
    case(&[("on disk, one client", "p50_us")], "load --k 1", FLOOR).durable().quick(),
    case(&[("on disk, 64", "per_s")], "load --k 64", FLOOR).durable().quick(),
    case(&[("on disk, 1,024", "per_s")], "load --k 1024", FLOOR).durable().quick(),
    case(&[("leader dies: next commit", "ms")], "failover", ALL_BUT_FLOOR),
    case(
        &[
            ("idle, of a core", "cpu_pct"),
            ("    packets a second", "lo_packets_per_s"),
            ("    memory", "rss_kb"),
        ],
        "idle",
        ALL,
    ),
    case(&[("an entry of 64 B, a node", "bytes_per_entry_node")], "mem", ALL_BUT_FLOOR),
    case(&[("behind by 100,000: caught up", "ms")], "catchup --entries 100000", OURS),
    case(&[("a million entries of 32 B read", "ms")], "recovery", OURS).durable(),
];

pub struct Wanted {
    quick: bool,
    plots: bool,
    rounds: usize,
    pub seconds: f64,
    peers: bool,
    pub durable: PathBuf,
}

/// Who measures which system.
pub struct Programs {
    own: PathBuf,
    peers: Option<PathBuf>,
}

impl Programs {
    pub fn of(&self, system: &str) -> Option<&Path> {
        match system {
            "floor" | NAME => Some(&self.own),
            _ => self.peers.as_deref(),
        }
    }
}

fn wanted() -> Result<Wanted, lexopt::Error> {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let mut wanted = Wanted {
        quick: false,
        plots: false,
        rounds: 5,
        seconds: 2.0,
        peers: true,
        durable: target,
    };
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Long("bench") => {}
            Long("quick") => {
                wanted = Wanted { quick: true, rounds: 1, seconds: 0.4, ..wanted };
            }
            Long("plots") => wanted.plots = true,
            Long("rounds") => wanted.rounds = args.value()?.parse()?,
            Long("secs") => wanted.seconds = args.value()?.parse()?,
            Long("no-peers") => wanted.peers = false,
            Long("durable") => wanted.durable = args.value()?.into(),
            other => return Err(other.unexpected()),
        }
    }
    Ok(wanted)
}

/// Builds the peers, if they can be had.
fn peers() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    eprintln!("builds the peers, in benches/peers");
    let built = Command::new(cargo)
        .args(["build", "--release", "--locked", "--manifest-path"])
        .arg(folder.join("Cargo.toml"))
        .env_remove("CARGO_TARGET_DIR")
        .status();
    match built {
        Ok(status) if status.success() => Some(folder.join("target/release/peers")),
        _ => {
            eprintln!("the peers could not be built: the table is without them");
            None
        }
    }
}

/// Median, least and most.
type Figures = (f64, f64, f64);

fn figures(mut seen: Vec<f64>) -> Option<Figures> {
    seen.sort_by(f64::total_cmp);
    let middle = seen.len() / 2;
    let median = match seen.len() % 2 {
        0 => (seen.get(middle)? + seen.get(middle.checked_sub(1)?)?) / 2.0,
        _ => *seen.get(middle)?,
    };
    Some((median, *seen.first()?, *seen.last()?))
}

/// What was seen, by field of a case and by system.
type Seen = BTreeMap<(usize, &'static str, &'static str), Vec<f64>>;

/// Measures, and prints the table.
pub fn print() -> Result<(), Box<dyn Error>> {
    let wanted = wanted()?;
    let peers = if wanted.peers { peers() } else { None };
    let programs = Programs { own: std::env::current_exe()?, peers };
    if wanted.plots {
        return plots::draw(&wanted, &programs);
    }
    let chosen: Vec<&Case> = CASES.iter().filter(|case| case.quick || !wanted.quick).collect();
    let mut seen = Seen::new();
    for round in 1..=wanted.rounds {
        for (place, case) in chosen.iter().enumerate() {
            eprint!("\rround {round} of {}: {:30}", wanted.rounds, case.rows[0].0);
            for &system in case.systems {
                let Some(program) = programs.of(system) else { continue };
                let lines = match run(program, case, system, &wanted) {
                    Ok(lines) => lines,
                    Err(error) => {
                        eprintln!("\n{}, {system}: {error}", case.rows[0].0);
                        continue;
                    }
                };
                for &(_, field) in case.rows {
                    let found = lines.iter().filter_map(|line| line[field].as_f64());
                    seen.entry((place, field, system)).or_default().extend(found);
                }
            }
        }
    }
    eprintln!();
    let of = |place, field, system| figures(seen.get(&(place, field, system))?.clone());
    for (place, case) in chosen.iter().enumerate() {
        for &(name, field) in case.rows {
            print_row(name, field, case.systems, |system| of(place, field, system));
        }
    }
    print!("{UNALIKE}");
    Ok(())
}

/// What is not alike.
const UNALIKE: &str = "
Medians, with the least and the most of the rounds for kontiki; behind each other system
how many times its figure kontiki's is. Three nodes and 64 bytes where nothing else is
said, the client in the leader's process, in memory, answered when a majority has the
value and the leader has applied it.
Not alike: /memory and /channels call functions where the others cross sockets. openraft
is async, on tokio. Who waits for kontiki or the floor looks for 0.4 ms before it parks, if
its last answer was there by then; who waits for a peer does so too, or parks at once: what
was quicker for it, in that case, in four short trials before. All are built with link-time
optimisation. The floor has no terms, sessions or retransmission.
kontiki gives each command its place in a session, so that none is committed twice; the
peers leave that to their users. Timers are each system's defaults; raft-rs has none, and
runs with a tick of 100 ms as in its example.
";

fn run(
    program: &Path,
    case: &Case,
    system: &str,
    wanted: &Wanted,
) -> Result<Vec<Value>, Box<dyn Error>> {
    let mut command = match case.pinned {
        true => {
            let mut taskset = Command::new("taskset");
            taskset.args(["-c", "0"]).arg(program);
            taskset
        }
        false => Command::new(program),
    };
    // Deaths take as long as they take.
    let seconds = if case.args == "failover" { 3.0 * wanted.seconds } else { wanted.seconds };
    command.args(["--peer", system, "--secs", &seconds.to_string(), "--test"]);
    command.args(case.args.split(' '));
    if case.durable {
        command.arg("--durable").arg(&wanted.durable);
    }
    lines_of(&mut command)
}

/// What a measurement prints.
pub fn lines_of(command: &mut Command) -> Result<Vec<Value>, Box<dyn Error>> {
    let output = command.stderr(Stdio::null()).output()?;
    let text = String::from_utf8(output.stdout)?;
    let lines: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    match lines.is_empty() || !output.status.success() {
        true => Err(format!("no result: {}", output.status).into()),
        false => Ok(lines),
    }
}

fn print_row(
    name: &str,
    field: &str,
    systems: &[&'static str],
    figures: impl Fn(&'static str) -> Option<Figures>,
) {
    let Some((ours, least, most)) = figures(NAME) else { return };
    let unit = match field {
        "p50_us" | "p99_us" | "cpu_us_per_commit" => "us",
        "per_s" => "/s",
        "cpu_pct" => "%",
        "rss_kb" => "KB",
        "bytes_per_entry_node" => "B",
        "ms" => "ms",
        _ => "",
    };
    println!(
        "{:30} {:>10} {unit:2}  {:20}",
        name,
        short(ours),
        format!("({} to {})", short(least), short(most))
    );
    for &system in systems.iter().filter(|system| **system != NAME) {
        if let Some((theirs, ..)) = figures(system) {
            println!("    {system:26} {:>10} {unit:2}  x {:.2}", short(theirs), ours / theirs);
        }
    }
}

/// With three figures or more, and commas.
fn short(number: f64) -> String {
    if number < 100.0 {
        return format!("{number:.2}");
    }
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
