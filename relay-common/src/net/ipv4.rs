//! The IPv4 header without options (RFC 791, 3.1).

use bytemuck::{Pod, Zeroable};

use super::checksum::Sum;

/// `version_ihl` of version 4 with a header of 20 bytes.
pub const VERSION_4_NO_OPTIONS: u8 = 0x45;
/// `protocol` of UDP.
pub const PROTOCOL_UDP: u8 = 17;

/// More-fragments flag and fragment offset: all zero in a whole packet.
const FRAGMENT_BITS: u16 = 0x3fff;

/// The fixed 20 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Ipv4Header {
    /// Version in the upper four bits, header length in words of 4 bytes in the lower.
    pub version_ihl: u8,
    /// DSCP and ECN.
    pub tos: u8,
    /// Header and payload in bytes, network order.
    pub total_length: [u8; 2],
    /// Identification, network order.
    pub id: [u8; 2],
    /// Flags and fragment offset, network order.
    pub fragment: [u8; 2],
    /// Hops the packet may still take.
    pub ttl: u8,
    /// Protocol of the payload.
    pub protocol: u8,
    /// One's complement of the header's one's-complement sum, network order.
    pub checksum: [u8; 2],
    /// Sender.
    pub source: [u8; 4],
    /// Receiver.
    pub destination: [u8; 4],
}

header_view!(Ipv4Header, 20);

impl Ipv4Header {
    /// Whether this is a piece of a packet, first or later.
    #[inline(always)]
    pub fn is_fragment(&self) -> bool {
        u16::from_be_bytes(self.fragment) & FRAGMENT_BITS != 0
    }

    /// Whether the header, checksum field included, sums to all ones (RFC 1071).
    #[inline(always)]
    pub fn checksum_is_right(&self) -> bool {
        Sum::default()
            .with([self.version_ihl, self.tos])
            .with(self.total_length)
            .with(self.id)
            .with(self.fragment)
            .with(self.ttl_word())
            .with(self.checksum)
            .with4(self.source)
            .with4(self.destination)
            .fold()
            == 0xffff
    }

    /// TTL and protocol: the 16-bit word of the checksum that contains the TTL.
    #[inline(always)]
    pub fn ttl_word(&self) -> [u8; 2] {
        [self.ttl, self.protocol]
    }

    /// The UDP pseudo-header (RFC 768) of this packet with that UDP length.
    #[inline(always)]
    pub fn pseudo_header(&self, udp_length: [u8; 2]) -> Sum {
        Sum::default().with4(self.source).with4(self.destination).with([0, self.protocol]).with(udp_length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fragment_is_told_by_more_fragments_or_offset_and_not_by_dont_fragment() {
        let with = |fragment| Ipv4Header { fragment, ..Ipv4Header::zeroed() }.is_fragment();
        assert!(!with([0x00, 0x00]));
        assert!(!with([0x40, 0x00]));
        assert!(with([0x20, 0x00]));
        assert!(with([0x00, 0x01]));
        assert!(with([0x1f, 0xff]));
    }

    #[test]
    fn the_header_checksum_of_a_known_packet_is_right_and_one_flipped_bit_is_seen() {
        // A widely used example header from articles about the IPv4 checksum: 0xb861.
        let mut bytes = [
            0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0x00, 0x01,
            0xc0, 0xa8, 0x00, 0xc7,
        ];
        assert!(Ipv4Header::view(&bytes).checksum_is_right());
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!Ipv4Header::view(&bytes).checksum_is_right(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
