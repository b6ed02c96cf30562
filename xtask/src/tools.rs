//! Tools out of the registry, installed into `target/tools` at versions of our choice.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::{cargo, host, process};

/// A subcommand of cargo's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tool {
    /// Without `cargo-`.
    verb: &'static str,
    version: &'static str,
}

/// Changes code in small ways, and sees whether the tests notice.
pub(crate) const MUTANTS: Tool = Tool { verb: "mutants", version: "27.1.0" };

impl Tool {
    /// Its program, installed if it is not there.
    pub(crate) fn installed(self) -> Result<PathBuf> {
        let Self { verb, version } = self;
        let root = host::target_dir().join("tools");
        let program = root.join(format!("bin/cargo-{verb}"));
        let about = process::stdout_of(Command::new(&program).args([verb, "--version"]));
        if !about.is_some_and(|about| about.contains(version)) {
            let mut install = cargo::plain();
            install.args(["install", &format!("cargo-{verb}"), "--locked", "--version", version, "--root"]);
            process::run(install.arg(&root))?;
        }
        Ok(program)
    }
}
