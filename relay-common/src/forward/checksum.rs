//! The full UDP checksum of a frame, for the few whose checksum looks as if it was left to a network device.

use crate::net::{Frame, IPV4_UDP_OFFSET, checksum::Sum};

/// Whether the `length` bytes of UDP header and payload have the right checksum, given the sum of their
/// pseudo-header. `false` also if the frame does not hold them all.
#[inline(always)]
pub(super) fn is_right(frame: &impl Frame, pseudo_header: Sum, length: u16) -> bool {
    let datagram = frame.sum(IPV4_UDP_OFFSET, length);
    datagram.is_some_and(|datagram| pseudo_header.and(datagram).fold() == 0xffff)
}
