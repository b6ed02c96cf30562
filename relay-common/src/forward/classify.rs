//! Every check that decides whether a frame is forwarded; this module writes nothing.
//!
//! The checks run in this order: the frame alone (cheapest first), then the clock, then the session. The
//! first check that fails gives the [`XdpReason`] under which the frame is counted.

use super::{
    Decision, Endpoint, Maps, checksum,
    leg::{Addresses, LegWords},
};
use crate::{
    fastpath::{Config, HEARTBEAT_LIMIT_NS, NextHopEntry, SessionEntry, reason::XdpReason},
    geneve::{GENEVE_LEN, parse_header},
    net::{
        Frame, IPV4_PAYLOAD_OFFSET, IPV4_UDP_OFFSET, L3_OFFSET,
        eth::{ETHERTYPE_IPV4, EthHeader},
        ipv4::{self, Ipv4Header},
        udp::{NO_CHECKSUM, UdpHeader},
    },
};

/// Decides what happens to `frame`; see [`super::apply`] for the arguments.
///
/// # Errors
/// Why the frame is not forwarded.
#[inline(always)]
pub fn classify(
    frame: &impl Frame,
    config: &Config,
    ingress: u32,
    maps: &mut impl Maps,
) -> Result<Decision, XdpReason> {
    if config.enabled == 0 {
        return Err(XdpReason::Disabled);
    }
    let packet = parse(frame, config.udp_port)?;
    let now_ns = maps.now_ns();
    if now_ns.saturating_sub(config.heartbeat_ns) > HEARTBEAT_LIMIT_NS {
        return Err(XdpReason::HeartbeatStale);
    }
    let copy = maps.session(packet.vni).ok_or(XdpReason::UnknownVni)?;
    if !copy.is_of(packet.vni) {
        return Err(XdpReason::Recycled);
    }
    let SessionEntry { expires_ns, stats_slot, legs, .. } = copy.entry;
    if now_ns >= expires_ns {
        return Err(XdpReason::Expired);
    }
    let [first, second] = legs.map(LegWords::of);
    let sender = packet.sender();
    let (from_leg, from, out) = if first.is_of(sender) {
        (0, first, second)
    } else if second.is_of(sender) {
        (1, second, first)
    } else {
        return Err(XdpReason::NotALeg);
    };
    // The other leg may be bound over IPv6; userspace forwards such a session.
    let Some((source, destination)) = out.endpoints() else { return Err(XdpReason::NotALeg) };
    if config.any_ingress == 0 {
        came_by_its_interface(from.next_hop(), ingress, maps)?;
    }
    let way = way_out(out.next_hop(), maps)?;
    packet.may_leave_by(&way, ingress, frame)?;
    Ok(Decision {
        stats_slot,
        from_leg,
        payload_length: packet.payload_length,
        now_ns,
        egress_mac: way.egress_mac,
        next_hop_mac: way.next_hop_mac,
        source,
        destination,
    })
}

/// Checks that the frame came in by the interface that leads to its sender, as `rp_filter=1` does: an address
/// alone is easily forged.
#[inline(always)]
fn came_by_its_interface(next_hop: u32, ingress: u32, maps: &mut impl Maps) -> Result<(), XdpReason> {
    match maps.interface(next_hop) {
        0 => Err(XdpReason::NoNextHop),
        leads_there if leads_there == ingress => Ok(()),
        _ => Err(XdpReason::WrongInterface),
    }
}

/// The way out with that number.
#[inline(always)]
fn way_out(next_hop: u32, maps: &mut impl Maps) -> Result<NextHopEntry, XdpReason> {
    let copy = maps.next_hop(next_hop).ok_or(XdpReason::NoNextHop)?;
    if !copy.is_whole() {
        return Err(XdpReason::NextHopBusy);
    }
    // An element that was never written has neither version nor interface.
    if copy.entry.ifindex == 0 || copy.entry.version == 0 {
        return Err(XdpReason::NoNextHop);
    }
    Ok(copy.entry)
}

/// A whole IPv4/UDP/Geneve data packet for the relay's port; its session is not yet known.
struct Packet<'f> {
    eth: &'f EthHeader,
    ip: &'f Ipv4Header,
    udp: &'f UdpHeader,
    /// UDP payload bytes.
    payload_length: u16,
    vni: u32,
}

/// Makes every check that needs only the frame.
#[inline(always)]
fn parse(frame: &impl Frame, udp_port: [u8; 2]) -> Result<Packet<'_>, XdpReason> {
    let eth = EthHeader::view(frame.get(0).ok_or(XdpReason::Truncated)?);
    if eth.ethertype != ETHERTYPE_IPV4 {
        return Err(XdpReason::NotIpv4);
    }
    let ip = Ipv4Header::view(frame.get(L3_OFFSET).ok_or(XdpReason::Truncated)?);
    if ip.version_ihl != ipv4::VERSION_4_NO_OPTIONS {
        return Err(XdpReason::IpOptions);
    }
    if ip.protocol != ipv4::PROTOCOL_UDP {
        return Err(XdpReason::NotUdp);
    }
    if ip.is_fragment() {
        return Err(XdpReason::Fragment);
    }
    let udp = UdpHeader::view(frame.get(IPV4_UDP_OFFSET).ok_or(XdpReason::Truncated)?);
    let total_length = u16::from_be_bytes(ip.total_length);
    // The frame may be longer: short packets are padded to 60 bytes on the wire.
    if L3_OFFSET + usize::from(total_length) > frame.length() {
        return Err(XdpReason::BadLength);
    }
    let payload_length =
        total_length.checked_sub((Ipv4Header::LEN + UdpHeader::LEN) as u16).ok_or(XdpReason::BadLength)?;
    if udp.destination_port != udp_port {
        return Err(XdpReason::OtherPort);
    }
    if u16::from_be_bytes(udp.length) != payload_length + UdpHeader::LEN as u16 {
        return Err(XdpReason::BadLength);
    }
    if !ip.checksum_is_right() {
        return Err(XdpReason::BadIpChecksum);
    }
    // Clients also send datagrams of one byte (upstream's GSO sentinel), which are well formed but not
    // Geneve.
    if usize::from(payload_length) < GENEVE_LEN {
        return Err(XdpReason::NotGeneve);
    }
    let geneve = parse_header(frame.get(IPV4_PAYLOAD_OFFSET).ok_or(XdpReason::Truncated)?)
        .map_err(|_| XdpReason::NotGeneve)?;
    if geneve.control {
        return Err(XdpReason::Control);
    }
    Ok(Packet { eth, ip, udp, payload_length, vni: geneve.vni.get() })
}

impl Packet<'_> {
    /// The addresses of the leg that this packet came from, if it is of any.
    #[inline(always)]
    fn sender(&self) -> Addresses {
        Addresses::of(
            Endpoint { ip: self.ip.source, port: self.udp.source_port },
            Endpoint { ip: self.ip.destination, port: self.udp.destination_port },
        )
    }

    /// Whether the packet can leave by `way` without userspace.
    #[inline(always)]
    fn may_leave_by(&self, way: &NextHopEntry, ingress: u32, frame: &impl Frame) -> Result<(), XdpReason> {
        if way.ifindex != ingress {
            return Err(XdpReason::OtherInterface);
        }
        // The frame leaves through the interface on which it arrived, so it must be addressed to that
        // interface. In promiscuous mode the program also sees frames for other hosts; forwarding one would
        // deliver it twice.
        if self.eth.destination != way.egress_mac {
            return Err(XdpReason::OtherMac);
        }
        if u32::from(u16::from_be_bytes(self.ip.total_length)) > way.mtu {
            return Err(XdpReason::TooBig);
        }
        if self.ip.ttl <= 1 {
            return Err(XdpReason::TtlExpired);
        }
        if self.checksum_is_partial(frame) {
            return Err(XdpReason::PartialChecksum);
        }
        Ok(())
    }

    /// Whether the sender left the checksum to its network device, as guests and containers on this host do:
    /// the field then holds the pseudo-header's sum, and only the kernel, which still has the packet's
    /// metadata, can complete it. One in 65,536 right checksums looks the same, so that of such a packet is
    /// computed in full.
    #[inline(always)]
    fn checksum_is_partial(&self, frame: &impl Frame) -> bool {
        let pseudo_header = self.ip.pseudo_header(self.udp.length);
        self.udp.checksum != NO_CHECKSUM
            && u16::from_be_bytes(self.udp.checksum) == pseudo_header.fold()
            && !checksum::is_right(frame, pseudo_header, u16::from_be_bytes(self.udp.length))
    }
}
