//! A socket address in 18 bytes: 16-byte IP (IPv4 as `::ffff:a.b.c.d`), then the port, big-endian.
//!
//! DERP's PeerPresent frame and every disco message with an address use this encoding.

use core::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Bytes of one encoded address.
pub(crate) const ADDR_LEN: usize = 18;

/// Encodes `addr` in 18 bytes; an IPv6 scope is lost.
pub(crate) fn encode(addr: SocketAddr) -> [u8; ADDR_LEN] {
    let ip = match addr.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    let mut out = [0; ADDR_LEN];
    out[..16].copy_from_slice(&ip.octets());
    out[16..].copy_from_slice(&addr.port().to_be_bytes());
    out
}

/// Decodes an address; an IPv4-mapped address becomes IPv4.
pub(crate) fn decode(bytes: &[u8; ADDR_LEN]) -> SocketAddr {
    let (mut ip, mut port) = ([0; 16], [0; 2]);
    ip.copy_from_slice(&bytes[..16]);
    port.copy_from_slice(&bytes[16..]);
    SocketAddr::new(Ipv6Addr::from(ip).to_canonical(), u16::from_be_bytes(port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_survive_a_round_trip_and_ipv4_is_mapped() {
        let v4: SocketAddr = "192.0.2.1:41641".parse().expect("an address");
        let v6: SocketAddr = "[2001:db8::1]:1".parse().expect("an address");
        assert_eq!(decode(&encode(v4)), v4);
        assert_eq!(decode(&encode(v6)), v6);
        assert_eq!(encode(v4)[..16], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 192, 0, 2, 1]);
        assert_eq!(encode(v4)[16..], 41641u16.to_be_bytes());
    }
}
