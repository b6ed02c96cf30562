//! Log lines that a flood of events must not multiply: one in a while, and how many were left out.

use std::sync::atomic::{AtomicU64, Ordering};

/// Decides which of many like events are logged.
#[derive(Debug, Default)]
pub struct Seldom {
    /// When the next one may be logged, in milliseconds of the caller's clock.
    due_ms: AtomicU64,
    left_out: AtomicU64,
}

/// Time between two log lines about the same thing, in milliseconds.
pub const PAUSE_MS: u64 = 10_000;

impl Seldom {
    /// Notes an event at `now_ms`. `Some`: it is to be logged, with the number of those since the last line
    /// that were not.
    pub fn note(&self, now_ms: u64) -> Option<u64> {
        let due_ms = self.due_ms.load(Ordering::Relaxed);
        let is_due = now_ms >= due_ms;
        // Of several threads at the same moment, one logs.
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
        // Each line told stands for itself and for those it says were left out.
        let note =
            || (0..1000).filter_map(|now_ms| seldom.note(now_ms)).map(|left_out| left_out + 1).sum::<u64>();
        let told: u64 = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(note)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        assert_eq!(told + seldom.note(10 * PAUSE_MS).expect("due"), 4000);
    }
}
