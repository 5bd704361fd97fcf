use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::strategy::Union;

use super::*;
use crate::core::membership::{Former, MEMBERS_LIMIT, Member, Membership, Standing};
use crate::core::types::{
    ClusterId, Entry, Incarnation, Life, Payload, Protocol, Run, Term, Verdict,
};
use crate::core::verdicts::RELAPSES_MOST;
use crate::encoding::entry::{ENTRY_HAS_TERM, entry_len, operation_len, put_member};
use std::net::{SocketAddr, SocketAddrV6};

/// Small numbers, numbers around the steps of a varint, and any.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..300u64, any::<u32>().prop_map(u64::from), any::<u64>(), Just(u64::MAX)]
}

fn term() -> impl Strategy<Value = Term> {
    number().prop_map(Term)
}

fn index() -> impl Strategy<Value = Index> {
    number().prop_map(Index)
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z0-9]{1,64}", "\\PC{1,16}"]
}

fn address() -> impl Strategy<Value = SocketAddr> {
    let v4 = any::<([u8; 4], u16)>().prop_map(SocketAddr::from);
    let v6 = any::<([u8; 16], u16, u32, u32)>().prop_map(|(ip, port, flow, scope)| {
        SocketAddr::V6(SocketAddrV6::new(ip.into(), port, flow, scope))
    });
    prop_oneof![v4, v6]
}

fn member() -> impl Strategy<Value = Member> {
    let incarnation = option::of((1..=u64::MAX).prop_map(Incarnation));
    (name(), address(), incarnation, standing()).prop_map(
        |(name, address, incarnation, standing)| Member { name, address, incarnation, standing },
    )
}

fn standing() -> impl Strategy<Value = Standing> {
    prop_oneof![Just(Standing::Voter), Just(Standing::Joining), Just(Standing::Learner)]
}

fn former() -> impl Strategy<Value = Former> {
    (name(), address(), (1..=u64::MAX).prop_map(Incarnation))
        .prop_map(|(name, address, incarnation)| Former { name, address, incarnation })
}

fn membership() -> impl Strategy<Value = Membership> {
    (any::<u64>(), vec(member(), 0..8), vec(former(), 0..4)).prop_map(
        |(cluster, members, former)| {
            let mut membership = Membership::new(ClusterId(cluster), members);
            membership.members.dedup_by_key(|member| member.name.clone());
            membership.former = former;
            membership
        },
    )
}

fn client_bytes() -> impl Strategy<Value = Bytes> {
    prop_oneof![vec(any::<u8>(), 0..40), vec(any::<u8>(), 100..400)].prop_map(Bytes::from)
}

fn verdict() -> impl Strategy<Value = Verdict> {
    (1..=u64::MAX, any::<u64>(), any::<bool>(), 0..=RELAPSES_MOST).prop_map(
        |(incarnation, run, up, relapses)| {
            let life = Life { incarnation: Incarnation(incarnation), run: Run(run) };
            Verdict { life, up, relapses }
        },
    )
}

fn entry() -> impl Strategy<Value = Entry> {
    let payload = prop_oneof![
        1 => Just(Payload::Protocol(Protocol::Empty)),
        1 => membership().prop_map(|members| Payload::Protocol(Protocol::Members(Box::new(members)))),
        6 => client_bytes().prop_map(Payload::Client),
        2 => verdict().prop_map(|verdict| Payload::Protocol(Protocol::Verdict(verdict))),
    ];
    let term = prop_oneof![Just(Term(7)), term()];
    (term, payload).prop_map(|(term, payload)| Entry { term, payload })
}

fn append_entries() -> impl Strategy<Value = Message> {
    let term = prop_oneof![Just(Term(7)), term()];
    (term, number(), index(), self::term(), index(), vec(entry(), 0..20)).prop_map(
        |(term, seq, prev_log_index, prev_log_term, leader_commit, entries)| {
            Message::AppendEntries(AppendEntries {
                term,
                seq,
                prev_log_index,
                prev_log_term,
                leader_commit,
                entries,
            })
        },
    )
}

fn append_entries_reply() -> impl Strategy<Value = Message> {
    let outcome = prop_oneof![
        index().prop_map(|index| AppendOutcome::Matched { index }),
        (index(), index(), term()).prop_map(|(prev_log_index, hint_index, hint_term)| {
            AppendOutcome::Mismatch { prev_log_index, hint_index, hint_term }
        }),
        Just(AppendOutcome::Stale),
    ];
    (term(), number(), outcome).prop_map(|(term, seq, outcome)| {
        Message::AppendEntriesReply(AppendEntriesReply { term, seq, outcome })
    })
}

fn snapshot_id() -> impl Strategy<Value = SnapshotId> {
    (index(), term(), number(), any::<u32>())
        .prop_map(|(index, term, length, checksum)| SnapshotId { index, term, length, checksum })
}

/// Every kind of message, each as likely as the others.
fn message() -> impl Strategy<Value = Message> {
    Union::new([
        (name(), any::<u64>(), any::<u64>(), any::<bool>(), index())
            .prop_map(|(name, ask, echo, fresh, members)| {
                Message::Hello(Hello { name, ask, echo, fresh, members })
            })
            .boxed(),
        (index(), membership())
            .prop_map(|(index, members)| Message::Introduction(Introduction { index, members }))
            .boxed(),
        (any::<bool>(), membership())
            .prop_map(|(first, members)| Message::Found(Found { first, members }))
            .boxed(),
        (number(), term(), index(), term())
            .prop_map(|(round, term, last_log_index, last_log_term)| {
                Message::PreVote(PreVote { round, term, last_log_index, last_log_term })
            })
            .boxed(),
        (number(), term(), any::<bool>())
            .prop_map(|(round, term, granted)| {
                Message::PreVoteReply(PreVoteReply { round, term, granted })
            })
            .boxed(),
        (term(), index(), term(), any::<bool>())
            .prop_map(|(term, last_log_index, last_log_term, handed_over)| {
                let vote = RequestVote { term, last_log_index, last_log_term, handed_over };
                Message::RequestVote(vote)
            })
            .boxed(),
        (term(), any::<bool>())
            .prop_map(|(term, granted)| {
                Message::RequestVoteReply(RequestVoteReply { term, granted })
            })
            .boxed(),
        append_entries().boxed(),
        append_entries_reply().boxed(),
        (term(), number(), index(), number())
            .prop_map(|(term, seq, leader_commit, quorum_age_us)| {
                Message::Heartbeat(Heartbeat { term, seq, leader_commit, quorum_age_us })
            })
            .boxed(),
        (term(), number(), index(), index())
            .prop_map(|(term, seq, matched, verified)| {
                Message::HeartbeatReply(HeartbeatReply { term, seq, matched, verified })
            })
            .boxed(),
        (term(), index())
            .prop_map(|(term, leader_commit)| Message::Commit(Commit { term, leader_commit }))
            .boxed(),
        number().prop_map(|id| Message::ReadIndex(ReadIndex { id })).boxed(),
        (number(), index())
            .prop_map(|(id, index)| Message::ReadIndexReply(ReadIndexReply { id, index }))
            .boxed(),
        (any::<bool>(), vec(client_bytes(), 0..20))
            .prop_map(|(retry, operations)| Message::Propose(Propose { retry, operations }))
            .boxed(),
        (term(), number(), snapshot_id(), number(), client_bytes())
            .prop_map(|(term, seq, id, offset, data)| {
                Message::InstallSnapshot(InstallSnapshot { term, seq, id, offset, data })
            })
            .boxed(),
        (term(), number(), snapshot_id(), number())
            .prop_map(|(term, seq, id, received)| {
                Message::InstallSnapshotReply(InstallSnapshotReply { term, seq, id, received })
            })
            .boxed(),
        term().prop_map(|term| Message::TimeoutNow(TimeoutNow { term })).boxed(),
        index().prop_map(|index| Message::Removed(Removed { index })).boxed(),
        (number(), any::<bool>(), wish())
            .prop_map(|(id, retry, wish)| Message::Change(Change { id, retry, wish }))
            .boxed(),
        (number(), change_outcome())
            .prop_map(|(id, outcome)| Message::ChangeReply(ChangeReply { id, outcome }))
            .boxed(),
    ])
}

fn wish() -> impl Strategy<Value = Wish> {
    let add = (name(), address(), any::<bool>()).prop_map(|(name, address, voter)| Wish::Add {
        name,
        address,
        voter,
    });
    let remove = name().prop_map(|name| Wish::Remove { name });
    prop_oneof![add, remove, name().prop_map(|to| Wish::Transfer { to })]
}

fn change_outcome() -> impl Strategy<Value = ChangeOutcome> {
    let done = (index(), term(), membership())
        .prop_map(|(index, term, members)| ChangeOutcome::Done { index, term, members });
    let refused = prop::sample::select(&WHY_NOT[..]).prop_map(ChangeOutcome::Refused);
    prop_oneof![done, refused]
}

fn encoded(message: &Message) -> Vec<u8> {
    let mut out = Vec::new();
    encode_message(message, &mut out);
    out
}

fn append_of(entries: Vec<Entry>) -> AppendEntries {
    AppendEntries {
        term: Term(7),
        seq: 1,
        prev_log_index: Index(1),
        prev_log_term: Term(1),
        leader_commit: Index(1),
        entries,
    }
}

fn client_entry(term: u64, bytes: &'static [u8]) -> Entry {
    Entry { term: Term(term), payload: Payload::Client(Bytes::from_static(bytes)) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_message_comes_back(message in message()) {
        let bytes = encoded(&message);
        prop_assert_eq!(decode_message(&bytes), Ok(message.clone()));
        prop_assert_eq!(decode_shared(&Bytes::from(bytes)), Ok(message));
    }

    /// `pitfall 64`
    #[test]
    fn a_message_cut_or_followed_by_more_is_refused(message in message(), more in any::<u8>()) {
        let mut bytes = encoded(&message);
        for length in 0..bytes.len() {
            prop_assert!(decode_message(&bytes[..length]).is_err(), "{} bytes", length);
        }
        bytes.push(more);
        prop_assert!(decode_message(&bytes).is_err());
    }

    /// `pitfall 64`: what is taken is spelled as we spell it, so nothing that is
    /// not a message of ours passes for one.
    #[test]
    fn changed_bytes_are_refused_or_are_another_message(
        message in message(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = encoded(&message);
        for (at, to) in changes {
            let at = at.index(bytes.len());
            bytes[at] = to;
        }
        if let Ok(other) = decode_message(&bytes) {
            prop_assert_eq!(encoded(&other), bytes);
        }
    }

    /// `pitfall 64`
    #[test]
    fn any_bytes_are_a_message_or_refused(
        kind in 0..20u8,
        bytes in vec(prop_oneof![0..4u8, any::<u8>()], 0..200),
    ) {
        let mut whole = vec![kind];
        whole.extend(bytes);
        let taken = decode_message(&whole);
        prop_assert_eq!(&taken, &decode_shared(&Bytes::from(whole.clone())));
        if let Ok(message) = taken {
            prop_assert_eq!(encoded(&message), whole);
        }
    }

    #[test]
    fn entries_take_no_more_than_was_said(entries in vec(entry(), 0..20)) {
        let limit = APPEND_LIMIT_BYTES + entries.iter().map(entry_len).sum::<usize>();
        let append = Message::AppendEntries(append_of(entries));
        prop_assert!(encoded(&append).len() <= limit);
    }

    #[test]
    fn operations_take_what_was_said(operations in vec(client_bytes(), 0..20)) {
        let length: usize = operations.iter().map(operation_len).sum();
        let propose = Message::Propose(Propose { retry: false, operations });
        prop_assert_eq!(encoded(&propose).len(), 3 + length);
    }
}

#[test]
fn entries_of_the_leaders_term_cost_two_bytes_each() {
    let bare = encoded(&Message::AppendEntries(append_of(vec![]))).len();
    let entries = vec![client_entry(7, b"abc"); 100];
    assert_eq!(encoded(&Message::AppendEntries(append_of(entries))).len(), bare + 100 * (2 + 3));
    // A change of term costs the term, once.
    let entries = [vec![client_entry(6, b"abc"); 50], vec![client_entry(7, b"abc"); 50]].concat();
    assert_eq!(
        encoded(&Message::AppendEntries(append_of(entries))).len(),
        bare + 100 * (2 + 3) + 2
    );
}

#[test]
fn entries_share_the_bytes_of_their_message() {
    let append = Message::AppendEntries(append_of(vec![client_entry(7, b"abcd"); 500]));
    let whole = Bytes::from(encoded(&append));
    let range = whole.as_ptr_range();
    let Ok(Message::AppendEntries(shared)) = decode_shared(&whole) else { panic!() };
    let Ok(Message::AppendEntries(copied)) = decode_message(&whole) else { panic!() };
    let starts = |append: &AppendEntries| -> Vec<usize> {
        let start = |entry: &Entry| match &entry.payload {
            Payload::Client(bytes) => bytes.as_ptr() as usize,
            _ => panic!(),
        };
        append.entries.iter().map(start).collect()
    };
    assert!(starts(&shared).iter().all(|start| range.contains(&(*start as *const u8))));
    // Of the reused buffer there is one copy, and nothing points at the buffer.
    assert!(starts(&copied).iter().all(|start| !range.contains(&(*start as *const u8))));
    assert!(starts(&copied).windows(2).all(|pair| pair[1] - pair[0] == 6));
}

#[test]
fn a_heartbeat_is_small() {
    let beat = Message::Heartbeat(Heartbeat {
        term: Term(3),
        seq: 10_000,
        leader_commit: Index(1_000_000),
        quorum_age_us: 30_000,
    });
    assert_eq!(encoded(&beat).len(), 1 + 1 + 2 + 3 + 3);
}

/// `pitfall 64`: a number of things is believed only as far as bytes for them
/// are there.
#[test]
fn announced_numbers_are_bounded() {
    let claim = |kind_and_fields: &[u8], count: u64, rest: usize| {
        let mut bytes = kind_and_fields.to_vec();
        put_varint(&mut bytes, count);
        bytes.resize(bytes.len() + rest, 0);
        decode_message(&bytes).unwrap_err()
    };
    let append: &[u8] = &[KIND_APPEND_ENTRIES, 1, 1, 1, 1, 1];
    assert_eq!(claim(append, u64::MAX, 100), Refusal::TooMany);
    assert_eq!(claim(append, ENTRIES_LIMIT as u64 + 1, 100_000), Refusal::TooMany);
    assert_eq!(claim(append, 101, 100), Refusal::TooShort);
    assert_eq!(claim(&[KIND_PROPOSE, 0], u64::MAX, 100), Refusal::TooMany);
    assert_eq!(claim(&[KIND_PROPOSE, 0], 101, 100), Refusal::TooShort);
    let found: &[u8] = &[KIND_FOUND, 1, 1, 2, 3, 4, 5, 6, 7, 8];
    assert_eq!(claim(found, MEMBERS_LIMIT as u64 + 1, 10_000), Refusal::TooMany);
    assert_eq!(claim(found, 101, 100), Refusal::TooShort);
    // A piece or an operation that announces more than is there.
    assert_eq!(
        claim(&[KIND_INSTALL_SNAPSHOT, 1, 1, 1, 1, 1, 0, 0, 0, 0, 1], 101, 100),
        Refusal::TooShort
    );
    assert_eq!(decode_message(&[KIND_PROPOSE, 0, 1, 9, 1]), Err(Refusal::TooShort));
}

#[test]
fn each_refusal_names_its_reason() {
    let refusal = |bytes: &[u8]| decode_message(bytes).unwrap_err();
    assert_eq!(refusal(&[]), Refusal::TooShort);
    assert_eq!(refusal(&[0]), Refusal::Kind);
    assert_eq!(refusal(&[KIND_INTRODUCTION + 1]), Refusal::Kind);
    assert_eq!(refusal(&[KIND_READ_INDEX, 0x80, 0]), Refusal::Varint);
    assert_eq!(refusal(&[KIND_READ_INDEX, 1, 1]), Refusal::Trailing);
    assert_eq!(refusal(&[KIND_REQUEST_VOTE_REPLY, 1, 2]), Refusal::Malformed);
    assert_eq!(refusal(&[KIND_APPEND_ENTRIES_REPLY, 1, 1, 3]), Refusal::Malformed);
    let entry = |bytes: &[u8]| refusal(&[&[KIND_APPEND_ENTRIES, 7, 1, 1, 1, 1, 1], bytes].concat());
    assert_eq!(entry(&[3]), Refusal::TooShort);
    let verdict = |head: u8, incarnation: u8| [&[3, head, incarnation][..], &[0; 15]].concat();
    assert_eq!(entry(&verdict(0b1100, 1)), Refusal::Malformed); // six relapses
    assert_eq!(entry(&verdict(1, 0)), Refusal::Malformed); // nobody
    assert_eq!(entry(&[8]), Refusal::Malformed); // no such bit
    assert_eq!(entry(&[ENTRY_HAS_TERM, 7]), Refusal::Malformed); // the term it has anyway
}

fn member_named(name: &str, voter: bool) -> Member {
    let address = "127.0.0.1:1".parse().unwrap();
    let standing = if voter { Standing::Voter } else { Standing::Learner };
    let incarnation = Some(Incarnation(u64::from(name.as_bytes()[0])));
    Member { name: name.to_string(), address, incarnation, standing }
}

/// The bytes of members, whatever they are.
fn found_of(members: &[Vec<u8>]) -> Result<Message, Refusal> {
    let mut bytes = vec![KIND_FOUND, 1, 0, 0, 0, 0, 0, 0, 0, 0, members.len() as u8];
    bytes.extend(members.concat());
    bytes.push(0); // nobody is former
    decode_message(&bytes)
}

fn member_bytes(member: &Member) -> Vec<u8> {
    let mut out = Vec::new();
    put_member(member, &mut out);
    out
}

#[test]
fn members_stand_in_order_and_once() {
    let [a, a_again, b] = [("a", true), ("a", false), ("b", true)]
        .map(|(name, voter)| member_bytes(&member_named(name, voter)));
    assert!(found_of(&[a.clone(), b.clone()]).is_ok());
    assert_eq!(found_of(&[a.clone(), a_again.clone()]), Err(Refusal::Malformed));
    assert_eq!(found_of(&[b.clone(), a.clone()]), Err(Refusal::Malformed));
    assert_eq!(found_of(&[a_again, a.clone()]), Err(Refusal::Malformed));
    assert_eq!(found_of(&[a.clone(), a.clone()]), Err(Refusal::Malformed));
    // One log under two names would count twice.
    let twice = Member { name: "b".to_string(), ..member_named("a", true) };
    assert_eq!(found_of(&[a, member_bytes(&twice)]), Err(Refusal::Malformed));
}

#[test]
fn a_member_that_cannot_be_is_refused() {
    let good = member_bytes(&member_named("abc", true));
    assert!(found_of(std::slice::from_ref(&good)).is_ok());
    let changed = |at: usize, to: u8| {
        let mut bytes = good.clone();
        bytes[at] = to;
        found_of(&[bytes]).unwrap_err()
    };
    assert_eq!(changed(0, 16), Refusal::Malformed); // no such bit
    assert_eq!(changed(0, 0b1101), Refusal::Malformed); // votes, and joins
    assert_eq!(changed(1, 0), Refusal::Malformed); // no name
    assert_eq!(changed(1, 65), Refusal::Malformed); // a name too long
    assert_eq!(changed(2, 0xff), Refusal::Malformed); // a name that is no text
    let incarnation_at = good.len() - 8;
    assert_eq!(changed(incarnation_at, 0), Refusal::Malformed);
}

#[test]
#[should_panic(expected = "a name has 1 to 64 bytes")]
fn a_name_too_long_is_our_own_fault() {
    let hello = Hello { name: "n".repeat(65), ask: 0, echo: 0, fresh: true, members: Index(0) };
    encode_message(&Message::Hello(hello), &mut Vec::new());
}
