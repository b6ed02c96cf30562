//! Finds the next hop of a session's packets: the interface, its MAC, and the MAC of the neighbour that takes
//! the packets on.
//!
//! The kernel is always asked: first for its route for (local, remote), then for its neighbour entry of the
//! gateway, or of the remote itself on a shared link. XDP knows neither routes nor ARP, so a session is
//! installed in the BPF map only with a next hop, and [`NextHops::watch`] signals when one may have changed.
//! Until then userspace forwards the session.
//!
//! Kernel: `RTM_GETROUTE`, `RTM_GETNEIGH`, `RTM_GETLINK` (rtnetlink(7)).

mod answers;
mod watch;

use std::{
    io,
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

use nix::errno::Errno;
use rtnetlink::{
    packet_core::{NLM_F_CREATE, NLM_F_REPLACE},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
        route::{RouteAttribute, RouteMessage},
    },
};
use tokio::sync::mpsc;

use self::answers::Neighbour;
use super::netlink::Netlink;
use crate::route::next_hop::NextHop;

/// Why XDP cannot send packets to an address. All variants but [`NoNextHop::NoNeighbour`] last until a route
/// changes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoNextHop {
    /// The two addresses are of different families.
    #[error("one address is IPv4 and the other IPv6")]
    Families,
    /// The address is loopback, multicast, broadcast or unspecified: no client has such an address.
    #[error("not a unicast address of another host")]
    NotUnicast,
    /// The address belongs to this host.
    #[error("one of this host's own addresses")]
    Own,
    /// The kernel has no route, or a route that refuses (blackhole, unreachable, prohibit).
    #[error("no route")]
    NoRoute,
    /// The route uses a link without Ethernet addresses.
    #[error("interface {ifindex} is not Ethernet")]
    NotEthernet {
        /// The interface.
        ifindex: u32,
    },
    /// The neighbour's link-layer address is not known yet. The kernel has been asked to find it, and the
    /// result will be an event.
    #[error("{neighbour} on interface {ifindex} has not answered yet")]
    NoNeighbour {
        /// The gateway, or the remote itself.
        neighbour: IpAddr,
        /// The neighbour's interface.
        ifindex: u32,
    },
    /// The kernel could not be asked.
    #[error("netlink: {0}")]
    Netlink(#[from] io::Error),
}

/// Asks the kernel of the network namespace in which it was made.
#[derive(Debug)]
pub struct NextHops {
    netlink: Mutex<Netlink>,
}

impl NextHops {
    /// Opens the socket for requests, in the calling thread's network namespace.
    ///
    /// This is async because its callers live on the runtime that [`Self::watch`] needs.
    ///
    /// # Errors
    /// The system cannot open such a socket.
    pub async fn new() -> io::Result<Self> {
        Ok(Self { netlink: Mutex::new(Netlink::open()?) })
    }

    /// The next hop of packets from `local`, an address of this host, to `remote`. An IPv4 address may be
    /// mapped into IPv6.
    ///
    /// This costs about three system calls; it does not wait for the neighbour.
    ///
    /// # Errors
    /// The reason why XDP cannot send packets there, now or ever.
    pub fn resolve(&self, local: IpAddr, remote: IpAddr) -> Result<NextHop, NoNextHop> {
        let (local, remote) = (local.to_canonical(), remote.to_canonical());
        answers::eligible(local, remote)?;
        let mut netlink = self.netlink.lock().unwrap_or_else(PoisonError::into_inner);
        let route = match netlink.get(RouteNetlinkMessage::GetRoute(route_question(local, remote))) {
            Ok(RouteNetlinkMessage::NewRoute(route)) => answers::route(&route, remote)?,
            Ok(_) => return Err(NoNextHop::NoRoute),
            Err(error) => return Err(route_error(error)),
        };
        let link = answers::link(&netlink.link(route.ifindex)?)?;
        match neighbour(&mut netlink, route.neighbour, route.ifindex)? {
            Some(Neighbour { mac: Some(next_hop_mac), .. }) => Ok(NextHop {
                ifindex: route.ifindex,
                egress_mac: link.mac,
                next_hop_mac,
                mtu: route.mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu)),
            }),
            _ => {
                use_neighbour(&mut netlink, route.neighbour, route.ifindex)?;
                Err(NoNextHop::NoNeighbour { neighbour: route.neighbour, ifindex: route.ifindex })
            }
        }
    }

    /// Tells the kernel that a neighbour is in use, so that the kernel confirms the entry when needed. XDP's
    /// packets do not pass through the neighbour table, and an unused entry grows stale and is removed.
    ///
    /// `neighbour` is the next hop's IP address: the gateway, or the client itself on a shared link.
    ///
    /// # Errors
    /// The system's error.
    pub fn refresh_neighbour(&self, neighbour_ip: IpAddr, ifindex: u32) -> io::Result<()> {
        let mut netlink = self.netlink.lock().unwrap_or_else(PoisonError::into_inner);
        let neighbour_ip = neighbour_ip.to_canonical();
        match neighbour(&mut netlink, neighbour_ip, ifindex)? {
            // Announcing a permanent entry as used would make it non-permanent.
            Some(Neighbour { permanent: true, .. }) => Ok(()),
            _ => use_neighbour(&mut netlink, neighbour_ip, ifindex),
        }
    }

    /// Confirms the neighbour on the way from `local` to `remote`. This is [`Self::refresh_neighbour`] for
    /// callers that store clients instead of gateways.
    ///
    /// # Errors
    /// The errors of [`Self::resolve`], except those about the neighbour.
    pub fn refresh(&self, local: IpAddr, remote: IpAddr) -> Result<(), NoNextHop> {
        let (local, remote) = (local.to_canonical(), remote.to_canonical());
        answers::eligible(local, remote)?;
        let route = {
            let mut netlink = self.netlink.lock().unwrap_or_else(PoisonError::into_inner);
            match netlink.get(RouteNetlinkMessage::GetRoute(route_question(local, remote))) {
                Ok(RouteNetlinkMessage::NewRoute(route)) => answers::route(&route, remote)?,
                Ok(_) => return Err(NoNextHop::NoRoute),
                Err(error) => return Err(route_error(error)),
            }
        };
        Ok(self.refresh_neighbour(route.neighbour, route.ifindex)?)
    }

    /// Signals every change of routes, rules, neighbours, links or addresses: an earlier next hop may now be
    /// wrong. Signals that come together become one. The channel closes if the kernel no longer reports
    /// changes.
    ///
    /// Call this on a tokio runtime, on a thread in the network namespace to watch.
    ///
    /// # Errors
    /// The system does not allow to listen to the kernel.
    pub fn watch(&self) -> io::Result<mpsc::Receiver<()>> {
        watch::start()
    }
}

fn route_question(local: IpAddr, remote: IpAddr) -> RouteMessage {
    let mut question = RouteMessage::default();
    let bits = if remote.is_ipv4() { 32 } else { 128 };
    question.header.address_family = family(remote);
    question.header.destination_prefix_length = bits;
    question.header.source_prefix_length = bits;
    question.attributes =
        vec![RouteAttribute::Destination(remote.into()), RouteAttribute::Source(local.into())];
    question
}

/// For a route that refuses, the kernel answers with an error instead of a route.
fn route_error(error: io::Error) -> NoNextHop {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EACCES | Errno::EINVAL) => NoNextHop::NoRoute,
        _ => NoNextHop::Netlink(error),
    }
}

fn neighbour(netlink: &mut Netlink, ip: IpAddr, ifindex: u32) -> io::Result<Option<Neighbour>> {
    match netlink.get(RouteNetlinkMessage::GetNeighbour(neighbour_message(ip, ifindex))) {
        Ok(RouteNetlinkMessage::NewNeighbour(entry)) => Ok(Some(answers::neighbour(&entry))),
        Ok(_) => Ok(None),
        Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(None),
        Err(error) => Err(error),
    }
}

/// `NTF_USE`: has the effect of a packet sent to the neighbour. If needed, the kernel creates the entry and
/// asks for the address.
fn use_neighbour(netlink: &mut Netlink, ip: IpAddr, ifindex: u32) -> io::Result<()> {
    let mut message = neighbour_message(ip, ifindex);
    message.header.state = NeighbourState::None;
    message.header.flags = NeighbourFlags::Use;
    netlink.set(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
}

fn neighbour_message(ip: IpAddr, ifindex: u32) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(ip);
    message.header.ifindex = ifindex;
    message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::from(ip)));
    message
}

fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}
