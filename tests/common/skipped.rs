//! Where a test cannot run, it says so and is heard.

use std::io::{self, Write};

/// Past the test's own standard error, which is only shown when it fails.
pub fn skipped(why: &str) {
    let _ = writeln!(io::stderr(), "skipped: {why}");
}
