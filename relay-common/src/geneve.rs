//! The Geneve header (RFC 8926) as the UDP relay uses it: 8 bytes, without options.
//!
//! ```text
//!   0: version(2)=0, option length(6)=0     2..4: protocol     7: reserved=0
//!   1: O(1), C(1)=0, reserved(6)=0          4..7: VNI
//! ```
//!
//! With the O bit, the payload is a bind message for the relay itself. Without it, the payload is a datagram
//! from one client to the other. This parser is as strict as upstream's client; upstream's server checks none
//! of this (`net/packet/geneve.go`). The XDP program also uses it, so [`parse_header`] has no branch that can
//! panic.

use core::fmt;

/// Bytes of the header.
pub const GENEVE_LEN: usize = 8;

/// Protocol type of disco messages.
const DISCO: [u8; 2] = [0x7a, 0x11];
/// Protocol type of WireGuard messages.
const WIREGUARD: [u8; 2] = [0x7a, 0x12];
/// The O bit in byte 1.
const CONTROL: u8 = 0x80;

/// A virtual network identifier, 1 to 2^24 - 1: the number of a UDP relay session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Vni(u32);

impl Vni {
    /// The smallest.
    pub const MIN: Self = Self(1);
    /// The largest.
    pub const MAX: Self = Self((1 << 24) - 1);

    /// The VNI with this number, if it is in range.
    #[inline(always)]
    pub const fn new(number: u32) -> Option<Self> {
        if number >= Self::MIN.0 && number <= Self::MAX.0 { Some(Self(number)) } else { None }
    }

    /// The number.
    #[inline(always)]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(feature = "std")]
impl serde::Serialize for Vni {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.0)
    }
}

#[cfg(feature = "std")]
impl<'de> serde::Deserialize<'de> for Vni {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u32::deserialize(deserializer)?;
        Self::new(number).ok_or_else(|| serde::de::Error::custom("VNI is not within 1 to 16777215"))
    }
}

/// The protocol of the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// 0x7A11: a disco message.
    Disco,
    /// 0x7A12: a WireGuard message.
    WireGuard,
}

/// A header that passed all checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geneve {
    /// The O bit: the packet is for the relay itself. It is allowed only with [`Protocol::Disco`].
    pub control: bool,
    /// The protocol of the payload.
    pub protocol: Protocol,
    /// The session.
    pub vni: Vni,
}

/// Why bytes are not a Geneve header that the relay accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "std", derive(thiserror::Error))]
pub enum GeneveError {
    /// The O bit is set and the protocol is not disco.
    #[cfg_attr(feature = "std", error("control bit on a packet that is not disco"))]
    ControlNotDisco,
    /// The option length is not zero.
    #[cfg_attr(feature = "std", error("Geneve options"))]
    Options,
    /// The protocol is neither disco nor WireGuard.
    #[cfg_attr(feature = "std", error("unknown Geneve protocol"))]
    Protocol,
    /// The C bit, a reserved bit or byte 7 is set.
    #[cfg_attr(feature = "std", error("reserved Geneve bits are set"))]
    Reserved,
    /// There are fewer than eight bytes.
    #[cfg_attr(feature = "std", error("shorter than a Geneve header"))]
    TooShort,
    /// The version is not zero.
    #[cfg_attr(feature = "std", error("unknown Geneve version"))]
    Version,
    /// The VNI is 0, which is not a session.
    #[cfg_attr(feature = "std", error("VNI is zero"))]
    ZeroVni,
}

impl Geneve {
    /// The bytes on the wire.
    #[inline(always)]
    pub const fn encode(self) -> [u8; GENEVE_LEN] {
        let [p0, p1] = match self.protocol {
            Protocol::Disco => DISCO,
            Protocol::WireGuard => WIREGUARD,
        };
        let [_, v0, v1, v2] = self.vni.get().to_be_bytes();
        [0, if self.control { CONTROL } else { 0 }, p0, p1, v0, v1, v2, 0]
    }
}

/// Parses a Geneve header.
///
/// # Errors
/// The rule that the header breaks.
#[inline(always)]
pub const fn parse_header(bytes: &[u8; GENEVE_LEN]) -> Result<Geneve, GeneveError> {
    let [b0, b1, p0, p1, v0, v1, v2, reserved] = *bytes;
    if b0 & 0xc0 != 0 {
        return Err(GeneveError::Version);
    }
    if b0 != 0 {
        return Err(GeneveError::Options);
    }
    if b1 & !CONTROL != 0 || reserved != 0 {
        return Err(GeneveError::Reserved);
    }
    let control = b1 != 0;
    let protocol = match [p0, p1] {
        DISCO => Protocol::Disco,
        WIREGUARD if control => return Err(GeneveError::ControlNotDisco),
        WIREGUARD => Protocol::WireGuard,
        _ => return Err(GeneveError::Protocol),
    };
    match Vni::new(u32::from_be_bytes([0, v0, v1, v2])) {
        Some(vni) => Ok(Geneve { control, protocol, vni }),
        None => Err(GeneveError::ZeroVni),
    }
}

/// Parses the header of a UDP payload and returns it with the bytes after it.
///
/// # Errors
/// The errors of [`parse_header`], or the payload is too short.
#[inline]
pub fn parse(payload: &[u8]) -> Result<(Geneve, &[u8]), GeneveError> {
    let (header, rest) = payload.split_first_chunk().ok_or(GeneveError::TooShort)?;
    Ok((parse_header(header)?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DATA: [u8; 8] = [0, 0, 0x7a, 0x12, 0, 0, 0xab, 0];

    fn with(index: usize, byte: u8) -> Result<Geneve, GeneveError> {
        let mut bytes = DATA;
        bytes[index] = byte;
        parse_header(&bytes)
    }

    #[test]
    fn the_three_legal_shapes_are_read_and_written_alike() {
        let vni = Vni::new(0xab).expect("in range");
        for (b1, p1, control, protocol) in [
            (0x80, 0x11, true, Protocol::Disco),
            (0x00, 0x11, false, Protocol::Disco),
            (0x00, 0x12, false, Protocol::WireGuard),
        ] {
            let bytes = [0, b1, 0x7a, p1, 0, 0, 0xab, 0];
            let geneve = Geneve { control, protocol, vni };
            assert_eq!(parse_header(&bytes), Ok(geneve));
            assert_eq!(geneve.encode(), bytes);
        }
    }

    #[test]
    fn every_other_bit_is_refused_by_name() {
        for bit in [0x40, 0x80] {
            assert_eq!(with(0, bit), Err(GeneveError::Version));
        }
        for bit in [1, 2, 4, 8, 16, 32] {
            assert_eq!(with(0, bit), Err(GeneveError::Options));
            assert_eq!(with(1, bit), Err(GeneveError::Reserved));
        }
        assert_eq!(with(1, 0x40), Err(GeneveError::Reserved), "critical options");
        assert_eq!(with(1, 0xc0), Err(GeneveError::Reserved));
        for bit in 0..8 {
            assert_eq!(with(7, 1 << bit), Err(GeneveError::Reserved));
        }
        assert_eq!(with(1, 0x80), Err(GeneveError::ControlNotDisco));
        assert_eq!(with(2, 0x65), Err(GeneveError::Protocol));
        assert_eq!(with(3, 0x13), Err(GeneveError::Protocol));
        assert_eq!(with(6, 0), Err(GeneveError::ZeroVni));
    }

    #[test]
    fn a_payload_cut_anywhere_in_the_header_is_too_short() {
        for len in 0..GENEVE_LEN {
            assert_eq!(parse(&DATA[..len]), Err(GeneveError::TooShort));
        }
        let (geneve, rest) = parse(&[0, 0, 0x7a, 0x12, 0xff, 0xff, 0xff, 0, 4]).expect("legal");
        assert_eq!((geneve.vni, rest), (Vni::MAX, &[4][..]));
    }

    #[test]
    fn a_vni_is_within_1_and_24_bits() {
        assert_eq!(Vni::new(0), None);
        assert_eq!(Vni::new(1), Some(Vni::MIN));
        assert_eq!(Vni::new(0xff_ffff), Some(Vni::MAX));
        assert_eq!(Vni::new(0x100_0000), None);
    }

    proptest! {
        #[test]
        fn what_parses_encodes_to_the_same_bytes(bytes in any::<[u8; 8]>(), fix in any::<bool>()) {
            let mut bytes = bytes;
            if fix {
                // Random bytes rarely parse, so the fixed bytes are made legal.
                bytes = [0, bytes[1] & 0x80, 0x7a, 0x11, bytes[4], bytes[5], bytes[6], 0];
            }
            if let Ok(geneve) = parse_header(&bytes) {
                prop_assert_eq!(geneve.encode(), bytes);
            }
        }
    }
}
