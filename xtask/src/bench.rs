//! `cargo xtask bench`: builds the daemon and the benchmark with optimisation, and runs the benchmark.
//!
//! The rivals are Go programs of the module in `tests/interop`; the benchmark builds them with the installed
//! Go.

use std::{ffi::OsString, process::Command};

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::{
    cargo::{self, Profile},
    daemon, host, process,
    setup::Scope,
};

/// Arguments of `cargo xtask bench`.
#[derive(Args, Debug)]
pub(crate) struct Bench {
    /// Which rows to measure
    #[arg(value_enum, default_value_t)]
    which: Which,
    /// Take fewer and shorter samples, to see that everything works
    #[arg(long)]
    quick: bool,
    /// Pairs of samples per row; use more where a difference is small
    #[arg(long, value_name = "COUNT")]
    pairs: Option<OsString>,
    /// Measure only rows whose name contains this
    #[arg(long, value_name = "PART")]
    row: Option<OsString>,
    /// Also write the page and its plot, with this date, to the daemon's documents
    #[arg(long, value_name = "DATE")]
    commit_report: Option<OsString>,
    /// Arguments after `--` go to the benchmark, such as --relayd-arg=--workers=2
    #[arg(last = true)]
    args: Vec<OsString>,
}

/// Groups of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Which {
    /// Finding a peer by its key
    Lookup,
    /// The daemon and derper under the same load
    Derp,
    /// Many streams in one
    Mux,
    /// Thousands of clients that each say little
    Scale,
    /// Receivers that read slowly or not at all
    Slow,
    /// The daemon with two workers and with one
    Workers,
    /// The UDP relay and upstream's peer relay, with few sessions and with very many
    Udp,
    /// The UDP relay with a million sessions while a route flaps and a neighbour is dead
    UdpFlaps,
    /// Regions of three relays: packets that cross a link, clients that come and go, a frozen relay
    Mesh,
    /// Regions of three relays while one of them is cut off, frozen, killed or restarted
    MeshFaults,
    /// All groups except the regions, which take long
    #[default]
    All,
}

/// Builds the programs and compares them; the report is in `target/bench`.
pub(crate) fn bench(bench: &Bench) -> Result<()> {
    let scope = match bench.which {
        Which::Udp | Which::UdpFlaps | Which::Mesh | Which::MeshFaults => Scope::Lab,
        _ => Scope::Ebpf,
    };
    let objects = daemon::objects(scope)?;
    let built = [daemon::RELAYD, cargo::BENCH];
    let [relayd, program] = cargo::build(built, Profile::Release, objects.as_ref())?;
    let mut command = Command::new(program);
    daemon::lab_env(&mut command, &relayd, objects.as_ref());
    if let Some(which) = bench.which.to_possible_value() {
        command.arg(which.get_name());
    }
    command.arg("--relayd").arg(relayd).arg("--out").arg(host::target_dir().join("bench"));
    if bench.quick {
        command.arg("--quick");
    }
    let with_value =
        [("--row", &bench.row), ("--pairs", &bench.pairs), ("--commit-report", &bench.commit_report)];
    for (name, value) in with_value {
        if let Some(value) = value {
            command.arg(name).arg(value);
        }
    }
    process::run(command.args(&bench.args))
}
