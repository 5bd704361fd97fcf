//! Real files, in a folder that is locked for as long as anybody uses it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{Doing, StorageError};
use super::files::Files;
use super::names::LOCK;

/// The files of one node's folder. Clones share the lock; the last one frees it.
#[derive(Clone)]
pub(crate) struct OsFiles(Arc<Folder>);

struct Folder {
    path: PathBuf,
    /// The folder itself, to be synced.
    itself: File,
    /// Held open: the system frees the lock when the process dies.
    lock: File,
}

/// A process that is just being spawned holds copies of all that is open here: the
/// lock is let go by name, not by being closed.
impl Drop for Folder {
    fn drop(&mut self) {
        let _ = self.lock.unlock();
    }
}

impl OsFiles {
    /// Opens the folder, which is made if it is not there, and locks it.
    pub(crate) fn new(dir: &Path) -> Result<OsFiles, StorageError> {
        make_dir(dir).doing(|| format!("make the directory {}", dir.display()))?;
        let itself = open_dir(dir).doing(|| format!("open the directory {}", dir.display()))?;
        let path = dir.join(LOCK);
        let opened = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let lock = opened.doing(|| format!("open {}", path.display()))?;
        let locked = lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => {
                let text = "another process, or another node of this one, has it";
                io::Error::new(io::ErrorKind::WouldBlock, text)
            }
            TryLockError::Error(error) => error,
        });
        locked.doing(|| format!("lock the directory {}", dir.display()))?;
        Ok(OsFiles(Arc::new(Folder { path: dir.to_path_buf(), itself, lock })))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path.join(name)
    }
}

/// Makes the folder and those above it, and syncs the name of each one made: a log
/// in a folder that is forgotten is forgotten too.
fn make_dir(dir: &Path) -> io::Result<()> {
    let missing: Vec<&Path> =
        dir.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).collect();
    fs::create_dir_all(dir)?;
    for made in missing {
        let above = match made.parent() {
            Some(above) if !above.as_os_str().is_empty() => above,
            _ => Path::new("."),
        };
        sync_dir(&open_dir(above)?)?;
    }
    Ok(())
}

#[cfg(unix)]
fn open_dir(dir: &Path) -> io::Result<File> {
    File::open(dir)
}

#[cfg(unix)]
fn sync_dir(dir: &File) -> io::Result<()> {
    dir.sync_all()
}

/// Elsewhere a folder cannot be opened as a file, and its names need no sync.
#[cfg(not(unix))]
fn open_dir(dir: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).open(dir.join(LOCK))
}

#[cfg(not(unix))]
fn sync_dir(_: &File) -> io::Result<()> {
    Ok(())
}

/// Gives the new file its length and its space on the disk.
#[cfg(target_os = "linux")]
fn allocate(file: &File, len: u64) -> io::Result<()> {
    use rustix::fs::FallocateFlags;
    use rustix::io::Errno;

    if len == 0 {
        return Ok(());
    }
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, len) {
        // Some file systems cannot.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_zeros(file, len),
        done => Ok(done?),
    }
}

#[cfg(not(target_os = "linux"))]
fn allocate(file: &File, len: u64) -> io::Result<()> {
    write_zeros(file, len)
}

fn write_zeros(file: &File, len: u64) -> io::Result<()> {
    let zeros = vec![0; len.min(1 << 20) as usize];
    let mut at = 0;
    while at < len {
        let count = (len - at).min(zeros.len() as u64);
        write_all_at(file, at, &zeros[..count as usize])?;
        at += count;
    }
    Ok(())
}

#[cfg(unix)]
fn write_all_at(file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(unix)]
fn read_exact_at(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

/// Each file is one thread's: its position is free to move.
#[cfg(not(unix))]
fn write_all_at(mut file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    use io::{Seek, Write};
    file.seek(io::SeekFrom::Start(offset))?;
    file.write_all(bytes)
}

#[cfg(not(unix))]
fn read_exact_at(mut file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
    use io::{Read, Seek};
    file.seek(io::SeekFrom::Start(offset))?;
    file.read_exact(buffer)
}

impl Files for OsFiles {
    type File = File;

    fn list(&self) -> io::Result<Vec<String>> {
        list(&self.0.path)
    }

    fn create(&self, name: &str, len: u64) -> io::Result<File> {
        let path = self.path(name);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        match allocate(&file, len) {
            Ok(()) => Ok(file),
            Err(error) => {
                // What it took of a disk that is full.
                let _ = fs::remove_file(&path);
                Err(error)
            }
        }
    }

    fn open(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(self.path(name))
    }

    fn len(&self, file: &File) -> io::Result<u64> {
        Ok(file.metadata()?.len())
    }

    fn read_at(&self, file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        read_exact_at(file, offset, buffer)
    }

    fn write_at(&self, file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        write_all_at(file, offset, bytes)
    }

    fn set_len(&self, file: &File, len: u64) -> io::Result<()> {
        file.set_len(len)
    }

    /// The length and where the bytes lie go along; only times are left behind.
    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        sync_dir(&self.0.itself)
    }

    fn describe(&self, name: &str) -> String {
        describe(&self.0.path, name)
    }
}

/// The files of a folder for somebody who only looks: without a lock, and whatever
/// would change something is refused.
#[derive(Clone)]
pub(super) struct Onlooker(pub(super) PathBuf);

impl Onlooker {
    fn refuse<T>(&self) -> io::Result<T> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

impl Files for Onlooker {
    type File = File;

    fn list(&self) -> io::Result<Vec<String>> {
        list(&self.0)
    }

    fn create(&self, _: &str, _: u64) -> io::Result<File> {
        self.refuse()
    }

    fn open(&self, name: &str) -> io::Result<File> {
        File::open(self.0.join(name))
    }

    fn len(&self, file: &File) -> io::Result<u64> {
        Ok(file.metadata()?.len())
    }

    fn read_at(&self, file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        read_exact_at(file, offset, buffer)
    }

    fn write_at(&self, _: &File, _: u64, _: &[u8]) -> io::Result<()> {
        self.refuse()
    }

    fn set_len(&self, _: &File, _: u64) -> io::Result<()> {
        self.refuse()
    }

    fn sync(&self, _: &File) -> io::Result<()> {
        self.refuse()
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        self.refuse()
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        self.refuse()
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.refuse()
    }

    fn describe(&self, name: &str) -> String {
        describe(&self.0, name)
    }
}

/// The names in a folder; one that is no text is none of ours.
fn list(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for item in fs::read_dir(dir)? {
        names.extend(item?.file_name().into_string());
    }
    Ok(names)
}

fn describe(dir: &Path, name: &str) -> String {
    match name {
        "" => dir.display().to_string(),
        name => dir.join(name).display().to_string(),
    }
}
