//! The packets of the load: who sent which packet of a pair, and on which of its connections. When it was
//! sent is in the sender's record.

use anyhow::{Context as _, Result, ensure};

/// Bytes of a packet, as many as a small data packet has.
const LEN: usize = 100;
/// Bytes of a stamp, before the filling.
const STAMP_LEN: usize = 13;

/// The head of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// The sender.
    pub(super) from: u8,
    /// Counts the sender's connections.
    pub(super) life: u32,
    /// Counts the packets of this pair over all connections.
    pub(super) number: u64,
}

impl Stamp {
    /// The packet.
    pub(super) fn encode(self) -> Vec<u8> {
        let mut packet = Vec::with_capacity(LEN);
        packet.push(self.from);
        packet.extend(self.life.to_le_bytes());
        packet.extend(self.number.to_le_bytes());
        packet.resize(LEN, 0);
        packet
    }

    /// The stamp of a packet, which must be as it was sent.
    pub(super) fn decode(packet: &[u8]) -> Result<Self> {
        ensure!(packet.len() == LEN, "a packet of {} bytes", packet.len());
        ensure!(packet[STAMP_LEN..].iter().all(|byte| *byte == 0), "a packet was changed");
        let (from, rest) = packet.split_first().context("an empty packet")?;
        let (life, rest) = rest.split_first_chunk().context("no life")?;
        let (number, _) = rest.split_first_chunk().context("no number")?;
        Ok(Self { from: *from, life: u32::from_le_bytes(*life), number: u64::from_le_bytes(*number) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_survives_and_a_change_is_seen() -> Result<()> {
        let stamp = Stamp { from: 4, life: 3, number: 1 << 40 };
        let mut packet = stamp.encode();
        assert_eq!(Stamp::decode(&packet)?, stamp);
        packet[LEN - 1] = 1;
        assert!(Stamp::decode(&packet).is_err());
        Ok(())
    }
}
