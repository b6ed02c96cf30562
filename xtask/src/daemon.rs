//! Building and running the daemon: `build`, `run`, `inspect`, `demo`.
//!
//! Everything is built as the user who typed the command; only the program that needs root runs as root.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    cargo::{self, Profile},
    ebpf::{self, Objects},
    process,
    setup::{self, Scope},
};

/// The daemon in the workspace: package and binary.
pub(crate) const RELAYD: (&str, &str) = ("relay-user", "relayd");

/// Builds the eBPF objects and the daemon that embeds them; prints where the daemon is.
pub(crate) fn build(release: bool) -> Result<()> {
    let objects = objects(Scope::Ebpf)?;
    let [relayd] = cargo::build([RELAYD], Profile::of(release), objects.as_ref())?;
    let fast_path = if objects.is_some() { "with" } else { "without" };
    println!("built {} {fast_path} the XDP fast path", cargo::show(&relayd));
    Ok(())
}

/// Builds the daemon and runs it with `args`, as root if possible.
pub(crate) fn run(release: bool, args: &[OsString]) -> Result<()> {
    let objects = objects(Scope::Ebpf)?;
    let [relayd] = cargo::build([RELAYD], Profile::of(release), objects.as_ref())?;
    run_as_root_if_possible(&relayd, args, "attaching XDP programs will fail")
}

/// Prints the pinned maps by field name, whether the daemon runs or not.
pub(crate) fn inspect(bpf_dir: Option<PathBuf>) -> Result<()> {
    let objects = objects(Scope::Ebpf)?;
    let [relayd] = cargo::build([RELAYD], Profile::Dev, objects.as_ref())?;
    let mut args = vec![OsString::from("inspect")];
    if let Some(dir) = bpf_dir {
        args.extend(["--bpf-dir".into(), dir.into()]);
    }
    run_as_root_if_possible(&relayd, &args, "the kernel will not show the maps")
}

/// Builds everything and runs the demo in a lab of network namespaces.
pub(crate) fn demo(keep: bool) -> Result<()> {
    const NEEDS_ROOT: &str = "the demo makes network namespaces, which takes root or sudo";
    process::as_root(&Command::new("true")).context(NEEDS_ROOT)?;
    let objects = objects(Scope::Lab)?;
    let profile = Profile::Release;
    let [relayd, demo] = cargo::build([RELAYD, ("relay-tests", "demo")], profile, objects.as_ref())?;
    let mut command = Command::new(demo);
    lab_env(&mut command, &relayd, objects.as_ref());
    if keep {
        command.arg("--keep");
    }
    process::run(&mut process::as_root(&command).context(NEEDS_ROOT)?)
}

/// Tells the demo and the tests where their programs are.
pub(crate) fn lab_env(command: &mut Command, relayd: &Path, objects: Option<&Objects>) {
    command.env("RELAYD_BIN", relayd);
    match objects {
        Some(objects) => {
            command.env("RELAYD_LAB_OBJECT", &objects.lab).env("RELAYD_XDP_OBJECT", &objects.relayd)
        }
        None => command.env_remove("RELAYD_LAB_OBJECT").env_remove("RELAYD_XDP_OBJECT"),
    };
}

/// The eBPF objects. It first installs what `scope` lacks, if possible; if not, it returns `None` and prints
/// one line with the reason.
///
/// # Errors
/// The toolchain is there and the program does not compile.
pub(crate) fn objects(scope: Scope) -> Result<Option<Objects>> {
    if setup::host_can_install()
        && let Err(error) = setup::install(scope)
    {
        process::refuse_after_interrupt()?;
        eprintln!("xtask: setup failed: {error:#}");
    }
    if scope == Scope::Lab {
        for program in setup::missing_lab_programs() {
            println!("the lab lacks {program}; `cargo xtask setup` installs it");
        }
    }
    match ebpf::compiler().and_then(|compiler| Ok((compiler, ebpf::linker()?))) {
        Ok((compiler, linker)) => ebpf::build(&compiler, &linker).map(Some),
        Err(reason) => {
            println!("building without the fast path: {reason}; `cargo xtask setup` installs it");
            Ok(None)
        }
    }
}

fn run_as_root_if_possible(program: &Path, args: &[OsString], otherwise: &str) -> Result<()> {
    let mut command = Command::new(program);
    command.args(args);
    match process::as_root(&command) {
        Some(mut as_root) => process::run(&mut as_root),
        None => {
            println!("running as a plain user ({otherwise}): neither root nor sudo here");
            process::run(&mut command)
        }
    }
}
