//! The contents of frames as borrowed values: one enum per direction.
//!
//! Parsing checks only lengths and shapes. The connection decides who may send which frame, and when.
//! Encoding writes a whole frame with its header.

mod from_client;
mod from_server;

pub use from_client::FromClient;
pub use from_server::{FromServer, PeerGoneReason, PeerPresentFlags};

use super::{
    HEADER_LEN, KEY_LEN,
    frame::{FrameType, Header},
};
use crate::key::NodePublic;

/// A frame whose payload does not have the shape of its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// The payload has the wrong number of bytes for its type.
    #[error("frame of type {:#04x} has {} payload bytes, which its type does not allow", .0.kind, .0.len)]
    Length(Header),
    /// A ServerKey frame does not start with the magic.
    #[error("no DERP magic")]
    Magic,
}

/// Header and source key of a RecvPacket frame. A relayed payload of `payload_len` bytes follows them.
pub fn recv_packet_header(source: &NodePublic, payload_len: usize) -> [u8; HEADER_LEN + KEY_LEN] {
    let mut out = [0; HEADER_LEN + KEY_LEN];
    let header = Header::new(FrameType::RecvPacket, (KEY_LEN + payload_len) as u32);
    out[..HEADER_LEN].copy_from_slice(&header.encode());
    out[HEADER_LEN..].copy_from_slice(source.as_bytes());
    out
}

/// Header, source key and destination key of a ForwardPacket frame. A relayed payload of `payload_len` bytes
/// follows them.
pub fn forward_packet_header(
    source: &NodePublic,
    dest: &NodePublic,
    payload_len: usize,
) -> [u8; HEADER_LEN + 2 * KEY_LEN] {
    let mut out = [0; HEADER_LEN + 2 * KEY_LEN];
    let header = Header::new(FrameType::ForwardPacket, (2 * KEY_LEN + payload_len) as u32);
    out[..HEADER_LEN].copy_from_slice(&header.encode());
    out[HEADER_LEN..HEADER_LEN + KEY_LEN].copy_from_slice(source.as_bytes());
    out[HEADER_LEN + KEY_LEN..].copy_from_slice(dest.as_bytes());
    out
}

/// Appends a frame whose payload is `parts`, one after another.
fn put(out: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) {
    let len = parts.iter().map(|part| part.len()).sum::<usize>();
    out.reserve(HEADER_LEN + len);
    out.extend_from_slice(&Header { kind, len: len as u32 }.encode());
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

/// Splits a key off the front.
fn key(payload: &[u8], header: Header) -> Result<(&NodePublic, &[u8]), MessageError> {
    let (key, rest) = payload.split_first_chunk().ok_or(MessageError::Length(header))?;
    Ok((NodePublic::from_ref(key), rest))
}

/// Copies the first `N` bytes; more may follow.
fn prefix<const N: usize>(payload: &[u8], header: Header) -> Result<[u8; N], MessageError> {
    payload.first_chunk().copied().ok_or(MessageError::Length(header))
}

#[cfg(test)]
mod tests;
