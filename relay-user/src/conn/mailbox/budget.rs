//! How much may wait for all receivers together.
//!
//! Each mailbox is bounded by itself; thousands of slow receivers at once are not. Every change of what waits
//! is added here, a read or a write at a time. Close to the budget all lanes become short, and
//! [`crate::upkeep`] closes the receivers that have been blocked longest until there is room again.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use tokio::sync::Notify;

/// Bytes that wait, and how many may.
#[derive(Debug)]
#[repr(align(64))]
pub struct Budget {
    held: AtomicI64,
    tight: AtomicBool,
    most: i64,
    exceeded: Notify,
}

impl Budget {
    /// A budget of `most` bytes, as they are on the wire (what holds them is up to twice that).
    pub fn new(most: u64) -> Self {
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        Self { held: AtomicI64::new(0), tight: AtomicBool::new(false), most, exceeded: Notify::new() }
    }

    /// Notes that `growth` bytes more wait now, or fewer.
    pub fn add(&self, growth: i64) {
        if growth == 0 {
            return;
        }
        let held = self.held.fetch_add(growth, Ordering::Relaxed) + growth;
        if growth > 0 {
            if held > self.alarm() && !self.tight.swap(true, Ordering::Relaxed) {
                self.exceeded.notify_one();
            }
        } else if held <= self.calm() && self.is_tight() {
            self.tight.store(false, Ordering::Relaxed);
        }
    }

    /// Whether memory is short: no lane should hold more than it must.
    pub fn is_tight(&self) -> bool {
        self.tight.load(Ordering::Relaxed)
    }

    /// Bytes that wait.
    pub fn held(&self) -> u64 {
        u64::try_from(self.held.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Bytes that may wait.
    pub fn most(&self) -> u64 {
        self.most.unsigned_abs()
    }

    /// Bytes that must be freed before there is room again; 0: none.
    pub fn excess(&self) -> u64 {
        if !self.is_tight() {
            return 0;
        }
        u64::try_from(self.held.load(Ordering::Relaxed) - self.calm()).unwrap_or(0)
    }

    /// Waits until memory is short.
    pub async fn exceeded(&self) {
        self.exceeded.notified().await;
    }

    /// Above this, receivers are closed: early enough that the budget itself is not reached while that
    /// happens.
    fn alarm(&self) -> i64 {
        self.most / 8 * 7
    }

    /// Down from here, all is well again.
    fn calm(&self) -> i64 {
        self.most / 4 * 3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_tight_from_seven_eighths_until_three_quarters() {
        let budget = Budget::new(800);
        budget.add(700);
        assert!(!budget.is_tight());
        budget.add(1);
        assert!(budget.is_tight());
        assert_eq!((budget.held(), budget.excess()), (701, 101));
        budget.add(-100);
        assert!(budget.is_tight());
        budget.add(-1);
        assert!(!budget.is_tight());
        assert_eq!((budget.held(), budget.excess()), (600, 0));
    }
}
