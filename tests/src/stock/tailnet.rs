//! A tailnet whose only DERP region is the relay: a control server and stock nodes without a TUN device.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::place::Host;
use super::programs::{CONTROL, TAILSCALED};
use super::relay::{REGION, Relay};
use crate::process::{Process, inside, stdout};

/// TCP port of the control server, on the relay's host.
const CONTROL_PORT: u16 = 3000;
/// Maximum time until a program answers.
const START: Duration = Duration::from_secs(20);

/// A control server.
#[derive(Debug)]
pub struct Tailnet<'p> {
    relay: &'p Relay<'p>,
    tailscaled: PathBuf,
    _control: Process,
}

/// A node that is logged in.
#[derive(Debug)]
pub struct Node<'p> {
    relay: &'p Relay<'p>,
    host: Host,
    tailscaled: PathBuf,
    socket: PathBuf,
    _process: Process,
}

impl<'p> Tailnet<'p> {
    /// Starts the control server. The inner error says why it cannot be built here.
    ///
    /// # Errors
    /// The control server does not build or start.
    pub fn start(relay: &'p Relay<'p>) -> Result<Result<Self, String>> {
        let (control, tailscaled) = match (CONTROL.built()?, TAILSCALED.built()?) {
            (Ok(control), Ok(tailscaled)) => (control, tailscaled),
            (Err(reason), _) | (_, Err(reason)) => return Ok(Err(reason)),
        };
        let place = relay.place();
        let map = place.dir().join("map.json");
        fs::write(&map, relay.derp_map(&Host::Dual.relay(), 1).to_string())?;
        let mut command = inside(place.relay().name(), &control);
        command.args(["-listen", &format!(":{CONTROL_PORT}"), "-url", &url(Host::Dual)]);
        command.arg("-derp-map").arg(map);
        let mut control = Process::start(command, &place.dir().join("control.log"))?;
        let address = SocketAddr::from(([127, 0, 0, 1], CONTROL_PORT));
        control.wait("the control server to listen", START, |_| {
            Ok(place.relay().enter(|| TcpStream::connect(address).is_ok())?.then_some(()))
        })?;
        Ok(Ok(Self { relay, tailscaled, _control: control }))
    }

    /// Starts a node on `host` and logs it in.
    ///
    /// # Errors
    /// The node does not start.
    pub fn node(&self, host: Host) -> Result<Node<'p>> {
        let place = self.relay.place();
        let name = format!("{host:?}").to_lowercase();
        let home = place.dir().join(&name);
        fs::create_dir(&home)?;
        let socket = home.join("sock");
        let mut command = inside(place.host(host).name(), &self.tailscaled);
        command.args(["--tun=userspace-networking", "--port=0", "--no-logs-no-support", "--state=mem:"]);
        command.arg("--statedir").arg(&home).arg("--socket").arg(&socket);
        command.env("HOME", &home);
        let mut process = Process::start(command, &home.join("log"))?;
        process.wait("tailscaled's socket", START, |_| Ok(socket.exists().then_some(())))?;
        let node =
            Node { relay: self.relay, host, tailscaled: self.tailscaled.clone(), socket, _process: process };
        let server = format!("--login-server={}", url(host));
        let hostname = format!("--hostname={name}");
        node.tailscale(&["up", &server, &hostname, "--accept-dns=false", "--timeout=30s"])?;
        Ok(node)
    }
}

/// The control server's URL for a node on `host`.
fn url(host: Host) -> String {
    let address = host.relay().remove(0);
    format!("http://{}", SocketAddr::new(address, CONTROL_PORT))
}

impl Node<'_> {
    /// Runs `tailscale` with `args` on the node's host; returns its standard output.
    ///
    /// # Errors
    /// The command failed, or did not end.
    pub fn tailscale(&self, args: &[&str]) -> Result<String> {
        self.tailscale_on(self.host, args)
    }

    /// Runs `tailscale netcheck` on `host` with this node's DERP map; returns a report for people and one for
    /// programs.
    ///
    /// # Errors
    /// The command cannot be run.
    pub fn netcheck(&self, host: Host) -> Result<(String, Value)> {
        let text = self.tailscale_on(host, &["netcheck"])?;
        let report = self.tailscale_on(host, &["netcheck", "--format=json-line"])?;
        Ok((text, serde_json::from_str(&report).with_context(|| report)?))
    }

    /// Runs `tailscale debug derp` for the only region.
    ///
    /// # Errors
    /// The command cannot be run.
    pub fn debug_derp(&self) -> Result<Value> {
        let report = self.tailscale(&["debug", "derp", &REGION.to_string()])?;
        serde_json::from_str(&report).with_context(|| report)
    }

    /// Runs `tailscale ping` to another node, with additional arguments.
    ///
    /// # Errors
    /// No answer arrived.
    pub fn ping(&self, peer: &Node<'_>, args: &[&str]) -> Result<String> {
        let address = peer.tailscale(&["ip", "-4"])?;
        self.tailscale(&[&["ping"], args, &[address.trim()]].concat())
    }

    fn tailscale_on(&self, host: Host, args: &[&str]) -> Result<String> {
        stdout(&self.command(host, args)).with_context(|| format!("tailscale {}", args.join(" ")))
    }

    fn command(&self, host: Host, args: &[&str]) -> Command {
        let mut command = inside(self.relay.place().host(host).name(), Path::new(&self.tailscaled));
        command.arg("--socket").arg(&self.socket).args(args);
        // One program is both node and command line; this variable selects the command line.
        command.env("TS_BE_CLI", "1");
        command
    }
}
