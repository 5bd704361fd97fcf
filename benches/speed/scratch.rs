//! A folder for logs, of this process alone, below one that somebody named. It goes with
//! all that is in it, and nothing beside it is touched.

use std::io;
use std::path::{Path, PathBuf};

pub struct Scratch(PathBuf);

impl Scratch {
    pub fn below(folder: &Path) -> io::Result<Scratch> {
        let path = folder.join(format!("kontiki-speed-{}", std::process::id()));
        std::fs::create_dir_all(folder)?;
        std::fs::create_dir(&path)?;
        Ok(Scratch(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
