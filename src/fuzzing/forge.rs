//! Messages that say what no node would say.

use bytes::Bytes;

use crate::core::membership::{Former, Member, Membership, Standing};
use crate::core::message::{
    AppendEntries, AppendEntriesReply, AppendOutcome, Change, ChangeOutcome, ChangeReply, Commit,
    Found, Heartbeat, HeartbeatReply, Hello, InstallSnapshot, InstallSnapshotReply, Introduction,
    Message, PreVote, PreVoteReply, Propose, ReadIndex, ReadIndexReply, Removed, RequestVote,
    RequestVoteReply, TimeoutNow, WhyNot, Wish,
};
use crate::core::snapshot::SnapshotId;
use crate::core::types::{
    ClusterId, Entry, Incarnation, Index, Life, Payload, Protocol, Run, Term, Verdict,
};
use crate::operation;
use crate::request::Draft;
use crate::wire::codec;

use super::Feed;

/// What a liar knows of the cluster.
pub(super) struct Known {
    /// Terms and indexes that mean something now.
    pub(super) numbers: Vec<u64>,
    pub(super) cluster: ClusterId,
    pub(super) members: Vec<Member>,
}

/// A message of any kind, with any fields.
pub(super) fn message(feed: &mut Feed<'_>, known: &Known) -> Message {
    let kind = feed.below(21);
    let mut number = || feed.number(&known.numbers);
    match kind {
        0 => hello(feed),
        1 => Message::Found(Found { first: feed.below(2) == 0, members: membership(feed, known) }),
        2 => Message::PreVote(PreVote {
            round: number(),
            term: Term(number()),
            last_log_index: Index(number()),
            last_log_term: Term(number()),
        }),
        3 => Message::PreVoteReply(PreVoteReply {
            round: number(),
            term: Term(number()),
            granted: feed.flag(),
        }),
        4 => Message::RequestVote(RequestVote {
            term: Term(number()),
            last_log_index: Index(number()),
            last_log_term: Term(number()),
            handed_over: feed.flag(),
        }),
        5 => Message::RequestVoteReply(RequestVoteReply {
            term: Term(number()),
            granted: feed.flag(),
        }),
        6 => append(feed, known),
        7 => reply(feed, known),
        8 => Message::Heartbeat(Heartbeat {
            term: Term(number()),
            seq: number(),
            leader_commit: Index(number()),
            quorum_age_us: number(),
        }),
        9 => Message::HeartbeatReply(HeartbeatReply {
            term: Term(number()),
            seq: number(),
            matched: Index(number()),
            verified: Index(number()),
        }),
        10 => Message::Commit(Commit { term: Term(number()), leader_commit: Index(number()) }),
        11 => Message::ReadIndex(ReadIndex { id: number() }),
        12 => Message::ReadIndexReply(ReadIndexReply { id: number(), index: Index(number()) }),
        13 => {
            let (term, seq, id) = (Term(number()), number(), snapshot_id(feed, known));
            let offset = if feed.flag() { 0 } else { feed.number(&known.numbers) };
            let length = feed.below(64);
            let data = Bytes::copy_from_slice(feed.take(length));
            Message::InstallSnapshot(InstallSnapshot { term, seq, id, offset, data })
        }
        14 => {
            let (term, seq, id) = (Term(number()), number(), snapshot_id(feed, known));
            let received = feed.number(&known.numbers);
            Message::InstallSnapshotReply(InstallSnapshotReply { term, seq, id, received })
        }
        15 => Message::TimeoutNow(TimeoutNow { term: Term(number()) }),
        16 => Message::Removed(Removed { index: Index(number()) }),
        19 => {
            let index = Index(number());
            Message::Introduction(Introduction { index, members: membership(feed, known) })
        }
        17 => Message::Change(Change { id: number(), retry: feed.flag(), wish: wish(feed) }),
        18 => {
            let (id, index, term) = (number(), Index(number()), Term(number()));
            let outcome = match feed.flag() {
                true => ChangeOutcome::Done { index, term, members: membership(feed, known) },
                false => ChangeOutcome::Refused(WhyNot::AnotherChange),
            };
            Message::ChangeReply(ChangeReply { id, outcome })
        }
        _ => {
            let retry = feed.flag();
            let operations = (0..feed.below(4)).map(|_| operation(feed, known)).collect();
            Message::Propose(Propose { retry, operations })
        }
    }
}

/// A wish for a member or for nobody.
fn wish(feed: &mut Feed<'_>) -> Wish {
    let name = format!("node{}", feed.below(5));
    match feed.below(3) {
        0 => {
            let address = ([127, 0, 0, 1], u16::from(feed.byte())).into();
            Wish::Add { name, address, voter: feed.flag() }
        }
        1 => Wish::Remove { name },
        _ => Wish::Transfer { to: name },
    }
}

fn snapshot_id(feed: &mut Feed<'_>, known: &Known) -> SnapshotId {
    SnapshotId {
        index: Index(feed.number(&known.numbers)),
        term: Term(feed.number(&known.numbers)),
        length: feed.number(&known.numbers),
        checksum: feed.byte().into(),
    }
}

/// The part of a frame that says this.
pub(super) fn encoded(message: &Message) -> Vec<u8> {
    let mut part = Vec::new();
    codec::encode_message(message, &mut part);
    part
}

/// A hello in the name of a member or of nobody.
pub(super) fn hello(feed: &mut Feed<'_>) -> Message {
    let name = match feed.below(5) {
        4 => "nobody".to_string(),
        node => format!("node{node}"),
    };
    let ask = if feed.flag() { 1 + feed.u64() / 2 } else { 0 };
    let echo = if feed.below(4) == 0 { feed.u64() } else { 0 };
    let members = Index(u64::from(feed.byte()));
    Message::Hello(Hello { name, ask, echo, fresh: feed.flag(), members })
}

fn append(feed: &mut Feed<'_>, known: &Known) -> Message {
    let [term, seq, prev_log_index, prev_log_term, leader_commit] =
        [(); 5].map(|()| feed.number(&known.numbers));
    let entries = (0..feed.below(4)).map(|_| entry(feed, known)).collect();
    Message::AppendEntries(AppendEntries {
        term: Term(term),
        seq,
        prev_log_index: Index(prev_log_index),
        prev_log_term: Term(prev_log_term),
        leader_commit: Index(leader_commit),
        entries,
    })
}

fn reply(feed: &mut Feed<'_>, known: &Known) -> Message {
    let choice = feed.below(3);
    let [term, seq, first, second, third] = [(); 5].map(|()| feed.number(&known.numbers));
    let outcome = match choice {
        0 => AppendOutcome::Matched { index: Index(first) },
        1 => AppendOutcome::Mismatch {
            prev_log_index: Index(first),
            hint_index: Index(second),
            hint_term: Term(third),
        },
        _ => AppendOutcome::Stale,
    };
    Message::AppendEntriesReply(AppendEntriesReply { term: Term(term), seq, outcome })
}

fn entry(feed: &mut Feed<'_>, known: &Known) -> Entry {
    let payload = match feed.below(4) {
        0 => Payload::Protocol(Protocol::Empty),
        3 => Payload::Protocol(Protocol::Verdict(verdict(feed, known))),
        1 => Payload::Protocol(Protocol::Members(Box::new(membership(feed, known)))),
        _ => Payload::Client(operation(feed, known)),
    };
    Entry { term: Term(feed.number(&known.numbers)), payload }
}

/// Of one of the members, mostly.
fn verdict(feed: &mut Feed<'_>, known: &Known) -> Verdict {
    let incarnations = known.members.iter().filter_map(|member| member.incarnation);
    let numbers: Vec<u64> = incarnations.map(|of| of.0).collect();
    let incarnation = Incarnation(feed.number(&numbers).max(1));
    let life = Life { incarnation, run: Run(feed.number(&known.numbers)) };
    Verdict { life, up: feed.flag(), relapses: feed.below(6) as u8 }
}

/// The members as they are, with some left out and some changed.
fn membership(feed: &mut Feed<'_>, known: &Known) -> Membership {
    let mut members = known.members.clone();
    let left_out = feed.byte();
    let mut place = 0;
    members.retain(|_| {
        place += 1;
        left_out >> (place - 1) & 1 == 0
    });
    for member in &mut members {
        match feed.below(8) {
            0 => {
                let standings = [Standing::Voter, Standing::Joining, Standing::Learner];
                member.standing = standings[feed.below(3)];
            }
            1 => member.incarnation = None,
            2 => member.incarnation = Some(Incarnation(1 + feed.u64() / 2)),
            3 => member.address.set_port(u16::from(feed.byte())),
            4 => member.name = format!("node{}", feed.below(5)),
            _ => {}
        }
    }
    let cluster = if feed.flag() { ClusterId(feed.u64()) } else { known.cluster };
    let mut membership = Membership::new(cluster, members);
    membership.members.dedup_by_key(|member| member.name.clone());
    for _ in 0..feed.below(3) {
        let name = format!("node{}", feed.below(5));
        let address = ([127, 0, 0, 1], u16::from(feed.byte())).into();
        let incarnation = Incarnation(1 + feed.u64() / 2);
        membership.former.push(Former { name, address, incarnation });
    }
    membership
}

/// A client's operation, or bytes that are none.
fn operation(feed: &mut Feed<'_>, known: &Known) -> Bytes {
    let [session, seq, below] = [(); 3].map(|()| feed.number(&known.numbers));
    match feed.below(4) {
        0 => operation::open(Incarnation(session.max(1)), crate::core::types::Run(seq.max(1))),
        1 => operation::renew(Index(session), seq),
        2 => {
            let draft = Draft::new(br#"{"n":1}"#);
            let id = feed.flag().then_some("an id");
            operation::command(draft, id, Index(session), seq, seq.saturating_sub(below))
        }
        _ => {
            let count = feed.below(32);
            Bytes::copy_from_slice(feed.take(count))
        }
    }
}
