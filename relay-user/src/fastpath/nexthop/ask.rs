//! The questions to the kernel. Each is answered within the call.

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;

use nix::errno::Errno;
use rtnetlink::{
    packet_core::{NLM_F_CREATE, NLM_F_REPLACE},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
        route::{RouteAttribute, RouteMessage},
        rule::RuleMessage,
    },
};

use super::NoNextHop;
use super::answers::{self, KernelRoute, Link, Neighbour};
use crate::host::netlink::{self, Netlink};

/// UDP, as a protocol of IP.
const UDP: u8 = 17;

/// What a route may depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Question {
    /// The address that packets leave from.
    pub local: IpAddr,
    /// Where they go.
    pub remote: IpAddr,
    /// The relay's port and the client's; only where the host has rules or several ways.
    pub ports: Option<(u16, u16)>,
}

/// The kernel's answers. Tests answer in its place.
pub trait Ask {
    /// The route of a packet.
    ///
    /// # Errors
    /// There is none that XDP can take, or the kernel did not answer.
    fn route(&mut self, question: &Question) -> Result<KernelRoute, NoNextHop>;
    /// A link.
    ///
    /// # Errors
    /// It is not Ethernet, or the kernel did not answer.
    fn link(&mut self, ifindex: u32) -> Result<Link, NoNextHop>;
    /// The links that are up, of any kind.
    ///
    /// # Errors
    /// The kernel did not answer.
    fn up(&mut self) -> io::Result<HashSet<u32>>;
    /// A neighbour entry; `None`: there is none.
    ///
    /// # Errors
    /// The kernel did not answer.
    fn neighbour(&mut self, ifindex: u32, ip: IpAddr) -> io::Result<Option<Neighbour>>;
    /// Has the effect of a packet sent to the neighbour: if needed, the kernel makes the entry and asks for
    /// the address, or confirms the one that it has.
    ///
    /// # Errors
    /// The kernel refused.
    fn use_neighbour(&mut self, ifindex: u32, ip: IpAddr) -> io::Result<()>;
    /// Whether packets between one pair of addresses may go several ways.
    ///
    /// # Errors
    /// The kernel did not answer.
    fn has_policy(&mut self) -> io::Result<bool>;
}

/// Asks the kernel of one network namespace.
#[derive(Debug)]
pub struct Kernel {
    netlink: Netlink,
    /// `SO_MARK` of the relay's sockets, which rules may look at; 0: none.
    mark: u32,
}

impl Kernel {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// The system's error.
    pub fn open(mark: u32) -> io::Result<Self> {
        Ok(Self { netlink: Netlink::open()?, mark })
    }
}

impl Ask for Kernel {
    fn route(&mut self, question: &Question) -> Result<KernelRoute, NoNextHop> {
        let Question { local, remote, ports } = *question;
        let mut message = RouteMessage::default();
        let bits = if remote.is_ipv4() { 32 } else { 128 };
        message.header.address_family = family(remote);
        message.header.destination_prefix_length = bits;
        message.header.source_prefix_length = bits;
        message.attributes =
            vec![RouteAttribute::Destination(remote.into()), RouteAttribute::Source(local.into())];
        if let Some((from, to)) = ports {
            message.attributes.extend([
                RouteAttribute::IpProto(UDP),
                RouteAttribute::Sport(from),
                RouteAttribute::Dport(to),
            ]);
        }
        if self.mark != 0 {
            message.attributes.push(RouteAttribute::Mark(self.mark));
        }
        match self.netlink.get(RouteNetlinkMessage::GetRoute(message)) {
            Ok(RouteNetlinkMessage::NewRoute(route)) => answers::route(&route, remote),
            Ok(_) => Err(NoNextHop::NoRoute),
            Err(error) => Err(route_error(error)),
        }
    }

    fn link(&mut self, ifindex: u32) -> Result<Link, NoNextHop> {
        answers::link(&self.netlink.link(ifindex)?)
    }

    fn up(&mut self) -> io::Result<HashSet<u32>> {
        self.netlink.dump(netlink::all_links(), HashSet::new, |up, answer| {
            up.extend(match &answer {
                RouteNetlinkMessage::NewLink(link) if answers::is_up(link) => Some(link.header.index),
                _ => None,
            });
        })
    }

    fn neighbour(&mut self, ifindex: u32, ip: IpAddr) -> io::Result<Option<Neighbour>> {
        match self.netlink.get(RouteNetlinkMessage::GetNeighbour(neighbour_message(ifindex, ip))) {
            Ok(RouteNetlinkMessage::NewNeighbour(entry)) => Ok(Some(answers::neighbour(&entry))),
            Ok(_) => Ok(None),
            Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn use_neighbour(&mut self, ifindex: u32, ip: IpAddr) -> io::Result<()> {
        let mut message = neighbour_message(ifindex, ip);
        message.header.state = NeighbourState::None;
        message.header.flags = NeighbourFlags::Use;
        self.netlink.set(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
    }

    fn has_policy(&mut self) -> io::Result<bool> {
        use RouteNetlinkMessage as Message;
        let (mut rules, mut routes) = (RuleMessage::default(), RouteMessage::default());
        rules.header.family = AddressFamily::Inet;
        routes.header.address_family = AddressFamily::Inet;
        let mut any = |question, is: fn(&Message) -> bool| {
            self.netlink.dump(question, || false, |found, answer| *found |= is(&answer))
        };
        let is_policy = |answer: &_| matches!(answer, Message::NewRule(rule) if answers::is_policy(rule));
        let is_multipath =
            |answer: &_| matches!(answer, Message::NewRoute(route) if answers::is_multipath(route));
        Ok(any(Message::GetRule(rules), is_policy)? || any(Message::GetRoute(routes), is_multipath)?)
    }
}

/// For a route that refuses, the kernel answers with an error instead of a route.
fn route_error(error: io::Error) -> NoNextHop {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EACCES | Errno::EINVAL) => NoNextHop::NoRoute,
        _ => NoNextHop::Netlink(error),
    }
}

fn neighbour_message(ifindex: u32, ip: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(ip);
    message.header.ifindex = ifindex;
    message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::from(ip)));
    message
}

fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}
