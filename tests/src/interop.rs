//! Tests a running relay with upstream's own client packages, through the Go program in `tests/interop`.
//!
//! This module starts the processes and cleans up; the Go program's files define the cases.

mod go;
mod judge;
mod judged;

use anyhow::{Context as _, bail};
pub use go::{build_program, build_tests, build_udp_relay, upstream_dir};
pub(crate) use go::{find_go, go};
pub use judge::{Judge, Verdict};
pub use judged::{JudgedRelay, Server};

/// Runs one case on the shared relay and panics if it fails; skips it by name if this machine cannot run it.
///
/// # Panics
/// If the judge cannot be built, the relay does not come up, or the case fails.
pub fn judge_case(case: &str) {
    match try_case(case) {
        Ok(Verdict::Passed(line)) => println!("{line}"),
        Ok(Verdict::Skipped(reason)) => crate::skip(&format!("interop {case}"), &reason),
        Err(error) => panic!("{error:?}"),
    }
}

/// Panics unless the judge has exactly these cases.
///
/// # Panics
/// If the judge cannot be built or has other cases.
pub fn check_cases(cases: &[&str]) {
    let judge = match Judge::built() {
        Ok(judge) => judge,
        Err(judge::Missing::Go(reason)) => return crate::skip("interop list of cases", reason),
        Err(judge::Missing::Build(output)) => panic!("the judge does not build:\n{output}"),
    };
    assert_eq!(cases, judge.cases().expect("the judge lists its cases"));
}

fn try_case(case: &str) -> anyhow::Result<Verdict> {
    let judge = match Judge::built() {
        Ok(judge) => judge,
        Err(judge::Missing::Go(reason)) => return Ok(Verdict::Skipped(reason.clone())),
        Err(judge::Missing::Build(output)) => bail!("the judge does not build:\n{output}"),
    };
    let server = match Server::chosen()? {
        Ok(server) => server,
        Err(reason) => return Ok(Verdict::Skipped(reason)),
    };
    let relay = JudgedRelay::shared(&server, judge).context("starting the relay to be judged")?;
    judge
        .case(relay.flags(), case, relay.must_fail(case))
        .with_context(|| format!("the relay's log ends:\n{}", relay.log_tail()))
}
