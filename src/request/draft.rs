//! A command before it has its number: the value as JSON, behind room for the head.
//!
//! What a caller's thread writes here is what is kept in the log and sent: the node writes
//! the head into the room. Short drafts of a thread stand one behind the other in pieces of
//! memory that they share: a piece costs as much as one of them would. It is let go with the
//! last of them; they leave the log together.

use std::cell::RefCell;

use bytes::{Buf, Bytes, BytesMut};

/// So many bytes are free in front of the JSON. A head is seldom
/// longer; then both are copied.
const HEADROOM: usize = 16;
/// So long pieces of memory does a thread ask for.
const PIECE_BYTES: usize = 32 * 1024;
/// A longer draft has memory of its own.
const SHORT_BYTES: usize = 4096;

thread_local! {
    /// What is left of the thread's piece.
    static PIECE: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// A command's JSON, with room in front of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Draft(BytesMut);

impl Draft {
    pub(crate) fn new(json: &[u8]) -> Draft {
        let length = HEADROOM + json.len();
        let write = |bytes: &mut BytesMut| {
            bytes.extend_from_slice(&[0; HEADROOM]);
            bytes.extend_from_slice(json);
        };
        let own = || {
            let mut bytes = BytesMut::with_capacity(length);
            write(&mut bytes);
            bytes
        };
        if length > SHORT_BYTES {
            return Draft(own());
        }
        let shared = PIECE.try_with(|piece| {
            let mut piece = piece.borrow_mut();
            if piece.capacity() < length {
                *piece = BytesMut::with_capacity(PIECE_BYTES);
            }
            write(&mut piece);
            piece.split()
        });
        // A thread that is ending has no piece.
        Draft(shared.unwrap_or_else(|_| own()))
    }

    pub(crate) fn json(&self) -> &[u8] {
        &self.0[HEADROOM..]
    }

    /// The JSON with this in front of it, where it stands if there is room enough.
    pub(crate) fn behind(mut self, head: &[u8]) -> Bytes {
        let Some(start) = HEADROOM.checked_sub(head.len()) else {
            return [head, self.json()].concat().into();
        };
        self.0.advance(start);
        self.0[..head.len()].copy_from_slice(head);
        self.0.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_goes_into_the_room_or_the_json_is_copied() {
        for length in 1..2 * HEADROOM {
            let draft = Draft::new(b"[1]");
            let json_at = draft.json().as_ptr();
            let head = vec![7; length];
            let bytes = draft.behind(&head);
            assert_eq!(bytes, [&head[..], b"[1]"].concat());
            let stayed = bytes[length..].as_ptr() == json_at;
            assert_eq!(stayed, length <= HEADROOM, "a head of {length} bytes");
        }
    }

    #[test]
    fn a_long_one_is_not_copied() {
        let draft = Draft::new(&[b'1'; 2 * SHORT_BYTES]);
        let json_at = draft.json().as_ptr();
        assert_eq!(draft.behind(&[2; 9])[9..].as_ptr(), json_at);
    }

    #[test]
    fn short_ones_share_memory() {
        let all: Vec<Draft> = (0..20_000).map(|n| Draft::new(n.to_string().as_bytes())).collect();
        let follows = |pair: &&[Draft]| pair[0].0.as_ptr_range().end == pair[1].0.as_ptr();
        let pieces = 1 + all.windows(2).filter(|pair| !follows(pair)).count();
        let bytes: usize = all.iter().map(|draft| draft.0.len()).sum();
        assert!(pieces <= 1 + bytes / (PIECE_BYTES - 100), "{pieces} pieces for {bytes} bytes");
        for (n, draft) in all.into_iter().enumerate() {
            assert_eq!(draft.behind(&[2, 3]), format!("\u{2}\u{3}{n}"));
        }
    }

    /// Its own piece may be gone before another of its thread's values is.
    #[test]
    fn a_thread_that_is_ending_writes_drafts() {
        struct Last(crossbeam_channel::Sender<Draft>);
        impl Drop for Last {
            fn drop(&mut self) {
                let _ = self.0.send(Draft::new(b"2"));
            }
        }
        thread_local! {
            static LAST: RefCell<Option<Last>> = const { RefCell::new(None) };
        }
        let (sender, drafts) = crossbeam_channel::unbounded();
        let write = move || {
            let first = Draft::new(b"1");
            LAST.set(Some(Last(sender.clone())));
            let _ = sender.send(first);
        };
        std::thread::spawn(write).join().expect("it ends");
        let found: Vec<Vec<u8>> = drafts.iter().map(|draft| draft.json().to_vec()).collect();
        assert_eq!(found, [b"1", b"2"]);
    }
}
