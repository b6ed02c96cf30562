//! A socket that writes in pieces which end anywhere in a frame and in a record, so that the relay's reads
//! do.

use std::io::{self, Read, Write};
use std::net::TcpStream;

/// Bytes of a piece: a prime, so that the pieces' ends wander through the frames.
const MOST_BYTES: usize = 3_001;

pub(super) struct SmallWrites(pub(super) TcpStream);

impl Read for SmallWrites {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl Write for SmallWrites {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(&bytes[..bytes.len().min(MOST_BYTES)])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
