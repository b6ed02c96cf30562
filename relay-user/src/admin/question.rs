//! `relayd status` and the other questions, from the command line to the printed text.

use std::path::PathBuf;

use anyhow::{Context, bail};
use hyper::Method;
use serde::de::DeserializeOwned;

use super::ask::{AdminAnswer, request};
use super::filter::Filter;
use super::list::{ClientTotals, SessionTotals};
use super::mesh::MeshView;
use super::view::{ClientView, SessionView, Status, Xdp};
use super::why::WhyView;
use super::{list, print, socket, why};
use crate::cli::{Admin, Command, Switch};
use crate::fastpath::{ROOT, inspect};

/// Clients that fit on a screen; each takes one line.
const CLIENTS: usize = 20;

/// Sessions that fit on a screen; each takes two lines.
const SESSIONS: usize = 10;

/// The output of a question.
#[derive(Clone, Debug, Default)]
pub struct CommandOutput {
    /// For standard output.
    pub text: String,
    /// Text for standard error, if `text` is for programs.
    pub note: Option<String>,
}

/// Executes a question of the command line.
///
/// # Errors
/// No daemon could be asked, or the daemon or the kernel refused. The message names the remedy.
pub fn ask(command: Command) -> anyhow::Result<CommandOutput> {
    let text = match command {
        Command::Status { all, admin } => {
            let answer = get(&admin, "/v1/status")?;
            if admin.json { raw(&answer) } else { print::status(&parse::<Status>(&answer.body)?, all) }
        }
        Command::Clients { filter, limit, admin } => {
            let path = |limit| list::path("/v1/clients", filter.as_deref(), limit);
            return listed(&admin, path, limit, CLIENTS, |list: &[ClientView], totals: &ClientTotals| {
                (print::clients(list, totals), totals.clients)
            });
        }
        Command::Sessions { filter, limit, admin } => {
            let path = |limit| list::path("/v1/sessions", filter.as_deref(), limit);
            return listed(&admin, path, limit, SESSIONS, |list: &[SessionView], totals: &SessionTotals| {
                (print::sessions(list, totals), totals.sessions)
            });
        }
        Command::Mesh { admin } => {
            let answer = get(&admin, "/v1/mesh")?;
            if admin.json { raw(&answer) } else { print::mesh(&parse::<MeshView>(&answer.body)?) }
        }
        Command::Why { key, admin } => {
            let answer = get(&admin, &why::path(&key))?;
            if admin.json { raw(&answer) } else { print::why(&parse::<WhyView>(&answer.body)?) }
        }
        Command::Xdp { state, admin_socket } => switch(state, admin_socket)?,
        Command::Inspect { filter, limit, verbose, bpf_dir } => {
            let options = inspect::InspectOptions { only: only(filter.as_deref())?, limit, verbose };
            let mut text = Vec::new();
            let dir = bpf_dir.unwrap_or_else(|| ROOT.into());
            inspect::dump(&dir, &options, &mut text)?;
            String::from_utf8_lossy(&text).into_owned()
        }
    };
    Ok(CommandOutput { text, note: None })
}

fn listed<T: DeserializeOwned, S: DeserializeOwned>(
    admin: &Admin,
    path: impl Fn(usize) -> String,
    limit: Option<usize>,
    screen: usize,
    print: impl Fn(&[T], &S) -> (String, usize),
) -> anyhow::Result<CommandOutput> {
    let limit = limit.unwrap_or(if admin.json { 0 } else { screen });
    let answer = get(admin, &path(limit))?;
    let list: Vec<T> = parse(&answer.body)?;
    let totals: S = parse(answer.totals.as_deref().unwrap_or_default().as_bytes())?;
    let (text, matched) = print(&list, &totals);
    if !admin.json {
        return Ok(CommandOutput { text, note: None });
    }
    let note = print::left_out(list.len(), matched);
    Ok(CommandOutput { text: raw(&answer), note })
}

fn switch(state: Switch, admin_socket: Option<PathBuf>) -> anyhow::Result<String> {
    let socket = admin_socket.map_or_else(socket::default_path, Ok)?;
    let enabled = state == Switch::On;
    let answer = request(&socket, Method::PUT, "/v1/xdp", Some(format!("{{\"enabled\":{enabled}}}")))?;
    Ok(print::switched(&parse::<Xdp>(&answer.body)?))
}

/// Selects sessions in the maps; the maps hold no keys.
fn only(filter: Option<&str>) -> anyhow::Result<inspect::Only> {
    let text = filter.unwrap_or_default();
    match Filter::of_sessions(text)? {
        Filter::All => Ok(inspect::Only::All),
        Filter::Vni(vni) => Ok(inspect::Only::Vni(vni)),
        Filter::Addr(ip, port) => Ok(inspect::Only::Addr(ip, port)),
        _ => bail!("{text:?} is a key, and the maps hold none; name a VNI or an address, or ask sessions"),
    }
}

fn get(admin: &Admin, path: &str) -> anyhow::Result<AdminAnswer> {
    let socket = admin.admin_socket.clone().map_or_else(socket::default_path, Ok)?;
    request(&socket, Method::GET, path, None)
}

fn raw(answer: &AdminAnswer) -> String {
    String::from_utf8_lossy(&answer.body).into_owned() + "\n"
}

fn parse<T: DeserializeOwned>(json: &[u8]) -> anyhow::Result<T> {
    let remedy = "the daemon's answer is of another version; ask with the relayd it was started from";
    serde_json::from_slice(json).context(remedy)
}
