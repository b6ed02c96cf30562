//! What a machine lacks is said by name: a test that cannot run here is listed as skipped, and never passes
//! in silence.

use std::{fs::OpenOptions, io::Write as _};

/// Names the file that collects the skipped tests of a whole run; `cargo xtask test` counts them.
const FILE: &str = "RELAYD_SKIP_FILE";

/// Reports a test as skipped, on standard output and in the file that `RELAYD_SKIP_FILE` names, if it names
/// one.
///
/// # Panics
///
/// If that file cannot be written: a skip that is not counted would look like a pass.
pub fn skip(name: &str, reason: &str) {
    let line = format!("SKIPPED: {name}: {reason}\n");
    print!("{line}");
    if let Some(path) = std::env::var_os(FILE) {
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
        assert!(written.is_ok(), "{} cannot be appended to: {written:?}", path.display());
    }
}
