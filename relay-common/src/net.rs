//! Header views and checksums over any frame that gives bounds-checked access to arrays.
//!
//! The XDP program and the host run the same code on different memory: only their [`Frame`] differs. Every
//! access reads a whole array at a constant offset, because the kernel's verifier can prove such an access.

/// Gives a header made of byte arrays its length and its views over raw bytes.
macro_rules! header_view {
    ($header:ty, $len:expr) => {
        const _: () = assert!(size_of::<$header>() == $len);

        impl $header {
            /// Bytes on the wire.
            pub const LEN: usize = $len;

            /// Reads `bytes` as this header, in place.
            #[inline(always)]
            pub fn view(bytes: &[u8; $len]) -> &Self {
                bytemuck::must_cast_ref(bytes)
            }

            /// The same as `view`, for writing.
            #[inline(always)]
            pub fn view_mut(bytes: &mut [u8; $len]) -> &mut Self {
                bytemuck::must_cast_mut(bytes)
            }
        }
    };
}

pub mod checksum;
#[cfg(any(test, feature = "testing"))]
pub mod datagram;
pub mod eth;
pub mod ipv4;
pub mod udp;

use bytemuck::{Pod, Zeroable};

use checksum::Sum;
use eth::EthHeader;
use ipv4::Ipv4Header;
use udp::UdpHeader;

/// One received frame, starting with its Ethernet header.
pub trait Frame {
    /// Bytes in the frame, including link-layer padding.
    fn length(&self) -> usize;

    /// The `N` bytes at `offset`; `None` if the frame is too short.
    fn get<const N: usize>(&self, offset: usize) -> Option<&[u8; N]>;

    /// The same as `get`, for writing.
    fn get_mut<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8; N]>;

    /// The sum of `length` bytes at `offset`, as if they began on a word boundary; `None` if the frame is too
    /// short. This reads the whole of them: it is for rare frames.
    fn sum(&self, offset: usize, length: u16) -> Option<Sum>;
}

/// A frame in ordinary memory. Tests and fuzzers run the rules on it.
#[derive(Debug)]
pub struct SliceFrame<'a>(pub &'a mut [u8]);

impl Frame for SliceFrame<'_> {
    fn length(&self) -> usize {
        self.0.len()
    }

    fn get<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        self.0.get(offset..)?.first_chunk()
    }

    fn get_mut<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8; N]> {
        self.0.get_mut(offset..)?.first_chunk_mut()
    }

    fn sum(&self, offset: usize, length: u16) -> Option<Sum> {
        Some(Sum::default().with_bytes(self.0.get(offset..)?.get(..length.into())?))
    }
}

/// Offset of the network header in an untagged frame, in bytes.
pub const L3_OFFSET: usize = EthHeader::LEN;
/// Offset of the UDP header behind an IPv4 header without options, in bytes.
pub const IPV4_UDP_OFFSET: usize = L3_OFFSET + Ipv4Header::LEN;
/// Offset of the UDP payload behind an IPv4 header without options, in bytes.
pub const IPV4_PAYLOAD_OFFSET: usize = IPV4_UDP_OFFSET + UdpHeader::LEN;

/// All headers that the rewrite changes. One bounds check covers them, so a rewrite cannot stop halfway.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Ipv4UdpHeaders {
    /// Link layer.
    pub eth: EthHeader,
    /// Network layer, without options.
    pub ip: Ipv4Header,
    /// Transport layer.
    pub udp: UdpHeader,
}

header_view!(Ipv4UdpHeaders, IPV4_PAYLOAD_OFFSET);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_frame_hands_out_only_bytes_it_has() {
        let mut bytes = [1u8, 2, 3, 4];
        let mut frame = SliceFrame(&mut bytes);
        assert_eq!(frame.length(), 4);
        assert_eq!(frame.get::<2>(2), Some(&[3, 4]));
        assert_eq!(frame.get::<2>(3), None);
        assert_eq!(frame.get::<1>(usize::MAX), None);
        assert_eq!(frame.get::<0>(4), Some(&[]));
        assert_eq!(frame.get_mut::<2>(3), None);
        let sum = |offset, length| frame.sum(offset, length).map(Sum::fold);
        assert_eq!([sum(0, 4), sum(1, 2), sum(3, 1), sum(4, 0)], [0x0406, 0x0203, 0x0400, 0].map(Some));
        assert_eq!([sum(0, 5), sum(4, 1), sum(usize::MAX, 1)], [None; 3]);
        *frame.get_mut::<1>(0).expect("the first byte is there") = [9];
        assert_eq!(bytes, [9, 2, 3, 4]);
    }

    #[test]
    fn the_headers_lie_where_the_offsets_say() {
        let mut bytes = [0u8; IPV4_PAYLOAD_OFFSET];
        bytes[L3_OFFSET] = 0x45;
        bytes[IPV4_UDP_OFFSET + 3] = 53;
        let headers = Ipv4UdpHeaders::view(&bytes);
        assert_eq!(headers.ip.version_ihl, 0x45);
        assert_eq!(headers.udp.destination_port, [0, 53]);
    }
}
