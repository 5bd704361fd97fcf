//! One node's log, term, vote, cluster and snapshots on the disk.
//!
//! A log that got shorter in silence is the worst that can happen here: the node
//! would vote and acknowledge as if it had never held those entries. So whatever is
//! found is either exactly what was acknowledged, perhaps with a little more that was
//! under way, or an error that names the file, the place, and what to do.
//!
//! ```text
//!   core ─► Record ─► append ─► the newest segment ─► sync ─► acknowledged
//!                        │ when it is full: sync, begin the next one, name it in `node`
//!   state machine ─► Snapshot ─► Saver (another thread): aside, sync, rename, sync
//!   trim ─► segments and snapshots that nobody needs any more are removed
//! ```
//!
//! # The files of a folder
//!
//! | file | what it is |
//! |---|---|
//! | `lock` | locked while a node uses the folder |
//! | `node` | whose folder it is, which segments there are |
//! | `log-<number>` | a segment of the journal |
//! | `snapshot-<index>-<term>` | a snapshot that ends with this entry |
//! | `*.new` | one of these, being written: removed if it is found |
//!
//! The journal tells what happened, in order: each `Record` of the core is one frame
//! with a checksum, there as a whole or not at all. A segment is a piece of this
//! story and no range of indexes; what is removed from the log is told like what is
//! added. `format` and `record` draw the bytes.
//!
//! # Torn or damaged
//!
//! A crash may leave any part of what was not synced. Damage may be anywhere. Two
//! questions tell one from the other when a record is not sound:
//!
//! - *Does it stand in a finished segment?* Then it is damage: a segment is synced
//!   before the next one is begun, and that one states where it ends and the chain of
//!   its frames.
//! - *Does anything say that it was synced?* Each frame says up to where all was
//!   durable when it was written; where no other follows within milliseconds a *mark*
//!   says so, far from the frames. Then it is damage. If nothing does, it is the
//!   unfinished write of a crash and is cut off: nothing of it was acknowledged.
//!
//! One case is left. The mark is not synced itself, or it would cost as much as the
//! records do; and it is not written between two batches that follow each other, or
//! each sync would have two places of the disk to write. If the process is killed, or
//! power fails, before it is on the disk, or an accident takes it too, then nothing
//! tells a last batch that is damaged from one that was torn.
//!
//! # What each crash leaves behind
//!
//! | crash while | leaves | at the next start |
//! |---|---|---|
//! | the folder is made | `node.new`, or `node` that names no segment | begun again, or gone on with |
//! | records are written | any part of them | the sound ones are kept, the rest is cut off |
//! | a segment is begun | one that `node` does not name, without records | removed |
//! | `node` is replaced | the old one or the new one | either will do |
//! | a snapshot is saved | `*.new`, or the whole file | removed, or used |
//! | a snapshot is installed | its file without the record | removed: the leader sends it again |
//! | the log is trimmed | segments before the first that `node` names, old snapshots | segments are removed, snapshots at the next trim |
//!
//! Every start that finds records begins a new segment, so nothing is written over or
//! behind what a crash left. It writes once more what may not be durable of the
//! segment before: if the sync of the process that died had failed, the system counts
//! those bytes as written, and no sync to come saves them.
//!
//! After the first failed write or sync the store answers nothing but that error. The
//! node stops and is started anew, when somebody has seen to the disk.
//!
//! # Which way
//!
//! `store` writes and `recover` reads; both speak of `frames`, which hold a `record`
//! each; `replay` says what the records come to, `shape` what must be known of that
//! while writing. `snapshots` are files of their own. All is done through `files`:
//! those of the operating system (`os`), or of a simulated disk (`model`).

mod describe;
mod error;
mod files;
mod format;
mod frames;
#[cfg(any(test, feature = "sim"))]
pub(crate) mod model;
mod names;
mod os;
mod record;
mod recover;
mod replay;
mod shape;
mod snapshots;
mod store;
#[cfg(test)]
mod tests;

pub use self::describe::inspect;
pub(crate) use self::error::StorageError;
#[cfg(any(test, feature = "sim"))]
pub(crate) use self::files::Files;
pub(crate) use self::os::OsFiles;
pub(crate) use self::snapshots::Saver;
pub(crate) use self::store::Store;
