//! Control messages, read and written as bytes: the local address that a datagram came to, and the one that
//! an answer leaves from.
//!
//! Layout of Linux on 64-bit machines (`cmsg(3)`): length, level, type, then data, each message aligned to 8
//! bytes.

use std::net::IpAddr;

/// Bytes of a control buffer: more than both kinds of packet information need.
pub const CONTROL_BYTES: usize = 128;

const HEADER: usize = 16;
const V4_INFO: usize = 12;
const V6_INFO: usize = 20;

const _: () = assert!(cfg!(target_pointer_width = "64"), "the layout here is that of 64-bit Linux");

/// A control buffer, aligned as the kernel expects it.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub struct ControlBuffer(pub [u8; CONTROL_BYTES]);

impl Default for ControlBuffer {
    fn default() -> Self {
        Self([0; CONTROL_BYTES])
    }
}

impl ControlBuffer {
    /// The address that the datagram was sent to, from the first `len` bytes.
    ///
    /// For an IPv4 datagram on a socket of both families the kernel reports two addresses: the mapped
    /// destination, which may be a broadcast address, and IPv4's own information. The latter is used.
    pub fn local_ip(&self, len: usize) -> Option<IpAddr> {
        let mut rest = self.0.get(..len)?;
        let mut found = None;
        while let Some((message, next)) = split_message(rest) {
            let data = message.data;
            match (message.level, message.kind) {
                // `ipi_spec_dst` is the address to answer from, even if a broadcast address was asked.
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let octets: [u8; 4] = data.get(4..8)?.try_into().ok()?;
                    return Some(octets.into());
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let octets: [u8; 16] = data.get(..16)?.try_into().ok()?;
                    found = Some(IpAddr::from(octets).to_canonical());
                }
                _ => {}
            }
            rest = next;
        }
        found
    }

    /// Makes the datagram leave from `ip`; the routing chooses the interface. Returns the number of bytes
    /// used; 0 for an address that cannot be a source.
    pub fn set_source(&mut self, ip: IpAddr) -> usize {
        if ip.is_unspecified() || ip.is_multicast() {
            return 0;
        }
        let (level, kind, info) = match ip {
            IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_PKTINFO, V4_INFO),
            IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, V6_INFO),
        };
        let used = (HEADER + info).next_multiple_of(8);
        self.0[..used].fill(0);
        self.0[..8].copy_from_slice(&(HEADER + info).to_ne_bytes());
        self.0[8..12].copy_from_slice(&level.to_ne_bytes());
        self.0[12..16].copy_from_slice(&kind.to_ne_bytes());
        // The interface index is 0 in both layouts: routing and policy rules choose the interface.
        match ip {
            IpAddr::V4(ip) => self.0[HEADER + 4..HEADER + 8].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => self.0[HEADER..HEADER + 16].copy_from_slice(&ip.octets()),
        }
        used
    }
}

struct Message<'a> {
    level: i32,
    kind: i32,
    data: &'a [u8],
}

/// Splits the first message from `bytes`; returns it and the rest.
fn split_message(bytes: &[u8]) -> Option<(Message<'_>, &[u8])> {
    let [l0, l1, l2, l3, l4, l5, l6, l7, v0, v1, v2, v3, t0, t1, t2, t3] = *bytes.first_chunk::<HEADER>()?;
    let length = usize::from_ne_bytes([l0, l1, l2, l3, l4, l5, l6, l7]);
    let level = i32::from_ne_bytes([v0, v1, v2, v3]);
    let kind = i32::from_ne_bytes([t0, t1, t2, t3]);
    let data = bytes.get(HEADER..length)?;
    Some((Message { level, kind, data }, bytes.get(length.next_multiple_of(8)..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_source_reads_back_as_the_local_address() {
        for ip in ["192.0.2.7", "2001:db8::7"] {
            let ip: IpAddr = ip.parse().expect("address");
            let mut control = ControlBuffer::default();
            let used = control.set_source(ip);
            assert_eq!(control.local_ip(used), Some(ip));
        }
    }

    #[test]
    fn messages_ahead_of_the_address_are_skipped() {
        let mut info = ControlBuffer::default();
        let used = info.set_source(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)));
        let mut both = ControlBuffer::default();
        // SO_RXQ_OVFL: 4 bytes of data, padded to 8.
        both.0[..8].copy_from_slice(&20usize.to_ne_bytes());
        both.0[8..12].copy_from_slice(&libc::SOL_SOCKET.to_ne_bytes());
        both.0[12..16].copy_from_slice(&libc::SO_RXQ_OVFL.to_ne_bytes());
        both.0[24..24 + used].copy_from_slice(&info.0[..used]);
        assert_eq!(both.local_ip(24 + used), Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))));
    }

    #[test]
    fn ipv4s_own_information_counts_before_the_mapped_address() {
        let mut both = ControlBuffer::default();
        // A broadcast as a socket of both families reports it: mapped ff:ff first, then the address to answer
        // from.
        let used = both.set_source("::ffff:192.0.2.255".parse().expect("address"));
        assert_eq!(both.local_ip(used), Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 255))), "mapped alone");
        let mut info = ControlBuffer::default();
        let more = info.set_source(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)));
        both.0[used..used + more].copy_from_slice(&info.0[..more]);
        assert_eq!(both.local_ip(used + more), Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))));
    }

    #[test]
    fn no_bytes_make_the_reader_leave_the_buffer_or_loop() {
        for length in [0usize, 1, 15, 16, 17, 24, 1000, usize::MAX] {
            let mut control = ControlBuffer::default();
            control.0[..8].copy_from_slice(&length.to_ne_bytes());
            for len in 0..=CONTROL_BYTES {
                assert_eq!(control.local_ip(len), None);
            }
        }
    }

    #[test]
    fn addresses_that_cannot_be_a_source_leave_the_choice_to_the_kernel() {
        for ip in ["0.0.0.0", "::", "224.0.0.1", "ff02::1"] {
            assert_eq!(ControlBuffer::default().set_source(ip.parse().expect("address")), 0);
        }
    }
}
