//! Each property is seen to fail, on a bug that was put in for it: who takes a check
//! away, or breaks it, fails here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::super::*;
use super::bugs::{
    Broken, Bug, InTheCore, KnowsNoRepeats, LiesAboutSyncs, OnArrival, OnOutput, WritesTooEarly,
    on_leaving,
};
use crate::core::Core;
use crate::core::message::{AppendOutcome, Message, PreVote, RequestVote};
use crate::core::properties::{self, Property, logs, reads, said};
use crate::core::types::{Index, Term, Time};
use crate::engine::Output;
use crate::error::RequestError;
use crate::request::Reply;

/// A bug, the worlds in which it shows, and the property that must find it.
struct Case {
    property: &'static Property,
    plan: fn(Simulation) -> Simulation,
    bug: fn() -> Box<dyn Bug>,
}

/// So many seeds are tried at most; most bugs show in the first ones.
const SEEDS: u64 = 60;

impl Case {
    /// Runs seeds until one shows the bug. The error says what was found instead.
    fn find(&self) -> Result<(), String> {
        let mut others = BTreeMap::new();
        for seed in 0..SEEDS {
            let storm = Duration::from_secs(3);
            let simulation = Simulation::new(seed).voters(3).storm(storm).clients(4);
            let found = (self.plan)(simulation).run_with(|world| {
                world.history.thorough_every = 4;
                world.bug = Some((self.bug)());
            });
            let property = match found {
                Err(violation) if violation.property == self.property.name => {
                    assert_eq!(violation.source, self.property.source);
                    return Ok(());
                }
                Err(violation) => violation.property,
                Ok(_) => "nothing",
            };
            *others.entry(property).or_insert(0) += 1;
        }
        Err(format!("{}: {SEEDS} seeds showed {others:?}", self.property.name))
    }
}

#[test]
fn each_property_finds_its_bug() {
    let cases: Vec<Case> =
        [of_the_core(), of_messages(), of_answers(), of_machines()].into_iter().flatten().collect();
    let have: BTreeSet<&str> = cases.iter().map(|case| case.property.name).collect();
    let own = [
        &clients::ACKNOWLEDGED_KEPT,
        &clients::ENDS_ONCE,
        &clients::LINEARIZABLE,
        &clients::REAL_TIME_ORDER,
        &storm::HEALS,
        &verdicts::ACCURATE,
        &verdicts::COMPLETE,
        &witness::APPLIED_ONCE,
        &witness::SAME_VALUES,
        &witness::QUERIES_SEE_THE_LOG,
        &drive::RECOVERED,
        &NO_PANIC,
    ];
    // The index of a read is not seen from outside; the protocol's own tests have it.
    let all = properties::ALL.iter().filter(|property| **property != &reads::READS_NOT_STALE);
    let want: BTreeSet<&str> = all.copied().chain(own).map(|property| property.name).collect();
    assert_eq!(have, want, "a property without a bug, or a bug without its property");
    let next = AtomicUsize::new(0);
    let missed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let found = case.find();
                    missed.lock().expect("no other panics").extend(found.err());
                }
            });
        }
    });
    let missed = missed.into_inner().expect("nobody panicked");
    assert!(missed.is_empty(), "not found:\n{}", missed.join("\n"));
}

fn case(
    property: &'static Property,
    plan: fn(Simulation) -> Simulation,
    bug: fn() -> Box<dyn Bug>,
) -> Case {
    Case { property, plan, bug }
}

fn as_it_is(simulation: Simulation) -> Simulation {
    simulation
}

fn with_disks(simulation: Simulation) -> Simulation {
    simulation.disks(true)
}

fn on_slow_disks(simulation: Simulation) -> Simulation {
    let faults = Faults { write: Duration::from_millis(20), hangs: 3, ..Faults::NONE };
    simulation.disks(true).faults(faults)
}

fn with_crashes(simulation: Simulation) -> Simulation {
    let between = Duration::from_millis(200);
    simulation.disks(true).faults(Faults { crashes: 3, between, ..Faults::NONE })
}

fn with_snapshots(simulation: Simulation) -> Simulation {
    simulation.on(Load::Cells).snapshot_every(4)
}

fn with_elections(simulation: Simulation) -> Simulation {
    let faults = Faults { isolations: 4, pauses: 3, mends: 2, ..Faults::NONE };
    let between = Duration::from_millis(200);
    simulation.disks(true).faults(Faults { between, lost: 100, ..faults })
}

/// So slow a network that elections meet.
fn with_elections_that_meet(simulation: Simulation) -> Simulation {
    let delay = (Duration::from_millis(30), Duration::from_millis(90));
    let faults = Faults { delay, isolations: 4, pauses: 3, mends: 2, ..Faults::NONE };
    simulation.disks(true).faults(Faults { between: Duration::from_millis(400), ..faults })
}

fn of_cells(simulation: Simulation) -> Simulation {
    simulation.on(Load::Cells)
}

fn of_cells_with_elections(simulation: Simulation) -> Simulation {
    with_elections(of_cells(simulation))
}

fn in_the_core(bug: fn(&mut Core, Index)) -> Box<dyn Bug> {
    Box::new(InTheCore(bug))
}

fn on_output(bug: fn(&mut Output<u64>)) -> Box<dyn Bug> {
    Box::new(OnOutput(bug))
}

fn of_the_core() -> Vec<Case> {
    vec![
        case(&properties::ELECTION_SAFETY, with_elections_that_meet, || {
            in_the_core(|core, _| core.bug_counts_votes_that_were_not_given())
        }),
        case(&logs::LEADER_APPEND_ONLY, on_slow_disks, || {
            in_the_core(|core, _| core.bug_takes_an_entry_back())
        }),
        case(&logs::LOG_MATCHING, on_slow_disks, || {
            in_the_core(|core, _| core.bug_writes_something_else())
        }),
        case(&logs::STATE_MACHINE_SAFETY, with_elections, || {
            in_the_core(|core, committed| core.bug_commits_what_it_has(committed))
        }),
        case(&logs::COMMIT_RULE, with_elections, || {
            in_the_core(|core, _| core.bug_counts_copies_of_earlier_terms())
        }),
        case(&properties::verdicts::ONE_VIEW, as_it_is, || {
            in_the_core(|core, _| core.bug_forgets_who_is_up())
        }),
        case(&verdicts::COMPLETE, as_it_is, || {
            in_the_core(|core, _| core.bug_confirms_no_silence())
        }),
        case(&verdicts::ACCURATE, with_crashes, || {
            in_the_core(|core, _| core.bug_finds_nobody_steady())
        }),
        case(&properties::NEVER_BACK, with_elections, || {
            in_the_core(|core, _| core.bug_goes_back_a_term())
        }),
        case(&properties::APPLY_DURABLE, on_slow_disks, || {
            in_the_core(|core, _| core.bug_applies_before_it_is_durable())
        }),
        case(&properties::PROGRESS, as_it_is, || {
            in_the_core(|core, _| core.bug_follows_a_stranger(Time(1)))
        }),
        case(&properties::ONE_CHANGE, as_it_is, || {
            in_the_core(|core, _| core.bug_swaps_a_voter(Time(1)))
        }),
        case(&properties::NO_FAILURE, as_it_is, || {
            in_the_core(|core, _| core.bug_believes_that_safety_is_broken())
        }),
        case(&properties::BOUNDED, on_slow_disks, || {
            in_the_core(|core, _| core.bug_keeps_what_waits_without_bound())
        }),
        // A leader that was deposed goes on to serve reads.
        case(&clients::REAL_TIME_ORDER, of_cells_with_elections, || {
            in_the_core(|core, _| core.bug_confirms_reads_alone())
        }),
        case(&said::DURABLE_FIRST, on_slow_disks, || Box::new(WritesTooEarly)),
        case(&drive::RECOVERED, with_crashes, || Box::new(LiesAboutSyncs)),
        // A snapshot knows one member less than it should.
        case(&properties::SNAPSHOT_COMMITTED, with_snapshots, || {
            on_output(|output| {
                let wanted = output.job.as_mut().and_then(|job| job.snapshot.as_mut());
                wanted.into_iter().for_each(|wanted| drop(wanted.members.1.members.pop()));
            })
        }),
    ]
}

/// A voter that is asked does not look at the candidate's log.
fn looks_as_up_to_date(message: Message) -> Option<Message> {
    let (last_log_term, last_log_index) = (Term(1 << 40), Index(1 << 40));
    Some(match message {
        Message::RequestVote(vote) => {
            Message::RequestVote(RequestVote { last_log_term, last_log_index, ..vote })
        }
        Message::PreVote(vote) => {
            Message::PreVote(PreVote { last_log_term, last_log_index, ..vote })
        }
        other => other,
    })
}

/// A voter grants whatever it is asked for.
fn grants(message: Message) -> Option<Message> {
    Some(match message {
        Message::RequestVoteReply(mut reply) => {
            reply.granted = true;
            Message::RequestVoteReply(reply)
        }
        other => other,
    })
}

/// A follower acknowledges an entry more than it has.
fn acknowledges_one_more(message: Message) -> Option<Message> {
    Some(match message {
        Message::AppendEntriesReply(mut reply) => {
            if let AppendOutcome::Matched { index } = &mut reply.outcome {
                *index = index.next();
            }
            Message::AppendEntriesReply(reply)
        }
        other => other,
    })
}

/// Nobody hears an acknowledgement.
fn loses_acknowledgements(message: Message) -> Option<Message> {
    Some(message).filter(|message| !matches!(message, Message::AppendEntriesReply(_)))
}

fn of_messages() -> Vec<Case> {
    vec![
        case(&logs::LEADER_COMPLETENESS, with_elections, || {
            Box::new(OnArrival(looks_as_up_to_date))
        }),
        case(&said::VOTE_ONCE, with_elections, || on_output(|output| on_leaving(output, grants))),
        case(&said::DURABLE_FIRST, with_disks, || {
            on_output(|output| on_leaving(output, acknowledges_one_more))
        }),
        case(&storm::HEALS, as_it_is, || Box::new(OnArrival(loses_acknowledgements))),
    ]
}

/// Another reply than the one that was earned.
fn replies(output: &mut Output<u64>, change: fn(&mut Reply)) {
    output.answers.iter_mut().for_each(|(_, answer)| answer.iter_mut().for_each(change));
}

fn of_answers() -> Vec<Case> {
    vec![
        case(&clients::ACKNOWLEDGED_KEPT, as_it_is, || {
            on_output(|output| replies(output, |reply| reply.index += 1))
        }),
        case(&clients::ENDS_ONCE, as_it_is, || {
            on_output(|output| {
                let first = output.answers.first().map(|(ticket, _)| *ticket);
                output.answers.extend(first.map(|ticket| (ticket, Err(RequestError::Unknown))));
            })
        }),
        // A cell that was written is said to hold nothing.
        case(&clients::LINEARIZABLE, of_cells, || {
            on_output(|output| replies(output, |reply| reply.value = Value::Null))
        }),
    ]
}

fn of_machines() -> Vec<Case> {
    fn no_bug() -> Box<dyn Bug> {
        on_output(|_| {})
    }
    fn number(chance: &mut Chance) -> Value {
        json!(chance.between(1, 9))
    }
    fn says_where_it_is(simulation: Simulation) -> Simulation {
        let make = |node: &str| Broken::of(node, None);
        simulation.state_machine(make, number)
    }
    fn tells_what_it_told(simulation: Simulation) -> Simulation {
        simulation.state_machine(|_| Broken::default(), number).queries(|_| json!("sum"))
    }
    fn panics(simulation: Simulation) -> Simulation {
        let make = |_: &str| Broken::of("", Some(20));
        simulation.state_machine(make, number)
    }
    vec![
        case(&witness::SAME_VALUES, says_where_it_is, no_bug),
        case(&witness::QUERIES_SEE_THE_LOG, tells_what_it_told, no_bug),
        case(&NO_PANIC, panics, no_bug),
        case(&witness::APPLIED_ONCE, of_cells_with_elections, || Box::<KnowsNoRepeats>::default()),
    ]
}
