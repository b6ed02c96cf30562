//! How long the daemon's own work holds others up: each part of it is one hold of the table's lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock;

/// CPU nanoseconds that no hold should need.
pub const LONG_NS: u64 = 1_000_000;

/// The holds of one kind of work. Clones share the numbers.
#[derive(Clone, Debug, Default)]
pub struct Held(Arc<Numbers>);

#[derive(Debug, Default)]
struct Numbers {
    count: AtomicU64,
    long: AtomicU64,
    longest_ns: AtomicU64,
    pass_ns: AtomicU64,
    running_ns: AtomicU64,
}

/// The work on all sessions that goes on beside the packets.
#[derive(Clone, Debug, Default)]
pub struct Control {
    /// Liveness and expiry.
    pub sweep: Held,
    /// Comparison with the BPF map.
    pub audit: Held,
    /// Walks that look up next hops again.
    pub next_hops: Held,
}

impl Held {
    /// Does one part of the work and notes the CPU time that this thread used for it.
    pub fn note<T>(&self, part: impl FnOnce() -> T) -> T {
        let from = clock::thread_ns();
        let done = part();
        let took = clock::thread_ns().saturating_sub(from);
        self.0.count.fetch_add(1, Ordering::Relaxed);
        self.0.long.fetch_add((took > LONG_NS).into(), Ordering::Relaxed);
        self.0.longest_ns.fetch_max(took, Ordering::Relaxed);
        self.0.running_ns.fetch_add(took, Ordering::Relaxed);
        done
    }

    /// Notes that the work has been done for all sessions.
    pub fn pass(&self) {
        self.0.pass_ns.store(self.0.running_ns.swap(0, Ordering::Relaxed), Ordering::Relaxed);
    }

    /// CPU nanoseconds of the longest part so far.
    pub fn longest_ns(&self) -> u64 {
        self.0.longest_ns.load(Ordering::Relaxed)
    }

    /// Number of parts so far, and of those that took more than [`LONG_NS`].
    pub fn counts(&self) -> (u64, u64) {
        (self.0.count.load(Ordering::Relaxed), self.0.long.load(Ordering::Relaxed))
    }

    /// CPU nanoseconds of all parts of the last complete pass.
    pub fn pass_ns(&self) -> u64 {
        self.0.pass_ns.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_part_and_the_sum_of_a_pass_are_kept() {
        let held = Held::default();
        let busy = |ns| {
            let end = clock::thread_ns() + ns;
            while clock::thread_ns() < end {}
        };
        held.note(|| busy(200_000));
        held.note(|| busy(100_000));
        assert_eq!(held.pass_ns(), 0, "not yet complete");
        held.pass();
        assert!(held.longest_ns() >= 200_000 && held.pass_ns() >= 300_000);
        held.note(|| busy(LONG_NS + 1));
        let (count, long) = held.counts();
        assert!(count == 3 && long >= 1, "{long} of {count}");
        held.pass();
        held.pass();
        assert_eq!(held.pass_ns(), 0, "a pass without parts");
    }
}
