//! This host's addresses, and sockets on all of them.

pub mod addresses;
pub mod wildcard;

use std::net::SocketAddr;

/// An IPv4 client of a dual-stack socket, as the IPv4 address it is.
pub fn unmapped(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}
