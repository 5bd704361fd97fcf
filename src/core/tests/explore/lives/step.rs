//! One input to one node, and all that comes of it.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::super::node::{NOW, digest};
use super::super::past::{NO_PANIC, Verdict};
use super::super::step::counted;
use super::bounds::Bounds;
use super::node::{Node, called, place_of};
use super::past::alone;
use crate::core::Core;
use crate::core::effect::{Effects, Outgoing};
use crate::core::message::{Envelope, Hello, Message, PreVoteReply};
use crate::core::properties::NO_FAILURE;
use crate::core::properties::logs::COMMIT_RULE;
use crate::core::rng::Rng;
use crate::core::state::Role;
use crate::core::tests::plan::name;
use crate::core::types::{Incarnation, Index, Life};

/// An envelope of the network, and the address that it is sent to.
pub struct Packet {
    pub digest: u64,
    pub from: Life,
    /// The place at that address, whichever life is meant.
    pub to: usize,
    pub envelope: Envelope,
}

impl Packet {
    pub fn new(to: usize, envelope: Envelope) -> Packet {
        Packet { digest: digest(&(to, &envelope)), from: envelope.from, to, envelope }
    }

    /// Where its sender lives, or lived.
    pub fn sender(&self) -> usize {
        place_of(self.from.incarnation)
    }

    pub fn hello(&self) -> Option<&Hello> {
        match &self.envelope.message {
            Message::Hello(hello) => Some(hello),
            _ => None,
        }
    }

    /// What it asks its addressee to echo.
    pub fn asks(&self) -> Option<u64> {
        self.hello().map(|hello| hello.ask).filter(|ask| *ask != 0)
    }
}

impl PartialEq for Packet {
    fn eq(&self, other: &Packet) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Packet {}

impl Hash for Packet {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.digest.hash(state);
    }
}

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let to = match self.envelope.to {
            Envelope::ANYONE => name(self.to),
            life => called(life.incarnation),
        };
        let cluster = self.envelope.cluster;
        write!(
            f,
            "{}->{to} of {cluster} {:?}",
            called(self.from.incarnation),
            self.envelope.message
        )
    }
}

/// What can happen to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// It asks the node at this place who it is.
    Ask(usize),
    /// The election timer runs out, and a majority gives its pre-votes.
    Stand,
    /// A client's operation with this number.
    Propose(u8),
    Arrive(&'static Packet),
}

/// What came of a step: the node, and what it sent where.
pub struct Outcome {
    pub node: Arc<Node>,
    pub sends: Vec<(usize, Envelope)>,
    pub verdict: Verdict,
}

/// Lets the input happen to a copy of the node.
pub fn step(before: &Node, input: Input, bounds: &Bounds) -> Outcome {
    let mut node = before.clone();
    let mut verdict = Verdict::default();
    let mut sends = Vec::new();
    let lived = catch_unwind(AssertUnwindSafe(|| {
        perform(&mut node, input, bounds);
        let sent = drain(&mut node);
        let (places, mut envelopes): (Vec<usize>, Vec<Envelope>) = sent.into_iter().unzip();
        node.settle(&mut envelopes, bounds);
        sends = places.into_iter().zip(envelopes).collect();
    }));
    if lived.is_err() {
        verdict.ensure(&NO_PANIC, false);
        return Outcome { node: Arc::new(before.clone()), sends: Vec::new(), verdict };
    }
    verdict.ensure(&NO_FAILURE, node.core.failure().is_none());
    if node.core.leads() {
        verdict.ensure(&COMMIT_RULE, counted(&node.core) == node.core.commit_index());
    }
    verdict.add(alone(before, &node));
    Outcome { node: Arc::new(node), sends, verdict }
}

/// A node starts: it asks all that it may ask.
pub fn start(mut node: Node, bounds: &Bounds) -> Outcome {
    node.settle(&mut [], bounds);
    let mut all = Vec::new();
    let mut verdict = Verdict::default();
    for place in 0..bounds.voters {
        if node.left[place] > 0 {
            let outcome = step(&node, Input::Ask(place), bounds);
            node = Node::clone(&outcome.node);
            verdict.add(outcome.verdict);
            all.extend(outcome.sends);
        }
    }
    Outcome { node: Arc::new(node), sends: all, verdict }
}

fn perform(node: &mut Node, input: Input, bounds: &Bounds) {
    match input {
        Input::Ask(place) => {
            let (peer, core) = (node.peer(place), &mut node.core);
            core.rng = Rng::new(digest(&(core.me(), place, node.asked[place])));
            node.asked[place] += 1;
            node.left[place] -= 1;
            core.lives.wants_asking_now(peer);
            core.tick_lives(NOW);
        }
        Input::Stand => stand(&mut node.core),
        Input::Propose(number) => {
            node.core.propose(vec![number].into()).expect("a leader takes it");
        }
        Input::Arrive(packet) => {
            // Whoever founds draws a cluster of its own.
            let core = &mut node.core;
            core.rng = Rng::new(digest(&core.me()));
            let mut envelope = packet.envelope.clone();
            bounds.bug.at_arrival(core, &mut envelope);
            // A refusal is the core's right; what of it is wrong shows in `failure`.
            let _ = core.receive(envelope, NOW);
            bounds.bug.after_arrival(core);
        }
    }
}

/// Lets everything out until nothing comes any more. A write is done at once.
fn drain(node: &mut Node) -> Vec<(usize, Envelope)> {
    let mut effects = Effects::default();
    let mut sent = Vec::new();
    for round in 0.. {
        assert!(round < 20, "{node:?} never comes to rest");
        node.core.flush(NOW, &mut effects);
        let place = |outgoing: &Outgoing| usize::from(outgoing.address.port()) - 1;
        let told = effects.sends.drain(..).map(|out| (place(&out), out.envelope));
        sent.extend(told.filter_map(|(to, envelope)| Some((to, without_news(envelope)?))));
        match effects.write.take() {
            Some(write) => node.core.written(write.number, NOW),
            None if effects.is_empty() => break,
            None => {}
        }
    }
    sent
}

/// What a node says to one that asks it who it is, as an echo that asks nothing in turn;
/// the node itself is no other by having been asked. Its own question, if it would have
/// one, it can ask at any time.
pub fn echo(node: &Node, packet: &Packet, bounds: &Bounds) -> Option<Envelope> {
    let mut asked = node.clone();
    let peer = asked.peer(packet.sender());
    let core = &mut asked.core;
    core.lives.challenge(peer, &mut core.rng);
    asked.settle(&mut [], bounds);
    let before = asked.facts.digest;
    let _ = asked.core.receive(packet.envelope.clone(), NOW);
    let sent = drain(&mut asked);
    asked.settle(&mut [], bounds);
    assert_eq!(before, asked.facts.digest, "{node:?} is another by having been asked");
    let mut echoes = sent.into_iter().filter_map(|(_, envelope)| match envelope.message {
        Message::Hello(hello) if hello.echo == packet.asks()? => {
            let message = Message::Hello(Hello { ask: 0, ..hello });
            Some(Envelope { message, ..envelope })
        }
        other => panic!("{other:?} in answer to {packet:?}"),
    });
    echoes.next()
}

/// Every file names all three, so who introduces the members tells nobody anything; and
/// how far a hello says that its sender knows them only serves that.
fn without_news(mut envelope: Envelope) -> Option<Envelope> {
    match &mut envelope.message {
        Message::Introduction(_) => return None,
        Message::Hello(hello) => hello.members = Index(0),
        _ => {}
    }
    Some(envelope)
}

fn stand(core: &mut Core) {
    core.election_at = NOW;
    core.leader_heard_at = None;
    core.tick_election(NOW);
    let me = core.me().incarnation;
    let members = core.members().expect("only a member stands").clone();
    let others = members.voters().filter_map(|member| member.incarnation);
    for voter in others.filter(|voter: &Incarnation| *voter != me) {
        if let Role::PreCandidate(candidacy) = &core.role {
            let (round, term) = (candidacy.round, core.term());
            core.on_pre_vote_reply(voter, PreVoteReply { round, term, granted: true }, NOW);
        }
    }
    assert!(!matches!(core.role, Role::PreCandidate(_)), "stands with a majority's pre-votes");
}
