//! A short pause before a busy worker goes to sleep, so that more packets share each system call.
//!
//! The pause is made only under load: if several packets come during one pause, waiting for them costs less
//! than waking up for each. A worker with less load sleeps at once.

use std::cell::Cell;
use std::time::Duration;

use crate::clock;

/// Packets that a pause must be expected to bring.
const WORTH: u64 = 3;

/// Packets over which the rate is measured.
const SPAN: u64 = 16;

thread_local! {
    static PACE: Cell<Pace> = const { Cell::new(Pace::new()) };
}

/// The rate at which packets come.
#[derive(Clone, Copy, Debug)]
struct Pace {
    since_ns: u64,
    packets: u64,
    busy: bool,
}

impl Pace {
    const fn new() -> Self {
        Self { since_ns: 0, packets: 0, busy: false }
    }

    /// Whether a pause is worth it now. The rate of the last full span decides until the next span is full. A
    /// span that lasts too long for that rate ends the load early.
    fn is_busy(&mut self, now_ns: u64, pause_ns: u64) -> bool {
        let full = self.packets >= SPAN;
        let slow = now_ns.saturating_sub(self.since_ns).saturating_mul(WORTH)
            > self.packets.max(SPAN).saturating_mul(pause_ns);
        if full || slow {
            *self = Self { since_ns: now_ns, packets: 0, busy: !slow };
        }
        self.busy
    }
}

/// Notes that this worker has relayed packets.
pub fn note(packets: u64) {
    let mut pace = PACE.get();
    pace.packets += packets;
    PACE.set(pace);
}

/// Pauses if the load is high. To be called on a worker that is about to sleep.
pub fn before_sleep(pause: Duration) {
    let mut pace = PACE.get();
    let busy = pace.is_busy(clock::monotonic_ns(), pause.as_nanos() as u64);
    PACE.set(pace);
    if busy {
        std::thread::sleep(pause);
    }
}

/// Makes this thread's pauses as short as requested: by default the kernel adds 50 microseconds.
pub fn allow_short_sleeps() {
    if let Err(error) = nix::sys::prctl::set_timerslack(1) {
        tracing::debug!(%error, "cannot make pauses precise");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE_NS: u64 = 50_000;

    /// The number of pauses of a worker that relays `lump` packets every `gap_ns`.
    fn pauses(pace: &mut Pace, now_ns: &mut u64, lump: u64, gap_ns: u64, times: u64) -> u64 {
        let mut count = 0;
        for _ in 0..times {
            *now_ns += gap_ns;
            pace.packets += lump;
            count += u64::from(pace.is_busy(*now_ns, PAUSE_NS));
        }
        count
    }

    #[test]
    fn the_rate_decides_and_not_how_packets_are_lumped() {
        for (rate, busy) in [(4_000, false), (40_000, false), (80_000, true), (400_000, true)] {
            for lump in [1, 3, 8, 40] {
                let (mut pace, mut now_ns) = (Pace::new(), 1_000_000_000);
                let gap_ns = lump * 1_000_000_000 / rate;
                // The rate is unknown until the first span is over.
                pauses(&mut pace, &mut now_ns, lump, gap_ns, 2 * SPAN);
                let count = pauses(&mut pace, &mut now_ns, lump, gap_ns, 1000);
                assert_eq!(count, if busy { 1000 } else { 0 }, "{rate} a second by {lump}");
            }
        }
    }

    #[test]
    fn silence_ends_the_load_and_one_burst_is_none() {
        let (mut pace, mut now_ns) = (Pace::new(), 1_000_000_000);
        pauses(&mut pace, &mut now_ns, 5, 10_000, 100);
        assert!(pace.busy);
        assert_eq!(pauses(&mut pace, &mut now_ns, 1, 10_000_000, 5), 0);
        assert_eq!(pauses(&mut pace, &mut now_ns, 60, 10_000_000, 1), 0);
    }
}
