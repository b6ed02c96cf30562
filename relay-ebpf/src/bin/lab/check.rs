//! The checker: says for every frame whether its checksums equal those of a full computation.
//!
//! The kernel cannot tell: in generic mode and with checksum offload it accepts wrong checksums.

use aya_ebpf::bindings::xdp_action;
use relay_common::net::{
    Frame, IPV4_PAYLOAD_OFFSET, IPV4_UDP_OFFSET, Ipv4UdpHeaders,
    checksum::Sum,
    eth::ETHERTYPE_IPV4,
    ipv4,
    udp::{NO_CHECKSUM, UdpHeader},
};
use relay_ebpf::{
    lab::{Checked, MAX_CHECKED, VNI_SLOTS},
    packet::XdpFrame,
    values::change_own,
};

use crate::maps::{self, LAB_CHECKED, LAB_VNIS};

/// Counts `frame`; returns the action to leave the program with.
#[inline(always)]
pub(crate) fn check(frame: &XdpFrame) -> u32 {
    let checked = judge(frame);
    change_own(&LAB_CHECKED, checked as u32, |frames| *frames += 1);
    let drop = maps::config().is_some_and(|config| config.drop == 1);
    if drop && checked != Checked::Other { xdp_action::XDP_DROP } else { xdp_action::XDP_PASS }
}

#[inline(always)]
fn judge(frame: &XdpFrame) -> Checked {
    let Some(headers) = frame.get::<IPV4_PAYLOAD_OFFSET>(0) else { return Checked::Other };
    let Ipv4UdpHeaders { eth, ip, udp } = Ipv4UdpHeaders::view(headers);
    if eth.ethertype != ETHERTYPE_IPV4
        || ip.version_ihl != ipv4::VERSION_4_NO_OPTIONS
        || ip.protocol != ipv4::PROTOCOL_UDP
        || ip.is_fragment()
    {
        return Checked::Other;
    }
    if !ip.checksum_is_right() {
        return Checked::BadIp;
    }
    if udp.checksum == NO_CHECKSUM {
        return Checked::NoChecksum;
    }
    let length = usize::from(u16::from_be_bytes(udp.length));
    let Some(sum) = sum_datagram(frame, ip.pseudo_header(udp.length), length) else { return Checked::Other };
    if sum.fold() != 0xffff {
        return Checked::BadUdp;
    }
    if let Some(&[.., high, mid, low, _]) = frame.get::<8>(IPV4_PAYLOAD_OFFSET) {
        let vni = u32::from_be_bytes([0, high, mid, low]);
        change_own(&LAB_VNIS, vni % VNI_SLOTS, |count| {
            count.packets += 1;
            count.bytes += length.saturating_sub(UdpHeader::LEN) as u64;
        });
    }
    Checked::Good
}

/// Adds UDP header and payload, including the checksum field; `None` if the frame does not hold all of them.
#[inline(always)]
fn sum_datagram(frame: &XdpFrame, mut sum: Sum, length: usize) -> Option<Sum> {
    if length > MAX_CHECKED {
        return None;
    }
    for word in 0..MAX_CHECKED / 2 {
        let at = word * 2;
        if at + 1 < length {
            sum = sum.with(*frame.get(IPV4_UDP_OFFSET + at)?);
        } else if at < length {
            let &[last] = frame.get(IPV4_UDP_OFFSET + at)?;
            return Some(sum.with([last, 0]));
        } else {
            break;
        }
    }
    Some(sum)
}
