//! The targets, from a seed: what every run of the tests gives them.

use std::time::{Duration, Instant};

use super::*;
use crate::core::membership::{Member, Standing};
use crate::core::rng::Rng;
use crate::core::types::{ClusterId, Incarnation, Life, Run};
use crate::wire::Refusal;
use crate::wire::fragment::{KIND_FRAGMENT, KIND_FRAGMENT_ACK};
use crate::wire::frame::{FrameWriter, Header};

/// So long does one of these loops take at most; a slow machine does less of it.
const PATIENCE: Duration = Duration::from_secs(10);

fn below(rng: &mut Rng, limit: usize) -> usize {
    (rng.next() % limit as u64) as usize
}

/// Any bytes, or such in which small numbers are more frequent.
fn random(rng: &mut Rng, most: usize) -> Vec<u8> {
    let length = below(rng, most + 1);
    let shrinks = if rng.next().is_multiple_of(2) { 1 } else { 7 };
    (0..length).map(|_| (rng.next() >> 56) as u8 >> below(rng, shrinks)).collect()
}

/// Some bytes changed, left out, doubled or put in.
fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>) {
    for _ in 0..1 + below(rng, 4) {
        let place = below(rng, bytes.len() + 1);
        match below(rng, 8) {
            0 => bytes.truncate(place.max(bytes.len() / 2)),
            1 => bytes.insert(place, rng.next() as u8),
            2 if place < bytes.len() => drop(bytes.remove(place)),
            3 => {
                let end = bytes.len().min(place + 8);
                bytes.extend_from_within(place..end);
            }
            // The largest varint there is.
            4 if place < bytes.len() => {
                drop(bytes.splice(place..=place, [[0xff; 9].as_slice(), &[1]].concat()));
            }
            _ if place < bytes.len() => bytes[place] ^= 1 << below(rng, 8),
            _ => bytes.push([0, 0x7f, 0x80, 0xff][below(rng, 4)]),
        }
    }
}

/// Gives a target so many inputs; says how to get the one that it fails at.
fn each(count: u64, target: fn(&[u8]), input: impl Fn(&mut Rng) -> Vec<u8>) {
    let begun = Instant::now();
    for seed in 0..count {
        let bytes = input(&mut Rng::new(seed));
        let outcome = std::panic::catch_unwind(|| target(&bytes));
        assert!(outcome.is_ok(), "seed {seed}: {bytes:?}");
        if begun.elapsed() > PATIENCE {
            break;
        }
    }
}

/// Parts of every kind, as they should be or nearly so.
fn part_of(rng: &mut Rng) -> Vec<u8> {
    match below(rng, 9) {
        // Small numbers only: most fields are such that their bytes could be another's.
        0 | 1 => {
            let kind = 1 + below(rng, 15) as u8;
            let small = (0..below(rng, 30)).map(|_| below(rng, 8) as u8);
            return [kind].into_iter().chain(small).collect();
        }
        // A name about as long as one may be.
        2 => {
            let length = 60 + below(rng, 10);
            let mut hello = vec![1; 18];
            hello.push(length as u8);
            hello.resize(19 + length, b'n');
            return hello;
        }
        // An entry that says its term, though it may be the one it has anyway.
        3 => return vec![7, 7, 1, 1, 1, 1, 1, 4, 6 + below(rng, 2) as u8],
        4 => {
            let kind = [KIND_FRAGMENT, KIND_FRAGMENT_ACK][below(rng, 2)];
            let mut part = vec![kind, 1, 0xac, 0x02, 0xac, 0x02, 0];
            if kind == KIND_FRAGMENT {
                part.resize(7 + 300, 0x5a);
            } else {
                part.truncate(1 + 3 + below(rng, 4));
            }
            return part;
        }
        _ => {}
    }
    let known = forge::Known {
        numbers: vec![7, 300],
        cluster: ClusterId(9),
        members: ["a", "b", "c"].map(member).to_vec(),
    };
    let choices = random(rng, 120);
    forge::encoded(&forge::message(&mut Feed::new(&choices), &known))
}

fn member(name: &str) -> Member {
    Member {
        name: name.to_string(),
        address: ([127, 0, 0, 1], 1).into(),
        incarnation: Some(Incarnation(5)),
        standing: Standing::Voter,
    }
}

/// `pitfall 64`
#[test]
fn any_bytes_have_one_spelling_or_none() {
    each(12_000, decoder, |rng| match rng.next() % 6 {
        0 => random(rng, 200),
        1 | 2 => {
            let mut part = part_of(rng);
            mutate(rng, &mut part);
            part
        }
        3 => part_of(rng),
        // Several parts with their lengths: the body of a frame, or all of it.
        choice => {
            let mut body = Vec::new();
            for _ in 0..1 + below(rng, 3) {
                let part = part_of(rng);
                if part.len() < 128 {
                    body.push(part.len() as u8);
                    body.extend(part);
                }
            }
            if choice == 4 {
                body = decoder::behind_a_header(&body);
            }
            if rng.next().is_multiple_of(2) {
                mutate(rng, &mut body);
            }
            body
        }
    });
}

/// `pitfall 65`
#[test]
fn no_liar_changes_what_is_put_together() {
    each(1_500, reassembler, |rng| random(rng, 400));
}

#[test]
fn any_file_is_a_sound_config_or_an_error_with_a_key() {
    each(8_000, config, |rng| {
        let mut text = file(rng).into_bytes();
        if rng.next().is_multiple_of(3) {
            mutate(rng, &mut text);
        }
        text
    });
}

/// Pitfalls 64, 66
#[test]
fn no_datagram_of_nobodys_changes_a_node() {
    each(300, engine, |rng| random(rng, 300));
}

/// However many speak that hold the secret and are nobody, it stays known what members
/// have said.
#[test]
fn strangers_do_not_drive_out_what_is_known_of_members() {
    let mut cluster = cluster::Cluster::founded(5, true);
    let to_first = cluster.tape().iter().filter(|(to, _)| *to == 0);
    let said: Vec<Vec<u8>> = to_first.map(|(_, datagram)| datagram.clone()).collect();
    cluster.run(cluster::SECOND);
    for number in 0..200 {
        let from = Life { incarnation: Incarnation(1_000 + number), run: Run(1) };
        let header = Header { cluster: ClusterId(0), from, to: cluster.life(0) };
        let mut seal = cluster.seal_of(from);
        let mut writer = FrameWriter::new();
        writer.begin(&header, 200, seal.closing());
        assert!(writer.push(&[0xff]));
        let mut datagram = writer.take(Vec::new());
        seal.close(&mut datagram);
        cluster.inject(0, &datagram);
    }
    let replayed = |cluster: &cluster::Cluster| {
        cluster.engine_of(0).counts().refused[Refusal::Replayed as usize]
    };
    let before = replayed(&cluster);
    said.iter().for_each(|datagram| _ = cluster.inject(0, datagram));
    assert_eq!(replayed(&cluster) - before, said.len() as u64);
}

fn one_of<'a>(rng: &mut Rng, words: &[&'a str]) -> &'a str {
    words[below(rng, words.len())]
}

/// A cluster's file whose values are right, or wrong in one way or another.
fn file(rng: &mut Rng) -> String {
    let mut fields = Vec::new();
    let odd = rng.next().is_multiple_of(2);
    let limits =
        ["0", "1", "2", "10", "30", "64", "150", "300", "60000", "60001", "16777217", "-1"];
    for key in ["heartbeat_ms", "request_timeout_ms", "snapshot_every", "max_value_bytes"] {
        if rng.next().is_multiple_of(4) {
            fields.push(format!("{key:?}:{}", one_of(rng, &limits)));
        }
    }
    if rng.next().is_multiple_of(3) {
        let (from, to) = (one_of(rng, &limits), one_of(rng, &limits));
        fields.push(format!("\"election_timeout_ms\":[{from},{to}]"));
    }
    if rng.next().is_multiple_of(4) {
        let words = ["\"all\"", "\"majority\"", "null", "\"none\""];
        fields.push(format!("\"founding\":{}", one_of(rng, &words)));
    }
    if rng.next().is_multiple_of(3) {
        let paths = ["\"data\"", "\"/d/./e\"", "\"../ä\"", "\"\"", "\"a\\u0000\"", "[]"];
        fields.push(format!("\"data_dir\":{}", paths[below(rng, if odd { 6 } else { 3 })]));
    }
    if odd && rng.next().is_multiple_of(4) {
        let long = "\"äöü\"".repeat(20).replace("\"\"", "");
        let words =
            ["\"data_dir\":1", "\"hartbeat_ms\":1", "\"nodes\":{}", &format!("{long}:{long}")];
        fields.push(one_of(rng, &words).to_string());
    }
    let most = [3, 12][below(rng, 2)];
    let nodes: Vec<String> = (0..below(rng, most)).map(|number| node(rng, number, odd)).collect();
    match rng.next() % 3 {
        0 if fields.is_empty() => format!("{{{}}}", nodes.join(",")),
        _ => {
            fields.push(format!("\"nodes\":{{{}}}", nodes.join(",")));
            format!("{{{}}}", fields.join(","))
        }
    }
}

fn node(rng: &mut Rng, number: usize, odd: bool) -> String {
    let odd = odd && rng.next().is_multiple_of(8);
    let long = "ä".repeat(31 + below(rng, 4));
    let names = [
        "nodes", "port", "", "\\u0000", "a\\nb", "n0", "N0", "\\u00e4", "a/b", "a\\\\b", "..",
        &long,
    ];
    let name = if odd { one_of(rng, &names).to_string() } else { format!("n{number}") };
    let ips = [
        "\"::1\"",
        "\"0.0.0.0\"",
        "\"::ffff:10.0.0.1\"",
        "\"224.0.0.1\"",
        "\"255.255.255.255\"",
        "\"fe80::1%1\"",
        "\"localhost\"",
        "\"127.0.0.1:5\"",
        "7",
        "\"::\"",
        "\"10.0.0.1\"",
    ];
    let ip = if odd { one_of(rng, &ips) } else { "\"127.0.0.1\"" };
    let ports = ["0", "\"0\"", "1", "65535", "65536", "\"7\"", "\"+7\"", "1.5", "null", "-1"];
    let port = if odd { one_of(rng, &ports).to_string() } else { (7000 + number % 10).to_string() };
    let roles = ["\"voter\"", "\"learner\"", "\"leader\"", "1"];
    let role = match rng.next() % 4 {
        0 => format!(",\"role\":{}", if odd { one_of(rng, &roles) } else { "\"learner\"" }),
        _ => String::new(),
    };
    format!("\"{name}\":{{\"ip\":{ip},\"port\":{port}{role}}}")
}

/// In a member's name, node0 is asked to add node3 at an address that no file has, and says
/// hello there. A run took that for a word to a stranger.
#[test]
fn a_newcomer_is_greeted_where_a_member_says() {
    engine(&[0xff, 0xff, 0xf8, 0xf8, 0xf8, 0xf8, 0xf8, 0xff, 0x0a, 0xff, 0x0a, 0xff]);
}
