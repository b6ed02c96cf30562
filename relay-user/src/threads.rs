//! Checks whether the system can start another thread, for callers of libraries that panic if it cannot.

pub mod event_loop;

use std::path::Path;
use std::time::{Duration, Instant};
use std::{io, thread};

use nix::unistd::gettid;

/// The remedy that is suggested to the operator.
pub const REMEDY: &str = "is the limit of threads (ulimit -u, TasksMax= of the service) high enough?";

/// How long an ended thread may still be counted.
const PATIENCE: Duration = Duration::from_secs(1);

/// Starts a thread that ends at once, and waits until the system no longer counts it.
///
/// # Errors
/// The system can start no thread.
pub fn check() -> io::Result<()> {
    let thread = thread::Builder::new().spawn(gettid)?;
    let id = thread.join().map_err(|_| io::Error::other("a thread that does nothing has failed"))?;
    // The kernel first wakes the waiting thread, and only a moment later stops counting the ended one.
    let (counted, end) = (format!("/proc/self/task/{id}"), Instant::now() + PATIENCE);
    while Path::new(&counted).exists() && Instant::now() < end {
        thread::yield_now();
    }
    Ok(())
}
