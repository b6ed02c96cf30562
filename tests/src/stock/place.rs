//! Where the stock programs run: the relay's host and three others on one Ethernet, which can reach the relay
//! but not each other.
//!
//! ```text
//!   relay: br0 10.77.0.1, fd77::1 -+- p0 (isolated) -- e0 :dual  10.77.0.2, fd77::2
//!                                  +- p1 (isolated) -- e0 :ipv4  10.77.0.3
//!                                  +- p2 (isolated) -- e0 :ipv6             fd77::4
//! ```
//! Isolated ports of a bridge pass frames only to the bridge's own host, so all traffic between two nodes
//! goes through the relay.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use anyhow::Result;
use tempfile::TempDir;

use crate::lab::{End, Netns, veth};
use crate::skip;

/// The relay's addresses.
pub(super) const RELAY_IPV4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
pub(super) const RELAY_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);

/// One of the other hosts, by its address families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// IPv4 and IPv6.
    Dual,
    /// IPv4 only.
    Ipv4,
    /// IPv6 only.
    Ipv6,
}

impl Host {
    const ALL: [Self; 3] = [Self::Dual, Self::Ipv4, Self::Ipv6];

    /// The host's addresses.
    pub fn addresses(self) -> Vec<IpAddr> {
        let ipv6 = |last| Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, last).into();
        match self {
            Self::Dual => vec![Ipv4Addr::new(10, 77, 0, 2).into(), ipv6(2)],
            Self::Ipv4 => vec![Ipv4Addr::new(10, 77, 0, 3).into()],
            Self::Ipv6 => vec![ipv6(4)],
        }
    }

    /// The relay's addresses that the host can reach.
    pub(super) fn relay(self) -> Vec<IpAddr> {
        match self {
            Self::Dual => vec![RELAY_IPV4.into(), RELAY_IPV6.into()],
            Self::Ipv4 => vec![RELAY_IPV4.into()],
            Self::Ipv6 => vec![RELAY_IPV6.into()],
        }
    }
}

/// The hosts, and a directory for files.
#[derive(Debug)]
pub struct Place {
    relay: Netns,
    hosts: [Netns; 3],
    dir: TempDir,
}

impl Place {
    /// Builds the place, or skips `test` if that is not possible.
    pub fn or_skip(test: &str) -> Result<Option<Self>> {
        let missing = if !nix::unistd::geteuid().is_root() {
            Some("network namespaces need root")
        } else if !Path::new("/proc/net/if_inet6").exists() {
            Some("this kernel has no IPv6")
        } else {
            None
        };
        match missing {
            Some(reason) => {
                skip(test, reason);
                Ok(None)
            }
            None => Self::new().map(Some),
        }
    }

    fn new() -> Result<Self> {
        let relay = Netns::dual_stack("stock")?;
        relay.ip(&["link", "add", "br0", "type", "bridge"])?;
        relay.ip(&["link", "set", "br0", "up"])?;
        for address in Host::Dual.relay() {
            add_address(&relay, "br0", address)?;
        }
        let hosts = [Netns::dual_stack("dual")?, Netns::dual_stack("ipv4")?, Netns::dual_stack("ipv6")?];
        for ((number, host), netns) in (0..).zip(Host::ALL).zip(&hosts) {
            let port = format!("p{number}");
            let mac = |side| [0x02, 0, 0, 0x77, side, number];
            veth(End { netns, name: "e0", mac: mac(0) }, End { netns: &relay, name: &port, mac: mac(1) })?;
            relay.ip(&["link", "set", &port, "master", "br0"])?;
            relay.ip(&["link", "set", &port, "type", "bridge_slave", "isolated", "on"])?;
            for address in host.addresses() {
                add_address(netns, "e0", address)?;
            }
            for gateway in host.relay() {
                let family = if gateway.is_ipv4() { "-4" } else { "-6" };
                netns.ip(&[family, "route", "add", "default", "via", &gateway.to_string()])?;
            }
        }
        // The path is short, as a socket's path must be.
        let dir = tempfile::Builder::new().prefix("relayd-").tempdir()?;
        Ok(Self { relay, hosts, dir })
    }

    /// The relay's host.
    pub(super) fn relay(&self) -> &Netns {
        &self.relay
    }

    /// One of the other hosts.
    pub(super) fn host(&self, host: Host) -> &Netns {
        &self.hosts[host as usize]
    }

    /// The directory for the test's files; it is removed with this value.
    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }
}

fn add_address(netns: &Netns, interface: &str, address: IpAddr) -> Result<()> {
    match address {
        IpAddr::V4(_) => netns.ip(&["address", "add", &format!("{address}/24"), "dev", interface]),
        // No other host has this address, and duplicate address detection would take a second.
        IpAddr::V6(_) => netns.ip(&["address", "add", &format!("{address}/64"), "dev", interface, "nodad"]),
    }
}
