//! The user's own cargo, called as if the user had typed the command.
//!
//! `cargo run`, which starts this program, sets variables that some build scripts watch. They are removed
//! here, because otherwise `cargo build` and `cargo xtask build` would rebuild each other's work.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::{ebpf::Objects, host, process};

/// Variable with the path of the eBPF object, for `relay-user/build.rs`.
const EMBED: &str = "RELAYD_BPF_OBJECT";

/// The cargo profile of a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// cargo's default, into `target/debug`.
    Dev,
    /// Optimised, into `target/release`.
    Release,
}

impl Profile {
    /// `Release` if the command line has `--release`, else `Dev`.
    pub(crate) fn of(release: bool) -> Self {
        if release { Self::Release } else { Self::Dev }
    }

    /// Where cargo puts the binary called `name`.
    pub(crate) fn binary(self, name: &str) -> PathBuf {
        let dir = match self {
            Self::Dev => "debug",
            Self::Release => "release",
        };
        host::target_dir().join(dir).join(name)
    }
}

/// cargo at the top of the workspace; `objects` are embedded in the daemon when cargo builds it.
pub(crate) fn command(objects: Option<&Objects>) -> Command {
    let mut cargo = plain();
    cargo.current_dir(host::workspace());
    match objects {
        Some(objects) => cargo.env(EMBED, &objects.relayd),
        None => cargo.env_remove(EMBED),
    };
    cargo
}

/// cargo in the current directory.
pub(crate) fn plain() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.env_remove("LD_LIBRARY_PATH");
    let ours = ["CARGO_BIN_", "CARGO_CRATE_", "CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_PRIMARY_"];
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| ours.iter().any(|prefix| name.starts_with(prefix))) {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// Builds the named binaries, given as (package, binary), and returns their paths in the same order.
pub(crate) fn build<const N: usize>(
    binaries: [(&str, &str); N],
    profile: Profile,
    objects: Option<&Objects>,
) -> Result<[PathBuf; N]> {
    let mut cargo = command(objects);
    cargo.arg("build");
    if profile == Profile::Release {
        cargo.arg("--release");
    }
    for program in binaries {
        let (package, binary) = program;
        cargo.args(["--package", package, "--bin", binary]);
        if program == BENCH {
            // The benchmark needs a feature, which the demo should not have to build.
            cargo.args(["--features", "relay-tests/bench"]);
        }
    }
    process::run(&mut cargo)?;
    Ok(binaries.map(|(_, binary)| profile.binary(binary)))
}

/// The benchmark in the workspace: package and binary.
pub(crate) const BENCH: (&str, &str) = ("relay-tests", "bench");

/// A program's path for people to read.
pub(crate) fn show(program: &Path) -> String {
    program.strip_prefix(host::workspace()).unwrap_or(program).display().to_string()
}
