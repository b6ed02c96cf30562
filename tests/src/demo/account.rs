//! The demo's accounts: numbers that must be equal, and the increase of the daemon's counters.

use anyhow::{Result, bail};
use serde_json::Value;

use super::traffic::Traffic;

/// All comparisons so far.
#[derive(Debug, Default)]
pub(super) struct Account {
    compared: usize,
    wrong: Vec<String>,
}

impl Account {
    /// Compares two numbers and records the result.
    pub(super) fn equal(&mut self, what: &str, found: u64, expected: u64) {
        self.compared += 1;
        if found != expected {
            self.wrong.push(format!("{what}: {found}, expected {expected}"));
        }
    }

    /// Checks that every sent packet arrived.
    pub(super) fn delivered(&mut self, rung: &str, traffic: &Traffic) {
        self.equal(&format!("{rung}: delivered"), traffic.delivered, traffic.sent);
    }

    /// Prints the result; fails if a comparison failed.
    pub(super) fn settle(&self) -> Result<()> {
        if self.wrong.is_empty() {
            println!("all {} numbers add up", self.compared);
            return Ok(());
        }
        for wrong in &self.wrong {
            println!("does not add up: {wrong}");
        }
        bail!("{} of {} numbers do not add up", self.wrong.len(), self.compared)
    }
}

/// The increase of a userspace counter between two status answers.
pub(super) fn grown(before: &Value, after: &Value, label: &str) -> u64 {
    difference(&before["counters"][label], &after["counters"][label])
}

/// The increase of a reason of the XDP program.
pub(super) fn reason_grown(before: &Value, after: &Value, label: &str) -> u64 {
    let packets = |status: &Value| status["xdp"]["reasons"][label]["packets"].clone();
    difference(&packets(before), &packets(after))
}

/// Like [`reason_grown`], but zero if there is no XDP program.
pub(super) fn reason_grown_or_none(before: &Value, after: &Value, label: &str) -> u64 {
    if after["xdp"]["reasons"].is_object() { reason_grown(before, after, label) } else { 0 }
}

/// A missing counter is an error and not zero.
fn difference(before: &Value, after: &Value) -> u64 {
    match (before.as_u64(), after.as_u64()) {
        (Some(before), Some(after)) => after.wrapping_sub(before),
        _ => u64::MAX,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_wrong_number_spoils_the_account() {
        let mut account = Account::default();
        account.equal("a", 1, 1);
        assert!(account.settle().is_ok());
        account.equal("b", 1, 2);
        assert!(account.settle().is_err());
    }

    #[test]
    fn a_counter_that_is_missing_is_not_zero() {
        let [before, after] = [json!({"counters": {"x": 1}}), json!({"counters": {"x": 3}})];
        assert_eq!(grown(&before, &after, "x"), 2);
        assert_eq!(grown(&before, &after, "y"), u64::MAX);
    }
}
