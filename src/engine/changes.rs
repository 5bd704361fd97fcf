//! This node's own program wants other members, or another leader: the way of such a
//! wish to the leader, and of the answer back.
//!
//! A wish is sent again until it is answered, under one number, and to each new leader:
//! from the second time on as a `retry`, so that what was done already is found done
//! (`core::changes`). What is done is answered when this node has it committed, too: who
//! has the reply sees in `Committed` what it speaks of.

use serde_json::{Map, Value, json};

use crate::core::Core;
use crate::core::membership::{Membership, Standing, VOTERS_LIMIT};
use crate::core::message::{Change, ChangeOutcome, ChangeReply, WhyNot, Wish};
use crate::core::types::{Index, Term, Time};
use crate::error::RequestError;
use crate::request::{Answer, Reply};

/// A wish that has not ended yet.
#[derive(Debug)]
struct Asked<T> {
    ticket: T,
    id: u64,
    wish: Wish,
    deadline: Time,
    /// How often it was sent at all, and to the present leader.
    attempts: u32,
    tries: u32,
    again_at: Time,
    done: Option<(Index, Term, Membership)>,
}

/// This node's wishes that have not ended yet.
#[derive(Debug)]
pub(super) struct Changes<T> {
    timeout: u64,
    patience: u64,
    last_id: u64,
    asked: Vec<Asked<T>>,
    ended: Vec<(T, Answer)>,
}

impl<T> Changes<T> {
    pub(super) fn new(timeout: u64, patience: u64) -> Changes<T> {
        Changes { timeout, patience, last_id: 0, asked: Vec::new(), ended: Vec::new() }
    }

    /// A wish comes.
    pub(super) fn take(&mut self, ticket: T, wish: Wish, now: Time) {
        self.last_id += 1;
        let (id, deadline) = (self.last_id, now.plus(self.timeout));
        let (attempts, tries, again_at, done) = (0, 0, now, None);
        self.asked.push(Asked { ticket, id, wish, deadline, attempts, tries, again_at, done });
    }

    /// Another leader, or none, or the same in another term: it is asked at once.
    pub(super) fn on_leader_change(&mut self) {
        for asked in &mut self.asked {
            (asked.tries, asked.again_at) = (0, Time(0));
        }
    }

    /// A wish was answered.
    pub(super) fn on_reply(&mut self, reply: ChangeReply) {
        let Some(place) = self.asked.iter().position(|asked| asked.id == reply.id) else { return };
        match reply.outcome {
            ChangeOutcome::Done { index, term, members } => {
                self.asked[place].done = Some((index, term, members));
            }
            ChangeOutcome::Refused(why) => {
                let asked = self.asked.remove(place);
                let reason = in_words(&asked.wish, why);
                self.ended.push((asked.ticket, Err(RequestError::Refused { reason })));
            }
        }
    }

    /// Sends what is to be sent; gives what has ended.
    pub(super) fn drive(&mut self, core: &mut Core, now: Time) -> Vec<(T, Answer)> {
        let mut ended = std::mem::take(&mut self.ended);
        let me = core.me().incarnation;
        for mut asked in std::mem::take(&mut self.asked) {
            // A node that was removed hears of no commit any more.
            let seen = |(index, _, members): &(Index, Term, Membership)| {
                *index <= core.commit_index() || !members.names(me)
            };
            if asked.done.as_ref().is_some_and(|done| seen(done) || asked.deadline <= now) {
                ended.extend(asked.done.map(|done| (asked.ticket, Ok(reply(&done)))));
                continue;
            }
            if asked.deadline <= now {
                let error = match asked.attempts {
                    0 => super::out_of_time(core, "sent", self.timeout, now),
                    _ => RequestError::Unknown,
                };
                ended.push((asked.ticket, Err(error)));
                continue;
            }
            if asked.done.is_none() && asked.again_at <= now {
                let retry = asked.attempts > 0;
                let change = Change { id: asked.id, retry, wish: asked.wish.clone() };
                asked.again_at = now.plus(self.patience << asked.tries.min(4));
                if core.change(change, now) {
                    asked.attempts += 1;
                    asked.tries += 1;
                }
            }
            self.asked.push(asked);
        }
        ended
    }

    /// When something is due.
    pub(super) fn deadline(&self) -> Time {
        let due = |asked: &Asked<T>| match asked.done {
            Some(_) => asked.deadline,
            None => asked.deadline.min(asked.again_at),
        };
        self.asked.iter().map(due).min().unwrap_or(Time(u64::MAX))
    }

    /// Everything ends: what was never sent, with `error`.
    pub(super) fn end_all(&mut self, error: &RequestError) -> Vec<(T, Answer)> {
        let mut ended = std::mem::take(&mut self.ended);
        for asked in std::mem::take(&mut self.asked) {
            let answer = match (asked.done, asked.attempts) {
                (Some(done), _) => Ok(reply(&done)),
                (None, 0) => Err(error.clone()),
                (None, _) => Err(RequestError::Unknown),
            };
            ended.push((asked.ticket, answer));
        }
        ended
    }
}

/// The members as the file has its nodes.
fn reply((index, term, members): &(Index, Term, Membership)) -> Reply {
    let node = |member: &crate::core::membership::Member| {
        let role = match member.standing {
            Standing::Voter => "voter",
            Standing::Joining | Standing::Learner => "learner",
        };
        let (ip, port) = (member.address.ip().to_string(), member.address.port());
        (member.name.clone(), json!({ "ip": ip, "port": port, "role": role }))
    };
    let nodes: Map<String, Value> = members.members.iter().map(node).collect();
    Reply { index: index.0, term: term.0, value: Value::Object(nodes), value_kept: true }
}

fn in_words(wish: &Wish, why: WhyNot) -> String {
    let name = match wish {
        Wish::Add { name, .. } | Wish::Remove { name } | Wish::Transfer { to: name } => name,
    };
    let address = match wish {
        Wish::Add { address, .. } => address.to_string(),
        _ => String::new(),
    };
    match why {
        WhyNot::AlreadyMember => format!("{name} is a member already"),
        WhyNot::UnknownName => format!("no member is called {name}"),
        WhyNot::AnotherChange => {
            "another change of the members is under way: ask again when it is over".to_string()
        }
        WhyNot::NoVoterLeft => format!("without {name} no voter would be left"),
        WhyNot::NoMajorityLeft => format!(
            "without {name} too few of the voters that are left can be reached to agree on \
             anything: bring them back first"
        ),
        WhyNot::Unreachable => format!(
            "{name} does not answer at {address}: start it first, with a file that names it and \
             the members"
        ),
        WhyNot::Foreign => format!(
            "{name} at {address} remembers another cluster: start it with an empty memory and \
             folder"
        ),
        WhyNot::TooMany => format!(
            "a cluster has at most {VOTERS_LIMIT} voters and {} members",
            crate::core::membership::MEMBERS_LIMIT
        ),
        WhyNot::AddressTaken => format!("another member is at {address} already"),
        WhyNot::NotAVoter => format!("{name} is no voter, and only a voter can lead"),
        WhyNot::LeadsAlready => format!("{name} leads already"),
        WhyNot::NotTakenOver => {
            format!("{name} did not take over in time, and the leader goes on")
        }
    }
}
