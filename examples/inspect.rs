//! What a node keeps on the disk, line by line: `cargo run --example inspect -- data/node0`.
//!
//! It is for when a node refuses to start and somebody has to find out why. It changes nothing,
//! and a node that runs may be looked at as well. Its exit code is 0 if a node would start with
//! what is there, 1 if not.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "Usage: inspect FOLDER...    (a node's own, such as: inspect data/node0)";

fn main() -> ExitCode {
    let folders = match arguments() {
        Ok(Some(folders)) => folders,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("inspect: {error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match tell(&folders) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // Whoever read it has read enough: `inspect data/node0 | head`.
        Err((_, error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err((folder, error)) => {
            eprintln!("inspect: {}: {error}", folder.display());
            ExitCode::from(2)
        }
    }
}

/// The folders; `None` for `--help`.
fn arguments() -> Result<Option<Vec<PathBuf>>, lexopt::Error> {
    use lexopt::prelude::*;
    let mut parser = lexopt::Parser::from_env();
    let mut folders = Vec::new();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(None),
            Value(value) => folders.push(value.into()),
            other => return Err(other.unexpected()),
        }
    }
    if folders.is_empty() {
        return Err("which folder?".into());
    }
    Ok(Some(folders))
}

/// Tells all folders. Whether all of them are sound; or which one cannot be read.
fn tell(folders: &[PathBuf]) -> Result<bool, (&Path, io::Error)> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut sound = true;
    for folder in folders {
        if folders.len() > 1 {
            writeln!(out, "{}:", folder.display()).map_err(|error| (folder.as_path(), error))?;
        }
        sound &= kontiki::inspect(folder, &mut out).map_err(|error| (folder.as_path(), error))?;
    }
    out.flush().map_err(|error| (folders[0].as_path(), error))?;
    Ok(sound)
}
