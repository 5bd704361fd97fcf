mod world;

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::incoming::{MESSAGES_LIMIT, TOUCHED_LIMIT};
use super::outgoing::QUEUE_LIMIT;
use super::*;
use crate::core::types::Time;
use crate::wire::frame::{LOOPBACK_DATAGRAM, PATH_DATAGRAM, part_limit};

use self::world::{CLEAN, Faults, World, message, parts_of};

const SECOND_US: u64 = 1_000_000;
const PATIENCE_US: u64 = 10 * SECOND_US;
const MIB: usize = 1 << 20;

fn first_fragment(id: u64, total_bytes: u64, bytes: &[u8]) -> Fragment<'_> {
    Fragment { id, total_bytes, fragment_bytes: bytes.len() as u64, index: 0, bytes }
}

/// `pitfall 65`
#[test]
fn a_large_message_arrives_through_a_bad_network() {
    let faults = Faults { lost_percent: 20, twice_percent: 10, delay_us: (2_000, 8_000) };
    for seed in 1..=20 {
        let mut world = World::new(part_limit(PATH_DATAGRAM), 2 * MIB, faults, seed);
        let sent = message(1, MIB);
        assert!(world.outgoing.push(7, sent.clone()));
        let took_us = world.run();
        assert_eq!(world.delivered, [sent], "seed {seed}");
        // Each fragment needs 1.25 sendings at least; what is sent beyond that was
        // late, or its acknowledgement was lost.
        let fragments = MIB.div_ceil(1_330) as u64;
        assert!(world.sent < 2 * fragments, "{} sendings of {fragments}, seed {seed}", world.sent);
        assert!(took_us < 6 * SECOND_US, "{took_us} us, seed {seed}");
    }
}

#[test]
fn a_large_message_arrives_fast_where_little_is_lost() {
    let faults = Faults { lost_percent: 1, twice_percent: 0, delay_us: (500, 600) };
    for seed in 1..=20 {
        let mut world = World::new(part_limit(PATH_DATAGRAM), 2 * MIB, faults, seed);
        assert!(world.outgoing.push(7, message(1, MIB)));
        let took_us = world.run();
        assert_eq!(world.delivered.len(), 1);
        assert!(took_us < SECOND_US / 20, "{took_us} us, seed {seed}");
        assert!(world.sent < 830, "{} sendings, seed {seed}", world.sent);
    }
}

/// `pitfall 65`
#[test]
fn a_large_message_arrives_though_half_of_its_fragments_are_lost() {
    let faults = Faults { lost_percent: 50, twice_percent: 0, delay_us: (500, 1_000) };
    for seed in 1..=10 {
        let mut world = World::new(part_limit(PATH_DATAGRAM), MIB, faults, seed);
        let sent = message(1, MIB / 4);
        assert!(world.outgoing.push(7, sent.clone()));
        world.run();
        assert_eq!(world.delivered, [sent], "seed {seed}");
    }
}

/// `pitfall 65`
#[test]
fn many_messages_arrive_once_each() {
    let faults = Faults { lost_percent: 10, twice_percent: 30, delay_us: (100, 3_000) };
    for (seed, part_bytes) in [(1, 1_348), (2, 1_348), (3, 59_947), (4, 59_947), (5, 400)] {
        let mut world = World::new(part_bytes, 8 * MIB, faults, seed);
        let mut sent: Vec<Bytes> =
            (1..=40).map(|number| message(number, 1 + usize::from(number) * 2_000)).collect();
        for bytes in &sent {
            assert!(world.outgoing.push(1, bytes.clone()));
        }
        world.run();
        // Late copies of fragments bring no message back.
        while !world.flying.is_empty() {
            world.step();
        }
        world.delivered.sort();
        sent.sort();
        assert_eq!(world.delivered, sent, "seed {seed}");
        assert_eq!(world.incoming.held_bytes(), 0);
    }
}

#[test]
fn nothing_is_sent_twice_where_nothing_is_lost() {
    for part_bytes in [1_348, 59_947] {
        // A long way: the first timeouts run out before the first answer comes.
        for delay_us in [20, 5_000, 20_000] {
            let clean = Faults { delay_us: (delay_us, delay_us), ..CLEAN };
            let mut world = World::new(part_bytes, 4 * MIB, clean, 1);
            for number in 0..3 {
                assert!(world.outgoing.push(number, message(number as u8, MIB)));
            }
            world.run();
            assert_eq!(world.delivered.len(), 3);
            let fragment_bytes = part_bytes - 1 - 1 - 3 - 3 - 2;
            assert!(world.sent <= 3 * MIB.div_ceil(fragment_bytes) as u64);
        }
    }
}

#[test]
fn fragments_fill_the_datagram() {
    for capacity in [PATH_DATAGRAM, LOOPBACK_DATAGRAM] {
        let limit = part_limit(capacity);
        let parts = parts_of(&mut Outgoing::new(limit, MIB, PATIENCE_US), message(1, MIB));
        assert!(parts.iter().all(|part| part.len() <= limit));
        assert!(parts[..parts.len() - 1].iter().all(|part| part.len() + 4 >= limit));
    }
}

#[test]
fn a_window_on_loopback_holds_eight_datagrams() {
    let mut outgoing = Outgoing::new(part_limit(LOOPBACK_DATAGRAM), 4 * MIB, PATIENCE_US);
    assert!(outgoing.push(1, message(1, 2 * MIB)));
    let mut sent = 0;
    for _ in 0..3 {
        outgoing.poll(Time(1), &mut |_| sent += 1);
    }
    assert_eq!(sent, 8);
}

#[test]
fn the_queue_is_bounded_in_messages_and_bytes() {
    let mut outgoing = Outgoing::new(1_348, 1_000_000, PATIENCE_US);
    assert!(!outgoing.push(1, message(1, 1_000_001)));
    assert!(outgoing.push(1, message(1, 600_000)));
    assert!(!outgoing.push(2, message(1, 400_001)));
    assert!(outgoing.push(3, message(1, 400_000)));
    assert!(outgoing.has_tag(1) && !outgoing.has_tag(2) && outgoing.has_tag(3));
    outgoing.clear();
    assert!(outgoing.is_empty() && !outgoing.has_tag(1));
    for _ in 0..QUEUE_LIMIT {
        assert!(outgoing.push(1, message(1, 1)));
    }
    assert!(!outgoing.push(1, message(1, 1)));
}

#[test]
fn a_tag_is_there_until_its_message_has_arrived() {
    let mut world = World::new(1_348, MIB, CLEAN, 1);
    assert!(world.outgoing.push(41, message(1, 10_000)));
    assert!(world.outgoing.push(42, message(2, 100_000)));
    while world.delivered.is_empty() {
        assert!(world.outgoing.has_tag(41));
        world.step();
    }
    world.run();
    assert!(!world.outgoing.has_tag(41) && !world.outgoing.has_tag(42));
}

#[test]
fn a_peer_that_is_gone_is_given_up_and_not_flooded() {
    let faults = Faults { lost_percent: 100, ..CLEAN };
    let mut world = World::new(part_limit(LOOPBACK_DATAGRAM), 64 * MIB, faults, 1);
    for number in 0..10 {
        assert!(world.outgoing.push(number, message(1, 2 * MIB)));
    }
    let took_us = world.run();
    assert_eq!(took_us, PATIENCE_US);
    assert_eq!(world.outgoing.given_up(), 10);
    // Two fragments each 200 ms, after a few that were sent with hope.
    assert!(world.sent < 200, "{} sendings to nobody", world.sent);
}

/// One side takes the other for dead in the middle of a message and begins anew,
/// and the other knows nothing of it.
#[test]
fn a_side_that_was_cleared_still_speaks_and_hears() {
    for (clears_outgoing, seed) in [(true, 1), (false, 2)] {
        let mut world = World::new(1_348, MIB, CLEAN, seed);
        assert!(world.outgoing.push(1, message(1, 100_000)));
        world.run();
        assert!(world.outgoing.push(1, message(2, 300_000)));
        for _ in 0..6 {
            world.step();
        }
        if clears_outgoing {
            world.outgoing.clear();
        } else {
            world.incoming.clear();
            assert_eq!(world.incoming.held_bytes(), 0);
        }
        let sent = message(3, 200_000);
        assert!(world.outgoing.push(1, sent.clone()));
        let took_us = world.run();
        assert_eq!(world.delivered.len(), if clears_outgoing { 2 } else { 3 });
        assert_eq!(world.delivered.last(), Some(&sent));
        assert!(took_us < SECOND_US, "{took_us} us");
        assert_eq!(world.outgoing.given_up(), 0);
    }
}

#[test]
fn a_peer_that_was_away_gets_the_rest() {
    let mut world = World::new(1_348, MIB, CLEAN, 1);
    let sent = message(1, 200_000);
    assert!(world.outgoing.push(1, sent.clone()));
    for _ in 0..3 {
        world.step();
    }
    world.faults.lost_percent = 100;
    while world.now < Time(6 * SECOND_US) {
        world.step();
    }
    world.faults.lost_percent = 0;
    let took_us = world.run();
    assert_eq!(world.delivered, [sent]);
    assert!(took_us < SECOND_US, "{took_us} us");
}

/// `pitfall 65`: a receiver that had to make room says so, and the message is
/// sent again from where it is known.
#[test]
fn a_message_that_was_forgotten_on_the_way_arrives() {
    let mut world = World::new(1_348, MIB, CLEAN, 1);
    let sent = message(1, MIB / 2);
    assert!(world.outgoing.push(1, sent.clone()));
    for round in 0..4 {
        for _ in 0..8 {
            world.step();
        }
        // Another flood pushes it out.
        world.now = world.now.plus(1);
        for id in 0..MESSAGES_LIMIT as u64 {
            let flood = first_fragment(1_000 + round * 10 + id, 1_000, &[0; 300]);
            world.incoming.on_fragment(world.now, &flood).unwrap();
        }
    }
    assert!(world.delivered.is_empty() && world.incoming.evicted() > 4);
    world.run();
    assert_eq!(world.delivered, [sent]);
}

/// The same where the first fragment was the missing one: what had arrived
/// behind it is sent again, once its loss is known.
#[test]
fn fragments_that_were_taken_back_are_sent_again() {
    let mut outgoing = Outgoing::new(1_348, MIB, PATIENCE_US);
    assert!(outgoing.push(1, message(1, 5_000)));
    let sent = |outgoing: &mut Outgoing, now| {
        let mut indexes = Vec::new();
        outgoing.poll(now, &mut |part| indexes.push(decode_fragment(part).unwrap().index));
        indexes
    };
    assert_eq!(sent(&mut outgoing, Time(0)), [0, 1, 2, 3]);
    let ack = FragmentAck { id: 1, number: 1, prefix: 0, following: 0b111 };
    outgoing.on_ack(Time(40_000), &ack);
    assert!(sent(&mut outgoing, Time(40_000)).is_empty());
    outgoing.on_ack(Time(41_000), &FragmentAck { number: 2, following: 0b010, ..ack });
    assert_eq!(sent(&mut outgoing, Time(41_000)), [1, 3]);
    // An older one that comes late takes nothing back.
    outgoing.on_ack(Time(42_000), &FragmentAck { following: 0, ..ack });
    assert!(sent(&mut outgoing, Time(42_000)).is_empty());
}

/// Found by fuzzing: the receiver forgot a message, then got the middle of it, and
/// then its beginning. It holds more than was sent anew, and its acknowledgements,
/// taken for those of another message, were passed over until the message was given up.
#[test]
fn a_receiver_that_forgot_the_beginning_may_hold_more_than_is_sent_again() {
    let mut outgoing = Outgoing::new(400, MIB, PATIENCE_US);
    let mut incoming = Incoming::new(MIB, PATIENCE_US);
    let sent = message(1, 7_000);
    assert!(outgoing.push(1, sent.clone()));
    let fragments = |outgoing: &mut Outgoing, now| {
        let mut parts = Vec::new();
        outgoing.poll(now, &mut |part| parts.push(part.to_vec()));
        parts
    };
    let acknowledge = |incoming: &mut Incoming, outgoing: &mut Outgoing, now| {
        incoming.poll_acks(&mut |part| outgoing.on_ack(now, &decode_ack(part).unwrap()));
    };
    let all = fragments(&mut outgoing, Time(0));
    assert_eq!(all.len(), 16);
    incoming.on_fragment(Time(1), &decode_fragment(&all[0]).unwrap()).unwrap();
    acknowledge(&mut incoming, &mut outgoing, Time(1));
    // The others are late and taken for lost, so fewer go at once from now on.
    let mut now = Time(60_000);
    assert_eq!(fragments(&mut outgoing, now).len(), 8);
    incoming.clear();
    for part in &all[1..] {
        incoming.on_fragment(now, &decode_fragment(part).unwrap()).unwrap();
    }
    acknowledge(&mut incoming, &mut outgoing, now);
    let mut delivered = Vec::new();
    while !outgoing.is_empty() && now < Time(SECOND_US) {
        for part in fragments(&mut outgoing, now) {
            delivered.extend(incoming.on_fragment(now, &decode_fragment(&part).unwrap()).unwrap());
        }
        acknowledge(&mut incoming, &mut outgoing, now);
        now = now.plus(1_000);
    }
    assert!(delivered == [sent] && outgoing.is_empty(), "it is sent again and again");
}

#[test]
fn a_message_takes_at_most_twice_what_has_arrived_and_never_more_than_its_length() {
    let length = 50_000;
    let parts = parts_of(&mut Outgoing::new(1_348, MIB, PATIENCE_US), message(1, length));
    let mut incoming = Incoming::new(MIB, PATIENCE_US);
    for part in &parts[..parts.len() - 1] {
        incoming.on_fragment(Time(1), &decode_fragment(part).unwrap()).unwrap();
        let reserved_bytes = incoming.reserved_bytes();
        assert!(reserved_bytes <= length.min(2 * incoming.held_bytes()), "{reserved_bytes}");
    }
}

/// `pitfall 65`
#[test]
fn a_flood_of_first_fragments_stays_within_bounds() {
    let limit = 64 * MIB;
    let mut incoming = Incoming::new(limit, PATIENCE_US);
    let bytes = [7; 1_300];
    for id in 0..10_000 {
        let flood = first_fragment(id, limit as u64, &bytes);
        assert_eq!(incoming.on_fragment(Time(id), &flood), Ok(None));
        assert!(incoming.messages() <= MESSAGES_LIMIT);
        // Nothing is made room for that has not come.
        assert_eq!(incoming.reserved_bytes(), incoming.messages() * bytes.len());
        assert_eq!(incoming.held_bytes(), incoming.reserved_bytes());
    }
    let mut acks = 0;
    incoming.poll_acks(&mut |_| acks += 1);
    assert_eq!(acks, TOUCHED_LIMIT);
    // A real message finds its way through what the flood left behind.
    let sent = message(1, 100_000);
    let mut arrived = Vec::new();
    for part in parts_of(&mut Outgoing::new(1_348, limit, PATIENCE_US), sent.clone()) {
        // The same sender's ids: take one that the flood did not.
        let fragment = Fragment { id: 20_000, ..decode_fragment(&part).unwrap() };
        arrived.extend(incoming.on_fragment(Time(20_000), &fragment).unwrap());
    }
    assert_eq!(arrived, [sent]);
    incoming.expire(Time(20_000).plus(PATIENCE_US));
    assert_eq!((incoming.messages(), incoming.held_bytes()), (0, 0));
    assert_eq!(incoming.deadline(), None);
}

#[test]
fn bytes_are_bounded_over_all_messages() {
    let mut incoming = Incoming::new(10_000, PATIENCE_US);
    let bytes = [0; 3_000];
    for id in 1..=4 {
        incoming.on_fragment(Time(id), &first_fragment(id, 9_000, &bytes)).unwrap();
        assert!(incoming.held_bytes() <= 10_000);
    }
    // The first one made room for the fourth.
    assert_eq!((incoming.messages(), incoming.evicted()), (3, 1));
    let too_large = first_fragment(9, 10_001, &bytes);
    assert_eq!(incoming.on_fragment(Time(9), &too_large), Err(Refusal::TooLarge));
    assert_eq!((incoming.messages(), incoming.evicted()), (3, 1));
}

#[test]
fn a_fragment_of_another_shape_is_refused_and_changes_nothing() {
    let mut incoming = Incoming::new(10_000, PATIENCE_US);
    incoming.on_fragment(Time(1), &first_fragment(1, 900, &[1; 300])).unwrap();
    let other_total = Fragment { index: 1, ..first_fragment(1, 800, &[2; 300]) };
    assert_eq!(incoming.on_fragment(Time(2), &other_total), Err(Refusal::Malformed));
    let other_length = Fragment { index: 1, ..first_fragment(1, 900, &[2; 301]) };
    assert_eq!(incoming.on_fragment(Time(2), &other_length), Err(Refusal::Malformed));
    for index in [2, 1] {
        let bytes = [index as u8 + 1; 300];
        let fragment = Fragment { index, ..first_fragment(1, 900, &bytes) };
        let taken = incoming.on_fragment(Time(3), &fragment).unwrap();
        assert_eq!(taken.is_some(), index == 1);
        if let Some(bytes) = taken {
            assert_eq!(bytes, [[1; 300], [2; 300], [3; 300]].concat());
        }
    }
}

#[test]
fn a_completed_message_is_acknowledged_again_and_not_given_out_again() {
    let mut incoming = Incoming::new(10_000, PATIENCE_US);
    let fragment = first_fragment(5, 300, &[1; 300]);
    let acks = |incoming: &mut Incoming| {
        let mut acks = Vec::new();
        incoming.poll_acks(&mut |part| acks.push(decode_ack(part).unwrap()));
        acks
    };
    assert_eq!(incoming.on_fragment(Time(1), &fragment).unwrap().unwrap(), [1; 300][..]);
    let first = FragmentAck { id: 5, number: 1, prefix: 1, following: 0 };
    assert_eq!(acks(&mut incoming), [first]);
    assert!(acks(&mut incoming).is_empty());
    assert_eq!(incoming.on_fragment(Time(2), &fragment), Ok(None));
    assert_eq!(acks(&mut incoming), [FragmentAck { number: 2, ..first }]);
}

#[test]
fn fragments_that_cannot_be_are_refused() {
    let refusal = |place: [u64; 4], length: usize| {
        let mut part = vec![KIND_FRAGMENT];
        for number in place {
            put_varint(&mut part, number);
        }
        part.resize(part.len() + length, 0);
        decode_fragment(&part).err()
    };
    let (total, size) = (1_000, 300);
    assert_eq!(refusal([1, total, size, 0], 300), None);
    assert_eq!(refusal([1, total, size, 3], 100), None);
    for (place, length) in [
        ([1, total, size, 0], 299),
        ([1, total, size, 0], 301),
        ([1, total, size, 0], 0),
        ([1, total, size, 3], 300),
        ([1, total, size, 4], 0),
        ([1, total, size, u64::MAX], 300),
        ([1, total, 0, 0], 0),
        ([1, total, 255, 0], 255),
        ([1, 0, size, 0], 0),
        ([1, u64::MAX, u64::MAX, 0], 300),
        ([1, u64::MAX, 300, u64::MAX / 300], 300),
    ] {
        assert_eq!(refusal(place, length), Some(Refusal::Malformed), "{place:?} {length}");
    }
    assert_eq!(decode_fragment(&[KIND_FRAGMENT, 1, 0x80, 0]), Err(Refusal::Varint));
    assert_eq!(decode_fragment(&[KIND_FRAGMENT, 1]), Err(Refusal::TooShort));
    assert_eq!(decode_ack(&[KIND_FRAGMENT_ACK, 1, 1, 1, 0]), Err(Refusal::Malformed));
    assert_eq!(
        decode_ack(&[[KIND_FRAGMENT_ACK, 1, 1, 1].to_vec(), vec![1; 17]].concat()),
        Err(Refusal::Trailing)
    );
}

#[test]
fn a_bit_of_an_acknowledgement_is_the_fragment_that_it_says() {
    let mut incoming = Incoming::new(MIB, PATIENCE_US);
    let bytes = [0; 300];
    // 0 and 1 are there, 2 is missing; 130 is the last that has a bit.
    for index in [0, 1, 3, 5, 130, 131, 2_000] {
        let fragment = Fragment { index, ..first_fragment(1, 300 * 3_000, &bytes) };
        incoming.on_fragment(Time(1), &fragment).unwrap();
    }
    let mut acks = Vec::new();
    incoming.poll_acks(&mut |part| acks.push(decode_ack(part).unwrap()));
    let following = 1 | 1 << 2 | 1 << 127;
    assert_eq!(acks, [FragmentAck { id: 1, number: 1, prefix: 2, following }]);
    assert_eq!(incoming.held_bytes(), 5 * 300);
}

/// The rules of `Incoming` in the plainest form: keep all fragments, give a
/// message out when the last one is there.
#[derive(Default)]
struct Twin {
    fragments: BTreeMap<u64, BTreeMap<u64, Vec<u8>>>,
}

impl Twin {
    fn on_fragment(&mut self, fragment: &Fragment<'_>) -> Option<Vec<u8>> {
        let message = self.fragments.entry(fragment.id).or_default();
        let is_new = message.insert(fragment.index, fragment.bytes.to_vec()).is_none();
        let is_whole =
            message.len() as u64 == fragment.total_bytes.div_ceil(fragment.fragment_bytes);
        (is_new && is_whole).then(|| message.values().flatten().copied().collect())
    }
}

proptest! {
    /// `pitfall 65`: fragments of several messages mixed, repeated, out of order.
    #[test]
    fn messages_come_together_as_in_the_twin(
        lengths in vec(1..20_000usize, 1..MESSAGES_LIMIT),
        picks in vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..300),
    ) {
        let mut outgoing = Outgoing::new(400, MIB, PATIENCE_US);
        let messages: Vec<Vec<Vec<u8>>> = lengths
            .iter()
            .enumerate()
            .map(|(number, length)| parts_of(&mut outgoing, message(number as u8, *length)))
            .collect();
        let mut incoming = Incoming::new(MIB, PATIENCE_US);
        let mut twin = Twin::default();
        let picked = picks.iter().map(|(message, part)| part.get(message.get(&messages).as_slice()));
        let mut out = 0;
        for part in picked.chain(messages.iter().flatten()) {
            let fragment = decode_fragment(part).unwrap();
            let taken = incoming.on_fragment(Time(1), &fragment).unwrap();
            out += usize::from(taken.is_some());
            prop_assert_eq!(taken.map(|bytes| bytes.to_vec()), twin.on_fragment(&fragment));
        }
        prop_assert_eq!(out, messages.len());
        prop_assert_eq!(incoming.held_bytes(), 0);
    }

    #[test]
    fn fragments_and_acknowledgements_come_back(
        numbers in any::<[u64; 3]>(),
        following in any::<u128>(),
        shift in 0..128u32,
        index in 0..1_000u64,
        bytes in vec(any::<u8>(), 256..1_000),
    ) {
        let following = following >> shift;
        let ack = FragmentAck { id: numbers[0], number: numbers[1], prefix: numbers[2], following };
        let mut part = Vec::new();
        put_ack(&ack, &mut part);
        prop_assert_eq!(decode_ack(&part), Ok(ack));

        let fragment_bytes = bytes.len() as u64;
        let total_bytes = fragment_bytes * (index + 1) + numbers[1] % 5_000;
        let fragment =
            Fragment { id: numbers[0], total_bytes, fragment_bytes, index, bytes: &bytes };
        part.clear();
        put_fragment(&fragment, &mut part);
        prop_assert_eq!(decode_fragment(&part), Ok(fragment));
        for length in 0..part.len() {
            prop_assert!(decode_fragment(&part[..length]).is_err());
        }
    }

    /// `pitfall 64`: whatever a peer says, both sides keep their bounds.
    #[test]
    fn any_fragments_and_acknowledgements_are_taken_or_refused(
        steps in vec((0..6u64, 0..4u64, 0..200u64, any::<u128>(), any::<bool>()), 0..200),
    ) {
        let limit = 20_000;
        let mut incoming = Incoming::new(limit, 1_000);
        let mut outgoing = Outgoing::new(400, limit, 1_000);
        let bytes = [0; 2_000];
        for (at, (id, shape, place, following, is_old)) in steps.into_iter().enumerate() {
            let now = Time(at as u64 * 50);
            let fragment_bytes = 256 + shape * 400;
            let total_bytes = place * 100 + 1;
            let mut part = vec![KIND_FRAGMENT];
            for number in [id, total_bytes, fragment_bytes, place % 7] {
                put_varint(&mut part, number);
            }
            let length = fragment_bytes.min(total_bytes.saturating_sub(place % 7 * fragment_bytes));
            part.extend_from_slice(&bytes[..length as usize]);
            if let Ok(fragment) = decode_fragment(&part) {
                let _ = incoming.on_fragment(now, &fragment);
            }
            prop_assert!(incoming.held_bytes() <= limit);
            prop_assert!(incoming.reserved_bytes() <= 2 * limit);
            prop_assert!(incoming.messages() <= MESSAGES_LIMIT);
            incoming.expire(now);
            incoming.poll_acks(&mut |_| ());

            outgoing.push(id, Bytes::from_static(&[0; 5_000]));
            let number = if is_old { 1 } else { at as u64 };
            outgoing.on_ack(now, &FragmentAck { id: id + 1, number, prefix: place % 20, following });
            outgoing.poll(now, &mut |part| assert!(part.len() <= 400));
            prop_assert!(outgoing.deadline().is_none_or(|deadline| deadline > now));
        }
    }
}
