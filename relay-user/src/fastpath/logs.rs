//! Hands the program's own log lines (aya-log), if its object has any, to `tracing`.
//!
//! Only rare paths of the program log: one log event per packet costs many times the program itself. A
//! separate thread waits for the lines, so that a program without a log map costs nothing and a slow
//! subscriber delays no packet.

use std::{
    io::Read as _,
    os::{fd::AsFd as _, unix::net::UnixStream},
    thread::JoinHandle,
};

use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{Level, Log, Metadata, Record};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

/// The map aya-log writes to.
const MAP: &str = "AYA_LOGS";

/// The thread that drains the log map; dropping it stops and joins the thread.
#[derive(Debug)]
pub(super) struct LogDrain {
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl LogDrain {
    /// Starts draining. `None` if the object has no log map, or if the log cannot be read; the latter only
    /// causes a warning.
    ///
    /// Call this before the program is loaded, because it takes the map out of the object.
    pub(super) fn start(ebpf: &mut Ebpf) -> Option<Self> {
        ebpf.map(MAP)?;
        match Self::spawn(ebpf) {
            Ok(drain) => Some(drain),
            Err(error) => {
                tracing::warn!(%error, "the XDP program's log is not read");
                None
            }
        }
    }

    fn spawn(ebpf: &mut Ebpf) -> Result<Self, Box<dyn std::error::Error>> {
        let logger = EbpfLogger::init_with_logger(ebpf, ToTracing)?;
        let (stop, stopped) = UnixStream::pair()?;
        let thread =
            std::thread::Builder::new().name("xdp-log".into()).spawn(move || drain(logger, stopped))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for LogDrain {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::warn!("the thread that read the XDP program's log had panicked");
        }
    }
}

/// Runs until the other end of `stopped` is closed.
fn drain(mut logger: EbpfLogger<ToTracing>, mut stopped: UnixStream) {
    loop {
        let (log, stop) = {
            let mut fds = [
                PollFd::new(logger.as_fd(), PollFlags::POLLIN),
                PollFd::new(stopped.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => {
                    tracing::warn!(%error, "the XDP program's log is no longer read");
                    return;
                }
            }
            let ready = |fd: &PollFd<'_>| fd.any().unwrap_or(false);
            (ready(&fds[0]), ready(&fds[1]))
        };
        if log {
            logger.flush();
        }
        if stop && matches!(stopped.read(&mut [0]), Ok(0)) {
            return;
        }
    }
}

/// Passes aya-log's lines, which use `log`, to `tracing`, which the daemon uses.
struct ToTracing;

impl Log for ToTracing {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let (from, line) = (record.target(), record.args());
        match record.level() {
            Level::Error => tracing::error!(target: "relayd::xdp", from, "{line}"),
            Level::Warn => tracing::warn!(target: "relayd::xdp", from, "{line}"),
            Level::Info => tracing::info!(target: "relayd::xdp", from, "{line}"),
            Level::Debug => tracing::debug!(target: "relayd::xdp", from, "{line}"),
            Level::Trace => tracing::trace!(target: "relayd::xdp", from, "{line}"),
        }
    }

    fn flush(&self) {}
}
