//! The Go program that judges: building it once, and running one case of it.
//!
//! Its module asks for a newer Go than most machines have; `GOTOOLCHAIN=auto` lets any Go since 1.21 fetch
//! that one through the module proxy, once.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

use anyhow::{Context as _, bail};

use super::site::Site;

/// A built judge.
#[derive(Debug)]
pub struct Judge {
    program: PathBuf,
}

/// What became of one case.
#[derive(Debug)]
pub enum Verdict {
    /// The judge's own line.
    Passed(String),
    /// Why it could not be judged here.
    Skipped(String),
}

/// Why there is no judge.
#[derive(Debug)]
pub(super) enum Missing {
    /// No Go on this machine.
    Go(String),
    /// Go is there, and failed: its output.
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

    /// Starts a process that ends well once every service of the site answers, or badly after 20 seconds.
    pub(super) fn awaiting(&self, flags: &[String]) -> anyhow::Result<Child> {
        let mut command = self.command();
        command.args(flags).args(["-await", "20s"]).stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().context("running the judge")
    }

    /// Judges one case. The judge bounds its own time.
    pub fn case(&self, site: &Site, case: &str) -> anyhow::Result<Verdict> {
        let output =
            self.command().args(site.flags()).args(["-case", case]).output().context("running the judge")?;
        let said = String::from_utf8_lossy(&output.stdout);
        let line = said.trim();
        if let Some(reason) = line.strip_prefix(&format!("SKIP {case} ")) {
            return Ok(Verdict::Skipped(reason.to_owned()));
        }
        let passed = output.status.success() && line.starts_with(&format!("PASS {case} "));
        if passed == site.must_fail(case) {
            bail!("{}", text(&output));
        }
        Ok(Verdict::Passed(line.to_owned()))
    }
}

/// Builds a program of the judge's module without the judge; the inner error is why there is no Go here.
///
/// # Errors
/// Go is there, and cannot build it.
pub fn build_program(package: &str) -> anyhow::Result<Result<PathBuf, String>> {
    if let Err(missing) = find_go() {
        return Ok(Err(missing));
    }
    build_package(package).map(Ok)
}

/// Builds a program of the judge's module beside it, such as `tailscale.com/cmd/derper`.
pub(super) fn build_package(package: &str) -> anyhow::Result<PathBuf> {
    let program = module().join("bin").join(package.rsplit('/').next().unwrap_or(package));
    go(&module(), &["build"], &program, package).map_err(anyhow::Error::msg)?;
    Ok(program)
}

/// Builds a package's tests and benchmarks as the program `name`, likewise.
///
/// # Errors
/// Go is not there, or cannot build it.
pub fn build_tests(package: &str, name: &str) -> anyhow::Result<PathBuf> {
    let program = module().join("bin").join(name);
    let built = go(&module(), &["test", "-c"], &program, package).map_err(anyhow::Error::msg);
    built.with_context(|| format!("`go test -c {package}`"))?;
    Ok(program)
}

/// The error is why there is no Go here.
pub(crate) fn find_go() -> Result<(), String> {
    let found = Command::new("go").arg("version").output();
    found.map(drop).map_err(|error| format!("cannot run `go`: {error}"))
}

fn build() -> Result<Judge, Missing> {
    find_go().map_err(Missing::Go)?;
    let program = module().join("bin").join("judge");
    match go(&module(), &["build"], &program, ".") {
        Ok(()) => Ok(Judge { program }),
        Err(output) => Err(Missing::Build(output)),
    }
}

fn module() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("interop")
}

/// Makes a program of one package that a module of ours knows; the error is what Go said.
pub(crate) fn go(module: &Path, verb: &[&str], program: &Path, package: &str) -> Result<(), String> {
    let built = Command::new("go")
        .current_dir(module)
        .env("GOTOOLCHAIN", "auto")
        // No version stamp: it would ask git about a checkout that may belong to another user.
        .env("GOFLAGS", "-mod=mod -buildvcs=false")
        .env("CGO_ENABLED", "0")
        .args(verb)
        .args(["-o".as_ref(), program.as_os_str(), package.as_ref()])
        .output();
    match built {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(text(&output)),
        Err(error) => Err(error.to_string()),
    }
}

pub(super) fn text(output: &Output) -> String {
    let [stdout, stderr] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    format!("{stdout}{stderr}").trim().to_owned()
}
