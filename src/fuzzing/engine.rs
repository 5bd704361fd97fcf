//! The engine: whole nodes, and datagrams that none of them should have got.

use std::sync::OnceLock;

use crate::core::effect::RoleName;
use crate::core::membership::Membership;
use crate::core::message::{Envelope, Message};
use crate::core::types::{ClusterId, Incarnation, Index, Life, Run};
use crate::core::{Failure, Hard};
use crate::wire::fragment::{self, Fragment};
use crate::wire::frame::{self, Frame, FrameWriter, HEADER_BYTES, Header, LOOPBACK_DATAGRAM};
use crate::wire::{Part, Refusal, decode_part};

use super::Feed;
use super::cluster::{Cluster, MILLISECOND, NODES, SECOND};
use super::forge::{self, Known};

/// A longer input is not more of a story.
const STEPS_MOST: usize = 200;
/// So often is one datagram sent again in a row, at most.
const AGAIN_MOST: usize = 32;
/// More than stands around the parts of any datagram.
const AROUND: usize = 80;
/// Behind what any run has sent itself.
const FORGED_FROM: u64 = 1 << 31;
/// A stranger may lengthen what a core shows of its peers by so much: who claims to
/// be whom, and when anybody was heard.
const SHOWN_MORE: usize = 500;

/// Three nodes, founded or not, with a secret or without, and between what they say to
/// each other, in virtual time: garbage, their own datagrams damaged, changed, late and
/// again, those of an earlier cluster and of earlier lives, messages and fragments of
/// strangers and messages forged in a member's name; requests and restarts besides.
///
/// No node panics, runs hot, holds more than its bounds, or speaks to another address
/// than those of its file, or of a newcomer whom a member names. What does not open
/// changes nothing at all and is not answered. What is not for this life, of another cluster, or from nobody who is
/// believed changes no term, vote, log, role, leader or member; but for a hello it is
/// not answered, and a hello with no more than came. Unless a message was forged in a
/// member's name, which a checksum cannot keep out, no node fails, all requests are
/// answered, what is committed is the same everywhere, and all nodes commit what they
/// are asked within seconds. With a secret the same is true of who does not hold it,
/// whatever they forge; strangers and forgers are then such that do.
pub fn engine(input: &[u8]) {
    let mut feed = Feed::new(input);
    let mut attack = Attack::new(feed.byte());
    for _ in 0..STEPS_MOST {
        if feed.is_empty() {
            break;
        }
        attack.step(&mut feed);
    }
    attack.settle();
}

struct Attack {
    cluster: Cluster,
    sealed: bool,
    /// So many datagrams were closed by hand.
    closed: u64,
    /// Whether a node has lost its memory: no second one may.
    forgot: bool,
    /// What was injected last, and where.
    last: (usize, Vec<u8>),
}

/// What became of a datagram, by the rules of `wire` and `core::lives`.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Verdict {
    /// It does not open.
    Unreadable,
    /// It is not for this life, of another cluster, or of nobody who is believed.
    Foreign,
    /// A node has sent exactly this, now or earlier.
    Replayed,
    /// It says something new in a member's name.
    Forged,
}

/// What only members may change.
#[derive(Debug, PartialEq)]
struct State {
    hard: Hard,
    last_index: Index,
    commit_index: Index,
    role: RoleName,
    leader: Option<Incarnation>,
    members: Option<Membership>,
    failure: Option<Failure>,
}

/// What a cluster at the same addresses said before this one.
fn earlier_tape(sealed: bool) -> &'static [(usize, Vec<u8>)] {
    type Tape = Vec<(usize, Vec<u8>)>;
    static TAPES: [OnceLock<Tape>; 2] = [OnceLock::new(), OnceLock::new()];
    TAPES[usize::from(sealed)].get_or_init(|| Cluster::founded(1, sealed).tape().to_vec())
}

impl Attack {
    fn new(choice: u8) -> Attack {
        let sealed = choice >= 128;
        let cluster = match choice % 4 {
            0 => Cluster::new(2, sealed),
            seed => Cluster::founded(2 + u64::from(seed), sealed),
        };
        let last = (0, Vec::new());
        Attack { cluster, sealed, closed: 0, forgot: false, last }
    }

    fn step(&mut self, feed: &mut Feed<'_>) {
        let node = feed.below(NODES);
        match feed.below(16) {
            0 | 1 => self.cluster.run(u64::from(feed.byte()) * 100),
            2 => self.cluster.run(u64::from(feed.byte()) * 4 * MILLISECOND),
            3 => {
                let count = feed.below(128);
                self.inject(node, feed.take(count).to_vec());
            }
            4 => {
                let (to, datagram) = self.taped(feed);
                self.inject(if feed.flag() { node } else { to }, datagram);
            }
            5 => self.changed(feed, false),
            6 => self.changed(feed, true),
            7 => self.readdressed(feed),
            8 => {
                let message = forge::message(feed, &self.known(node));
                let header = self.header(feed, node);
                let datagram = self.framed(&header, &[forge::encoded(&message)]);
                self.inject(node, datagram);
            }
            9 => {
                let count = 1 + feed.below(64);
                let part = feed.take(count).to_vec();
                let header = self.header(feed, node);
                if !part.is_empty() {
                    let datagram = self.framed(&header, &[part]);
                    self.inject(node, datagram);
                }
            }
            10 => self.hello(feed, node),
            11 => self.fragment(feed, node),
            12 => _ = self.cluster.request(node),
            13 => self.cluster.restart(node, true),
            14 if !self.forgot => {
                self.forgot = true;
                self.cluster.restart(node, false);
            }
            _ => {
                let (to, datagram) = self.last.clone();
                for _ in 0..feed.below(AGAIN_MOST) {
                    self.inject(to, datagram.clone());
                }
            }
        }
    }

    /// Something that was sent to a node: lately, or by an earlier cluster.
    fn taped(&self, feed: &mut Feed<'_>) -> (usize, Vec<u8>) {
        let tape = if feed.below(4) == 0 { earlier_tape(self.sealed) } else { self.cluster.tape() };
        let tape = if tape.is_empty() { earlier_tape(self.sealed) } else { tape };
        let back = feed.below(tape.len().min(512));
        tape[tape.len() - 1 - back].clone()
    }

    /// Something that was sent, with some bytes changed.
    fn changed(&mut self, feed: &mut Feed<'_>, repaired: bool) {
        let (to, mut datagram) = self.taped(feed);
        for _ in 0..=feed.below(4) {
            let place = feed.below(datagram.len());
            datagram[place] ^= feed.byte();
        }
        match feed.below(4) {
            0 => datagram.truncate(feed.below(datagram.len())),
            1 => datagram.extend_from_slice(feed.take(8)),
            _ => {}
        }
        // Who cannot seal cannot repair either.
        if repaired && !self.sealed && datagram.len() >= HEADER_BYTES {
            frame::close(&mut datagram);
        }
        self.inject(to, datagram);
    }

    /// Something that was sent, by or to somebody else.
    fn readdressed(&mut self, feed: &mut Feed<'_>) {
        let (to, datagram) = self.taped(feed);
        let mut datagram = datagram;
        let Ok(opened) = opened(&self.cluster, to, &mut datagram) else { return };
        let mut header = opened.header;
        let change = 1 + u64::from(feed.byte());
        match feed.below(7) {
            0 => header.cluster.0 ^= change,
            1 => header.from.incarnation.0 ^= change,
            2 => header.from.run.0 ^= change,
            3 => header.to.incarnation.0 ^= change,
            4 => header.to.run.0 ^= change,
            5 => header.from = self.cluster.life(feed.below(NODES)),
            _ => header.to = self.cluster.life(to),
        }
        let parts: Vec<Vec<u8>> = opened.parts.map(<[u8]>::to_vec).collect();
        let datagram = self.framed(&header, &parts);
        self.inject(to, datagram);
    }

    /// A hello of a life that nobody has, or that somebody has.
    fn hello(&mut self, feed: &mut Feed<'_>, to: usize) {
        let stranger = Life {
            incarnation: Incarnation(1 + feed.u64() / 2),
            run: Run(1 + u64::from(feed.byte())),
        };
        let from = if feed.below(4) == 0 { self.cluster.life(feed.below(NODES)) } else { stranger };
        let to_life = if feed.flag() { self.cluster.life(to) } else { Envelope::ANYONE };
        let cluster = self.some_cluster(feed);
        let parts: Vec<Vec<u8>> =
            (0..=feed.below(3)).map(|_| forge::encoded(&forge::hello(feed))).collect();
        let datagram = self.framed(&Header { cluster, from, to: to_life }, &parts);
        self.inject(to, datagram);
    }

    /// A fragment of a message that is never completed, or of one that is.
    fn fragment(&mut self, feed: &mut Feed<'_>, to: usize) {
        let header = self.header(feed, to);
        let fragment_bytes = 256 + feed.below(1_024);
        let total_bytes = feed.number(&[fragment_bytes as u64]).max(1);
        let length = total_bytes.min(fragment_bytes as u64) as usize;
        let fill = feed.byte();
        let piece = Fragment {
            id: feed.number(&[1]),
            total_bytes,
            fragment_bytes: fragment_bytes as u64,
            index: 0,
            bytes: &vec![fill; length],
        };
        let mut part = Vec::new();
        fragment::put_fragment(&piece, &mut part);
        let datagram = self.framed(&header, &[part]);
        self.inject(to, datagram);
    }

    /// A member speaks to this node, or somebody who is not quite that.
    fn header(&self, feed: &mut Feed<'_>, to: usize) -> Header {
        let mut from = self.cluster.life((to + 1 + feed.below(2)) % NODES);
        let mut to = self.cluster.life(to);
        let mut cluster = self.cluster.core(0).hard().cluster;
        match feed.below(8) {
            0 => from.incarnation.0 ^= 1 + u64::from(feed.byte()),
            1 => from.run.0 ^= 1 + u64::from(feed.byte()),
            2 => to.run.0 ^= 1 + u64::from(feed.byte()),
            3 => cluster = Some(self.some_cluster(feed)),
            _ => {}
        }
        Header { cluster: cluster.unwrap_or_default(), from, to }
    }

    fn some_cluster(&self, feed: &mut Feed<'_>) -> ClusterId {
        let own = self.cluster.core(0).hard().cluster.unwrap_or_default();
        match feed.below(4) {
            0 => ClusterId(0),
            1 => ClusterId(feed.u64()),
            _ => own,
        }
    }

    fn known(&self, node: usize) -> Known {
        let core = self.cluster.core(node);
        Known {
            numbers: vec![core.term().0, core.log().last_index().0, core.commit_index().0],
            cluster: core.hard().cluster.unwrap_or_default(),
            members: core.members().map(|members| members.members.clone()).unwrap_or_default(),
        }
    }

    fn state(&self, node: usize) -> State {
        let core = self.cluster.core(node);
        State {
            hard: core.hard().clone(),
            last_index: core.log().last_index(),
            commit_index: core.commit_index(),
            role: core.role(),
            leader: core.leader(),
            members: core.members().cloned(),
            failure: core.failure().cloned(),
        }
    }

    /// What a node must make of it. Nothing is a stranger's that could be believed.
    fn verdict(&self, to: usize, datagram: &[u8]) -> Verdict {
        let mut copy = datagram.to_vec();
        let Ok(frame) = opened(&self.cluster, to, &mut copy) else { return Verdict::Unreadable };
        let is_earlier = || earlier_tape(self.sealed).iter().any(|(_, taped)| taped == datagram);
        if self.cluster.was_sent(datagram) || is_earlier() {
            return Verdict::Replayed;
        }
        let core = self.cluster.core(to);
        let Header { cluster, from, to } = frame.header;
        // A seal of a run makes what that run says itself too old, whatever is in it.
        if self.sealed && (0..NODES).any(|node| self.cluster.life(node) == frame.header.from) {
            return Verdict::Forged;
        }
        // Who can echo has seen what only the member was asked.
        let echoes = |part| matches!(decode_part(part), Ok(Part::Message(Message::Hello(hello))) if hello.echo != 0);
        if frame.parts.clone().any(echoes) {
            return Verdict::Forged;
        }
        // What does not decode says nothing in anybody's name.
        let says_nothing = frame.parts.clone().all(|part| decode_part(part).is_err());
        let believed = core.peers().iter().any(|peer| peer.believed == Some(from));
        let ours = core.hard().cluster.is_none_or(|own| own == cluster);
        if believed && to == core.me() && ours && !says_nothing {
            Verdict::Forged
        } else {
            Verdict::Foreign
        }
    }

    /// Somebody sends this to a node.
    fn inject(&mut self, to: usize, datagram: Vec<u8>) {
        // What follows is then of this datagram alone.
        self.cluster.flush(to);
        let verdict = self.verdict(to, &datagram);
        match verdict {
            Verdict::Unreadable => {
                let before = (self.state(to), self.shown_peers(to));
                let answered = self.cluster.inject(to, &datagram);
                let after = (self.state(to), self.shown_peers(to));
                assert_eq!(after, before, "what does not open changed it");
                assert_eq!(answered, 0, "what does not open is answered");
            }
            Verdict::Foreign => {
                let (before, bytes_before) = (self.state(to), self.shown_peers(to).len());
                let most =
                    if self.may_be_answered(to, &datagram) { datagram.len() + AROUND } else { 0 };
                let answered = self.cluster.inject(to, &datagram);
                assert_eq!(self.state(to), before, "a stranger changed it");
                assert!(answered <= most, "{answered} bytes for {} that came", datagram.len());
                let bytes = self.shown_peers(to).len();
                assert!(bytes < bytes_before + SHOWN_MORE, "a stranger is remembered");
            }
            Verdict::Replayed => _ = self.cluster.inject(to, &datagram),
            Verdict::Forged => {
                self.cluster.forged = true;
                self.cluster.inject(to, &datagram);
            }
        }
        if self.sealed {
            // Whatever came of it, once is all: taken or refused, the next time it is nothing.
            let before = (self.state(to), self.shown_peers(to));
            let answered = self.cluster.inject(to, &datagram);
            assert_eq!((self.state(to), self.shown_peers(to)), before, "it is taken again");
            assert_eq!(answered, 0, "it is answered again");
        }
        if let Err(violation) = self.cluster.engine_of(to).check_bounds() {
            panic!("{violation}");
        }
        self.last = (to, datagram);
    }

    /// All that a node holds of its peers.
    fn shown_peers(&self, node: usize) -> String {
        format!("{:?}", self.cluster.core(node).peers())
    }

    /// Whether somebody says hello in it, to this life or to whoever is there. One
    /// datagram may greet in two names: then two are answered, at two addresses.
    fn may_be_answered(&self, to: usize, datagram: &[u8]) -> bool {
        let is_hello = |part| matches!(decode_part(part), Ok(Part::Message(Message::Hello(_))));
        let meant = [Envelope::ANYONE, self.cluster.life(to)];
        opened(&self.cluster, to, &mut datagram.to_vec()).is_ok_and(|frame| {
            meant.contains(&frame.header.to) && frame.parts.clone().any(is_hello)
        })
    }

    /// A frame with these parts, closed as it should be by whom it says.
    fn framed(&mut self, header: &Header, parts: &[Vec<u8>]) -> Vec<u8> {
        let mut seal = self.cluster.seal_of(header.from);
        self.closed += 1;
        seal.has_closed(FORGED_FROM + self.closed);
        let mut writer = FrameWriter::new();
        writer.begin(header, LOOPBACK_DATAGRAM, seal.closing());
        let pushed = parts.iter().filter(|part| writer.push(part)).count();
        assert_eq!(
            pushed,
            parts.len(),
            "parts of {} do not fit",
            parts.iter().map(Vec::len).sum::<usize>()
        );
        let mut datagram = writer.take(Vec::new());
        seal.close(&mut datagram);
        datagram
    }

    fn settle(mut self) {
        let cluster = &mut self.cluster;
        if cluster.forged {
            // Anything may have come of it that is no panic.
            cluster.run(SECOND);
            let counts = (0..NODES).map(|node| cluster.engine_of(node).counts().describe());
            assert!(counts.into_iter().all(|text| text.len() < 2_000));
            return;
        }
        let tickets: Vec<u64> = (0..NODES).map(|node| cluster.request(node)).collect();
        for ticket in tickets {
            let answer = cluster.answer_within(10 * SECOND, ticket);
            assert!(answer.is_ok(), "{answer:?} though nobody was forged");
        }
        if cluster.open_requests() > 0 {
            cluster.run(11 * SECOND);
        }
        assert_eq!(cluster.open_requests(), 0, "a request is never answered");
        cluster.check_agreement();
        for node in 0..NODES {
            assert_eq!(cluster.engine_of(node).failure(), None);
        }
    }
}

/// A datagram, opened as this node would that had heard nothing yet.
fn opened<'a>(cluster: &Cluster, to: usize, datagram: &'a mut [u8]) -> Result<Frame<'a>, Refusal> {
    cluster.seal_of(cluster.life(to)).open(datagram, |_| false)
}
