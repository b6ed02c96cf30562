//! Which legs a change of the host's routing may concern.

use std::net::IpAddr;

use crate::route::vocabulary::LegPath;

/// Beyond so many, all legs are looked at: a routing daemon writes thousands of routes at a time.
const PREFIXES: usize = 256;

/// A set of legs, by their addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dirty {
    all: bool,
    remotes: Vec<(IpAddr, u8)>,
    locals: Vec<IpAddr>,
}

impl Dirty {
    /// Every leg.
    pub fn everything() -> Self {
        Self { all: true, ..Self::default() }
    }

    /// The legs whose client is in a network.
    pub fn remote(network: IpAddr, prefix: u8) -> Self {
        Self { remotes: vec![(network, prefix)], ..Self::default() }
    }

    /// The legs of clients at this address.
    pub fn destination(ip: IpAddr) -> Self {
        Self::remote(ip, if ip.is_ipv4() { 32 } else { 128 })
    }

    /// The legs whose client talks to this address of the host.
    pub fn local(ip: IpAddr) -> Self {
        Self { locals: vec![ip], ..Self::default() }
    }

    /// Whether it is no leg.
    pub fn is_empty(&self) -> bool {
        !self.all && self.remotes.is_empty() && self.locals.is_empty()
    }

    /// Whether it is every leg.
    pub fn is_everything(&self) -> bool {
        self.all
    }

    /// Adds another set.
    pub fn add(&mut self, other: Self) {
        for network in other.remotes {
            if !self.remotes.contains(&network) {
                self.remotes.push(network);
            }
        }
        for local in other.locals {
            if !self.locals.contains(&local) {
                self.locals.push(local);
            }
        }
        if self.all || other.all || self.remotes.len() + self.locals.len() > PREFIXES {
            *self = Self::everything();
        }
    }

    /// Whether a leg with this path is in it.
    pub fn contains(&self, path: &LegPath) -> bool {
        self.concerns(path.local.ip().to_canonical(), path.remote.ip().to_canonical())
    }

    /// Whether legs between these addresses are in it.
    pub fn concerns(&self, local: IpAddr, remote: IpAddr) -> bool {
        self.all
            || self.locals.contains(&local)
            || self.remotes.iter().any(|(network, prefix)| is_in(remote, *network, *prefix))
    }
}

fn is_in(ip: IpAddr, network: IpAddr, prefix: u8) -> bool {
    match (ip, network) {
        (IpAddr::V4(ip), IpAddr::V4(network)) => {
            let differing = (ip.to_bits() ^ network.to_bits()).leading_zeros();
            differing >= u32::from(prefix)
        }
        (IpAddr::V6(ip), IpAddr::V6(network)) => {
            let differing = (ip.to_bits() ^ network.to_bits()).leading_zeros();
            differing >= u32::from(prefix)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address in the test")
    }

    fn path(remote: &str) -> LegPath {
        LegPath { remote: (ip(remote), 1).into(), local: (ip("192.0.2.1"), 7777).into() }
    }

    #[test]
    fn a_network_concerns_the_clients_in_it() {
        let dirty = Dirty::remote(ip("10.1.0.0"), 16);
        assert!(dirty.contains(&path("10.1.255.255")) && dirty.contains(&path("::ffff:10.1.0.1")));
        assert!(!dirty.contains(&path("10.2.0.0")) && !dirty.contains(&path("2001:db8::1")));
        assert!(Dirty::remote(ip("0.0.0.0"), 0).contains(&path("10.2.0.0")), "the default route");
        assert!(Dirty::remote(ip("2001:db8::"), 32).contains(&path("2001:db8:1::1")));
        assert!(!Dirty::remote(ip("10.1.0.1"), 32).contains(&path("10.1.0.2")));
        assert!(Dirty::local(ip("192.0.2.1")).contains(&path("10.2.0.0")));
        assert!(!Dirty::local(ip("192.0.2.2")).contains(&path("10.2.0.0")));
    }

    #[test]
    fn too_many_networks_are_everything() {
        let mut dirty = Dirty::default();
        assert!(dirty.is_empty());
        for n in 0..PREFIXES as u32 {
            dirty.add(Dirty::remote(std::net::Ipv4Addr::from_bits(n << 8).into(), 24));
            dirty.add(Dirty::remote(std::net::Ipv4Addr::from_bits(n << 8).into(), 24));
        }
        assert!(!dirty.is_everything() && !dirty.contains(&path("10.2.0.0")));
        dirty.add(Dirty::remote(ip("172.16.0.0"), 12));
        assert_eq!(dirty, Dirty::everything());
        dirty.add(Dirty::remote(ip("172.16.0.0"), 12));
        assert_eq!(dirty, Dirty::everything(), "and it stays that, without a list");
        assert!(dirty.contains(&path("10.2.0.0")));
    }
}
