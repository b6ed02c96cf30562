//! The relays under load: relayd, and upstream's peer relay behind the same allocation resource.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use tempfile::TempDir;

use super::place::Place;
use crate::admin::Admin;
use crate::bench::Settings;
use crate::flags::Flags;
use crate::interop;
use crate::lab::Netns;
use crate::process::{PATIENCE, Process, inside};

/// The rival's name in rows.
pub(in crate::bench) const UPSTREAM: &str = "upstream's peer relay 1.104.5";
/// The relay's UDP port; every relay has its own host.
pub(in crate::bench) const PORT: u16 = 7777;
/// The DERP port of relayd, without TLS.
pub(in crate::bench) const DERP_PORT: u16 = 3340;

/// A program that relays UDP sessions.
#[derive(Clone, Debug)]
pub(in crate::bench) enum Program {
    /// relayd, with more arguments.
    Relayd(PathBuf, Vec<String>),
    /// Upstream's relay.
    Upstream(PathBuf),
}

/// Ours and its rival: upstream's relay, or the other build of relayd.
pub(in crate::bench) fn programs(settings: &Settings, args: &[String]) -> anyhow::Result<[Program; 2]> {
    let ours = Program::Relayd(settings.relayd.clone(), [&settings.relayd_args, args].concat());
    let theirs = match &settings.against {
        Some(other) => Program::Relayd(other.clone(), [&settings.relayd_args, args].concat()),
        None => Program::Upstream(upstream()?),
    };
    Ok([ours, theirs])
}

/// Builds upstream's relay.
pub(in crate::bench) fn upstream() -> anyhow::Result<PathBuf> {
    match interop::build_udp_relay()? {
        Ok(program) => Ok(program),
        Err(reason) => bail!("no upstream relay to compare with: {reason}"),
    }
}

/// A running relay.
pub(in crate::bench) struct Relay {
    process: Process,
    /// The socket that allocates sessions.
    pub(in crate::bench) admin: Admin,
    // Dropped after the process that uses its files.
    _dir: TempDir,
}

impl Relay {
    /// Starts a relay at a place.
    pub(super) fn at(place: &Place, program: &Program) -> anyhow::Result<Relay> {
        let [a, b] = place.relay_ips;
        let all: &[IpAddr] = if a == b { &[a] } else { &[a, b] };
        Relay::start(&place.relay, program, all, &[])
    }

    /// Starts a relay in a namespace with these addresses, and returns once it allocates sessions.
    pub(in crate::bench) fn start(
        netns: &Netns,
        program: &Program,
        addresses: &[IpAddr],
        args: &[String],
    ) -> anyhow::Result<Relay> {
        let dir = tempfile::Builder::new().prefix("bench-").tempdir()?;
        let socket = dir.path().join("admin.sock");
        let endpoints: Vec<String> =
            addresses.iter().map(|ip| SocketAddr::new(*ip, PORT).to_string()).collect();
        let endpoints = endpoints.join(",");
        let command = match program {
            Program::Relayd(path, own) => {
                let addr = addresses.first().context("a relay without an address")?;
                let addr = SocketAddr::new(*addr, DERP_PORT).to_string();
                let mut command = inside(netns.name(), path);
                command.args(Flags::plain(addr, dir.path()).words());
                command.arg("--admin-socket").arg(&socket);
                command.args(["--relay-server-port", &PORT.to_string()]);
                command.args(["--relay-server-static-endpoints", &endpoints]).args(own).args(args);
                command.env("RELAYD_LOG", "warn");
                command
            }
            Program::Upstream(path) => upstream_command(netns, path, &socket, &endpoints),
        };
        let mut process = Process::start(command, &dir.path().join("log"))?;
        process.wait("the relay to listen", PATIENCE, |_| Ok(socket.exists().then_some(())))?;
        Ok(Relay { process, admin: Admin::new(socket), _dir: dir })
    }

    /// The process.
    pub(in crate::bench) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The end of its log.
    pub(in crate::bench) fn log_tail(&self) -> String {
        self.process.log_tail()
    }

    /// Ends the relay, and kills it if it does not end.
    pub(in crate::bench) fn end(&mut self) {
        if self.process.stop().is_err() {
            // It has ended by itself, then.
            let _ = self.process.kill();
        }
    }

    /// An hour as the lifetime of idle sessions, where the program can: loading very many takes minutes.
    pub(in crate::bench) fn long_lived(program: &Program) -> anyhow::Result<Vec<String>> {
        let Program::Relayd(path, _) = program else { return Ok(Vec::new()) };
        let help = Command::new(path).arg("-help").output().context("asking relayd for its flags")?;
        let help = [help.stdout, help.stderr].concat();
        let can = String::from_utf8_lossy(&help).contains("--relay-steady-lifetime");
        Ok(if can { vec!["--relay-steady-lifetime=1h".to_owned()] } else { Vec::new() })
    }
}

fn upstream_command(netns: &Netns, path: &Path, socket: &Path, endpoints: &str) -> Command {
    let mut command = inside(netns.name(), path);
    command.arg("-admin-socket").arg(socket).args(["-endpoints", endpoints]);
    command
}
