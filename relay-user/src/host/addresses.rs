//! The addresses at which clients may reach this host. An allocation advertises them if no static endpoints
//! are configured.
//!
//! Only unicast addresses, without loopback and link-local ones: neither leads here from another host. IPv4
//! comes first. At most two IPv6 addresses of a subnet are used, because privacy extensions collect many and
//! the client pings every address it gets.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use nix::{ifaddrs::getifaddrs, net::if_::InterfaceFlags, sys::socket::SockaddrStorage};

/// IPv6 addresses of one subnet that are advertised at most.
const PER_SUBNET: usize = 2;

/// The host's unicast addresses with `port`, read now. Empty if there are none or the kernel reported an
/// error.
pub fn unicast(port: u16) -> Vec<SocketAddr> {
    let interfaces = match getifaddrs() {
        Ok(interfaces) => interfaces,
        Err(error) => {
            tracing::warn!(%error, "the host's addresses could not be read");
            return Vec::new();
        }
    };
    let up = interfaces.filter(|found| found.flags.contains(InterfaceFlags::IFF_UP));
    let found = up.filter_map(|found| Some((ip(&found.address?)?, found.netmask.as_ref().and_then(ip))));
    choose(found).into_iter().map(|ip| SocketAddr::new(ip, port)).collect()
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(v4.ip().into());
    }
    address.as_sockaddr_in6().map(|v6| v6.ip().into())
}

/// Chooses from (address, netmask) pairs; keeps the kernel's order within a family.
fn choose(found: impl IntoIterator<Item = (IpAddr, Option<IpAddr>)>) -> Vec<IpAddr> {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    let mut subnets = BTreeMap::<u128, usize>::new();
    for (address, mask) in found {
        match address {
            IpAddr::V4(ip) => {
                let usable = !(ip.is_loopback()
                    || ip.is_link_local()
                    || ip.is_unspecified()
                    || ip.is_multicast()
                    || ip.is_broadcast());
                if usable && !v4.contains(&address) {
                    v4.push(address);
                }
            }
            IpAddr::V6(ip) => {
                let usable = !(ip.is_loopback()
                    || ip.is_unicast_link_local()
                    || ip.is_unspecified()
                    || ip.is_multicast()
                    || ip.to_ipv4_mapped().is_some());
                if !usable || v6.contains(&address) {
                    continue;
                }
                let mask =
                    if let Some(IpAddr::V6(mask)) = mask { mask } else { Ipv6Addr::from_bits(u128::MAX) };
                let taken = subnets.entry(ip.to_bits() & mask.to_bits()).or_default();
                if *taken < PER_SUBNET {
                    *taken += 1;
                    v6.push(address);
                }
            }
        }
    }
    v4.append(&mut v6);
    v4
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Vec<(IpAddr, Option<IpAddr>)> {
        list.iter().map(|(address, mask)| (parse(address), Some(parse(mask)))).collect()
    }

    fn parse(text: &str) -> IpAddr {
        text.parse().expect("an address in the test")
    }

    #[test]
    fn ipv4_comes_first_and_unreachable_addresses_are_left_out() {
        let found = pairs(&[
            ("::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("fe80::1", "ffff:ffff:ffff:ffff::"),
            ("2001:db8::1", "ffff:ffff:ffff:ffff::"),
            ("127.0.0.1", "255.0.0.0"),
            ("169.254.3.4", "255.255.0.0"),
            ("192.0.2.1", "255.255.255.0"),
        ]);
        assert_eq!(choose(found), [parse("192.0.2.1"), parse("2001:db8::1")]);
    }

    #[test]
    fn a_subnet_gives_two_ipv6_addresses_and_every_ipv4_address() {
        let mask6 = "ffff:ffff:ffff:ffff::";
        let found = pairs(&[
            ("2001:db8:0:1::1", mask6),
            ("2001:db8:0:1::2", mask6),
            ("2001:db8:0:1::3", mask6),
            ("2001:db8:0:2::1", mask6),
            ("192.0.2.1", "255.255.255.0"),
            ("192.0.2.2", "255.255.255.0"),
            ("192.0.2.3", "255.255.255.0"),
            ("192.0.2.3", "255.255.255.0"),
        ]);
        let wanted =
            ["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8:0:1::1", "2001:db8:0:1::2", "2001:db8:0:2::1"];
        assert_eq!(choose(found), wanted.map(parse));
    }
}
