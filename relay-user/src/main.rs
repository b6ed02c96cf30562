//! `relayd`: command line in, daemon or answer out.

#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use relay_user::admin::{self, ask, print};
use relay_user::cli::parse::{Parsed, Said, parse};
use relay_user::cli::{Admin, Command, Switch, VERSION};
use relay_user::{app, fastpath, log};

/// Exit status for a command line that is not understood, as Go's flag package has it.
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

/// The arguments behind the program's name.
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
    let text = match command {
        Command::Xdp { state, admin_socket } => return switch(state, admin_socket),
        Command::Inspect { bpf_dir } => return inspect(bpf_dir),
        Command::Status(admin) => {
            get(&admin, "/v1/status", |body| Ok(print::status(&serde_json::from_slice(body)?)))?
        }
        Command::Clients(admin) => {
            get(&admin, "/v1/clients", |body| Ok(print::clients(&serde_json::from_slice::<Vec<_>>(body)?)))?
        }
        Command::Sessions(admin) => {
            get(&admin, "/v1/sessions", |body| Ok(print::sessions(&serde_json::from_slice::<Vec<_>>(body)?)))?
        }
    };
    show(|out| out.write_all(text.as_bytes()))
}

fn get(admin: &Admin, path: &str, print: impl Fn(&[u8]) -> anyhow::Result<String>) -> anyhow::Result<String> {
    let socket = admin.admin_socket.clone().map_or_else(admin::socket::default_path, Ok)?;
    let body = block_on(ask::get(&socket, path))?;
    match admin.json {
        true => Ok(String::from_utf8_lossy(&body).into_owned() + "\n"),
        false => print(&body).context("the daemon's answer is of another version"),
    }
}

fn switch(state: Switch, admin_socket: Option<PathBuf>) -> anyhow::Result<()> {
    let socket = admin_socket.map_or_else(admin::socket::default_path, Ok)?;
    let enabled = state == Switch::On;
    block_on(ask::put(&socket, "/v1/xdp", format!("{{\"enabled\":{enabled}}}")))?;
    Ok(())
}

fn block_on<T>(asked: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(asked)
}

fn inspect(bpf_dir: Option<PathBuf>) -> anyhow::Result<()> {
    let mut text = Vec::new();
    fastpath::inspect::dump(bpf_dir.as_deref().unwrap_or_else(|| fastpath::ROOT.as_ref()), &mut text)?;
    show(|out| out.write_all(&text))
}

/// A reader that has seen enough, such as `head`, is no error.
fn show(write: impl FnOnce(&mut io::StdoutLock<'_>) -> io::Result<()>) -> anyhow::Result<()> {
    match write(&mut io::stdout().lock()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Prints help to standard output, and what is wrong to standard error.
fn tell(said: &Said) -> ExitCode {
    // Nobody may be listening any more.
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
