//! Who the peers are: the nodes of the file, whom the log's members name, or named of late,
//! whom somebody introduced, and whom a leader meets because they are to become members.

use ::core::net::SocketAddr;

use super::super::membership::{Membership, Standing};
use super::super::types::{ClusterId, Index};
use super::{AT_ONCE, Lives, Neighbor, Peer};

impl Lives {
    /// The members are others now: whom they name, or named of late, is a peer, at the
    /// address that they state. What a name said before is not known to be said by a
    /// newer life than the one that they name.
    pub fn members_changed(
        &mut self,
        before: Option<&Membership>,
        now: &Membership,
        stated: Index,
    ) {
        self.events += 1;
        for peer in &mut self.peers {
            let life = |members: &Membership| {
                members.named(&peer.node.name).and_then(|member| member.incarnation)
            };
            if before.and_then(life) != life(now) {
                peer.named = self.events;
            }
        }
        self.find_peers(Some(now), stated);
    }

    /// Somebody who knows tells which members there are, as of `index`.
    pub fn introduce(
        &mut self,
        index: Index,
        told: &Membership,
        own: (Option<&Membership>, Index),
    ) {
        if self.introduced.as_ref().is_none_or(|(known, _)| *known < index) {
            let members = told.members.iter();
            let named = members.map(|member| Neighbor {
                name: member.name.clone(),
                address: member.address,
                voter: member.standing != Standing::Learner,
            });
            let named = named.collect();
            self.introduced = Some((index, named));
            self.find_peers(own.0, own.1);
        }
    }

    /// Whom the members name, as of `stated`, or name as former, or as somebody introduced
    /// them since; and the nodes of the file.
    fn find_peers(&mut self, members: Option<&Membership>, stated: Index) {
        let nobody = Membership::new(ClusterId(0), Vec::new());
        let now = members.unwrap_or(&nobody);
        let own_name = self.own_name.clone();
        for peer in &mut self.peers {
            peer.former = false;
        }
        // The newest of a name counts: the later ones stand further back.
        for former in now.former.iter().filter(|former| former.name != own_name) {
            if now.named(&former.name).is_none() {
                let known = self.peer_at(&former.name, former.address);
                known.former = true;
            }
        }
        for member in now.members.iter().filter(|member| member.name != own_name) {
            let votes = member.standing != Standing::Learner;
            self.peer_at(&member.name, member.address).votes = votes;
        }
        self.introduced.take_if(|(index, _)| *index <= stated);
        let introduced = self.introduced.as_ref().map_or(Vec::new(), |(_, all)| all.clone());
        for Neighbor { name, address, voter } in introduced.iter().filter(|of| of.name != own_name)
        {
            self.peer_at(name, *address).votes = *voter;
        }
        let named = |name: &String| {
            now.named(name).is_some() || introduced.iter().any(|other| other.name == *name)
        };
        self.peers.retain(|peer| {
            peer.in_file.is_some() || peer.met || peer.former || named(&peer.node.name)
        });
        for peer in &mut self.peers {
            let stated = peer.former || named(&peer.node.name);
            if let Some(address) = peer.in_file.filter(|_| !stated && !peer.met) {
                peer.move_to(address);
            }
        }
        self.find_believed();
    }

    /// Somebody asks that this node become a member: it is asked who it is.
    pub fn meet(&mut self, name: &str, address: SocketAddr) {
        self.events += 1;
        let events = self.events;
        let peer = self.peer_at(name, address);
        peer.met = true;
        peer.unnamed = false;
        peer.former = false;
        peer.claimed = None;
        peer.ask_at = AT_ONCE;
        peer.asks = 0;
        // What it said before may be of a life that is over.
        peer.named = events;
        self.find_believed();
    }

    /// Nobody asks that any more.
    pub fn part(&mut self, name: &str, members: Option<&Membership>, stated: Index) {
        if let Some(peer) = self.by_name_mut(name) {
            peer.met = false;
        }
        self.find_peers(members, stated);
    }

    /// The life of a node that was met, if it has echoed since, and whether it is fresh.
    pub fn met(&self, name: &str) -> Option<&Peer> {
        let peer = self.by_name(name)?;
        (peer.believed.is_some() && peer.echoed > peer.named).then_some(peer)
    }

    /// The peer of that name.
    pub fn by_name(&self, name: &str) -> Option<&Peer> {
        self.place_of(name).ok().map(|place| &self.peers[place])
    }

    pub(super) fn by_name_mut(&mut self, name: &str) -> Option<&mut Peer> {
        self.place_of(name).ok().map(|place| &mut self.peers[place])
    }

    /// Where the peer of that name stands, or would.
    pub(super) fn place_of(&self, name: &str) -> Result<usize, usize> {
        self.peers.binary_search_by(|peer| peer.node.name.as_str().cmp(name))
    }

    /// The peer of that name, at that address from now on.
    fn peer_at(&mut self, name: &str, address: SocketAddr) -> &mut Peer {
        let place = self.place_of(name).unwrap_or_else(|place| {
            let node = Neighbor { name: name.to_string(), address, voter: false };
            self.peers.insert(place, Peer::new(node, AT_ONCE));
            place
        });
        let peer = &mut self.peers[place];
        peer.move_to(address);
        peer
    }

    fn find_believed(&mut self) {
        let lives = self.peers.iter().enumerate();
        let believed = lives.filter_map(|(place, peer)| Some((peer.believed?.incarnation, place)));
        self.believed = believed.collect();
    }
}
