//! Builds Go programs of our modules.
//!
//! They need a newer Go than most machines have. With `GOTOOLCHAIN=auto`, any Go since 1.21 fetches that
//! version once through the module proxy.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::Context as _;

/// Builds a program of the judge's module, but not the judge; the inner error says why Go is missing.
///
/// # Errors
/// Go is there but cannot build the program.
pub fn build_program(package: &str) -> anyhow::Result<Result<PathBuf, String>> {
    if let Err(missing) = find_go() {
        return Ok(Err(missing));
    }
    build_package(package).map(Ok)
}

/// Builds another program with the judge's module, such as `tailscale.com/cmd/derper`.
pub(super) fn build_package(package: &str) -> anyhow::Result<PathBuf> {
    let program = module().join("bin").join(package.rsplit('/').next().unwrap_or(package));
    go(&module(), &["build"], &program, package).map_err(anyhow::Error::msg)?;
    Ok(program)
}

/// Builds a package's tests and benchmarks as the program `name`.
///
/// # Errors
/// Go is missing, or cannot build them.
pub fn build_tests(package: &str, name: &str) -> anyhow::Result<PathBuf> {
    let program = module().join("bin").join(name);
    let built = go(&module(), &["test", "-c"], &program, package).map_err(anyhow::Error::msg);
    built.with_context(|| format!("`go test -c {package}`"))?;
    Ok(program)
}

/// Looks for Go; the error says why it is missing.
pub(crate) fn find_go() -> Result<(), String> {
    let found = Command::new("go").arg("version").output();
    found.map(drop).map_err(|error| format!("cannot run `go`: {error}"))
}

pub(super) fn module() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("interop")
}

/// Builds a program from one package that our module knows; the error is Go's output.
pub(crate) fn go(module: &Path, verb: &[&str], program: &Path, package: &str) -> Result<(), String> {
    let built = Command::new("go")
        .current_dir(module)
        .env("GOTOOLCHAIN", "auto")
        // No version stamp, because Go would run git on a checkout that may belong to another user.
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
