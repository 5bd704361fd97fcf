//! Small questions that the engine asks of the core.

use super::Core;
use super::effect::{Detail, Note};
use super::message::Propose;
use super::state::{Refused, Role};
use super::types::{Incarnation, Time};

impl Core {
    /// Whether this node leads.
    pub fn leads(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    /// Whether this node leads and takes more into its log.
    pub fn has_room(&self) -> bool {
        matches!(&self.role, Role::Leader(leader) if !leader.is_full())
    }

    /// How many bytes of operations fit in a message to the leader.
    pub fn leader_append_bytes(&self) -> usize {
        match self.leader() {
            Some(leader) if leader != self.me.incarnation => self.append_limit(leader),
            _ => usize::MAX,
        }
    }

    /// Takes operations of this node's own into its log, as those of another node
    /// would be taken: what is repeated and still there is left alone.
    pub fn propose_again(&mut self, propose: Propose) -> Result<(), Refused> {
        self.on_propose(self.me.incarnation, propose)
    }

    /// When it stands for election unless it hears a leader; `None` if it would not.
    pub fn campaigns_at(&self) -> Option<Time> {
        (!self.leads() && self.may_campaign()).then_some(self.election_at)
    }

    /// Tells a person of trouble.
    pub fn warn(&mut self, text: String) {
        self.tell(Detail::Turns, || Note::Warning(text));
    }

    /// The name of the node behind an incarnation, as far as it is known.
    pub fn known_name(&self, incarnation: Incarnation) -> Option<&str> {
        if incarnation == self.me.incarnation {
            return Some(&self.setup.own.name);
        }
        let peer = self.lives.by_incarnation(incarnation).map(|peer| peer.node.name.as_str());
        let member = self.members().and_then(|members| members.member(incarnation));
        peer.or(member.map(|member| member.name.as_str()))
    }
}
