//! What is read is not older than what was committed when it was asked for.

use super::super::types::{Index, Run};
use super::{History, Property, Verdict, broken, ensure};

/// A read is served no older than what any node had committed when it was asked for.
pub const READS_NOT_STALE: Property =
    Property { name: "Reads Are Not Stale", source: "thesis §6.4" };

impl History {
    /// A read was asked for: all that anybody has committed by now must be seen.
    pub fn read_asked(&mut self, run: Run, id: u64) {
        let reached = self.committed();
        self.reads.insert((run, id), reached);
    }

    /// A read is confirmed up to `index`.
    pub fn check_read(&self, run: Run, id: u64, index: Index) -> Verdict {
        let Some(&least) = self.reads.get(&(run, id)) else {
            return broken(&READS_NOT_STALE, format!("read {id} was never asked"));
        };
        ensure(&READS_NOT_STALE, index >= least, || {
            format!("read {id} gets {index}, {least} was committed before")
        })
    }
}
