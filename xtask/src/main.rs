//! `cargo xtask`: the one entry point for people and for CI.
#![forbid(unsafe_code)]

mod ebpf;
mod host;
mod process;
mod setup;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Developer commands of the relayd workspace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Install what the eBPF build and the lab need and this machine lacks
    Setup,
    /// Build the XDP program, then the daemon with it embedded
    Build,
}

fn main() -> ExitCode {
    let ended = process::outlive_children().and_then(|()| act(Cli::parse().verb));
    let Err(error) = ended else { return ExitCode::SUCCESS };
    eprintln!("xtask: {error:#}");
    match error.downcast_ref::<process::Failed>() {
        Some(failed) => ExitCode::from(failed.exit_code()),
        None if process::interrupted() => ExitCode::from(130),
        None => ExitCode::FAILURE,
    }
}

fn act(verb: Verb) -> Result<()> {
    match verb {
        Verb::Setup => {
            setup::install(setup::Scope::Lab)?;
            setup::report();
            Ok(())
        }
        Verb::Build => {
            let objects = ebpf::build(
                &ebpf::compiler().map_err(anyhow::Error::msg)?,
                &ebpf::linker().map_err(anyhow::Error::msg)?,
            )?;
            println!("{objects:?}");
            Ok(())
        }
    }
}
