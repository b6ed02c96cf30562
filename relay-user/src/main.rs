//! `relayd`: reads the command line, then runs the daemon or prints an answer.

#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::bail;
use relay_user::admin::question::{self, CommandOutput};
use relay_user::cli::parse::{Parsed, Said, parse};
use relay_user::cli::{Command, VERSION};
use relay_user::{app, log};

/// Exit status for an invalid command line, as in Go's flag package.
const MISUSED: u8 = 2;

fn main() -> ExitCode {
    let parsed = match arguments().map(parse) {
        Ok(Ok(parsed)) => parsed,
        Ok(Err(said)) => return tell(&said),
        Err(error) => return fail(&error),
    };
    let result = match parsed.cli.command.clone() {
        None => serve(parsed),
        Some(command) => answer(command),
    };
    result.map_or_else(|error| fail(&error), |()| ExitCode::SUCCESS)
}

/// The arguments after the program's name.
fn arguments() -> anyhow::Result<Vec<String>> {
    let text = |arg: std::ffi::OsString| {
        arg.into_string().map_err(|arg| {
            let arg = arg.to_string_lossy().into_owned();
            anyhow::anyhow!("the argument {arg:?} is not UTF-8; name files and hosts in UTF-8")
        })
    };
    std::env::args_os().skip(1).map(text).collect()
}

fn serve(parsed: Parsed) -> anyhow::Result<()> {
    let wanted = match std::env::var(log::filter::VARIABLE) {
        Ok(wanted) => Some(wanted),
        Err(std::env::VarError::NotPresent) => None,
        Err(error) => bail!("{}: {error}; write a level such as debug", log::filter::VARIABLE),
    };
    let _log = log::start(wanted.as_deref())?;
    let flags = if parsed.changed.is_empty() { "none".to_owned() } else { parsed.changed.join(" ") };
    tracing::info!("relayd {VERSION}; flags that are not at their default: {flags}");
    app::run(parsed.cli.serve)
}

fn answer(command: Command) -> anyhow::Result<()> {
    let CommandOutput { text, note } = question::ask(command)?;
    show(|out| out.write_all(text.as_bytes()))?;
    if let Some(note) = note {
        log::say(&note);
    }
    Ok(())
}

/// Writes to standard output. If the reader closes it early, as `head` does, that is not an error.
fn show(write: impl FnOnce(&mut io::StdoutLock<'_>) -> io::Result<()>) -> anyhow::Result<()> {
    match write(&mut io::stdout().lock()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Prints help to standard output, and errors to standard error.
fn tell(said: &Said) -> ExitCode {
    // A failure to write is ignored: the reader may be gone.
    if said.asked {
        let _ = io::stdout().lock().write_all(said.text.as_bytes());
        return ExitCode::SUCCESS;
    }
    let _ = io::stderr().lock().write_all(said.text.as_bytes());
    ExitCode::from(MISUSED)
}

fn fail(error: &anyhow::Error) -> ExitCode {
    log::say(&format!("{error:#}"));
    ExitCode::FAILURE
}
