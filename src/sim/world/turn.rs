//! One turn of a node: what it comes to is carried out as the driver does it, and
//! every property is checked.

use crate::core::effect::Note;
use crate::core::message::Envelope;
use crate::engine::Output;
use crate::wire::seal::Seal;
use crate::wire::{Part, decode_part, frame};

use super::{Event, Step, World};

impl World {
    /// One turn of a node, and all that comes of it.
    pub(super) fn turn(&mut self, place: usize) -> Step {
        self.steps += 1;
        self.at_turn = Some(place);
        let now = self.now;
        let mut output = std::mem::take(&mut self.output);
        let Some(running) = self.nodes[place].running.as_mut() else { return Ok(()) };
        let time = running.turn(now);
        running.engine.flush(&mut output, time);
        let busy = match self.nodes[place].busy {
            0 => 0,
            busy => self.chance.between(0, busy),
        };
        let away = self.chance.micros(self.faults.turn) + busy;
        let Some(running) = self.nodes[place].running.as_mut() else { return Ok(()) };
        running.rest(now, away);
        #[cfg(test)]
        self.put_bugs_in(place, &mut output);
        self.check(place)?;
        let carried = self.carry_out(place, &mut output);
        self.output = output;
        carried
    }

    pub(super) fn check(&mut self, place: usize) -> Step {
        let incarnation = self.nodes[place].incarnation;
        let Some(running) = &self.nodes[place].running else { return Ok(()) };
        let core = running.engine.core();
        if !self.plan.disks {
            self.disks.entry(incarnation).or_default().mirror(core);
        }
        let others =
            self.nodes.iter().filter_map(|node| node.running.as_ref()).map(|r| r.engine.core());
        let verdict = self.history.check(core, &self.disks, others);
        let bounded = running.engine.check_bounds();
        self.expect(Some(place), verdict)?;
        self.expect(Some(place), bounded)?;
        if let Some(ledger) = &self.ledger {
            let committed = self.history.committed_entries();
            let mut ledger = ledger.lock();
            ledger.committed(committed.iter().map(|(entry, _)| &entry.payload));
            let verdict = ledger.verdict();
            drop(ledger);
            self.expect(Some(place), verdict)?;
        }
        Ok(())
    }

    /// Datagrams leave, then writes begin, as the driver does it. Who is doomed dies
    /// somewhere between.
    fn carry_out(&mut self, place: usize, output: &mut Output<u64>) -> Step {
        let start = self.nodes[place].starts;
        self.tell_notes(place, output);
        let doomed = self.running(place).is_some_and(|running| running.doomed);
        let effects = output.datagrams.len() + output.writes.len();
        let upto = if doomed { self.chance.between(0, effects as u64) as usize } else { effects };
        for (address, bytes) in output.datagrams.iter().take(upto) {
            self.check_datagram(place, bytes)?;
            let to = self.plan.place_of(*address);
            self.story.mark([self.now, 5, (place * 16 + to) as u64, crc32fast::hash(bytes).into()]);
            for arrival in self.network.send(self.now, (place, to), bytes, &self.faults) {
                let event = Event::Arrives { from: place, to, bytes: arrival.bytes };
                self.at(arrival.at, event);
            }
        }
        let writes = upto.saturating_sub(output.datagrams.len());
        for record in output.writes.drain(..).take(writes) {
            let due = self.now + self.chance.micros(self.faults.write);
            let Some(running) = &mut self.nodes[place].running else { break };
            // Writes are done in order, and none while the disk hangs.
            let last = running.writes.back().map_or(0, |(due, _)| *due);
            let due = due.max(last).max(running.hangs_until);
            #[cfg(test)]
            if self.bug.as_ref().is_some_and(|bug| bug.says_written_too_early()) {
                running.put(super::Input::Written(record.number), self.now);
            }
            running.writes.push_back((due, record));
            self.at(due, Event::DiskIsDone { node: place, start });
        }
        self.keep_snapshot(place, output)?;
        // Where its disk failed meanwhile its run is over already, and its program lives.
        if doomed && self.running(place).is_some() {
            *output = Output::default();
            self.crash(place);
            return Ok(());
        }
        if let Some(running) = &mut self.nodes[place].running {
            running.engine.recycle(&mut output.datagrams);
            let job = output.job.take();
            if let (Some(machine), Some(job)) = (running.machine.as_mut(), job) {
                machine.job = Some(job);
                let due = self.now + self.chance.micros(self.faults.apply);
                self.at(due, Event::MachineIsDone { node: place, start });
            }
        } else {
            // Its disk failed when it was told what to keep: what was its own is nobody's.
            output.datagrams.clear();
            output.job = None;
        }
        for (ticket, answer) in output.answers.drain(..) {
            self.answered(place, ticket, answer)?;
        }
        Ok(())
    }

    /// A snapshot goes to the disk beside the log; what it stands for is let go when
    /// it is there.
    fn keep_snapshot(&mut self, place: usize, output: &mut Output<u64>) -> Step {
        let (now, start) = (self.now, self.nodes[place].starts);
        if let Some(base) = output.trim.take() {
            self.trim_disk(place, base)?;
        }
        if let Some(snapshot) = output.save.take()
            && let Some(running) = &mut self.nodes[place].running
        {
            running.saving = Some(snapshot);
            let due = now + self.chance.micros(self.faults.write) * 2;
            self.at(due, Event::SnapshotIsSaved { node: place, start });
        }
        Ok(())
    }

    fn tell_notes(&mut self, place: usize, output: &mut Output<u64>) {
        let node = &self.nodes[place];
        if let Some(running) = node.running.as_ref().filter(|_| self.story.is_told()) {
            let me = Some(running.engine.core().me().incarnation);
            for told in &output.notes {
                // Of the leader itself its election was told.
                if matches!(&told.note, Note::Leader(leader) if *leader == me) {
                    continue;
                }
                let words = running.engine.in_words(&told.note);
                self.story.tell(self.now, &node.name, || {
                    format!("term {} {}: {words}", told.term, told.role)
                });
            }
        }
        output.notes.clear();
    }

    /// What a datagram says rests on what is durable.
    fn check_datagram(&mut self, place: usize, bytes: &[u8]) -> Step {
        let incarnation = self.nodes[place].incarnation;
        let Some(running) = &self.nodes[place].running else { return Ok(()) };
        let mut seal = Seal::of_addressee(self.plan.secrets(0).as_ref(), bytes);
        let mut bytes = bytes.to_vec();
        let Ok(frame) = seal.open(&mut bytes, |_| false) else {
            panic!("{} sends what nobody can open", self.nodes[place].name);
        };
        for part in frame.parts {
            if let Ok(Part::Message(message)) = decode_part(part) {
                let frame::Header { cluster, from, to } = frame.header;
                let envelope = Envelope { cluster, from, to, message };
                let disk = &self.disks[&incarnation];
                let verdict = self.history.check_outgoing(running.engine.core(), disk, &envelope);
                if let Err(broken) = verdict {
                    return Err(self.violation(Some(place), broken));
                }
            }
        }
        Ok(())
    }
}
