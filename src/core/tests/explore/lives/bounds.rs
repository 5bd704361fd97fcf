//! What bounds a run of the exploration of lives.

use super::bugs::Bug;
use super::node::NODES;
use super::step::Packet;
use crate::core::message::Message;
use crate::core::properties::Property;

/// Where a run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// All have just started, none with a memory.
    Fresh,
    /// The first has founded the cluster; all belong to it and believe each other.
    Founded,
    /// The first has founded the cluster and leads in term 1, and an entry of a client's is
    /// committed; all that came of it arrived.
    Led,
}

/// How far a run goes, and from where.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// What it is called when its size is printed.
    pub name: &'static str,
    /// So many nodes are in the file, all of them voters.
    pub voters: usize,
    pub start: Start,
    /// How often a life asks each of the others who it is; at the start of a life it asks
    /// all of them, that included. In a run that starts under a leader: beside what
    /// brought that about.
    pub asks: [[u8; NODES]; NODES],
    /// Who may stand for election, each up to a term of its own.
    pub standing: &'static [(usize, u64)],
    /// So many entries are proposed.
    pub entries: u8,
    /// So often a node loses its memory, and which may.
    pub losses: u8,
    pub losing: &'static [usize],
    /// Which messages ever arrive; the others are always lost.
    pub arrives: fn(&Packet) -> bool,
    /// Whether appends and acknowledgements that came too late to say anything are taken
    /// out of the network (`Cluster::says_nothing`).
    pub sweeps: bool,
    pub bug: Bug,
    /// Only this property is judged, if any is named.
    pub judged: Option<&'static Property>,
}

/// Who a node is, and that it is in a cluster.
pub fn founding(packet: &Packet) -> bool {
    matches!(packet.envelope.message, Message::Hello(_) | Message::Found(_))
}

/// Votes, too.
pub fn votes(packet: &Packet) -> bool {
    use Message::{RequestVote, RequestVoteReply};
    founding(packet) || matches!(packet.envelope.message, RequestVote(_) | RequestVoteReply(_))
}

/// Entries, too; that they are committed is told with the next of them.
pub fn entries(packet: &Packet) -> bool {
    use Message::{AppendEntries, AppendEntriesReply};
    votes(packet) || matches!(packet.envelope.message, AppendEntries(_) | AppendEntriesReply(_))
}

/// And commits.
pub fn commits(packet: &Packet) -> bool {
    entries(packet) || matches!(packet.envelope.message, Message::Commit(_))
}

impl Bounds {
    /// Three voters that only found.
    pub const FOUNDING: Bounds = Bounds {
        name: "founding",
        voters: 3,
        start: Start::Fresh,
        asks: [[0, 2, 2], [1, 0, 0], [1, 0, 0]],
        standing: &[],
        entries: 0,
        losses: 1,
        losing: &[],
        arrives: founding,
        sweeps: false,
        bug: Bug::None,
        judged: None,
    };
}
