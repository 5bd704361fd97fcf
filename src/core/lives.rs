//! Lives: who is who, and how a cluster comes to be.
//!
//! A *run* is a random number drawn at each start. An *incarnation* is a random
//! number that names a log. A node whose log is empty of any cluster is *fresh*.
//!
//! Believing. Nothing but a `Hello` is taken from a life that is not believed. A
//! life is believed when it has echoed a random value that was sent to the
//! configured address of its name:
//!
//! ```text
//!   a, just started                      b
//!     Hello { ask: 7 }             ───►    who is this? ask it
//!     believes b      ◄─── Hello { ask: 9, echo: 7 }
//!     Hello { echo: 9 }            ───►    believes a
//! ```
//!
//! To believe an incarnation supersedes the name's earlier ones for good: what
//! they sent and the network still holds is dropped. Asking is repeated until it
//! is answered, so each of these may be lost, repeated and late. The members keep, with
//! the log and in snapshots, which incarnations are *former*: these are told so, and
//! are never believed under a name that another has taken since.
//!
//! Peers are the nodes of the file, and whom the log's members name, or named of late, at
//! the address that the log states. The file starts a cluster; after that it only says
//! whom else to listen to. Who is behind, or new, may be spoken to by a leader that neither
//! its file nor its log has heard of: then it asks those that it knows, and one who has
//! newer members *introduces* them. So a file need not name all members, only one that is
//! there.
//!
//! Founding. The first voter of the file, in order of names, founds when every
//! voter of the file has just echoed and said that it is fresh, in answer to a
//! challenge that was drawn when all the others were believed. It writes the
//! founding record (a new cluster id; each voter's name, address, incarnation) as
//! index 1, term 0, and passes it on; so does every holder. A fresh node adopts a
//! record that names its own incarnation.
//!
//! What is proved, and what is assumed. Let T be the moment at which the last of a
//! record's incarnations was believed: all of them were born before T and said
//! after T that they are fresh. Suppose that incarnations of a majority of the
//! names agree in another record, with a leader among them. Those that died before
//! T agreed before T; those that live on agreed after T, having said that they are
//! fresh. The leader agreed before it asked for votes, so it cannot have votes of
//! the dead if it agreed after T, nor lead by votes of the living if it died before
//! T: a whole majority had died before T, or all of that majority are named in the
//! new record too. An incarnation agrees to one record and keeps it as long as it
//! lives, so then the new record has no majority. Hence a second cluster over the
//! first needs the loss of a majority's memories. Assumed: random 64-bit numbers do
//! not repeat; a data directory is never rolled back or cloned; the file names the
//! same voters everywhere at the first start.
//!
//! `"founding": "majority"` gives this up for a start with voters missing: two
//! seconds without a sign of them, and the first voter among a fresh majority
//! founds without them. They are voters without an incarnation, lost until they
//! are first heard. A voter that lost its memory and a voter that never started
//! look the same, so this is only for those who know that there is no first
//! cluster.

mod founders;
#[cfg(test)]
mod orders;
mod peers;

use std::collections::{BTreeMap, VecDeque};

use ::core::net::SocketAddr;

use super::membership::{Member, Membership, Standing};
use super::rng::Rng;
use super::types::{ClusterId, Incarnation, Index, Life, Time};

pub use self::founders::{Founding, Own};

/// While this node is fresh it asks this often, in microseconds.
const ASK_FRESH: u64 = 200_000;
/// Asking starts at this interval and doubles up to `ASK_MOST`.
const ASK_FIRST: u64 = 50_000;
const ASK_MOST: u64 = 1_000_000;
/// Of two that do not vote neither needs the other, unless nobody else remembers: so
/// often they ask at most, and not before so long after the start.
const ASK_LEARNERS: u64 = 8_000_000;
const ASK_LEARNERS_FIRST: u64 = 2_000_000;
/// No peer is asked twice within this time, whoever claims to be it.
const ASK_GAP: u64 = 10_000;
/// A life that only claims a name is asked so often before it is let go; each new
/// sign of it starts the count anew.
const CLAIM_ASKS: u32 = 12;
/// To found, each voter must have said so recently that it is fresh.
const FRESH_FOR: u64 = 1_000_000;
/// A majority founds when the others gave no sign for so long.
const ALONE_FOR: u64 = 2_000_000;
/// So long after a start a learner of the file may still say that it remembers.
const LEARNERS_FOR: u64 = 300_000;
/// When to ask whom nobody has asked yet.
const AT_ONCE: Time = Time(0);
/// So many superseded incarnations of a name are remembered.
const SUPERSEDED_KEPT: usize = 64;

/// One node of the shared file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbor {
    /// Its name.
    pub name: String,
    /// Where it is spoken to.
    pub address: SocketAddr,
    /// Whether the file makes it a voter.
    pub voter: bool,
}

/// Another node, and the life of it that is believed.
#[derive(Clone, Debug)]
pub struct Peer {
    /// What the file says of it; its address is the log's, if that names it.
    pub node: Neighbor,
    /// Its address in the file, if it stands there.
    in_file: Option<SocketAddr>,
    /// Whether it votes, or is to, by the newest that was heard of the members, or else by
    /// the file.
    votes: bool,
    /// Whether it is met because somebody asked that it become a member.
    met: bool,
    /// Whether only the log remembers it, as one that was a member.
    former: bool,
    /// A stranger has spoken: this peer may know who that is.
    curious: bool,
    /// The life that echoed.
    pub believed: Option<Life>,
    /// Whether that life said, when it last echoed, that it is fresh.
    pub fresh: bool,
    /// The cluster that it said it belongs to; 0 if none.
    pub cluster: ClusterId,
    /// When anything was last heard of the believed life.
    pub heard_at: Option<Time>,
    /// A life that uses the name and has not echoed yet.
    claimed: Option<Life>,
    /// It speaks to an earlier run of this node, or to none: a `Hello` tells it of this
    /// one.
    misled: bool,
    /// The members name another life than the one that is believed; or none, though it
    /// belongs to this node's cluster.
    unnamed: bool,
    /// When any life last used the name.
    sign_at: Option<Time>,
    echoed_at: Option<Time>,
    /// The value that was asked for; 0: none is out.
    ask: u64,
    /// When that value was drawn, when the last one that it echoed was drawn, and
    /// when this life was first believed, in the order of all such events.
    drawn: u64,
    echoed: u64,
    born: u64,
    /// When the members last came to name other lives under this name, in the same
    /// order.
    named: u64,
    ask_at: Time,
    asked_at: Option<Time>,
    asks: u32,
    superseded: VecDeque<Incarnation>,
}

/// All other nodes.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub struct Lives {
    own_name: String,
    /// In order of name.
    peers: Vec<Peer>,
    believed: BTreeMap<Incarnation, usize>,
    started_at: Time,
    /// Counts the draws and the beliefs, to tell which came first.
    events: u64,
    /// The members as somebody introduced them, and where they are stated.
    introduced: Option<(Index, Vec<Neighbor>)>,
    /// When a stranger was last asked about.
    curious_at: Option<Time>,
}

/// What became of a `Hello`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It echoed: this life is believed now; whether it was not before.
    Believed {
        /// Which peer.
        peer: usize,
        /// Whether the life is new.
        news: bool,
    },
    /// Its life was believed before.
    Known(usize),
    /// It claims a name and must echo first.
    Claims(usize),
    /// Another life has followed it under its name.
    Superseded(usize),
}

impl Lives {
    /// The other nodes of the file, none of them heard.
    pub fn new(own_name: &str, neighbors: Vec<Neighbor>, now: Time) -> Lives {
        let in_file = |node: Neighbor| Peer { in_file: Some(node.address), ..Peer::new(node, now) };
        let mut peers: Vec<Peer> = neighbors.into_iter().map(in_file).collect();
        peers.sort_by(|a, b| a.node.name.cmp(&b.node.name));
        let own_name = own_name.to_string();
        Lives {
            own_name,
            peers,
            believed: BTreeMap::new(),
            started_at: now,
            events: 0,
            introduced: None,
            curious_at: None,
        }
    }

    /// When this node started.
    pub fn started_at(&self) -> Time {
        self.started_at
    }

    /// The peers, in order of name.
    pub fn peers(&self) -> &[Peer] {
        &self.peers
    }

    /// The peer whose believed incarnation this is.
    pub fn by_incarnation(&self, incarnation: Incarnation) -> Option<&Peer> {
        self.believed.get(&incarnation).map(|&place| &self.peers[place])
    }

    /// A message that is no `Hello` came: is it from a believed life? A new run
    /// of a believed incarnation is asked who it is.
    pub fn heard(&mut self, from: Life, now: Time) -> bool {
        let Some(&place) = self.believed.get(&from.incarnation) else { return false };
        let peer = &mut self.peers[place];
        if peer.believed == Some(from) {
            peer.heard_at = Some(now);
            return true;
        }
        peer.claim(from, now);
        false
    }

    /// A life that is believed speaks to an earlier run of this node: it has given
    /// up asking for this one, or never heard of it. This node says hello, or the
    /// two would be silent for ever if this one has nothing to say by itself.
    pub fn misaddressed(&mut self, from: Life, now: Time) {
        if let Some(&place) = self.believed.get(&from.incarnation) {
            let peer = &mut self.peers[place];
            if !peer.misled {
                peer.misled = true;
                peer.ask_soon(now);
            }
        }
    }

    /// The members name this life, or did, and it is not believed under that name: it is
    /// asked who it is; a former one even if another has taken its place, to be told.
    pub fn claims(&mut self, name: &str, from: Life, former: bool, now: Time) {
        if let Some(peer) = self.by_name_mut(name)
            && (former || !peer.superseded.contains(&from.incarnation))
        {
            peer.claim(from, now);
        }
    }

    /// A `Hello` came from `from`, which calls itself `name`; `outlived` says whether the
    /// members name a later life. `None`: the name is nobody's.
    pub fn on_hello(
        &mut self,
        name: &str,
        from: Life,
        echo: u64,
        says: Says,
        now: Time,
    ) -> Option<Heard> {
        let Ok(place) = self.place_of(name) else {
            self.ask_around(now);
            return None;
        };
        let peer = &mut self.peers[place];
        peer.curious = false;
        if says.outlived || peer.superseded.contains(&from.incarnation) {
            return Some(Heard::Superseded(place));
        }
        peer.sign_at = Some(now);
        if echo == 0 || echo != peer.ask {
            if peer.believed == Some(from) {
                peer.heard_at = Some(now);
                return Some(Heard::Known(place));
            }
            peer.claim(from, now);
            return Some(Heard::Claims(place));
        }
        let news = peer.believed != Some(from);
        if let Some(old) = peer.believed.filter(|old| old.incarnation != from.incarnation) {
            self.believed.remove(&old.incarnation);
            // Who has another cluster's log was started by mistake: the one that belongs
            // here may come back.
            if !says.foreign {
                peer.supersede(old.incarnation);
            }
        }
        self.believed.insert(from.incarnation, place);
        if news {
            self.events += 1;
            peer.born = self.events;
        }
        peer.echoed = peer.drawn;
        peer.believed = Some(from);
        (peer.fresh, peer.cluster) = (says.fresh, says.cluster);
        peer.claimed = None;
        peer.misled = false;
        peer.heard_at = Some(now);
        peer.echoed_at = Some(now);
        peer.ask = 0;
        peer.asks = 0;
        Some(Heard::Believed { peer: place, news })
    }

    /// The value that this peer has to echo; drawn when none is out.
    pub fn challenge(&mut self, place: usize, rng: &mut Rng) -> u64 {
        let peer = &mut self.peers[place];
        if peer.ask == 0 {
            peer.ask = rng.next_nonzero();
            self.events += 1;
            peer.drawn = self.events;
        }
        peer.ask
    }

    /// Whom to ask now, because time has come.
    pub fn due(&mut self, asker: Asker, now: Time) -> Vec<usize> {
        let Asker { fresh, outside, .. } = asker;
        let mut due = Vec::new();
        for (place, peer) in self.peers.iter_mut().enumerate() {
            if peer.asks >= CLAIM_ASKS && (peer.believed.is_some() || peer.former) {
                peer.claimed = None;
            }
            if peer.due_at(asker).is_none_or(|at| now < at) {
                continue;
            }
            // Who is met for a wish is asked often: the wish does not wait for long, and what
            // is lost is not to be taken for nobody there.
            let wait = match (fresh || peer.met, outside || peer.fresh || peer.unnamed) {
                (true, _) => ASK_FRESH,
                (false, true) => ASK_FRESH << peer.asks.min(3),
                (false, false) => ASK_FIRST << peer.asks.min(5),
            };
            peer.ask_at = now.plus(wait.min(ASK_MOST));
            peer.asked_at = Some(now);
            peer.asks = peer.asks.saturating_add(1);
            due.push(place);
        }
        due
    }

    /// A leader keeps asking those of its cluster whom the members do not name, as
    /// it does the fresh: they may have to be admitted once more. And whose name the
    /// members give to another life: it may be there, and take itself for removed.
    pub fn watch_unnamed(&mut self, members: Option<&Membership>) {
        for peer in &mut self.peers {
            peer.unnamed = match (members, peer.believed) {
                (Some(members), Some(Life { incarnation: believed, .. })) => {
                    let former = members.is_former(believed);
                    let member = members.named(&peer.node.name);
                    let superseded = former && member.is_some_and(|m| m.incarnation.is_some());
                    let ours = peer.cluster == members.cluster;
                    !members.names(believed) && (superseded || ours && !former)
                }
                _ => false,
            };
        }
    }

    /// A stranger has spoken: whoever is known is asked who that might be.
    fn ask_around(&mut self, now: Time) {
        if self.curious_at.is_some_and(|at| now.since(at) < ASK_MOST) {
            return;
        }
        self.curious_at = Some(now);
        for peer in self.peers.iter_mut().filter(|peer| peer.believed.is_some()) {
            peer.curious = true;
            peer.ask_soon(now);
        }
    }

    /// When the next asking is due.
    pub fn deadline(&self, asker: Asker) -> Option<Time> {
        self.peers.iter().filter_map(|peer| peer.due_at(asker)).min()
    }

    /// These have to say once more that they are fresh.
    pub fn ask_again(&mut self, names: &[String], now: Time) {
        for peer in self.peers.iter_mut().filter(|peer| names.contains(&peer.node.name)) {
            peer.ask_soon(now);
        }
    }

    /// The names of those peers, in order.
    pub fn names(&self, which: impl Fn(&Peer) -> bool) -> Vec<String> {
        self.peers.iter().filter(|peer| which(peer)).map(|peer| peer.node.name.clone()).collect()
    }

    /// The members as they are when a life that is believed takes the place of the one
    /// that its name had: one that is fresh, or that belongs to this cluster already
    /// because the entry that admitted it was lost with a leader. A voter that was never
    /// heard becomes what the founding record made it; a voter that forgot has to join
    /// anew. `None`: nobody comes back.
    pub fn comeback(&self, members: &Membership, now: Time) -> Option<Membership> {
        self.peers.iter().find_map(|peer| {
            let life = peer.believed?;
            // An answer to a challenge of before may be of an older life than the one
            // that is named, and that one would be superseded by it for good.
            let recent = peer.echoed > peer.named
                && peer.echoed_at.is_some_and(|at| now.since(at) <= FRESH_FOR);
            let ours = peer.fresh || peer.cluster == members.cluster;
            // Looked at with each commit, so what is quickly said comes first.
            if !ours
                || !recent
                || members.names(life.incarnation)
                || members.is_former(life.incarnation)
            {
                return None;
            }
            let was = members.named(&peer.node.name)?;
            let standing = match (was.standing, was.incarnation) {
                (Standing::Voter, Some(_)) => Standing::Joining,
                (standing, _) => standing,
            };
            let incarnation = Some(life.incarnation);
            members.with(Member { incarnation, standing, ..was.clone() })
        })
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    /// Whether its log is empty.
    pub fresh: bool,
    /// Whether it knows nobody who tells it anything, and may not campaign.
    pub outside: bool,
    /// Whether it votes, by the members or else by its file.
    pub votes: bool,
    /// When it started.
    pub started_at: Time,
}

/// What a `Hello` says of its sender, and what this node knows of that.
#[derive(Clone, Copy, Debug)]
pub struct Says {
    /// Whether its log is empty.
    pub fresh: bool,
    /// The cluster that it belongs to; 0 if none.
    pub cluster: ClusterId,
    /// Whether that is another than this node's.
    pub foreign: bool,
    /// Whether the members name a later life under its name.
    pub outlived: bool,
}

impl Peer {
    fn new(node: Neighbor, now: Time) -> Peer {
        Peer {
            in_file: None,
            votes: node.voter,
            node,
            met: false,
            former: false,
            curious: false,
            believed: None,
            fresh: false,
            cluster: ClusterId(0),
            heard_at: None,
            claimed: None,
            misled: false,
            unnamed: false,
            sign_at: None,
            echoed_at: None,
            ask: 0,
            drawn: 0,
            echoed: 0,
            born: 0,
            named: 0,
            ask_at: now,
            asked_at: None,
            asks: 0,
            superseded: VecDeque::new(),
        }
    }

    /// Whether a life uses its name that has not echoed.
    pub fn is_claimed(&self) -> bool {
        self.claimed.is_some()
    }

    /// Its address is another: who was spoken to at the old one is not known to live
    /// there.
    fn move_to(&mut self, address: SocketAddr) {
        if self.node.address != address {
            self.node.address = address;
            self.believed = None;
            self.claimed = None;
            self.ask = 0;
            self.ask_at = AT_ONCE;
            self.asks = 0;
        }
    }

    fn supersede(&mut self, incarnation: Incarnation) {
        if self.superseded.len() == SUPERSEDED_KEPT {
            self.superseded.pop_front();
        }
        self.superseded.push_back(incarnation);
    }

    fn claim(&mut self, life: Life, now: Time) {
        self.sign_at = Some(now);
        if self.claimed != Some(life) {
            self.claimed = Some(life);
            self.ask_soon(now);
        }
    }

    fn ask_soon(&mut self, now: Time) {
        let soonest = self.asked_at.map_or(now, |at| now.max(at.plus(ASK_GAP)));
        self.ask_at = self.ask_at.min(soonest);
        self.asks = 0;
    }

    /// When it is asked next, if at all. Fresh nodes ask everybody, as do others that are
    /// outside, and everybody asks the fresh: what a node says of an empty log must be
    /// recent for anything to be built on it.
    fn due_at(&self, asker: Asker) -> Option<Time> {
        if self.is_pressing() {
            return Some(self.ask_at);
        }
        let unknown = self.believed.is_none() && !self.former;
        let wanted = self.fresh || unknown || self.unnamed;
        match (asker.votes || self.votes, asker.outside) {
            (true, outside) => (outside || wanted).then_some(self.ask_at),
            (false, true) => Some(
                self.asked_at
                    .map_or(asker.started_at.plus(ASK_LEARNERS_FIRST), |at| at.plus(ASK_LEARNERS)),
            ),
            (false, false) => None,
        }
    }

    /// Whether something has come up that only it can answer.
    fn is_pressing(&self) -> bool {
        self.met || self.curious || self.claimed.is_some() || self.misled
    }
}
