//! `cargo xtask test`: builds every test program of the workspace once, in one profile, and runs them.
//!
//! One cargo call builds the programs, and this command starts them, not `cargo test`. The reasons: a lab
//! test is built as the user but runs as root, and one call gives one set of dependency features. A test that
//! cannot run here appends `SKIPPED: <test name>: <reason>` to the file named by `RELAYD_SKIP_FILE` and
//! returns; it then counts as skipped and not as passed.

mod namespaces;
mod program;
mod stream;
mod tally;

use std::{
    env,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use self::{namespaces::Sweep, program::Program, tally::Tally};
use crate::{
    cargo::{self, Profile},
    daemon,
    ebpf::Objects,
    host, process,
    setup::Scope,
};

/// Maximum time of a test program; one that takes longer is ended and counts as failed.
const DEADLINE: Duration = Duration::from_secs(20 * 60);

/// Which tests to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Which {
    /// Unit, property and documentation tests of every crate
    Unit,
    /// The daemon and its XDP program in network namespaces (as root)
    Lab,
    /// The daemon against stock Go clients
    Interop,
    /// Everything
    #[default]
    All,
}

impl Which {
    fn kinds(self) -> &'static [Kind] {
        match self {
            Self::Unit => &[Kind::Unit],
            Self::Lab => &[Kind::Lab],
            Self::Interop => &[Kind::Interop],
            Self::All => &[Kind::Unit, Kind::Lab, Kind::Interop],
        }
    }
}

/// A row of the closing table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Unit,
    Lab,
    Interop,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Lab => "lab",
            Self::Interop => "interop",
        }
    }
}

/// Runs the tests of the chosen kinds and prints the tally; fails if a test failed or none ran.
pub(crate) fn test(which: Which, args: &[OsString]) -> Result<()> {
    let scope = if which.kinds().contains(&Kind::Lab) { Scope::Lab } else { Scope::Ebpf };
    let objects = daemon::objects(scope)?;
    let programs = program::build(objects.as_ref())?;
    let run = Run { objects: objects.as_ref(), args };
    let mut tallies = Vec::new();
    for &kind in which.kinds() {
        tallies.push((kind.name(), run.kind(kind, &programs)?));
    }
    let total = tally::print(&tallies);
    if total.failed > 0 {
        bail!("tests failed");
    }
    if total.passed + total.skipped.len() == 0 {
        bail!("no test ran");
    }
    Ok(())
}

struct Run<'a> {
    objects: Option<&'a Objects>,
    args: &'a [OsString],
}

impl Run<'_> {
    fn kind(&self, kind: Kind, programs: &[Program]) -> Result<Tally> {
        let skips = skip_file(kind)?;
        let mut tally = Tally::default();
        for program in programs.iter().filter(|program| program.kind == kind) {
            println!("\n{}: {}", kind.name(), program.title);
            let _sweep = (kind == Kind::Lab).then(Sweep::new);
            let command = self.command(program, &skips);
            stream::into_tally(command, &program.title, DEADLINE, &mut tally, &mut io::stdout())?;
        }
        if kind == Kind::Unit {
            println!("\nunit: examples in the documentation");
            stream::into_tally(self.doc_tests(), "documentation", DEADLINE, &mut tally, &mut io::stdout())?;
        }
        tally.count_skips(&fs::read_to_string(&skips).context("cannot read the list of skipped tests")?);
        Ok(tally)
    }

    fn command(&self, program: &Program, skips: &Path) -> Command {
        let mut command = Command::new(&program.executable);
        command.current_dir(&program.package_dir).env("CARGO_MANIFEST_DIR", &program.package_dir);
        command.env("RELAYD_SKIP_FILE", skips).args(self.args);
        daemon::lab_env(&mut command, &Profile::Dev.binary("relayd"), self.objects);
        if program.kind != Kind::Lab {
            return command;
        }
        // One lab test runs at a time, because two on a small machine delay each other past their deadlines.
        let told = self.args.iter().any(|arg| arg.to_string_lossy().starts_with("--test-threads"));
        if !told && env::var_os("RUST_TEST_THREADS").is_none() {
            command.arg("--test-threads=1");
        }
        if host::is_root() {
            return command;
        }
        for name in ["PATH", "RUST_BACKTRACE", "RUST_TEST_THREADS"] {
            if let Some(value) = env::var_os(name) {
                command.env(name, value);
            }
        }
        let plain = program.kind.name();
        match process::as_root(&command) {
            Some(command) => command,
            None => {
                println!(
                    "{plain}: neither root nor sudo here, so tests that need root list themselves as skipped"
                );
                command
            }
        }
    }

    fn doc_tests(&self) -> Command {
        let mut cargo = cargo::command(self.objects);
        cargo
            .args(["test", "--quiet", "--doc", "--no-fail-fast"])
            .args(program::PACKAGES)
            .arg("--")
            .args(self.args);
        cargo
    }
}

/// An empty file for the skipped tests of one kind.
fn skip_file(kind: Kind) -> Result<PathBuf> {
    let dir = host::target_dir().join("xtask");
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let file = dir.join(format!("skipped-{}", kind.name()));
    fs::write(&file, "").with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}
