//! STUN (RFC 8489) as Tailscale clients use it to learn their public address.
//!
//! Only requests that contain `tailnode` and have a correct fingerprint are answered, as upstream does
//! (`net/stun/stun.go`): attackers could use a server that answers every request for reflection.

use core::net::{IpAddr, SocketAddr};

/// Bytes of the STUN header.
pub const HEADER_LEN: usize = 20;
/// Bytes of the request that Tailscale clients send.
pub const REQUEST_LEN: usize = 40;
/// Bytes of the longest response, the one with an IPv6 address.
pub const MAX_RESPONSE_LEN: usize = 44;

const BINDING_REQUEST: [u8; 2] = [0, 1];
const BINDING_SUCCESS: [u8; 2] = [1, 1];
const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const SOFTWARE: u16 = 0x8022;
const FINGERPRINT: u16 = 0x8028;
const TAILNODE: &[u8] = b"tailnode";
/// Bytes of the FINGERPRINT attribute, header included.
const FINGERPRINT_LEN: usize = 8;

/// Type and value of an attribute.
type Attribute<'a> = (u16, &'a [u8]);

/// A transaction ID, which connects a response with its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TxId(pub [u8; 12]);

/// Why the server does not answer a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "std", derive(thiserror::Error))]
pub enum StunError {
    /// An attribute runs past the end of the datagram.
    #[cfg_attr(feature = "std", error("a STUN attribute is cut short"))]
    Attribute,
    /// The last attribute is not a fingerprint, or the fingerprint is wrong.
    #[cfg_attr(feature = "std", error("no right STUN fingerprint at the end"))]
    Fingerprint,
    /// The datagram is STUN, but not a binding request.
    #[cfg_attr(feature = "std", error("not a STUN binding request"))]
    NotRequest,
    /// The datagram is not STUN.
    #[cfg_attr(feature = "std", error("not STUN"))]
    NotStun,
    /// No software attribute says `tailnode`.
    #[cfg_attr(feature = "std", error("not the STUN request of a Tailscale client"))]
    Software,
}

/// Whether a UDP payload is STUN: it is long enough, its first two bits are zero and the magic cookie is
/// there.
pub fn is_stun(payload: &[u8]) -> bool {
    payload.len() >= HEADER_LEN && payload[0] & 0xc0 == 0 && payload[4..8] == COOKIE
}

/// Parses a request that the server answers. The length field is ignored, as in upstream.
///
/// # Errors
/// Why the server does not answer the datagram.
pub fn parse_binding_request(payload: &[u8]) -> Result<TxId, StunError> {
    if !is_stun(payload) {
        return Err(StunError::NotStun);
    }
    if !payload.starts_with(&BINDING_REQUEST) {
        return Err(StunError::NotRequest);
    }
    let (mut from_client, mut last) = (false, (0, &[][..]));
    let mut rest = &payload[HEADER_LEN..];
    while !rest.is_empty() {
        let attribute;
        (attribute, rest) = split_attribute(rest).ok_or(StunError::Attribute)?;
        from_client |= attribute == (SOFTWARE, TAILNODE);
        last = attribute;
    }
    if !from_client {
        return Err(StunError::Software);
    }
    let covered = payload.len().saturating_sub(FINGERPRINT_LEN);
    if last != (FINGERPRINT, &fingerprint(&payload[..covered])[..]) {
        return Err(StunError::Fingerprint);
    }
    Ok(tx_id(payload))
}

/// Writes the response for a client seen at `addr`, and returns its length: 32 bytes for IPv4, 44 for IPv6.
///
/// An IPv4-mapped address is written as IPv4.
pub fn binding_response(tx: TxId, addr: SocketAddr, out: &mut [u8; MAX_RESPONSE_LEN]) -> usize {
    let mut ip = [0; 16];
    let (family, ip_len) = match addr.ip().to_canonical() {
        IpAddr::V4(v4) => {
            ip[..4].copy_from_slice(&v4.octets());
            (1, 4)
        }
        IpAddr::V6(v6) => {
            ip = v6.octets();
            (2, 16)
        }
    };
    xor(&mut ip, tx);
    let [port_high, port_low] = (addr.port() ^ u16::from_be_bytes([COOKIE[0], COOKIE[1]])).to_be_bytes();
    let (value_len, end) = (4 + ip_len, HEADER_LEN + 8 + ip_len);
    put_header(out, BINDING_SUCCESS, 4 + value_len as u16, tx);
    out[20..22].copy_from_slice(&XOR_MAPPED_ADDRESS.to_be_bytes());
    out[22..24].copy_from_slice(&(value_len as u16).to_be_bytes());
    out[24..28].copy_from_slice(&[0, family, port_high, port_low]);
    out[28..end].copy_from_slice(&ip[..ip_len]);
    end
}

/// Makes the request of a Tailscale client.
#[cfg(any(test, feature = "testing"))]
pub fn binding_request(tx: TxId) -> [u8; REQUEST_LEN] {
    let mut out = [0; REQUEST_LEN];
    put_header(&mut out, BINDING_REQUEST, (REQUEST_LEN - HEADER_LEN) as u16, tx);
    out[20..24].copy_from_slice(&[0x80, 0x22, 0, 8]);
    out[24..32].copy_from_slice(TAILNODE);
    out[32..36].copy_from_slice(&[0x80, 0x28, 0, 4]);
    let fingerprint = fingerprint(&out[..32]);
    out[36..].copy_from_slice(&fingerprint);
    out
}

/// Parses a response; an IPv4-mapped address becomes IPv4.
#[cfg(any(test, feature = "testing"))]
pub fn parse_binding_response(payload: &[u8]) -> Option<(TxId, SocketAddr)> {
    if !is_stun(payload) || !payload.starts_with(&BINDING_SUCCESS) {
        return None;
    }
    let tx = tx_id(payload);
    let mut rest = &payload[HEADER_LEN..];
    while !rest.is_empty() {
        let (kind, value);
        ((kind, value), rest) = split_attribute(rest)?;
        if kind == XOR_MAPPED_ADDRESS
            && let [_, family, port_high, port_low, address @ ..] = value
        {
            let mut ip = [0; 16];
            ip.get_mut(..address.len())?.copy_from_slice(address);
            xor(&mut ip, tx);
            let ip: IpAddr = match (family, address.len()) {
                (1, 4) => [ip[0], ip[1], ip[2], ip[3]].into(),
                (2, 16) => IpAddr::from(ip).to_canonical(),
                _ => return None,
            };
            let port = u16::from_be_bytes([port_high ^ COOKIE[0], port_low ^ COOKIE[1]]);
            return Some((tx, SocketAddr::new(ip, port)));
        }
    }
    None
}

/// Splits off the first attribute (type and value) and its padding.
fn split_attribute(bytes: &[u8]) -> Option<(Attribute<'_>, &[u8])> {
    let ([k0, k1, l0, l1], rest) = bytes.split_first_chunk()?;
    let len = usize::from(u16::from_be_bytes([*l0, *l1]));
    let (padded, rest) = rest.split_at_checked(len.next_multiple_of(4))?;
    Some(((u16::from_be_bytes([*k0, *k1]), &padded[..len]), rest))
}

/// The transaction of a message; the caller has checked that the header is there.
fn tx_id(payload: &[u8]) -> TxId {
    let mut tx = [0; 12];
    tx.copy_from_slice(&payload[8..HEADER_LEN]);
    TxId(tx)
}

fn put_header(out: &mut [u8], kind: [u8; 2], attributes_len: u16, tx: TxId) {
    out[..2].copy_from_slice(&kind);
    out[2..4].copy_from_slice(&attributes_len.to_be_bytes());
    out[4..8].copy_from_slice(&COOKIE);
    out[8..HEADER_LEN].copy_from_slice(&tx.0);
}

/// XORs an address with cookie and transaction, so that no middlebox rewrites it.
fn xor(ip: &mut [u8; 16], tx: TxId) {
    ip.iter_mut().zip(COOKIE.iter().chain(&tx.0)).for_each(|(byte, mask)| *byte ^= mask);
}

/// CRC-32 of the message before the fingerprint, XORed with `STUN` (RFC 8489 section 14.7).
fn fingerprint(message: &[u8]) -> [u8; 4] {
    (crc32(message) ^ 0x5354_554e).to_be_bytes()
}

/// CRC-32 of IEEE 802.3, four bits at a time: a 64-byte table is enough for 40-byte messages.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        let crc = crc ^ u32::from(*byte);
        let crc = crc >> 4 ^ CRC_NIBBLES[(crc & 15) as usize];
        crc >> 4 ^ CRC_NIBBLES[(crc & 15) as usize]
    })
}

const CRC_NIBBLES: [u32; 16] = {
    let mut table = [0; 16];
    let mut index = 0;
    while index < 16 {
        let (mut crc, mut bit) = (index as u32, 0);
        while bit < 4 {
            crc = crc >> 1 ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
};

#[cfg(test)]
mod tests;
