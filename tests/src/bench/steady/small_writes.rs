//! A socket that writes pieces that end anywhere in a frame and in a record, so that the relay's reads end
//! there too.

use std::io::{self, Read, Write};
use std::net::TcpStream;

/// Bytes of a piece. It is a prime, so that pieces end at ever different places of a frame.
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
