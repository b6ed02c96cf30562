//! Asks the kernel for this host's interfaces and addresses, and hears when they change.
//!
//! The kernel answers inside the system calls, so nothing here waits but [`Changes::changed`]. Sockets belong
//! to the network namespace of the thread that opened them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::errno::Errno;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::link::{
    InfoKind, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage,
};
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::{
    AsyncSocket as _, AsyncSocketExt as _, Socket, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE,
};

use super::addresses::{Address, Host, Interface, Kind, State};

/// Addresses of the Internet (two root name servers). The kernel is asked how it would send there; nothing is
/// sent.
const FAR: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 41, 0, 4)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0x503, 0xba3e, 0, 0, 0, 2, 0x30)),
];

/// How often a list that changed while it was read is read again.
const TRIES: usize = 3;

/// Changes that are one change if they have come when the first is read.
const BATCH: usize = 256;

/// The length of a netlink message's header, and the alignment of messages, in bytes.
const HEADER_BYTES: usize = 16;
const ALIGN: usize = 4;

/// What the kernel says of this host now.
///
/// # Errors
/// The system's error.
pub fn read() -> io::Result<Host> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.set_non_blocking(true)?;
    let mut links = LinkMessage::default();
    links.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    let links = ask(&socket, RouteNetlinkMessage::GetLink(links), NLM_F_DUMP)?;
    let addresses = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let addresses = ask(&socket, addresses, NLM_F_DUMP)?;
    // Without a route there is an error, and no way out.
    let ways_out = FAR.iter().filter_map(|far| ask(&socket, route_to(*far), 0).ok()).flatten();
    Ok(Host {
        interfaces: links.iter().filter_map(interface).collect(),
        addresses: addresses.iter().filter_map(address).collect(),
        ways_out: ways_out.filter_map(|route| way_out(&route)).collect(),
    })
}

fn route_to(far: IpAddr) -> RouteNetlinkMessage {
    let mut question = RouteMessage::default();
    let v4 = far.is_ipv4();
    question.header.address_family = if v4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
    question.header.destination_prefix_length = if v4 { 32 } else { 128 };
    question.attributes = vec![RouteAttribute::Destination(far.into())];
    RouteNetlinkMessage::GetRoute(question)
}

/// Asks one question and reads the whole answer; `flags` has `NLM_F_DUMP` if the answer is a list.
fn ask(socket: &Socket, question: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
    for _ in 0..TRIES {
        let mut message = NetlinkMessage::from(question.clone());
        message.header.flags = NLM_F_REQUEST | flags;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        socket.send(&bytes, 0)?;
        if let Some(whole) = answer(socket, flags & NLM_F_DUMP != 0)? {
            return Ok(whole);
        }
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, "the kernel's list changes faster than it can be read"))
}

/// Reads an answer to its end; `None`: the list changed meanwhile. A message that cannot be parsed is left
/// out: a kernel newer than this program may say more than it knows.
fn answer(socket: &Socket, is_list: bool) -> io::Result<Option<Vec<RouteNetlinkMessage>>> {
    let (mut all, mut whole) = (Vec::new(), true);
    loop {
        let (bytes, _) = socket.recv_from_full()?;
        let mut rest = bytes.as_slice();
        while let Some(length) = rest.first_chunk().map(|length| u32::from_ne_bytes(*length) as usize) {
            if length < HEADER_BYTES || length > rest.len() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a netlink message of no length"));
            }
            let parsed = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&rest[..length]);
            rest = rest.get(length.next_multiple_of(ALIGN)..).unwrap_or_default();
            let message = match parsed {
                Ok(message) => message,
                Err(error) => {
                    tracing::debug!(%error, "a netlink message that cannot be parsed");
                    continue;
                }
            };
            whole &= message.header.flags & NLM_F_DUMP_INTR == 0;
            match message.payload {
                NetlinkPayload::InnerMessage(inner) => all.push(inner),
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                NetlinkPayload::Done(_) => return Ok(whole.then_some(all)),
                _ => {}
            }
        }
        if !is_list {
            return Ok(Some(all));
        }
    }
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
