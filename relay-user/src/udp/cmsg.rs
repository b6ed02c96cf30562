//! Control messages, read and written as bytes: what the kernel says of a received message, and what is asked
//! for one that is sent.
//!
//! Layout of Linux on 64-bit machines (`cmsg(3)`): length, level, type, then data, each message aligned to 8
//! bytes.

use std::net::{IpAddr, SocketAddr};

/// Bytes of a control buffer: more than all notes of one message need (168, for an IPv4 message on a socket
/// of both families).
pub const CONTROL_BYTES: usize = 192;

const HEADER: usize = 16;
const V4_INFO: usize = 12;
const V6_INFO: usize = 20;

const _: () = assert!(cfg!(target_pointer_width = "64"), "the layout here is that of 64-bit Linux");

/// A control buffer, aligned as the kernel expects it.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub struct ControlBuffer(pub [u8; CONTROL_BYTES]);

/// What the kernel says of a received message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// The address of this host that the message was sent to.
    pub local_ip: Option<IpAddr>,
    /// The message is a train: datagrams of this many bytes each, of which the last may be shorter. 0: it is
    /// one datagram.
    pub segment: usize,
    /// The TOS or traffic class byte, ECN bits included.
    pub tos: u8,
    /// How many messages the socket's queue has dropped since the socket was made (modulo 2^32), if any.
    pub queue_drops: Option<u32>,
}

/// What is asked for a message that is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// The address of this host that the message leaves from; `None`: the kernel chooses.
    pub from: Option<IpAddr>,
    /// The TOS or traffic class byte.
    pub tos: u8,
    /// Bytes of each datagram that the kernel makes of the message; 0: the message is one datagram.
    pub segment: usize,
}

impl Default for ControlBuffer {
    fn default() -> Self {
        Self([0; CONTROL_BYTES])
    }
}

impl ControlBuffer {
    /// Writes the wishes for a message to `to`. Returns the number of bytes used.
    pub fn write(&mut self, to: SocketAddr, wishes: &Wishes) -> usize {
        let mut used = 0;
        match wishes.from {
            Some(ip) if ip.is_unspecified() || ip.is_multicast() => {}
            // The interface index is 0 in both layouts: routing and policy rules choose the interface.
            Some(IpAddr::V4(ip)) => {
                let mut info = [0; V4_INFO];
                info[4..8].copy_from_slice(&ip.octets());
                self.push(&mut used, libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            Some(IpAddr::V6(ip)) => {
                let mut info = [0; V6_INFO];
                info[..16].copy_from_slice(&ip.octets());
                self.push(&mut used, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
            None => {}
        }
        if wishes.tos != 0 {
            // A mapped address leaves as IPv4, whatever the socket's family.
            let (level, kind) = match to.ip().to_canonical() {
                IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TOS),
                IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
            };
            self.push(&mut used, level, kind, &i32::from(wishes.tos).to_ne_bytes());
        }
        if let Some(segment) = u16::try_from(wishes.segment).ok().filter(|size| *size > 0) {
            self.push(&mut used, libc::SOL_UDP, libc::UDP_SEGMENT, &segment.to_ne_bytes());
        }
        used
    }

    fn push(&mut self, used: &mut usize, level: i32, kind: i32, data: &[u8]) {
        let length = HEADER + data.len();
        let padded = length.next_multiple_of(8);
        let message = &mut self.0[*used..*used + padded];
        message[..8].copy_from_slice(&length.to_ne_bytes());
        message[8..12].copy_from_slice(&level.to_ne_bytes());
        message[12..16].copy_from_slice(&kind.to_ne_bytes());
        message[HEADER..length].copy_from_slice(data);
        message[length..].fill(0);
        *used += padded;
    }
}

impl Notes {
    /// Reads the control messages in `bytes`; what is damaged or unknown is skipped.
    ///
    /// For an IPv4 message on a socket of both families the kernel reports two addresses: the mapped
    /// destination, which may be a broadcast address, and IPv4's own information. The latter is used.
    pub fn read(bytes: &[u8]) -> Self {
        let mut notes = Self::default();
        let mut own_v4 = false;
        let mut rest = bytes;
        while let Some((message, next)) = split_message(rest) {
            let data = message.data;
            match (message.level, message.kind) {
                // `ipi_spec_dst` is the address to answer from, even if a broadcast address was asked.
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    if let Some(octets) = data.get(4..8).and_then(<[u8]>::first_chunk::<4>) {
                        notes.local_ip = Some(IpAddr::from(*octets));
                        own_v4 = true;
                    }
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    if let Some(octets) = data.first_chunk::<16>().filter(|_| !own_v4) {
                        notes.local_ip = Some(IpAddr::from(*octets).to_canonical());
                    }
                }
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    notes.segment = number(data).map_or(0, |size| usize::try_from(size).unwrap_or(0));
                }
                (libc::IPPROTO_IP, libc::IP_TOS) => notes.tos = data.first().copied().unwrap_or(0),
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                    notes.tos = number(data).map_or(0, |class| class as u8);
                }
                (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
                    notes.queue_drops = data.first_chunk::<4>().map(|bytes| u32::from_ne_bytes(*bytes));
                }
                _ => {}
            }
            rest = next;
        }
        notes
    }
}

/// An `int` of the kernel's.
fn number(data: &[u8]) -> Option<i32> {
    data.first_chunk::<4>().map(|bytes| i32::from_ne_bytes(*bytes))
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
    use proptest::prelude::*;

    use super::*;

    const TO: &str = "192.0.2.1:9";

    fn write(to: &str, wishes: Wishes) -> Vec<u8> {
        let mut control = ControlBuffer([0xff; CONTROL_BYTES]);
        let used = control.write(to.parse().expect("address"), &wishes);
        control.0[..used].to_vec()
    }

    fn from(ip: &str) -> Wishes {
        Wishes { from: Some(ip.parse().expect("address")), ..Wishes::default() }
    }

    fn raw(level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
        let mut control = ControlBuffer::default();
        let mut used = 0;
        control.push(&mut used, level, kind, data);
        control.0[..used].to_vec()
    }

    #[test]
    fn a_source_reads_back_as_the_local_address() {
        for ip in ["192.0.2.7", "2001:db8::7"] {
            let notes = Notes::read(&write(TO, from(ip)));
            assert_eq!(notes, Notes { local_ip: ip.parse().ok(), ..Notes::default() });
        }
    }

    #[test]
    fn the_tos_byte_goes_by_the_family_that_leaves_and_nothing_is_written_for_zero() {
        let mapped = "[::ffff:192.0.2.1]:9";
        for (to, level) in [(TO, 0), (mapped, 0), ("[2001:db8::1]:9", libc::IPPROTO_IPV6)] {
            let bytes = write(to, Wishes { tos: 0xb9, ..Wishes::default() });
            assert_eq!(bytes[8..12], level.to_ne_bytes(), "{to}");
            assert_eq!(Notes::read(&bytes).tos, 0xb9, "{to}");
            assert!(write(to, Wishes::default()).is_empty());
        }
    }

    #[test]
    fn a_segment_size_is_sixteen_bits_and_one_datagram_has_none() {
        let bytes = write(TO, Wishes { segment: 1300, ..Wishes::default() });
        assert_eq!(bytes[..8], 18usize.to_ne_bytes());
        assert_eq!(bytes[16..18], 1300u16.to_ne_bytes());
        for segment in [0, 65_536] {
            assert!(write(TO, Wishes { segment, ..Wishes::default() }).is_empty());
        }
    }

    #[test]
    fn every_note_is_found_whatever_stands_before_it() {
        let notes = [
            raw(libc::SOL_SOCKET, libc::SO_RXQ_OVFL, &u32::MAX.to_ne_bytes()),
            raw(libc::IPPROTO_IP, libc::IP_TOS, &[0x2e]),
            raw(libc::SOL_UDP, libc::UDP_GRO, &1300i32.to_ne_bytes()),
            write(TO, from("192.0.2.1")),
            raw(99, 99, b"unknown"),
        ];
        let expected = Notes {
            local_ip: "192.0.2.1".parse().ok(),
            segment: 1300,
            tos: 0x2e,
            queue_drops: Some(u32::MAX),
        };
        for turn in 0..notes.len() {
            let mut order = notes.to_vec();
            order.rotate_left(turn);
            assert_eq!(Notes::read(&order.concat()), expected);
        }
    }

    #[test]
    fn ipv4s_own_information_counts_in_either_order() {
        // A broadcast as a socket of both families reports it: mapped ff:ff, and the address to answer from.
        let mapped = write(TO, from("::ffff:192.0.2.255"));
        assert_eq!(Notes::read(&mapped).local_ip, "192.0.2.255".parse().ok(), "mapped alone");
        let own = write(TO, from("192.0.2.1"));
        for both in [[mapped.clone(), own.clone()].concat(), [own, mapped].concat()] {
            assert_eq!(Notes::read(&both).local_ip, "192.0.2.1".parse().ok());
        }
    }

    #[test]
    fn no_length_makes_the_reader_leave_the_buffer_or_loop() {
        for length in [0usize, 1, 15, 16, 17, 24, 1000, usize::MAX] {
            let mut control = [0; CONTROL_BYTES];
            control[..8].copy_from_slice(&length.to_ne_bytes());
            for len in 0..=CONTROL_BYTES {
                assert_eq!(Notes::read(&control[..len]), Notes::default());
            }
        }
    }

    #[test]
    fn sizes_that_cannot_be_are_no_train() {
        for size in [0i32, -1, i32::MIN] {
            assert_eq!(Notes::read(&raw(libc::SOL_UDP, libc::UDP_GRO, &size.to_ne_bytes())).segment, 0);
        }
        assert_eq!(Notes::read(&raw(libc::SOL_UDP, libc::UDP_GRO, &[1, 0])).segment, 0, "cut short");
    }

    #[test]
    fn addresses_that_cannot_be_a_source_leave_the_choice_to_the_kernel() {
        for ip in ["0.0.0.0", "::", "224.0.0.1", "ff02::1"] {
            assert!(write(TO, from(ip)).is_empty());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..CONTROL_BYTES)) {
            let _ = Notes::read(&bytes);
        }

        #[test]
        fn what_is_written_for_ipv4_fits_and_reads_back(
            ip in any::<[u8; 16]>(), tos in any::<u8>(), segment in 0..70_000usize,
        ) {
            let wishes = Wishes { from: Some(IpAddr::from(ip)), tos, segment };
            prop_assert_eq!(Notes::read(&write(TO, wishes)).tos, tos);
        }
    }
}
