//! A connection as long as rustls carries it, by its unbuffered API: through the handshake, and to the end
//! where TLS 1.2 was agreed.

use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{Error, ProtocolVersion, ServerConfig};

use super::cipher::{HEADER, MAX_PLAINTEXT};
use super::records::Opened;

/// Room that sealing adds to a record at most: header, content type, tag, and TLS 1.2's explicit nonce.
const RECORD_OVERHEAD: usize = 40;

/// Turns of the state machine for one read: many more than records and handshake messages fit into one.
const MAX_TURNS: usize = 64 * 1024;

/// What rustls keeps of a connection.
pub struct Handshake {
    tls: UnbufferedServerConnection,
    /// Whether a TLS 1.3 connection leaves rustls after its handshake.
    hands_over: bool,
    /// Bytes of whole records at the start of the next read that rustls has been shown: the pieces of a
    /// message, which it wants to see again.
    shown: usize,
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handshake").field(&self.protocol()).finish()
    }
}

impl Handshake {
    /// A connection of which nothing has been read. It is handed over after the handshake if `config` allows
    /// its secrets to be taken.
    ///
    /// # Errors
    /// The configuration cannot serve.
    pub fn new(config: Arc<ServerConfig>) -> Result<Self, Error> {
        let hands_over = config.enable_secret_extraction;
        Ok(Self { tls: UnbufferedServerConnection::new(config)?, hands_over, shown: 0 })
    }

    /// Whether the record layer is to take over: the handshake is done, and TLS 1.3 agreed. What of the data
    /// is not used then has not been opened either.
    pub fn is_over(&self) -> bool {
        self.hands_over
            && !self.tls.is_handshaking()
            && self.tls.protocol_version() == Some(ProtocolVersion::TLSv1_3)
    }

    /// What was agreed, for `relayd clients`.
    pub fn protocol(&self) -> &'static str {
        match self.tls.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "tls1.2",
            Some(ProtocolVersion::TLSv1_3) => "tls1.3",
            _ => "tls",
        }
    }

    /// The connection, for what carries it on.
    pub fn into_inner(self) -> UnbufferedServerConnection {
        self.tls
    }

    /// Runs the state machine over `data`; what it has to say is appended to `replies`,
    /// in case of an error too.
    ///
    /// # Errors
    /// The client broke the protocol, or nothing can be agreed.
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
        // The records behind the last one of the handshake are not for rustls, if it hands over: it gets one
        // more at a time.
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
                // Everything leaves in order: encoded is as good as sent.
                ConnectionState::TransmitTlsData(transmit) => transmit.done(),
                ConnectionState::PeerClosed | ConnectionState::Closed => closed = true,
                // Nothing more to read: the handshake is over, or waits for the client.
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

    /// What rustls has to say of an error. It is shown nothing more, and asked only as long as it has
    /// something: else it would look for the pieces of a message in data that is not there.
    fn last_words(&mut self, replies: &mut Vec<u8>) {
        while self.tls.wants_write()
            && let Ok(ConnectionState::EncodeTlsData(mut message)) =
                self.tls.process_tls_records(&mut []).state
            && encode_into(replies, |room| message.encode(room)).is_ok()
        {}
    }

    /// Bytes that `plaintext` bytes become at most.
    pub fn sealed_len(plaintext: usize) -> usize {
        // A key update may have to leave before.
        plaintext + (plaintext / MAX_PLAINTEXT + 2) * RECORD_OVERHEAD
    }

    /// Seals `plaintext` into `out`; returns where it ends. What has to leave before is appended to
    /// `replies`. `kept` is what [`Handshake::open`] did not use: rustls wants to see it again.
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

    /// Seals a goodbye into `out`; returns its length. `kept` as for [`Handshake::seal`].
    pub fn seal_goodbye(&mut self, kept: &mut [u8], out: &mut [u8]) -> usize {
        match self.tls.process_tls_records(kept).state {
            Ok(ConnectionState::WriteTraffic(mut traffic)) => traffic.queue_close_notify(out).unwrap_or(0),
            _ => 0,
        }
    }
}

/// Where the record that begins at `at` ends, if it has arrived whole.
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
