//! The programs at the nodes: what they ask, and what they saw.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::core::properties::{Broken, Property, Verdict, broken, ensure};
use crate::core::types::{Entry, Payload, Protocol, Term};
use crate::error::RequestError;
use crate::operation::Operation;
use crate::request::{Answer, Reply, Request};

use super::Chance;
use super::linear::{self, Call, CellAnswer, CellOperation};
use super::plan::Load;
use super::story::shortened;

/// What was answered with a reply is committed, at that place.
pub(super) const ACKNOWLEDGED_KEPT: Property =
    Property { name: "Acknowledged Is Kept", source: "design, promise 3; Raft Figure 3" };

/// Each request ends, and once.
pub(super) const ENDS_ONCE: Property =
    Property { name: "Each Request Ends", source: "design, Exactly once: every request ends" };

/// What clients saw of each cell has an order that explains it.
pub(super) const LINEARIZABLE: Property =
    Property { name: "Linearizable", source: "Raft §8; Herlihy and Wing, Linearizability, 1990" };

/// A command stands in the log behind all that was answered before it was asked; a
/// query sees it.
pub(super) const REAL_TIME_ORDER: Property =
    Property { name: "Real-Time Order", source: "Raft §8, thesis §6.3 and §6.4" };

/// How something is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Command,
    Query,
    Lookup,
    /// Other members, or another leader.
    Wish,
}

/// A request that was made.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// The client that waits for it; `None`: nobody does.
    pub(super) client: Option<usize>,
    node: usize,
    way: Way,
    json: String,
    id: Option<String>,
    cell: Option<(String, CellOperation)>,
    called: u64,
}

impl Asked {
    /// The same, and that client waits for it.
    pub(super) fn by(self, client: Option<usize>) -> Asked {
        Asked { client, ..self }
    }

    /// For a person.
    pub(super) fn describe(&self) -> String {
        let json = shortened(&self.json);
        match (self.way, &self.id) {
            (Way::Command, Some(id)) => format!("command {json} under id {id}"),
            (Way::Command, None) => format!("command {json}"),
            (Way::Query, _) => format!("query {json}"),
            (Way::Lookup, id) => format!("lookup {}", id.as_deref().unwrap_or_default()),
            (Way::Wish, _) => self.json.clone(),
        }
    }
}

/// A request that was answered with a reply.
#[derive(Clone, Debug)]
struct Settled {
    way: Way,
    by_id: bool,
    called: u64,
    answered: u64,
    index: u64,
}

/// All programs together.
pub(super) struct Clients {
    load: Load,
    chance: Chance,
    open: BTreeMap<u64, Asked>,
    settled: Vec<Settled>,
    history: Vec<(String, Call<CellOperation, CellAnswer>)>,
    /// What somebody last saw in a cell: what a swap expects.
    known: BTreeMap<String, Option<u64>>,
    asked: u64,
    values: u64,
    not_found: u64,
    /// How many ended as unknown, and how many were refused.
    pub(super) unknown: u64,
    pub(super) refused: u64,
}

/// After so many requests clients turn to other cells, so that what is unknown of
/// one does not gather without end.
const ASKED_AN_EPOCH: u64 = 200;

impl Clients {
    pub(super) fn new(load: Load, chance: Chance) -> Clients {
        Clients {
            load,
            chance,
            open: BTreeMap::new(),
            settled: Vec::new(),
            history: Vec::new(),
            known: BTreeMap::new(),
            asked: 0,
            values: 0,
            not_found: 0,
            unknown: 0,
            refused: 0,
        }
    }

    /// How many requests were made so far.
    pub(super) fn asked(&self) -> u64 {
        self.asked
    }

    /// How many were answered: with a reply, or that there is none to find.
    pub(super) fn answered(&self) -> u64 {
        self.settled.len() as u64 + self.not_found
    }

    /// What has not ended yet.
    pub(super) fn open(&self) -> impl Iterator<Item = (&u64, &Asked)> {
        self.open.iter()
    }

    /// What the next client asks: often one thing, sometimes many at once.
    pub(super) fn next(&mut self) -> Vec<(Request, Asked)> {
        match self.load.clone() {
            Load::Newest => vec![self.newest()],
            Load::Cells if self.chance.permille(15) => {
                let count = self.chance.between(2, 120);
                let ballast = *self.chance.pick(&[0, 10, 400, 3_000]);
                (0..count).map(|_| self.alone(ballast)).collect()
            }
            Load::Cells if self.chance.permille(3) => vec![self.alone(150_000)],
            Load::Cells => vec![self.cell()],
            Load::Own { commands, queries, .. } => {
                let asks = queries.filter(|_| self.chance.permille(300));
                let ask = asks.as_ref().unwrap_or(&commands);
                let value = ask(&mut self.chance);
                vec![match asks {
                    Some(_) => self.query(&value, None),
                    None => self.command(&value, None, None),
                }]
            }
        }
    }

    /// Two that every node must be able to answer in a healthy cluster.
    pub(super) fn probes(&mut self) -> Vec<(Request, Asked)> {
        match self.load.clone() {
            Load::Cells => {
                let cell = "probed".to_string();
                let get = json!(["get", cell]);
                let read = self.query(&get, Some((cell, CellOperation::Read)));
                vec![self.alone(0), read]
            }
            Load::Newest => {
                let value = self.value();
                let write = self.command(
                    &json!(value),
                    None,
                    Some((NEWEST.to_string(), CellOperation::Write(value))),
                );
                vec![write, self.query(&json!(null), Some((NEWEST.into(), CellOperation::Read)))]
            }
            Load::Own { commands, queries, .. } => {
                let command = commands(&mut self.chance);
                let mut probes = vec![self.command(&command, None, None)];
                if let Some(queries) = queries {
                    let question = queries(&mut self.chance);
                    probes.push(self.query(&question, None));
                }
                probes
            }
        }
    }

    fn value(&mut self) -> u64 {
        self.values += 1;
        self.values
    }

    fn newest(&mut self) -> (Request, Asked) {
        let cell = NEWEST.to_string();
        if self.chance.permille(450) {
            return self.query(&Value::Null, Some((cell, CellOperation::Read)));
        }
        let value = self.value();
        self.command(&json!(value), None, Some((cell, CellOperation::Write(value))))
    }

    /// One thing done to one of a few cells that all clients share.
    fn cell(&mut self) -> (Request, Asked) {
        let epoch = self.asked / ASKED_AN_EPOCH;
        let cell = format!("cell{epoch}-{}", self.chance.between(0, 2));
        let id = format!("id{epoch}-{}", self.chance.between(0, 4));
        let what = self.chance.between(0, 99);
        let value = self.value();
        match what {
            0..35 => {
                let put = json!(["put", cell, value]);
                self.command(&put, None, Some((cell, CellOperation::Write(value))))
            }
            35..50 => {
                let expected = self.known.get(&cell).copied().flatten();
                let swap = json!(["swap", cell, expected, value]);
                self.command(&swap, None, Some((cell, CellOperation::Swap { expected, value })))
            }
            50..75 => {
                let get = json!(["get", cell]);
                self.query(&get, Some((cell, CellOperation::Read)))
            }
            75..87 => {
                let put = json!(["put", id, value]);
                self.command(&put, Some(id.clone()), Some((id, CellOperation::Once { value })))
            }
            87..92 => {
                let get = json!(["get", id]);
                self.query(&get, Some((id, CellOperation::Read)))
            }
            _ => {
                let request = Request::lookup(&id);
                let cell = Some((id.clone(), CellOperation::Lookup));
                (request, self.asked_for(Way::Lookup, String::new(), Some(id), cell))
            }
        }
    }

    /// A value put where nobody else puts one.
    fn alone(&mut self, ballast: usize) -> (Request, Asked) {
        let value = self.value();
        let cell = format!("alone{value}");
        let put = match ballast {
            0 => json!(["put", cell, value]),
            _ => json!(["put", cell, value, "x".repeat(ballast)]),
        };
        self.command(&put, None, Some((cell, CellOperation::Write(value))))
    }

    fn command(
        &mut self,
        value: &Value,
        id: Option<String>,
        cell: Option<(String, CellOperation)>,
    ) -> (Request, Asked) {
        let request = Request::from(value);
        let request = match &id {
            Some(id) => request.id(id),
            None => request,
        };
        (request, self.asked_for(Way::Command, value.to_string(), id, cell))
    }

    fn query(
        &mut self,
        question: &Value,
        cell: Option<(String, CellOperation)>,
    ) -> (Request, Asked) {
        (Request::query(question), self.asked_for(Way::Query, question.to_string(), None, cell))
    }

    /// An operator's wish.
    pub(super) fn wish(&mut self, request: &Request) -> Asked {
        self.asked_for(Way::Wish, format!("{request:?}"), None, None)
    }

    fn asked_for(
        &mut self,
        way: Way,
        json: String,
        id: Option<String>,
        cell: Option<(String, CellOperation)>,
    ) -> Asked {
        Asked { client: None, node: 0, way, json, id, cell, called: 0 }
    }

    /// A request is made: the ticket that names it.
    pub(super) fn made(&mut self, asked: Asked, node: usize, now: u64) -> u64 {
        self.asked += 1;
        self.open.insert(self.asked, Asked { node, called: now, ..asked });
        self.asked
    }

    /// A request ends. Says which it was, for the story.
    pub(super) fn ended(
        &mut self,
        ticket: u64,
        answer: &Answer,
        committed: &[(Entry, Term)],
        now: u64,
    ) -> Result<Asked, Broken> {
        let Some(asked) = self.open.remove(&ticket) else {
            let what = format!("request {ticket} ended twice, or was never made");
            return Err(Broken { property: &ENDS_ONCE, what });
        };
        match answer {
            Ok(reply) => {
                check_kept(&asked, reply, committed)?;
                self.settled.push(Settled {
                    way: asked.way,
                    by_id: asked.id.is_some(),
                    called: asked.called,
                    answered: now,
                    index: reply.index,
                });
                self.saw(&asked, self.cell_answer(&asked, reply), now);
            }
            Err(RequestError::NotFound { .. }) => {
                self.not_found += 1;
                self.saw(&asked, CellAnswer::Missing, now);
            }
            Err(RequestError::Unknown) => self.lost(&asked),
            Err(_) => self.refused += 1,
        }
        Ok(asked)
    }

    /// The node of an outstanding request is gone: nobody will hear what became of it.
    pub(super) fn node_is_gone(&mut self, node: usize) -> Vec<Asked> {
        let gone: Vec<u64> = self
            .open
            .iter()
            .filter_map(|(ticket, asked)| (asked.node == node).then_some(*ticket))
            .collect();
        let gone: Vec<Asked> = gone.iter().filter_map(|ticket| self.open.remove(ticket)).collect();
        for asked in &gone {
            self.lost(asked);
        }
        gone
    }

    fn lost(&mut self, asked: &Asked) {
        self.unknown += 1;
        if let Some((cell, operation)) = &asked.cell {
            self.record(cell, *operation, asked, None);
        }
    }

    fn saw(&mut self, asked: &Asked, answer: CellAnswer, now: u64) {
        let Some((cell, operation)) = &asked.cell else { return };
        match (answer, operation) {
            (CellAnswer::Value(value) | CellAnswer::Was(value), CellOperation::Read) => {
                self.known.insert(cell.clone(), value);
            }
            (CellAnswer::Was(held), CellOperation::Swap { expected, value }) => {
                let now = if held == *expected { Some(*value) } else { held };
                self.known.insert(cell.clone(), now);
            }
            _ => {}
        }
        self.record(cell, *operation, asked, Some((now, answer)));
    }

    fn record(
        &mut self,
        cell: &str,
        operation: CellOperation,
        asked: &Asked,
        answered: Option<(u64, CellAnswer)>,
    ) {
        let client = asked.client.unwrap_or(usize::MAX);
        let call = Call { client, operation, called: asked.called, answered };
        self.history.push((cell.to_string(), call));
    }

    fn cell_answer(&self, asked: &Asked, reply: &Reply) -> CellAnswer {
        let held = reply.value.as_u64();
        match (asked.way, &self.load) {
            (Way::Query, _) => CellAnswer::Value(held),
            (Way::Command, Load::Newest) => CellAnswer::Done,
            (Way::Command, _) if asked.id.is_none() => CellAnswer::Was(held),
            (Way::Command | Way::Lookup | Way::Wish, _) => {
                CellAnswer::Settled { index: reply.index, previous: held }
            }
        }
    }

    /// All that clients saw, held against the models.
    pub(super) fn check(&self) -> Verdict {
        self.check_order()?;
        if let Err(report) = linear::check_cells(&self.history) {
            return broken(&LINEARIZABLE, report);
        }
        Ok(())
    }

    fn check_order(&self) -> Verdict {
        let mut answers: Vec<(u64, u64)> =
            self.settled.iter().map(|settled| (settled.answered, settled.index)).collect();
        answers.sort_unstable();
        let mut calls: Vec<&Settled> = self.settled.iter().collect();
        calls.sort_by_key(|settled| settled.called);
        let (mut before, mut floor) = (answers.into_iter().peekable(), 0);
        for call in calls {
            while let Some((_, index)) = before.next_if(|(at, _)| *at < call.called) {
                floor = floor.max(index);
            }
            let least = match call.way {
                Way::Command if !call.by_id => floor + 1,
                Way::Query => floor,
                _ => 0,
            };
            ensure(&REAL_TIME_ORDER, call.index >= least, || {
                format!(
                    "{:?} of {} us was answered at {} us with index {}, and {floor} was known \
                     before it was asked",
                    call.way, call.called, call.answered, call.index
                )
            })?;
        }
        Ok(())
    }
}

/// The one cell of a world without a state machine.
const NEWEST: &str = "newest";

fn check_kept(asked: &Asked, reply: &Reply, committed: &[(Entry, Term)]) -> Verdict {
    if asked.way == Way::Query {
        return Ok(());
    }
    let place = (reply.index as usize).checked_sub(1);
    let payload = place.and_then(|place| committed.get(place)).map(|(entry, _)| &entry.payload);
    let there = match payload {
        Some(Payload::Protocol(Protocol::Members(members))) if asked.way == Way::Wish => {
            let told = reply.value.as_object().map(|nodes| nodes.keys().collect::<Vec<_>>());
            let names = members.members.iter().map(|member| &member.name);
            told == Some(names.collect())
        }
        Some(Payload::Client(bytes)) => match Operation::decode(bytes) {
            Some(Operation::Command(command)) => match &asked.id {
                Some(id) => command.id == Some(id),
                None => bytes[command.json_range.clone()] == *asked.json.as_bytes(),
            },
            _ => false,
        },
        _ => false,
    };
    ensure(&ACKNOWLEDGED_KEPT, there, || {
        format!(
            "{} was answered with index {}, and what is committed there is {payload:?}",
            asked.describe(),
            reply.index
        )
    })
}
