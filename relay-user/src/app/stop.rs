//! The signals: those that end the daemon, and SIGHUP. They have a thread of their own, so that one is heard
//! while a step of the start or of the end does not go on: a lock that somebody holds, a pipe that nobody
//! reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;
use tokio::sync::{Notify, oneshot};

use crate::threads;

/// How long the daemon has to begin its end, and after that to end, before a signal ends it at once.
const PATIENCE: Duration = Duration::from_secs(2);

/// Time between two looks whether the daemon has begun its end.
const POLL: Duration = Duration::from_millis(10);

/// Hears the first signal that ends the daemon.
#[derive(Debug)]
pub(super) struct Stop {
    heard: oneshot::Receiver<&'static str>,
    begun: Arc<AtomicBool>,
    /// Notified of each SIGHUP.
    pub(super) hangups: Arc<Notify>,
}

impl Stop {
    /// SIGTERM and SIGINT end the daemon. SIGHUP never does: it asks to read files again, under `nohup` too.
    /// (derper without `-rate-config` dies of it.) As in Go's programs, SIGUSR1 and SIGUSR2 have no effect.
    ///
    /// A signal that nobody waits for within 2 seconds has its default effect. So has a further signal, if
    /// the daemon has not ended 2 seconds after the first.
    pub(super) fn listen() -> anyhow::Result<Self> {
        let wanted = [SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2];
        let signals = Signals::new(wanted).context("cannot listen for signals")?;
        let ((said, heard), begun) = (oneshot::channel(), Arc::new(AtomicBool::new(false)));
        let hangups = Arc::new(Notify::new());
        let stop = Self { heard, begun: Arc::clone(&begun), hangups: Arc::clone(&hangups) };
        let thread = thread::Builder::new().name("relayd-signals".to_owned());
        let thread = thread.spawn(move || hear(signals, said, &begun, &hangups));
        thread.with_context(|| format!("cannot start the thread for signals; {}", threads::REMEDY))?;
        Ok(stop)
    }

    /// Waits for the signal and returns its name. From now on the daemon ends by itself.
    pub(super) async fn wait(self) -> &'static str {
        let Ok(name) = self.heard.await else { return std::future::pending().await };
        self.begun.store(true, Ordering::Release);
        name
    }
}

fn hear(mut signals: Signals, said: oneshot::Sender<&'static str>, begun: &AtomicBool, hangups: &Notify) {
    let ends = signals.forever().find_map(|signal| {
        if signal == SIGHUP {
            hangups.notify_one();
        }
        Some((signal, name(signal)?))
    });
    let Some((first, why)) = ends else { return };
    let end = Instant::now() + PATIENCE;
    // If the daemon is ending already, nobody waits for this.
    let _ = said.send(why);
    while !begun.load(Ordering::Acquire) {
        if Instant::now() >= end {
            die(first);
        }
        thread::sleep(POLL);
    }
    for further in signals.forever().filter(|signal| name(*signal).is_some()) {
        if Instant::now() >= end {
            die(further);
        }
    }
}

/// The name of a signal that ends the daemon.
fn name(signal: i32) -> Option<&'static str> {
    match signal {
        SIGTERM => Some("SIGTERM"),
        SIGINT => Some("SIGINT"),
        _ => None,
    }
}

/// Ends the process as the signal would.
fn die(signal: i32) {
    // It returns only if the signal could not be sent.
    let _ = emulate_default_handler(signal);
    std::process::exit(1);
}
