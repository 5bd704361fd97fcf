//! One node of raft-rs: what a turn of its thread does, whatever the messages travel by.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use raft::eraftpb::{Entry, Message, MessageType};
use raft::{Config, RawNode, SnapshotStatus, StateRole};
use slog::{Discard, Logger, o};

use super::log::Log;

/// As its examples have it.
const TICK: Duration = Duration::from_millis(100);

/// What a thread is given.
pub enum Event {
    Propose(Bytes, oneshot::Sender<()>),
    Messages(Vec<Message>),
    Kill,
    Restart,
    End,
}

/// What a node says of itself.
#[derive(Default)]
pub struct Said {
    pub leads: AtomicBool,
    pub applied: AtomicU64,
}

/// Takes what is to be sent.
pub trait Post {
    fn post(&mut self, message: Message);
}

pub struct Node {
    config: Config,
    /// None of a dead one: only its log is left.
    raft: Result<RawNode<Log>, Log>,
    said: Arc<Said>,
    next_tick: Instant,
    proposals: Vec<(Bytes, oneshot::Sender<()>)>,
    /// Who waits for an index, in order.
    waiting: VecDeque<(u64, oneshot::Sender<()>)>,
    answered: Vec<oneshot::Sender<()>>,
}

impl Node {
    pub fn new(config: Config, log: Log, said: Arc<Said>) -> Node {
        let mut node = Node {
            config,
            raft: Err(log),
            said,
            next_tick: Instant::now() + TICK,
            proposals: Vec::new(),
            waiting: VecDeque::new(),
            answered: Vec::new(),
        };
        node.restart();
        // The first does not wait for a timeout.
        if let (Ok(raft), 1) = (&mut node.raft, node.config.id) {
            raft.campaign().expect("it can");
        }
        node
    }

    pub fn next_tick(&self) -> Instant {
        self.next_tick
    }

    /// Takes one event; false at the end.
    pub fn take(&mut self, event: Event) -> bool {
        match event {
            Event::Propose(value, ticket) => self.proposals.push((value, ticket)),
            Event::Messages(messages) => messages.into_iter().for_each(|m| self.step(m)),
            Event::Kill => self.kill(),
            Event::Restart => self.restart(),
            Event::End => return false,
        }
        true
    }

    pub fn step(&mut self, message: Message) {
        if let Ok(raft) = &mut self.raft {
            // What makes no sense any more is refused.
            let _ = raft.step(message);
        }
    }

    fn kill(&mut self) {
        if let Ok(raft) = &mut self.raft {
            self.raft = Err(std::mem::take(raft.mut_store()));
        }
        self.proposals.clear();
        self.waiting.clear();
        self.said.leads.store(false, Ordering::Release);
    }

    fn restart(&mut self) {
        if let Err(log) = &mut self.raft {
            let log = std::mem::take(log);
            self.config.applied = log.applied();
            let logger = Logger::root(Discard, o!());
            self.raft = Ok(RawNode::new(&self.config, log, &logger).expect("it starts"));
        }
    }

    /// Does what has become possible since the last turn.
    pub fn turn(&mut self, post: &mut impl Post) {
        let Ok(raft) = &mut self.raft else {
            self.proposals.clear();
            return;
        };
        let now = Instant::now();
        if now >= self.next_tick {
            self.next_tick = now + TICK;
            raft.tick();
        }
        self.propose_all();
        self.settle(post);
        self.answer();
    }

    /// All that has queued up becomes one proposal of many entries, so that one message
    /// carries it to each follower.
    fn propose_all(&mut self) {
        let Ok(raft) = &mut self.raft else { return };
        if self.proposals.is_empty() {
            return;
        }
        if raft.raft.state != StateRole::Leader {
            self.proposals.clear();
            return;
        }
        let next = raft.raft.raft_log.last_index() + 1;
        let mut message = Message { from: self.config.id, ..Message::default() };
        message.set_msg_type(MessageType::MsgPropose);
        let entry = |data: Bytes| Entry { data, ..Entry::default() };
        let (values, tickets): (Vec<Entry>, Vec<_>) =
            self.proposals.drain(..).map(|(value, ticket)| (entry(value), ticket)).unzip();
        message.set_entries(values.into());
        if raft.step(message).is_ok() {
            self.waiting.extend((next..).zip(tickets));
        }
    }

    fn settle(&mut self, post: &mut impl Post) {
        let Ok(raft) = &mut self.raft else { return };
        while raft.has_ready() {
            let mut ready = raft.ready();
            // A leader's messages go out before its own write (thesis §10.2.1).
            send(raft, ready.take_messages(), post);
            if !ready.snapshot().is_empty() {
                raft.mut_store().install(ready.snapshot().clone());
            }
            let committed = ready.take_committed_entries();
            apply(raft, committed, &mut self.waiting, &mut self.answered);
            raft.mut_store().append(ready.take_entries());
            if let Some(hard) = ready.hs() {
                raft.mut_store().hard = hard.clone();
            }
            if let Some(soft) = ready.ss() {
                let leads = soft.raft_state == StateRole::Leader;
                self.said.leads.store(leads, Ordering::Release);
                if !leads {
                    self.waiting.clear();
                }
            }
            send(raft, ready.take_persisted_messages(), post);

            let mut light = raft.advance(ready);
            if let Some(commit) = light.commit_index() {
                raft.mut_store().hard.commit = commit;
            }
            send(raft, light.take_messages(), post);
            let committed = light.take_committed_entries();
            apply(raft, committed, &mut self.waiting, &mut self.answered);
            raft.advance_apply();
        }
        self.said.applied.store(raft.store().applied(), Ordering::Release);
    }

    /// The oldest last: a client waits for that one, and finds all the others answered.
    fn answer(&mut self) {
        for ticket in self.answered.drain(..).rev() {
            // The client may have gone.
            let _ = ticket.send(());
        }
    }
}

fn send(raft: &mut RawNode<Log>, messages: Vec<Message>, post: &mut impl Post) {
    for message in messages {
        let snapshot_to =
            (message.get_msg_type() == MessageType::MsgSnapshot).then_some(message.to);
        post.post(message);
        if let Some(to) = snapshot_to {
            raft.report_snapshot(to, SnapshotStatus::Finish);
        }
    }
}

fn apply(
    raft: &mut RawNode<Log>,
    committed: Vec<Entry>,
    waiting: &mut VecDeque<(u64, oneshot::Sender<()>)>,
    answered: &mut Vec<oneshot::Sender<()>>,
) {
    for entry in committed {
        if waiting.front().is_some_and(|(index, _)| *index == entry.index)
            && let Some((_, ticket)) = waiting.pop_front()
        {
            answered.push(ticket);
        }
        raft.mut_store().apply(entry.index, entry.data);
    }
}
