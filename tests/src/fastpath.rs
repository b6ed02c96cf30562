//! The fast path in a lab: a wire, a pin directory of the test's own, and the usual ways to start.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use relay_user::fastpath::{FastPath, Mode, OBJECT, StartError, XdpOptions, inspect};

use crate::{
    skip,
    wire::{RELAY, Wire},
};

/// What the tests give for `--relay-max-sessions`.
pub const MAX_SESSIONS: u32 = 4;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A pin directory of the test's own; emptied in `Drop`, whatever the test left.
pub struct BpfDir(pub PathBuf);

impl BpfDir {
    /// A name nobody else has; the fast path creates the directory.
    pub fn new() -> Self {
        let name = format!("relayd-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Self(Path::new("/sys/fs/bpf").join(name))
    }

    /// What is pinned, by name.
    ///
    /// # Panics
    ///
    /// If the directory is there and cannot be read.
    pub fn pins(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.0) else { return Vec::new() };
        let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }
}

impl Default for BpfDir {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for BpfDir {
    fn drop(&mut self) {
        for name in self.pins() {
            let _ = fs::remove_file(self.0.join(name));
        }
        let _ = fs::remove_dir(&self.0);
    }
}

/// Native mode on the relay's end, pins in `dir`.
pub fn options(dir: &BpfDir) -> XdpOptions {
    XdpOptions {
        iface: RELAY.to_owned(),
        mode: Mode::Native,
        bpf_dir: Some(dir.0.clone()),
        max_sessions: MAX_SESSIONS,
        udp_port: 3478,
    }
}

/// Runs a test with a wire and a pin directory, or reports what is missing for it.
pub fn lab(name: &str, test: impl FnOnce(&Wire, &BpfDir)) {
    if OBJECT.is_none() {
        return skip(name, "built without the eBPF object");
    }
    match Wire::new() {
        Ok(wire) => test(&wire, &BpfDir::new()),
        Err(reason) => skip(name, &reason),
    }
}

/// Starts the fast path on the relay's side.
///
/// # Errors
///
/// As it refuses.
pub fn start(wire: &Wire, options: &XdpOptions) -> Result<FastPath, StartError> {
    wire.on('r', || FastPath::start(options))
}

/// Starts it, and expects it to.
///
/// # Panics
///
/// If it is refused.
pub fn started(wire: &Wire, dir: &BpfDir) -> FastPath {
    start(wire, &options(dir)).unwrap_or_else(|error| panic!("{error}"))
}

/// Starts it, and expects a refusal.
///
/// # Panics
///
/// If it starts.
pub fn refused(wire: &Wire, options: &XdpOptions) -> StartError {
    start(wire, options).expect_err("must be refused")
}

/// What `relayd inspect` prints.
///
/// # Panics
///
/// If it prints nothing.
pub fn dumped(dir: &BpfDir) -> String {
    let mut out = Vec::new();
    let options = inspect::InspectOptions { verbose: true, ..inspect::InspectOptions::default() };
    inspect::dump(&dir.0, &options, &mut out).unwrap_or_else(|error| panic!("{error}"));
    String::from_utf8(out).expect("text")
}

/// What `ip` says of the relay's interface.
///
/// # Panics
///
/// If it says nothing.
pub fn attached(wire: &Wire) -> String {
    wire.ip('r', &["-d", "link", "show", RELAY]).expect("the link")
}
