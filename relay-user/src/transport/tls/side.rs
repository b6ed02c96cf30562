//! What clients and servers of TLS have in common while rustls handles them, and in the record layer.

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::kernel::KernelConnection;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::UnbufferedStatus;
use rustls::{ConnectionTrafficSecrets, Error, ExtractedSecrets, ProtocolVersion, SupportedCipherSuite};

/// One side of a TLS connection in rustls' unbuffered API, which has a type for each.
pub trait Side {
    /// rustls' data about the side.
    type Data;

    /// Runs the state machine one step over `data`.
    fn process<'c, 'i>(&'c mut self, data: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;

    /// Whether the handshake is not over.
    fn is_handshaking(&self) -> bool;

    /// Whether there is something to send.
    fn wants_write(&self) -> bool;

    /// The agreed version.
    fn protocol_version(&self) -> Option<ProtocolVersion>;

    /// Gives the secrets of a TLS 1.3 connection away.
    ///
    /// # Errors
    /// The handshake is not over, or the configuration does not allow it.
    fn into_secrets(self) -> Result<(ExtractedSecrets, Box<dyn KeySchedule>), Error>;
}

/// What remains of a TLS 1.3 connection in rustls: it makes new keys.
pub trait KeySchedule: Send + Sync {
    /// The agreed ciphers.
    fn suite(&self) -> SupportedCipherSuite;

    /// The next key for sealing.
    ///
    /// # Errors
    /// rustls' error.
    fn update_tx(&mut self) -> Result<(u64, ConnectionTrafficSecrets), Error>;

    /// The next key for opening.
    ///
    /// # Errors
    /// rustls' error.
    fn update_rx(&mut self) -> Result<(u64, ConnectionTrafficSecrets), Error>;

    /// Whether the peer may send tickets after the handshake: only servers do (RFC 8446, 4.6.1).
    fn takes_tickets(&self) -> bool;
}

macro_rules! side {
    ($connection:ty, $data:ty, takes_tickets: $takes_tickets:literal) => {
        impl Side for $connection {
            type Data = $data;

            fn process<'c, 'i>(&'c mut self, data: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, $data> {
                self.process_tls_records(data)
            }

            fn is_handshaking(&self) -> bool {
                (**self).is_handshaking()
            }

            fn wants_write(&self) -> bool {
                (**self).wants_write()
            }

            fn protocol_version(&self) -> Option<ProtocolVersion> {
                (**self).protocol_version()
            }

            fn into_secrets(self) -> Result<(ExtractedSecrets, Box<dyn KeySchedule>), Error> {
                let (secrets, connection) = self.dangerous_into_kernel_connection()?;
                Ok((secrets, Box::new(connection)))
            }
        }

        impl KeySchedule for KernelConnection<$data> {
            fn suite(&self) -> SupportedCipherSuite {
                self.negotiated_cipher_suite()
            }

            fn update_tx(&mut self) -> Result<(u64, ConnectionTrafficSecrets), Error> {
                self.update_tx_secret()
            }

            fn update_rx(&mut self) -> Result<(u64, ConnectionTrafficSecrets), Error> {
                self.update_rx_secret()
            }

            fn takes_tickets(&self) -> bool {
                $takes_tickets
            }
        }
    };
}

side!(UnbufferedServerConnection, ServerConnectionData, takes_tickets: false);
side!(UnbufferedClientConnection, ClientConnectionData, takes_tickets: true);
