//! The Ethernet II header (IEEE 802.3, 3.2), without tags.

use bytemuck::{Pod, Zeroable};

/// `ethertype` of IPv4.
pub const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];

/// Destination, source, type.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct EthHeader {
    /// Link-layer address of the receiver.
    pub destination: [u8; 6],
    /// Link-layer address of the sender.
    pub source: [u8; 6],
    /// Type of the payload, network order.
    pub ethertype: [u8; 2],
}

header_view!(EthHeader, 14);
