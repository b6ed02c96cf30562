//! The rival: upstream's own look-up benchmark, and upstream's map with as many keys as ours.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;

use crate::interop;

/// A compiled Go benchmark.
#[derive(Debug)]
pub struct Benchmark {
    program: PathBuf,
    name: &'static str,
    args: Vec<String>,
}

/// The output of one benchmark run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Printed {
    /// Wall-clock nanoseconds over all operations.
    pub ns: f64,
    /// Allocations per operation.
    pub allocations: u64,
}

impl Benchmark {
    /// Upstream's `BenchmarkLookupDestHashTrie`, from its published module.
    ///
    /// # Errors
    /// Go is missing, or cannot build it.
    pub fn four_hot() -> anyhow::Result<Self> {
        let program = interop::build_tests("tailscale.com/derp/derpserver", "upstream-lookup.test")?;
        Ok(Self { program, name: "BenchmarkLookupDestHashTrie", args: Vec::new() })
    }

    /// Upstream's map with many keys and churn; see `tests/interop/lookup`.
    ///
    /// # Errors
    /// Go is missing, or cannot build it.
    pub fn many(clients: u64, churn: u64) -> anyhow::Result<Self> {
        let program = interop::build_tests("./lookup", "many-lookup.test")?;
        let args = vec![format!("-clients={clients}"), format!("-churn={churn}")];
        Ok(Self { program, name: "BenchmarkLookupMany", args })
    }

    /// Runs the benchmark once, for about `ms` milliseconds.
    ///
    /// # Errors
    /// The run failed, or its output is not that of a benchmark.
    pub fn run(&self, ms: u64) -> anyhow::Result<Printed> {
        let output = Command::new(&self.program)
            .args([
                "-test.run=^$",
                &format!("-test.bench=^{}$", self.name),
                &format!("-test.benchtime={ms}ms"),
            ])
            .args(&self.args)
            .output()
            .with_context(|| format!("running {}", self.name))?;
        let said = String::from_utf8_lossy(&output.stdout);
        parse(&said).with_context(|| format!("{} said: {said}", self.name))
    }
}

/// Reads `BenchmarkX-2   1000   12.3 ns/op   0 B/op   0 allocs/op`.
fn parse(said: &str) -> anyhow::Result<Printed> {
    let line = said.lines().find(|line| line.contains(" ns/op")).context("no result")?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let figure = |unit: &str| {
        let at = words.iter().position(|word| *word == unit).filter(|at| *at > 0);
        at.map(|at| words[at - 1]).with_context(|| format!("no {unit}"))
    };
    Ok(Printed { ns: figure("ns/op")?.parse()?, allocations: figure("allocs/op")?.parse()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_read_with_and_without_further_metrics() {
        let said =
            "cpu: X\nBenchmarkX-2 \t 1000\t 165.8 ns/op\t 250.1 cpu-ns/op\t 1 B/op\t 0 allocs/op\nPASS\n";
        assert_eq!(parse(said).expect("good"), Printed { ns: 165.8, allocations: 0 });
        assert!(parse("PASS\n").is_err());
        assert!(parse("BenchmarkX-2 1000 5 ns/op\n").is_err());
    }
}
