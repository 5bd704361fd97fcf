//! Makes a secret for a cluster: `cargo run --example keygen -- cluster.key`.
//!
//! Writes 32 bytes of the operating system's chance as hexadecimal digits to a new file that
//! its owner alone may read. Every node needs a copy of it, and `"secret_file": "cluster.key"`
//! in the cluster's file. A file that is there already is left as it is.

use std::error::Error;
use std::fs::OpenOptions;
use std::io::Write;
use std::process::ExitCode;

use data_encoding::HEXLOWER;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path] = &arguments[..] else {
        eprintln!("usage: keygen FILE");
        return ExitCode::FAILURE;
    };
    match write_secret(path) {
        Ok(()) => {
            println!("{path} holds a new secret: copy it to every node of the cluster");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("keygen: {path}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write_secret(path: &str) -> Result<(), Box<dyn Error>> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret)?;
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    // From its first moment on, not a moment later.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    writeln!(file, "{}", HEXLOWER.encode(&secret))?;
    file.sync_all()?;
    Ok(())
}
