//! Ctrl-C: noted, not obeyed at once, so that namespaces and daemons are cleaned up on the way out.

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

/// From now on the signals that end a program are only noted.
pub(super) fn listen() -> Result<()> {
    let noted = INTERRUPTED.get_or_init(Arc::default);
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        flag::register(signal, Arc::clone(noted))?;
    }
    Ok(())
}

/// Whether one came.
pub(super) fn came() -> bool {
    INTERRUPTED.get().is_some_and(|noted| noted.load(Ordering::Relaxed))
}

/// An error once one came, to leave by.
pub(super) fn check() -> Result<()> {
    ensure!(!came(), "interrupted");
    Ok(())
}
