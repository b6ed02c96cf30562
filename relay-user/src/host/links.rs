//! This host's interfaces and addresses, as the kernel tells them, and when they change.
//!
//! Nothing here waits but [`Changes::changed`]. Sockets belong to the network namespace of the thread that
//! opened them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::errno::Errno;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo};
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::{
    AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE,
};

use super::addresses::{Address, Host, Interface, Kind, State};
use super::netlink::{self, Netlink};

/// Addresses of the Internet (two root name servers). The kernel is asked how it would send there; nothing is
/// sent.
const FAR: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 41, 0, 4)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0x503, 0xba3e, 0, 0, 0, 2, 0x30)),
];

/// Changes that are one change if they have come when the first is read.
const BATCH: usize = 256;

/// What the kernel says of this host now.
///
/// # Errors
/// The system's error.
pub fn read() -> io::Result<Host> {
    let mut netlink = Netlink::open()?;
    let interfaces =
        netlink.dump(netlink::all_links(), Vec::new, |all, link| all.extend(interface(&link)))?;
    let addresses = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let addresses = netlink.dump(addresses, Vec::new, |all, one| all.extend(address(&one)))?;
    // Without a route there is an error, and no way out.
    let ways_out = FAR.iter().filter_map(|far| way_out(&netlink.get(route_to(*far)).ok()?)).collect();
    Ok(Host { interfaces, addresses, ways_out })
}

fn route_to(far: IpAddr) -> RouteNetlinkMessage {
    let mut question = RouteMessage::default();
    let v4 = far.is_ipv4();
    question.header.address_family = if v4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
    question.header.destination_prefix_length = if v4 { 32 } else { 128 };
    question.attributes = vec![RouteAttribute::Destination(far.into())];
    RouteNetlinkMessage::GetRoute(question)
}

fn interface(message: &RouteNetlinkMessage) -> Option<Interface> {
    let RouteNetlinkMessage::NewLink(link) = message else { return None };
    let (mut name, mut kind, mut master, mut lower, mut elsewhere) = (String::new(), None, None, None, false);
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name.clone_from(text),
            LinkAttribute::Controller(index) => master = Some(*index),
            LinkAttribute::Link(index) => lower = Some(*index),
            LinkAttribute::LinkNetNsId(_) => elsewhere = true,
            LinkAttribute::LinkInfo(infos) => {
                kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    let stacked = matches!(
        kind,
        Some(
            InfoKind::Vlan
                | InfoKind::MacVlan
                | InfoKind::MacVtap
                | InfoKind::IpVlan
                | InfoKind::IpVtap
                | InfoKind::MacSec
        )
    );
    let kind = match kind {
        Some(InfoKind::Bridge) => Kind::Bridge,
        Some(InfoKind::Bond | InfoKind::Team) => Kind::Group,
        Some(InfoKind::Veth | InfoKind::Netkit | InfoKind::Tun | InfoKind::Dummy | InfoKind::Ifb) => {
            Kind::Guest
        }
        _ => Kind::Other,
    };
    Some(Interface {
        index: link.header.index,
        name,
        up: link.header.flags.contains(LinkFlags::Up),
        loopback: link.header.flags.contains(LinkFlags::Loopback),
        kind,
        master,
        // The other end of a veth is no interface that it stands on, and one in another namespace has a
        // number of that namespace.
        lower: lower.filter(|index| stacked && !elsewhere && *index != link.header.index),
    })
}

fn address(message: &RouteNetlinkMessage) -> Option<Address> {
    let RouteNetlinkMessage::NewAddress(address) = message else { return None };
    let (mut ip, mut local) = (None, None);
    let mut flags = AddressFlags::from_bits_retain(address.header.flags.bits().into());
    for attribute in &address.attributes {
        match attribute {
            // On a point-to-point interface this is the other end's, and the local one is apart.
            AddressAttribute::Address(found) => ip = Some(*found),
            AddressAttribute::Local(found) => local = Some(*found),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    let ip = local.or(ip)?;
    let state = if flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed)
        && !flags.contains(AddressFlags::Optimistic)
    {
        State::Tentative
    } else if flags.contains(AddressFlags::Deprecated) {
        State::Deprecated
    // The same bit says of an IPv4 address that it is not the first of its subnet.
    } else if flags.contains(AddressFlags::Secondary) && ip.is_ipv6() {
        State::Temporary
    } else {
        State::Stable
    };
    Some(Address { interface: address.header.index, ip, bits: address.header.prefix_len, state })
}

fn way_out(message: &RouteNetlinkMessage) -> Option<u32> {
    let RouteNetlinkMessage::NewRoute(route) = message else { return None };
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}

/// Hears when an interface or address changes.
pub struct Changes {
    socket: TokioSocket,
}

impl std::fmt::Debug for Changes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Changes").finish_non_exhaustive()
    }
}

impl Changes {
    /// Opens the socket: no change after this call is missed.
    ///
    /// # Errors
    /// The system's error.
    pub fn watch() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
        for group in [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr] {
            socket.socket_mut().add_membership(group as u32)?;
        }
        Ok(Self { socket })
    }

    /// Waits for a change. What changed is not read; lost messages count as a change. Nothing is lost if this
    /// is dropped before it is done.
    ///
    /// # Errors
    /// The system's error.
    pub async fn changed(&mut self) -> io::Result<()> {
        // The messages are cut short, since their content is not used.
        let mut scratch = [0; 64];
        match self.socket.recv(&mut &mut scratch[..]).await {
            Ok(_) => {}
            Err(error) if lost(&error) => {}
            Err(error) => return Err(error),
        }
        for _ in 0..BATCH {
            match self.socket.socket_ref().recv(&mut &mut scratch[..], 0) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if lost(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn lost(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Interrupted || error.raw_os_error() == Some(Errno::ENOBUFS as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_of_the_loopback_interface_and_its_address() {
        let host = read().expect("netlink needs no rights");
        let lo = host.interfaces.iter().find(|interface| interface.loopback).expect("lo");
        assert_eq!((lo.name.as_str(), lo.index, lo.kind), ("lo", 1, Kind::Other));
        let wanted = Address { interface: 1, ip: Ipv4Addr::LOCALHOST.into(), bits: 8, state: State::Stable };
        assert!(host.addresses.contains(&wanted), "{host:?}");
    }
}
