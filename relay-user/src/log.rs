//! The log: what is said, how a line looks, and that nothing ever depends on it.
//!
//! Lines are handed to a thread of its own: no packet waits for a terminal or a full pipe. A log that cannot
//! be written, or that nobody reads, costs lines and nothing else.

mod fields;
pub mod filter;
mod text;

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;

use anyhow::Context;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::threads;

pub use self::text::brief;

/// Lines that may wait to be written; more are dropped.
const WAITING_LINES: usize = 4096;

/// The running log. What waits is written when it is dropped, as far as somebody reads.
#[must_use = "the log ends when this is dropped"]
#[derive(Debug)]
pub struct Log {
    writer: Option<WorkerGuard>,
    dropped: ErrorCounter,
}

static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// Lines that were dropped so far because they were not read fast enough.
pub fn dropped_lines() -> usize {
    DROPPED.get().map_or(0, ErrorCounter::dropped_lines)
}

/// Starts the log on standard error; `wanted` is the text of [`filter::VARIABLE`].
///
/// # Errors
/// Names the variable, and how to write it.
pub fn start(wanted: Option<&str>) -> anyhow::Result<Log> {
    let filter = filter::parse(wanted.unwrap_or_default())?;
    threads::check().with_context(|| format!("cannot start the log's thread; {}", threads::REMEDY))?;
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(WAITING_LINES)
        .lossy(true)
        .thread_name("relayd-log")
        .finish(io::stderr());
    let dropped = writer.error_counter();
    let _ = DROPPED.set(dropped.clone());
    let lines = tracing_subscriber::fmt::layer()
        .fmt_fields(fields::Plain)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .with_writer(writer)
        // They would be said on standard error, of all places, and end the task that cannot say them.
        .log_internal_errors(false);
    tracing_subscriber::registry().with(filter).with(lines).try_init()?;
    Ok(Log { writer: Some(guard), dropped })
}

impl Drop for Log {
    fn drop(&mut self) {
        drop(self.writer.take());
        let dropped = self.dropped.dropped_lines();
        if dropped > 0 {
            say(&format!("{dropped} lines of the log were lost: standard error was not read fast enough"));
        }
    }
}

/// Says something on standard error that is not part of the log. Whether it can be said is nobody's trouble.
pub fn say(text: &str) {
    let _ = writeln!(io::stderr(), "relayd: {text}");
}
