//! Builds every test program, and finds their paths in cargo's messages.
//!
//! Cargo's messages are JSON, one object per line:
//! <https://doc.rust-lang.org/cargo/reference/external-tools.html#artifact-messages>. Only three fields are
//! needed, so no JSON crate is used: every command would wait for it to compile.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result};

use super::Kind;
use crate::{cargo, ebpf::Objects, process};

/// Every package with tests, which is every one but the eBPF programs. The benchmark is built too, so that it
/// keeps compiling.
pub(super) const PACKAGES: [&str; 5] =
    ["--workspace", "--exclude", "relay-ebpf", "--features", "relay-tests/bench"];

/// A built test program.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) kind: Kind,
    /// Package and target, for people to read.
    pub(super) title: String,
    pub(super) executable: PathBuf,
    pub(super) package_dir: PathBuf,
}

/// Builds the daemon, the demo and every test program.
pub(super) fn build(objects: Option<&Objects>) -> Result<Vec<Program>> {
    process::refuse_after_interrupt()?;
    let mut cargo = cargo::command(objects);
    cargo.arg("build").args(PACKAGES).args(["--bins", "--tests"]);
    cargo.arg("--message-format=json-render-diagnostics").stdout(Stdio::piped());
    let mut child = cargo.spawn().context("cannot start cargo")?;
    let stdout = child.stdout.take().context("cargo has no output")?;
    let mut programs = Vec::new();
    for line in BufReader::new(stdout).lines() {
        programs.extend(test_program(&line.context("cannot read cargo's messages")?));
    }
    process::check(&cargo, child.wait().context("cannot wait for cargo")?)?;
    programs.sort_by(|a, b| a.title.cmp(&b.title));
    Ok(programs)
}

fn test_program(message: &str) -> Option<Program> {
    let tested = after(message, "\"profile\":{")?.split('}').next()?.contains("\"test\":true");
    if !tested {
        return None;
    }
    let executable = PathBuf::from(string(message, "\"executable\":\"")?);
    let package_dir = Path::new(string(message, "\"manifest_path\":\"")?).parent()?.to_path_buf();
    let target = string(after(message, "\"target\":{")?, "\"name\":\"")?;
    let package = package_dir.file_name()?.to_str()?;
    let kind = match (package, target) {
        ("tests", "interop") => Kind::Interop,
        ("tests", _) => Kind::Lab,
        _ => Kind::Unit,
    };
    Some(Program { kind, title: format!("{package} {target}"), executable, package_dir })
}

fn after<'a>(text: &'a str, mark: &str) -> Option<&'a str> {
    Some(text.split_once(mark)?.1)
}

fn string<'a>(text: &'a str, mark: &str) -> Option<&'a str> {
    after(text, mark)?.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(package: &str, target: &str, test: bool) -> String {
        format!(
            r#"{{"reason":"compiler-artifact","package_id":"path+file:///w/{package}#0.1.0","manifest_path":"/w/{package}/Cargo.toml","target":{{"kind":["test"],"crate_types":["bin"],"name":"{target}","src_path":"/w/{package}/x.rs","edition":"2024","doc":false,"doctest":false,"test":true}},"profile":{{"opt_level":"1","debuginfo":2,"debug_assertions":true,"overflow_checks":true,"test":{test}}},"features":[],"filenames":["/w/target/debug/deps/{target}-1"],"executable":"/w/target/debug/deps/{target}-1","fresh":true}}"#
        )
    }

    #[test]
    fn a_test_program_is_sorted_by_package_and_name() {
        let interop = test_program(&message("tests", "interop", true)).expect("a test program");
        assert_eq!(interop.kind, Kind::Interop);
        assert_eq!(interop.executable, Path::new("/w/target/debug/deps/interop-1"));
        assert_eq!(interop.package_dir, Path::new("/w/tests"));
        let kind =
            |package, target| test_program(&message(package, target, true)).map(|program| program.kind);
        assert_eq!(kind("tests", "xdp_forwarding"), Some(Kind::Lab));
        assert_eq!(kind("relay-common", "relay_common"), Some(Kind::Unit));
    }

    #[test]
    fn a_program_that_is_not_a_test_is_left_out() {
        assert_eq!(test_program(&message("relay-user", "relayd", false)), None);
        assert_eq!(test_program(r#"{"reason":"build-finished","success":true}"#), None);
    }
}
