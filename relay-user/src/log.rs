//! The log: its contents and the form of its lines. The daemon's work does not depend on the log.
//!
//! A separate thread writes the lines: no packet waits for a terminal or a full pipe. If the log cannot be
//! written, or nobody reads it, only lines are lost.

mod fields;
pub mod filter;
mod text;

use std::io::{self, IsTerminal, Write};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::threads;

pub use self::text::brief;

/// Lines that may wait to be written; more are dropped.
const WAITING_LINES: usize = 4096;

/// How long the end of the process waits for the reader of its last words.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The running log. Dropping it writes the waiting lines, as far as they are read.
#[must_use = "the log ends when this is dropped"]
#[derive(Debug)]
pub struct Log {
    writer: Option<WorkerGuard>,
    dropped: ErrorCounter,
}

static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// Lines dropped so far because they were not read fast enough.
pub fn dropped_lines() -> usize {
    DROPPED.get().map_or(0, ErrorCounter::dropped_lines)
}

/// Starts the log on standard error; `wanted` is the text of [`filter::VARIABLE`].
///
/// # Errors
/// The message names the variable and its form.
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
        // Such errors would be written to standard error as well, and that failure would end the task that
        // logs.
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

/// Writes a text to standard error that is not part of the log. A failure to write is ignored, and if nobody
/// reads it for a second, it is left unwritten.
pub fn say(text: &str) {
    let line = format!("relayd: {text}\n");
    let (said, heard) = mpsc::channel();
    let own = line.clone();
    let writer = thread::Builder::new().spawn(move || {
        let _ = io::stderr().write_all(own.as_bytes());
        let _ = said.send(());
    });
    match writer {
        Ok(_) => drop(heard.recv_timeout(LAST_WORDS)),
        // That there are no threads left may be just what has to be said.
        Err(_) => drop(io::stderr().write_all(line.as_bytes())),
    }
}
