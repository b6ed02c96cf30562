//! Disco: sealed messages with which clients find paths and bind sessions of the UDP relay.
//!
//! ```text
//!   0..6 magic   6..38 sender's disco key   38..62 nonce   62..78 tag   78.. ciphertext
//! ```
//!
//! Upstream: `disco/disco.go`. The envelope can be read without a key; [`message`] is the content of the box.

use crate::key::{DiscoPublic, KEY_LEN, NONCE_LEN};

#[cfg(feature = "std")]
mod control;
#[cfg(feature = "std")]
pub mod message;

#[cfg(feature = "std")]
pub use control::{CONTROL_LEN, seal_control};

/// The first bytes of a disco packet: `TS` and U+1F4AC.
pub const MAGIC: [u8; 6] = *b"TS\xf0\x9f\x92\xac";
/// Bytes before the box; also the shortest packet that counts as disco.
pub const HEADER_LEN: usize = MAGIC.len() + KEY_LEN + NONCE_LEN;
/// Bytes a disco packet adds to the plaintext of its message.
pub const OVERHEAD: usize = HEADER_LEN + 16;

/// Whether a packet looks like disco. A relay checks nothing more.
pub fn is_disco(packet: &[u8]) -> bool {
    packet.len() >= HEADER_LEN && packet.starts_with(&MAGIC)
}

/// A disco packet whose box is not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// The disco key of the claimed sender; it is proved if the box opens.
    pub sender: &'a DiscoPublic,
    /// The nonce of the box.
    pub nonce: &'a [u8; NONCE_LEN],
    /// Tag and ciphertext.
    pub sealed: &'a [u8],
}

/// A packet that is not disco: too short, or without the magic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "std", derive(thiserror::Error))]
#[cfg_attr(feature = "std", error("not a disco packet"))]
pub struct NotDisco;

impl<'a> Envelope<'a> {
    /// Splits a packet into the parts of its envelope.
    ///
    /// # Errors
    /// The packet does not start with the magic, or is too short.
    pub fn parse(packet: &'a [u8]) -> Result<Self, NotDisco> {
        let rest = packet.strip_prefix(&MAGIC).ok_or(NotDisco)?;
        let (sender, rest) = rest.split_first_chunk().ok_or(NotDisco)?;
        let (nonce, sealed) = rest.split_first_chunk().ok_or(NotDisco)?;
        Ok(Self { sender: DiscoPublic::from_ref(sender), nonce, sealed })
    }

    /// Appends the packet.
    #[cfg(feature = "std")]
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.reserve(HEADER_LEN + self.sealed.len());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(self.sender.as_bytes());
        out.extend_from_slice(self.nonce);
        out.extend_from_slice(self.sealed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_disco_from_62_bytes_with_the_magic() {
        let mut packet = [0; HEADER_LEN];
        assert!(!is_disco(&packet));
        packet[..6].copy_from_slice(&[0x54, 0x53, 0xf0, 0x9f, 0x92, 0xac]);
        assert!(is_disco(&packet));
        assert!(Envelope::parse(&packet).is_ok_and(|envelope| envelope.sealed.is_empty()));
        for len in 0..HEADER_LEN {
            assert!(!is_disco(&packet[..len]));
            assert_eq!(Envelope::parse(&packet[..len]), Err(NotDisco));
        }
        packet[5] ^= 1;
        assert!(!is_disco(&packet));
        assert_eq!(Envelope::parse(&packet), Err(NotDisco));
    }

    #[test]
    fn an_envelope_encodes_to_what_it_was_parsed_from() {
        let mut packet = MAGIC.to_vec();
        packet.extend((0..100).collect::<Vec<u8>>());
        let envelope = Envelope::parse(&packet).expect("disco");
        assert_eq!(envelope.sender.as_bytes()[0], 0);
        assert_eq!(envelope.nonce[0], 32);
        assert_eq!(envelope.sealed[0], 56);
        let mut out = Vec::new();
        envelope.encode(&mut out);
        assert_eq!(out, packet);
    }
}
