//! Whole Ethernet frames around a UDP payload with correct lengths and checksums, for tests and the lab.

use std::net::SocketAddrV4;
use std::vec::Vec;

use super::{IPV4_PAYLOAD_OFFSET, Ipv4UdpHeaders, checksum, eth, ipv4, udp};

/// An IPv4 datagram in an Ethernet frame.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// Link-layer address of the sender.
    pub source_mac: [u8; 6],
    /// Link-layer address of the receiver.
    pub destination_mac: [u8; 6],
    /// Sender.
    pub source: SocketAddrV4,
    /// Receiver.
    pub destination: SocketAddrV4,
    /// DSCP and ECN.
    pub tos: u8,
    /// IP identification.
    pub id: u16,
    /// Hops the packet may still take.
    pub ttl: u8,
    /// At most 65,507 bytes.
    pub payload: &'a [u8],
}

impl Datagram<'_> {
    /// The frame, without link-layer padding.
    ///
    /// # Panics
    /// If the payload does not fit into an IPv4 packet.
    pub fn to_frame(&self) -> Vec<u8> {
        let udp_length = udp::UdpHeader::LEN + self.payload.len();
        let length = |bytes: usize| u16::try_from(bytes).expect("fits into an IPv4 packet").to_be_bytes();
        let headers = Ipv4UdpHeaders {
            eth: eth::EthHeader {
                destination: self.destination_mac,
                source: self.source_mac,
                ethertype: eth::ETHERTYPE_IPV4,
            },
            ip: ipv4::Ipv4Header {
                version_ihl: ipv4::VERSION_4_NO_OPTIONS,
                tos: self.tos,
                total_length: length(ipv4::Ipv4Header::LEN + udp_length),
                id: self.id.to_be_bytes(),
                fragment: [0x40, 0],
                ttl: self.ttl,
                protocol: ipv4::PROTOCOL_UDP,
                checksum: [0, 0],
                source: self.source.ip().octets(),
                destination: self.destination.ip().octets(),
            },
            udp: udp::UdpHeader {
                source_port: self.source.port().to_be_bytes(),
                destination_port: self.destination.port().to_be_bytes(),
                length: length(udp_length),
                checksum: [0, 0],
            },
        };
        let mut frame = bytemuck::bytes_of(&headers).to_vec();
        frame.extend_from_slice(self.payload);
        fill_checksums(&mut frame);
        frame
    }
}

/// Computes both checksums of an IPv4/UDP frame in full and writes them. A frame that is too short for its
/// headers stays unchanged.
pub fn fill_checksums(frame: &mut [u8]) {
    fill_ip_checksum(frame);
    let Some((headers, payload)) = split(frame) else { return };
    let udp::UdpHeader { source_port, destination_port, length, .. } = headers.udp;
    let sum = headers.ip.pseudo_header(length).with(source_port).with(destination_port).with(length);
    headers.udp.checksum = checksum::never_zero(!sum.with_bytes(payload).fold()).to_be_bytes();
}

/// Computes and writes only the IP checksum, for frames whose UDP part is wrong on purpose.
pub fn fill_ip_checksum(frame: &mut [u8]) {
    let Some((headers, _)) = split(frame) else { return };
    headers.ip.checksum = [0, 0];
    headers.ip.checksum = checksum::full(bytemuck::bytes_of(&headers.ip)).to_be_bytes();
}

/// Whether an IPv4/UDP frame has exactly the UDP checksum that a sender would compute in full.
pub fn udp_checksum_is_right(frame: &[u8]) -> bool {
    let mut copy = frame.to_vec();
    fill_checksums(&mut copy);
    let udp = IPV4_PAYLOAD_OFFSET - udp::UdpHeader::LEN;
    frame.len() >= IPV4_PAYLOAD_OFFSET && copy[udp..IPV4_PAYLOAD_OFFSET] == frame[udp..IPV4_PAYLOAD_OFFSET]
}

/// The headers, and the payload up to the IP length: padding is not part of the sum.
fn split(frame: &mut [u8]) -> Option<(&mut Ipv4UdpHeaders, &[u8])> {
    let (headers, rest) = frame.split_first_chunk_mut()?;
    let headers = Ipv4UdpHeaders::view_mut(headers);
    let ip_payload = usize::from(u16::from_be_bytes(headers.ip.total_length))
        .saturating_sub(ipv4::Ipv4Header::LEN + udp::UdpHeader::LEN);
    let payload = rest.get(..ip_payload).unwrap_or(rest);
    Some((headers, payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_built_whole_has_both_checksums_right_and_padding_does_not_count() {
        let datagram = Datagram {
            source_mac: [2, 0, 0, 0, 0, 1],
            destination_mac: [2, 0, 0, 0, 0, 2],
            source: SocketAddrV4::new([10, 0, 0, 1].into(), 40_000),
            destination: SocketAddrV4::new([10, 0, 0, 2].into(), 7),
            tos: 0xb8,
            id: 7,
            ttl: 64,
            payload: &[1, 2, 3],
        };
        let mut frame = datagram.to_frame();
        assert_eq!(frame.len(), 45);
        let headers: &[u8; 42] = frame.first_chunk().expect("whole headers");
        assert!(Ipv4UdpHeaders::view(headers).ip.checksum_is_right());
        assert!(udp_checksum_is_right(&frame));
        frame.extend_from_slice(&[0xaa; 15]);
        assert!(udp_checksum_is_right(&frame));
        frame[44] ^= 1;
        assert!(!udp_checksum_is_right(&frame));
    }
}
