//! The demo's bookkeeping: numbers that must be equal, and what the daemon's counters grew by.

use anyhow::{Result, bail};
use serde_json::Value;

use super::traffic::Traffic;

/// Every comparison so far.
#[derive(Debug, Default)]
pub(super) struct Account {
    compared: usize,
    wrong: Vec<String>,
}

impl Account {
    /// Notes whether two numbers are the same.
    pub(super) fn equal(&mut self, what: &str, found: u64, expected: u64) {
        self.compared += 1;
        if found != expected {
            self.wrong.push(format!("{what}: {found}, expected {expected}"));
        }
    }

    /// Notes whether everything that was sent arrived.
    pub(super) fn delivered(&mut self, rung: &str, traffic: &Traffic) {
        self.equal(&format!("{rung}: delivered"), traffic.delivered, traffic.sent);
    }

    /// Says how it came out; an error if something did not.
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

/// What one of userspace's counters grew by between two status answers.
pub(super) fn grown(before: &Value, after: &Value, label: &str) -> u64 {
    difference(&before["counters"][label], &after["counters"][label])
}

/// What one of the program's reasons grew by.
pub(super) fn reason_grown(before: &Value, after: &Value, label: &str) -> u64 {
    let packets = |status: &Value| status["xdp"]["reasons"][label]["packets"].clone();
    difference(&packets(before), &packets(after))
}

/// As [`reason_grown`]; nothing where there is no program to count.
pub(super) fn reason_grown_or_none(before: &Value, after: &Value, label: &str) -> u64 {
    if after["xdp"]["reasons"].is_object() { reason_grown(before, after, label) } else { 0 }
}

/// A counter that is missing is wrong, not zero.
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
