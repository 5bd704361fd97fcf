//! A snapshot as bytes: what travels in pieces, and what stands on the disk.
//!
//! ```text
//!   1 version (3)
//!   n index, n term         the last entry that it covers
//!   n members index         where its members were stated
//!   members                 as in an entry, with the cluster
//!   n count, then each      who of them is up: name, n index, and a verdict as in an
//!                           entry; in order of name, each a member
//!   the rest                the replicated state, with the state machine's own
//! ```
//!
//! What names a snapshot, `SnapshotId`, has the length and the checksum of these
//! bytes: they are opened once, when they have come whole, and trusted after.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::core::membership::{MEMBERS_LIMIT, Membership};
use crate::core::snapshot::{SNAPSHOT_LIMIT_BYTES, Snapshot, SnapshotId};
use crate::core::types::{Index, Term, Verdict};
use crate::core::verdicts::{Agreed, Verdicts};

use super::Refusal;
use super::cursor::{Cursor, put_varint};
use super::entry::{
    put_membership, put_name, put_verdict, take_membership, take_name, take_term, take_verdict,
};

const VERSION: u8 = 3;

/// Makes a snapshot of what `state` says of the log up to an entry.
pub fn make(
    (index, term): (Index, Term),
    (members_index, members): (Index, &Membership),
    verdicts: &Verdicts,
    state: &[u8],
) -> Snapshot {
    assert!(members_index <= index, "members of {members_index} in a snapshot at {index}");
    let mut data = Vec::with_capacity(state.len() + 64 + members.members.len() * 64);
    data.push(VERSION);
    for number in [index.0, term.0, members_index.0] {
        put_varint(&mut data, number);
    }
    put_membership(members, &mut data);
    put_verdicts(verdicts, &mut data);
    data.extend_from_slice(state);
    let id =
        SnapshotId { index, term, length: data.len() as u64, checksum: crc32fast::hash(&data) };
    let (members, verdicts) = (members.clone(), verdicts.clone());
    Snapshot { id, members_index, members, verdicts, data: Bytes::from(data) }
}

/// The snapshot that these bytes are, if they are those of `id`.
pub fn open(id: SnapshotId, data: Bytes) -> Result<Snapshot, Refusal> {
    if data.len() as u64 != id.length || id.length > SNAPSHOT_LIMIT_BYTES {
        return Err(Refusal::TooLarge);
    }
    if crc32fast::hash(&data) != id.checksum {
        return Err(Refusal::Checksum);
    }
    let mut cursor = Cursor::shared(&data);
    let head = take_head(&mut cursor)?;
    let Head { index, term, members_index, members, verdicts } = head;
    let late = verdicts.iter().any(|(_, agreed)| agreed.index > index);
    if (index, term) != (id.index, id.term)
        || members_index > index
        || members_index == Index(0)
        || late
    {
        return Err(Refusal::Malformed);
    }
    drop(cursor);
    Ok(Snapshot { id, members_index, members, verdicts, data })
}

/// The replicated state in a snapshot that was opened or made.
pub fn state(snapshot: &Snapshot) -> Bytes {
    let mut cursor = Cursor::shared(&snapshot.data);
    take_head(&mut cursor).expect("it was opened before");
    snapshot.data.slice(snapshot.data.len() - cursor.left()..)
}

struct Head {
    index: Index,
    term: Term,
    members_index: Index,
    members: Membership,
    verdicts: Verdicts,
}

fn take_head(from: &mut Cursor<'_>) -> Result<Head, Refusal> {
    if from.u8()? != VERSION {
        return Err(Refusal::Version);
    }
    let index = Index(from.varint()?);
    let term = take_term(from)?;
    let members_index = Index(from.varint()?);
    let members = take_membership(from)?;
    let verdicts = take_verdicts(from, &members)?;
    Ok(Head { index, term, members_index, members, verdicts })
}

fn put_verdicts(verdicts: &Verdicts, out: &mut Vec<u8>) {
    put_varint(out, verdicts.iter().len() as u64);
    for (name, Agreed { life, up, index, relapses }) in verdicts.iter() {
        put_name(name, out);
        put_varint(out, index.0);
        put_verdict(Verdict { life: *life, up: *up, relapses: *relapses }, out);
    }
}

fn take_verdicts(from: &mut Cursor<'_>, members: &Membership) -> Result<Verdicts, Refusal> {
    let mut of = BTreeMap::new();
    for _ in 0..from.count(MEMBERS_LIMIT)? {
        let name = take_name(from)?;
        let index = Index(from.varint()?);
        let Verdict { life, up, relapses } = take_verdict(from)?;
        let last = of.last_key_value().is_none_or(|(last, _): (&String, _)| last.as_str() < name);
        let incarnation = members.named(name).and_then(|member| member.incarnation);
        if !last || incarnation != Some(life.incarnation) {
            return Err(Refusal::Malformed);
        }
        of.insert(name.to_string(), Agreed { life, up, index, relapses });
    }
    Ok(Verdicts::new(of))
}

#[cfg(test)]
mod tests {
    use crate::core::membership::Member;
    use crate::core::types::{ClusterId, Incarnation, Life, Run};

    use super::*;
    use crate::core::membership::Standing;

    fn members() -> Membership {
        let member = |number: u64| Member {
            name: format!("node{number}"),
            address: ([127, 0, 0, 1], 5000 + number as u16).into(),
            incarnation: Some(Incarnation(number + 1)),
            standing: if number < 3 { Standing::Voter } else { Standing::Learner },
        };
        Membership::new(ClusterId(9), (0..4).map(member).collect())
    }

    fn verdicts() -> Verdicts {
        let agreed = |number: u64| Agreed {
            life: Life { incarnation: Incarnation(number + 1), run: Run(number * 7) },
            up: number != 1,
            index: Index(20 + number),
            relapses: number as u8,
        };
        Verdicts::new((0..3).map(|number| (format!("node{number}"), agreed(number))).collect())
    }

    #[test]
    fn what_was_made_is_opened() {
        let made = make((Index(300), Term(7)), (Index(12), &members()), &verdicts(), b"the state");
        let opened = open(made.id, made.data.clone()).expect("it is whole");
        assert_eq!(opened, made);
        assert_eq!(&state(&opened)[..], b"the state");
        let empty = make((Index(1), Term(0)), (Index(1), &members()), &Verdicts::default(), b"");
        assert_eq!(&state(&open(empty.id, empty.data.clone()).unwrap())[..], b"");
    }

    /// Pitfall 36: pieces of two snapshots that were mixed.
    #[test]
    fn other_bytes_than_those_of_its_name_are_no_snapshot() {
        let made = make((Index(300), Term(7)), (Index(12), &members()), &verdicts(), b"the state");
        for at in 0..made.data.len() {
            let mut bytes = made.data.to_vec();
            bytes[at] ^= 1;
            assert_eq!(open(made.id, Bytes::from(bytes)), Err(Refusal::Checksum), "byte {at}");
            let cut = made.data.slice(..at);
            assert_eq!(open(made.id, cut.clone()), Err(Refusal::TooLarge), "cut at {at}");
            let id = SnapshotId { length: at as u64, checksum: crc32fast::hash(&cut), ..made.id };
            if let Ok(opened) = open(id, cut) {
                assert!(state(&opened).len() < b"the state".len(), "cut in its state");
            }
        }
        for id in
            [SnapshotId { index: Index(299), ..made.id }, SnapshotId { term: Term(6), ..made.id }]
        {
            assert_eq!(open(id, made.data.clone()), Err(Refusal::Malformed));
        }
    }
}
