//! The next hop by which the kernel would reach a client.

/// The data needed to send a packet towards a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// Index of the outgoing interface.
    pub ifindex: u32,
    /// Link-layer address of that interface.
    pub egress_mac: [u8; 6],
    /// Link-layer address of the neighbour.
    pub next_hop_mac: [u8; 6],
    /// Largest IP packet, in bytes, that may be sent: the route's limit if it has one, else the interface's.
    pub mtu: u32,
}
