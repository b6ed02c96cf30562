//! Checks that clippy does not make: the documentation in the code, the dependencies, the fuzz targets, and
//! the Go modules.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::licences;
use crate::{cargo, host, process};

/// The Go modules of the tests.
const GO_MODULES: &[&str] = &["tests/interop", "tests/stock"];

/// Runs every check and says whether it passed.
pub(super) fn checks() -> Result<Vec<(&'static str, bool)>> {
    let root = host::workspace();
    let mut checks = vec![
        ("cargo doc", documents()?),
        ("fuzz targets", fuzz_targets(&root)?),
        ("dependencies", dependencies_fit(&root)?),
    ];
    if host::find_program("go").is_none() {
        println!("lint: skipped gofmt and go vet: there is no Go on this machine");
    } else {
        for module in GO_MODULES {
            checks.push(("gofmt", is_formatted(&root.join(module))?));
            checks
                .push(("go vet", process::status(go(&root.join(module)).args(["vet", "./..."]))?.success()));
        }
    }
    Ok(checks)
}

/// Checks that links in comments lead somewhere, and that no comment is malformed.
fn documents() -> Result<bool> {
    let mut doc = cargo::command(None);
    doc.args(["doc", "--workspace", "--no-deps", "--document-private-items", "--all-features"]);
    Ok(process::status(doc.env("RUSTDOCFLAGS", "-D warnings"))?.success())
}

/// Checks the fuzz targets. They are a separate workspace with their own profile.
fn fuzz_targets(root: &Path) -> Result<bool> {
    let mut check = cargo::plain();
    check.current_dir(root.join("tests/fuzz")).args(["check", "--bins", "--target-dir"]);
    Ok(process::status(check.arg(host::target_dir().join("fuzz-check")))?.success())
}

/// Checks origin and licence of every dependency, also those of the fuzz targets.
fn dependencies_fit(root: &Path) -> Result<bool> {
    let complaints = [licences::complaints(root)?, licences::complaints(&root.join("tests/fuzz"))?].concat();
    complaints.iter().for_each(|complaint| println!("{complaint}"));
    Ok(complaints.is_empty())
}

fn go(module: &Path) -> Command {
    let mut go = Command::new("go");
    // The tests build it the same way: any Go since 1.21 fetches the version that a module asks for.
    go.current_dir(module).env("GOTOOLCHAIN", "auto").env("GOFLAGS", "-mod=mod -buildvcs=false");
    go
}

fn is_formatted(module: &Path) -> Result<bool> {
    let mut gofmt = Command::new("gofmt");
    let listed = process::stdout_of(gofmt.current_dir(module).args(["-l", "."]));
    let listed = listed.context("gofmt does not run, though there is a Go")?;
    print!("{listed}");
    Ok(listed.is_empty())
}
