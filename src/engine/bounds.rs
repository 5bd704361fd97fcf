//! What a node holds is bounded, whatever comes: checked by those who run many.

use crate::core::properties::{BOUNDED, Verdict, check_bounds, ensure};

use super::Engine;
use super::links::LONG_BYTES;

impl<T> Engine<T> {
    /// The queues of the protocol, and of the ways to other nodes.
    pub(crate) fn check_bounds(&self) -> Verdict {
        check_bounds(&self.core)?;
        for (coming, going) in self.links.held_bytes() {
            ensure(&BOUNDED, coming <= LONG_BYTES && going <= LONG_BYTES, || {
                format!("fragments of {coming} bytes coming and {going} going are held")
            })?;
        }
        Ok(())
    }
}
