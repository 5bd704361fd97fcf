//! What was dropped, by reason: nothing is dropped in silence.

use crate::core::Refused;
use crate::wire::Refusal;

/// Counts of datagrams, and of what was dropped of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Datagrams that came.
    pub(crate) received: u64,
    /// Those that did not open or decode, by `Refusal as usize`.
    pub(crate) refused: [u64; Refusal::ALL.len()],
    /// Messages that the protocol did not take, by reason.
    pub(crate) dropped: [u64; REASONS.len()],
}

/// The protocol's reasons, in the order in which they are counted.
const REASONS: [Refused; 9] = [
    Refused::NotForThisLife,
    Refused::NotBelieved,
    Refused::Stranger,
    Refused::NoMember,
    Refused::ForeignCluster,
    Refused::Malformed,
    Refused::NotLeader,
    Refused::Full,
    Refused::Failed,
];

impl Counts {
    /// Bytes were refused.
    pub(crate) fn refuse(&mut self, refusal: Refusal) {
        self.refused[refusal as usize] += 1;
    }

    /// A message was dropped.
    pub(crate) fn drop_message(&mut self, refused: Refused) {
        if let Some(place) = REASONS.iter().position(|reason| *reason == refused) {
            self.dropped[place] += 1;
        }
    }

    /// How many datagrams or messages were not taken.
    pub(crate) fn lost(&self) -> u64 {
        self.refused.iter().chain(&self.dropped).sum()
    }

    /// The reasons that occurred, for a person.
    pub(crate) fn describe(&self) -> String {
        let refused = Refusal::ALL
            .iter()
            .map(|refusal| (refusal.name().to_string(), self.refused[*refusal as usize]));
        let dropped =
            REASONS.iter().zip(self.dropped).map(|(reason, count)| (format!("{reason:?}"), count));
        let told: Vec<String> = refused
            .chain(dropped)
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        told.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The one that comes next; written so that no reason can be left out.
    fn after(refused: Refused) -> Option<Refused> {
        Some(match refused {
            Refused::NotForThisLife => Refused::NotBelieved,
            Refused::NotBelieved => Refused::Stranger,
            Refused::Stranger => Refused::NoMember,
            Refused::NoMember => Refused::ForeignCluster,
            Refused::ForeignCluster => Refused::Malformed,
            Refused::Malformed => Refused::NotLeader,
            Refused::NotLeader => Refused::Full,
            Refused::Full => Refused::Failed,
            Refused::Failed => return None,
        })
    }

    #[test]
    fn every_reason_is_counted_and_told() {
        let mut counts = Counts::default();
        let reasons = std::iter::successors(Some(Refused::NotForThisLife), |one| after(*one));
        for (number, reason) in reasons.enumerate() {
            counts.drop_message(reason);
            assert_eq!(counts.lost(), number as u64 + 1, "{reason:?}");
            assert!(counts.describe().contains(&format!("{reason:?} 1")), "{reason:?}");
        }
    }
}
