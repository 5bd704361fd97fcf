//! Reads the scenarios under `tests/scripts`: one event a line, and what comes of
//! it. With `UPDATE_GOLDENFILES=1` what came is written into them; read it line by
//! line then.
//!
//! ```text
//!   nodes 3 [learners=1] [spares=1] [founding=majority]
//!                                               a world; nodes are a, b, c, ...; spares
//!                                               stand in no file but their own
//!   logs term=3 a="1 1 2" b=1                   a world of founded nodes with these logs
//!   start [a b]                                 all, or these
//!   run 100                                     so many milliseconds pass
//!   until settled | leader | founded            time passes until then
//!   until sent InstallSnapshot                  ... until one is under way
//!   timeout a                                   the election timer of a runs out
//!   silence                                     nobody has heard a leader of late
//!   propose a x | read a                        a client asks a
//!   add a e | learn a e                         a client at a wants e to be a voter, or to
//!                                               learn; `at=f`: where f lives
//!   remove a c | transfer a b                   c to be no member any more; b to lead
//!   again a                                     the last wish of a is sent once more
//!   deliver [from=a] [to=b] [kind=RequestVote]  all of those that are under way, and
//!                                               those of that kind that come of it
//!   drop [...] | repeat [...]                   loses them; delivers copies of them
//!   hold [...] | release                        keeps them back; puts them back
//!   ... count=1                                 only the first so many
//!   cut from=a to=b | isolate a b | heal        links
//!   slow a | write a | fast a                   writes wait; one is done; all are done
//!   compact a                                   a takes a snapshot and cuts its log
//!   spoil a                                     the next snapshot that comes to a is
//!                                               spoiled before it is opened
//!   crash a | restart a | forget a              forget: starts with an empty disk
//!   back a                                      starts with the disk that it lost last
//!   state [a] | members a | waits a | reads a   looks
//!   told a                                      what people were told of members there
//! ```
//!
//! A message is printed when it is delivered, hellos and heartbeats are not; the
//! line of a node is printed when it has changed, and so is the answer to a wish when it
//! has come.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use goldenscript::{Command, Context, Runner};

use super::super::effect::Note;
use super::super::membership::Standing;
use super::super::message::{AppendOutcome, ChangeOutcome, Message, Wish};
use super::super::snapshot::SnapshotId;
use super::plan::neighbor;
use super::world::{Flight, MS, Plan, World};

struct Script {
    world: Option<World>,
    held: Vec<Flight>,
    shown: Vec<String>,
    /// How many answers of each node were shown.
    heard: BTreeMap<usize, usize>,
}

type Output = Result<String, Box<dyn Error>>;

/// Which messages a command means.
struct Filter {
    from: Option<usize>,
    to: Option<usize>,
    kind: Option<String>,
    count: usize,
}

impl Filter {
    fn of(command: &Command) -> Result<Filter, Box<dyn Error>> {
        let mut args = command.consume_args();
        let (from, to) = (args.take_key("from"), args.take_key("to"));
        let kind = args.take_key("kind").map(str::to_string);
        let count = args.take_key("count").map_or(Ok(usize::MAX), str::parse)?;
        args.reject_next()?;
        Ok(Filter { from: from.map(place), to: to.map(place), kind, count })
    }

    fn picks(&self, flight: &Flight) -> bool {
        self.from.is_none_or(|from| flight.from == from)
            && self.to.is_none_or(|to| flight.to == to)
            && self.kind.as_ref().is_none_or(|kind| *kind == self::kind(&flight.envelope.message))
    }
}

fn place(name: &str) -> usize {
    name.as_bytes()[0].wrapping_sub(b'a') as usize
}

fn letter(place: usize) -> char {
    char::from(b'a' + place as u8)
}

fn kind(message: &Message) -> String {
    let text = format!("{message:?}");
    text.split('(').next().unwrap_or_default().to_string()
}

impl Script {
    fn world(&mut self) -> &mut World {
        self.world.as_mut().expect("a script starts with nodes or logs")
    }

    fn begin(&mut self, command: &Command) -> Output {
        let mut args = command.consume_args();
        let voters: usize = args.next_pos().ok_or("how many nodes?")?.parse()?;
        let learners = args.take_key("learners").map_or(Ok(0), str::parse)?;
        let spares = args.take_key("spares").map_or(Ok(0), str::parse)?;
        let by_majority = args.take_key("founding") == Some("majority");
        args.reject_next()?;
        let plan = Plan { by_majority, ..Plan::voters(voters).learners(learners).spares(spares) };
        self.world = Some(World::new(plan));
        Ok(String::new())
    }

    fn begin_with_logs(&mut self, command: &Command) -> Output {
        let mut args = command.consume_args();
        let numbers = |text: &str| -> Result<Vec<u64>, std::num::ParseIntError> {
            text.split_whitespace().map(str::parse).collect()
        };
        let mut terms: Vec<u64> = numbers(args.take_key("term").ok_or("which term?")?)?;
        let bytes = args.take_key("bytes").map_or(Ok(1_000), str::parse)?;
        let mut logs: Vec<Vec<u64>> = Vec::new();
        while let Some((name, terms)) = args.next_key() {
            assert_eq!(place(name), logs.len(), "nodes in order");
            logs.push(numbers(terms)?);
        }
        let logs: Vec<&[u64]> = logs.iter().map(Vec::as_slice).collect();
        terms.resize(logs.len(), terms[0]);
        let plan = Plan { append_bytes: bytes, ..Plan::voters(logs.len()) };
        self.world = Some(World::with_logs_and_terms(plan, &logs, &terms));
        Ok(String::new())
    }

    fn deliver(&mut self, filter: &Filter) -> String {
        let mut lines = String::new();
        let world = self.world();
        for _ in 0..filter.count {
            let picked = world.flights.iter().find(|(_, flight)| filter.picks(flight));
            let Some(key) = picked.map(|(key, _)| *key) else { break };
            let flight = world.flights.remove(&key).expect("a flight");
            lines += &arrive(world, flight);
        }
        lines
    }

    fn repeat(&mut self, filter: &Filter) -> String {
        let world = self.world();
        let picked = world.flights.values().filter(|flight| filter.picks(flight));
        let copies: Vec<Flight> = picked.take(filter.count).cloned().collect();
        copies.into_iter().map(|flight| arrive(world, flight)).collect()
    }

    /// A client's wish: who is asked, and about whom.
    fn wish(&mut self, command: &Command) -> Output {
        let mut args = command.consume_args();
        let asked = place(args.next_pos().ok_or("who is asked?")?);
        let of = args.next_pos().ok_or("about whom?")?.to_string();
        let at = args.take_key("at").map(place);
        args.reject_next()?;
        let world = self.world();
        let mut wish = match command.name.as_str() {
            "remove" => Wish::Remove { name: of },
            "transfer" => Wish::Transfer { to: of },
            name => world.adding(place(&of), name == "add"),
        };
        if let (Wish::Add { address, .. }, Some(at)) = (&mut wish, at) {
            *address = neighbor(at, 0).address;
        }
        let taken = world.wish(asked, wish);
        Ok(if taken { "" } else { "nobody to ask" }.to_string())
    }

    fn command(&mut self, command: &Command) -> Output {
        match command.name.as_str() {
            "add" | "learn" | "remove" | "transfer" => return self.wish(command),
            "nodes" => return self.begin(command),
            "logs" => return self.begin_with_logs(command),
            "deliver" => return Ok(self.deliver(&Filter::of(command)?)),
            "repeat" => return Ok(self.repeat(&Filter::of(command)?)),
            "drop" | "hold" => {
                let filter = Filter::of(command)?;
                let taken = self.world().take_some(filter.count, |flight| filter.picks(flight));
                let lines = taken.iter().filter_map(|flight| show(flight, "not "));
                let lines = lines.collect();
                if command.name == "hold" {
                    self.held.extend(taken);
                }
                return Ok(lines);
            }
            "cut" => {
                let filter = Filter::of(command)?;
                let link = filter.from.zip(filter.to).ok_or("from whom, to whom?")?;
                self.world().cut.insert(link);
                return Ok(String::new());
            }
            _ => {}
        }
        let mut args = command.consume_args();
        let words: Vec<&str> = std::iter::from_fn(|| args.next_pos()).collect();
        args.reject_next()?;
        self.simple(&command.name, &words)
    }

    fn simple(&mut self, name: &str, words: &[&str]) -> Output {
        let world = self.world.as_mut().expect("a script starts with nodes or logs");
        let nodes: Vec<usize> = match words {
            [] => (0..world.nodes.len()).collect(),
            words => words.iter().map(|word| place(word)).collect(),
        };
        let first = nodes[0];
        match name {
            "start" | "restart" => nodes.iter().for_each(|&place| world.start(place)),
            "run" => world.run_for(words[0].parse::<u64>()? * MS),
            "until" if words == ["settled"] => {
                world.run_until(10_000 * MS, "all to settle", World::is_settled);
            }
            "until" if words == ["leader"] => {
                world.run_until(10_000 * MS, "a leader", |world| !world.leaders().is_empty());
            }
            "until" if words == ["founded"] => {
                let written = |world: &World| world.disks.values().any(|d| !d.entries.is_empty());
                world.run_until(1_000 * MS, "a founding record", written);
            }
            "until" if words[0] == "sent" => {
                let of_kind = |flight: &Flight| kind(&flight.envelope.message) == words[1];
                let sent = |world: &World| world.flights.values().any(of_kind);
                world.run_until(10_000 * MS, words[1], sent);
            }
            "timeout" => world.timeout(first),
            "silence" => world.silence(),
            "again" => {
                let taken = world.wish_again(first);
                return Ok(if taken { "" } else { "nobody to ask" }.to_string());
            }
            "propose" => {
                let taken = world.propose(first, words[1]);
                return Ok(if taken { "" } else { "nobody to give it to" }.to_string());
            }
            "read" => {
                let asked = world.read(first);
                return Ok(asked.map_or("nobody to ask".to_string(), |id| format!("read {id}")));
            }
            "release" => {
                for flight in self.held.drain(..) {
                    let key = (world.now, world.flights.keys().map(|k| k.1).max().unwrap_or(0) + 1);
                    world.flights.insert(key, flight);
                }
                return Ok(String::new());
            }
            "isolate" => world.isolate(&nodes),
            "heal" => world.cut.clear(),
            "compact" => assert!(world.compact(first), "nothing to take a snapshot of"),
            "spoil" => world.nodes[first].spoils += 1,
            "slow" => world.nodes[first].holds_writes = true,
            "write" => assert!(world.complete(first), "no write is under way"),
            "fast" => {
                world.nodes[first].holds_writes = false;
                while world.complete(first) {}
            }
            "crash" => nodes.iter().for_each(|&place| world.crash(place)),
            "forget" => {
                world.crash(first);
                world.forget(first);
                world.start(first);
            }
            "back" => {
                if world.is_up(first) {
                    world.crash(first);
                }
                world.put_back(first);
                world.start(first);
            }
            _ => return self.look(name, &nodes),
        }
        Ok(String::new())
    }

    fn look(&mut self, name: &str, nodes: &[usize]) -> Output {
        let world = self.world();
        let mut lines = String::new();
        for &place in nodes {
            let name_of = letter(place);
            match name {
                "state" => lines += &format!("{}\n", world.describe_node(place)),
                "members" => {
                    let members = world.core(place).members().map_or(&[][..], |m| &m.members);
                    for member in members {
                        let role = match member.standing {
                            Standing::Voter => "voter",
                            Standing::Joining => "joins",
                            Standing::Learner => "learner",
                        };
                        let node = world.nodes.iter().find(|node| node.name == member.name);
                        let now = node.map(|node| node.incarnation);
                        let life = match member.incarnation {
                            None => "never heard",
                            incarnation if incarnation == now => "this life",
                            Some(_) => "another life",
                        };
                        lines += &format!("{} {role}, {life}\n", member.name);
                    }
                }
                "waits" => {
                    let waiting = world.core(place).waiting(world.clock(place));
                    let waiting = waiting.map_or("for nothing".to_string(), |w| w.to_string());
                    lines += &format!("{name_of} {waiting}\n");
                }
                "told" => {
                    let of_members = |note: &Note| {
                        use Note::{FileDiffers, MajorityLost, Removed};
                        matches!(note, Removed(_) | MajorityLost(_) | FileDiffers(_))
                    };
                    for (_, _, note) in world.nodes[place].notes.drain(..) {
                        if of_members(&note) {
                            lines += &format!("{name_of} {note}\n");
                        }
                    }
                }
                "reads" => {
                    for ready in &world.nodes[place].reads {
                        lines += &format!("{name_of} read {} at {}\n", ready.id, ready.index);
                    }
                }
                _ => return Err(format!("what is {name}?").into()),
            }
        }
        Ok(lines)
    }

    /// The lines of the nodes that are not as they were.
    fn changes(&mut self) -> String {
        let Some(world) = &self.world else { return String::new() };
        let mut lines = String::new();
        for (place, node) in world.nodes.iter().enumerate() {
            let heard = self.heard.entry(place).or_default();
            for answer in &node.answers[*heard..] {
                lines += &format!("{} hears: {}\n", letter(place), outcome(&answer.outcome));
            }
            *heard = node.answers.len();
        }
        let now: Vec<String> =
            (0..world.nodes.len()).map(|place| world.describe_node(place)).collect();
        for (place, line) in now.iter().enumerate() {
            if self.shown.get(place) != Some(line) {
                lines += &format!("{line}\n");
            }
        }
        self.shown = now;
        lines
    }
}

fn arrive(world: &mut World, flight: Flight) -> String {
    let line = show(&flight, "").unwrap_or_default();
    world.arrive(flight);
    line
}

/// A message for people; hellos and heartbeats are not worth a line.
fn show(flight: &Flight, word: &str) -> Option<String> {
    let (from, to) = (letter(flight.from), letter(flight.to));
    let what = match &flight.envelope.message {
        Message::Hello(_) | Message::Heartbeat(_) | Message::HeartbeatReply(_) => return None,
        Message::Found(m) if m.first => format!("members {}", m.members.members.len()),
        Message::Found(m) => format!("without the record, members {}", m.members.members.len()),
        Message::PreVote(m) => {
            format!("term {} last {}@{}", m.term, m.last_log_index, m.last_log_term)
        }
        Message::RequestVote(m) => {
            format!("term {} last {}@{}", m.term, m.last_log_index, m.last_log_term)
        }
        Message::PreVoteReply(m) => format!("term {} {}", m.term, word_of(m.granted)),
        Message::RequestVoteReply(m) => format!("term {} {}", m.term, word_of(m.granted)),
        Message::AppendEntries(m) => {
            let terms: Vec<String> = m.entries.iter().map(|entry| entry.term.to_string()).collect();
            format!(
                "term {} after {}@{} [{}] commit {}",
                m.term,
                m.prev_log_index,
                m.prev_log_term,
                terms.join(" "),
                m.leader_commit
            )
        }
        Message::AppendEntriesReply(m) => match &m.outcome {
            AppendOutcome::Matched { index } => format!("term {} matched {index}", m.term),
            AppendOutcome::Mismatch { prev_log_index, hint_index, hint_term } => {
                format!("term {} lacks {prev_log_index}, perhaps {hint_index}@{hint_term}", m.term)
            }
            AppendOutcome::Stale => format!("term {} stale", m.term),
        },
        Message::Commit(m) => format!("term {} commit {}", m.term, m.leader_commit),
        Message::ReadIndex(m) => format!("read {}", m.id),
        Message::ReadIndexReply(m) => format!("read {} at {}", m.id, m.index),
        Message::Propose(m) => format!("operations {}", m.operations.len()),
        Message::InstallSnapshot(m) => {
            let end = m.offset + m.data.len() as u64;
            let SnapshotId { index, term, length, .. } = m.id;
            format!(
                "term {} snapshot {index}@{term} bytes {} to {end} of {length}",
                m.term, m.offset
            )
        }
        Message::InstallSnapshotReply(m) => {
            format!("term {} snapshot {}@{} has {}", m.term, m.id.index, m.id.term, m.received)
        }
        Message::TimeoutNow(m) => format!("term {}", m.term),
        Message::Introduction(_) => return None,
        Message::Removed(m) => format!("as of {}", m.index),
        Message::Change(m) => {
            let again = if m.retry { ", again" } else { "" };
            match &m.wish {
                Wish::Add { name, voter: true, .. } => format!("add {name}{again}"),
                Wish::Add { name, voter: false, .. } => format!("add learner {name}{again}"),
                Wish::Remove { name } => format!("remove {name}{again}"),
                Wish::Transfer { to } => format!("{to} is to lead{again}"),
            }
        }
        Message::ChangeReply(m) => outcome(&m.outcome),
    };
    Some(format!("{word}{from} -> {to} {} {what}\n", kind(&flight.envelope.message)))
}

fn outcome(outcome: &ChangeOutcome) -> String {
    match outcome {
        ChangeOutcome::Done { index, .. } => format!("done at {index}"),
        ChangeOutcome::Refused(why) => format!("refused: {why:?}"),
    }
}

fn word_of(granted: bool) -> &'static str {
    if granted { "granted" } else { "refused" }
}

impl Runner for Script {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Output {
        self.command(command)
    }

    fn end_command(&mut self, _: &Command, _: &Context) -> Output {
        Ok(self.changes())
    }
}

fn run_folder(topic: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts").join(topic);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{folder:?} holds no script");
    for path in paths {
        println!("{}", path.display());
        let mut script =
            Script { world: None, held: Vec::new(), shown: Vec::new(), heard: BTreeMap::new() };
        goldenscript::run(&mut script, &path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    }
}

macro_rules! topics {
    ($($topic:ident)*) => { $(
        #[test]
        fn $topic() {
            run_folder(stringify!($topic));
        }
    )* };
}

topics!(founding election prevote replication reads membership restart snapshot transfer);
