//! The region's network: each relay has one path to the clients and another one to the other relays, so that
//! a cut between relays leaves their clients connected.
//!
//! ```text
//!   clients 10.78.0.9 ─┬─ 10.78.0.1 relay 1 10.79.0.1 ─┬
//!                      ├─ 10.78.0.2 relay 2 10.79.0.2 ─┤
//!                      └─ 10.78.0.3 relay 3 10.79.0.3 ─┘
//!                bridge "clients"                bridge "mesh", both of the switch
//! ```
//! Or all are on one host, and talk over its loopback: there a packet costs a relay what it costs in the
//! other benchmarks, and not also a way through two bridges.

use std::fs;
use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};

use crate::lab::{End, Netns, veth};
use crate::topology::no_bridge_filter;

/// Relays of a region.
pub const SIZE: usize = 3;
/// The clients' number on their bridge.
const CLIENTS: u8 = 9;
/// Minimum, default and maximum bytes of a client's socket for sending.
const CLIENT_WMEM: &str = "4096 4194304 4194304";

/// The two bridges of the switch.
#[derive(Clone, Copy, Debug)]
enum Side {
    Clients,
    Mesh,
}

/// The hosts.
#[derive(Debug)]
pub(super) struct Net {
    /// `None`: everything is on the clients' host.
    parted: Option<Parted>,
    clients: Netns,
}

/// The hosts of the relays, and the switch between all.
#[derive(Debug)]
struct Parted {
    relays: [Netns; SIZE],
    switch: Netns,
}

impl Net {
    pub(super) fn new() -> Result<Self> {
        let switch = Netns::new("switch")?;
        switch.enter(no_bridge_filter)??;
        for side in [Side::Clients, Side::Mesh] {
            switch.ip(&["link", "add", side.bridge(), "type", "bridge"])?;
            switch.ip(&["link", "set", side.bridge(), "up"])?;
        }
        // The field's buffers: with loopback's, a link that is cut would swallow a minute of packets.
        let relays = [Netns::narrow("one")?, Netns::narrow("two")?, Netns::narrow("three")?];
        let clients = Netns::new("clients")?;
        // A client sends and receives on one thread: it must hear the others while its relay takes nothing.
        clients.enter(|| fs::write("/proc/sys/net/ipv4/tcp_wmem", CLIENT_WMEM))??;
        for (number, relay) in (1..).zip(&relays) {
            connect(relay, number, Side::Clients, &switch)?;
            connect(relay, number, Side::Mesh, &switch)?;
        }
        connect(&clients, CLIENTS, Side::Clients, &switch)?;
        Ok(Self { parted: Some(Parted { relays, switch }), clients })
    }

    /// One host for all relays and clients.
    pub(super) fn one_host() -> Result<Self> {
        Ok(Self { parted: None, clients: Netns::new("region")? })
    }

    /// The host of a relay.
    pub(super) fn relay(&self, index: usize) -> &Netns {
        self.parted.as_ref().map_or(&self.clients, |parted| &parted.relays[index])
    }

    /// The host of all clients.
    pub(super) fn clients(&self) -> &Netns {
        &self.clients
    }

    /// Cuts a relay off from the other relays, or restores its path. The switch drops its frames, and no host
    /// sees its own link go down: that is how a path between two sites breaks.
    pub(super) fn pass_mesh(&self, index: usize, pass: bool) -> Result<()> {
        // States of a bridge's port: 0 is disabled, 3 is forwarding.
        let state = if pass { "3" } else { "0" };
        let port = Side::Mesh.port(number(index));
        // `ip link` takes a state too, but has no effect on it.
        let parted = self.parted.as_ref().context("relays on one host have no path to cut")?;
        parted.switch.command("bridge", &["link", "set", "dev", &port, "state", state])
    }

    /// Where clients reach a relay.
    pub(super) fn client_side(&self, index: usize) -> Ipv4Addr {
        self.side(Side::Clients, index)
    }

    /// Where other relays reach a relay.
    pub(super) fn mesh_side(&self, index: usize) -> Ipv4Addr {
        self.side(Side::Mesh, index)
    }

    /// Where a relay listens; `None`: on all addresses of its host.
    pub(super) fn listens_at(&self, index: usize) -> Option<Ipv4Addr> {
        self.parted.is_none().then(|| self.client_side(index))
    }

    fn side(&self, side: Side, index: usize) -> Ipv4Addr {
        match self.parted {
            Some(_) => side.address(number(index)),
            None => Ipv4Addr::new(127, Side::Clients.subnet(), 0, number(index)),
        }
    }
}

/// A relay's number, counted from 1 as in its name.
fn number(index: usize) -> u8 {
    index as u8 + 1
}

impl Side {
    fn bridge(self) -> &'static str {
        match self {
            Self::Clients => "clients",
            Self::Mesh => "mesh",
        }
    }

    fn letter(self) -> char {
        match self {
            Self::Clients => 'c',
            Self::Mesh => 'm',
        }
    }

    /// The switch's port to a host.
    fn port(self, number: u8) -> String {
        format!("{}{number}", self.letter())
    }

    fn subnet(self) -> u8 {
        match self {
            Self::Clients => 78,
            Self::Mesh => 79,
        }
    }

    fn address(self, number: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, self.subnet(), 0, number)
    }
}

fn connect(host: &Netns, number: u8, side: Side, switch: &Netns) -> Result<()> {
    let (name, port) = (side.port(0), side.port(number));
    let mac = |end| [0x02, 0, end, side.subnet(), 0, number];
    veth(End { netns: host, name: &name, mac: mac(0) }, End { netns: switch, name: &port, mac: mac(1) })?;
    host.ip(&["address", "add", &format!("{}/24", side.address(number)), "dev", &name])?;
    switch.ip(&["link", "set", &port, "master", side.bridge()])
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use super::*;

    /// Whether a packet from one host arrives at another one.
    fn passes(from: &Netns, host: &Netns, address: Ipv4Addr) -> Result<bool> {
        let receiver = host.enter(|| UdpSocket::bind((address, 0)))??;
        receiver.set_read_timeout(Some(Duration::from_millis(300)))?;
        let sender = from.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))??;
        sender.send_to(b"a", receiver.local_addr()?)?;
        Ok(receiver.recv(&mut [0; 1]).is_ok())
    }

    #[test]
    fn a_cut_parts_a_relay_from_the_others_and_from_no_client() -> Result<()> {
        if !nix::unistd::geteuid().is_root() {
            crate::skip("a cut in a region", "network namespaces need root");
            return Ok(());
        }
        let net = Net::new()?;
        for pass in [true, false, true] {
            net.pass_mesh(0, pass)?;
            assert_eq!(passes(net.relay(0), net.relay(1), net.mesh_side(1))?, pass);
            assert_eq!(passes(net.relay(1), net.relay(0), net.mesh_side(0))?, pass);
            assert!(passes(net.relay(2), net.relay(1), net.mesh_side(1))?);
            assert!(passes(net.clients(), net.relay(0), net.client_side(0))?);
        }
        Ok(())
    }
}
