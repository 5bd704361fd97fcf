//! What the page shows: gathered frame by frame, and sent to every page that looks.
//!
//! A page that comes is first told what there is (`hello`), then each frame what is new. All
//! that is kept has a bound, and a page that does not keep up is dropped: it comes again by
//! itself and is told anew.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use kontiki::{Committed, Entry, Event, Role};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::cluster::{Cluster, Pace, Told};
use crate::network::{Fate, Flight};

/// So much of the newest is kept for pages that come later.
const NEWS: usize = 400;
const ENTRIES: usize = 100;
/// So many verdicts and memberships are known to be told already.
const KNOWN: usize = 1000;
/// So many frames may a page be behind.
const FRAMES_BEHIND: usize = 100;
/// Of a value, the page has room for so much.
const VALUE_CHARS: usize = 24;

/// One message to a page.
pub type Frame = Arc<str>;

pub struct Picture {
    names: Vec<String>,
    pace: Pace,
    began: Instant,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    readers: Vec<Sender<Frame>>,
    /// What happened, newest last.
    news: VecDeque<Value>,
    /// How much of that is of this frame.
    new_news: usize,
    /// Of each node, what it knows to stand where in the log.
    logs: Vec<BTreeMap<u64, Value>>,
    /// What of that is of this frame.
    new_entries: Vec<Value>,
    /// Role and term of each node, as they were told last.
    roles: Vec<Option<(Role, u64)>>,
    /// Which life each node lives: what another knew is no more.
    lives: Vec<u64>,
    /// What all nodes tell, and only the first is news.
    known: BTreeSet<(u64, String)>,
}

impl Picture {
    pub fn new(pace: Pace, names: &[String]) -> Picture {
        let count = names.len();
        let inner = Inner {
            logs: vec![BTreeMap::new(); count],
            roles: vec![None; count],
            lives: vec![0; count],
            ..Inner::default()
        };
        Picture { names: names.to_vec(), pace, began: Instant::now(), inner: Mutex::new(inner) }
    }

    /// The messages for one more page.
    pub fn look(&self) -> Receiver<Frame> {
        let (sender, frames) = bounded(FRAMES_BEHIND);
        let mut inner = self.inner.lock();
        let entries: Vec<&Value> = inner.logs.iter().flat_map(BTreeMap::values).collect();
        let hello = json!({
            "hello": {
                "names": self.names,
                "slow": self.pace.slow,
                "delay": self.pace.delay().as_millis() as u64,
                "election": self.pace.election_ms(),
                "now": self.now(),
            },
            "entries": entries,
            "news": inner.news,
        });
        let _ = sender.try_send(hello.to_string().into());
        inner.readers.push(sender);
        frames
    }

    /// What a person had done.
    pub fn order(&self, text: String) {
        let now = self.now();
        self.inner.lock().news(now, "order", None, json!({ "text": text }));
    }

    /// Takes all that was told since the last frame, and sends the next.
    pub fn draw(&self, cluster: &Cluster, told: &Told) {
        let now = self.now();
        let mut inner = self.inner.lock();
        told.events.try_iter().for_each(|event| self.on_event(&mut inner, now, &event));
        let knows = cluster.knows();
        for (node, known) in knows.iter().enumerate() {
            inner.on_look(now, node, known);
        }
        for (name, entry) in told.entries.try_iter() {
            if let Some(node) = self.place(&name) {
                inner.on_entry(node, entry.index, value(node, &entry));
            }
        }
        for text in cluster.answers() {
            inner.news(now, "answer", None, json!({ "text": text }));
        }
        let nodes: Vec<Value> = knows.iter().map(|known| self.node(known)).collect();
        let news: Vec<Value> = {
            let from = inner.news.len().saturating_sub(inner.new_news);
            inner.news.range(from..).cloned().collect()
        };
        inner.new_news = 0;
        let count = self.names.len();
        let pairs = (0..count).flat_map(|one| (one + 1..count).map(move |other| (one, other)));
        let cuts: Vec<_> = pairs.filter(|(a, b)| cluster.network.is_cut(*a, *b)).collect();
        let frame = json!({
            "now": now,
            "nodes": nodes,
            "cuts": cuts,
            "loss": cluster.network.loss_percent(),
            "flights": flights(&told.flights),
            "entries": std::mem::take(&mut inner.new_entries),
            "news": news,
        });
        let frame: Frame = frame.to_string().into();
        let full =
            |sent| matches!(sent, Err(TrySendError::Full(_) | TrySendError::Disconnected(_)));
        inner.readers.retain(|reader| !full(reader.try_send(Arc::clone(&frame))));
    }

    /// Milliseconds since this program began.
    fn now(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    fn place(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|known| known == name)
    }

    fn on_event(&self, inner: &mut Inner, now: u64, event: &Event) {
        let Some(node) = self.place(event.node()) else { return };
        match event {
            Event::Role { term, role, .. } => inner.on_role(now, node, *role, *term),
            Event::MemberUp { member, index, .. } => {
                let Some(of) = self.place(member) else { return };
                inner.on_entry(node, *index, json!([node, index, "up", null, member]));
                inner.once(now, *index, "up", of);
            }
            Event::MemberDown { member, index, .. } => {
                let Some(of) = self.place(member) else { return };
                inner.on_entry(node, *index, json!([node, index, "down", null, member]));
                inner.once(now, *index, "down", of);
            }
            Event::Members { index, voters, learners, .. } => {
                let text = match learners.is_empty() {
                    true => voters.join(", "),
                    false => format!("{}; learning: {}", voters.join(", "), learners.join(", ")),
                };
                inner.on_entry(node, *index, json!([node, index, "members", null, text]));
                if inner.is_first(*index, "members") {
                    inner.news(now, "members", None, json!({ "index": index, "text": text }));
                }
            }
            Event::Snapshot { index, received, .. } => {
                let whose =
                    if *received { "gets the leader's snapshot" } else { "takes a snapshot" };
                let text = format!("{} {whose} of all up to {index}", self.names[node]);
                inner.news(now, "snapshot", Some(node), json!({ "text": text }));
            }
            Event::Missed { count, .. } => {
                let text = format!("{count} events of {} were missed", self.names[node]);
                inner.news(now, "missed", Some(node), json!({ "text": text }));
            }
            // Who leads shows in the leader's own role.
            _ => {}
        }
    }

    fn node(&self, known: &Committed) -> Value {
        let place = |name: &Option<String>| name.as_deref().and_then(|name| self.place(name));
        let verdict = |name: &String| {
            let member = known.members.iter().find(|member| member.name == *name)?;
            member.verdict.map(|verdict| verdict.up)
        };
        json!({
            "role": known.role.to_string(),
            "term": known.term,
            "leader": place(&known.leader),
            "vote": place(&known.voted_for),
            "commit": known.commit_index,
            "last": known.last_index,
            "timer": known.campaigns_in.map(|left| left.as_millis() as u64),
            "quorum": known.quorum_ago.map(|ago| ago.as_millis() as u64),
            "voter": known.is_voter(),
            "waiting": known.waiting_for,
            "up": self.names.iter().map(verdict).collect::<Vec<_>>(),
        })
    }
}

impl Inner {
    /// Something for the list of what happened, and perhaps for the lane of a node.
    fn news(&mut self, at: u64, what: &str, node: Option<usize>, more: Value) {
        let mut item = json!({ "at": at, "what": what, "node": node });
        for (key, value) in more.as_object().into_iter().flatten() {
            item[key] = value.clone();
        }
        self.news.push_back(item);
        self.new_news = (self.new_news + 1).min(NEWS);
        if self.news.len() > NEWS {
            self.news.pop_front();
        }
    }

    fn on_role(&mut self, now: u64, node: usize, role: Role, term: u64) {
        if self.roles[node].replace((role, term)) != Some((role, term)) {
            self.news(now, "role", Some(node), json!({"role": role.to_string(), "term": term}));
        }
    }

    /// No event tells that a node was stopped, or is another life of it.
    fn on_look(&mut self, now: u64, node: usize, known: &Committed) {
        if known.role == Role::Stopped {
            self.on_role(now, node, known.role, known.term);
        }
        if std::mem::replace(&mut self.lives[node], known.incarnation) != known.incarnation {
            self.logs[node].retain(|index, _| *index <= known.commit_index);
        }
    }

    fn on_entry(&mut self, node: usize, index: u64, entry: Value) {
        let log = &mut self.logs[node];
        log.insert(index, entry.clone());
        if log.len() > ENTRIES {
            log.pop_first();
        }
        // Of a node that tells all of its log anew, only the end is of use.
        if self.new_entries.len() < 5 * ENTRIES {
            self.new_entries.push(entry);
        }
    }

    /// A verdict, which each node tells when it learns of it.
    fn once(&mut self, now: u64, index: u64, what: &str, of: usize) {
        if self.is_first(index, &format!("{what} {of}")) {
            self.news(now, what, Some(of), json!({ "index": index }));
        }
    }

    fn is_first(&mut self, index: u64, what: &str) -> bool {
        if self.known.len() > KNOWN {
            self.known.pop_first();
        }
        self.known.insert((index, what.to_string()))
    }
}

/// An entry of a client.
fn value(node: usize, entry: &Entry) -> Value {
    let text: String = entry.json().chars().take(VALUE_CHARS).collect();
    json!([node, entry.index, "value", entry.term, text])
}

/// The datagrams since the last frame: equal ones once, with their number.
fn flights(told: &Receiver<Flight>) -> Vec<Value> {
    let mut counts = BTreeMap::<Flight, u32>::new();
    told.try_iter().for_each(|flight| *counts.entry(flight).or_default() += 1);
    let one = |(Flight { from, to, kind, fate }, count): (Flight, u32)| {
        let fate = match fate {
            Fate::Sent => "sent",
            Fate::Lost => "lost",
            Fate::Cut => "cut",
        };
        json!([from, to, kind.name(), fate, count])
    };
    counts.into_iter().map(one).collect()
}
