//! Builds Go programs of our modules.
//!
//! They need a newer Go than most machines have. With `GOTOOLCHAIN=auto`, any Go since 1.21 fetches that
//! version once through the module proxy.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context as _, ensure};

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

/// Upstream's peer relay as a program.
const UDP_RELAY: &str = "./udprelay";

/// Builds upstream's peer relay; the inner error says why Go is missing.
///
/// # Errors
/// Go is there but cannot build the program.
pub fn build_udp_relay() -> anyhow::Result<Result<PathBuf, String>> {
    build_program(UDP_RELAY)
}

/// Builds upstream's peer relay with other lifetimes of its sessions, which are constants there: the build
/// gets a copy of upstream's package with two numbers changed, beside the built programs.
///
/// # Errors
/// Go cannot build it, or upstream's package has other constants than this knows.
pub(super) fn build_short_udp_relay(bind: Duration, steady: Duration) -> anyhow::Result<PathBuf> {
    const IMPORT: &str = "tailscale.com/net/udprelay";
    let short = module().join("bin/short");
    let package = short.join("udprelay");
    fs::create_dir_all(&package)?;
    let upstream = upstream_dir()?.map_err(anyhow::Error::msg)?.join("net/udprelay");
    let constants = [
        ("defaultBindLifetime        = time.Second * 30", bind),
        ("defaultSteadyStateLifetime = time.Minute * 5", steady),
    ];
    let mut changed = 0;
    for entry in fs::read_dir(&upstream).with_context(|| upstream.display().to_string())? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if !name.ends_with(".go") || name.ends_with("_test.go") {
            continue;
        }
        let mut text = fs::read_to_string(&path)?;
        for (was, time) in constants {
            changed += text.matches(was).count();
            let (constant, _) = was.split_once('=').unwrap_or((was, ""));
            text = text.replace(was, &format!("{constant}= {} * time.Millisecond", time.as_millis()));
        }
        fs::write(package.join(name), text)?;
    }
    ensure!(changed == constants.len(), "{} has other constants", upstream.display());
    let main = fs::read_to_string(module().join("udprelay/main.go"))?;
    let own = main.replace(&format!("\"{IMPORT}\""), "\"relayd.test/interop/bin/short/udprelay\"");
    ensure!(own != main, "udprelay/main.go does not import {IMPORT}");
    fs::write(short.join("main.go"), own)?;
    let program = module().join("bin/udprelay-short");
    go(&module(), &["build"], &program, "./bin/short").map_err(anyhow::Error::msg)?;
    Ok(program)
}

/// The directory of upstream's module; the inner error says why Go is missing.
///
/// # Errors
/// Go cannot tell.
pub fn upstream_dir() -> anyhow::Result<Result<PathBuf, String>> {
    if let Err(missing) = find_go() {
        return Ok(Err(missing));
    }
    let asked = command(&module()).args(["list", "-m", "-f", "{{.Dir}}", "tailscale.com"]).output()?;
    ensure!(asked.status.success(), "{}", text(&asked));
    Ok(Ok(PathBuf::from(String::from_utf8(asked.stdout)?.trim())))
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
    let built =
        command(module).args(verb).args(["-o".as_ref(), program.as_os_str(), package.as_ref()]).output();
    match built {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(text(&output)),
        Err(error) => Err(error.to_string()),
    }
}

fn command(module: &Path) -> Command {
    let mut command = Command::new("go");
    command
        .current_dir(module)
        .env("GOTOOLCHAIN", "auto")
        // No version stamp, because Go would run git on a checkout that may belong to another user.
        .env("GOFLAGS", "-mod=mod -buildvcs=false")
        .env("CGO_ENABLED", "0");
    command
}

pub(super) fn text(output: &Output) -> String {
    let [stdout, stderr] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    format!("{stdout}{stderr}").trim().to_owned()
}
