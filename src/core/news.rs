//! When a member is told what is committed.
//!
//! Each append takes the commit index along, so under load nothing is sent for it. What
//! no append has taken is told by itself: at once to a member that waits for it, because
//! it asked for the entry, or because the entry says who leads, who is a member or who is
//! up (who reads hears of it by the round that its read takes); to others a little later, because the next append may take it
//! after all, and the datagram and the wake at its other end are saved then.

use super::types::{Index, Time};

/// A member that waits for nothing hears of a commit after so many microseconds at the
/// latest.
const TOLD_AFTER: u64 = 1_000;

/// What a member was told.
#[derive(Clone, Debug, Default)]
#[cfg_attr(test, derive(Hash))]
pub struct News {
    /// The commit index that was last sent.
    sent: Index,
    /// Somebody there waits until it knows that this is committed.
    awaited: Index,
    /// When it is told what it does not know yet.
    due: Option<Time>,
}

impl News {
    /// Of one that was told nothing yet, and waits for `awaited`.
    pub fn new(awaited: Index) -> News {
        News { awaited, ..News::default() }
    }

    /// Its program waits for `index`.
    pub fn await_commit(&mut self, index: Index) {
        self.awaited = self.awaited.max(index);
    }

    /// A message took the commit index along.
    pub fn on_sent(&mut self, committed: Index) {
        self.sent = self.sent.max(committed);
        self.due = None;
    }

    /// Whether it is to be told by itself now that all up to `committed` is. It has the
    /// log up to `matched`: more would be of no use to it.
    pub fn is_due(&mut self, committed: Index, matched: Index, now: Time) -> bool {
        if self.sent >= committed.min(matched) {
            self.due = None;
            return false;
        }
        let due = *self.due.get_or_insert(now.plus(TOLD_AFTER));
        self.sent < self.awaited || now >= due
    }

    /// When it is told at the latest.
    pub fn deadline(&self) -> Option<Time> {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_is_told_at_once_and_others_when_no_append_came() {
        let mut news = News::default();
        assert!(!news.is_due(Index(5), Index(5), Time(10)));
        assert_eq!(news.deadline(), Some(Time(10 + TOLD_AFTER)));
        assert!(news.is_due(Index(5), Index(5), Time(10 + TOLD_AFTER)));
        news.on_sent(Index(5));
        assert!(!news.is_due(Index(5), Index(9), Time(5_000)));
        assert_eq!(news.deadline(), None);

        news.await_commit(Index(7));
        assert!(news.is_due(Index(6), Index(7), Time(6_000)), "the first of what it asked for");
        news.on_sent(Index(6));
        assert!(news.is_due(Index(7), Index(7), Time(6_000)));
        news.on_sent(Index(7));
        assert!(!news.is_due(Index(8), Index(8), Time(6_000)), "it asked for no more");
    }

    #[test]
    fn what_it_has_not_is_no_news_to_it() {
        let mut news = News::default();
        assert!(!news.is_due(Index(5), Index(0), Time(10)));
        assert_eq!(news.deadline(), None);
        assert!(!news.is_due(Index(5), Index(2), Time(10)));
        assert!(news.is_due(Index(5), Index(2), Time(10 + TOLD_AFTER)));
    }
}
