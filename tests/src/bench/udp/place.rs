//! Where the rows about the UDP relay are measured: on loopback, or between hosts with veth pairs.
//!
//! ```text
//!   loopback: one namespace          veth:  alice c0 ── ra relay rb ── c0 bob
//! ```
//! With offloads, a train of segments crosses a veth as one frame. Without, the kernel cuts it at the sender,
//! and computes every checksum. Every place is a network namespace of its own, so that two relays may have
//! the same ports in two places, and no firewall of the machine is in the way.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use anyhow::Context as _;
use nix::sys::socket::{setsockopt, sockopt};

use crate::lab::{End, Netns, veth};

/// Bytes that a client's socket may hold, so that no packet gets lost there.
const CLIENT_BUFFER: usize = 32 << 20;
/// The relay's interfaces towards its two clients.
const TOWARDS: [&str; 2] = ["ra", "rb"];
/// The interface of a client's host.
const CLIENT_INTERFACE: &str = "c0";
/// The offloads that a path without offloads has not.
const OFFLOADS: [&str; 4] = ["gso", "tso", "gro", "tx"];

/// Kinds of paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    /// The loopback interface.
    Loopback,
    /// veth pairs on which trains stay whole.
    Offloads,
    /// veth pairs on which every packet is a frame.
    Plain,
}

impl Path {
    /// The path in the name of a row.
    pub(super) fn name(self) -> &'static str {
        match self {
            Path::Loopback => "lo",
            Path::Offloads | Path::Plain => "veth",
        }
    }
}

/// The hosts of a relay and of its clients.
pub(super) struct Place {
    /// The relay's host.
    pub(super) relay: Netns,
    /// The relay's address for each client.
    pub(super) relay_ips: [IpAddr; 2],
    clients: Option<[Netns; 2]>,
}

impl Place {
    /// Makes the namespaces.
    pub(super) fn new(path: Path) -> anyhow::Result<Place> {
        let relay = Netns::new("relay")?;
        if path == Path::Loopback {
            return Ok(Place { relay, relay_ips: [Ipv4Addr::LOCALHOST.into(); 2], clients: None });
        }
        let clients = [Netns::new("alice")?, Netns::new("bob")?];
        for (index, client) in (0..).zip(&clients) {
            let at = TOWARDS[usize::from(index)];
            veth(
                End { netns: &relay, name: at, mac: [2, 0, 0, 0x78, index, 1] },
                End { netns: client, name: CLIENT_INTERFACE, mac: [2, 0, 0, 0x78, index, 2] },
            )?;
            relay.ip(&["address", "add", &format!("{}/24", relay_ip(index)), "dev", at])?;
            let own = format!("{}/24", client_ip(index));
            client.ip(&["address", "add", &own, "dev", CLIENT_INTERFACE])?;
            if path == Path::Plain {
                for (netns, interface) in [(&relay, at), (client, CLIENT_INTERFACE)] {
                    for offload in OFFLOADS {
                        netns.command("ethtool", &["-K", interface, offload, "off"])?;
                    }
                }
            }
        }
        let relay_ips = [0, 1].map(|index| relay_ip(index).into());
        Ok(Place { relay, relay_ips, clients: Some(clients) })
    }

    /// A client's socket, connected to the relay's address for side `side`. With `trains` it receives them
    /// whole.
    pub(super) fn socket(&self, side: usize, relay_port: u16, trains: bool) -> anyhow::Result<UdpSocket> {
        let netns = self.clients.as_ref().map_or(&self.relay, |clients| &clients[side]);
        let relay = SocketAddr::new(self.relay_ips[side], relay_port);
        netns.enter(|| client_socket((Ipv4Addr::UNSPECIFIED, 0).into(), relay, trains))?
    }
}

/// A socket with a large buffer that is connected to `relay`; call it in the client's namespace.
pub(super) fn client_socket(from: SocketAddr, relay: SocketAddr, trains: bool) -> anyhow::Result<UdpSocket> {
    let socket = UdpSocket::bind(from).with_context(|| format!("no socket on {from}"))?;
    setsockopt(&socket, sockopt::RcvBufForce, &CLIENT_BUFFER).context("a client's receive buffer")?;
    setsockopt(&socket, sockopt::SndBufForce, &CLIENT_BUFFER).context("a client's send buffer")?;
    if trains {
        setsockopt(&socket, sockopt::UdpGroSegment, &true).context("UDP_GRO")?;
    }
    socket.connect(relay).with_context(|| format!("connecting to {relay}"))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn relay_ip(index: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 78, index, 1)
}

fn client_ip(index: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 78, index, 2)
}
