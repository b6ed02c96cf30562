//! The content of a disco box: one byte of type, one byte of version, body.
//!
//! A body of fixed size may be followed by bytes of a later version, which are ignored. The relay itself
//! reads and writes only the three bind messages. Clients use the others, and so do nodes that allocate
//! sessions for them.

mod bind;
mod endpoint;
mod ping;

pub use bind::{BIND_LEN, Bind, BindKind};
pub use endpoint::{AllocateRequest, AllocateResponse};
pub use ping::{Ping, Pong};

use crate::endpoint::ServerEndpoint;

/// The only message version so far.
const VERSION: u8 = 0;
/// Bytes of type and version.
const PREFIX_LEN: usize = 2;

const PING: u8 = 0x01;
const PONG: u8 = 0x02;
const CALL_ME_MAYBE_VIA: u8 = 0x07;
const ALLOCATE_REQUEST: u8 = 0x08;
const ALLOCATE_RESPONSE: u8 = 0x09;

/// The message in an opened box.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// 08: a client asks a relay node for a session.
    AllocateRequest(AllocateRequest),
    /// 09: the relay node's answer.
    AllocateResponse(AllocateResponse),
    /// 04, 05, 06: the bind handshake.
    Bind(BindKind, Bind),
    /// 07: a client tells its peer about a session.
    CallMeMaybeVia(ServerEndpoint),
    /// 01: probes a path.
    Ping(Ping),
    /// 02: answers a Ping.
    Pong(Pong),
}

/// Why a plaintext is not a known message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// A lifetime is negative.
    #[error("negative lifetime")]
    Lifetime,
    /// The body is too short for its type, or is not a whole number of addresses.
    #[error("disco message has the wrong length")]
    Length,
    /// A type that this parser does not read.
    #[error("disco message of type {0:#04x}")]
    Type(u8),
    /// A later version of a message, which version 0's rules may not read.
    #[error("disco message of version {0}")]
    Version(u8),
    /// The VNI is out of range.
    #[error("VNI is out of range")]
    Vni,
}

impl Message {
    /// Parses the message in an opened box.
    ///
    /// # Errors
    /// The field that is wrong, or a type that this parser does not read.
    pub fn parse(plain: &[u8]) -> Result<Self, MessageError> {
        let ([kind, version], body) = plain.split_first_chunk().ok_or(MessageError::Length)?;
        if let Some(kind) = BindKind::from_u8(*kind) {
            return Ok(Self::Bind(kind, Bind::parse_body(body)?));
        }
        // Upstream reads a later version of these three messages as empty, so the message has no use.
        if matches!(*kind, CALL_ME_MAYBE_VIA | ALLOCATE_REQUEST | ALLOCATE_RESPONSE) && *version != VERSION {
            return Err(MessageError::Version(*version));
        }
        match *kind {
            PING => Ping::parse_body(body).map(Self::Ping),
            PONG => Pong::parse_body(body).map(Self::Pong),
            CALL_ME_MAYBE_VIA => endpoint::parse_endpoint(body).map(Self::CallMeMaybeVia),
            ALLOCATE_REQUEST => AllocateRequest::parse_body(body).map(Self::AllocateRequest),
            ALLOCATE_RESPONSE => AllocateResponse::parse_body(body).map(Self::AllocateResponse),
            other => Err(MessageError::Type(other)),
        }
    }

    /// Appends the plaintext.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::AllocateRequest(request) => {
                out.extend_from_slice(&[ALLOCATE_REQUEST, VERSION]);
                request.encode_body(out);
            }
            Self::AllocateResponse(response) => {
                out.extend_from_slice(&[ALLOCATE_RESPONSE, VERSION]);
                response.encode_body(out);
            }
            Self::Bind(kind, bind) => out.extend_from_slice(&bind.encode(*kind)),
            Self::CallMeMaybeVia(endpoint) => {
                out.extend_from_slice(&[CALL_ME_MAYBE_VIA, VERSION]);
                endpoint::encode_endpoint(endpoint, out);
            }
            Self::Ping(ping) => {
                out.extend_from_slice(&[PING, VERSION]);
                ping.encode_body(out);
            }
            Self::Pong(pong) => {
                out.extend_from_slice(&[PONG, VERSION]);
                pong.encode_body(out);
            }
        }
    }
}

/// Splits `N` bytes off the front of `body`.
fn take<const N: usize>(body: &mut &[u8]) -> Result<[u8; N], MessageError> {
    let (front, rest) = body.split_first_chunk().ok_or(MessageError::Length)?;
    *body = rest;
    Ok(*front)
}

#[cfg(test)]
mod tests;
