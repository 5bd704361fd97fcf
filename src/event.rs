//! What a node tells as it happens, and the hub that hands it to whoever asked.
//!
//! Each call of `Config::events` adds a bounded channel to the hub. The hub lives
//! as long as a config or a node that came from the same file, and the channels
//! end with it. A node never waits for a reader: what does not fit is dropped and
//! counted, and the count is told as soon as there is room again.

use std::collections::BTreeMap;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use parking_lot::Mutex;

use crate::committed::Role;

/// How many events a channel holds until its reader takes them.
const CHANNEL_EVENTS: usize = 1024;

/// Something that happened at one node. Those of one node come in order.
///
/// Events are for watching: they are told at once, and may be missed by a slow
/// reader, who is told so ([`Event::Missed`]). What `Members`, `MemberUp` and `MemberDown`
/// say is agreed by the cluster, and the newest of it stands in
/// [`Committed`](crate::Committed) as well; the rest is this node's own affair.
/// [`Config::events`](crate::Config::events) gives them.
///
/// ```
/// use kontiki::{Config, Event, RaftNode, Role};
///
/// # let free = std::net::UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
/// let config = Config::new([("node0", free)])?;
/// let events = config.events();
/// let node = RaftNode::new(config, "node0")?;
/// node.start()?;
/// for event in &events {
///     match event {
///         Event::Role { role: Role::Leader, term, .. } => {
///             println!("{} leads in term {term}", node.check_committed_entry().node);
///             break;
///         }
///         Event::Missed { count, .. } => println!("{count} events were missed"),
///         other => println!("{}: {other:?}", other.node()),
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The node has another role, or the same in another term.
    #[non_exhaustive]
    Role {
        /// Which node.
        node: String,
        /// Its term.
        term: u64,
        /// Its role now.
        role: Role,
    },
    /// The node follows another leader, or none.
    #[non_exhaustive]
    Leader {
        /// Which node.
        node: String,
        /// Its term.
        term: u64,
        /// The leader's name; `None` while it knows of none.
        leader: Option<String>,
    },
    /// The node has learnt that other members are agreed: all by name. A node that was
    /// far behind may see only the last of several changes.
    #[non_exhaustive]
    Members {
        /// Which node.
        node: String,
        /// Where in the log they are stated.
        index: u64,
        /// Those that vote.
        voters: Vec<String>,
        /// Those that do not, or not yet.
        learners: Vec<String>,
    },
    /// The node has learnt that a member is agreed to be up
    /// ([`Member::verdict`](crate::Member::verdict)). Every node passes through the same
    /// verdicts in the same order; one that was away, through those that it missed, or,
    /// where a snapshot took their place, at once to the present ones.
    #[non_exhaustive]
    MemberUp {
        /// Which node.
        node: String,
        /// Who is up.
        member: String,
        /// Where in the log that was decided.
        index: u64,
    },
    /// The node has learnt that a member is agreed to be down: it was silent for
    /// `failure_timeout_ms`, started anew, or was removed or replaced.
    #[non_exhaustive]
    MemberDown {
        /// Which node.
        node: String,
        /// Who is down.
        member: String,
        /// Where in the log that was decided.
        index: u64,
    },
    /// A snapshot stands for the node's log up to this index, in its memory or on its
    /// disk: one of its own, or one that the leader sent because the node was far
    /// behind. After the latter its state machine has been given a state, and not the
    /// entries that made it.
    #[non_exhaustive]
    Snapshot {
        /// Which node.
        node: String,
        /// The last entry that the snapshot covers.
        index: u64,
        /// Whether it came from the leader.
        received: bool,
    },
    /// The reader was too slow, and so many events of this node were dropped
    /// before the next one.
    #[non_exhaustive]
    Missed {
        /// Which node's events.
        node: String,
        /// How many, at least 1.
        count: u64,
    },
}

impl Event {
    /// The name of the node that it happened at. See [`Event`] for an example.
    pub fn node(&self) -> &str {
        match self {
            Event::Role { node, .. }
            | Event::Leader { node, .. }
            | Event::Members { node, .. }
            | Event::MemberUp { node, .. }
            | Event::MemberDown { node, .. }
            | Event::Snapshot { node, .. }
            | Event::Missed { node, .. } => node,
        }
    }
}

/// Hands events to every reader.
#[derive(Default)]
pub(crate) struct Hub {
    readers: Mutex<Vec<Reader>>,
}

struct Reader {
    sender: Sender<Event>,
    /// How many events of each node it missed since it was last told.
    missed: BTreeMap<String, u64>,
}

impl Hub {
    /// A new reader's channel.
    pub(crate) fn subscribe(&self) -> Receiver<Event> {
        let (sender, receiver) = bounded(CHANNEL_EVENTS);
        self.readers.lock().push(Reader { sender, missed: BTreeMap::new() });
        receiver
    }

    /// Hands the event to each reader that has room, counts it for the others,
    /// and forgets those that are gone. Never blocks on a reader.
    pub(crate) fn emit(&self, event: &Event) {
        self.readers.lock().retain_mut(|reader| reader.take(event));
    }
}

impl Reader {
    /// Whether the reader is still there.
    fn take(&mut self, event: &Event) -> bool {
        // Room for the counts alone would be wasted on them. But whether the
        // reader is gone shows only when something is sent, so the patience ends.
        let room = CHANNEL_EVENTS.saturating_sub(self.sender.len());
        let missed: u64 = self.missed.values().sum();
        if 0 < room && room <= self.missed.len() && missed < CHANNEL_EVENTS as u64 {
            return self.miss(event);
        }
        while let Some((node, count)) = self.missed.pop_first() {
            match self.sender.try_send(Event::Missed { node: node.clone(), count }) {
                Ok(()) => (),
                Err(TrySendError::Full(_)) => {
                    self.missed.insert(node, count);
                    return self.miss(event);
                }
                Err(TrySendError::Disconnected(_)) => return false,
            }
        }
        match self.sender.try_send(event.clone()) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => self.miss(event),
            Err(TrySendError::Disconnected(_)) => false,
        }
    }

    fn miss(&mut self, event: &Event) -> bool {
        *self.missed.entry(event.node().to_string()).or_default() += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(node: &str, term: u64) -> Event {
        Event::Role { node: node.into(), term, role: Role::Follower }
    }

    #[test]
    fn each_reader_gets_every_event() {
        let hub = Hub::default();
        let (one, two) = (hub.subscribe(), hub.subscribe());
        hub.emit(&event("a", 1));
        assert_eq!(one.try_recv().unwrap(), event("a", 1));
        assert_eq!(two.try_recv().unwrap(), event("a", 1));
        assert!(one.try_recv().is_err());
    }

    #[test]
    fn a_slow_reader_is_told_what_it_missed_before_the_next_event() {
        let hub = Hub::default();
        let reader = hub.subscribe();
        for term in 0..CHANNEL_EVENTS as u64 + 3 {
            hub.emit(&event("a", term));
        }
        hub.emit(&event("b", 1));
        assert_eq!(reader.len(), CHANNEL_EVENTS);
        // Two nodes' counts and the event itself need three places.
        let first: Vec<Event> = reader.iter().take(2).collect();
        assert_eq!(first, [event("a", 0), event("a", 1)]);
        hub.emit(&event("a", 5000));
        assert_eq!(reader.len(), CHANNEL_EVENTS - 2, "counts alone must not be sent");
        reader.iter().take(CHANNEL_EVENTS - 2).for_each(drop);
        hub.emit(&event("b", 2));
        let rest: Vec<Event> = reader.try_iter().collect();
        assert_eq!(
            rest,
            [
                Event::Missed { node: "a".into(), count: 4 },
                Event::Missed { node: "b".into(), count: 1 },
                event("b", 2),
            ]
        );
        hub.emit(&event("a", 9));
        assert_eq!(reader.try_iter().collect::<Vec<_>>(), [event("a", 9)]);
    }

    #[test]
    fn readers_that_are_gone_are_forgotten_however_full_they_were() {
        let hub = Hub::default();
        let gone = hub.subscribe();
        let (full, nearly_full) = (hub.subscribe(), hub.subscribe());
        drop(gone);
        for term in 0..2 * CHANNEL_EVENTS as u64 {
            hub.emit(&event("a", term));
        }
        assert_eq!(hub.readers.lock().len(), 2);
        nearly_full.recv().unwrap();
        drop((full, nearly_full));
        for term in 0..CHANNEL_EVENTS as u64 + 1 {
            hub.emit(&event("a", term));
        }
        assert_eq!(hub.readers.lock().len(), 0);
    }

    #[test]
    fn every_event_is_seen_or_counted() {
        let hub = Hub::default();
        let reader = hub.subscribe();
        let names = ["a", "b", "c"];
        let mut expected = [0; 3];
        let mut seen = |event: Event| {
            let node = names.iter().position(|name| *name == event.node()).unwrap();
            match event {
                Event::Missed { count, .. } => expected[node] += count,
                Event::Role { term, .. } => {
                    assert_eq!(term, expected[node], "of {}", names[node]);
                    expected[node] += 1;
                }
                other => panic!("{other:?}"),
            }
        };
        for turn in 0..9000 {
            names.iter().for_each(|name| hub.emit(&event(name, turn)));
            // Slower than the nodes, at a pace that changes.
            reader.try_iter().take((turn % 7 / 2) as usize).for_each(&mut seen);
        }
        reader.try_iter().for_each(&mut seen);
        names.iter().for_each(|name| hub.emit(&event(name, 9000)));
        reader.try_iter().for_each(&mut seen);
        assert_eq!(expected, [9001; 3]);
    }

    #[test]
    fn the_channel_ends_with_the_hub() {
        let hub = Hub::default();
        let reader = hub.subscribe();
        hub.emit(&event("a", 1));
        drop(hub);
        assert_eq!(reader.iter().count(), 1);
        assert!(reader.recv().is_err());
    }
}
