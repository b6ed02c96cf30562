//! A short pause before a busy worker goes to sleep, so that more packets share each system call.
//!
//! Only under load: a worker that has relayed a few packets since it last slept will have more in a moment,
//! and waiting for several costs less than waking up for each. An idle worker sleeps at once.

use std::cell::Cell;
use std::time::Duration;

/// Packets since the last sleep from which on a worker counts as busy.
const BUSY_PACKETS: u64 = 8;

thread_local! {
    static RELAYED: Cell<u64> = const { Cell::new(0) };
}

/// Notes that this worker has relayed packets.
pub fn note(packets: u64) {
    RELAYED.set(RELAYED.get() + packets);
}

/// To be called on a worker that is about to sleep.
pub fn before_sleep(pause: Duration) {
    if RELAYED.replace(0) >= BUSY_PACKETS {
        std::thread::sleep(pause);
    }
}

/// Lets this thread's pauses be as short as they are asked for: by default the kernel adds 50 microseconds.
pub fn precise() {
    if let Err(error) = nix::sys::prctl::set_timerslack(1) {
        tracing::debug!(%error, "cannot make pauses precise");
    }
}
