//! Tools from the registry, installed into `target/tools` in fixed versions.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::{cargo, host, process};

/// A cargo subcommand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tool {
    /// The name without `cargo-`.
    verb: &'static str,
    version: &'static str,
}

/// Makes small changes in the code and checks whether the tests notice them.
pub(crate) const MUTANTS: Tool = Tool { verb: "mutants", version: "27.1.0" };

impl Tool {
    /// The path of the program; installs it if it is missing.
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
