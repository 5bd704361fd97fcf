//! The disks of a world: writes end, snapshots are saved, disks fail and are read back.

use crate::core::types::Index;
use crate::core::{Record, Saved};
use crate::error::RequestError;
use crate::storage::StorageError;

use super::super::node::{Input, Running};
use super::{Event, Output, Step, Violation, World};

impl World {
    /// What a node comes back with; `None` if it cannot, for its disk is full.
    pub(super) fn recover(&mut self, place: usize) -> Result<Option<Saved>, Box<Violation>> {
        let node = &mut self.nodes[place];
        let incarnation = node.incarnation;
        if !self.plan.disks {
            let remembered = node.remembers.take();
            return Ok(Some(remembered.unwrap_or_else(|| Saved::empty(incarnation))));
        }
        let name = node.name.clone();
        let drive = self.drives.get_mut(&incarnation).expect("each log has a disk");
        if drive.is_full() && self.chance.permille(500) {
            drive.set_full(false);
        }
        let model = self.disks.get_mut(&incarnation).expect("each log has a disk");
        let started = drive.start(&name, incarnation, model);
        match started.map_err(|broken| self.violation(Some(place), broken))? {
            Ok(saved) => Ok(Some(saved)),
            Err(why) => {
                self.tell(place, || format!("cannot start: {why}"));
                Ok(None)
            }
        }
    }

    pub(super) fn disk_is_done(&mut self, place: usize) -> Step {
        let (now, start) = (self.now, self.nodes[place].starts);
        let incarnation = self.nodes[place].incarnation;
        let Some(running) = &mut self.nodes[place].running else { return Ok(()) };
        if running.hangs_until > now {
            let again = running.hangs_until;
            self.at(again, Event::DiskIsDone { node: place, start });
            return Ok(());
        }
        let due = running.writes.iter().take_while(|(due, _)| *due <= now).count();
        let records: Vec<Record> =
            running.writes.iter().take(due).map(|(_, record)| record.clone()).collect();
        let drive = self.drives.get_mut(&incarnation).expect("each log has a disk");
        #[cfg(test)]
        {
            drive.lies = self.bug.as_ref().is_some_and(|bug| bug.lies_about_syncs());
        }
        if let Err(error) = drive.write(&records) {
            return self.disk_failed(place, &error);
        }
        let model = self.disks.get_mut(&incarnation).expect("each log has a disk");
        for record in records {
            running.writes.pop_front();
            model.write(&record);
            running.put(Input::Written(record.number), now);
        }
        Ok(())
    }

    pub(super) fn snapshot_is_saved(&mut self, place: usize) -> Step {
        let (now, start) = (self.now, self.nodes[place].starts);
        let incarnation = self.nodes[place].incarnation;
        let Some(running) = &mut self.nodes[place].running else { return Ok(()) };
        if running.hangs_until > now {
            let again = running.hangs_until;
            self.at(again, Event::SnapshotIsSaved { node: place, start });
            return Ok(());
        }
        let Some(snapshot) = &running.saving else { return Ok(()) };
        let drive = self.drives.get_mut(&incarnation).expect("each log has a disk");
        if let Err(error) = drive.save(snapshot) {
            return self.disk_failed(place, &error);
        }
        let model = self.disks.get_mut(&incarnation).expect("each log has a disk");
        model.compacted(snapshot, Index(0));
        running.saving = None;
        running.put(Input::Saved, now);
        Ok(())
    }

    /// The log up to `base` is let go.
    pub(super) fn trim_disk(&mut self, place: usize, base: Index) -> Step {
        let incarnation = self.nodes[place].incarnation;
        let drive = self.drives.get_mut(&incarnation).expect("each log has a disk");
        if let Err(error) = drive.trim(base) {
            return self.disk_failed(place, &error);
        }
        let model = self.disks.get_mut(&incarnation).expect("each log has a disk");
        if let Some(snapshot) = model.snapshot.clone() {
            model.compacted(&snapshot, base);
        }
        Ok(())
    }

    /// All that is under way is done: the node stops as a program stops it.
    pub(super) fn finish_writes(&mut self, place: usize, running: &Running) -> Step {
        let incarnation = self.nodes[place].incarnation;
        let model = self.disks.get_mut(&incarnation).expect("each log has a disk");
        let drive = self.drives.get_mut(&incarnation).expect("each log has a disk");
        let records: Vec<Record> =
            running.writes.iter().map(|(_, record)| record.clone()).collect();
        let saving = running.saving.as_ref();
        let written = drive.write(&records);
        let done = written.and_then(|()| saving.map_or(Ok(()), |snapshot| drive.save(snapshot)));
        if done.is_err() {
            drive.failed(model, &records, saving);
            return Ok(());
        }
        drive.stop();
        records.iter().for_each(|record| model.write(record));
        if let Some(snapshot) = saving {
            model.compacted(snapshot, Index(0));
        }
        Ok(())
    }

    /// A node dies: what was on its way to the disk is there in part.
    pub(super) fn crash_disk(&mut self, place: usize, running: &Running) {
        let incarnation = self.nodes[place].incarnation;
        let model = self.disks.get_mut(&incarnation).expect("each log has a disk");
        let drive = self.drives.get_mut(&incarnation).expect("each log has a disk");
        let records: Vec<Record> =
            running.writes.iter().map(|(_, record)| record.clone()).collect();
        drive.crash(model, &records, running.saving.as_ref(), &mut self.chance);
    }

    /// The first failure is the last: the node takes no part any more.
    fn disk_failed(&mut self, place: usize, error: &StorageError) -> Step {
        let Some(running) = self.nodes[place].running.take() else { return Ok(()) };
        self.story.mark([self.now, 7, place as u64, 0]);
        self.tell(place, || format!("takes no part any more: {error}"));
        let incarnation = self.nodes[place].incarnation;
        let model = self.disks.get_mut(&incarnation).expect("each log has a disk");
        let drive = self.drives.get_mut(&incarnation).expect("each log has a disk");
        let records: Vec<Record> =
            running.writes.iter().map(|(_, record)| record.clone()).collect();
        drive.failed(model, &records, running.saving.as_ref());
        let reason = RequestError::Failed { reason: error.to_string() };
        for ticket in running.unread_requests() {
            self.answered(place, ticket, Err(reason.clone()))?;
        }
        let mut output = Output::default();
        running.engine.stop(&reason, &mut output);
        for (ticket, answer) in output.answers {
            self.answered(place, ticket, answer)?;
        }
        Ok(())
    }

    /// Disks that hung go on at once.
    pub(in crate::sim) fn disks_go_on(&mut self) {
        for node in 0..self.nodes.len() {
            let start = self.nodes[node].starts;
            if let Some(running) = &mut self.nodes[node].running {
                let now = self.now;
                running.writes.iter_mut().for_each(|(due, _)| *due = now);
                self.at(now, Event::DiskIsDone { node, start });
            }
        }
    }
}
