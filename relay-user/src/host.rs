//! This host's addresses, and sockets on all of them.

pub mod addresses;
pub mod links;
pub mod netlink;
pub mod wildcard;

use std::net::SocketAddr;

/// The plain IPv4 address of an IPv4 client of a dual-stack socket.
pub fn unmapped(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}
