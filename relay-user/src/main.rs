//! `relayd`: command line in, daemon or answer out.

#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use relay_user::admin::{self, ask, print};
use relay_user::cli::{Admin, Cli, Command, Switch, derper};
use relay_user::{app, fastpath};
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

fn log() {
    let filter = EnvFilter::try_from_env("RELAYD_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_target(false).init();
}

fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("relayd: {error:#}");
    ExitCode::FAILURE
}
