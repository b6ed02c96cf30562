//! The IPv6 header (RFC 8200, 3), without extension headers.

use bytemuck::{Pod, Zeroable};

use super::checksum::Sum;

/// `next_header` of UDP.
pub const NEXT_HEADER_UDP: u8 = 17;

/// The fixed 40 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Ipv6Header {
    /// Version (4 bits), traffic class (8), flow label (20).
    pub version_class_flow: [u8; 4],
    /// Bytes behind this header, network order.
    pub payload_length: [u8; 2],
    /// Type of the next header.
    pub next_header: u8,
    /// Hops the packet may still take.
    pub hop_limit: u8,
    /// Sender.
    pub source: [u8; 16],
    /// Receiver.
    pub destination: [u8; 16],
}

header_view!(Ipv6Header, 40);

impl Ipv6Header {
    /// The version field: 6 in a valid packet.
    #[inline(always)]
    pub fn version(&self) -> u8 {
        self.version_class_flow[0] >> 4
    }

    /// The pseudo-header (RFC 8200, 8.1) of a packet whose upper layer is UDP of that length.
    #[inline(always)]
    pub fn pseudo_header(&self, udp_length: [u8; 2]) -> Sum {
        Sum::default()
            .with_bytes(&self.source)
            .with_bytes(&self.destination)
            .with([0, NEXT_HEADER_UDP])
            .with(udp_length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::udp::UdpHeader;

    #[test]
    fn the_pseudo_header_makes_a_hand_computed_udp_checksum_come_out() {
        let mut bytes = [0u8; 40];
        bytes[0] = 0x6a;
        bytes[5] = 10;
        bytes[6] = NEXT_HEADER_UDP;
        bytes[23] = 1;
        bytes[39] = 2;
        let ip = Ipv6Header::view(&bytes);
        assert_eq!(ip.version(), 6);
        assert_eq!(ip.payload_length, [0, 10]);
        // ::1 to ::2, ports 7 to 9, length 10, payload 0x1234:
        // 1 + 2 + 17 + 10 (pseudo) + 7 + 9 + 10 (UDP) + 0x1234 = 0x126c, complement 0xed93.
        let udp =
            UdpHeader { source_port: [0, 7], destination_port: [0, 9], length: [0, 10], checksum: [0, 0] };
        assert_eq!(udp.checksum_over(ip.pseudo_header(udp.length), &[0x12, 0x34]), 0xed93);
    }
}
