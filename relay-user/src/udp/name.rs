//! A socket address as the kernel reads and writes it.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Bytes of the longest socket address.
pub(super) const NAME_BYTES: usize = size_of::<libc::sockaddr_in6>();

/// A socket address as the kernel writes it, whatever its family.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub(super) struct Name(pub(super) [u8; NAME_BYTES]);

impl Name {
    /// An empty address.
    pub(super) const EMPTY: Self = Self([0; NAME_BYTES]);

    /// The address; `None` if its family is not IP.
    pub(super) fn decode(&self) -> Option<SocketAddr> {
        let [f0, f1, p0, p1, rest @ ..] = &self.0;
        let port = u16::from_be_bytes([*p0, *p1]);
        match i32::from(u16::from_ne_bytes([*f0, *f1])) {
            libc::AF_INET => {
                let octets: [u8; 4] = rest.get(..4)?.try_into().ok()?;
                Some(SocketAddr::new(Ipv4Addr::from(octets).into(), port))
            }
            libc::AF_INET6 => {
                let octets: [u8; 16] = rest.get(4..20)?.try_into().ok()?;
                let scope: [u8; 4] = rest.get(20..24)?.try_into().ok()?;
                Some(SocketAddrV6::new(Ipv6Addr::from(octets), port, 0, u32::from_ne_bytes(scope)).into())
            }
            _ => None,
        }
    }

    /// Stores `addr`; returns its length in bytes.
    pub(super) fn encode(&mut self, addr: SocketAddr) -> libc::socklen_t {
        let family = if addr.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 } as u16;
        *self = Self::EMPTY;
        self.0[..2].copy_from_slice(&family.to_ne_bytes());
        self.0[2..4].copy_from_slice(&addr.port().to_be_bytes());
        match addr {
            SocketAddr::V4(addr) => {
                self.0[4..8].copy_from_slice(&addr.ip().octets());
                size_of::<libc::sockaddr_in>() as libc::socklen_t
            }
            SocketAddr::V6(addr) => {
                self.0[8..24].copy_from_slice(&addr.ip().octets());
                // A link-local client can be answered only with its zone.
                self.0[24..28].copy_from_slice(&addr.scope_id().to_ne_bytes());
                NAME_BYTES as libc::socklen_t
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_port_address_and_zone() {
        for text in ["192.0.2.1:65535", "[2001:db8::1]:1", "[fe80::1%3]:9"] {
            let addr: SocketAddr = text.parse().expect("address");
            let mut name = Name::EMPTY;
            name.encode(addr);
            assert_eq!(name.decode(), Some(addr));
        }
    }
}
