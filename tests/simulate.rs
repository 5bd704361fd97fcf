//! The simulator's two programs, `examples/simulate.rs` and `examples/simulate_my_machine.rs`,
//! as a person runs them; and how the first one tells a violation, on a machine that has a bug.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::{env, fs};

use kontiki::sim::Simulation;
use kontiki::{BoxError, Entry, StateMachine};
use serde_json::{Value, json};

use crate::simulate::{Recipe, hush_runs, run_seeds};

#[path = "../examples/simulate.rs"]
#[allow(dead_code)] // its `main`, and what only that one uses
mod simulate;

#[test]
fn seeds_are_summed_up_in_one_line() {
    let ran = run(&["--seeds", "3", "--first", "20", "--nodes", "3"]);
    let told = text(&ran.stdout);
    assert_eq!(ran.status.code(), Some(0), "{told}");
    assert!(ran.stderr.is_empty(), "no bar where nobody looks: {}", text(&ran.stderr));
    let numbers = told.split(|c: char| !c.is_ascii_digit()).filter(|number| !number.is_empty());
    let numbers: Vec<u64> = numbers.map(|number| number.parse().unwrap()).collect();
    let [3, steps, faults, 0] = numbers[..] else { panic!("{told}") };
    assert_eq!(told, format!("3 seeds, {steps} steps, {faults} faults, 0 violations\n"));
    assert!(steps > 100 && faults > 0, "{told}");
}

#[test]
fn a_seed_has_one_story() {
    let told = |arguments: &[&str]| {
        let ran = run(arguments);
        assert_eq!(ran.status.code(), Some(0), "{}", text(&ran.stdout));
        text(&ran.stdout)
    };
    // Two processes: addresses and the seeds of their hash maps differ.
    let story = told(&["--seed", "3", "--trace"]);
    assert_eq!(story, told(&["--trace", "--seed=3"]));
    let is_event = |line: &&str| {
        let time = line.split_whitespace().next().unwrap_or_default();
        line.starts_with(' ') && time.contains('.') && time.parse::<f64>().is_ok()
    };
    let (events, summary): (Vec<&str>, Vec<&str>) = story.lines().partition(is_event);
    assert!(events.len() > 100, "{story}");
    // Nothing happens otherwise because nobody listens: the digest stands in the summary.
    let alone = told(&["--seed", "3"]);
    assert_eq!(summary, alone.lines().collect::<Vec<_>>());
    assert!(alone.starts_with("seed 3: ") && alone.contains("\n  digest "), "{alone}");
    assert!(alone.ends_with(" 0 violations\n") && alone.contains("\n1 seed, "), "{alone}");
    assert_ne!(story, told(&["--trace", "--seed", "3", "--nodes", "5"]));
}

#[test]
fn bad_input_ends_with_2_and_says_why() {
    for (arguments, why) in [
        (&["--wrong"][..], "invalid option '--wrong'"),
        (&["17"], "unexpected argument \"17\""),
        (&["--seed", "seven"], "--seed takes a number from 0 to"),
        (&["--seed", "-1"], "not \"-1\""),
        (&["--first", "1.5", "--seeds", "2"], "--first takes a number from 0 to"),
        (&["--first", "18446744073709551615", "--seeds", "2"], "not so many seeds"),
        (&["--seeds", "0"], "--seeds takes a number from 1 to"),
        (&["--seeds", "18446744073709551616"], "--seeds takes a number from 1 to"),
        (&["--nodes", "0"], "--nodes takes a number from 1 to 9, not \"0\""),
        (&["--nodes", "10"], "--nodes takes a number from 1 to 9, not \"10\""),
        (&["--seed"], "missing argument for option '--seed'"),
        (&["--seeds", "3", "--nodes"], "missing argument for option '--nodes'"),
        (&["--trace"], "--trace tells one seed"),
        (&["--trace", "--seeds", "3"], "--trace tells one seed"),
        (&["--seed", "3", "--seeds", "3"], "--seed runs one seed"),
        (&["--seed", "3", "--first", "3"], "--seed runs one seed"),
    ] {
        let ran = run(arguments);
        let told = text(&ran.stderr);
        assert_eq!(ran.status.code(), Some(2), "{arguments:?}: {told}");
        assert!(told.contains(why) && told.contains("\nUsage: "), "{arguments:?}: {told}");
        assert!(ran.stdout.is_empty(), "{arguments:?}: {}", text(&ran.stdout));
    }
    let help = run(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(text(&help.stdout).starts_with("Usage: "), "{}", text(&help.stdout));
}

#[test]
fn whoever_stops_listening_stops_nothing() {
    let mut child = Command::new(example("simulate"))
        .args(["--seed", "3", "--trace"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0), "{}", text(&ended.stderr));
    assert!(ended.stderr.is_empty(), "{}", text(&ended.stderr));
}

#[test]
fn the_bug_in_a_users_machine_is_found() {
    let ran = Command::new(example("simulate_my_machine")).output().unwrap();
    let told = text(&ran.stdout);
    assert_eq!(ran.status.code(), Some(0), "{told}{}", text(&ran.stderr));
    assert!(told.contains("\"Queries See The Log\" does not hold"), "{told}");
    assert!(told.ends_with("every property holds.\n"), "{told}");
}

/// Where the README shows the example's code, it is the example's code.
#[test]
fn the_readme_shows_what_is_run() {
    let read = |path| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let (readme, example) = (read("README.md"), read("examples/simulate_my_machine.rs"));
    let shown = readme.split("```rust,ignore\n").nth(1).expect("a block of the example");
    let shown = shown.split("```").next().unwrap_or_default();
    assert!(shown.contains("Simulation::new") && example.contains(shown), "{shown}");
}

/// It answers with its node's name, which differs from node to node, or panics instead.
struct Proud {
    node: String,
    panics: bool,
}

impl StateMachine for Proud {
    fn apply(&mut self, entry: &Entry) -> Value {
        assert!(!self.panics, "entry {} is too much", entry.index);
        json!(self.node)
    }

    fn query(&self, _: &Value) -> Value {
        Value::Null
    }

    fn snapshot(&self) -> Result<Vec<u8>, BoxError> {
        Ok(Vec::new())
    }

    fn restore(&mut self, _: &[u8]) -> Result<(), BoxError> {
        Ok(())
    }
}

fn proud(seed: u64, panics: bool) -> Simulation {
    let machine = move |node: &str| Proud { node: node.to_string(), panics };
    Simulation::new(seed).state_machine(machine, |_| json!("greet"))
}

/// What `simulate` prints of four such seeds, and its last line.
fn told_of(make: fn(u64) -> Simulation) -> (String, String) {
    hush_runs();
    let mut out = Vec::new();
    let tally = run_seeds(&Recipe { make, members: false, nodes: Some(3) }, 5..9, &mut out);
    (text(&out), tally.summary())
}

#[test]
fn a_violation_is_told_with_its_seed_property_command_and_story() {
    let (told, summary) = told_of(|seed| proud(seed, false));
    assert!(summary.starts_with("4 seeds, ") && summary.ends_with(", 4 violations"), "{summary}");
    for seed in 5..9 {
        assert!(told.contains(&format!("seed {seed} violates \"Same Values\"\n  source   ")));
        let replay = format!("--example simulate -- --seed {seed} --trace --nodes 3\n");
        assert!(told.contains(&replay), "{told}");
    }
    assert!(told.contains("gives \"node"), "what was seen: {told}");
    // One of them, the first, is told to its end: there stands the entry that was applied.
    let stories: Vec<&str> = told.split("  story    the last ").skip(1).collect();
    let [story] = stories[..] else { panic!("{} stories: {told}", stories.len()) };
    let events = || story.lines().skip(1).take_while(|line| !line.starts_with("seed "));
    assert_eq!(story.split(' ').next(), Some(events().count().to_string().as_str()), "{story}");
    assert!((5..=40).contains(&events().count()), "{story}");
    assert!(events().all(|line| line.contains("  node") || line.contains("  world")), "{story}");
    assert!(events().last().is_some_and(|line| line.contains("does not hold")), "{story}");
}

#[test]
fn a_panic_in_a_run_is_a_violation_that_says_where() {
    let (told, summary) = told_of(|seed| proud(seed, true));
    assert!(summary.ends_with(", 4 violations"), "{summary}");
    assert_eq!(told.matches("violates \"No Panic\"").count(), 4, "{told}");
    assert_eq!(told.matches(" is too much (tests/simulate.rs:").count(), 4, "{told}");
}

fn run(arguments: &[&str]) -> Output {
    Command::new(example("simulate")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The example's program. Which examples there are beside this program, and how old they
/// are, depends on how it was built; so Cargo is asked, once.
fn example(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let this = env::current_exe().unwrap();
        let profile_dir = this.ancestors().nth(2).expect("target/<profile>/deps");
        let profile = match profile_dir.file_name().and_then(|name| name.to_str()) {
            Some("debug") | None => "dev",
            Some(name) => name,
        };
        let building = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--features", "sim", "--profile", profile])
            .args(["--example", "simulate", "--example", "simulate_my_machine", "--target-dir"])
            .arg(profile_dir.parent().expect("target"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status();
        assert!(building.unwrap().success(), "the examples are built");
        profile_dir.join("examples")
    });
    folder.join(name)
}
