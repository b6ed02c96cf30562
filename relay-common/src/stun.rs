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
const MAPPED_ADDRESS: u16 = 0x0001;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
/// XOR-MAPPED-ADDRESS as servers older than RFC 5389 number it.
const OLD_XOR_MAPPED_ADDRESS: u16 = 0x8020;
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

/// Whether a UDP payload at a port that is not for STUN is for a STUN client there: STUN, and of the type of
/// an answer. Upstream tells them apart in the same way; the second byte of no Geneve packet is 1.
pub fn is_answer(payload: &[u8]) -> bool {
    is_stun(payload) && payload[1] == BINDING_SUCCESS[1]
}

/// Makes the request of a Tailscale client.
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

/// Parses a response: its transaction, and the address from which the server saw the request. The address is
/// the last XOR-MAPPED-ADDRESS; if there is none, the last MAPPED-ADDRESS. An IPv4-mapped address becomes
/// IPv4. What follows the length in the header is ignored.
///
/// `None`: not a binding response, an attribute runs past the end, or there is no address.
pub fn parse_binding_response(payload: &[u8]) -> Option<(TxId, SocketAddr)> {
    if !is_stun(payload) || !payload.starts_with(&BINDING_SUCCESS) {
        return None;
    }
    let tx = tx_id(payload);
    let len = usize::from(u16::from_be_bytes([payload[2], payload[3]]));
    let mut rest = payload[HEADER_LEN..].get(..len)?;
    let (mut hidden, mut plain) = (None, None);
    while !rest.is_empty() {
        let (kind, value);
        ((kind, value), rest) = split_attribute(rest)?;
        match kind {
            XOR_MAPPED_ADDRESS | OLD_XOR_MAPPED_ADDRESS => hidden = Some(address(value, Some(tx))?),
            MAPPED_ADDRESS => plain = Some(address(value, None)?),
            _ => {}
        }
    }
    Some((tx, hidden.or(plain)?))
}

/// The value of MAPPED-ADDRESS or, with the transaction, of XOR-MAPPED-ADDRESS.
fn address(value: &[u8], hidden_by: Option<TxId>) -> Option<SocketAddr> {
    let ([_, family, port @ ..], address) = value.split_first_chunk::<4>()?;
    let (mut port, mut ip) = (u16::from_be_bytes(*port), [0; 16]);
    let len = match family {
        1 => 4,
        2 => 16,
        _ => return None,
    };
    ip[..len].copy_from_slice(address.get(..len)?);
    if let Some(tx) = hidden_by {
        xor(&mut ip, tx);
        port ^= u16::from_be_bytes([COOKIE[0], COOKIE[1]]);
    }
    let ip = match len {
        4 => IpAddr::from([ip[0], ip[1], ip[2], ip[3]]),
        _ => IpAddr::from(ip).to_canonical(),
    };
    Some(SocketAddr::new(ip, port))
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
