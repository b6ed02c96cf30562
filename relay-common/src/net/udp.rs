//! The UDP header (RFC 768).

use bytemuck::{Pod, Zeroable};

/// Ports, length, checksum.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct UdpHeader {
    /// Sender's port, network order.
    pub source_port: [u8; 2],
    /// Receiver's port, network order.
    pub destination_port: [u8; 2],
    /// Header and payload in bytes, network order.
    pub length: [u8; 2],
    /// Covers pseudo-header, header and payload, network order; over IPv4, zero means that the sender
    /// computed none.
    pub checksum: [u8; 2],
}

header_view!(UdpHeader, 8);

/// The `checksum` value of a sender that computed none (IPv4 only).
pub const NO_CHECKSUM: [u8; 2] = [0, 0];
