//! Every node's view of who is up is what the committed log says, and nothing else: so
//! all pass through the same verdicts in the same order, whatever they restarted from.

use std::collections::BTreeMap;

use super::super::Core;
use super::super::membership::Membership;
use super::super::types::{Index, Payload, Protocol};
use super::super::verdicts::Verdicts;
use super::{History, Property, Verdict, ensure};

/// What a node knows of who is up is what the log says that is committed there.
pub const ONE_VIEW: Property = Property {
    name: "One View",
    source: "design, \"The agreed failure detector\": every node sees the same verdicts",
};

/// What the committed log of a cluster says, after each entry that changes it.
#[derive(Clone, Debug, Default)]
pub(super) struct Views {
    reached: Index,
    members: Option<Membership>,
    after: BTreeMap<Index, Verdicts>,
}

impl History {
    /// Looks at a node whose commit index is new.
    pub(super) fn check_verdicts(&mut self, core: &Core) -> Verdict {
        let cluster = core.hard().cluster.unwrap_or_default();
        let committed = self.committed.get(&cluster).map_or(&[][..], |all| all);
        let views = self.views.entry(cluster).or_default();
        for (entry, _) in committed.iter().skip(views.reached.0 as usize) {
            views.reached = views.reached.next();
            if let Payload::Protocol(Protocol::Members(members)) = &entry.payload {
                views.members = Some(Membership::clone(members));
            }
            let Some(members) = &views.members else { continue };
            if matches!(
                entry.payload,
                Payload::Protocol(Protocol::Members(_) | Protocol::Verdict(_))
            ) {
                let mut next = views.at(views.reached);
                next.apply(views.reached, &entry.payload, members);
                views.after.insert(views.reached, next);
            }
        }
        let expected = views.at(core.commit_index());
        ensure(&ONE_VIEW, *core.verdicts() == expected, || {
            format!(
                "at {}: {:?}, and the log says {expected:?}",
                core.commit_index(),
                core.verdicts()
            )
        })
    }
}

impl Views {
    fn at(&self, index: Index) -> Verdicts {
        let before = self.after.range(..=index).next_back();
        before.map_or_else(Verdicts::default, |(_, verdicts)| verdicts.clone())
    }
}
