//! Limits log lines that a flood of events would multiply: one line in a while, with the number left out.

use std::sync::atomic::{AtomicU64, Ordering};

/// Decides which of many similar events are logged.
#[derive(Debug, Default)]
pub struct Seldom {
    /// When the next event may be logged, in milliseconds of the caller's clock.
    due_ms: AtomicU64,
    left_out: AtomicU64,
}

/// Time between two log lines about the same thing, in milliseconds.
pub const PAUSE_MS: u64 = 10_000;

impl Seldom {
    /// Notes an event at `now_ms`. `Some` means that it must be logged; the value is the number of events
    /// since the last line that were not logged.
    pub fn note(&self, now_ms: u64) -> Option<u64> {
        let due_ms = self.due_ms.load(Ordering::Relaxed);
        let is_due = now_ms >= due_ms;
        // If several threads come at the same moment, one of them logs.
        let take =
            || self.due_ms.compare_exchange(due_ms, now_ms + PAUSE_MS, Ordering::Relaxed, Ordering::Relaxed);
        if is_due && take().is_ok() {
            return Some(self.left_out.swap(0, Ordering::Relaxed));
        }
        self.left_out.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line_and_a_number() {
        let seldom = Seldom::default();
        assert_eq!(seldom.note(5), Some(0), "the first is told at once");
        for now_ms in 6..106 {
            assert_eq!(seldom.note(now_ms), None);
        }
        assert_eq!(seldom.note(5 + PAUSE_MS), Some(100));
        assert_eq!(seldom.note(6 + PAUSE_MS), None);
    }

    #[test]
    fn nothing_is_lost_between_threads() {
        let seldom = Seldom::default();
        // Each logged line counts for itself and for the events that it reports as left out.
        let note =
            || (0..1000).filter_map(|now_ms| seldom.note(now_ms)).map(|left_out| left_out + 1).sum::<u64>();
        let told: u64 = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(note)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        assert_eq!(told + seldom.note(10 * PAUSE_MS).expect("due"), 4000);
    }
}
