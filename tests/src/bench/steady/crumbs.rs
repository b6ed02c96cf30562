//! A socket that writes in pieces which end anywhere in a frame and in a record, so that the relay's reads
//! do; it counts the TLS records that pass.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a piece: a prime, so that the pieces' ends wander through the frames.
const CRUMB: usize = 3_001;

/// Bytes of a record's header, its length in the last two.
const HEADER: usize = 5;

pub(super) struct Crumbs {
    tcp: TcpStream,
    records: Arc<AtomicU64>,
    inward: Records,
    outward: Records,
}

impl Crumbs {
    pub(super) fn new(tcp: TcpStream, records: &Arc<AtomicU64>) -> Self {
        Self { tcp, records: Arc::clone(records), inward: Records::default(), outward: Records::default() }
    }
}

impl Read for Crumbs {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let len = self.tcp.read(into)?;
        self.records.fetch_add(self.inward.count(&into[..len]), Ordering::Relaxed);
        Ok(len)
    }
}

impl Write for Crumbs {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.tcp.write(&bytes[..bytes.len().min(CRUMB)])?;
        self.records.fetch_add(self.outward.count(&bytes[..len]), Ordering::Relaxed);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.tcp.flush()
    }
}

/// Where in the records of a stream its next byte lies.
#[derive(Default)]
struct Records {
    header: [u8; HEADER],
    have: usize,
    body: usize,
}

impl Records {
    /// How many records begin, by their whole header, in the next bytes.
    fn count(&mut self, mut bytes: &[u8]) -> u64 {
        let mut begun = 0;
        while !bytes.is_empty() {
            let skipped = self.body.min(bytes.len());
            self.body -= skipped;
            bytes = &bytes[skipped..];
            let piece = (HEADER - self.have).min(bytes.len());
            self.header[self.have..][..piece].copy_from_slice(&bytes[..piece]);
            self.have += piece;
            bytes = &bytes[piece..];
            if self.have == HEADER {
                self.have = 0;
                self.body = u16::from_be_bytes([self.header[3], self.header[4]]).into();
                begun += 1;
            }
        }
        begun
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_counted_wherever_the_pieces_end() {
        let stream: Vec<u8> = [300, 0, 7]
            .iter()
            .flat_map(|len| [vec![23, 3, 3, (len >> 8) as u8, *len as u8], vec![1; *len]].concat())
            .collect();
        for piece in 1..=stream.len() {
            let mut records = Records::default();
            assert_eq!(stream.chunks(piece).map(|piece| records.count(piece)).sum::<u64>(), 3, "{piece}");
        }
    }
}
