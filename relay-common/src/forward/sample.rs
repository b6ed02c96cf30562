//! A bound session, its packets, and at least one frame for every reason. Tests check both the rules on the
//! host and the loaded program against them.

use std::{net::SocketAddrV4, vec::Vec};

use super::{Maps, NextHopCopy, SessionCopy};
use crate::{
    fastpath::{
        Config, HEARTBEAT_LIMIT_NS, LegEntry, MAX_NEXT_HOPS, NextHopEntry, SessionEntry, Tag,
        reason::XdpReason,
    },
    geneve::GENEVE_LEN,
    net::{
        IPV4_PAYLOAD_OFFSET, Ipv4UdpHeaders,
        checksum::Sum,
        datagram::{Datagram, fill_checksums, fill_ip_checksum},
    },
};

/// The session's VNI.
pub const VNI: u32 = 0x0012_3456;
/// The session's slot in `LEG_STATS`.
pub const STATS_SLOT: u32 = 3;
/// The address at which both clients reach the relay.
pub const RELAY: SocketAddrV4 = SocketAddrV4::new(std::net::Ipv4Addr::new(192, 0, 2, 1), 7777);
/// The two clients.
pub const CLIENTS: [SocketAddrV4; 2] = [
    SocketAddrV4::new(std::net::Ipv4Addr::new(198, 51, 100, 10), 41_641),
    SocketAddrV4::new(std::net::Ipv4Addr::new(203, 0, 113, 20), 50_001),
];
/// Link-layer address of the relay's interface.
pub const RELAY_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
/// Link-layer addresses of the routers towards the two clients.
pub const ROUTER_MACS: [[u8; 6]; 2] = [[0x02, 0, 0, 0, 0x0a, 0x0a], [0x02, 0, 0, 0, 0x0b, 0x0b]];
/// The numbers of the ways to the two clients in `NEXTHOPS`.
pub const NEXT_HOPS: [u32; 2] = [2, 5];
/// The MTU towards both clients, in bytes.
pub const MTU: u16 = 1500;

/// The form of an IPv4 address in the maps.
pub fn mapped(address: SocketAddrV4) -> [u8; 16] {
    address.ip().to_ipv6_mapped().octets()
}

/// A leg between a client and a relay address.
pub fn leg(client: SocketAddrV4, relay: SocketAddrV4, next_hop: u32) -> LegEntry {
    LegEntry {
        remote_ip: mapped(client),
        local_ip: mapped(relay),
        remote_port: client.port().to_be_bytes(),
        local_port: relay.port().to_be_bytes(),
        next_hop,
    }
}

/// The session between the two clients; it does not expire.
pub fn session() -> SessionEntry {
    let tag = Tag { vni: VNI, generation: 1 };
    SessionEntry {
        head: tag,
        expires_ns: u64::MAX,
        stats_slot: STATS_SLOT,
        reserved: 0,
        legs: [leg(CLIENTS[0], RELAY, NEXT_HOPS[0]), leg(CLIENTS[1], RELAY, NEXT_HOPS[1])],
        tail: tag,
    }
}

/// The way to a router on `interface`, which is the relay's.
pub fn next_hop(router_mac: [u8; 6], interface: u32) -> NextHopEntry {
    NextHopEntry {
        version: 2,
        ifindex: interface,
        mtu: MTU.into(),
        egress_mac: RELAY_MAC,
        reserved: [0; 2],
        next_hop_mac: router_mac,
        reserved_too: [0; 2],
    }
}

/// The elements of `NEXTHOPS` under [`NEXT_HOPS`]: both routers are on `interface`.
pub fn next_hops(interface: u32) -> [NextHopEntry; 2] {
    ROUTER_MACS.map(|mac| next_hop(mac, interface))
}

/// The clock and the maps of a test: one session, two next hops, and nobody who changes them.
#[derive(Clone, Copy, Debug)]
pub struct StillMaps {
    /// The time.
    pub now_ns: u64,
    /// What a lookup of [`VNI`] finds.
    pub session: SessionEntry,
    /// What lies under [`NEXT_HOPS`].
    pub next_hops: [NextHopEntry; 2],
}

impl StillMaps {
    /// The sample session at a time, with both clients behind `interface`.
    pub fn new(now_ns: u64, interface: u32) -> Self {
        Self { now_ns, session: session(), next_hops: next_hops(interface) }
    }
}

impl Maps for StillMaps {
    fn now_ns(&mut self) -> u64 {
        self.now_ns
    }

    fn session(&mut self, vni: u32) -> Option<SessionCopy> {
        (vni == VNI).then_some(SessionCopy::undisturbed(self.session))
    }

    fn next_hop(&mut self, number: u32) -> Option<NextHopCopy> {
        let place = NEXT_HOPS.iter().position(|&held| held == number)?;
        Some(NextHopCopy::undisturbed(self.next_hops[place]))
    }

    fn interface(&mut self, number: u32) -> u32 {
        self.next_hop(number).map_or(0, |copy| copy.entry.ifindex)
    }
}

/// The configuration of a daemon that was alive at `now_ns`.
pub fn config(now_ns: u64) -> Config {
    Config {
        heartbeat_ns: now_ns,
        enabled: 1,
        udp_port: RELAY.port().to_be_bytes(),
        any_ingress: 0,
        reserved: 0,
    }
}

/// A data packet's UDP payload: Geneve header, then `body`.
pub fn geneve(vni: u32, body: &[u8]) -> Vec<u8> {
    let mut payload = std::vec![0, 0, 0x7a, 0x12];
    payload.extend_from_slice(&(vni << 8).to_be_bytes());
    payload.extend_from_slice(body);
    payload
}

/// The frame of a UDP payload from client `leg` to the relay.
pub fn frame(leg: usize, payload: &[u8]) -> Vec<u8> {
    Datagram {
        source_mac: ROUTER_MACS[leg],
        destination_mac: RELAY_MAC,
        source: CLIENTS[leg],
        destination: RELAY,
        tos: 0x02,
        id: 0x1234,
        ttl: 64,
        payload,
    }
    .to_frame()
}

/// The frame that the other client must receive for [`frame`] with the same arguments. It is built without
/// the rewrite.
pub fn forwarded(leg: usize, payload: &[u8]) -> Vec<u8> {
    Datagram {
        source_mac: RELAY_MAC,
        destination_mac: ROUTER_MACS[1 - leg],
        source: RELAY,
        destination: CLIENTS[1 - leg],
        tos: 0x02,
        id: 0x1234,
        ttl: 63,
        payload,
    }
    .to_frame()
}

/// One frame and the reason with which the program must end.
#[derive(Clone, Debug)]
pub struct Case {
    /// What is special about the frame.
    pub name: &'static str,
    /// The expected reason.
    pub reason: XdpReason,
    /// The frame.
    pub frame: Vec<u8>,
    /// The configuration that the daemon has set.
    pub config: Config,
    /// The map's entry for [`VNI`].
    pub session: SessionEntry,
    /// The elements of `NEXTHOPS` under [`NEXT_HOPS`].
    pub next_hops: [NextHopEntry; 2],
}

/// At least one case for every reason. `now_ns` is the time; the frames arrive on `interface`.
pub fn cases(now_ns: u64, interface: u32) -> Vec<Case> {
    let base = Case {
        name: "",
        reason: XdpReason::Forwarded,
        frame: frame(0, &geneve(VNI, b"the body of a packet")),
        config: config(now_ns),
        session: session(),
        next_hops: next_hops(interface),
    };
    let mut cases = Vec::new();
    let mut add = |reason, name, change: &dyn Fn(&mut Case)| {
        let mut case = Case { name, reason, ..base.clone() };
        change(&mut case);
        cases.push(case);
    };
    well_formed(&mut add, now_ns);
    maps(&mut add);
    malformed(&mut add);
    cases
}

type Add<'a> = &'a mut dyn FnMut(XdpReason, &'static str, &dyn Fn(&mut Case));

/// Adds frames that are well formed.
fn well_formed(add: Add<'_>, now_ns: u64) {
    use XdpReason as R;
    let first = |case: &mut Case, change: &dyn Fn(&mut LegEntry)| change(&mut case.session.legs[0]);
    let other = |case: &mut Case, change: &dyn Fn(&mut LegEntry)| change(&mut case.session.legs[1]);
    add(R::Forwarded, "from the first client", &|_| ());
    add(R::Forwarded, "from the second client", &|c| c.frame = frame(1, &geneve(VNI, &[7; 1300])));
    add(R::Forwarded, "nothing behind the Geneve header", &|c| c.frame = frame(0, &geneve(VNI, &[])));
    add(R::Forwarded, "disco between the clients", &|c| patch(&mut c.frame, IPV4_PAYLOAD_OFFSET + 3, 0x11));
    add(R::Forwarded, "link-layer padding", &|c| {
        c.frame = frame(0, &geneve(VNI, &[]));
        c.frame.resize(60, 0);
    });
    add(R::Forwarded, "no UDP checksum", &|c| c.frame[40..42].fill(0));
    add(R::Forwarded, "a wrong UDP checksum stays wrong", &|c| c.frame[40] ^= 0x5a);
    add(R::Forwarded, "TTL of two", &|c| patch(&mut c.frame, 22, 2));
    add(R::Forwarded, "a right checksum that looks partial", &|c| {
        c.frame = looks_partial(&[0xa5; 1000]);
    });
    add(R::Forwarded, "one that looks partial behind the largest datagram of a jumbo frame", &|c| {
        c.next_hops[1].mtu = 9000;
        c.frame = looks_partial(&[0x5a; 8000]);
    });
    add(R::Forwarded, "a heartbeat ahead of the clock", &|c| {
        c.config.heartbeat_ns = now_ns.saturating_add(HEARTBEAT_LIMIT_NS);
    });
    add(R::Disabled, "the kill switch", &|c| c.config.enabled = 0);
    add(R::HeartbeatStale, "a dead daemon", &|c| {
        c.config.heartbeat_ns = now_ns.saturating_sub(HEARTBEAT_LIMIT_NS + 1);
    });
    add(R::NotUdp, "ICMP", &|c| patch(&mut c.frame, 23, 1));
    add(R::OtherPort, "another port", &|c| patch(&mut c.frame, 37, 0x60));
    add(R::OtherPort, "another relay port", &|c| c.config.udp_port = [0, 1]);
    add(R::NotGeneve, "an empty datagram", &|c| c.frame = frame(0, &[]));
    add(R::NotGeneve, "one byte", &|c| c.frame = frame(0, &[7]));
    add(R::NotGeneve, "half a Geneve header", &|c| c.frame = frame(0, &geneve(VNI, &[])[..GENEVE_LEN - 1]));
    add(R::NotGeneve, "a STUN request", &|c| {
        c.frame = frame(0, &[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    });
    add(R::Control, "the bind handshake", &|c| {
        patch(&mut c.frame, IPV4_PAYLOAD_OFFSET + 1, 0x80);
        patch(&mut c.frame, IPV4_PAYLOAD_OFFSET + 3, 0x11);
    });
    add(R::UnknownVni, "nobody's VNI", &|c| c.frame = frame(0, &geneve(VNI + 1, b"who?")));
    add(R::Expired, "an expired session", &|c| c.session.expires_ns = now_ns);
    add(R::NotALeg, "a stranger's address", &|c| patch(&mut c.frame, 29, 11));
    add(R::NotALeg, "a client's other port", &|c| patch(&mut c.frame, 35, 0xff));
    add(R::NotALeg, "another address of the relay", &|c| patch(&mut c.frame, 33, 2));
    add(R::NotALeg, "another port of the relay", &|c| first(c, &|leg| leg.local_port = [0, 1]));
    add(R::NotALeg, "the same four bytes of an IPv6 client", &|c| first(c, &|leg| leg.remote_ip[0] = 0x20));
    add(R::NotALeg, "the other leg over IPv6", &|c| other(c, &|leg| leg.remote_ip[11] = 0));
    add(R::OtherMac, "another host's frame", &|c| c.frame[5] ^= 1);
    add(R::OtherMac, "a multicast frame", &|c| c.frame[0] |= 1);
    add(R::PartialChecksum, "a checksum left to the device", &|c| leave_checksum_to_device(&mut c.frame));
    add(R::PartialChecksum, "one left to the device under padding that completes it", &|c| {
        c.frame = looks_partial(&[0xa5; 1000]);
        c.frame[1000] ^= 1;
        c.frame.push(1);
    });
    add(R::TtlExpired, "TTL of one", &|c| patch(&mut c.frame, 22, 1));
    add(R::TtlExpired, "TTL of zero", &|c| patch(&mut c.frame, 22, 0));
}

/// Adds good frames, and maps that do not let them through.
fn maps(add: Add<'_>) {
    use XdpReason as R;
    add(R::Recycled, "another session's element", &|c| {
        c.session.head.vni ^= 1;
        c.session.tail.vni ^= 1;
    });
    add(R::Recycled, "a first half of another session", &|c| c.session.head.vni ^= 1);
    add(R::Recycled, "a second half of another session", &|c| c.session.tail.vni ^= 1);
    add(R::Recycled, "a first half of another binding", &|c| c.session.head.generation += 1);
    add(R::Recycled, "a second half of another binding", &|c| c.session.tail.generation += 1);
    add(R::Forwarded, "the last binding before the count starts again", &|c| {
        c.session.head.generation = u32::MAX;
        c.session.tail.generation = u32::MAX;
    });
    let from = |c: &mut Case, change: &dyn Fn(&mut NextHopEntry)| change(&mut c.next_hops[0]);
    let out = |c: &mut Case, change: &dyn Fn(&mut NextHopEntry)| change(&mut c.next_hops[1]);
    add(R::NoNextHop, "no way out now", &|c| out(c, &|hop| hop.ifindex = 0));
    add(R::NoNextHop, "no way to the sender now", &|c| from(c, &|hop| hop.ifindex = 0));
    add(R::NoNextHop, "a way out that was never written", &|c| out(c, &|hop| hop.version = 0));
    add(R::NoNextHop, "a number beyond the map", &|c| c.session.legs[1].next_hop = MAX_NEXT_HOPS);
    add(R::NoNextHop, "a sender's number beyond the map", &|c| c.session.legs[0].next_hop = u32::MAX);
    add(R::NextHopBusy, "a way out that is being written", &|c| out(c, &|hop| hop.version = 3));
    add(R::Forwarded, "the way to the sender being written", &|c| from(c, &|hop| hop.version = 3));
    add(R::WrongInterface, "the sender elsewhere", &|c| from(c, &|hop| hop.ifindex += 1));
    add(R::Forwarded, "the sender elsewhere, and any ingress allowed", &|c| {
        c.config.any_ingress = 1;
        c.next_hops[0].ifindex += 1;
    });
    add(R::OtherInterface, "the other leg elsewhere", &|c| out(c, &|hop| hop.ifindex += 1));
    add(R::OtherInterface, "the other leg elsewhere, and any ingress allowed", &|c| {
        c.config.any_ingress = 1;
        c.next_hops[1].ifindex += 1;
    });
    add(R::Forwarded, "exactly the MTU", &|c| out(c, &|hop| hop.mtu = 56));
    add(R::TooBig, "one byte over the MTU", &|c| out(c, &|hop| hop.mtu = 55));
}

/// Adds frames that are malformed, truncated or not for the relay.
fn malformed(add: Add<'_>) {
    use XdpReason as R;
    add(R::Truncated, "an Ethernet header alone", &|c| c.frame.truncate(14));
    add(R::Truncated, "half an IPv4 header", &|c| c.frame.truncate(24));
    add(R::Truncated, "half a UDP header", &|c| c.frame.truncate(38));
    add(R::NotIpv4, "ARP", &|c| c.frame[12..14].copy_from_slice(&[0x08, 0x06]));
    add(R::NotIpv4, "IPv6", &|c| c.frame[12..14].copy_from_slice(&[0x86, 0xdd]));
    add(R::NotIpv4, "a VLAN tag", &|c| c.frame[12..14].copy_from_slice(&[0x81, 0x00]));
    add(R::NotIpv4, "an 802.3 length", &|c| c.frame[12..14].copy_from_slice(&[0x00, 0x40]));
    add(R::IpOptions, "IP options", &|c| patch_ip(&mut c.frame, 14, 0x46));
    add(R::IpOptions, "a header of 16 bytes", &|c| patch_ip(&mut c.frame, 14, 0x44));
    add(R::IpOptions, "version 6 behind the IPv4 type", &|c| patch_ip(&mut c.frame, 14, 0x65));
    add(R::Fragment, "a first fragment", &|c| patch_ip(&mut c.frame, 20, 0x20));
    add(R::Fragment, "a later fragment", &|c| patch_ip(&mut c.frame, 21, 0x01));
    add(R::BadLength, "an IP packet longer than its frame", &|c| patch_ip(&mut c.frame, 17, 57));
    add(R::BadLength, "an IP packet without room for UDP", &|c| patch_ip(&mut c.frame, 17, 27));
    add(R::BadLength, "an IP packet shorter than its header", &|c| patch_ip(&mut c.frame, 17, 0));
    add(R::BadLength, "a UDP length over the packet's", &|c| c.frame[39] += 1);
    add(R::BadLength, "a UDP length under the packet's", &|c| c.frame[39] -= 1);
    add(R::BadLength, "a UDP length of zero", &|c| c.frame[39] = 0);
    add(R::BadLength, "a frame cut behind its headers", &|c| c.frame.truncate(50));
    add(R::BadIpChecksum, "a wrong IP checksum", &|c| c.frame[24] ^= 1);
    add(R::BadIpChecksum, "an IP checksum of zero", &|c| c.frame[24..26].fill(0));
    add(R::NotGeneve, "Geneve version 1", &|c| patch(&mut c.frame, IPV4_PAYLOAD_OFFSET, 0x40));
    add(R::NotGeneve, "Geneve options", &|c| patch(&mut c.frame, IPV4_PAYLOAD_OFFSET, 0x01));
    add(R::NotGeneve, "the critical bit", &|c| patch(&mut c.frame, IPV4_PAYLOAD_OFFSET + 1, 0x40));
    add(R::NotGeneve, "a reserved bit", &|c| patch(&mut c.frame, IPV4_PAYLOAD_OFFSET + 1, 0x01));
    add(R::NotGeneve, "control that is not disco", &|c| patch(&mut c.frame, IPV4_PAYLOAD_OFFSET + 1, 0x80));
    add(R::NotGeneve, "another protocol", &|c| patch(&mut c.frame, IPV4_PAYLOAD_OFFSET + 3, 0x13));
    add(R::NotGeneve, "VNI zero", &|c| c.frame = frame(0, &geneve(0, b"who?")));
    add(R::NotGeneve, "the reserved byte", &|c| patch(&mut c.frame, IPV4_PAYLOAD_OFFSET + 7, 0x01));
}

/// Changes a byte and corrects both checksums.
fn patch(frame: &mut [u8], at: usize, value: u8) {
    frame[at] = value;
    fill_checksums(frame);
}

/// Changes a byte and corrects the IP checksum.
fn patch_ip(frame: &mut [u8], at: usize, value: u8) {
    frame[at] = value;
    fill_ip_checksum(frame);
}

/// A frame of the first client with `body`, but for two bytes near its end, whose right checksum equals the
/// sum of the pseudo-header, as that of one packet in 65,536 does.
pub fn looks_partial(body: &[u8]) -> Vec<u8> {
    let mut frame = frame(0, &geneve(VNI, body));
    // The last whole word of the sum; the headers in front are of even length.
    let word = (frame.len() - 2) & !1;
    frame[word..word + 2].fill(0);
    leave_checksum_to_device(&mut frame);
    let wanted = [frame[40], frame[41]];
    fill_checksums(&mut frame);
    // The word makes up the difference: the right checksum falls as the word grows.
    let difference = Sum::default().with([frame[40], frame[41]]).with([!wanted[0], !wanted[1]]).fold();
    frame[word..word + 2].copy_from_slice(&difference.to_be_bytes());
    fill_checksums(&mut frame);
    assert_eq!([frame[40], frame[41]], wanted);
    frame
}

/// Writes the partial checksum that the kernel leaves for a device with checksum offload.
fn leave_checksum_to_device(frame: &mut [u8]) {
    let headers: &mut [u8; IPV4_PAYLOAD_OFFSET] = frame.first_chunk_mut().expect("a whole frame");
    let headers = Ipv4UdpHeaders::view_mut(headers);
    headers.udp.checksum = headers.ip.pseudo_header(headers.udp.length).fold().to_be_bytes();
}
