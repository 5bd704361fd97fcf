//! The protocol under test: scenarios, schedules of chance, and after every step
//! what Raft promises (Raft Figure 3), over all nodes and all of their past.
//!
//! `world` runs any number of cores with a clock, a network and disks of its own,
//! `machine` the state that their entries come to; `properties`, beside the core,
//! holds what must be true; `script` reads the scenarios that stand under
//! `tests/scripts`; `soak` draws faults from a seed. The other files test claim by
//! claim and pitfall by pitfall.

mod changes;
mod describe;
mod detector;
mod disks;
mod election;
mod explore;
mod founding;
mod machine;
mod membership;
mod memory;
mod newcomers;
mod plan;
mod proposals;
mod reads;
mod replication;
mod script;
mod snapshots;
mod soak;
mod time;
mod verdicts;
mod world;
