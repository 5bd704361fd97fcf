//! Seals: who does not hold the cluster's secret says nothing that is heard, and what
//! one who holds it said is heard once.
//!
//! A sealed datagram is encrypted and authenticated by AES-256-GCM. Its header (cluster,
//! the sender's incarnation and run, the addressee's, which secret, counter) is not
//! encrypted, but bound: a bit that is changed there breaks the seal.
//!
//! ```text
//!   secret ─► HKDF-SHA-256 ─┬─► 4 bytes that name the secret
//!                           └─ incarnation, run, epoch ─► key of the sender
//!   counter = epoch (40 bits) · number (24 bits)      nonce = 0 · counter
//! ```
//!
//! Why no nonce comes twice under a key. A key is of one secret, one incarnation, one run
//! and one epoch. A run is drawn by the operating system's chance at each start, so that a
//! restart has other keys, whether or not the node remembers anything: there is no counter
//! to keep on a disk. Within a run one `Seal` counts everything that leaves, to whomever;
//! it cannot be copied, and the count never goes back. A key ends after 2^24 datagrams,
//! with its epoch, long before their number tells anything of it (2^36 blocks at most).
//! Assumed: two starts of one incarnation do not draw the same 64-bit number; and no node is
//! copied, or set back to what it was, while it runs, as machines can be by a snapshot: that
//! would go on with the same run from an earlier count.
//!
//! Replays. For each sender that was heard there is a window over its counters: what was
//! taken, or is older than the window, is refused. What was recorded is
//!
//! - from this run of both: in the window;
//! - to an earlier run of this node: bound to that run, so not for this one. Only a hello
//!   may be for anyone, and it says nothing that is believed: who is met must echo a value
//!   that was drawn for this (`core::lives`);
//! - from an earlier run of the sender: in that run's window if it is remembered; if not,
//!   that life is not believed any more, and nobody is believed without an echo. It may make
//!   this node ask who is there, at the address that it knows itself;
//! - between two other nodes: bound to that addressee, so refused before it is opened;
//! - this node's own words, of this start or an earlier one: refused likewise.
//!
//! The windows of lives that are believed are kept as long as they are; of others a few.
//! To have one, a sender must hold the secret, or repeat what such a one said to this node.
//!
//! Two secrets may be known: the first seals, both open, so that a cluster changes its
//! secret in three rolling restarts (`config`).

mod window;

use std::collections::BTreeMap;

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit};
use hkdf::Hkdf;
use sha2::Sha256;

use crate::core::message::Envelope;
use crate::core::types::Life;
use crate::secret::{Secret, Secrets};

use super::Refusal;
use super::frame::{self, CLOSING_AT, Closing, Frame, Header, SEALED_HEADER_BYTES, TAG_BYTES};

use self::window::Window;

/// So many senders are remembered that are not believed. They hold the secret, or did.
const STRANGERS_KEPT: usize = 64;
/// Keeps our keys apart from whatever else somebody derives from the same secret.
const SALT: &[u8] = b"kontiki seal 1";

/// How the datagrams of one run are closed, and those of others opened.
#[derive(Debug)]
pub enum Seal {
    /// By a checksum: the network is trusted.
    Checksum,
    /// By a secret.
    Secret(Box<Sealed>),
}

/// What one run knows of seals. It cannot be cloned: its counter must not be.
pub struct Sealed {
    own: Life,
    sources: Vec<Source>,
    key: Key,
    counter: u64,
    senders: BTreeMap<(Life, usize), Box<Sender>>,
    /// Counts the datagrams that were opened.
    opened: u64,
}

/// What the keys come from: one secret.
struct Source {
    name: [u8; 4],
    hkdf: Hkdf<Sha256>,
}

/// The key of one run, for one epoch.
struct Key {
    epoch: u64,
    cipher: Aes256Gcm,
}

/// A life that was heard, by one secret.
struct Sender {
    key: Key,
    window: Window,
    /// When it was last heard, in datagrams.
    heard: u64,
}

impl Seal {
    /// For the run `own`.
    pub fn new(secrets: Option<&Secrets>, own: Life) -> Seal {
        let Some(secrets) = secrets else { return Seal::Checksum };
        let sources: Vec<Source> = secrets.iter().map(Source::new).collect();
        let key = sources[0].key(own, 0);
        let (counter, senders) = (0, BTreeMap::new());
        Seal::Secret(Box::new(Sealed { own, sources, key, counter, senders, opened: 0 }))
    }

    /// As the addressee of this datagram would have it that has heard nothing yet.
    #[cfg(any(test, feature = "sim"))]
    pub fn of_addressee(secrets: Option<&Secrets>, datagram: &[u8]) -> Seal {
        let closing = if secrets.is_some() { Closing::Seal } else { Closing::Checksum };
        let header = frame::read_header(datagram, closing);
        Seal::new(secrets, header.map_or(Envelope::ANYONE, |(header, _)| header.to))
    }

    /// How frames have to be begun.
    pub fn closing(&self) -> Closing {
        match self {
            Seal::Checksum => Closing::Checksum,
            Seal::Secret(_) => Closing::Seal,
        }
    }

    /// So many datagrams were closed before.
    #[cfg(any(test, fuzzing))]
    pub fn has_closed(&mut self, count: u64) {
        if let Seal::Secret(sealed) = self {
            sealed.counter = count;
        }
    }

    /// Closes a frame of this run that was begun so.
    pub fn close(&mut self, datagram: &mut Vec<u8>) {
        match self {
            Seal::Checksum => frame::close(datagram),
            Seal::Secret(sealed) => sealed.close(datagram),
        }
    }

    /// Opens a datagram. If its seal does not hold nothing has changed, the bytes neither.
    /// `believed` says whose window must be kept.
    pub fn open<'a>(
        &mut self,
        datagram: &'a mut [u8],
        believed: impl Fn(Life) -> bool,
    ) -> Result<Frame<'a>, Refusal> {
        match self {
            Seal::Checksum => frame::open(datagram),
            Seal::Secret(sealed) => sealed.open(datagram, believed),
        }
    }
}

impl Sealed {
    fn close(&mut self, datagram: &mut Vec<u8>) {
        let counter = self.counter;
        // At a million datagrams a second it would take half a million years.
        self.counter = counter.checked_add(1).expect("a run ends before its counter does");
        if epoch(counter) != self.key.epoch {
            self.key = self.sources[0].key(self.own, epoch(counter));
        }
        let (header, parts) = datagram.split_at_mut(SEALED_HEADER_BYTES);
        header[CLOSING_AT..CLOSING_AT + 4].copy_from_slice(&self.sources[0].name);
        header[CLOSING_AT + 4..].copy_from_slice(&counter.to_le_bytes());
        let sealed =
            self.key.cipher.encrypt_inout_detached(&nonce(counter).into(), header, parts.into());
        let tag = sealed.expect("a datagram is shorter than what the cipher takes at once");
        datagram.extend_from_slice(&tag);
    }

    fn open<'a>(
        &mut self,
        datagram: &'a mut [u8],
        believed: impl Fn(Life) -> bool,
    ) -> Result<Frame<'a>, Refusal> {
        let (header, mut cursor) = frame::read_header(datagram, Closing::Seal)?;
        let name: [u8; 4] = cursor.array()?;
        let counter = cursor.u64()?;
        if cursor.rest().len() < TAG_BYTES {
            return Err(Refusal::TooShort);
        }
        let place = self.sources.iter().position(|source| source.name == name);
        let place = place.ok_or(Refusal::Secret)?;
        let Header { from, to, .. } = header;
        // What was said to somebody else is not worth opening, and what this node said itself
        // comes back from nobody who means well.
        if to.incarnation != self.own.incarnation && to != Envelope::ANYONE {
            return Err(Refusal::Addressee);
        }
        let known = self.senders.get_mut(&(from, place));
        let replayed = known.as_ref().is_some_and(|sender| !sender.window.is_new(counter));
        if from.incarnation == self.own.incarnation || replayed {
            return Err(Refusal::Replayed);
        }
        let made = match &known {
            Some(sender) if sender.key.epoch == epoch(counter) => None,
            _ => Some(self.sources[place].key(from, epoch(counter))),
        };
        let key = made.as_ref().or(known.as_ref().map(|sender| &sender.key));
        let cipher = &key.expect("it was made where none is known").cipher;
        let (header_bytes, sealed) = datagram.split_at_mut(SEALED_HEADER_BYTES);
        let (parts, tag) = sealed.split_at_mut(sealed.len() - TAG_BYTES);
        let tag: &[u8; TAG_BYTES] = (&*tag).try_into().expect("it is as long as a tag");
        // The tag is compared before anything is decrypted.
        let opened = cipher.decrypt_inout_detached(
            &nonce(counter).into(),
            header_bytes,
            parts.into(),
            tag.into(),
        );
        opened.map_err(|_| Refusal::Forged)?;
        self.opened += 1;
        let heard = self.opened;
        match known {
            Some(sender) => sender.heard_of(made, counter, heard),
            None => {
                let key = made.expect("it was made where none is known");
                let mut sender = Box::new(Sender { key, window: Window::new(), heard });
                sender.window.take(counter);
                self.forget(&believed);
                self.senders.insert((from, place), sender);
            }
        }
        let end = datagram.len() - TAG_BYTES;
        Frame::of(header, &datagram[SEALED_HEADER_BYTES..end])
    }

    /// Makes room for one who was not heard before.
    fn forget(&mut self, believed: impl Fn(Life) -> bool) {
        if self.senders.len() < STRANGERS_KEPT {
            return;
        }
        let strangers = || self.senders.iter().filter(|((life, _), _)| !believed(*life));
        if strangers().count() >= STRANGERS_KEPT
            && let Some(oldest) = strangers().min_by_key(|(_, sender)| sender.heard)
        {
            let oldest = *oldest.0;
            self.senders.remove(&oldest);
        }
    }
}

impl Sender {
    fn heard_of(&mut self, made: Option<Key>, counter: u64, heard: u64) {
        // What is late from the epoch before does not take the newer key's place.
        if let Some(key) = made.filter(|key| key.epoch > self.key.epoch) {
            self.key = key;
        }
        self.window.take(counter);
        self.heard = heard;
    }
}

/// By what the secrets are called, for a person who compares nodes: nothing can be told
/// from it.
pub fn names(secrets: &Secrets) -> Vec<String> {
    let name = |secret| Source::new(secret).name.map(|byte| format!("{byte:02x}")).concat();
    secrets.iter().map(name).collect()
}

impl Source {
    fn new(secret: &Secret) -> Source {
        let hkdf = Hkdf::<Sha256>::new(Some(SALT), secret.bytes());
        let mut name = [0; 4];
        hkdf.expand(b"name", &mut name).expect("four bytes are few enough");
        Source { name, hkdf }
    }

    fn key(&self, of: Life, epoch: u64) -> Key {
        let numbers = [of.incarnation.0, of.run.0].map(u64::to_le_bytes);
        let mut key = [0; 32];
        self.hkdf
            .expand_multi_info(&[b"run", &numbers[0], &numbers[1], &epoch.to_le_bytes()], &mut key)
            .expect("a key is short enough");
        Key { epoch, cipher: Aes256Gcm::new(&key.into()) }
    }
}

/// Which of its keys a run has at that counter.
fn epoch(counter: u64) -> u64 {
    counter >> 24
}

fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    nonce
}

/// Without a secret in it.
impl std::fmt::Debug for Sealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealed")
            .field("secrets", &self.sources.len())
            .field("counter", &self.counter)
            .field("senders", &self.senders.keys())
            .finish()
    }
}

#[cfg(test)]
mod tests;
