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
const REASONS: [Refused; 8] = [
    Refused::NotForThisLife,
    Refused::NotBelieved,
    Refused::Stranger,
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
