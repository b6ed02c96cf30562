//! TLS in place: records are opened where they were read and sealed straight into the write buffer.
//!
//! rustls' unbuffered API carries the connection, handshake included. Between reads the connection keeps only
//! the ciphertext of a record that has not arrived whole.

use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::ServerConfig;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

use crate::conn::pool;
use crate::conn::stream::{Outbox, Received, Stream};

/// Plaintext bytes of a full record.
const RECORD: usize = 16 * 1024;

/// Room that sealing adds to a record at most: header, content type, tag, and TLS 1.2's explicit nonce.
const RECORD_OVERHEAD: usize = 40;

/// Bytes of a worker's seal buffer to begin with: most mailboxes fit.
const SEAL_BYTES: usize = 64 * 1024;

/// Turns of the state machine for one read: many more than records and handshake messages fit into one.
const MAX_TURNS: usize = 8 * 1024;

/// A server's TLS connection.
pub struct TlsStream {
    tcp: TcpStream,
    tls: UnbufferedServerConnection,
    tail: Vec<u8>,
    outbox: Outbox,
    closed: bool,
}

impl fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream")
            .field("tcp", &self.tcp)
            .field("closed", &self.closed)
            .finish_non_exhaustive()
    }
}

impl TlsStream {
    /// Takes over a connected socket; the handshake happens with the first reads.
    ///
    /// # Errors
    /// The configuration cannot serve.
    pub fn new(tcp: TcpStream, config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        let tls = UnbufferedServerConnection::new(config)?;
        Ok(Self { tcp, tls, tail: Vec::new(), outbox: Outbox::default(), closed: false })
    }

    /// Runs the state machine over `data`; returns how much of it is used up.
    fn process(
        &mut self,
        data: &mut [u8],
        sink: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<usize, rustls::Error> {
        let mut used = 0;
        for _ in 0..MAX_TURNS {
            let UnbufferedStatus { mut discard, state, .. } = self.tls.process_tls_records(&mut data[used..]);
            let mut done = false;
            match state? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        if sink(record.payload).is_break() {
                            self.closed = true;
                            return Ok(data.len());
                        }
                    }
                }
                ConnectionState::EncodeTlsData(mut message) => {
                    encode_into(&mut self.outbox, |room| message.encode(room))?;
                }
                // Everything goes out through the one outbox, in order: encoded is as good as sent.
                ConnectionState::TransmitTlsData(transmit) => transmit.done(),
                ConnectionState::PeerClosed | ConnectionState::Closed => {
                    self.closed = true;
                    done = true;
                }
                // Nothing more to read: the handshake is over, or waits for the client.
                _ => done = true,
            }
            used += discard;
            if done {
                break;
            }
        }
        Ok(used)
    }

    /// Seals `plaintext` into `out` from `at` on; returns where it ends.
    fn seal(&mut self, plaintext: &[u8], out: &mut Vec<u8>, at: usize) -> io::Result<usize> {
        let room = plaintext.len() + (plaintext.len() / RECORD + 1) * RECORD_OVERHEAD;
        if out.len() < at + room {
            out.resize((at + room).max(SEAL_BYTES), 0);
        }
        for _ in 0..MAX_TURNS {
            match self.tls.process_tls_records(&mut []).state.map_err(io::Error::other)? {
                ConnectionState::WriteTraffic(mut traffic) => {
                    let sealed = traffic.encrypt(plaintext, &mut out[at..]).map_err(encrypt_error)?;
                    return Ok(at + sealed);
                }
                ConnectionState::EncodeTlsData(mut message) => {
                    encode_into(&mut self.outbox, |room| message.encode(room)).map_err(io::Error::other)?;
                }
                ConnectionState::TransmitTlsData(transmit) => transmit.done(),
                _ => break,
            }
        }
        Err(io::ErrorKind::NotConnected.into())
    }
}

impl Stream for TlsStream {
    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Poll<io::Result<Received>> {
        if self.closed {
            return Poll::Ready(Ok(Received::Closed));
        }
        pool::with_scratch(|scratch| {
            let kept = self.tail.len();
            if scratch.len() < kept + pool::SCRATCH_BYTES {
                scratch.resize(kept + pool::SCRATCH_BYTES, 0);
            }
            let mut read = ReadBuf::new(&mut scratch[kept..]);
            ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut read))?;
            let end = kept + read.filled().len();
            if end == kept {
                return Poll::Ready(Ok(Received::Closed));
            }
            scratch[..kept].copy_from_slice(&self.tail);
            let used = self.process(&mut scratch[..end], sink);
            // A fatal error leaves an alert behind; the client should get it.
            if !self.outbox.is_empty()
                && let Poll::Ready(Err(error)) = self.poll_flush(cx)
            {
                return Poll::Ready(Err(error));
            }
            let used = used.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            // Given back first: most often the same buffer comes again.
            pool::put_fitting(std::mem::take(&mut self.tail));
            if used < end {
                self.tail = pool::take_fitting(end - used);
                self.tail.extend_from_slice(&scratch[used..end]);
            }
            Poll::Ready(Ok(Received::Bytes))
        })
    }

    fn send(&mut self, cx: &mut Context<'_>, plaintext: &[&[u8]]) -> io::Result<()> {
        pool::with_seal(|out| {
            let mut end = 0;
            for slice in plaintext.iter().filter(|slice| !slice.is_empty()) {
                end = self.seal(slice, out, end)?;
            }
            if !self.outbox.is_empty() {
                // A key update answered while sealing goes out ahead of what it does not cover.
                self.outbox.push(&out[..end]);
                return match self.poll_flush(cx) {
                    Poll::Ready(result) => result,
                    Poll::Pending => Ok(()),
                };
            }
            self.outbox.send(cx, &mut self.tcp, &out[..end])
        })
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outbox.poll_flush(cx, &mut self.tcp)
    }

    fn unsent(&self) -> usize {
        self.outbox.unsent()
    }

    fn close(&mut self, cx: &mut Context<'_>) {
        if let Ok(ConnectionState::WriteTraffic(mut traffic)) = self.tls.process_tls_records(&mut []).state
            && encode_close(&mut self.outbox, |room| traffic.queue_close_notify(room)).is_err()
        {
            return;
        }
        // Best effort: the socket is about to be closed either way.
        let _ = self.poll_flush(cx);
    }

    fn protocol(&self) -> &'static str {
        match self.tls.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_2) => "tls1.2",
            Some(rustls::ProtocolVersion::TLSv1_3) => "tls1.3",
            _ => "tls",
        }
    }
}

/// Lets `encode` write into the outbox, with as much room as it asks for.
fn encode_into(
    outbox: &mut Outbox,
    mut encode: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
) -> Result<(), rustls::Error> {
    let mut room = vec![0; 4 * 1024];
    loop {
        match encode(&mut room) {
            Ok(len) => {
                outbox.push(&room[..len]);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(error)) => room.resize(error.required_size, 0),
            Err(error) => return Err(rustls::Error::General(error.to_string())),
        }
    }
}

/// As [`encode_into`], for what is sealed.
fn encode_close(
    outbox: &mut Outbox,
    mut seal: impl FnMut(&mut [u8]) -> Result<usize, EncryptError>,
) -> Result<(), EncryptError> {
    let mut room = [0; 64 + RECORD_OVERHEAD];
    let len = seal(&mut room)?;
    outbox.push(&room[..len]);
    Ok(())
}

fn encrypt_error(error: EncryptError) -> io::Error {
    io::Error::other(error.to_string())
}
