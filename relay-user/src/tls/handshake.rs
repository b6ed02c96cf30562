//! A connection as long as rustls carries it, by its unbuffered API: through the handshake, and to the end
//! where TLS 1.2 was agreed.

use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{Error, ProtocolVersion, ServerConfig};

use super::cipher::MAX_PLAINTEXT;
use super::records::Opened;

/// Room that sealing adds to a record at most: header, content type, tag, and TLS 1.2's explicit nonce.
const RECORD_OVERHEAD: usize = 40;

/// Turns of the state machine for one read: many more than records and handshake messages fit into one.
const MAX_TURNS: usize = 8 * 1024;

/// What rustls keeps of a connection.
pub struct Handshake(UnbufferedServerConnection);

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handshake").field(&self.protocol()).finish()
    }
}

impl Handshake {
    /// A connection of which nothing has been read.
    ///
    /// # Errors
    /// The configuration cannot serve.
    pub fn new(config: Arc<ServerConfig>) -> Result<Self, Error> {
        Ok(Self(UnbufferedServerConnection::new(config)?))
    }

    /// Whether the handshake is over and TLS 1.3 agreed.
    pub fn is_over(&self) -> bool {
        !self.0.is_handshaking() && self.0.protocol_version() == Some(ProtocolVersion::TLSv1_3)
    }

    /// What was agreed, for `relayd clients`.
    pub fn protocol(&self) -> &'static str {
        match self.0.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "tls1.2",
            Some(ProtocolVersion::TLSv1_3) => "tls1.3",
            _ => "tls",
        }
    }

    /// The connection, for what carries it on.
    pub fn into_inner(self) -> UnbufferedServerConnection {
        self.0
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
            // rustls has an alert to send.
            let _ = self.run(&mut [], replies, &mut |_| ControlFlow::Break(()));
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
        for _ in 0..MAX_TURNS {
            let UnbufferedStatus { mut discard, state, .. } = self.0.process_tls_records(&mut data[used..]);
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
            if done || closed {
                break;
            }
        }
        Ok(Opened { used, closed })
    }

    /// Bytes that `plaintext` bytes become at most.
    pub fn sealed_len(plaintext: usize) -> usize {
        plaintext + (plaintext / MAX_PLAINTEXT + 1) * RECORD_OVERHEAD
    }

    /// Seals `plaintext` into `out`; returns where it ends. What has to leave before is appended to
    /// `replies`.
    ///
    /// # Errors
    /// The connection does not take data now, or there is less room than [`Handshake::sealed_len`] says.
    pub fn seal(&mut self, plaintext: &[u8], out: &mut [u8], replies: &mut Vec<u8>) -> io::Result<usize> {
        for _ in 0..MAX_TURNS {
            match self.0.process_tls_records(&mut []).state.map_err(io::Error::other)? {
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

    /// Seals a goodbye into `out`; returns its length.
    pub fn seal_goodbye(&mut self, out: &mut [u8]) -> usize {
        match self.0.process_tls_records(&mut []).state {
            Ok(ConnectionState::WriteTraffic(mut traffic)) => traffic.queue_close_notify(out).unwrap_or(0),
            _ => 0,
        }
    }
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
