//! Counts the results that the test programs report, and prints the closing lines.
//!
//! It reads the output of the standard test harness: `test NAME ... FAILED`, `test NAME ... ignored`, and the
//! line `test result: ok. 3 passed; 0 failed; 1 ignored; ...` that ends each program.

use std::collections::BTreeMap;

/// The results of one kind of tests.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Tests that ran and passed.
    pub(super) passed: usize,
    /// Tests that failed, and programs that failed without naming a test.
    pub(super) failed: usize,
    /// The reason, by name of the test.
    pub(super) skipped: BTreeMap<String, String>,
    failures: Vec<String>,
    line: Vec<u8>,
}

impl Tally {
    /// Reads the next piece of a program's output; a piece may end anywhere.
    pub(super) fn read(&mut self, chunk: &[u8]) {
        for &byte in chunk {
            if byte == b'\n' {
                let line = std::mem::take(&mut self.line);
                self.read_line(&String::from_utf8_lossy(&line));
            } else {
                self.line.push(byte);
            }
        }
    }

    /// Forgets a line that a program left unfinished.
    pub(super) fn end_of_program(&mut self) {
        self.line.clear();
    }

    /// Counts a failure that no test reported.
    pub(super) fn fail(&mut self, what: String) {
        self.failed += 1;
        self.failures.push(what);
    }

    /// Moves the tests in the skip file from passed to skipped.
    pub(super) fn count_skips(&mut self, skip_file: &str) {
        for line in skip_file.lines().filter_map(|line| line.strip_prefix("SKIPPED: ")) {
            let (name, reason) = line.split_once(": ").unwrap_or((line, "no reason given"));
            if self.skipped.insert(name.to_owned(), reason.to_owned()).is_none() {
                self.passed = self.passed.saturating_sub(1);
            }
        }
    }

    fn read_line(&mut self, line: &str) {
        if let Some(counts) = line.strip_prefix("test result: ") {
            self.passed += count(counts, "passed");
            self.failed += count(counts, "failed");
        } else if let Some((name, verdict)) =
            line.strip_prefix("test ").and_then(|line| line.rsplit_once(" ... "))
        {
            if let Some(reason) = verdict.strip_prefix("ignored") {
                let reason = reason.strip_prefix(", ").unwrap_or("marked as ignored");
                self.skipped.insert(name.to_owned(), reason.to_owned());
            } else if verdict == "FAILED" {
                self.failures.push(name.to_owned());
            }
        }
    }
}

/// Prints the table, the names of failed and skipped tests, and as the last line the counts of all kinds
/// together.
pub(super) fn print(tallies: &[(&str, Tally)]) -> Tally {
    let mut total = Tally::default();
    println!("\n{:<8} {:>7} {:>7} {:>8}", "kind", "passed", "failed", "skipped");
    for (kind, tally) in tallies {
        println!("{kind:<8} {:>7} {:>7} {:>8}", tally.passed, tally.failed, tally.skipped.len());
        total.passed += tally.passed;
        total.failed += tally.failed;
        let named = |name: &String| format!("{kind}: {name}");
        total.failures.extend(tally.failures.iter().map(named));
        total.skipped.extend(tally.skipped.iter().map(|(name, reason)| (named(name), reason.clone())));
    }
    println!();
    for failure in &total.failures {
        println!("FAILED {failure}");
    }
    for (name, reason) in &total.skipped {
        println!("skipped {name}: {reason}");
    }
    println!("{} passed, {} failed, {} skipped", total.passed, total.failed, total.skipped.len());
    total
}

/// The number before `word` in `ok. 3 passed; 0 failed; ...`.
fn count(counts: &str, word: &str) -> usize {
    let parts = counts.split([';', '.']).map(str::trim);
    parts.filter_map(|part| part.strip_suffix(word)?.trim().parse::<usize>().ok()).next().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\nrunning 4 tests\ntest a ... ok\ntest b ... FAILED\ntest c ... ok\ntest d ... ignored, needs two hosts\n\n\
        test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s\n";

    #[test]
    fn counts_are_the_same_wherever_the_output_is_cut() {
        for size in 1..OUTPUT.len() {
            let mut tally = Tally::default();
            OUTPUT.as_bytes().chunks(size).for_each(|chunk| tally.read(chunk));
            assert_eq!((tally.passed, tally.failed, tally.skipped.len()), (2, 1, 1), "chunks of {size}");
            assert_eq!(tally.failures, ["b"]);
        }
    }

    #[test]
    fn a_test_that_skipped_itself_is_not_also_passed() {
        let mut tally = Tally::default();
        tally.read(b"test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s\n");
        tally.count_skips(
            "SKIPPED: lab::a: no root\nSKIPPED: lab::a: no root\nnoise\nSKIPPED: lab::b: no BPF: denied\n",
        );
        assert_eq!((tally.passed, tally.failed, tally.skipped.len()), (1, 0, 2));
        assert_eq!(tally.skipped.get("lab::b").map(String::as_str), Some("no BPF: denied"));
    }

    #[test]
    fn several_programs_add_up() {
        let mut tally = Tally::default();
        for _ in 0..2 {
            tally.read(b"test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 7 filtered out; finished in 1.25s\n");
            tally.end_of_program();
        }
        assert_eq!((tally.passed, tally.failed), (24, 0));
    }
}
