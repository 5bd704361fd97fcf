//! Frames by hand, as they are drawn in the library's `wire` modules: to be wrong on
//! purpose, and to see that what is drawn there is so.

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit};
use hkdf::Hkdf;
use sha2::Sha256;

use super::chance::Chance;
use super::relay::Taped;

/// The secret of sealed clusters, as the config has it.
pub const SECRET: &str = "5f10c3a94e77b2d806f1aa3c9be4d265708192a3b4c5d6e7f8091a2b3c4d5e6f";

/// An incarnation and a run.
pub type Life = [u64; 2];

/// The head of a frame, as it is drawn in the library's `wire` module.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Head {
    pub cluster: u64,
    pub from: Life,
    pub to: Life,
}

const CLOSING_AT: usize = 46;
/// How long the head of a frame with a checksum is.
pub const HEAD: usize = 50;

/// Puts the right checksum on a frame.
pub fn close(frame: &mut [u8]) {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&frame[..CLOSING_AT]);
    hasher.update(&frame[HEAD..]);
    let sum = hasher.finalize();
    frame[CLOSING_AT..HEAD].copy_from_slice(&sum.to_le_bytes());
}

impl Head {
    /// That of a frame, sealed or not.
    pub fn of(frame: &[u8]) -> Option<Head> {
        let number = |at: usize| Some(u64::from_le_bytes(frame.get(at..at + 8)?.try_into().ok()?));
        if frame.get(..5)? != b"KTKI\x03" {
            return None;
        }
        Some(Head {
            cluster: number(6)?,
            from: [number(14)?, number(22)?],
            to: [number(30)?, number(38)?],
        })
    }
}

/// The head of what the one would say to the other now, by what both said last.
pub fn head_between(tape: &[Taped], from: usize, to: usize) -> Head {
    let said_by = |place: usize| {
        let frames = tape.iter().rev().filter(move |taped| taped.from == place);
        frames.filter_map(|taped| Head::of(&taped.bytes)).find(|head| head.cluster != 0)
    };
    let (Some(from), Some(to)) = (said_by(from), said_by(to)) else {
        panic!("one of the two said nothing");
    };
    Head { cluster: from.cluster, from: from.from, to: to.from }
}

/// Makes frames that are closed as they should be.
pub struct Forger {
    hkdf: Option<Hkdf<Sha256>>,
    counter: u64,
    /// The last key that was needed, and whose it is.
    key: Option<([u64; 2], Aes256Gcm)>,
}

impl Forger {
    /// One who holds the secret, or one for a cluster without.
    pub fn new(sealed: bool) -> Forger {
        let secret = |at: usize| u8::from_str_radix(&SECRET[2 * at..2 * at + 2], 16);
        let secret: Vec<u8> = (0..32).map(|at| secret(at).expect("digits")).collect();
        let hkdf = sealed.then(|| Hkdf::new(Some(b"kontiki seal 1"), &secret));
        // Behind whatever the run in whose name this is has sent itself.
        Forger { hkdf, counter: 128 << 24, key: None }
    }

    /// A frame with this body, parts or not.
    pub fn frame(&mut self, head: &Head, body: &[u8]) -> Vec<u8> {
        let mut frame = b"KTKI\x03".to_vec();
        frame.push(u8::from(self.hkdf.is_some()));
        let lives = head.from.into_iter().chain(head.to);
        for number in [head.cluster].into_iter().chain(lives) {
            frame.extend_from_slice(&number.to_le_bytes());
        }
        match &self.hkdf {
            None => {
                frame.extend_from_slice(&[0; 4]);
                frame.extend_from_slice(body);
                close(&mut frame);
            }
            Some(hkdf) => {
                let mut name = [0; 4];
                hkdf.expand(b"name", &mut name).expect("a name");
                frame.extend_from_slice(&name);
                frame.extend_from_slice(&self.counter.to_le_bytes());
                let mut nonce = [0; 12];
                nonce[4..].copy_from_slice(&self.counter.to_be_bytes());
                self.counter += 1;
                if self.key.as_ref().is_none_or(|(of, _)| *of != head.from) {
                    self.key = Some((head.from, key(hkdf, head.from, self.counter >> 24)));
                }
                let (_, cipher) = self.key.as_ref().expect("it was made");
                let mut body = body.to_vec();
                let parts = body.as_mut_slice().into();
                let tag = cipher.encrypt_inout_detached(&nonce.into(), &frame, parts);
                frame.extend_from_slice(&body);
                frame.extend_from_slice(&tag.expect("it is short"));
            }
        }
        frame
    }

    /// A frame with one part.
    pub fn message(&mut self, head: &Head, part: &[u8]) -> Vec<u8> {
        let mut body = Vec::new();
        put(&mut body, part.len() as u64);
        body.extend_from_slice(part);
        self.frame(head, &body)
    }
}

/// The key of a run, in one of its epochs.
fn key(hkdf: &Hkdf<Sha256>, of: Life, epoch: u64) -> Aes256Gcm {
    let (numbers, mut key) = (of.map(u64::to_le_bytes), [0; 32]);
    let about: [&[u8]; 4] = [b"run", &numbers[0], &numbers[1], &epoch.to_le_bytes()];
    hkdf.expand_multi_info(&about, &mut key).expect("a key");
    Aes256Gcm::new(&key.into())
}

/// Appends a varint.
pub fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

pub fn hello(name: &str, fresh: bool, ask: u64, echo: u64) -> Vec<u8> {
    let mut part = vec![1, u8::from(fresh)];
    part.extend_from_slice(&ask.to_le_bytes());
    part.extend_from_slice(&echo.to_le_bytes());
    part.push(name.len() as u8);
    part.extend_from_slice(name.as_bytes());
    put(&mut part, 0);
    part
}

pub fn first_fragment(id: u64, total: u64, bytes: &[u8]) -> Vec<u8> {
    let mut part = vec![0x40];
    for number in [id, total, bytes.len() as u64, 0] {
        put(&mut part, number);
    }
    part.extend_from_slice(bytes);
    part
}

/// Messages of chance.
pub struct Liar {
    pub chance: Chance,
    /// Whether terms may be at the end of what there is. They end a node at once, and
    /// hide what else may happen.
    pub last_terms: bool,
}

impl Liar {
    pub fn new(seed: u64) -> Liar {
        Liar { chance: Chance::new(seed), last_terms: true }
    }

    /// Appends numbers at which something may turn over.
    fn numbers(&mut self, part: &mut Vec<u8>, count: usize) {
        for _ in 0..count {
            let number = match self.chance.below(8) {
                0 => 0,
                1 => u64::MAX,
                2 => u64::MAX - self.chance.draw() % 3,
                3 => 1 << (self.chance.draw() % 64),
                4 => self.chance.draw(),
                _ => self.chance.draw() % 40,
            };
            put(part, number);
        }
    }

    fn term(&mut self, part: &mut Vec<u8>) {
        if self.last_terms {
            return self.numbers(part, 1);
        }
        let term = self.chance.draw() % 8;
        put(part, term);
    }

    fn byte_below(&mut self, part: &mut Vec<u8>, limit: usize) -> usize {
        let byte = self.chance.below(limit);
        part.push(byte as u8);
        byte
    }

    /// A message of any kind but a hello, as long as it should be, with fields of chance.
    pub fn message(&mut self) -> Vec<u8> {
        let kind = 2 + self.chance.below(20) as u8;
        let mut part = vec![kind];
        match kind {
            2 | 21 => {
                match kind {
                    2 => drop(self.byte_below(&mut part, 2)),
                    _ => self.numbers(&mut part, 1),
                }
                // Some cluster's, without members and without former ones.
                part.extend_from_slice(&self.chance.bytes(8));
                part.extend_from_slice(&[0, 0]);
            }
            3 | 4 => {
                self.numbers(&mut part, 1);
                self.term(&mut part);
                if kind == 3 {
                    self.numbers(&mut part, 2);
                } else {
                    self.byte_below(&mut part, 2);
                }
            }
            5 => {
                self.term(&mut part);
                self.numbers(&mut part, 2);
                self.byte_below(&mut part, 2);
            }
            6 => {
                self.term(&mut part);
                self.byte_below(&mut part, 2);
            }
            7 => {
                self.term(&mut part);
                self.numbers(&mut part, 4);
                for _ in 0..self.byte_below(&mut part, 4) {
                    self.entry(&mut part);
                }
            }
            8 => {
                self.term(&mut part);
                self.numbers(&mut part, 1);
                let outcome = self.byte_below(&mut part, 3);
                self.numbers(&mut part, [1, 3, 0][outcome]);
            }
            9 | 10 => {
                self.term(&mut part);
                self.numbers(&mut part, 3);
            }
            11 => {
                self.term(&mut part);
                self.numbers(&mut part, 1);
            }
            12 => self.numbers(&mut part, 1),
            13 => self.numbers(&mut part, 2),
            15 | 16 => {
                self.term(&mut part);
                self.numbers(&mut part, 4);
                part.extend_from_slice(&self.chance.bytes(4));
                self.numbers(&mut part, 1);
                if kind == 15 {
                    put(&mut part, 8);
                    part.extend_from_slice(&self.chance.bytes(8));
                }
            }
            17 => self.term(&mut part),
            18 => self.numbers(&mut part, 1),
            19 => {
                self.numbers(&mut part, 1);
                self.byte_below(&mut part, 2);
                // No wish that could be granted: this is to change nothing.
                part.push(1 + self.chance.below(2) as u8);
                part.extend_from_slice(b"\x06nobody");
            }
            20 => {
                self.numbers(&mut part, 1);
                part.push(1);
                self.byte_below(&mut part, 12);
            }
            _ => {
                self.byte_below(&mut part, 2);
                put(&mut part, 1);
                self.operation(&mut part);
            }
        }
        part
    }

    fn entry(&mut self, part: &mut Vec<u8>) {
        let has_term = self.chance.below(2) as u8 * 0b100;
        let is_client = self.chance.below(2) as u8 * 2;
        part.push(has_term | is_client);
        if has_term != 0 {
            self.term(part);
        }
        if is_client != 0 {
            self.operation(part);
        }
    }

    /// Any bytes, or the opening of a session.
    fn operation(&mut self, part: &mut Vec<u8>) {
        let length = 1 + self.chance.below(24);
        put(part, length as u64);
        self.byte_below(part, 4);
        part.extend_from_slice(&self.chance.bytes(length - 1));
    }
}
