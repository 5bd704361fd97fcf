//! One node of the explored cluster: the real core in one of its lives, and what the
//! fingerprint takes of it.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::super::node::{NOW, Stamp, hash_core, number_writes_anew};
use super::bounds::Bounds;
use super::bugs::Bug;
use crate::core::effect::RoleName;
use crate::core::membership::{Member, Standing};
use crate::core::message::{Envelope, Message};
use crate::core::state::{Role, Saved};
use crate::core::tests::plan::{MS, name, neighbor};
use crate::core::types::{ClusterId, Incarnation, Index, Life, Payload, Run};
use crate::core::{AppendBytes, Core, Setup};

/// How many nodes there are, at most.
pub const NODES: usize = 3;

/// A leader's messages are numbered from here on until `settle` gives them numbers of
/// their addressee's own.
const UNSETTLED: u64 = 1_000;

/// What is asked of a node again and again, looked up once.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The fingerprint of the whole node.
    pub digest: u64,
    pub leads: bool,
    pub term: u64,
    pub commit: u64,
    /// 0 while it is fresh.
    pub cluster: ClusterId,
    pub log: Vec<Stamp>,
    /// Which life of each node it believes; 0: none.
    pub believed: [u64; NODES],
    /// What it asks of each; 0: nothing.
    pub asks: [u64; NODES],
}

#[derive(Clone)]
pub struct Node {
    pub place: usize,
    pub core: Core,
    /// How often each of the others was asked, in this life, and may still be.
    pub asked: [u8; NODES],
    pub left: [u8; NODES],
    /// How many appends each member was sent, while this node leads.
    sent: BTreeMap<Incarnation, u64>,
    pub facts: Facts,
}

/// The life with this number, from 1 on, of a node that has lost its memory at the end of
/// each of those before.
pub fn life(place: usize, number: u64) -> Life {
    Life { incarnation: Incarnation(10 * (place as u64 + 1) + number), run: Run(number) }
}

/// The place of the node with this log.
pub fn place_of(incarnation: Incarnation) -> usize {
    (incarnation.0 / 10) as usize - 1
}

/// Which of that node's lives it is.
pub fn number_of(incarnation: Incarnation) -> u64 {
    incarnation.0 % 10
}

/// a, b, c in their first lives, then a', b', c' and so on.
pub fn called(incarnation: Incarnation) -> String {
    let again = number_of(incarnation).saturating_sub(1) as usize;
    name(place_of(incarnation)) + &"'".repeat(again)
}

impl Node {
    /// A node without any memory, silent.
    pub fn new(place: usize, number: u64, bounds: &Bounds) -> Node {
        let others = (0..bounds.voters).filter(|other| *other != place);
        let setup = Setup {
            own: neighbor(place, bounds.voters),
            others: others.map(|other| neighbor(other, bounds.voters)).collect(),
            heartbeat: 30 * MS,
            failure_timeout: None,
            election_timeout: (150 * MS, 300 * MS),
            founding_by_majority: bounds.bug == Bug::FoundsByMajority,
            tail_entries: 0,
            append_bytes: AppendBytes { near: 1_000, far: 1_000 },
        };
        let life = life(place, number);
        let mut core = Core::new(setup, Saved::empty(life.incarnation), life.run, 0, NOW);
        if bounds.bug == Bug::FoundsByMajority {
            core.lives.bug_has_waited_long();
        }
        Node {
            place,
            core,
            asked: [0; NODES],
            left: bounds.asks[place],
            sent: BTreeMap::new(),
            facts: Facts::default(),
        }
    }

    pub fn me(&self) -> Life {
        self.core.me()
    }

    /// Which of its lives it is.
    pub fn number(&self) -> u64 {
        number_of(self.me().incarnation)
    }

    /// The place of that node among the peers of this one.
    pub fn peer(&self, place: usize) -> usize {
        let name = name(place);
        let at = self.core.peers().iter().position(|peer| peer.node.name == name);
        at.expect("all nodes know each other")
    }

    /// Whether there is a client's entry in its log, up to there.
    pub fn has_for_clients(&self, up_to: u64) -> bool {
        let mut entries = self.core.log().from(Index(1)).filter(|(index, _)| index.0 <= up_to);
        entries.any(|(_, entry)| matches!(entry.payload, Payload::Client(_)))
    }

    /// Whether it knows that one is committed.
    pub fn has_committed_for_clients(&self) -> bool {
        self.has_for_clients(self.facts.commit)
    }

    /// After a step that sent this: what only counts begins anew, and the facts are looked
    /// up.
    pub fn settle(&mut self, sends: &mut [Envelope], bounds: &Bounds) {
        self.settle_role(sends);
        let core = &mut self.core;
        core.leader_heard_at = None;
        let fresh = core.hard.cluster.is_none();
        let founds = self.place == 0 || bounds.bug == Bug::FoundsByMajority;
        core.lives.settle(fresh, founds, NOW);
        if core.failure().is_none() {
            number_writes_anew(core);
        }
        let core = &self.core;
        let (mut believed, mut asks) = ([0; NODES], [0; NODES]);
        for (peer, ask) in core.peers().iter().zip(core.lives.asks()) {
            let place = usize::from(peer.node.name.as_bytes()[0] - b'a');
            believed[place] = peer.believed.map_or(0, |life| number_of(life.incarnation));
            asks[place] = ask;
        }
        self.facts = Facts {
            digest: self.digest(),
            leads: core.role() == RoleName::Leader,
            term: core.term().0,
            commit: core.commit_index().0,
            cluster: core.hard().cluster.unwrap_or_default(),
            log: core.log().from(Index(1)).map(|(_, entry)| Stamp::of(entry)).collect(),
            believed,
            asks,
        };
    }

    /// Pre-votes are given at once when a node stands, so who asks for them waits as a
    /// follower does. A leader's messages get numbers of their addressee's own.
    fn settle_role(&mut self, sends: &mut [Envelope]) {
        if matches!(self.core.role, Role::PreCandidate(_)) {
            self.core.role = Role::follower(None);
        }
        if !self.core.leads() {
            self.sent.clear();
        }
        let mut numbers: BTreeMap<(Incarnation, u64), u64> = BTreeMap::new();
        for envelope in sends {
            if let Message::AppendEntries(append) = &mut envelope.message {
                let to = envelope.to.incarnation;
                let number = self.sent.entry(to).or_default();
                *number += 1;
                numbers.insert((to, append.seq), *number);
                append.seq = *number;
            }
        }
        let Role::Leader(leader) = &mut self.core.role else { return };
        for (member, progress) in &mut leader.progress {
            progress.settle(|seq| numbers.get(&(*member, seq)).copied().unwrap_or(seq));
        }
        let progress = &leader.progress;
        self.sent.retain(|member, _| progress.contains_key(member));
        leader.seq = UNSETTLED;
        leader.rounds.clear();
        leader.farewells.clear();
        leader.heartbeat_at = NOW.plus(30 * MS);
    }

    /// All that can make a difference to what the node will do or be judged by.
    fn digest(&self) -> u64 {
        let Node { place, core, asked, left, sent, facts: _ } = self;
        let mut hasher = DefaultHasher::new();
        (place, asked, left, sent).hash(&mut hasher);
        hash_core(core, &mut hasher);
        core.lives.hash_all(&mut hasher);
        hasher.finish()
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let core = &self.core;
        let me = called(self.me().incarnation);
        write!(f, "{me} {} cluster {} term {}", core.role(), self.facts.cluster, core.term())?;
        if let Some(candidate) = core.hard().voted_for {
            write!(f, " voted {}", called(candidate))?;
        }
        let log = core.log().from(Index(1)).map(|(_, entry)| entry.term.to_string());
        write!(f, " log [{}]", log.collect::<Vec<_>>().join(" "))?;
        write!(f, " commit {} members", core.commit_index())?;
        for member in core.members().into_iter().flat_map(|members| &members.members) {
            write!(f, " {}", in_short(member))?;
        }
        write!(f, " believes")?;
        for peer in core.peers() {
            if let Some(life) = peer.believed {
                let fresh = if peer.fresh { " (fresh)" } else { "" };
                write!(f, " {}{fresh}", called(life.incarnation))?;
            }
        }
        write!(f, " may ask {:?}", self.left)
    }
}

fn in_short(member: &Member) -> String {
    let who = member.incarnation.map_or(String::from("?"), called);
    match member.standing {
        Standing::Voter => who,
        Standing::Joining => who + "+",
        Standing::Learner => who + "-",
    }
}
