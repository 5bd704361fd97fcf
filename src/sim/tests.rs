//! The simulator's own tests: seeds in every run, the same seed twice, and a bug for
//! each property.

mod bugs;
mod cases;
mod seeds;

pub(super) use self::bugs::{Bug, rewritten};
