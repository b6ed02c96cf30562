//! `relayd`: command line in, daemon or answer out.

#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use relay_user::admin::question::{self, Answer};
use relay_user::app;
use relay_user::cli::{Cli, Command, derper};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let args = match derper::normalize(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(error) => return fail(&error.into()),
    };
    let cli = Cli::parse_from(std::iter::once("relayd".to_owned()).chain(args));
    let result = match cli.command {
        None => {
            log();
            app::run(cli.serve)
        }
        Some(command) => answer(command),
    };
    result.map_or_else(|error| fail(&error), |()| ExitCode::SUCCESS)
}

fn answer(command: Command) -> anyhow::Result<()> {
    let Answer { text, note } = question::ask(command)?;
    show(|out| out.write_all(text.as_bytes()))?;
    if let Some(note) = note {
        eprintln!("relayd: {note}");
    }
    Ok(())
}

/// A reader that has seen enough, such as `head`, is no error.
fn show(write: impl FnOnce(&mut io::StdoutLock<'_>) -> io::Result<()>) -> anyhow::Result<()> {
    match write(&mut io::stdout().lock()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

fn log() {
    let filter = EnvFilter::try_from_env("RELAYD_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_target(false).init();
}

fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("relayd: {error:#}");
    ExitCode::FAILURE
}
