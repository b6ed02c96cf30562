//! A connection while rustls handles it, by its unbuffered API: through the handshake and, if TLS 1.2 was
//! agreed, to its end.

use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{Error, ProtocolVersion, ServerConfig};

use super::cipher::{HEADER, MAX_PLAINTEXT};
use super::records::Opened;

/// Bytes that sealing adds to a record at most: header, content type, tag, and TLS 1.2's explicit nonce.
const RECORD_OVERHEAD: usize = 40;

/// Largest number of state machine turns for one read: far more than the records and handshake messages in a
/// read.
const MAX_TURNS: usize = 64 * 1024;

/// A connection that rustls handles.
pub struct Handshake {
    tls: UnbufferedServerConnection,
    /// Whether a TLS 1.3 connection leaves rustls after its handshake.
    hands_over: bool,
    /// Bytes of whole records at the start of the next read that rustls has already seen. They are pieces of
    /// a message, which rustls wants to see again.
    shown: usize,
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handshake").field(&self.protocol()).finish()
    }
}

impl Handshake {
    /// Makes a connection of which nothing has been read. It is handed over after the handshake if `config`
    /// allows its secrets to be extracted.
    ///
    /// # Errors
    /// The configuration cannot serve.
    pub fn new(config: Arc<ServerConfig>) -> Result<Self, Error> {
        let hands_over = config.enable_secret_extraction;
        Ok(Self { tls: UnbufferedServerConnection::new(config)?, hands_over, shown: 0 })
    }

    /// Whether the record layer must take over: the handshake is done and TLS 1.3 was agreed. Data that
    /// [`Handshake::open`] did not use has then not been opened.
    pub fn is_over(&self) -> bool {
        self.hands_over
            && !self.tls.is_handshaking()
            && self.tls.protocol_version() == Some(ProtocolVersion::TLSv1_3)
    }

    /// The agreed protocol, for `relayd clients`.
    pub fn protocol(&self) -> &'static str {
        match self.tls.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "tls1.2",
            Some(ProtocolVersion::TLSv1_3) => "tls1.3",
            _ => "tls",
        }
    }

    /// The connection, for the record layer that takes it over.
    pub fn into_inner(self) -> UnbufferedServerConnection {
        self.tls
    }

    /// Runs the state machine over `data`. Appends the bytes that rustls wants to send to `replies`, also
    /// after an error.
    ///
    /// # Errors
    /// The client broke the protocol, or no parameters can be agreed.
    pub fn open(
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
            let UnbufferedStatus { mut discard, state, .. } =
                self.tls.process_tls_records(&mut data[used..end]);
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
            && let Ok(ConnectionState::EncodeTlsData(mut message)) =
                self.tls.process_tls_records(&mut []).state
            && encode_into(replies, |room| message.encode(room)).is_ok()
        {}
    }

    /// Length of `plaintext` bytes after sealing, at most.
    pub fn sealed_len(plaintext: usize) -> usize {
        // A key update may have to be sent first.
        plaintext + (plaintext / MAX_PLAINTEXT + 2) * RECORD_OVERHEAD
    }

    /// Seals `plaintext` into `out`; returns its end. Bytes that must be sent first are appended to
    /// `replies`. `kept` is the data that [`Handshake::open`] did not use: rustls wants to see it again.
    ///
    /// # Errors
    /// The connection does not take data now, or there is less room than [`Handshake::sealed_len`] says.
    pub fn seal(
        &mut self,
        kept: &mut [u8],
        plaintext: &[u8],
        out: &mut [u8],
        replies: &mut Vec<u8>,
    ) -> io::Result<usize> {
        for _ in 0..MAX_TURNS {
            match self.tls.process_tls_records(kept).state.map_err(io::Error::other)? {
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

    /// Seals a goodbye into `out`; returns its length. `kept` is as for [`Handshake::seal`].
    pub fn seal_goodbye(&mut self, kept: &mut [u8], out: &mut [u8]) -> usize {
        match self.tls.process_tls_records(kept).state {
            Ok(ConnectionState::WriteTraffic(mut traffic)) => traffic.queue_close_notify(out).unwrap_or(0),
            _ => 0,
        }
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
