//! Folders of the tests' own.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, process, thread};

/// A folder that nobody else has. It goes with all that is in it; after a test that
/// failed it stays, for whoever wants to know why, and its place is told.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("kontiki-files-{}-{number}", process::id()));
        // Of a run that failed, by a process that had this one's id.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).expect("a folder can be made");
        Folder(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("what was written is left in {}", self.0.display());
        } else {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// The names of a folder's files in order, and how many bytes of the disk they take
/// together: blocks that are given to them, not how long they say that they are.
#[cfg(unix)]
pub fn on_disk(folder: &Path) -> (Vec<String>, u64) {
    use std::os::unix::fs::MetadataExt;
    let mut names = Vec::new();
    let mut bytes = 0;
    for item in fs::read_dir(folder).expect("the folder is there").flatten() {
        // A node that runs may remove one meanwhile.
        let Ok(meta) = item.metadata() else { continue };
        names.push(item.file_name().to_string_lossy().into_owned());
        bytes += meta.blocks() * 512;
    }
    names.sort();
    (names, bytes)
}
