//! Finds the stamps of packets in a stream of frames, however it is cut, and keeps no payloads.

use anyhow::bail;
use relay_common::derp::{
    HEADER_LEN, KEY_LEN, MAX_CLIENT_FRAME,
    frame::{FrameType, Header},
};

/// Bytes of the stamp at the head of every packet: its number, then its planned time, both little-endian.
pub(super) const STAMP_LEN: usize = 16;
const HEAD_LEN: usize = HEADER_LEN + KEY_LEN + STAMP_LEN;

/// A packet's number and time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Counts a sender's packets from 0.
    pub(super) number: u64,
    /// Planned time, in nanoseconds of the load's own clock.
    pub(super) time_ns: u64,
}

impl Stamp {
    pub(super) fn encode(self) -> [u8; STAMP_LEN] {
        (u128::from(self.number) | u128::from(self.time_ns) << 64).to_le_bytes()
    }

    fn decode(bytes: [u8; STAMP_LEN]) -> Stamp {
        let both = u128::from_le_bytes(bytes);
        Stamp { number: both as u64, time_ns: (both >> 64) as u64 }
    }
}

/// A scanner's position in a frame.
#[derive(Debug)]
pub(super) struct Scanner {
    /// Bytes of every packet.
    packet: usize,
    head: [u8; HEAD_LEN],
    filled: usize,
    skip: usize,
}

impl Scanner {
    pub(super) fn new(packet: usize) -> Scanner {
        Scanner { packet, head: [0; HEAD_LEN], filled: 0, skip: 0 }
    }

    /// Reads the next bytes of the stream; `found` gets the stamp of every packet whose stamp ends in them.
    pub(super) fn take(&mut self, mut bytes: &[u8], mut found: impl FnMut(Stamp)) -> anyhow::Result<()> {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let wanted = self.wanted()?;
            let taken = (wanted - self.filled).min(bytes.len());
            self.head[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled < HEADER_LEN || self.filled < self.wanted()? {
                continue;
            }
            let header = self.header();
            if header.frame_type() == Some(FrameType::RecvPacket) {
                let mut stamp = [0; STAMP_LEN];
                stamp.copy_from_slice(&self.head[HEADER_LEN + KEY_LEN..]);
                found(Stamp::decode(stamp));
            }
            self.skip = HEADER_LEN + header.len as usize - self.filled;
            self.filled = 0;
        }
        Ok(())
    }

    /// How many bytes of the current frame must be kept.
    fn wanted(&self) -> anyhow::Result<usize> {
        if self.filled < HEADER_LEN {
            return Ok(HEADER_LEN);
        }
        let header = self.header();
        let len = header.len as usize;
        match header.frame_type() {
            Some(FrameType::RecvPacket) if len == KEY_LEN + self.packet => Ok(HEAD_LEN),
            Some(FrameType::RecvPacket) => bail!("a packet arrived with {len} bytes"),
            _ if len <= MAX_CLIENT_FRAME => Ok(HEADER_LEN),
            _ => bail!("a frame of {len} bytes"),
        }
    }

    fn header(&self) -> Header {
        let [a, b, c, d, e, ..] = self.head;
        Header::decode(&[a, b, c, d, e])
    }
}

#[cfg(test)]
mod tests {
    use relay_common::{derp::message::FromServer, key::NodePublic};

    use super::*;

    fn stream() -> Vec<u8> {
        let (mut stream, source) = (Vec::new(), NodePublic::from_ref(&[7; KEY_LEN]));
        for number in 0..3 {
            let mut payload = vec![0xaa; 100];
            payload[..STAMP_LEN].copy_from_slice(&Stamp { number, time_ns: number + 5 }.encode());
            FromServer::RecvPacket { source, payload: &payload }.encode(&mut stream);
            FromServer::KeepAlive.encode(&mut stream);
        }
        stream
    }

    #[test]
    fn stamps_are_found_however_the_stream_is_cut() -> anyhow::Result<()> {
        for cut in [1, 2, 52, 53, 54, 1000] {
            let (mut scanner, mut found) = (Scanner::new(100), Vec::new());
            for bytes in stream().chunks(cut) {
                scanner.take(bytes, |stamp| found.push(stamp))?;
            }
            let wanted = [0, 1, 2].map(|number| Stamp { number, time_ns: number + 5 });
            assert_eq!(found, wanted, "cut every {cut} bytes");
        }
        Ok(())
    }

    #[test]
    fn a_packet_of_another_length_is_an_error() {
        assert!(Scanner::new(99).take(&stream(), |_| ()).is_err());
    }
}
