//! What can go wrong with the files, in words for whoever runs the node.

use std::io;

use thiserror::Error;

use super::files::Files;

/// Why the log cannot be opened, or cannot go on. Whoever gets one stops the node:
/// what the disk holds now is found out by opening the log anew.
#[derive(Debug, Error)]
pub(crate) enum StorageError {
    /// The operating system refused something.
    #[error("cannot {doing}: {source}{}", advice(source))]
    Io {
        /// What was tried, with the path.
        doing: String,
        /// The operating system's answer.
        source: io::Error,
    },
    /// A file does not hold what was written to it, or is missing.
    #[error("{file}, byte {offset}: {problem}; {remedy}")]
    Damaged {
        /// The file, with its path.
        file: String,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        problem: String,
        /// What the operator can do.
        remedy: String,
    },
    /// The files may be sound, but not for this node or this build.
    #[error("{file}: {problem}; {remedy}")]
    Unusable {
        /// The file, with its path.
        file: String,
        /// Why it is not used.
        problem: String,
        /// What the operator can do.
        remedy: String,
    },
}

impl StorageError {
    /// Whether there was no room, and nothing else is wrong.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, StorageError::Io { source, .. } if is_full(source))
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// A full disk is the one error of the system's that its own text leaves half said.
fn advice(source: &io::Error) -> &'static str {
    if is_full(source) { "; make room" } else { "" }
}

/// Damage, with what helps against any damage.
pub(super) fn damaged<F: Files>(
    files: &F,
    name: &str,
    offset: u64,
    problem: impl Into<String>,
) -> StorageError {
    let remedy = format!(
        "restore the file from an exact copy made since it was last written, or remove the \
         directory {}: the node then comes back as a new member and is brought up to date by the \
         others",
        files.describe("")
    );
    StorageError::Damaged { file: files.describe(name), offset, problem: problem.into(), remedy }
}

/// A file of a format that this build does not know.
pub(super) fn version<F: Files>(files: &F, name: &str, version: u32) -> StorageError {
    StorageError::Unusable {
        file: files.describe(name),
        problem: format!("its format version is {version}, which this build does not know"),
        remedy: "start the node with the version of the program that wrote it".to_string(),
    }
}

/// Says what was being done when the system refused.
pub(super) trait Doing<T> {
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T, StorageError>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T, StorageError> {
        self.map_err(|source| StorageError::Io { doing: doing(), source })
    }
}
