//! Bugs that tests put into a healthy world, and where: into a core after its turn,
//! into what leaves or arrives, into answers, into a state machine.

use std::cell::Cell;
use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::world::World;
use crate::committed::Entry;
use crate::core::Core;
use crate::core::message::Message;
use crate::core::types::Index;
use crate::engine::Output;
use crate::error::BoxError;
use crate::machine::StateMachine;
use crate::operation::{self, Operation};
use crate::request::Draft;
use crate::wire::{Part, codec, decode_part, frame};

/// A bug, and where in a node's turn it does what it does.
pub(in super::super) trait Bug {
    /// After a turn, to the protocol; somebody has committed up to `committed`.
    fn core(&mut self, core: &mut Core, committed: Index) {
        let _ = (core, committed);
    }

    /// To what a turn gave out.
    fn output(&mut self, output: &mut Output<u64>) {
        let _ = output;
    }

    /// To a message that arrives; `None`: it does not.
    fn arrives(&mut self, message: Message) -> Option<Message> {
        Some(message)
    }

    /// Whether a disk says that it is done when it has not begun.
    fn says_written_too_early(&self) -> bool {
        false
    }

    /// Whether a disk says that it has synced and has not.
    fn lies_about_syncs(&self) -> bool {
        false
    }
}

impl World {
    pub(in super::super) fn put_bugs_in(&mut self, place: usize, output: &mut Output<u64>) {
        let committed = self.history.committed();
        let running = self.nodes[place].running.as_mut();
        if let (Some(bug), Some(running)) = (&mut self.bug, running) {
            bug.core(running.engine.core_mut(), committed);
            bug.output(output);
        }
    }
}

/// The datagram with its messages changed; one that does not open stays as it is.
pub(in super::super) fn rewritten(
    datagram: &[u8],
    mut change: impl FnMut(Message) -> Option<Message>,
) -> Vec<u8> {
    let Ok(frame) = frame::open(datagram) else { return datagram.to_vec() };
    let mut writer = frame::FrameWriter::new();
    writer.begin(&frame.header, datagram.len() + 200, frame::Closing::Checksum);
    for part in frame.parts {
        match decode_part(part) {
            Ok(Part::Message(message)) => {
                let mut bytes = Vec::new();
                if let Some(message) = change(message) {
                    codec::encode_message(&message, &mut bytes);
                    assert!(writer.push(&bytes), "what is changed still fits");
                }
            }
            _ => assert!(writer.push(part), "what is not changed still fits"),
        }
    }
    if writer.is_empty() { Vec::new() } else { writer.finish().to_vec() }
}

/// Into the protocol.
pub(super) struct InTheCore(pub(super) fn(&mut Core, Index));

impl Bug for InTheCore {
    fn core(&mut self, core: &mut Core, committed: Index) {
        (self.0)(core, committed);
    }
}

/// Into messages that arrive.
pub(super) struct OnArrival(pub(super) fn(Message) -> Option<Message>);

impl Bug for OnArrival {
    fn arrives(&mut self, message: Message) -> Option<Message> {
        (self.0)(message)
    }
}

/// Into what a turn gives out.
pub(super) struct OnOutput(pub(super) fn(&mut Output<u64>));

impl Bug for OnOutput {
    fn output(&mut self, output: &mut Output<u64>) {
        (self.0)(output);
    }
}

/// Messages that leave are changed.
pub(super) fn on_leaving(output: &mut Output<u64>, change: fn(Message) -> Option<Message>) {
    for (_, datagram) in &mut output.datagrams {
        *datagram = rewritten(datagram, change);
    }
}

/// Into a disk.
pub(super) struct WritesTooEarly;

impl Bug for WritesTooEarly {
    fn says_written_too_early(&self) -> bool {
        true
    }
}

/// Into a disk that keeps no word.
pub(super) struct LiesAboutSyncs;

impl Bug for LiesAboutSyncs {
    fn lies_about_syncs(&self) -> bool {
        true
    }
}

/// Commands that were sent again are not known by their number.
#[derive(Default)]
pub(super) struct KnowsNoRepeats {
    first: BTreeMap<(Index, u64), Index>,
}

impl Bug for KnowsNoRepeats {
    fn output(&mut self, output: &mut Output<u64>) {
        let Some(job) = &mut output.job else { return };
        for (index, _, bytes) in &mut job.entries {
            let Some(payload) = bytes.clone() else { continue };
            let Some(Operation::Command(command)) = Operation::decode(&payload) else { continue };
            let first = *self.first.entry((command.session, command.seq)).or_insert(*index);
            if first != *index && command.id.is_none() {
                let draft = Draft::new(&payload[command.json_range.clone()]);
                let seq = command.seq + 10_000;
                let floor = command.floor;
                *bytes = Some(operation::command(draft, None, command.session, seq, floor));
            }
        }
    }
}

/// A machine with a bug of its own.
#[derive(Default)]
pub(super) struct Broken {
    node: String,
    sum: u64,
    told: Cell<Option<u64>>,
    panics_at: Option<u64>,
}

impl Broken {
    /// One that says where it is, and panics at that entry.
    pub(super) fn of(node: &str, panics_at: Option<u64>) -> Broken {
        Broken { node: node.to_string(), panics_at, ..Broken::default() }
    }
}

impl StateMachine for Broken {
    fn apply(&mut self, entry: &Entry) -> Value {
        assert!(self.panics_at.is_none_or(|at| entry.index < at), "entry {}", entry.index);
        self.sum += entry.value().as_u64().unwrap_or(0);
        json!([self.node, self.sum])
    }

    /// What was told once is told again, whatever came since.
    fn query(&self, _: &Value) -> Value {
        let told = self.told.get().unwrap_or(self.sum);
        self.told.set(Some(told));
        json!(told)
    }

    fn snapshot(&self) -> Result<Vec<u8>, BoxError> {
        Ok(Vec::new())
    }

    fn restore(&mut self, _: &[u8]) -> Result<(), BoxError> {
        Ok(())
    }
}
