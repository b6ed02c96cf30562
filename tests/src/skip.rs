//! Reports that a test could not run here and why, so that no test is skipped unnoticed.

use std::fs::OpenOptions;
use std::io::Write as _;

/// Reports `test` as skipped: on standard output, and as one line in the file named by `RELAYD_SKIP_FILE`,
/// where `cargo xtask test` counts it. The caller returns afterwards.
pub fn skip(test: &str, reason: &str) {
    println!("SKIPPED: {test}: {reason}");
    let Some(path) = std::env::var_os("RELAYD_SKIP_FILE") else { return };
    let file = OpenOptions::new().create(true).append(true).open(&path);
    // The line is one write, because tests of several processes append to the same file.
    let written = file.and_then(|mut file| file.write_all(format!("SKIPPED: {test}: {reason}\n").as_bytes()));
    if let Err(error) = written {
        panic!("cannot record a skipped test in {}: {error}", path.display());
    }
}
