//! The bind handshake, with which a client binds its leg of a session: Bind, Challenge, Answer.
//!
//! All three messages have the same 72-byte body, sealed between a client's disco key and the relay's.

use super::{MessageError, PREFIX_LEN, VERSION, take};
use crate::{challenge::CHALLENGE_LEN, geneve::Vni, key::DiscoPublic};

/// Bytes of the plaintext of a bind message.
pub const BIND_LEN: usize = PREFIX_LEN + 72;

/// Which step of the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum BindKind {
    /// 04, client to relay: asks to bind from this address.
    Bind = 0x04,
    /// 05, relay to client: a challenge for that address.
    Challenge = 0x05,
    /// 06, client to relay: the challenge, repeated.
    Answer = 0x06,
}

impl BindKind {
    /// The step with this message type, if it is one.
    pub const fn from_u8(kind: u8) -> Option<Self> {
        match kind {
            0x04 => Some(Self::Bind),
            0x05 => Some(Self::Challenge),
            0x06 => Some(Self::Answer),
            _ => None,
        }
    }
}

/// The body of all three messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind {
    /// The session; it must equal the VNI of the Geneve header outside.
    pub vni: Vni,
    /// The client chooses it, not zero, to tell one bind attempt from the next.
    pub generation: u32,
    /// The disco key of the other client of the session, in all three messages.
    pub remote_key: DiscoPublic,
    /// Zero in Bind; set by the relay in Challenge; repeated in Answer.
    pub challenge: [u8; CHALLENGE_LEN],
}

impl Bind {
    /// Parses the bind message in an opened box. Bytes after it are ignored.
    ///
    /// # Errors
    /// The message is too short, or has another type.
    pub fn parse(plain: &[u8]) -> Result<(BindKind, Self), MessageError> {
        let ([kind, _], body) = plain.split_first_chunk().ok_or(MessageError::Length)?;
        let kind = BindKind::from_u8(*kind).ok_or(MessageError::Type(*kind))?;
        Ok((kind, Self::parse_body(body)?))
    }

    /// The plaintext.
    pub fn encode(&self, kind: BindKind) -> [u8; BIND_LEN] {
        let mut out = [0; BIND_LEN];
        out[..2].copy_from_slice(&[kind as u8, VERSION]);
        out[2..6].copy_from_slice(&self.vni.get().to_be_bytes());
        out[6..10].copy_from_slice(&self.generation.to_be_bytes());
        out[10..42].copy_from_slice(self.remote_key.as_bytes());
        out[42..].copy_from_slice(&self.challenge);
        out
    }

    pub(super) fn parse_body(mut body: &[u8]) -> Result<Self, MessageError> {
        let (vni, generation) = (u32::from_be_bytes(take(&mut body)?), u32::from_be_bytes(take(&mut body)?));
        let (remote_key, challenge) = (DiscoPublic::from_bytes(take(&mut body)?), take(&mut body)?);
        Ok(Self { vni: Vni::new(vni).ok_or(MessageError::Vni)?, generation, remote_key, challenge })
    }
}
