//! A disk that lives in memory and can crash: the worst that a disk may do that keeps
//! its word, which is only about what was synced.
//!
//! Of what was not synced a crash keeps any part: of the writes any subset, torn at
//! sectors of 512 bytes; of the names that were given and taken any subset. A failed
//! sync leaves the writes before it in doubt for good: the running system sees them,
//! and no later sync makes them durable. It draws no chance of its own: whoever
//! crashes it says what is kept.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::files::Files;

/// A write is torn at multiples of this, in bytes.
const SECTOR_BYTES: u64 = 512;

/// What may be made to fail, and what is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// `Files::create`.
    Create,
    /// `Files::write_at`.
    Write,
    /// `Files::set_len`.
    SetLen,
    /// `Files::sync`.
    Sync,
    /// `Files::rename`.
    Rename,
    /// `Files::remove`.
    Remove,
    /// `Files::sync_dir`.
    SyncDir,
}

/// A folder on the simulated disk. Clones are the same folder.
#[derive(Clone, Default)]
pub(crate) struct SimFiles(Arc<Mutex<Disk>>);

/// An open file.
pub(crate) struct SimFile {
    number: u64,
    /// The crashes before it was opened: nobody survives one with an open file.
    life: u64,
}

#[derive(Clone, Default)]
struct Disk {
    /// All files ever made, also those without a name.
    files: BTreeMap<u64, Stored>,
    /// As a running process sees it.
    names: BTreeMap<String, u64>,
    /// As it is on the disk.
    durable_names: BTreeMap<String, u64>,
    /// What leads from these to those.
    unsynced_names: Vec<Renaming>,
    made: u64,
    life: u64,
    operations: u64,
    crash_at: Option<u64>,
    fails: Option<(Fails, io::ErrorKind)>,
    room: Option<u64>,
}

/// Which operation is to fail.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fails {
    /// The next of this sort.
    Next(Op),
    /// The one after so many.
    At(u64),
}

/// A change of names.
#[derive(Clone)]
enum Renaming {
    Given(String, u64),
    Taken(String),
    Moved(String, String, u64),
}

/// A file: what the system shows, and how the disk comes to it.
#[derive(Clone, Default)]
struct Stored {
    content: Vec<u8>,
    durable: Vec<u8>,
    /// What happened to it since `durable`, in order.
    changes: Vec<(Change, Fate)>,
}

#[derive(Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Len(u64),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// The next sync makes it durable.
    Dirty,
    /// A sync of it failed: perhaps it is on the disk, and no other sync helps.
    InDoubt,
    /// On the disk, though something before it may not be.
    Durable,
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Change::Len(len) => content.resize(*len as usize, 0),
            Change::Write(offset, bytes) => write(content, *offset, bytes),
        }
    }
}

fn write(content: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let (start, end) = (offset as usize, offset as usize + bytes.len());
    if content.len() < end {
        content.resize(end, 0);
    }
    content[start..end].copy_from_slice(bytes);
}

impl Stored {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.content);
        self.changes.push((change, Fate::Dirty));
    }

    fn sync(&mut self) {
        for (_, fate) in &mut self.changes {
            if *fate == Fate::Dirty {
                *fate = Fate::Durable;
            }
        }
        if self.changes.iter().all(|(_, fate)| *fate == Fate::Durable) {
            for (change, _) in self.changes.drain(..) {
                change.apply(&mut self.durable);
            }
        }
    }

    fn fail_to_sync(&mut self) {
        for (_, fate) in &mut self.changes {
            if *fate == Fate::Dirty {
                *fate = Fate::InDoubt;
            }
        }
    }

    /// Keeps what `choose` says of what is not durable.
    fn crash(&mut self, choose: &mut dyn FnMut(u64) -> u64) {
        for (change, fate) in std::mem::take(&mut self.changes) {
            // A third is lost as a whole, a third kept, a third torn.
            let kept = if fate == Fate::Durable { 1 } else { choose(3) };
            match &change {
                _ if kept == 0 => {}
                Change::Write(offset, bytes) if kept == 2 => {
                    tear(&mut self.durable, *offset, bytes, choose);
                }
                change => change.apply(&mut self.durable),
            }
        }
        self.content = self.durable.clone();
    }
}

/// Writes any of the sectors.
fn tear(content: &mut Vec<u8>, offset: u64, bytes: &[u8], choose: &mut dyn FnMut(u64) -> u64) {
    let mut at = 0;
    while at < bytes.len() {
        let to_border = SECTOR_BYTES - (offset + at as u64) % SECTOR_BYTES;
        let end = bytes.len().min(at + to_border as usize);
        if choose(2) == 1 {
            write(content, offset + at as u64, &bytes[at..end]);
        }
        at = end;
    }
}

fn failed(kind: io::ErrorKind) -> io::Error {
    io::Error::new(kind, "the simulated disk was told to fail")
}

fn dead() -> io::Error {
    io::Error::other("the process that held this file has died")
}

impl Disk {
    /// Counts an operation, and says whether it is to fail: before it does anything,
    /// or (`Ok(false)`) after, for its process dies in it.
    fn begin(&mut self, op: Op) -> io::Result<bool> {
        if self.crash_at.is_some_and(|last| self.operations > last) {
            return Err(dead());
        }
        let here = [Fails::Next(op), Fails::At(self.operations)];
        self.operations += 1;
        if let Some((_, kind)) = self.fails.take_if(|(fails, _)| here.contains(fails)) {
            return Err(failed(kind));
        }
        Ok(self.crash_at.is_none_or(|last| self.operations <= last))
    }

    fn read(&self) -> io::Result<()> {
        match self.crash_at {
            Some(last) if self.operations > last => Err(dead()),
            _ => Ok(()),
        }
    }

    fn stored(&mut self, file: &SimFile) -> io::Result<&mut Stored> {
        let here = file.life == self.life;
        self.files.get_mut(&file.number).filter(|_| here).ok_or_else(dead)
    }

    /// Whether so many more bytes find room.
    fn has_room(&self, more: u64) -> io::Result<()> {
        let named = self.names.values().map(|number| self.files[number].content.len() as u64);
        match self.room {
            Some(room) if named.sum::<u64>() + more > room => {
                Err(failed(io::ErrorKind::StorageFull))
            }
            _ => Ok(()),
        }
    }

    fn name(&mut self, renaming: Renaming) {
        renaming.apply(&mut self.names);
        self.unsynced_names.push(renaming);
    }

    fn number(&self, name: &str) -> io::Result<u64> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Renaming {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Renaming::Given(name, number) => {
                names.insert(name.clone(), *number);
            }
            Renaming::Taken(name) => {
                names.remove(name);
            }
            Renaming::Moved(from, to, number) => {
                // The name before it may have been lost by itself.
                if names.get(from) == Some(number) {
                    names.remove(from);
                }
                names.insert(to.clone(), *number);
            }
        }
    }
}

/// Ends an operation that was carried out: its process lives on, or died in it.
fn end(lives: bool) -> io::Result<()> {
    if lives { Ok(()) } else { Err(dead()) }
}

impl SimFiles {
    /// An empty folder.
    pub(crate) fn new() -> SimFiles {
        SimFiles::default()
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Power is lost and comes back. `choose(n)` says, from 0 to n - 1, what is kept of
    /// each thing that was not synced. Faults and room that were set are forgotten.
    pub(crate) fn crash(&self, choose: &mut dyn FnMut(u64) -> u64) {
        let mut disk = self.disk();
        let mut names = std::mem::take(&mut disk.durable_names);
        for renaming in std::mem::take(&mut disk.unsynced_names) {
            if choose(2) == 1 {
                renaming.apply(&mut names);
            }
        }
        disk.files.retain(|number, _| names.values().any(|named| named == number));
        for stored in disk.files.values_mut() {
            stored.crash(choose);
        }
        disk.durable_names = names.clone();
        disk.names = names;
        disk.life += 1;
        disk.calm();
    }

    /// The process dies, or ends, and the system lives on: nothing is lost.
    pub(crate) fn restart(&self) {
        let mut disk = self.disk();
        disk.life += 1;
        disk.calm();
    }

    /// How many operations there were that change something, failed ones too.
    pub(crate) fn operations(&self) -> u64 {
        self.disk().operations
    }

    /// The process dies in the operation after so many, and everything fails from
    /// there on. That operation is carried out as far as a crash may undo it.
    pub(crate) fn crash_at(&self, operations: u64) {
        self.disk().crash_at = Some(operations);
    }

    /// The next operation of this sort fails and does nothing; a sync that fails
    /// leaves what was not synced in doubt.
    pub(crate) fn fail_next(&self, op: Op, kind: io::ErrorKind) {
        self.disk().fails = Some((Fails::Next(op), kind));
    }

    /// All files together have at most so many bytes; `None`: as many as they like.
    pub(crate) fn set_room(&self, bytes: Option<u64>) {
        self.disk().room = bytes;
    }

    /// Nothing fails any more, and there is room.
    pub(crate) fn forget_faults(&self) {
        self.disk().calm();
    }

    /// The bytes of a file, if it is there.
    pub(crate) fn content(&self, name: &str) -> Option<Vec<u8>> {
        let disk = self.disk();
        Some(disk.files[disk.names.get(name)?].content.clone())
    }
}

/// What only tests of the log do to it.
#[cfg(test)]
impl SimFiles {
    /// The operation after so many fails and does nothing, as with `fail_next`.
    pub(crate) fn fail_at(&self, operations: u64, kind: io::ErrorKind) {
        self.disk().fails = Some((Fails::At(operations), kind));
    }

    /// Another disk that holds the same.
    pub(crate) fn copy(&self) -> SimFiles {
        SimFiles(Arc::new(Mutex::new(self.disk().clone())))
    }

    /// Changes the bytes of a file behind the back of whoever wrote it. Panics if it
    /// is not there.
    pub(crate) fn damage(&self, name: &str, damage: impl FnOnce(&mut Vec<u8>)) {
        let mut disk = self.disk();
        let number = disk.names[name];
        let stored = disk.files.get_mut(&number).expect("what has a name is there");
        damage(&mut stored.content);
        stored.durable = stored.content.clone();
        stored.changes.clear();
    }

    /// A file appears, or has other bytes, behind everybody's back.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) {
        let mut disk = self.disk();
        disk.made += 1;
        let number = disk.made;
        let (content, durable) = (bytes.to_vec(), bytes.to_vec());
        disk.files.insert(number, Stored { content, durable, changes: Vec::new() });
        disk.names.insert(name.to_string(), number);
        disk.durable_names.insert(name.to_string(), number);
    }

    /// A file is lost behind everybody's back.
    pub(crate) fn lose(&self, name: &str) {
        let mut disk = self.disk();
        disk.names.remove(name);
        disk.durable_names.remove(name);
    }
}

impl Disk {
    fn calm(&mut self) {
        self.crash_at = None;
        self.fails = None;
        self.room = None;
    }
}

impl Files for SimFiles {
    type File = SimFile;

    fn list(&self) -> io::Result<Vec<String>> {
        let disk = self.disk();
        disk.read()?;
        Ok(disk.names.keys().cloned().collect())
    }

    fn create(&self, name: &str, len: u64) -> io::Result<SimFile> {
        let mut disk = self.disk();
        let lives = disk.begin(Op::Create)?;
        if disk.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        disk.has_room(len)?;
        disk.made += 1;
        let number = disk.made;
        let mut stored = Stored::default();
        stored.change(Change::Len(len));
        disk.files.insert(number, stored);
        disk.name(Renaming::Given(name.to_string(), number));
        end(lives).map(|()| SimFile { number, life: disk.life })
    }

    fn open(&self, name: &str) -> io::Result<SimFile> {
        let disk = self.disk();
        disk.read()?;
        Ok(SimFile { number: disk.number(name)?, life: disk.life })
    }

    fn len(&self, file: &SimFile) -> io::Result<u64> {
        let mut disk = self.disk();
        disk.read()?;
        Ok(disk.stored(file)?.content.len() as u64)
    }

    fn read_at(&self, file: &SimFile, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut disk = self.disk();
        disk.read()?;
        let content = disk.stored(file)?.content.get(offset as usize..);
        let bytes = content.and_then(|rest| rest.get(..buffer.len()));
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, file: &SimFile, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.disk();
        let lives = disk.begin(Op::Write)?;
        let len = disk.stored(file)?.content.len() as u64;
        disk.has_room((offset + bytes.len() as u64).saturating_sub(len))?;
        disk.stored(file)?.change(Change::Write(offset, bytes.to_vec()));
        end(lives)
    }

    fn set_len(&self, file: &SimFile, len: u64) -> io::Result<()> {
        let mut disk = self.disk();
        let lives = disk.begin(Op::SetLen)?;
        let before = disk.stored(file)?.content.len() as u64;
        disk.has_room(len.saturating_sub(before))?;
        disk.stored(file)?.change(Change::Len(len));
        end(lives)
    }

    fn sync(&self, file: &SimFile) -> io::Result<()> {
        let mut disk = self.disk();
        disk.read()?;
        let begun = disk.begin(Op::Sync);
        if begun.is_err() {
            disk.stored(file)?.fail_to_sync();
        }
        // Whoever dies in a sync leaves some of it done: what a crash makes of it.
        end(begun?)?;
        disk.stored(file)?.sync();
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.disk();
        let lives = disk.begin(Op::Rename)?;
        let number = disk.number(from)?;
        disk.name(Renaming::Moved(from.to_string(), to.to_string(), number));
        end(lives)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut disk = self.disk();
        let lives = disk.begin(Op::Remove)?;
        disk.number(name)?;
        disk.name(Renaming::Taken(name.to_string()));
        end(lives)
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut disk = self.disk();
        let lives = disk.begin(Op::SyncDir)?;
        end(lives)?;
        disk.unsynced_names.clear();
        let names = disk.names.clone();
        disk.files.retain(|number, _| names.values().any(|named| named == number));
        disk.durable_names = names;
        Ok(())
    }

    fn describe(&self, name: &str) -> String {
        match name {
            "" => "disk".to_string(),
            name => format!("disk/{name}"),
        }
    }
}
