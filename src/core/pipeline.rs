//! The appends under way to one peer that follow each other without waiting.
//!
//! ```text
//!               another that left later was refused,
//!               or a heartbeat that left later finds less
//!   Travels ───────────────────────────────────────────► Lost
//!     │  ▲ └───────────────◄─ it is sent again ─◄──────────┘
//!     │  └──────────────────┐ nothing is missing before it,
//!     ▼ the peer refuses it │ and the peer does not have it
//!   Refused ────────────────┘
//! ```
//!
//! What the peer refuses for a gap before it has arrived, and its engine holds it until
//! the gap is filled (`engine::early`): so after a loss only what is lost travels again.
//! No promise rests on that. Where the peer holds nothing, a heartbeat shows it, or
//! patience ends, and all is sent again.

use std::collections::VecDeque;

use super::types::{Index, Time};

/// At most so many appends are under way to one peer.
const APPENDS_MOST: usize = 1024;

/// One append under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub struct Sent {
    /// The leader's number of it.
    pub seq: u64,
    /// The last entry that it carries.
    pub last: Index,
    /// How many bytes of entries.
    pub bytes: usize,
    /// When it left.
    pub at: Time,
}

/// What is thought of an append under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
enum Fate {
    Travels,
    /// It came before what it continues.
    Refused,
    /// It is sent again next.
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
struct UnderWay {
    sent: Sent,
    fate: Fate,
}

/// Those under way, in the order of the log: each begins where the one before ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub struct Pipeline {
    under_way: VecDeque<UnderWay>,
    bytes: usize,
    /// How many of them are lost: mostly none, and then nobody looks for them.
    lost: usize,
}

impl Pipeline {
    /// Whether another may leave within a window of so many bytes.
    pub fn has_room(&self, window: usize) -> bool {
        self.under_way.len() < APPENDS_MOST && (self.bytes < window || self.under_way.is_empty())
    }

    /// The one that continues what the peer is known to have.
    pub fn front(&self) -> Option<Sent> {
        self.under_way.front().map(|one| one.sent)
    }

    /// The first that is lost: its first entry and its last.
    pub fn first_lost(&self, match_index: Index) -> Option<(Index, Index)> {
        let place = self.place_of_lost()?;
        let before = place.checked_sub(1).map_or(match_index, |before| self.at(before).last);
        Some((before.next(), self.at(place).last))
    }

    /// Whether one is lost.
    pub fn has_lost(&self) -> bool {
        self.lost > 0
    }

    fn place_of_lost(&self) -> Option<usize> {
        let is_lost = |one: &UnderWay| one.fate == Fate::Lost;
        self.has_lost().then(|| self.under_way.iter().position(is_lost)).flatten()
    }

    fn at(&self, place: usize) -> Sent {
        self.under_way[place].sent
    }

    /// One left: the first that was lost, again, or another. Says whether it is new.
    pub fn on_sent(&mut self, sent: Sent) -> bool {
        let Some(place) = self.place_of_lost() else {
            self.under_way.push_back(UnderWay { sent, fate: Fate::Travels });
            self.bytes += sent.bytes;
            return true;
        };
        let lost = self.at(place);
        assert!(sent.last == lost.last, "{} is sent again in place of {}", sent.last, lost.last);
        // Its bytes stay those that were counted: part of it may match by now.
        let sent = Sent { bytes: lost.bytes, ..sent };
        self.under_way[place] = UnderWay { sent, fate: Fate::Travels };
        self.lost -= 1;
        false
    }

    /// The peer refused the append `seq`: when that had left, and whether others are under
    /// way before it, which it overtook. `None`: it is not under way.
    pub fn on_refused(&mut self, seq: u64) -> Option<(Time, bool)> {
        let place = self.under_way.iter().position(|one| one.sent.seq == seq)?;
        let one = &mut self.under_way[place];
        if one.fate == Fate::Lost {
            self.lost -= 1;
        }
        one.fate = Fate::Refused;
        Some((one.sent.at, place > 0))
    }

    /// What left before `seq`, was not refused and lies above `there` did not arrive: the
    /// number of the newest, and of the newest that is under way.
    pub fn on_overtaken(&mut self, seq: u64, there: Index) -> Option<(u64, u64)> {
        let mut newest_lost = None;
        for one in &mut self.under_way {
            let sent = one.sent;
            if one.fate == Fate::Travels && sent.seq < seq && sent.last > there {
                one.fate = Fate::Lost;
                self.lost += 1;
                newest_lost = newest_lost.max(Some(sent.seq));
            }
        }
        let newest = self.under_way.iter().map(|one| one.sent.seq).max();
        newest_lost.zip(newest)
    }

    /// If nothing is missing before what was refused, and the peer lacks it nevertheless,
    /// it holds nothing of what it refused.
    pub fn doubt_refused(&mut self) {
        if self.under_way.front().is_some_and(|one| one.fate == Fate::Refused) {
            let refused = self.under_way.iter_mut().filter(|one| one.fate == Fate::Refused);
            refused.for_each(|one| one.fate = Fate::Travels);
        }
    }

    /// The peer matches up to there, it says in answer to `seq`: how many bytes are under
    /// way no more, and when what it answered had left, if that is among them. What was
    /// refused was answered then, and has waited since.
    pub fn on_matched(&mut self, seq: u64, match_index: Index) -> (usize, Option<Time>) {
        let (mut freed, mut left_at) = (0, None);
        while let Some(UnderWay { sent, fate }) = self.under_way.front().copied() {
            if sent.last > match_index {
                break;
            }
            freed += sent.bytes;
            self.lost -= usize::from(fate == Fate::Lost);
            if sent.seq == seq && fate != Fate::Refused {
                left_at = Some(sent.at);
            }
            self.under_way.pop_front();
        }
        self.bytes -= freed;
        (freed, left_at)
    }

    /// For the exploration: what is under way bears the numbers that `number` gives.
    #[cfg(test)]
    pub fn number(&mut self, number: impl Fn(u64) -> u64) {
        self.under_way.iter_mut().for_each(|one| one.sent.seq = number(one.sent.seq));
    }

    #[cfg(test)]
    pub fn sent(&self) -> Vec<Sent> {
        self.under_way.iter().map(|one| one.sent).collect()
    }

    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}
