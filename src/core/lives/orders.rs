//! What the exploration of lives asks of them: that a peer be asked now, that what only
//! measures time be set anew, and that what only counts become an order.

use super::{AT_ONCE, Lives, Peer, Time};

impl Lives {
    /// The peer at this place is asked when time is looked at next, whatever else would
    /// have to come for that.
    pub fn wants_asking_now(&mut self, place: usize) {
        let peer = &mut self.peers[place];
        peer.misled = true;
        peer.ask_at = AT_ONCE;
    }

    /// What is asked of each peer; 0: nothing.
    pub fn asks(&self) -> impl Iterator<Item = u64> {
        self.peers.iter().map(|peer| peer.ask)
    }

    /// At the one time there is, a peer is only asked when somebody says so: all that
    /// leads to being asked, or puts it off, is forgotten. Of the events the order remains,
    /// as far as anything is compared: while this node may found, what was drawn with the
    /// beliefs in others; once it belongs, what was drawn with the names.
    pub fn settle(&mut self, fresh: bool, founds: bool, now: Time) {
        for peer in &mut self.peers {
            assert!(!peer.met && !peer.former, "nobody asks for anything: {peer:?}");
            peer.heard_at = None;
            peer.claimed = None;
            peer.misled = false;
            peer.unnamed = false;
            peer.curious = false;
            peer.sign_at = None;
            peer.echoed_at = peer.believed.map(|_| now);
            peer.ask_at = Time(u64::MAX);
            peer.asked_at = None;
            peer.asks = 0;
            if peer.ask == 0 {
                peer.drawn = 0;
            }
        }
        self.put_in_order(fresh, founds);
    }

    fn put_in_order(&mut self, fresh: bool, founds: bool) {
        let born: Vec<u64> = self.peers.iter().map(|peer| peer.born).collect();
        for (place, peer) in self.peers.iter_mut().enumerate() {
            let others = born.iter().enumerate().filter(|(other, _)| *other != place);
            let last_born = others.map(|(_, born)| *born).max().unwrap_or(0);
            let than = match (fresh, founds) {
                (true, true) => last_born,
                (true, false) => 0,
                (false, _) => peer.named,
            };
            // Before what it is compared with, or after it.
            let order = |event: u64| match event {
                0 => 0,
                _ if event < than || than == 0 => 1,
                _ => 3,
            };
            (peer.drawn, peer.echoed) = (order(peer.drawn), order(peer.echoed));
            peer.born = if fresh && founds { 2 * u64::from(peer.born > 0) } else { 0 };
            peer.named = 2 * u64::from(peer.named > 0);
        }
        self.events = 3;
    }

    /// All of that.
    pub fn hash_all(&self, hasher: &mut impl std::hash::Hasher) {
        for peer in &self.peers {
            let Peer { believed, fresh, cluster, ask, drawn, echoed, born, named, .. } = peer;
            let known = (believed, fresh, cluster, &peer.superseded);
            let order = (ask, drawn, echoed, born, named);
            std::hash::Hash::hash(&(known, order), hasher);
        }
    }

    /// As somebody might have it who takes any word for a recent one.
    pub fn bug_forgets_what_came_first(&mut self) {
        self.peers.iter_mut().for_each(|peer| (peer.born, peer.named) = (0, 0));
    }

    /// It has waited for all voters for longer than anybody waits.
    pub fn bug_has_waited_long(&mut self) {
        self.started_at = Time(0);
    }
}
