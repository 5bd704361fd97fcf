//! The way to each other node: messages into frames, and back.
//!
//! Small messages to one node share a datagram; a message that no datagram holds
//! goes in fragments, of which the lost ones are sent again (`wire::fragment`).
//! The links hold nothing for a life that is not believed: fragments of others
//! are dropped before they take any memory.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::config::MAX_VALUE_BYTES;
use crate::core::effect::Outgoing as Post;
use crate::core::message::{AppendEntriesReply, AppendOutcome, Envelope, Message};
use crate::core::types::{Entry, Life, Time};
use crate::core::{AppendBytes, Core};
use crate::operation::Operation;
use crate::wire::fragment::{Incoming, Outgoing};
use crate::wire::frame::{self, FrameWriter, Header};
use crate::wire::seal::Seal;
use crate::wire::{Part, Refusal, codec, decode_part};

use super::Output;
use super::counts::Counts;
use super::early::Early;

/// Room that is left for what stands around the entries of an append.
const AROUND_ENTRIES: usize = 128;
/// So many bytes of long messages are on their way to, and held from, one node:
/// two of the greatest value that a config allows, and what stands around them.
/// A constant, so that nodes whose files differ can still speak to each other.
pub(super) const LONG_BYTES: usize = 2 * (MAX_VALUE_BYTES + 4096);
/// Of a long message's fragments something new must come within this time.
const FRAGMENTS_FOR: u64 = 10_000_000;
/// So many buffers of datagrams are kept to be used again, at least and at most.
const BUFFERS_KEPT: std::ops::RangeInclusive<usize> = 4..=64;
/// Those that are not used go one by one: one after so many flushes.
const BUFFER_UNUSED_FOR: u32 = 16;

/// How many bytes of entries fit in one datagram.
pub(crate) const APPEND_BYTES: AppendBytes = AppendBytes {
    near: frame::part_limit(frame::LOOPBACK_DATAGRAM) - AROUND_ENTRIES,
    far: frame::part_limit(frame::PATH_DATAGRAM) - AROUND_ENTRIES,
};

/// The ways to all other nodes: made when there is something to send, and let go with
/// the peers that they lead to.
#[derive(Debug)]
pub(super) struct Links {
    own: SocketAddr,
    links: Vec<Link>,
    early: Early,
    /// A message's bytes, on their way into a frame.
    scratch: Vec<u8>,
    finisher: Finisher,
}

/// What closes the frames of all links, and opens what comes.
#[derive(Debug)]
struct Finisher {
    seal: Seal,
    buffers: Buffers,
}

/// Of datagrams that were sent, for the next ones: what is allocated anew for each is
/// copied while it grows, and comes from the operating system page by page.
#[derive(Debug, Default)]
struct Buffers {
    kept: Vec<Vec<u8>>,
    /// How many flushes have used fewer than there are.
    unused_for: u32,
}

impl Buffers {
    /// One to write in.
    fn take(&mut self) -> Vec<u8> {
        self.kept.pop().unwrap_or_default()
    }

    /// Takes back what one flush has used.
    fn take_back(&mut self, datagrams: &mut Vec<(SocketAddr, Vec<u8>)>) {
        let unused = self.kept.len() > *BUFFERS_KEPT.start();
        self.unused_for = if unused { self.unused_for + 1 } else { 0 };
        if self.unused_for > BUFFER_UNUSED_FOR {
            self.unused_for = 0;
            self.kept.remove(0);
        }
        for (_, mut buffer) in datagrams.drain(..) {
            if self.kept.len() < *BUFFERS_KEPT.end() {
                buffer.clear();
                self.kept.push(buffer);
            }
        }
    }
}

/// The way to one other node.
#[derive(Debug)]
struct Link {
    address: SocketAddr,
    capacity: usize,
    frame: FrameWriter,
    /// Who speaks to whom in the frame that is being written, if one is.
    header: Option<Header>,
    /// The life whose fragments these are.
    peer: Life,
    outgoing: Outgoing,
    incoming: Incoming,
    acknowledge: bool,
}

impl Links {
    pub(super) fn new(own: SocketAddr, seal: Seal) -> Links {
        let finisher = Finisher { seal, buffers: Buffers::default() };
        let (links, early, scratch) = (Vec::new(), Early::default(), Vec::new());
        Links { own, links, early, scratch, finisher }
    }

    /// Where the link to that address stands; it is made if there is none.
    fn place_of(&mut self, address: SocketAddr) -> usize {
        let known = self.links.iter().position(|link| link.address == address);
        known.unwrap_or_else(|| {
            self.links.push(Link::new(self.own, address));
            self.links.len() - 1
        })
    }

    /// Lets go what leads to nobody any more.
    fn prune(&mut self, core: &Core) {
        if self.links.len() > core.peers().len() {
            let leads = |link: &Link| core.peers().iter().any(|p| p.node.address == link.address);
            self.links.retain(leads);
        }
    }

    /// Takes a datagram apart and gives the core what is whole.
    pub(super) fn receive(
        &mut self,
        datagram: &mut [u8],
        core: &mut Core,
        counts: &mut Counts,
        now: Time,
    ) {
        counts.received += 1;
        let believed = |life| core.peers().iter().any(|peer| peer.believed == Some(life));
        let frame = match self.finisher.seal.open(datagram, believed) {
            Ok(frame) => frame,
            Err(refusal) => return counts.refuse(refusal),
        };
        for part in frame.parts {
            match decode_part(part) {
                Err(refusal) => counts.refuse(refusal),
                Ok(Part::Message(message)) => {
                    if is_mismatch(&message)
                        && let Some(link) = self.of(&frame.header, core)
                    {
                        link.outgoing.forget_arrived();
                    }
                    self.deliver(&frame.header, message, core, counts, now);
                }
                Ok(Part::Fragment(fragment)) => {
                    let Some(link) = self.of(&frame.header, core) else {
                        counts.drop_message(crate::core::Refused::NotBelieved);
                        continue;
                    };
                    link.acknowledge = true;
                    match link.incoming.on_fragment(now, &fragment) {
                        Ok(None) => {}
                        Ok(Some(whole)) => match codec::decode_shared(&whole) {
                            Ok(message) => self.deliver(&frame.header, message, core, counts, now),
                            Err(refusal) => counts.refuse(refusal),
                        },
                        Err(refusal) => counts.refuse(refusal),
                    }
                }
                Ok(Part::FragmentAck(ack)) => match self.of(&frame.header, core) {
                    Some(link) => link.outgoing.on_ack(now, &ack),
                    None => counts.drop_message(crate::core::Refused::NotBelieved),
                },
            }
        }
    }

    /// Gives a message to the core, and after an append what waited for it.
    fn deliver(
        &mut self,
        header: &Header,
        message: Message,
        core: &mut Core,
        counts: &mut Counts,
        now: Time,
    ) {
        let appends = matches!(message, Message::AppendEntries(_));
        let early = Early::copy(&message, core.log().last_index());
        let taken = deliver(header, message, core, counts, now);
        match early {
            Some(append) if taken => self.early.hold(*header, append, core.term()),
            None if taken && appends => {
                while let Some((header, message)) =
                    self.early.next(core.term(), core.log().last_index())
                {
                    deliver(&header, message, core, counts, now);
                }
            }
            _ => {}
        }
    }

    /// The link of a believed life; what was under way to and from an earlier
    /// life of that node is forgotten.
    fn of(&mut self, header: &Header, core: &Core) -> Option<&mut Link> {
        if !core.belongs(header.cluster, header.from, header.to) {
            return None;
        }
        let peer = core.peers().iter().find(|peer| peer.believed == Some(header.from))?;
        let place = self.place_of(peer.node.address);
        let link = &mut self.links[place];
        link.meet(header.from);
        Some(link)
    }

    /// Puts a message into the frame for its addressee.
    pub(super) fn send<T>(&mut self, post: Post, output: &mut Output<T>, now: Time) {
        let Post { address, envelope } = post;
        let place = self.place_of(address);
        let link = &mut self.links[place];
        let header = Header { cluster: envelope.cluster, from: envelope.from, to: envelope.to };
        // What is on its way already is not put in twice, nor even encoded: it
        // arrives, or is sent again.
        let size = bulk(&envelope.message);
        let long = size + AROUND_ENTRIES > frame::part_limit(link.capacity);
        let tag = if long { long_tag(&envelope.message, &header) } else { None };
        let there = |tag| link.outgoing.has_tag(tag) || link.outgoing.has_arrived(tag, now);
        if tag.is_some_and(|tag| link.peer == envelope.to && there(tag)) {
            return;
        }
        if tag.is_none() {
            let write = |out: &mut Vec<u8>| codec::encode_message(&envelope.message, out);
            let mut writer = link.writer();
            writer.make_room(&header, size, &mut self.finisher, output);
            if writer.write(&mut self.scratch, write) {
                return;
            }
        } else {
            self.scratch.clear();
            codec::encode_message(&envelope.message, &mut self.scratch);
        }
        if self.scratch.len() > frame::part_limit(link.capacity) {
            link.meet(envelope.to);
            // What finds no room is lost, as on a full network.
            link.outgoing.push(tag.unwrap_or(0), Bytes::copy_from_slice(&self.scratch));
            link.poll(&header, &mut self.finisher, output, now);
            return;
        }
        link.push(&header, &self.scratch, &mut self.finisher, output);
    }

    /// Lets out what was written, and what is due of long messages.
    pub(super) fn finish<T>(&mut self, core: &Core, output: &mut Output<T>, now: Time) {
        for link in &mut self.links {
            if link.acknowledge || !link.outgoing.is_empty() {
                let cluster = core.hard().cluster.unwrap_or_default();
                let header = Header { cluster, from: core.me(), to: link.peer };
                link.poll(&header, &mut self.finisher, output, now);
            }
            link.seal(&mut self.finisher, output);
        }
        self.early.forget_others(core.term());
        self.prune(core);
    }

    pub(super) fn tick(&mut self, now: Time) {
        for link in &mut self.links {
            link.incoming.expire(now);
        }
    }

    pub(super) fn deadline(&self) -> Time {
        let due = self
            .links
            .iter()
            .flat_map(|link| [link.outgoing.deadline(), link.incoming.deadline()])
            .flatten();
        due.min().unwrap_or(Time(u64::MAX))
    }

    /// How much is held of long messages from and to each other node.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn held_bytes(&self) -> impl Iterator<Item = (usize, usize)> {
        self.links.iter().map(|link| (link.incoming.held_bytes(), link.outgoing.held_bytes()))
    }

    pub(super) fn recycle(&mut self, datagrams: &mut Vec<(SocketAddr, Vec<u8>)>) {
        self.finisher.buffers.take_back(datagrams);
    }
}

impl Link {
    fn new(own: SocketAddr, address: SocketAddr) -> Link {
        let capacity = frame::datagram_bytes(own, address);
        Link {
            address,
            capacity,
            frame: FrameWriter::new(),
            header: None,
            peer: Envelope::ANYONE,
            outgoing: Outgoing::new(frame::part_limit(capacity), LONG_BYTES, FRAGMENTS_FOR),
            incoming: Incoming::new(LONG_BYTES, FRAGMENTS_FOR),
            acknowledge: false,
        }
    }

    fn meet(&mut self, peer: Life) {
        if self.peer != peer {
            self.peer = peer;
            // Cleared and not made anew: the numbers of fragments belong to this
            // node's run, whoever hears them.
            self.outgoing.clear();
            self.incoming.clear();
            self.acknowledge = false;
        }
    }

    /// Lets out the fragments and acknowledgements that are due.
    fn poll<T>(
        &mut self,
        header: &Header,
        finisher: &mut Finisher,
        output: &mut Output<T>,
        now: Time,
    ) {
        let Link { outgoing, incoming, frame, header: begun, address, capacity, .. } = self;
        let mut writer = Writer { frame, begun, address: *address, capacity: *capacity };
        if std::mem::take(&mut self.acknowledge) {
            incoming.poll_acks(&mut |part| writer.push(header, part, finisher, output));
        }
        outgoing.poll(now, &mut |part| writer.push(header, part, finisher, output));
    }

    fn push<T>(
        &mut self,
        header: &Header,
        part: &[u8],
        finisher: &mut Finisher,
        output: &mut Output<T>,
    ) {
        self.writer().push(header, part, finisher, output);
    }

    fn seal<T>(&mut self, finisher: &mut Finisher, output: &mut Output<T>) {
        self.writer().seal(finisher, output);
    }

    fn writer(&mut self) -> Writer<'_> {
        Writer {
            frame: &mut self.frame,
            begun: &mut self.header,
            address: self.address,
            capacity: self.capacity,
        }
    }
}

/// A link's frame, while parts are put in.
struct Writer<'a> {
    frame: &'a mut FrameWriter,
    begun: &'a mut Option<Header>,
    address: SocketAddr,
    capacity: usize,
}

impl Writer<'_> {
    fn push<T>(
        &mut self,
        header: &Header,
        part: &[u8],
        finisher: &mut Finisher,
        output: &mut Output<T>,
    ) {
        if self.begun.as_ref() == Some(header) && self.frame.push(part) {
            return;
        }
        self.begin(header, finisher, output);
        let fits = self.frame.push(part);
        assert!(fits, "a part of {} bytes does not fit an empty frame", part.len());
    }

    /// Begins a frame unless there is one, with room for so many bytes at least.
    fn make_room<T>(
        &mut self,
        header: &Header,
        bytes: usize,
        finisher: &mut Finisher,
        output: &mut Output<T>,
    ) {
        if self.begun.as_ref() != Some(header) || self.frame.room() < bytes {
            self.begin(header, finisher, output);
        }
        self.frame.reserve(bytes + AROUND_ENTRIES);
    }

    /// Adds a part in place. False: it does not fit behind what is there, and is in
    /// `spill`.
    fn write(&mut self, spill: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let fits = self.frame.write(spill, write);
        if self.frame.is_empty() {
            *self.begun = None;
        }
        fits
    }

    /// Begins a frame, behind the one that was written.
    fn begin<T>(&mut self, header: &Header, finisher: &mut Finisher, output: &mut Output<T>) {
        self.seal(finisher, output);
        self.frame.begin(header, self.capacity, finisher.seal.closing());
        *self.begun = Some(*header);
    }

    fn seal<T>(&mut self, finisher: &mut Finisher, output: &mut Output<T>) {
        if self.begun.take().is_some() {
            let mut datagram = self.frame.take(finisher.buffers.take());
            finisher.seal.close(&mut datagram);
            output.datagrams.push((self.address, datagram));
        }
    }
}

/// How many bytes of what clients want are in a message, without what stands around them.
fn bulk(message: &Message) -> usize {
    match message {
        Message::AppendEntries(append) => append.entries.iter().map(Entry::size_bytes).sum(),
        Message::Propose(propose) => propose.operations.iter().map(Bytes::len).sum(),
        _ => 0,
    }
}

/// What tells a message that no datagram may hold from others: an append by what it
/// continues (a leader never rewrites its log within a term), operations by how they
/// begin, which names session and number. Never 0.
fn long_tag(message: &Message, header: &Header) -> Option<u64> {
    const APPEND: u64 = 1 << 32;
    const PROPOSE: u64 = 2 << 32;
    let mut hasher = crc32fast::Hasher::new();
    match message {
        Message::AppendEntries(append) => {
            for number in [append.prev_log_index.0, append.term.0, header.from.run.0] {
                hasher.update(&number.to_le_bytes());
            }
            Some(APPEND | u64::from(hasher.finalize()))
        }
        Message::Propose(propose) => {
            for operation in &propose.operations {
                hasher.update(&operation[..operation.len().min(32)]);
            }
            Some(PROPOSE | u64::from(hasher.finalize()))
        }
        _ => None,
    }
}

/// Whether entries came before those that they continue, so that they must come
/// again: long messages overtake each other when some of their fragments are lost.
fn is_mismatch(message: &Message) -> bool {
    matches!(
        message,
        Message::AppendEntriesReply(AppendEntriesReply {
            outcome: AppendOutcome::Mismatch { .. },
            ..
        })
    )
}

/// Gives a message to the core; says whether it took it. Operations that nobody could
/// read are refused before they could reach a log.
fn deliver(
    header: &Header,
    message: Message,
    core: &mut Core,
    counts: &mut Counts,
    now: Time,
) -> bool {
    if let Message::Propose(propose) = &message
        && propose.operations.iter().any(|operation| Operation::decode(operation).is_none())
    {
        counts.refuse(Refusal::Malformed);
        return false;
    }
    let Header { cluster, from, to } = *header;
    let taken = core.receive(Envelope { cluster, from, to, message }, now);
    taken.map_err(|refused| counts.drop_message(refused)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::membership::{Member, Membership, Standing};
    use crate::core::message::{AppendEntries, Introduction};
    use crate::core::types::{ClusterId, Incarnation, Index, Payload, Run, Term};

    fn datagrams(count: usize) -> Vec<(SocketAddr, Vec<u8>)> {
        let to = "127.0.0.1:1".parse().expect("an address");
        (0..count).map(|_| (to, Vec::with_capacity(100))).collect()
    }

    /// A turn with many datagrams makes the next one quick, and when there are no more such
    /// turns their memory is given back.
    #[test]
    fn buffers_are_kept_while_they_are_used() {
        let mut buffers = Buffers::default();
        buffers.take_back(&mut datagrams(30));
        for _ in 0..1_000 {
            let mut taken: Vec<_> = datagrams(30);
            taken.iter_mut().for_each(|(_, buffer)| *buffer = buffers.take());
            assert!(taken.iter().all(|(_, buffer)| buffer.capacity() == 100));
            buffers.take_back(&mut taken);
        }
        buffers.take_back(&mut datagrams(1_000));
        assert_eq!(buffers.kept.len(), *BUFFERS_KEPT.end());
        for _ in 0..2_000 {
            buffers.take();
            buffers.take_back(&mut datagrams(1));
        }
        assert!(buffers.kept.len() <= BUFFERS_KEPT.start() + 1, "{}", buffers.kept.len());
    }

    /// It is written where it stays, and not behind what it does not fit behind: that would
    /// grow a buffer to twice its length, and copy it.
    #[test]
    fn an_append_that_does_not_fit_behind_another_begins_a_datagram() {
        let [here, there] = ["127.0.0.1:1", "127.0.0.1:2"].map(|at| at.parse().expect("one"));
        let life = |number| Life { incarnation: Incarnation(number), run: Run(number) };
        let mut links = Links::new(here, Seal::Checksum);
        let mut output = Output::<()>::default();
        for seq in 1..=3 {
            let payload = Payload::Client(vec![b'x'; 40_000].into());
            let append = AppendEntries {
                term: Term(1),
                seq,
                prev_log_index: Index(seq),
                prev_log_term: Term(1),
                leader_commit: Index(1),
                entries: vec![Entry { term: Term(1), payload }],
            };
            let message = Message::AppendEntries(append);
            let envelope = Envelope { cluster: ClusterId(1), from: life(1), to: life(2), message };
            links.send(Post { address: there, envelope }, &mut output, Time(0));
        }
        links.links[0].seal(&mut links.finisher, &mut output);
        assert_eq!(output.datagrams.len(), 3);
        for (_, datagram) in &output.datagrams {
            assert!(datagram.capacity() <= frame::LOOPBACK_DATAGRAM, "{}", datagram.capacity());
        }
    }

    /// Members that no datagram of a network holds, until no fragment more may leave: no
    /// frame is begun then that nothing is in.
    #[test]
    fn a_long_message_that_finds_no_room_leaves_no_empty_frame() {
        let [here, there] = ["10.0.0.1:1", "10.0.0.2:1"].map(|at| at.parse().expect("an address"));
        let life = |number| Life { incarnation: Incarnation(number), run: Run(number) };
        let member = |number: u64| Member {
            name: format!("{number:060}"),
            address: there,
            incarnation: Some(Incarnation(number)),
            standing: Standing::Learner,
        };
        let cluster = ClusterId(1);
        let members = Membership::new(cluster, (1..=100).map(member).collect());
        let told = Message::Introduction(Introduction { index: Index(1), members });
        let envelope = Envelope { cluster, from: life(1), to: life(2), message: told };
        let mut links = Links::new(here, Seal::Checksum);
        let mut output = Output::<()>::default();
        for _ in 0..100 {
            let post = Post { address: there, envelope: envelope.clone() };
            links.send(post, &mut output, Time(0));
            links.links[0].seal(&mut links.finisher, &mut output);
        }
        assert!((1..100).contains(&output.datagrams.len()), "{}", output.datagrams.len());
    }
}
