//! The sessions: for each run of a node that proposes commands, which of its
//! numbers were applied, and what they came to.
//!
//! ```text
//!            floor                       floor + window
//!  settled ───┤ reply │       │ reply │ ... ├─── refused
//!   skipped     skipped  free   skipped  free
//! ```
//!
//! A session's numbers are applied in any order, each once. The replies stand in a
//! ring that begins at the floor, so that finding and adding one costs the same
//! however many there are.
//!
//! Everything here is bounded: the number of sessions, the length of a ring, and
//! the places of all rings together, of which each session may always use an equal
//! share.

use std::collections::{BTreeSet, VecDeque};

use crate::core::types::{Incarnation, Index, Life, Run};
use crate::encoding::cursor::{Cursor, put_varint};

use super::snapshot::{Unsound, ensure, put_answer};
use super::values::Values;
use super::{Answer, Limits, State};

/// The live sessions.
pub(super) struct Sessions {
    /// In order of their ids, which is the order in which they were opened.
    live: Vec<Session>,
    /// The places of all rings together.
    places: usize,
    /// No session expires before this client entry.
    check_at: u64,
    span: u64,
    limit: usize,
    window: u64,
    places_limit: usize,
}

#[derive(Debug)]
struct Session {
    /// The index of the entry that opened it.
    id: Index,
    /// Who opened it.
    life: Life,
    /// The number of the last client entry that named it.
    touched: u64,
    /// All numbers below are settled. Only rises.
    floor: u64,
    /// What the numbers from the floor on came to.
    replies: VecDeque<Option<Answer>>,
}

/// A live session's place, good until the next one is opened or expires.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place(usize);

/// What is to become of a session's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It was not applied yet.
    Fresh,
    /// It was applied, or its client has settled it.
    Past,
    /// It lies too far above the floor.
    TooFar,
}

impl Sessions {
    pub fn new(limits: &Limits) -> Sessions {
        assert!(limits.sessions > 0, "there is room for no session");
        Sessions {
            live: Vec::new(),
            places: 0,
            check_at: 0,
            span: limits.session_span,
            limit: limits.sessions,
            window: limits.window,
            places_limit: limits.replies,
        }
    }

    /// The live session of `life`, touched by client entry `now`.
    pub fn reopen(&mut self, life: Life, now: u64) -> Option<Index> {
        let session = self.live.iter_mut().find(|session| session.life == life)?;
        session.touched = now;
        Some(session.id)
    }

    /// Opens a session for `life`, which has none. Gives the one that had to make
    /// room: the one that was not touched for longest.
    pub fn open(&mut self, id: Index, life: Life, now: u64, values: &mut Values) -> Option<Index> {
        let mut closed = None;
        if self.live.len() >= self.limit {
            let oldest = (0..self.live.len()).min_by_key(|&at| self.live[at].touched);
            closed = oldest.map(|at| {
                let mut session = self.live.remove(at);
                self.places -= session.clear(values);
                session.id
            });
        }
        assert!(
            self.live.last().is_none_or(|last| last.id < id),
            "session {id} is opened after a younger one"
        );
        self.live.push(Session { id, life, touched: now, floor: 0, replies: VecDeque::new() });
        closed
    }

    /// Finds a session that client entry `now` names, and raises its floor.
    pub fn touch(&mut self, id: Index, floor: u64, now: u64, values: &mut Values) -> Option<Place> {
        let at = self.find(id)?;
        let session = &mut self.live[at];
        session.touched = now;
        self.places -= session.raise_floor(floor, values);
        Some(Place(at))
    }

    /// Who opened this session.
    pub fn life(&self, place: Place) -> Life {
        self.live[place.0].life
    }

    /// What is to become of this number.
    pub fn admit(&self, place: Place, seq: u64) -> Admission {
        let session = &self.live[place.0];
        let Some(above) = seq.checked_sub(session.floor) else {
            return Admission::Past;
        };
        if above >= self.window {
            return Admission::TooFar;
        }
        let above = above as usize;
        if let Some(reply) = session.replies.get(above) {
            return if reply.is_some() { Admission::Past } else { Admission::Fresh };
        }
        let more = above + 1 - session.replies.len();
        let has_share = above < self.share();
        if has_share || self.places + more <= self.places_limit {
            Admission::Fresh
        } else {
            Admission::TooFar
        }
    }

    /// So many places may each session always use.
    fn share(&self) -> usize {
        self.places_limit / self.limit
    }

    /// Notes what a fresh number came to. The caller has taken hold of the value.
    pub fn record(&mut self, place: Place, seq: u64, answer: Answer) {
        let session = &mut self.live[place.0];
        let above = (seq - session.floor) as usize;
        let before = session.replies.len();
        if above == before {
            session.replies.push_back(Some(answer));
        } else {
            if above > before {
                session.replies.resize(above + 1, None);
            }
            let reply = &mut session.replies[above];
            assert!(reply.is_none(), "number {seq} of session {} was applied twice", session.id);
            *reply = Some(answer);
        }
        self.places += session.replies.len() - before;
    }

    /// Closes the sessions that were not touched for longer than the span, up to
    /// client entry `now`, and gives their ids.
    pub fn expire(&mut self, now: u64, values: &mut Values) -> Vec<Index> {
        let mut closed = Vec::new();
        if now < self.check_at {
            return closed;
        }
        self.live.retain_mut(|session| {
            let live = now - session.touched <= self.span;
            if !live {
                self.places -= session.clear(values);
                closed.push(session.id);
            }
            live
        });
        let oldest = self.live.iter().map(|session| session.touched).min();
        self.check_at = oldest.unwrap_or(now) + self.span + 1;
        closed
    }

    /// Which client entry named this session last; `None` if it is not live.
    pub fn touched(&self, id: Index) -> Option<u64> {
        self.find(id).map(|at| self.live[at].touched)
    }

    /// The live session of `life`.
    pub fn of(&self, life: Life) -> Option<Index> {
        self.live.iter().find(|session| session.life == life).map(|session| session.id)
    }

    /// What the numbers of this session came to, as far as they are not settled.
    pub fn replies(&self, id: Index) -> impl Iterator<Item = (u64, Answer)> {
        let session = self.find(id).map(|at| &self.live[at]);
        session.into_iter().flat_map(|session| {
            let numbered = (session.floor..=u64::MAX).zip(&session.replies);
            numbered.filter_map(|(seq, reply)| Some((seq, (*reply)?)))
        })
    }

    /// Appends the sessions as snapshots have them.
    pub fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, self.live.len() as u64);
        for session in &self.live {
            session.put(out);
        }
    }

    /// About how many bytes `put` writes.
    pub fn size_bytes(&self) -> usize {
        self.live.len() * 48 + self.places * 8
    }

    /// Reads the sessions of a state whose values are there.
    pub fn take(
        from: &mut Cursor<'_>,
        state: &mut State,
        limits: &Limits,
    ) -> Result<Sessions, Unsound> {
        // The first client entry looks through them all: `check_at` is 0.
        let mut sessions = Sessions::new(limits);
        let mut lives = BTreeSet::new();
        for _ in 0..from.count(sessions.limit)? {
            let session = Session::take(from, state, limits)?;
            let before = sessions.live.last().map_or(Index(0), |last| last.id);
            ensure(before < session.id && lives.insert(session.life), || {
                format!("session {} of {:?} behind {before}", session.id, session.life)
            })?;
            sessions.places += session.replies.len();
            sessions.live.push(session);
        }
        // Beyond the limit there is no more than the shares of all.
        let most = sessions.places_limit + sessions.limit * sessions.share();
        ensure(sessions.places <= most, || format!("{} places for replies", sessions.places))?;
        Ok(sessions)
    }

    fn find(&self, id: Index) -> Option<usize> {
        self.live.binary_search_by_key(&id, |session| session.id).ok()
    }

    #[cfg(test)]
    pub fn places(&self) -> usize {
        let counted: usize = self.live.iter().map(|session| session.replies.len()).sum();
        assert_eq!(counted, self.places);
        self.places
    }

    #[cfg(test)]
    pub fn capacity(&self) -> usize {
        self.live.iter().map(|session| session.replies.capacity()).sum()
    }

    #[cfg(test)]
    pub fn digest(&self) -> String {
        format!("{:?}", self.live)
    }
}

impl Session {
    /// Raises the floor and gives how many places that freed.
    fn raise_floor(&mut self, floor: u64, values: &mut Values) -> usize {
        let before = self.replies.len();
        while self.floor < floor {
            let Some(reply) = self.replies.pop_front() else {
                self.floor = floor;
                break;
            };
            self.floor += 1;
            if let Some(answer) = reply {
                values.release(answer.value);
            }
        }
        let (length, capacity) = (self.replies.len(), self.replies.capacity());
        if capacity > 1024 && length < capacity / 8 {
            self.replies.shrink_to(length * 2); // a ring that was once long gives its memory back
        }
        before - length
    }

    /// Lets all replies go and gives how many places that freed.
    fn clear(&mut self, values: &mut Values) -> usize {
        let freed = self.replies.len();
        for answer in self.replies.drain(..).flatten() {
            values.release(answer.value);
        }
        freed
    }

    fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, self.id.0);
        out.extend_from_slice(&self.life.incarnation.0.to_le_bytes());
        out.extend_from_slice(&self.life.run.0.to_le_bytes());
        put_varint(out, self.touched);
        put_varint(out, self.floor);
        put_varint(out, self.replies.len() as u64);
        for reply in &self.replies {
            match reply {
                Some(answer) => put_answer(*answer, out),
                None => out.push(0),
            }
        }
    }

    fn take(from: &mut Cursor<'_>, state: &mut State, limits: &Limits) -> Result<Session, Unsound> {
        let id = Index(from.varint()?);
        let life = Life { incarnation: Incarnation(from.u64()?), run: Run(from.u64()?) };
        let (touched, floor) = (from.varint()?, from.varint()?);
        let places = from.count(usize::try_from(limits.window).unwrap_or(usize::MAX))?;
        let now = state.client_entries;
        let sound = id <= state.applied
            && (life.incarnation.0 != 0 && life.run.0 != 0)
            && (1..=now).contains(&touched)
            && now - touched <= limits.session_span
            && floor.checked_add(places.saturating_sub(1) as u64).is_some();
        ensure(sound, || {
            format!("session {id} of {life:?}, touched by {touched} of {now}, {places} on {floor}")
        })?;
        let mut replies = VecDeque::new();
        for _ in 0..places {
            replies.push_back(state.take_answer(from)?);
        }
        // A ring ends where its highest number is.
        ensure(replies.back().is_none_or(Option::is_some), || format!("session {id} ends free"))?;
        Ok(Session { id, life, touched, floor, replies })
    }
}
