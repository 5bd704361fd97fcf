//! The replicated state: keys and values on a board, of which there are two. What clients see is the
//! same with either, and nodes with different boards can be of one cluster.
//!
//! `Memory` is a map. After a crash the library brings it back: by the newest snapshot, and the entries
//! after it, from its own log or from the other nodes.
//!
//! `Disk` is a database, which says how far it has got (`applied`) and is given only what follows.
//! The state and that index are in one transaction, or a crash would come between them and an `INCR`
//! be applied twice, or never. A transaction takes up many entries and is synced when it ends; what was
//! not is in the log still, which was synced before anybody heard of it. So no entry waits for a sync of
//! the database, and a crash costs no more than applying the last entries again.

use std::collections::BTreeMap;
use std::path::Path;

use kontiki::{BoxError, Entry, StateMachine};
use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata};
use redb::{TableDefinition, WriteTransaction};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::commands;
use crate::resp::{Words, bytes, encode, text};

/// Keys and values, in the order of keys.
pub trait Board: Send {
    fn get(&self, key: &[u8]) -> Option<Vec<u8>>;
    fn set(&mut self, key: &[u8], value: &[u8]);
    /// Whether it was there.
    fn remove(&mut self, key: &[u8]) -> bool;
    fn len(&self) -> usize;
    fn each(&self, see: &mut dyn FnMut(&[u8], &[u8]));
    fn clear(&mut self);
    /// The index of the last entry that is in it for good.
    fn applied(&self) -> u64 {
        0
    }
    /// The changes since the last call are all those up to this index.
    fn set_applied(&mut self, index: u64);
}

/// The state machine: each entry is a list of commands, as text.
pub struct Store {
    board: Box<dyn Board>,
    /// The last entry that was applied.
    index: u64,
}

impl Store {
    /// With its state on this board.
    pub fn new(board: Box<dyn Board>) -> Store {
        Store { index: board.applied(), board }
    }
}

/// What the snapshot says: the last entry that is in it, keys and values.
type Snapshot = (u64, Vec<(String, String)>);

impl StateMachine for Store {
    /// The reply is a list as well: each command's answer, as it goes to the client.
    fn apply(&mut self, entry: &Entry) -> Value {
        // What is no list of commands is not of this program: nothing happens, on any node.
        let commands: Vec<Vec<String>> = entry.parse().unwrap_or_default();
        let answers = commands.iter().map(|words| {
            text(&encode(&commands::write(&mut *self.board, &from_text(words)))).into()
        });
        let answers = answers.collect();
        self.index = entry.index;
        self.board.set_applied(entry.index);
        Value::Array(answers)
    }

    fn query(&self, query: &Value) -> Value {
        let commands = Vec::<Vec<String>>::deserialize(query).unwrap_or_default();
        let answer = |words: &Vec<String>| {
            text(&encode(&commands::read(&*self.board, &from_text(words)))).into()
        };
        Value::Array(commands.iter().map(answer).collect())
    }

    fn snapshot(&self) -> Result<Vec<u8>, BoxError> {
        let mut all = Vec::new();
        self.board.each(&mut |key, value| all.push((text(key), text(value))));
        Ok(serde_json::to_vec(&json!([self.index, all]))?)
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), BoxError> {
        let (index, all): Snapshot = serde_json::from_slice(snapshot)?;
        self.board.clear();
        all.iter().for_each(|(key, value)| self.board.set(&bytes(key), &bytes(value)));
        self.index = index;
        self.board.set_applied(index);
        Ok(())
    }

    fn applied(&self) -> u64 {
        self.board.applied()
    }
}

fn from_text(words: &[String]) -> Words {
    words.iter().map(|word| bytes(word)).collect()
}

/// A board in memory.
#[derive(Default)]
pub struct Memory(BTreeMap<Vec<u8>, Vec<u8>>);

impl Board for Memory {
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.0.get(key).cloned()
    }
    fn set(&mut self, key: &[u8], value: &[u8]) {
        self.0.insert(key.to_vec(), value.to_vec());
    }
    fn remove(&mut self, key: &[u8]) -> bool {
        self.0.remove(key).is_some()
    }
    fn len(&self) -> usize {
        self.0.len()
    }
    fn each(&self, see: &mut dyn FnMut(&[u8], &[u8])) {
        self.0.iter().for_each(|(key, value)| see(key, value));
    }
    fn clear(&mut self) {
        self.0.clear();
    }
    fn set_applied(&mut self, _: u64) {}
}

const VALUES: TableDefinition<&[u8], &[u8]> = TableDefinition::new("values");
const APPLIED: TableDefinition<(), u64> = TableDefinition::new("applied");

/// A transaction takes up so many entries. More are fewer syncs, and more to apply again.
const ENTRIES: u32 = 1000;

/// What is said when the database fails. It must end this node, since its state is not what the others
/// have: the library sees to that, and says so to whoever asks this node.
const BROKEN: &str = "the database can be used";

/// A board on the disk.
pub struct Disk {
    /// What is not synced yet; all reads go through it. Goes before the database does.
    open: Option<WriteTransaction>,
    database: Database,
    entries: u32,
}

impl Disk {
    pub fn open(path: &Path) -> Result<Disk, BoxError> {
        let database = Database::create(path)?;
        let open = database.begin_write()?;
        // So that reading finds them.
        open.open_table(VALUES)?;
        open.open_table(APPLIED)?;
        open.commit()?;
        let open = Some(database.begin_write()?);
        Ok(Disk { open, database, entries: 0 })
    }

    fn values(&self) -> redb::Table<'_, &'static [u8], &'static [u8]> {
        self.open.as_ref().expect(BROKEN).open_table(VALUES).expect(BROKEN)
    }

    /// Syncs all that was applied.
    fn commit(&mut self) {
        self.open.take().expect(BROKEN).commit().expect(BROKEN);
        self.open = Some(self.database.begin_write().expect(BROKEN));
        self.entries = 0;
    }
}

impl Board for Disk {
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.values().get(key).expect(BROKEN).map(|value| value.value().to_vec())
    }
    fn set(&mut self, key: &[u8], value: &[u8]) {
        self.values().insert(key, value).expect(BROKEN);
    }
    fn remove(&mut self, key: &[u8]) -> bool {
        self.values().remove(key).expect(BROKEN).is_some()
    }
    fn len(&self) -> usize {
        self.values().len().expect(BROKEN) as usize
    }
    fn each(&self, see: &mut dyn FnMut(&[u8], &[u8])) {
        for item in self.values().iter().expect(BROKEN) {
            let (key, value) = item.expect(BROKEN);
            see(key.value(), value.value());
        }
    }
    fn clear(&mut self) {
        self.values().retain(|_, _| false).expect(BROKEN);
    }
    fn applied(&self) -> u64 {
        let reading = self.database.begin_read().expect(BROKEN);
        let table = reading.open_table(APPLIED).expect(BROKEN);
        table.get(()).expect(BROKEN).map_or(0, |index| index.value())
    }
    fn set_applied(&mut self, index: u64) {
        let open = self.open.as_ref().expect(BROKEN);
        open.open_table(APPLIED).expect(BROKEN).insert((), index).expect(BROKEN);
        self.entries += 1;
        if self.entries >= ENTRIES {
            self.commit();
        }
    }
}
