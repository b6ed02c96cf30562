//! Ctrl-C is only recorded, so that namespaces and daemons are cleaned up before the demo ends.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

use anyhow::{Result, ensure};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
};

static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on, signals that would end the program are only recorded.
pub(super) fn listen() -> Result<()> {
    let noted = INTERRUPTED.get_or_init(Arc::default);
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        flag::register(signal, Arc::clone(noted))?;
    }
    Ok(())
}

/// Whether such a signal arrived.
pub(super) fn came() -> bool {
    INTERRUPTED.get().is_some_and(|noted| noted.load(Ordering::Relaxed))
}

/// Fails after such a signal.
pub(super) fn check() -> Result<()> {
    ensure!(!came(), "interrupted");
    Ok(())
}
