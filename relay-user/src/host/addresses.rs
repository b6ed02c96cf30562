//! The addresses at which clients may reach this host: the rules, as a function of what the kernel says.
//!
//! Upstream's rules (`net/netmon`, `LocalAddresses`): no interface that is down, no loopback, nothing of
//! Tailscale's own ranges, at most two IPv6 addresses of a subnet, and IPv4 link-local and unique local IPv6
//! addresses only where there is nothing else (some clouds translate them). Ours beyond that: no bridge that
//! leads only to guests of this host, and of a subnet's IPv6 addresses those that last longest.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IPv6 addresses of one subnet that are advertised at most: each is pinged by every client.
const PER_SUBNET: usize = 2;

/// Tailscale's IPv4 range, network and bits.
const TAILSCALE4: (Ipv4Addr, u32) = (Ipv4Addr::new(100, 64, 0, 0), 10);
/// The part of it that ChromeOS uses for its guests, which Tailscale leaves to it.
const CHROMEOS4: (Ipv4Addr, u32) = (Ipv4Addr::new(100, 115, 92, 0), 23);
/// Tailscale's IPv6 range.
const TAILSCALE6: (Ipv6Addr, u32) = (Ipv6Addr::new(0xfd7a, 0x115c, 0xa1e0, 0, 0, 0, 0, 0), 48);

/// Interfaces stacked on each other are followed this far.
const DEPTH: u32 = 8;

/// What the kernel says of this host's interfaces and addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// All interfaces.
    pub interfaces: Vec<Interface>,
    /// All addresses, in the kernel's order.
    pub addresses: Vec<Address>,
    /// The interfaces by which packets leave for the Internet.
    pub ways_out: Vec<u32>,
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's number.
    pub index: u32,
    /// The name.
    pub name: String,
    /// Whether it is switched on.
    pub up: bool,
    /// Whether it is the loopback interface.
    pub loopback: bool,
    /// What it is.
    pub kind: Kind,
    /// The bridge or bond that it is a port of.
    pub master: Option<u32>,
    /// The interface of this host that it stands on, as a VLAN does.
    pub lower: Option<u32>,
}

/// What an interface is, as far as that decides where it leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// A bridge.
    Bridge,
    /// Several interfaces in one: a bond, a team.
    Group,
    /// As a port of a bridge it leads to a guest of this host, or nowhere: veth, netkit, tun, tap, dummy.
    Guest,
    /// Hardware, a VLAN, a tunnel to another host, and whatever else.
    #[default]
    Other,
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The interface's number.
    pub interface: u32,
    /// The address.
    pub ip: IpAddr,
    /// Bits of the subnet's prefix.
    pub bits: u8,
    /// How long it lasts.
    pub state: State,
}

/// Whether an address can be used, and for how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// For as long as anybody knows.
    #[default]
    Stable,
    /// For a day or so: a privacy address.
    Temporary,
    /// Packets to it still arrive, but it is going away.
    Deprecated,
    /// Not yet, or not at all: another host may have it.
    Tentative,
}

/// An address to advertise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The address.
    pub ip: IpAddr,
    /// The interface that has it.
    pub interface: String,
}

/// The addresses to advertise, IPv4 first, each family in the kernel's order. `with_v6`: IPv6 can be used.
pub fn advertised(host: &Host, with_v6: bool) -> Vec<Found> {
    let (mut regular, mut rest) = (Vec::new(), Vec::new());
    for address in &host.addresses {
        let Some(interface) = host.interface(address.interface) else { continue };
        let usable = address.state != State::Tentative
            && (with_v6 || address.ip.is_ipv4())
            && interface.up
            && !interface.loopback
            // ZeroTier and a relay for Tailscale clients would carry each other's packets, as upstream found.
            && !interface.name.starts_with("zt")
            && host.leads_out(interface, DEPTH);
        if !usable {
            continue;
        }
        match reach(address.ip) {
            Reach::Regular => regular.push(*address),
            Reach::Translated => rest.push(*address),
            Reach::Nowhere => {}
        }
    }
    let chosen = if regular.is_empty() { rest } else { regular };
    let (v4, v6): (Vec<_>, Vec<_>) = chosen.into_iter().partition(|address| address.ip.is_ipv4());
    let mut found: Vec<Found> = Vec::new();
    for address in lasting(v4).into_iter().chain(few_of_each_subnet(lasting(v6))) {
        let name = host.interface(address.interface).map_or_else(String::new, |found| found.name.clone());
        if found.iter().all(|other| other.ip != address.ip) {
            found.push(Found { ip: address.ip, interface: name });
        }
    }
    found
}

/// How far an address can be reached from.
enum Reach {
    Regular,
    /// Not from other networks, unless something translates it.
    Translated,
    Nowhere,
}

fn reach(ip: IpAddr) -> Reach {
    match ip {
        IpAddr::V4(ip) => {
            let within = |(net, bits): (Ipv4Addr, u32)| (ip.to_bits() ^ net.to_bits()) >> (32 - bits) == 0;
            let nowhere = ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast();
            match ip {
                _ if nowhere || (within(TAILSCALE4) && !within(CHROMEOS4)) => Reach::Nowhere,
                ip if ip.is_link_local() => Reach::Translated,
                _ => Reach::Regular,
            }
        }
        IpAddr::V6(ip) => {
            let (net, bits) = TAILSCALE6;
            let nowhere = ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_multicast()
                || ip.is_unicast_link_local()
                || ip.to_ipv4_mapped().is_some();
            match ip {
                _ if nowhere || (ip.to_bits() ^ net.to_bits()) >> (128 - bits) == 0 => Reach::Nowhere,
                ip if ip.is_unique_local() => Reach::Translated,
                _ => Reach::Regular,
            }
        }
    }
}

/// Without those that are going away, if others are left.
fn lasting(mut addresses: Vec<Address>) -> Vec<Address> {
    if addresses.iter().any(|address| address.state != State::Deprecated) {
        addresses.retain(|address| address.state != State::Deprecated);
    }
    addresses
}

/// Two addresses of each subnet; temporary ones only where a subnet has no other.
fn few_of_each_subnet(mut addresses: Vec<Address>) -> Vec<Address> {
    let subnet = |address: &Address| {
        let IpAddr::V6(ip) = address.ip else { return (address.interface, 0) };
        let hosts = u128::MAX.checked_shr(address.bits.into()).unwrap_or(0);
        (address.interface, ip.to_bits() & !hosts)
    };
    let lasts = |address: &&Address| address.state != State::Temporary;
    let with_others: Vec<_> = addresses.iter().filter(lasts).map(subnet).collect();
    addresses.retain(|address| lasts(&address) || !with_others.contains(&subnet(address)));
    let mut taken = BTreeMap::<_, usize>::new();
    addresses.retain(|address| {
        let taken = taken.entry(subnet(address)).or_default();
        *taken += 1;
        *taken <= PER_SUBNET
    });
    addresses
}

impl Host {
    fn interface(&self, index: u32) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.index == index)
    }

    /// Whether packets that come by the interface can come from another host. A bridge leads where its ports
    /// lead; one by which this host's own packets leave for the Internet leads out, whatever its ports are:
    /// in a container, the way out is a veth.
    fn leads_out(&self, interface: &Interface, depth: u32) -> bool {
        let Some(depth) = depth.checked_sub(1) else { return true };
        if self.ways_out.contains(&interface.index) {
            return true;
        }
        let mut ports = self.interfaces.iter().filter(|port| port.master == Some(interface.index));
        match interface.kind {
            Kind::Bridge => ports.any(|port| port.kind != Kind::Guest && self.leads_out(port, depth)),
            Kind::Group => ports.any(|port| self.leads_out(port, depth)),
            Kind::Guest | Kind::Other => {
                let lower = interface.lower.and_then(|index| self.interface(index));
                lower.is_none_or(|lower| self.leads_out(lower, depth))
            }
        }
    }
}

#[cfg(test)]
mod tests;
