//! A node's folder, opened when the node is made: what is found there is told, and
//! what cannot be this node's of this cluster is refused.

use std::path::Path;

use crate::config::{Config, Settings};
use crate::core::Saved;
use crate::core::types::Incarnation;
use crate::error::Error;
use crate::storage::{OsFiles, StorageError, Store};

/// Opens the log of the node `name`, if the config gives it a place.
pub(super) fn open(config: &Config, name: &str) -> Result<Option<(Store<OsFiles>, Saved)>, Error> {
    let settings = config.settings();
    let Some(data_dir) = &settings.data_dir else { return Ok(None) };
    let folder = data_dir.join(name);
    let files = OsFiles::new(&folder).map_err(told)?;
    let fresh = Incarnation(super::random_nonzero()?);
    let (store, recovered) =
        Store::open(files, name, fresh, |saved| check_members(saved, settings, name, &folder))
            .map_err(told)?;
    for note in &recovered.notes {
        log::warn!(target: "kontiki", "{name}: {note}");
    }
    let Saved { hard, snapshot, log, .. } = &recovered.saved;
    let covered = snapshot.as_ref().map_or(0, |snapshot| snapshot.id.index.0);
    log::info!(
        target: "kontiki",
        "{name} recovers from {}: term {}, log up to {}, snapshot up to {covered}",
        folder.display(),
        hard.term,
        log.last_index()
    );
    Ok(Some((store, recovered.saved)))
}

fn told(error: StorageError) -> Error {
    match error {
        StorageError::Io { doing, source } => Error::Io { doing, source },
        StorageError::Unusable { file, problem, remedy } => {
            Error::Storage { file, offset: 0, problem, remedy }
        }
        StorageError::Damaged { file, offset, problem, remedy } => {
            Error::Storage { file, offset, problem, remedy }
        }
    }
}

/// A log whose other members are all strangers to the file is another cluster's.
fn check_members(
    saved: &Saved,
    settings: &Settings,
    name: &str,
    folder: &Path,
) -> Result<(), StorageError> {
    let members = saved.members();
    let others = || members.iter().flat_map(|m| &m.members).filter(|member| member.name != name);
    let known = |other: &str| settings.nodes.iter().any(|node| node.name == other);
    if others().count() == 0 || others().any(|member| known(&member.name)) {
        return Ok(());
    }
    let names: Vec<&str> = others().map(|member| member.name.as_str()).collect();
    Err(StorageError::Unusable {
        file: folder.display().to_string(),
        problem: format!(
            "this is {name} of another cluster, whose other members are {}; none of them is in \
             the config",
            names.join(", ")
        ),
        remedy: "give each cluster a data_dir of its own, or name one of the members in the \
                 config"
            .to_string(),
    })
}
