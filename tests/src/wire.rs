//! Two network namespaces with a veth pair between them: the relay's side and a client's.

use std::net::IpAddr;

use anyhow::{Result, ensure};

use crate::lab::{End, Netns, veth};

/// The relay's interface.
pub const RELAY: &str = "relay0";
/// The client's interface.
pub const CLIENT: &str = "client0";
/// The relay's address, in a /24.
pub const RELAY_IP: &str = "10.77.0.1";
/// The client's address, in the same /24.
pub const CLIENT_IP: &str = "10.77.0.2";

const RELAY_MAC: [u8; 6] = [0x02, 0, 0, 0x77, 0, 1];
const CLIENT_MAC: [u8; 6] = [0x02, 0, 0, 0x77, 0, 2];

/// The two namespaces.
pub struct Wire {
    relay: Netns,
    client: Netns,
}

impl Wire {
    /// Makes the pair with addresses on both ends, up; `Err` has the reason if the machine does not allow it.
    pub fn new() -> Result<Self, String> {
        Self::made().map_err(|error| format!("{error:#}"))
    }

    fn made() -> Result<Self> {
        ensure!(nix::unistd::geteuid().is_root(), "needs root");
        let wire = Self { relay: Netns::dual_stack("relay")?, client: Netns::dual_stack("client")? };
        wire.connect()?;
        Ok(wire)
    }

    /// Makes the pair, again if it was deleted.
    pub fn connect(&self) -> Result<()> {
        let relay = End { netns: &self.relay, name: RELAY, mac: RELAY_MAC };
        let client = End { netns: &self.client, name: CLIENT, mac: CLIENT_MAC };
        veth(relay, client)?;
        for (end, address) in [(relay, RELAY_IP), (client, CLIENT_IP)] {
            end.netns.ip(&["address", "add", &format!("{address}/24"), "dev", end.name])?;
        }
        Ok(())
    }

    /// Runs a command in the namespace of a side.
    pub fn command(&self, side: char, program: &str, args: &[&str]) -> Result<()> {
        self.side(side).command(program, args)
    }

    /// Runs a command in the namespace of a side and returns its output.
    pub fn command_output(&self, side: char, program: &str, args: &[&str]) -> Result<String> {
        self.side(side).output(program, args)
    }

    /// Runs `ip` in the namespace of the relay (`'r'`) or the client (`'c'`) and returns its output.
    pub fn ip(&self, side: char, args: &[&str]) -> Result<String> {
        let netns = self.side(side);
        netns.output("ip", &[&["-n", netns.name()], args].concat())
    }

    /// The link-layer address of the interface on a side.
    pub fn mac(&self, side: char) -> [u8; 6] {
        if side == 'r' { RELAY_MAC } else { CLIENT_MAC }
    }

    /// Runs `what` on a thread in the namespace of a side.
    ///
    /// # Panics
    ///
    /// If the namespace cannot be entered, or if `what` panics.
    pub fn on<T: Send>(&self, side: char, what: impl FnOnce() -> T + Send) -> T {
        self.side(side).enter(what).expect("root may enter it")
    }

    fn side(&self, side: char) -> &Netns {
        if side == 'r' { &self.relay } else { &self.client }
    }
}

/// Parses an address written in a test.
///
/// # Panics
///
/// If `text` is not an address.
pub fn addr(text: &str) -> IpAddr {
    text.parse().expect("an address")
}
