//! The fast path in a lab: a wire, a pin directory for the test, and helpers to start it.

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

/// The value that tests use for `--relay-max-sessions`.
pub const MAX_SESSIONS: u32 = 4;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A pin directory for one test; `Drop` removes everything that the test left in it.
pub struct BpfDir(pub PathBuf);

impl BpfDir {
    /// Chooses a unique name; the fast path creates the directory.
    pub fn new() -> Self {
        let name = format!("relayd-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Self(Path::new("/sys/fs/bpf").join(name))
    }

    /// The names of the pinned maps.
    ///
    /// # Panics
    ///
    /// If the directory exists and cannot be read.
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

/// Options for native mode on the relay's end, with pins in `dir`.
pub fn options(dir: &BpfDir) -> XdpOptions {
    XdpOptions {
        iface: RELAY.to_owned(),
        mode: Mode::Native,
        bpf_dir: Some(dir.0.clone()),
        max_sessions: MAX_SESSIONS,
        udp_port: 3478,
        any_ingress: false,
    }
}

/// Runs a test with a wire and a pin directory, or reports what it lacks.
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
/// The fast path refuses to start.
pub fn start(wire: &Wire, options: &XdpOptions) -> Result<FastPath, StartError> {
    wire.on('r', || FastPath::start(options))
}

/// Starts the fast path and expects success.
///
/// # Panics
///
/// If the fast path refuses to start.
pub fn started(wire: &Wire, dir: &BpfDir) -> FastPath {
    start(wire, &options(dir)).unwrap_or_else(|error| panic!("{error}"))
}

/// Starts the fast path and expects a refusal.
///
/// # Panics
///
/// If the fast path starts.
pub fn refused(wire: &Wire, options: &XdpOptions) -> StartError {
    start(wire, options).expect_err("must be refused")
}

/// The output of `relayd inspect`.
///
/// # Panics
///
/// If there is no output.
pub fn dumped(dir: &BpfDir) -> String {
    let mut out = Vec::new();
    let options = inspect::InspectOptions { verbose: true, ..inspect::InspectOptions::default() };
    inspect::dump(&dir.0, &options, &mut out).unwrap_or_else(|error| panic!("{error}"));
    String::from_utf8(out).expect("text")
}

/// What `ip` prints about the relay's interface.
///
/// # Panics
///
/// If there is no output.
pub fn attached(wire: &Wire) -> String {
    wire.ip('r', &["-d", "link", "show", RELAY]).expect("the link")
}
