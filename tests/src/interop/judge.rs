//! The Go program that judges: builds it once, and runs single cases.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, bail};

use super::go::{find_go, go, module, text};

/// A built judge.
#[derive(Debug)]
pub struct Judge {
    program: PathBuf,
}

/// The result of one case.
#[derive(Debug)]
pub enum Verdict {
    /// Passed, with the judge's own line.
    Passed(String),
    /// Skipped, with the reason.
    Skipped(String),
}

/// Why the judge is missing.
#[derive(Debug)]
pub(super) enum Missing {
    /// This machine has no Go.
    Go(String),
    /// The build failed, with its output.
    Build(String),
}

impl Judge {
    /// The judge, built on the first call.
    pub(super) fn built() -> Result<&'static Judge, &'static Missing> {
        static JUDGE: OnceLock<Result<Judge, Missing>> = OnceLock::new();
        JUDGE.get_or_init(build).as_ref()
    }

    /// A command that runs the judge.
    pub(super) fn command(&self) -> Command {
        Command::new(&self.program)
    }

    /// Names of all cases, in the judge's order.
    pub fn cases(&self) -> anyhow::Result<Vec<String>> {
        let output = self.command().arg("-list").output().context("running the judge")?;
        Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
    }

    /// A command that exits with success once every service of the relay answers, or fails after 15 seconds.
    pub(super) fn awaiting(&self, flags: &[String]) -> Command {
        let mut command = self.command();
        command.args(flags).args(["-await", "15s"]);
        command
    }

    /// Runs one case against the relay that `flags` name. With `must_fail`, the case shows that it can fail.
    /// The judge limits its own time.
    pub fn case(&self, flags: &[String], case: &str, must_fail: bool) -> anyhow::Result<Verdict> {
        let output =
            self.command().args(flags).args(["-case", case]).output().context("running the judge")?;
        let said = String::from_utf8_lossy(&output.stdout);
        let line = said.trim();
        if let Some(reason) = line.strip_prefix(&format!("SKIP {case} ")) {
            return Ok(Verdict::Skipped(reason.to_owned()));
        }
        let passed = output.status.success() && line.starts_with(&format!("PASS {case} "));
        if passed == must_fail {
            bail!("{}", text(&output));
        }
        Ok(Verdict::Passed(line.to_owned()))
    }
}

fn build() -> Result<Judge, Missing> {
    find_go().map_err(Missing::Go)?;
    let program = module().join("bin").join("judge");
    match go(&module(), &["build"], &program, ".") {
        Ok(()) => Ok(Judge { program }),
        Err(output) => Err(Missing::Build(output)),
    }
}
