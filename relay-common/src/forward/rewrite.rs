//! The header rewrite: constant work on 42 bytes that cannot fail.

use super::Decision;
use crate::net::{
    Ipv4UdpHeaders,
    checksum::{Update, never_zero},
    udp::NO_CHECKSUM,
};

/// Turns a received packet into the packet for the other leg.
///
/// The TTL goes down by one, and both checksums are updated incrementally. TOS, identification and the
/// don't-fragment flag stay the same, because receivers merge packets (GRO) only while these do not vary. A
/// datagram without a UDP checksum stays without one.
#[inline(always)]
pub fn rewrite(headers: &mut Ipv4UdpHeaders, decision: &Decision) {
    let Ipv4UdpHeaders { eth, ip, udp } = headers;
    let Decision { source, destination, .. } = decision;
    // Both checksums cover the addresses.
    let addresses = Update::none().replace4(ip.source, source.ip).replace4(ip.destination, destination.ip);
    if udp.checksum != NO_CHECKSUM {
        let checksum = Update::of(udp.checksum)
            .and(addresses)
            .replace(udp.source_port, source.port)
            .replace(udp.destination_port, destination.port)
            .finish();
        udp.checksum = never_zero(checksum).to_be_bytes();
    }
    udp.source_port = source.port;
    udp.destination_port = destination.port;

    let old_ttl = ip.ttl_word();
    ip.ttl = ip.ttl.saturating_sub(1);
    ip.checksum =
        Update::of(ip.checksum).and(addresses).replace(old_ttl, ip.ttl_word()).finish().to_be_bytes();
    ip.source = source.ip;
    ip.destination = destination.ip;

    eth.source = decision.egress_mac;
    eth.destination = decision.next_hop_mac;
}
