//! How the kernel would reach a client.

/// How to put a packet on the wire towards a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// Index of the interface it leaves by.
    pub ifindex: u32,
    /// Link-layer address of that interface.
    pub egress_mac: [u8; 6],
    /// Link-layer address of the neighbour.
    pub next_hop_mac: [u8; 6],
    /// Largest IP packet, in bytes, that may leave: the route's limit if it has one, else the interface's.
    pub mtu: u32,
}
