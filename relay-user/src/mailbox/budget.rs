//! Limits the bytes that may wait for all receivers together.
//!
//! Each mailbox has its own bound, but thousands of slow receivers together need another one. Every change of
//! the waiting bytes is added here, once per read or write. Near the budget all lanes become short, and
//! [`crate::upkeep`] closes the receivers that have been blocked longest until there is room again.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use tokio::sync::Notify;

/// The bytes that wait, and the most that may wait.
#[derive(Debug)]
#[repr(align(64))]
pub struct Budget {
    held: AtomicI64,
    tight: AtomicBool,
    most: i64,
    exceeded: Notify,
}

impl Budget {
    /// A budget of `most` bytes, counted as they are on the wire (they occupy up to twice that in memory).
    pub fn new(most: u64) -> Self {
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        Self { held: AtomicI64::new(0), tight: AtomicBool::new(false), most, exceeded: Notify::new() }
    }

    /// Adds `growth` waiting bytes; a negative `growth` subtracts.
    pub fn add(&self, growth: i64) {
        if growth == 0 {
            return;
        }
        let held = self.held.fetch_add(growth, Ordering::SeqCst) + growth;
        if growth < 0 && held <= self.calm() && self.is_tight() {
            self.tight.store(false, Ordering::SeqCst);
            // Another thread may have passed the alarm since, while `tight` was still set.
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

    /// Whether memory is short: then each lane should hold only its minimum.
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

    /// Bytes that must be freed before memory is no longer short; 0: it is not short.
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

    /// Above this many bytes, receivers are closed. The alarm comes early enough that the budget is not
    /// reached while they close.
    fn alarm(&self) -> i64 {
        self.most / 8 * 7
    }

    /// At this many bytes or fewer, memory is no longer short.
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
        // Both threads change each budget as nearly at the same moment as they can.
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
