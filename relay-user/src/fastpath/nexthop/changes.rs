//! Reads the kernel's reports of changes: each is a fact about one neighbour or link, or names the legs whose
//! route may have changed. This module uses no socket.

use std::net::IpAddr;

use rtnetlink::{
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage,
        address::{AddressAttribute, AddressMessage},
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage},
        route::{RouteAddress, RouteAttribute, RouteMessage},
    },
};

use super::answers::{self, Link, Neighbour};
use super::dirty::Dirty;
use crate::host::netlink;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the words of the sentence above them")]
pub enum Change {
    /// A neighbour entry is now like this; `None`: it is gone.
    Neighbour { ifindex: u32, ip: IpAddr, now: Option<Neighbour> },
    /// A link is now like this; `None`: it is gone, or not Ethernet. `is_up`: routes may use it.
    Link { ifindex: u32, is_up: bool, now: Option<Link> },
    /// These legs may have another route. `many`: packets to one client may now go several ways.
    Routes { dirty: Dirty, many: bool },
    /// The rules have changed: which tables are asked, and for what.
    Rules,
}

/// The kernel's numbers of the messages that report a change of a next-hop object: rtnetlink(7) lacks them.
const NEXT_HOP_MESSAGES: [u16; 2] = [104, 105];

/// Reads one datagram of reports.
pub fn read(bytes: &[u8], found: &mut Vec<Change>) {
    for message in netlink::messages(bytes).map_while(Result::ok) {
        // The type is behind the length, of four bytes.
        let kind = [message[4], message[5]];
        if NEXT_HOP_MESSAGES.contains(&u16::from_ne_bytes(kind)) {
            found.push(Change::Routes { dirty: Dirty::everything(), many: false });
        } else if let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message)
            && let NetlinkPayload::InnerMessage(inner) = message.payload
        {
            found.extend(change(inner));
        }
    }
}

fn change(message: RouteNetlinkMessage) -> Option<Change> {
    use RouteNetlinkMessage as Message;
    match message {
        Message::NewNeighbour(entry) => neighbour(&entry, Some(answers::neighbour(&entry))),
        Message::DelNeighbour(entry) => neighbour(&entry, None),
        Message::NewLink(message) => Some(Change::Link {
            ifindex: message.header.index,
            is_up: answers::is_up(&message),
            now: answers::link(&message).ok(),
        }),
        Message::DelLink(message) => {
            Some(Change::Link { ifindex: message.header.index, is_up: false, now: None })
        }
        Message::NewRoute(message) => Some(routes(&message, answers::is_multipath(&message))),
        Message::DelRoute(message) => Some(routes(&message, false)),
        Message::NewAddress(message) => address(&message),
        // The kernel takes along all routes that prefer this address as their source, and reports none of
        // them.
        Message::DelAddress(_) => Some(Change::Routes { dirty: Dirty::everything(), many: false }),
        Message::NewRule(_) | Message::DelRule(_) => Some(Change::Rules),
        _ => None,
    }
}

fn neighbour(entry: &NeighbourMessage, now: Option<Neighbour>) -> Option<Change> {
    let ip = entry.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => Some(IpAddr::from(*ip)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => Some(IpAddr::from(*ip)),
        _ => None,
    })?;
    Some(Change::Neighbour { ifindex: entry.header.ifindex, ip, now })
}

fn routes(message: &RouteMessage, many: bool) -> Change {
    let network = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(ip)) => Some(IpAddr::from(*ip)),
        RouteAttribute::Destination(RouteAddress::Inet6(ip)) => Some(IpAddr::from(*ip)),
        _ => None,
    });
    let dirty = match network {
        Some(network) => Dirty::remote(network, message.header.destination_prefix_length),
        // A default route names no network.
        None => Dirty::everything(),
    };
    Change::Routes { dirty, many }
}

fn address(message: &AddressMessage) -> Option<Change> {
    let ip = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    let any = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(ip) => Some(*ip),
        _ => None,
    });
    Some(Change::Routes { dirty: Dirty::local(ip.or(any)?), many: false })
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::AddressFamily;
    use rtnetlink::packet_route::link::{LinkFlags, LinkMessage};
    use rtnetlink::packet_route::neighbour::NeighbourState;

    use super::*;

    fn bytes(message: RouteNetlinkMessage) -> Vec<u8> {
        let mut message = NetlinkMessage::from(message);
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    fn all(bytes: &[u8]) -> Vec<Change> {
        let mut found = Vec::new();
        read(bytes, &mut found);
        found
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address in the test")
    }

    #[test]
    fn one_datagram_may_report_several_changes() {
        let mut entry = NeighbourMessage::default();
        entry.header.family = AddressFamily::Inet;
        entry.header.ifindex = 3;
        entry.header.state = NeighbourState::Reachable;
        entry.attributes = vec![
            NeighbourAttribute::Destination(NeighbourAddress::from(ip("192.0.2.7"))),
            NeighbourAttribute::LinkLayerAddress(vec![2; 6]),
        ];
        let mut both = bytes(RouteNetlinkMessage::NewNeighbour(entry.clone()));
        both.extend(bytes(RouteNetlinkMessage::DelNeighbour(entry)));
        let now = Neighbour { mac: Some([2; 6]), is_confirmed: true, is_kept: false };
        let ip = ip("192.0.2.7");
        assert_eq!(
            all(&both),
            [
                Change::Neighbour { ifindex: 3, ip, now: Some(now) },
                Change::Neighbour { ifindex: 3, ip, now: None },
            ]
        );
    }

    #[test]
    fn a_route_names_the_clients_that_it_concerns_and_a_default_route_all() {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.destination_prefix_length = 16;
        message.attributes = vec![RouteAttribute::Destination(RouteAddress::Inet([10, 1, 0, 0].into()))];
        let dirty = Dirty::remote(ip("10.1.0.0"), 16);
        assert_eq!(
            all(&bytes(RouteNetlinkMessage::NewRoute(message.clone()))),
            [Change::Routes { dirty: dirty.clone(), many: false }]
        );
        message.attributes.push(RouteAttribute::MultiPath(Vec::new()));
        assert_eq!(
            all(&bytes(RouteNetlinkMessage::NewRoute(message))),
            [Change::Routes { dirty, many: true }]
        );
        let dirty = Dirty::everything();
        let default = RouteMessage::default();
        assert_eq!(
            all(&bytes(RouteNetlinkMessage::DelRoute(default))),
            [Change::Routes { dirty, many: false }]
        );
    }

    #[test]
    fn an_address_that_comes_concerns_its_legs_and_one_that_goes_may_take_routes_along() {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.attributes = vec![AddressAttribute::Local(ip("192.0.2.1"))];
        let dirty = |message| match all(&bytes(message)).as_slice() {
            [Change::Routes { dirty, many: false }] => dirty.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(dirty(RouteNetlinkMessage::NewAddress(message.clone())), Dirty::local(ip("192.0.2.1")));
        assert_eq!(dirty(RouteNetlinkMessage::DelAddress(message)), Dirty::everything());
    }

    #[test]
    fn a_link_that_is_not_ethernet_is_up_or_not() {
        let mut message = LinkMessage::default();
        message.header.index = 7;
        message.header.flags = LinkFlags::Up | LinkFlags::LowerUp;
        let up = |is_up| [Change::Link { ifindex: 7, is_up, now: None }];
        assert_eq!(all(&bytes(RouteNetlinkMessage::NewLink(message.clone()))), up(true));
        assert_eq!(all(&bytes(RouteNetlinkMessage::DelLink(message.clone()))), up(false));
        message.header.flags = LinkFlags::Up;
        assert_eq!(all(&bytes(RouteNetlinkMessage::NewLink(message))), up(false), "no carrier");
    }

    #[test]
    fn what_cannot_be_read_changes_nothing_and_ends() {
        assert_eq!(all(&[]), []);
        assert_eq!(all(&[0; 64]), [], "a length of zero");
        let mut message = bytes(RouteNetlinkMessage::NewRoute(RouteMessage::default()));
        message[0] = 200;
        assert_eq!(all(&message), [], "cut short");
        let mut object = vec![0; 24];
        object[0] = 24;
        object[4] = 104;
        assert_eq!(all(&object), [Change::Routes { dirty: Dirty::everything(), many: false }]);
    }
}
