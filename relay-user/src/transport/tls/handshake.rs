//! A connection while rustls handles it, by its unbuffered API: through the handshake and, if TLS 1.2 was
//! agreed, to its end. Clients and servers differ only in their `Side`.

use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{ClientConfig, Error, ProtocolVersion, ServerConfig};

use super::cipher::{HEADER, MAX_PLAINTEXT};
use super::records::{Opened, Records};
use super::side::Side;

/// Bytes that sealing adds to a record at most: header, content type, tag, and TLS 1.2's explicit nonce.
const RECORD_OVERHEAD: usize = 40;

/// Largest number of state machine turns for one read: far more than the records and handshake messages in a
/// read.
const MAX_TURNS: usize = 64 * 1024;

/// A connection that rustls handles.
pub struct Handshake<T> {
    tls: T,
    /// Whether a TLS 1.3 connection leaves rustls after its handshake.
    hands_over: bool,
    /// Bytes of whole records at the start of the next read that rustls has already seen. They are pieces of
    /// a message, which rustls wants to see again.
    shown: usize,
}

impl<T: Side + Send + Sync> fmt::Debug for Handshake<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handshake").field(&self.protocol()).finish()
    }
}

impl Handshake<UnbufferedServerConnection> {
    /// Makes a connection of which nothing has been read. It is handed over after the handshake if `config`
    /// allows its secrets to be extracted.
    ///
    /// # Errors
    /// The configuration cannot serve.
    pub fn new(config: Arc<ServerConfig>) -> Result<Self, Error> {
        let hands_over = config.enable_secret_extraction;
        Ok(Self { tls: UnbufferedServerConnection::new(config)?, hands_over, shown: 0 })
    }
}

impl Handshake<UnbufferedClientConnection> {
    /// Makes a connection to the server `name`, whose certificate `config` verifies. [`InRustls::open`]
    /// without data returns the first bytes to send. It is handed over as a server's.
    ///
    /// # Errors
    /// The configuration cannot be used.
    pub fn dial(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, Error> {
        let hands_over = config.enable_secret_extraction;
        Ok(Self { tls: UnbufferedClientConnection::new(config, name)?, hands_over, shown: 0 })
    }
}

/// A connection that rustls handles, whichever side of it is ours.
pub trait InRustls: Send + Sync {
    /// Whether no data can be sealed yet.
    fn is_handshaking(&self) -> bool;

    /// Whether the record layer must take over: the handshake is done and TLS 1.3 was agreed. Data that
    /// [`InRustls::open`] did not use has then not been opened.
    fn is_over(&self) -> bool;

    /// The agreed protocol, for `relayd clients`.
    fn protocol(&self) -> &'static str;

    /// The record layer that takes the connection over.
    ///
    /// # Errors
    /// The handshake is not over.
    fn hand_over(self: Box<Self>) -> Result<Records, Error>;

    /// Runs the state machine over `data`. Appends the bytes that rustls wants to send to `replies`, also
    /// after an error.
    ///
    /// # Errors
    /// The peer broke the protocol, or no parameters can be agreed.
    fn open(
        &mut self,
        data: &mut [u8],
        replies: &mut Vec<u8>,
        sink: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<Opened, Error>;

    /// Seals `plaintext` into `out`; returns its end. Bytes that must be sent first are appended to
    /// `replies`. `kept` is the data that [`InRustls::open`] did not use: rustls wants to see it again.
    ///
    /// # Errors
    /// The connection does not take data now, or there is less room than [`sealed_len`] says.
    fn seal(
        &mut self,
        kept: &mut [u8],
        plaintext: &[u8],
        out: &mut [u8],
        replies: &mut Vec<u8>,
    ) -> io::Result<usize>;

    /// Seals a goodbye into `out`; returns its length. `kept` is as for [`InRustls::seal`].
    fn seal_goodbye(&mut self, kept: &mut [u8], out: &mut [u8]) -> usize;
}

/// Length of `plaintext` bytes after sealing, at most.
pub fn sealed_len(plaintext: usize) -> usize {
    // A key update may have to be sent first.
    plaintext + (plaintext / MAX_PLAINTEXT + 2) * RECORD_OVERHEAD
}

impl<T: Side + Send + Sync> InRustls for Handshake<T> {
    fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    fn is_over(&self) -> bool {
        self.hands_over
            && !self.tls.is_handshaking()
            && self.tls.protocol_version() == Some(ProtocolVersion::TLSv1_3)
    }

    fn protocol(&self) -> &'static str {
        match self.tls.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "tls1.2",
            Some(ProtocolVersion::TLSv1_3) => "tls1.3",
            _ => "tls",
        }
    }

    fn hand_over(self: Box<Self>) -> Result<Records, Error> {
        Records::take_over(self.tls)
    }

    fn open(
        &mut self,
        data: &mut [u8],
        replies: &mut Vec<u8>,
        sink: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<Opened, Error> {
        let result = self.run(data, replies, sink);
        if result.is_err() {
            self.last_words(replies);
        }
        result
    }

    fn seal(
        &mut self,
        kept: &mut [u8],
        plaintext: &[u8],
        out: &mut [u8],
        replies: &mut Vec<u8>,
    ) -> io::Result<usize> {
        for _ in 0..MAX_TURNS {
            match self.tls.process(kept).state.map_err(io::Error::other)? {
                ConnectionState::WriteTraffic(mut traffic) => {
                    return traffic.encrypt(plaintext, out).map_err(io::Error::other);
                }
                ConnectionState::EncodeTlsData(mut message) => {
                    encode_into(replies, |room| message.encode(room)).map_err(io::Error::other)?;
                }
                ConnectionState::TransmitTlsData(transmit) => transmit.done(),
                _ => break,
            }
        }
        Err(io::ErrorKind::NotConnected.into())
    }

    fn seal_goodbye(&mut self, kept: &mut [u8], out: &mut [u8]) -> usize {
        match self.tls.process(kept).state {
            Ok(ConnectionState::WriteTraffic(mut traffic)) => traffic.queue_close_notify(out).unwrap_or(0),
            _ => 0,
        }
    }
}

impl<T: Side + Send + Sync> Handshake<T> {
    fn run(
        &mut self,
        data: &mut [u8],
        replies: &mut Vec<u8>,
        sink: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<Opened, Error> {
        let (mut used, mut closed) = (0, false);
        // If the connection is handed over, rustls must not see the records after the handshake: it is given
        // one more record at a time.
        let mut whole = self.shown;
        let mut end = if self.tls.is_handshaking() { whole } else { data.len() };
        for _ in 0..MAX_TURNS {
            let UnbufferedStatus { mut discard, state, .. } = self.tls.process(&mut data[used..end]);
            let mut done = false;
            match state? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while !closed && let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        closed = sink(record.payload).is_break();
                    }
                }
                ConnectionState::EncodeTlsData(mut message) => {
                    encode_into(replies, |room| message.encode(room))?;
                }
                // All bytes leave in order, so encoded bytes count as sent.
                ConnectionState::TransmitTlsData(transmit) => transmit.done(),
                ConnectionState::PeerClosed | ConnectionState::Closed => closed = true,
                // Nothing more can be read: the handshake is over, or waits for the client.
                _ => done = true,
            }
            used += discard;
            if closed || done && (end == data.len() || self.is_over()) {
                break;
            }
            if done {
                end = match record_end(data, whole) {
                    Some(next) if self.tls.is_handshaking() => {
                        whole = next;
                        next
                    }
                    _ => data.len(),
                };
            }
        }
        self.shown = whole.saturating_sub(used);
        Ok(Opened { used, closed })
    }

    /// Collects what rustls sends after an error. rustls is given no more data and is asked only while it has
    /// something to send: otherwise it would look for the pieces of a message in data that is not there.
    fn last_words(&mut self, replies: &mut Vec<u8>) {
        while self.tls.wants_write()
            && let Ok(ConnectionState::EncodeTlsData(mut message)) = self.tls.process(&mut []).state
            && encode_into(replies, |room| message.encode(room)).is_ok()
        {}
    }
}

/// The end of the record that begins at `at`, if it has arrived whole.
fn record_end(data: &[u8], at: usize) -> Option<usize> {
    let &[_, _, _, high, low] = data.get(at..)?.first_chunk::<HEADER>()?;
    let end = at + HEADER + usize::from(u16::from_be_bytes([high, low]));
    (end <= data.len()).then_some(end)
}

/// Lets `encode` append to `replies`, with as much room as it asks for.
fn encode_into(
    replies: &mut Vec<u8>,
    mut encode: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
) -> Result<(), Error> {
    let at = replies.len();
    loop {
        match encode(&mut replies[at..]) {
            Ok(len) => {
                replies.truncate(at + len);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(error)) => replies.resize(at + error.required_size, 0),
            Err(error) => return Err(Error::General(error.to_string())),
        }
    }
}
