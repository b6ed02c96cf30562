//! The reasons with which the XDP program ends: one list for the kernel's counter, the daemon's metric and
//! its label.

/// What an exit does with the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Hand the unchanged frame to the kernel, which delivers it to the daemon's sockets.
    Pass,
    /// Drop the frame. The one verdict that differs from userspace, which would deliver the packet.
    Drop,
    /// Send the frame out of the interface on which it arrived.
    Tx,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $index:literal, $label:literal, $verdict:ident;)*) => {
        /// Every exit of the program; the value is its index in the `REASONS` map.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum XdpReason { $($(#[$doc])* $name = $index,)* }

        impl XdpReason {
            /// All reasons, by index.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The label in metrics, status and tests.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }

            /// What happens to the frame.
            pub const fn verdict(self) -> Verdict {
                match self { $(Self::$name => Verdict::$verdict,)* }
            }
        }
    };
}

reasons! {
    /// A bound session's packet went out to the other leg.
    Forwarded = 0, "forwarded", Tx;
    /// The kill switch is on, or the daemon has not written its configuration yet.
    Disabled = 1, "disabled", Pass;
    /// The daemon's heartbeat is older than [`super::HEARTBEAT_LIMIT_NS`].
    HeartbeatStale = 2, "heartbeat_stale", Pass;
    /// The frame is shorter than its headers.
    Truncated = 3, "truncated", Pass;
    /// Not IPv4: ARP, IPv6, VLAN tags and the rest.
    NotIpv4 = 4, "not_ipv4", Pass;
    /// The IPv4 header is not 20 bytes of version 4.
    IpOptions = 5, "ip_options", Pass;
    /// Not UDP.
    NotUdp = 6, "not_udp", Pass;
    /// A fragment, first or later.
    Fragment = 7, "fragment", Pass;
    /// UDP, but not to the relay's port.
    OtherPort = 8, "other_port", Pass;
    /// IP and UDP lengths disagree with each other or with the frame.
    BadLength = 9, "bad_length", Pass;
    /// The IPv4 header checksum is wrong; the kernel will drop and count it.
    BadIpChecksum = 10, "bad_ip_checksum", Pass;
    /// Not Geneve as the relay speaks it: version, options, reserved bits or byte, or protocol.
    NotGeneve = 11, "not_geneve", Pass;
    /// A control packet: the bind handshake belongs to userspace.
    Control = 12, "control", Pass;
    /// The map has no session with this VNI.
    UnknownVni = 13, "unknown_vni", Pass;
    /// The element that the lookup found was given to another session, or written anew, while it was read.
    Recycled = 14, "recycled", Pass;
    /// The session has expired.
    Expired = 15, "expired", Pass;
    /// Source and destination match neither leg.
    NotALeg = 16, "not_a_leg", Pass;
    /// There is no known way to one of the two clients now.
    NoNextHop = 17, "no_next_hop", Pass;
    /// The daemon was writing the next hop while it was read.
    NextHopBusy = 18, "next_hop_busy", Pass;
    /// The frame came in by another interface than the one that leads to its sender.
    WrongInterface = 19, "wrong_interface", Pass;
    /// The other leg is behind another interface.
    OtherInterface = 20, "other_interface", Pass;
    /// The frame is addressed to another host's link-layer address.
    OtherMac = 21, "other_mac", Pass;
    /// Larger than the other leg's MTU.
    TooBig = 22, "too_big", Pass;
    /// The TTL would reach zero. Userspace would deliver the packet, with a new TTL; dropping it ends the
    /// loop of two programs that send to each other.
    TtlExpired = 23, "ttl_expired", Drop;
    /// The UDP checksum holds only the pseudo-header sum: a local sender left the rest to its network device.
    PartialChecksum = 24, "partial_checksum", Pass;
}

/// Entries of the `REASONS` map.
pub const COUNT: u32 = XdpReason::ALL.len() as u32;
