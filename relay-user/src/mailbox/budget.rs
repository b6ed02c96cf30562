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
        let held = self.held.fetch_add(growth, Ordering::SeqCst) + growth;
        if growth < 0 && held <= self.calm() && self.is_tight() {
            self.tight.store(false, Ordering::SeqCst);
            // Somebody may have passed the alarm since, and found it given already.
            self.alert(self.held.load(Ordering::SeqCst));
        }
        if growth > 0 {
            self.alert(held);
        }
    }

    fn alert(&self, held: i64) {
        if held > self.alarm() && !self.tight.swap(true, Ordering::SeqCst) {
            self.exceeded.notify_one();
        }
    }

    /// Whether memory is short: no lane should hold more than it must.
    pub fn is_tight(&self) -> bool {
        self.tight.load(Ordering::SeqCst)
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
    use std::sync::atomic::AtomicUsize;

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

    #[test]
    fn an_alarm_beside_an_all_clear_is_not_lost() {
        const ROUNDS: usize = 20_000;
        let budgets: Vec<Budget> = (0..ROUNDS).map(|_| Budget::new(800)).collect();
        for budget in &budgets {
            budget.add(710);
            budget.add(-100);
        }
        // Each budget is changed by both threads at the same moment, as near as they can.
        let turn = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for growth in [-10, 200] {
                let (turn, budgets) = (&turn, &budgets);
                scope.spawn(move || {
                    for (round, budget) in budgets.iter().enumerate() {
                        turn.fetch_add(1, Ordering::SeqCst);
                        while turn.load(Ordering::SeqCst) < 2 * (round + 1) {
                            std::thread::yield_now();
                        }
                        budget.add(growth);
                    }
                });
            }
        });
        let lost = budgets.iter().filter(|budget| budget.held() == 800 && !budget.is_tight()).count();
        assert_eq!(lost, 0, "budgets that are full, and nobody knows");
    }
}
