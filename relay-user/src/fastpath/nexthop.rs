//! Where a session's packets go next: the interface, its MAC, and the MAC of the neighbour that takes them
//! on.
//!
//! The kernel is asked, never guessed after: its route for (local, remote), then its neighbour entry for the
//! gateway, or for the remote itself on a shared link. XDP knows neither routes nor ARP, so a session is
//! installed in the BPF map only with a next hop, and [`NextHops::watch`] says when one may have changed.
//! Until then userspace forwards it.
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

/// Why XDP cannot carry packets to an address. All but [`NoNextHop::NoNeighbour`] last until a route changes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoNextHop {
    /// The two addresses are of different families.
    #[error("one address is IPv4 and the other IPv6")]
    Families,
    /// Loopback, multicast, broadcast or unspecified: no client has such an address.
    #[error("not a unicast address of another host")]
    NotUnicast,
    /// One of this host's own addresses.
    #[error("one of this host's own addresses")]
    Own,
    /// The kernel has no route, or one that says no (blackhole, unreachable, prohibit).
    #[error("no route")]
    NoRoute,
    /// The route leads out of a link without Ethernet addresses.
    #[error("interface {ifindex} is not Ethernet")]
    NotEthernet {
        /// The interface.
        ifindex: u32,
    },
    /// The neighbour's link-layer address is not known yet. The kernel has been asked to find out: it will be
    /// an event.
    #[error("{neighbour} on interface {ifindex} has not answered yet")]
    NoNeighbour {
        /// The gateway, or the remote itself.
        neighbour: IpAddr,
        /// The interface it is on.
        ifindex: u32,
    },
    /// The kernel could not be asked.
    #[error("netlink: {0}")]
    Netlink(#[from] io::Error),
}

/// Asks the kernel of the network namespace it was made in.
#[derive(Debug)]
pub struct NextHops {
    netlink: Mutex<Netlink>,
}

impl NextHops {
    /// Opens the socket for questions, in the calling thread's network namespace.
    ///
    /// Async because whoever has one lives on the runtime that [`Self::watch`] needs.
    ///
    /// # Errors
    /// The system's: there is no such socket to be had.
    pub async fn new() -> io::Result<Self> {
        Ok(Self { netlink: Mutex::new(Netlink::open()?) })
    }

    /// The next hop of packets from `local`, an address of this host, to `remote`. IPv4 may come mapped into
    /// IPv6.
    ///
    /// Three system calls' worth of work; it does not wait for the neighbour.
    ///
    /// # Errors
    /// Why XDP cannot carry packets there, for now or for good.
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

    /// Tells the kernel that a neighbour is in use, so that it confirms the entry in its own time: XDP's
    /// packets do not pass through the neighbour table, and an entry nobody uses grows stale and is
    /// forgotten.
    ///
    /// `neighbour` is the next hop's IP address: the gateway, or the client itself on a shared link.
    ///
    /// # Errors
    /// The system's.
    pub fn refresh_neighbour(&self, neighbour_ip: IpAddr, ifindex: u32) -> io::Result<()> {
        let mut netlink = self.netlink.lock().unwrap_or_else(PoisonError::into_inner);
        let neighbour_ip = neighbour_ip.to_canonical();
        match neighbour(&mut netlink, neighbour_ip, ifindex)? {
            // The kernel takes the permanence away from an entry that is announced as used.
            Some(Neighbour { permanent: true, .. }) => Ok(()),
            _ => use_neighbour(&mut netlink, neighbour_ip, ifindex),
        }
    }

    /// Confirms the neighbour on the way from `local` to `remote`: [`Self::refresh_neighbour`] for callers
    /// that keep clients, not gateways.
    ///
    /// # Errors
    /// As for [`Self::resolve`], but for the neighbour.
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

    /// A signal after every change of routes, rules, neighbours, links or addresses: what was resolved before
    /// may be another now. Signals that come together are one. The channel closes if the kernel stops
    /// telling.
    ///
    /// To be called on a tokio runtime, on a thread in the network namespace to be watched.
    ///
    /// # Errors
    /// The system's: the kernel cannot be listened to.
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

/// Routes that refuse are answered with an error, not with a route.
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

/// `NTF_USE`: as if a packet had been sent to the neighbour. Creates the entry and asks for its address if
/// need be.
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
