//! A folder as the log needs it: the seam between the log and the operating system.
//!
//! Behind it are real files (`OsFiles`), or those of a simulated disk that forgets
//! what was not synced (`model`).

use std::io;

use super::error::{Doing, StorageError};

/// What the log needs of a folder.
pub(crate) trait Files: Clone + Send + 'static {
    /// An open file.
    type File: Send;

    /// The names of all files.
    fn list(&self) -> io::Result<Vec<String>>;

    /// A new file of `len` bytes of zeros, which have their space on the disk: that it
    /// is full shows here. An error if there is a file of this name.
    fn create(&self, name: &str, len: u64) -> io::Result<Self::File>;

    /// A file that is there, to be read and written.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// How long the file is, in bytes.
    fn len(&self, file: &Self::File) -> io::Result<u64>;

    /// Fills the buffer from `offset` on, or fails.
    fn read_at(&self, file: &Self::File, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Writes all the bytes.
    fn write_at(&self, file: &Self::File, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts the file, or extends it by zeros.
    fn set_len(&self, file: &Self::File, len: u64) -> io::Result<()>;

    /// Makes the file's bytes and its length durable, but not its name.
    fn sync(&self, file: &Self::File) -> io::Result<()>;

    /// Gives a file another name, at once; a file that had it is gone.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes the names durable: all files created, renamed and removed so far.
    fn sync_dir(&self) -> io::Result<()>;

    /// The path of a file, for messages; that of the folder for the empty name.
    fn describe(&self, name: &str) -> String;
}

/// All bytes of a file. Takes as much memory as the file is long.
pub(super) fn read_whole<F: Files>(files: &F, name: &str) -> Result<Vec<u8>, StorageError> {
    let read = || -> io::Result<Vec<u8>> {
        let file = files.open(name)?;
        let len = files.len(&file)?;
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let mut bytes = vec![0; len];
        files.read_at(&file, 0, &mut bytes)?;
        Ok(bytes)
    };
    read().doing(|| format!("read {}", files.describe(name)))
}
