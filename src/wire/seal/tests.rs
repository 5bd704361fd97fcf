use std::collections::BTreeSet;

use crate::core::types::{ClusterId, Incarnation, Run};
use crate::wire::frame::{FrameWriter, Header, PATH_DATAGRAM};

use super::*;

const LONG_AGO: &str = "1111111111111111111111111111111111111111111111111111111111111100";
const FIRST: &str = "2222222222222222222222222222222222222222222222222222222222222200";
const SECOND: &str = "3333333333333333333333333333333333333333333333333333333333333300";

fn life(number: u64) -> Life {
    Life { incarnation: Incarnation(number), run: Run(number) }
}

fn secrets(texts: &[&str]) -> Secrets {
    Secrets::parse(texts.iter().copied()).expect("secrets")
}

fn seal_of(own: Life, texts: &[&str]) -> Seal {
    Seal::new(Some(&secrets(texts)), own)
}

fn header(from: Life, to: Life) -> Header {
    Header { cluster: ClusterId(7), from, to }
}

/// A datagram of this run with one part.
fn sealed(seal: &mut Seal, from: Life, to: Life, part: &[u8]) -> Vec<u8> {
    let mut writer = FrameWriter::new();
    writer.begin(&header(from, to), PATH_DATAGRAM, seal.closing());
    assert!(writer.push(part));
    let mut datagram = writer.take(Vec::new());
    seal.close(&mut datagram);
    datagram
}

/// What a seal makes of a copy of a datagram: its only part.
fn opened(seal: &mut Seal, datagram: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut bytes = datagram.to_vec();
    let frame = seal.open(&mut bytes, |_| false)?;
    Ok(frame.parts.flatten().copied().collect())
}

fn inner(seal: &mut Seal) -> &mut Sealed {
    match seal {
        Seal::Secret(sealed) => sealed,
        Seal::Checksum => panic!("not sealed"),
    }
}

#[test]
fn what_one_seals_the_other_opens_once() {
    let (mut a, mut b) = (seal_of(life(1), &[FIRST]), seal_of(life(2), &[FIRST]));
    let datagram = sealed(&mut a, life(1), life(2), b"some words");
    let mut bytes = datagram.clone();
    let frame = b.open(&mut bytes, |_| false).expect("it opens");
    assert_eq!(frame.header, header(life(1), life(2)));
    assert_eq!(frame.parts.collect::<Vec<_>>(), [b"some words"]);
    assert_eq!(opened(&mut b, &datagram), Err(Refusal::Replayed));
    assert!(!datagram.windows(4).any(|window| window == b"word"), "it can be read");
}

/// Header, name of the secret, counter, parts, tag: all of it is bound.
#[test]
fn every_flipped_bit_is_refused_and_changes_nothing() {
    let (mut a, mut b) = (seal_of(life(1), &[FIRST]), seal_of(life(2), &[FIRST]));
    let datagram = sealed(&mut a, life(1), life(2), b"some words");
    for bit in 0..datagram.len() * 8 {
        let mut flipped = datagram.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let before = flipped.clone();
        assert!(b.open(&mut flipped, |_| false).is_err(), "bit {bit}");
        assert_eq!(flipped, before, "bit {bit}");
    }
    assert!(inner(&mut b).senders.is_empty(), "a forger is remembered");
    assert_eq!(opened(&mut b, &datagram), Ok(b"some words".to_vec()));
}

#[test]
fn every_shorter_datagram_is_refused() {
    let (mut a, mut b) = (seal_of(life(1), &[FIRST]), seal_of(life(2), &[FIRST]));
    let datagram = sealed(&mut a, life(1), life(2), b"some words");
    for length in 0..datagram.len() {
        assert!(opened(&mut b, &datagram[..length]).is_err(), "{length} bytes");
    }
}

#[test]
fn each_refusal_names_its_reason() {
    let (mut a, mut b) = (seal_of(life(1), &[FIRST]), seal_of(life(2), &[SECOND]));
    let datagram = sealed(&mut a, life(1), life(2), b"x");
    assert_eq!(opened(&mut b, &datagram), Err(Refusal::Secret));
    let mut unsealed = Seal::new(None, life(3));
    assert_eq!(opened(&mut unsealed, &datagram), Err(Refusal::Closing));
    let in_clear = sealed(&mut unsealed, life(3), life(2), b"x");
    assert_eq!(opened(&mut b, &in_clear), Err(Refusal::Closing));
    let mut next = seal_of(Life { run: Run(7), ..life(1) }, &[FIRST]);
    let to_all = sealed(&mut a, life(1), Envelope::ANYONE, b"x");
    for seal in [&mut a, &mut next] {
        assert_eq!(opened(seal, &to_all), Err(Refusal::Replayed), "its own words come back");
    }
    let mut third = seal_of(life(3), &[FIRST]);
    assert_eq!(opened(&mut third, &datagram), Err(Refusal::Addressee), "said to another");
    assert_eq!(opened(&mut third, &to_all), Ok(b"x".to_vec()));
    let mut other = seal_of(life(2), &[FIRST]);
    let mut forged = datagram.clone();
    *forged.last_mut().expect("a byte") ^= 1;
    assert_eq!(opened(&mut other, &forged), Err(Refusal::Forged));
}

/// The format, byte for byte: a change of it needs another version.
#[test]
fn a_sealed_datagram_is_as_it_is_drawn() {
    let from = Life { incarnation: Incarnation(1), run: Run(2) };
    let mut seal = seal_of(from, &[FIRST]);
    seal.has_closed(0x0102_0304_0506);
    let datagram = sealed(&mut seal, from, life(3), b"abc");
    let hex: String = datagram.iter().map(|byte| format!("{byte:02x}")).collect();
    // As HKDF and AES-GCM of another language make it, too.
    let expected = [
        "4b544b490301",                     // magic, version, closing
        "0700000000000000",                 // cluster
        "01000000000000000200000000000000", // from
        "03000000000000000300000000000000", // to
        "d1d41b28",                         // the secret's name
        "0605040302010000",                 // counter
        "7a3d913a",                         // a length and three bytes, encrypted
        "2be854c7c7abccab529a6c2a9bce89fb", // tag
    ];
    assert_eq!(hex, expected.concat());
}

/// A run that begins anew counts from 0 again; its key is another.
#[test]
fn no_nonce_comes_twice_under_a_key() {
    let starts = [life(1), Life { incarnation: Incarnation(1), run: Run(2) }, life(2)];
    let same = starts.map(|own| sealed(&mut seal_of(own, &[FIRST]), own, life(9), &[0; 64]));
    // Without the tags, which are over the headers, too.
    let parts = same.iter().map(|datagram| &datagram[58..datagram.len() - TAG_BYTES]);
    let distinct: BTreeSet<_> = parts.collect();
    assert_eq!(distinct.len(), 3, "the same key and nonce");
    let mut seal = seal_of(life(1), &[FIRST]);
    let counters = (0..100).map(|to| sealed(&mut seal, life(1), life(2 + to % 3), &[0; 8]));
    let counters: BTreeSet<_> = counters.map(|datagram| datagram[50..58].to_vec()).collect();
    assert_eq!(counters.len(), 100);
}

/// Old words of an earlier run of the sender: known ones are refused as long as that run
/// is remembered, and it is while this node believes in it.
#[test]
fn the_windows_of_the_believed_are_kept() {
    let (member, mut node) = (life(1), seal_of(life(9), &[FIRST]));
    let mut of_member = seal_of(member, &[FIRST]);
    let words = sealed(&mut of_member, member, life(9), b"vote");
    let believed = |life: Life| life == member;
    assert!(node.open(&mut words.clone(), believed).is_ok());
    for number in 100..1_000 {
        let stranger = life(number);
        let hello = sealed(&mut seal_of(stranger, &[FIRST]), stranger, life(9), b"hello");
        assert!(node.open(&mut hello.clone(), believed).is_ok());
    }
    assert_eq!(node.open(&mut words.clone(), believed).err(), Some(Refusal::Replayed));
    assert_eq!(inner(&mut node).senders.len(), 64 + 1);
    // The last strangers are remembered, too; the last that were heard, not that came.
    let hello = |of: u64, seal: &mut Seal| sealed(seal, life(of), life(9), b"hello");
    let mut oldest = seal_of(life(936), &[FIRST]);
    let first = hello(936, &mut oldest);
    assert_eq!(node.open(&mut first.clone(), believed).err(), Some(Refusal::Replayed));
    assert!(node.open(&mut hello(936, &mut oldest), believed).is_ok());
    assert!(node.open(&mut hello(2_000, &mut seal_of(life(2_000), &[FIRST])), believed).is_ok());
    assert_eq!(node.open(&mut first.clone(), believed).err(), Some(Refusal::Replayed));
    let second = hello(937, &mut seal_of(life(937), &[FIRST]));
    assert!(node.open(&mut second.clone(), believed).is_ok(), "the one that was silent longest");
}

/// Both open, the first seals: at each step of a change everybody hears everybody.
#[test]
fn two_secrets_open_and_the_first_seals() {
    let steps = [&[LONG_AGO][..], &[LONG_AGO, FIRST], &[FIRST, LONG_AGO], &[FIRST]];
    for pair in steps.windows(2) {
        for (from, to) in [(pair[0], pair[1]), (pair[1], pair[0])] {
            let datagram = sealed(&mut seal_of(life(1), from), life(1), life(2), b"x");
            let answer = opened(&mut seal_of(life(2), to), &datagram);
            assert_eq!(answer, Ok(b"x".to_vec()), "from {from:?} to {to:?}");
        }
    }
    let datagram = sealed(&mut seal_of(life(1), steps[0]), life(1), life(2), b"x");
    assert_eq!(opened(&mut seal_of(life(2), steps[3]), &datagram), Err(Refusal::Secret));
}

/// A key ends with its epoch, and what comes late from the one before still opens.
#[test]
fn each_epoch_has_a_key_of_its_own() {
    let (mut a, mut b) = (seal_of(life(1), &[FIRST]), seal_of(life(2), &[FIRST]));
    inner(&mut a).counter = (1 << 24) - 2;
    let datagrams: Vec<_> = (0..4).map(|n| sealed(&mut a, life(1), life(2), &[n; 40])).collect();
    assert_eq!(inner(&mut a).key.epoch, 1);
    // The last one is late, and of the epoch before.
    let others = [0, 2, 3, 1].map(|n: usize| opened(&mut b, &datagrams[n]));
    assert_eq!(others, [0, 2, 3, 1].map(|n| Ok(vec![n; 40])));
    assert_eq!(inner(&mut b).senders[&(life(1), 0)].key.epoch, 1, "the newer key is kept");
    // The key of the epoch before opens nothing of this one.
    let old = Source::new(secrets(&[FIRST]).iter().next().expect("one")).key(life(1), 0);
    inner(&mut b).senders.get_mut(&(life(1), 0)).expect("known").key = Key { epoch: 1, ..old };
    let datagram = sealed(&mut a, life(1), life(2), b"x");
    assert_eq!(opened(&mut b, &datagram), Err(Refusal::Forged));
}

#[test]
fn a_seal_shows_nothing_of_its_secret() {
    let shown = format!("{:?} {:?}", seal_of(life(1), &[FIRST]), secrets(&[FIRST]));
    // Neither as it is written nor as a list of numbers (0x22 is 34).
    assert!(!shown.contains("22") && !shown.contains("34, 34"), "{shown}");
}
