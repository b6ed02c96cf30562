//! Whether another thread is to be had, for those who start them by libraries that panic when there is none.

use std::path::Path;
use std::time::{Duration, Instant};
use std::{io, thread};

use nix::unistd::gettid;

/// What an operator can do about it.
pub const REMEDY: &str = "is the limit of threads (ulimit -u, TasksMax= of the service) high enough?";

/// How long a thread that has ended may go on being counted.
const PATIENCE: Duration = Duration::from_secs(1);

/// Starts a thread that ends at once, and waits until it does not count any more.
///
/// # Errors
/// The system has none to give.
pub fn check() -> io::Result<()> {
    let thread = thread::Builder::new().spawn(gettid)?;
    let id = thread.join().map_err(|_| io::Error::other("a thread that does nothing has failed"))?;
    // The kernel wakes who waits for it first, and takes it off the count a moment later.
    let (counted, end) = (format!("/proc/self/task/{id}"), Instant::now() + PATIENCE);
    while Path::new(&counted).exists() && Instant::now() < end {
        thread::yield_now();
    }
    Ok(())
}
