//! Nodes that hand each other messages, as they are, through channels between their threads.

use std::thread;

use crossbeam_channel::{Receiver, Sender, unbounded};
use raft::eraftpb::Message;

use super::Transport;
use super::node::{Event, Node, Post};
use crate::cluster::Outcome;

/// So many events a turn, at most.
const MOST: usize = 4_096;

#[derive(Clone)]
pub struct Channels {
    all: Vec<(Sender<Event>, Receiver<Event>)>,
}

impl Transport for Channels {
    const NAME: &'static str = "raft-rs/channels";
    const LONGEST: usize = 1 << 20;
    // Nothing is lost, and nothing overflows: raft-rs's own default, and no limit of bytes.
    const MOST_BYTES: u64 = raft::NO_LIMIT;
    const MOST_IN_FLIGHT: usize = 256;

    fn open(nodes: usize) -> Outcome<Channels> {
        Ok(Channels { all: (0..nodes).map(|_| unbounded()).collect() })
    }

    fn give(&self, node: usize, event: Event) {
        // It is there as long as its thread is.
        let _ = self.all[node].0.send(event);
    }

    fn run(&self, node: usize, new: impl FnOnce() -> Node + Send + 'static) -> Outcome<()> {
        let inbox = self.all[node].1.clone();
        let to = self.all.iter().map(|(to, _)| (to.clone(), Vec::new())).collect();
        thread::Builder::new()
            .name(format!("node{node}"))
            .spawn(move || run(new(), &inbox, Outbox { to }))?;
        Ok(())
    }
}

/// What one turn sends, by whom it is for.
struct Outbox {
    to: Vec<(Sender<Event>, Vec<Message>)>,
}

impl Post for Outbox {
    fn post(&mut self, message: Message) {
        self.to[message.to as usize - 1].1.push(message);
    }
}

impl Outbox {
    fn flush(&mut self) {
        for (to, messages) in self.to.iter_mut().filter(|(_, messages)| !messages.is_empty()) {
            let _ = to.send(Event::Messages(std::mem::take(messages)));
        }
    }
}

fn run(mut node: Node, inbox: &Receiver<Event>, mut outbox: Outbox) {
    loop {
        node.turn(&mut outbox);
        outbox.flush();
        let first = inbox.recv_deadline(node.next_tick()).ok();
        for event in first.into_iter().chain(inbox.try_iter()).take(MOST) {
            if !node.take(event) {
                return;
            }
        }
    }
}
