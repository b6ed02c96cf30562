//! `cargo xtask`: the one entry point for developers and for CI.
#![forbid(unsafe_code)]

mod bench;
mod cargo;
mod daemon;
mod ebpf;
mod fuzz;
mod host;
mod lint;
mod mutants;
mod process;
mod setup;
mod test;
mod tools;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Developer commands of the relayd workspace.
///
/// Everything is built as the user who types the command; sudo is used only for the step that needs root.
/// Missing parts of the eBPF build are installed if possible; otherwise everything still builds, without the
/// fast path.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Install the missing parts that the eBPF build and the lab need
    ///
    /// Prints what it installs and why, and does nothing if nothing is missing. On a machine without apt it
    /// lists what to install by hand and fails.
    Setup,
    /// Build the XDP program, then the daemon with it embedded, into target/debug/relayd or
    /// target/release/relayd
    Build {
        /// Optimise
        #[arg(long)]
        release: bool,
    },
    /// Build, then run the daemon as root: cargo xtask run -- --xdp eth0 ...
    Run {
        /// Optimise
        #[arg(long)]
        release: bool,
        /// Arguments after `--` go to the daemon
        #[arg(last = true)]
        args: Vec<OsString>,
    },
    /// Send real traffic over every path in a private lab and check that all counters agree
    ///
    /// The lab consists of network namespaces and veth pairs, which are removed afterwards. Needs root or
    /// sudo.
    Demo {
        /// Leave the lab running and print how to look around
        #[arg(long)]
        keep: bool,
    },
    /// Run the tests; the last line is `N passed, N failed, N skipped`
    Test {
        /// Which tests to run
        #[arg(value_enum, default_value_t)]
        which: test::Which,
        /// Arguments after `--` go to the test programs: a part of a test's name, --nocapture, ...
        #[arg(last = true)]
        args: Vec<OsString>,
    },
    /// Compare the daemon and its parts with alternatives; the report goes to target/bench
    ///
    /// The rivals are Go programs, which are built here with any Go since 1.21. The figures are meaningful
    /// only on a machine that does nothing else.
    Bench(bench::Bench),
    /// Print the daemon's pinned BPF maps by field name, whether the daemon runs or not
    Inspect {
        /// Where the maps are pinned, if not in the daemon's default directory
        #[arg(long, value_name = "DIR")]
        bpf_dir: Option<PathBuf>,
    },
    /// Fuzz every parser and the TLS record layer with libFuzzer; not part of the tests
    Fuzz(fuzz::Fuzz),
    /// Change the critical code, and list the changes that no unit test notices
    ///
    /// It uses cargo-mutants, and installs it into target/tools if it is missing.
    Mutants(mutants::Mutants),
    /// Check formatting, clippy and rustdoc, the house rules, dependencies, fuzz targets and Go modules
    Lint,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let ended = process::outlive_children().and_then(|()| act(cli.verb));
    let Err(error) = ended else { return ExitCode::SUCCESS };
    eprintln!("xtask: {error:#}");
    match error.downcast_ref::<process::Failed>() {
        _ if process::interrupted() => ExitCode::from(130),
        Some(failed) => ExitCode::from(failed.exit_code()),
        None => ExitCode::FAILURE,
    }
}

fn act(verb: Verb) -> Result<()> {
    match verb {
        Verb::Setup => {
            let done = setup::install(setup::Scope::Lab);
            setup::report();
            done
        }
        Verb::Build { release } => daemon::build(release),
        Verb::Run { release, args } => daemon::run(release, &args),
        Verb::Demo { keep } => daemon::demo(keep),
        Verb::Test { which, args } => test::test(which, &args),
        Verb::Bench(bench) => bench::bench(&bench),
        Verb::Inspect { bpf_dir } => daemon::inspect(bpf_dir),
        Verb::Fuzz(fuzz) => fuzz::fuzz(&fuzz),
        Verb::Mutants(mutants) => mutants::mutants(&mutants),
        Verb::Lint => lint::lint(),
    }
}
