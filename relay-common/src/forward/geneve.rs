//! The Geneve header as the relay speaks it (RFC 8926, 3.4): no options, no reserved bits, two protocols.
//!
//! Stricter than upstream's server, which ignores version, options and reserved bits, and as strict as its clients:
//! whatever a client would not take for Geneve is not worth forwarding to it.

use crate::fastpath::reason::XdpReason;

/// Bytes of the header.
pub(super) const LEN: usize = 8;

const CONTROL: u8 = 0x80;
const PROTOCOL_DISCO: [u8; 2] = [0x7a, 0x11];
const PROTOCOL_WIREGUARD: [u8; 2] = [0x7a, 0x12];

/// The VNI of a data packet.
#[inline(always)]
pub(super) fn data_vni(header: &[u8; LEN]) -> Result<u32, XdpReason> {
    let &[version_and_options, flags, protocol_high, protocol_low, vni_high, vni_mid, vni_low, reserved] =
        header;
    if version_and_options != 0 || reserved != 0 {
        return Err(XdpReason::NotGeneve);
    }
    match (flags, [protocol_high, protocol_low]) {
        (0, PROTOCOL_DISCO | PROTOCOL_WIREGUARD) => Ok(u32::from_be_bytes([0, vni_high, vni_mid, vni_low])),
        (CONTROL, PROTOCOL_DISCO) => Err(XdpReason::Control),
        _ => Err(XdpReason::NotGeneve),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_all_first_two_bytes_only_data_and_control_are_geneve() {
        for version_and_options in 0..=255 {
            for flags in 0..=255 {
                let verdict = data_vni(&[version_and_options, flags, 0x7a, 0x11, 0, 0, 1, 0]);
                let expected = match (version_and_options, flags) {
                    (0, 0) => Ok(1),
                    (0, 0x80) => Err(XdpReason::Control),
                    _ => Err(XdpReason::NotGeneve),
                };
                assert_eq!(verdict, expected, "{version_and_options:#x} {flags:#x}");
            }
        }
    }

    #[test]
    fn of_all_protocols_only_disco_and_wireguard_are_carried() {
        for protocol in 0..=0xffffu16 {
            let [high, low] = protocol.to_be_bytes();
            let verdict = data_vni(&[0, 0, high, low, 0x12, 0x34, 0x56, 0]);
            let carried = protocol == 0x7a11 || protocol == 0x7a12;
            assert_eq!(verdict, if carried { Ok(0x0012_3456) } else { Err(XdpReason::NotGeneve) });
        }
    }

    #[test]
    fn a_control_packet_that_is_not_disco_and_a_reserved_byte_are_not_geneve() {
        assert_eq!(data_vni(&[0, 0x80, 0x7a, 0x12, 0, 0, 1, 0]), Err(XdpReason::NotGeneve));
        for reserved in 1..=255 {
            assert_eq!(data_vni(&[0, 0, 0x7a, 0x12, 0, 0, 1, reserved]), Err(XdpReason::NotGeneve));
        }
    }
}
