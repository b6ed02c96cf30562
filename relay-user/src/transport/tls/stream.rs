//! TLS in place: records are opened in the read buffer and sealed straight into the write buffer.
//!
//! rustls makes the handshake and then hands a TLS 1.3 connection over to our record layer. Between reads the
//! connection keeps only the ciphertext of a record that has not arrived whole.

use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

use super::cipher::MAX_PLAINTEXT;
use super::handshake::{self, Handshake, InRustls};
use super::records::{Opened, RecordFault, Records};
use crate::transport::gather::pieces;
use crate::transport::outbox::{Mark, Outbox};
use crate::transport::{ReadResult, Stream, fitting, parting, rehome, scratch};

/// Initial size of a worker's seal buffer: one sealed batch fits.
const SEAL_BYTES: usize = 68 * 1024;

/// Largest number of record ends noted per batch; the last one stands for all further records.
const MARKS: usize = 8;

/// Room for one sealed alert or key update.
const MESSAGE_BYTES: usize = 64;

/// A TLS connection, a server's or a client's.
pub struct TlsStream {
    tcp: TcpStream,
    layer: Layer,
    tail: Vec<u8>,
    outbox: Outbox,
    closed: bool,
}

/// The layer that opens and seals.
enum Layer {
    /// rustls, boxed: most connections no longer have it once they have logged in.
    Handshake(Box<dyn InRustls>),
    /// The record layer.
    Records(Records),
    /// No layer: the last record has been sealed, or the connection could not be handed over.
    None,
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
        let handshake: Handshake<UnbufferedServerConnection> = Handshake::new(config)?;
        let layer = Layer::Handshake(Box::new(handshake));
        Ok(Self { tcp, layer, tail: Vec::new(), outbox: Outbox::default(), closed: false })
    }

    /// Takes over a socket that is connected to the server `name`. The handshake begins with the next flush
    /// and goes on with reads; until [`TlsStream::is_handshaking`] is false, nothing can be sent.
    ///
    /// # Errors
    /// The configuration cannot be used.
    pub fn dial(
        tcp: TcpStream,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Self, rustls::Error> {
        let mut handshake: Box<Handshake<UnbufferedClientConnection>> =
            Box::new(Handshake::dial(config, name)?);
        let mut hello = Vec::new();
        handshake.open(&mut [], &mut hello, &mut |_| ControlFlow::Continue(()))?;
        let mut outbox = Outbox::default();
        outbox.push(&hello, &[]);
        Ok(Self { tcp, layer: Layer::Handshake(handshake), tail: Vec::new(), outbox, closed: false })
    }

    /// Whether no data can be sent yet.
    pub fn is_handshaking(&self) -> bool {
        matches!(&self.layer, Layer::Handshake(handshake) if handshake.is_handshaking())
    }

    /// Opens the whole records in `data`; returns the number of bytes used.
    fn open(&mut self, data: &mut [u8], sink: &mut dyn FnMut(&[u8]) -> ControlFlow<()>) -> io::Result<usize> {
        let mut used = 0;
        if let Layer::Handshake(handshake) = &mut self.layer {
            let mut replies = Vec::new();
            let opened = handshake.open(data, &mut replies, sink);
            self.outbox.push(&replies, &[]);
            let is_over = handshake.is_over();
            let opened = opened.map_err(|error| {
                // The last bytes that rustls sends are in the outbox.
                self.layer = Layer::None;
                match error {
                    // The peer ended the connection, unless its alert requires an alert in return.
                    rustls::Error::AlertReceived(_) if replies.is_empty() => given_up(error),
                    _ => invalid(error),
                }
            })?;
            used = opened.used;
            self.closed = opened.closed;
            if !self.closed && is_over {
                self.hand_over()?;
            }
        }
        if !self.closed
            && let Layer::Records(records) = &mut self.layer
        {
            match records.open(&mut data[used..], sink) {
                Ok(Opened { used: more, closed }) => {
                    used += more;
                    self.closed = closed;
                }
                Err(fault) => {
                    self.seal_last(Some(fault));
                    return Err(match fault {
                        RecordFault::Alert(_) => given_up(fault),
                        _ => invalid(fault),
                    });
                }
            }
        }
        Ok(used)
    }

    fn hand_over(&mut self) -> io::Result<()> {
        if let Layer::Handshake(handshake) = std::mem::replace(&mut self.layer, Layer::None) {
            self.layer = Layer::Records(handshake.hand_over().map_err(invalid)?);
        }
        Ok(())
    }

    /// Seals `plaintext` into `out` from `at` on; returns the end.
    fn seal(&mut self, plaintext: &[u8], out: &mut Vec<u8>, at: usize) -> io::Result<usize> {
        let room = match &self.layer {
            Layer::Records(_) => Records::sealed_len(plaintext.len()),
            _ => handshake::sealed_len(plaintext.len()),
        };
        if out.len() < at + room {
            out.resize((at + room).max(SEAL_BYTES), 0);
        }
        let out = &mut out[at..];
        Ok(at
            + match &mut self.layer {
                Layer::Records(records) => records.seal(plaintext, out).map_err(io::Error::other)?,
                Layer::Handshake(handshake) => {
                    let mut replies = Vec::new();
                    let sealed = handshake.seal(&mut self.tail, plaintext, out, &mut replies);
                    self.outbox.push(&replies, &[]);
                    sealed?
                }
                Layer::None => return Err(io::ErrorKind::NotConnected.into()),
            })
    }

    /// Puts the last record into the outbox: an alert that says why the connection is over, or a goodbye.
    /// Nothing can be sealed after it.
    fn seal_last(&mut self, fault: Option<RecordFault>) {
        let mut room = [0; MESSAGE_BYTES];
        let len = match std::mem::replace(&mut self.layer, Layer::None) {
            Layer::Records(mut records) => records.seal_alert(fault, &mut room).unwrap_or(0),
            Layer::Handshake(mut handshake) => handshake.seal_goodbye(&mut self.tail, &mut room),
            Layer::None => 0,
        };
        self.outbox.push(&room[..len], &[]);
    }

    /// Sends new keys, if the peer wants them and the outbox is free; otherwise they are sent with the next
    /// data.
    fn update_keys(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Layer::Records(records) = &mut self.layer else { return Ok(()) };
        if !records.owes_update() || !self.outbox.is_empty() {
            return Ok(());
        }
        let mut room = [0; MESSAGE_BYTES];
        let len = records.seal(&[], &mut room).map_err(io::Error::other)?;
        self.outbox.send(cx, &mut self.tcp, &room[..len], &[], false)
    }
}

impl Stream for TlsStream {
    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Poll<io::Result<ReadResult>> {
        if self.closed {
            return Poll::Ready(Ok(ReadResult::Closed));
        }
        scratch::for_reading(|scratch| {
            let kept = self.tail.len();
            if scratch.len() < kept + scratch::SCRATCH_BYTES {
                scratch.resize(kept + scratch::SCRATCH_BYTES, 0);
            }
            let mut read = ReadBuf::new(&mut scratch[kept..]);
            ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut read))?;
            let end = kept + read.filled().len();
            if end == kept {
                return Poll::Ready(Ok(ReadResult::Closed));
            }
            scratch[..kept].copy_from_slice(&self.tail);
            let used = self.open(&mut scratch[..end], sink);
            // After a fatal error rustls leaves an alert in the outbox; the client should get it.
            if !self.outbox.is_empty()
                && let Poll::Ready(Err(error)) = self.poll_flush(cx)
            {
                return Poll::Ready(Err(error));
            }
            let used = used?;
            self.update_keys(cx)?;
            // Given back before the next take: usually the same buffer is taken again.
            fitting::put(std::mem::take(&mut self.tail));
            if used < end && !self.closed {
                self.tail = fitting::take(end - used);
                self.tail.extend_from_slice(&scratch[used..end]);
            }
            Poll::Ready(Ok(ReadResult::Bytes))
        })
    }

    fn send(
        &mut self,
        cx: &mut Context<'_>,
        plaintext: &mut dyn Iterator<Item = &[u8]>,
        more: bool,
    ) -> io::Result<()> {
        scratch::for_sealing(|out| {
            let (mut end, mut marks, mut count) = (0, [Mark::default(); MARKS], 0);
            scratch::for_gathering(|scratch| {
                pieces(plaintext, MAX_PLAINTEXT, scratch, |piece| {
                    end = self.seal(piece, out, end)?;
                    let mark = &mut marks[count.min(MARKS - 1)];
                    *mark = Mark { end, plaintext: mark.plaintext + piece.len() };
                    count += 1;
                    Ok(())
                })
            })?;
            let marks = &marks[..count.min(MARKS)];
            if !self.outbox.is_empty() {
                // Bytes that rustls sends before the data leave first.
                self.outbox.push(&out[..end], marks);
                return match self.poll_flush(cx) {
                    Poll::Ready(result) => result,
                    Poll::Pending => Ok(()),
                };
            }
            self.outbox.send(cx, &mut self.tcp, &out[..end], marks, more)
        })
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outbox.poll_flush(cx, &mut self.tcp)
    }

    fn unsent(&self) -> usize {
        self.outbox.unsent()
    }

    fn unsent_plaintext(&self) -> usize {
        self.outbox.unsent_plaintext()
    }

    fn close(&mut self, cx: &mut Context<'_>) {
        self.seal_last(None);
        // Errors are ignored: the socket is about to be closed anyway.
        let _ = self.poll_flush(cx);
    }

    fn poll_part(&mut self, cx: &mut Context<'_>, left: &mut usize) -> Poll<()> {
        parting::poll_part(cx, &mut self.tcp, &mut self.outbox, left)
    }

    fn rehome(&mut self) -> io::Result<()> {
        self.tcp = rehome(&self.tcp)?;
        Ok(())
    }

    fn protocol(&self) -> &'static str {
        match &self.layer {
            Layer::Records(_) => "tls1.3",
            Layer::Handshake(handshake) => handshake.protocol(),
            Layer::None => "tls",
        }
    }
}

/// The error for a connection that the peer ended with an alert.
fn given_up(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, error)
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
