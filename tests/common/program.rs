//! The examples, built.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// The example `node`.
pub fn program() -> PathBuf {
    example("node")
}

/// An example's program, beside this one: `target/debug/deps/NAME-*` has it in
/// `target/debug/examples/`. `cargo test` builds it, `cargo test --test NAME` does not.
pub fn example(name: &'static str) -> PathBuf {
    static BUILT: Mutex<BTreeMap<&str, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    built.entry(name).or_insert_with(|| build(name)).clone()
}

fn build(name: &str) -> PathBuf {
    let this = env::current_exe().unwrap();
    let profile_dir = this.ancestors().nth(2).expect("target/<profile>/deps");
    let program = profile_dir.join("examples").join(name);
    let built = |path: &Path| path.metadata().and_then(|meta| meta.modified());
    if built(&program).is_ok_and(|at| at >= built(&this).unwrap()) {
        return program;
    }
    // Older than this one: it may be of another day.
    let profile = match profile_dir.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let building = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--example", name, "--profile", profile, "--target-dir"])
        .arg(profile_dir.parent().expect("target"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    assert!(building.unwrap().success(), "the example `{name}` is built");
    assert!(program.exists(), "{} is there", program.display());
    program
}
