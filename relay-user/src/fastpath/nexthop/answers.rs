//! Interprets the kernel's answers for a next hop. This module uses no socket: it turns messages into
//! decisions.

use std::net::IpAddr;

use rtnetlink::packet_route::{
    link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage},
    neighbour::{NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage, NeighbourState},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia},
    rule::{RuleAttribute, RuleMessage},
};

use super::NoNextHop;

/// The neighbour that takes the packet on, and the interface to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KernelRoute {
    /// Index of the interface.
    pub ifindex: u32,
    /// The gateway, or the destination itself.
    pub neighbour: IpAddr,
    /// The route's own limit, in bytes of an IP packet.
    pub mtu: Option<u32>,
}

/// The sending interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its link-layer address.
    pub mac: [u8; 6],
    /// Bytes of the largest IP packet.
    pub mtu: u32,
    /// Whether it is up and has a carrier.
    pub is_up: bool,
}

/// A neighbour entry. It has an address only if the kernel itself would send to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Neighbour {
    /// Its link-layer address, if the kernel itself would send there.
    pub mac: Option<[u8; 6]>,
    /// Whether the kernel has just heard from it.
    pub is_confirmed: bool,
    /// Whether somebody else looks after the entry: an operator (permanent, noarp), a routing daemon
    /// (extern_learn) or the kernel itself (managed). To announce such an entry as used would make it an
    /// ordinary one.
    pub is_kept: bool,
}

/// Refuses pairs of addresses for which no route can work.
///
/// # Errors
/// What is wrong with them.
pub fn eligible(local: IpAddr, remote: IpAddr) -> Result<(), NoNextHop> {
    if local.is_ipv4() != remote.is_ipv4() {
        return Err(NoNextHop::Families);
    }
    let broadcast = matches!(remote, IpAddr::V4(ip) if ip.is_broadcast());
    if broadcast
        || remote.is_loopback()
        || remote.is_multicast()
        || remote.is_unspecified()
        || local.is_loopback()
    {
        return Err(NoNextHop::NotUnicast);
    }
    Ok(())
}

/// Reads a route. If its next hop has no IP address on the link, the next hop is `remote` itself.
///
/// # Errors
/// XDP cannot take it.
pub fn route(route: &RouteMessage, remote: IpAddr) -> Result<KernelRoute, NoNextHop> {
    match route.header.kind {
        RouteType::Unicast => {}
        RouteType::Local => return Err(NoNextHop::Own),
        RouteType::Broadcast | RouteType::Anycast | RouteType::Multicast => {
            return Err(NoNextHop::NotUnicast);
        }
        _ => return Err(NoNextHop::NoRoute),
    }
    let (mut ifindex, mut neighbour, mut mtu) = (None, remote, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => ifindex = Some(*index),
            RouteAttribute::Gateway(RouteAddress::Inet(ip)) => neighbour = (*ip).into(),
            RouteAttribute::Gateway(RouteAddress::Inet6(ip)) => neighbour = (*ip).into(),
            RouteAttribute::Via(RouteVia::Inet(ip)) => neighbour = (*ip).into(),
            RouteAttribute::Via(RouteVia::Inet6(ip)) => neighbour = (*ip).into(),
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) if *mtu > 0 => Some(*mtu),
                    _ => None,
                });
            }
            // A tunnel wraps the packet on its way; XDP would send it without the wrapper.
            RouteAttribute::Encap(_) | RouteAttribute::EncapType(_) => return Err(NoNextHop::NoRoute),
            _ => {}
        }
    }
    Ok(KernelRoute { ifindex: ifindex.ok_or(NoNextHop::NoRoute)?, neighbour, mtu })
}

/// Whether routes may use a link: it is switched on and has a carrier.
pub fn is_up(link: &LinkMessage) -> bool {
    link.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp)
}

/// Reads a link.
///
/// # Errors
/// It is not Ethernet.
pub fn link(link: &LinkMessage) -> Result<Link, NoNextHop> {
    let ifindex = link.header.index;
    let not_ethernet = || NoNextHop::NotEthernet { ifindex };
    if link.header.link_layer_type != LinkLayerType::Ether {
        return Err(not_ethernet());
    }
    let (mut mac, mut mtu) = (None, None);
    let is_up = is_up(link);
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Address(bytes) => mac = <[u8; 6]>::try_from(bytes.as_slice()).ok(),
            LinkAttribute::Mtu(bytes) => mtu = Some(*bytes),
            _ => {}
        }
    }
    Ok(Link { mac: mac.ok_or_else(not_ethernet)?, mtu: mtu.ok_or_else(not_ethernet)?, is_up })
}

/// Reads a neighbour entry. The kernel goes on using the address of stale, delayed and probed entries, and so
/// does relayd.
pub fn neighbour(entry: &NeighbourMessage) -> Neighbour {
    use NeighbourState::{Delay, Noarp, Permanent, Probe, Reachable, Stale};
    let state = entry.header.state;
    let valid = matches!(state, Reachable | Stale | Delay | Probe | Permanent | Noarp);
    let mac = entry.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => <[u8; 6]>::try_from(bytes.as_slice()).ok(),
        _ => None,
    });
    let managed = entry.attributes.iter().any(|attribute| {
        matches!(attribute, NeighbourAttribute::ExtFlags(flags) if flags.contains(NeighbourExtFlags::Managed))
    });
    Neighbour {
        mac: mac.filter(|_| valid),
        is_confirmed: state == Reachable,
        is_kept: managed
            || entry.header.flags.contains(NeighbourFlags::ExtLearned)
            || matches!(state, Permanent | Noarp),
    }
}

/// Whether a rule may send packets of one pair of addresses to different tables: every rule but the three
/// that a kernel starts with.
pub fn is_policy(rule: &RuleMessage) -> bool {
    // Tables local, main and default, at their priorities. The kernel leaves a priority of zero out.
    const FIRST: [(u32, u32); 3] = [(0, 255), (32_766, 254), (32_767, 253)];
    let (mut priority, mut table, mut more) = (0, u32::from(rule.header.table), false);
    for attribute in &rule.attributes {
        match attribute {
            RuleAttribute::Priority(number) => priority = *number,
            RuleAttribute::Table(number) => table = *number,
            RuleAttribute::Protocol(_) | RuleAttribute::SuppressPrefixLen(u32::MAX) => {}
            _ => more = true,
        }
    }
    more || rule.header.tos != 0 || !FIRST.contains(&(priority, table))
}

/// Whether packets of one pair of addresses may go by several ways. A next-hop object may be a group; a host
/// with `nexthop_compat_mode=0` does not say more.
pub fn is_multipath(route: &RouteMessage) -> bool {
    let several = |attribute: &RouteAttribute| {
        matches!(attribute, RouteAttribute::MultiPath(_) | RouteAttribute::NhId(_))
    };
    route.attributes.iter().any(several)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address in the test")
    }

    fn route_of(kind: RouteType, attributes: Vec<RouteAttribute>) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.kind = kind;
        message.attributes = attributes;
        message
    }

    #[test]
    fn an_on_link_route_leads_to_the_client_itself_and_a_gateway_takes_its_place() {
        let remote = ip("192.0.2.7");
        let on_link = route_of(RouteType::Unicast, vec![RouteAttribute::Oif(3)]);
        assert_eq!(
            route(&on_link, remote).expect("a route"),
            KernelRoute { ifindex: 3, neighbour: remote, mtu: None }
        );
        let gateway = ip("192.0.2.1");
        let routed = route_of(
            RouteType::Unicast,
            vec![
                RouteAttribute::Gateway(gateway.into()),
                RouteAttribute::Oif(4),
                RouteAttribute::Metrics(vec![RouteMetric::Advmss(1), RouteMetric::Mtu(1400)]),
            ],
        );
        let wanted = KernelRoute { ifindex: 4, neighbour: gateway, mtu: Some(1400) };
        assert_eq!(route(&routed, remote).expect("a route"), wanted);
    }

    #[test]
    fn an_ipv4_route_may_have_an_ipv6_gateway() {
        let via = RouteVia::Inet6("fe80::1".parse().expect("an address"));
        let message = route_of(RouteType::Unicast, vec![RouteAttribute::Oif(3), RouteAttribute::Via(via)]);
        assert_eq!(route(&message, ip("192.0.2.7")).expect("a route").neighbour, ip("fe80::1"));
    }

    #[test]
    fn routes_that_lead_to_nobody_else_are_refused() {
        let refuse = |kind| route(&route_of(kind, vec![RouteAttribute::Oif(1)]), ip("192.0.2.7"));
        assert!(matches!(refuse(RouteType::Local), Err(NoNextHop::Own)));
        assert!(matches!(refuse(RouteType::Broadcast), Err(NoNextHop::NotUnicast)));
        assert!(matches!(refuse(RouteType::Multicast), Err(NoNextHop::NotUnicast)));
        for kind in [RouteType::BlackHole, RouteType::Unreachable, RouteType::Prohibit] {
            assert!(matches!(refuse(kind), Err(NoNextHop::NoRoute)));
        }
        let nowhere = route_of(RouteType::Unicast, Vec::new());
        assert!(matches!(route(&nowhere, ip("192.0.2.7")), Err(NoNextHop::NoRoute)));
    }

    #[test]
    fn addresses_no_client_can_have_are_refused_without_asking() {
        let local = ip("192.0.2.1");
        for remote in ["127.0.0.1", "224.0.0.1", "255.255.255.255", "0.0.0.0"] {
            assert!(matches!(eligible(local, ip(remote)), Err(NoNextHop::NotUnicast)), "{remote}");
        }
        assert!(matches!(eligible(local, ip("2001:db8::1")), Err(NoNextHop::Families)));
        assert!(matches!(eligible(ip("127.0.0.1"), ip("192.0.2.7")), Err(NoNextHop::NotUnicast)));
        assert!(eligible(local, ip("192.0.2.7")).is_ok());
    }

    #[test]
    fn only_ethernet_links_have_an_egress() {
        let mut message = LinkMessage::default();
        message.header.index = 5;
        message.header.link_layer_type = LinkLayerType::Ether;
        message.attributes = vec![LinkAttribute::Address(MAC.to_vec()), LinkAttribute::Mtu(1500)];
        assert_eq!(link(&message).expect("Ethernet"), Link { mac: MAC, mtu: 1500, is_up: false });
        message.header.flags = LinkFlags::Up | LinkFlags::LowerUp;
        assert!(link(&message).expect("Ethernet").is_up);
        message.header.link_layer_type = LinkLayerType::None;
        assert!(matches!(link(&message), Err(NoNextHop::NotEthernet { ifindex: 5 })));
    }

    #[test]
    fn a_neighbour_counts_only_in_states_the_kernel_itself_sends_in() {
        use NeighbourState::*;
        for state in [Reachable, Stale, Delay, Probe, Permanent, Noarp] {
            assert_eq!(neighbour(&entry(state)).mac, Some(MAC), "{state:?}");
            assert_eq!(neighbour(&entry(state)).is_confirmed, state == Reachable, "{state:?}");
        }
        for state in [Incomplete, Failed, None] {
            assert_eq!(neighbour(&entry(state)).mac, Option::None, "{state:?}");
        }
    }

    #[test]
    fn an_entry_that_somebody_looks_after_is_left_to_them() {
        use NeighbourState::*;
        for (state, is_kept) in [(Permanent, true), (Noarp, true), (Reachable, false), (Failed, false)] {
            assert_eq!(neighbour(&entry(state)).is_kept, is_kept, "{state:?}");
        }
        let mut learned = entry(Stale);
        learned.header.flags = NeighbourFlags::ExtLearned;
        let mut managed = entry(Stale);
        managed.attributes.push(NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed));
        assert!(neighbour(&learned).is_kept && neighbour(&managed).is_kept);
    }

    fn entry(state: NeighbourState) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.state = state;
        message.attributes = vec![NeighbourAttribute::LinkLayerAddress(MAC.to_vec())];
        message
    }

    #[test]
    fn only_rules_beyond_the_kernels_own_three_are_policy() {
        let rule = |priority: u32, table: u8, more: Vec<RuleAttribute>| {
            let mut message = RuleMessage::default();
            message.header.table = table;
            message.attributes = more;
            message.attributes.push(RuleAttribute::Table(table.into()));
            if priority > 0 {
                message.attributes.push(RuleAttribute::Priority(priority));
            }
            is_policy(&message)
        };
        for (priority, table) in [(0, 255), (32_766, 254), (32_767, 253)] {
            assert!(!rule(priority, table, Vec::new()), "{priority}");
        }
        assert!(rule(100, 254, Vec::new()), "another priority");
        assert!(rule(32_766, 100, Vec::new()), "another table");
        assert!(rule(32_766, 254, vec![RuleAttribute::FwMark(1)]), "a condition");
    }
}
