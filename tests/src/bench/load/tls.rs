//! The client's side of TLS 1.3 with AES-128-GCM, with rustls' unbuffered API: records are opened in the read
//! buffer and sealed in the write buffer.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use rustls::ClientConfig;
use rustls::client::UnbufferedClientConnection;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::ServerName;
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};

use crate::client::tls::anyone;

/// Bytes that sealing adds to a record: header, content type, tag.
const RECORD_OVERHEAD: usize = 5 + 1 + 16;
/// Maximum turns of the state machine per read: more than there are records in a read.
const MAX_TURNS: usize = 64 * 1024;

/// One connection's keys and state.
pub(super) struct Tls(UnbufferedClientConnection);

impl Tls {
    pub(super) fn new(config: Arc<ClientConfig>, server: ServerName<'static>) -> anyhow::Result<Tls> {
        Ok(Tls(UnbufferedClientConnection::new(config, server)?))
    }

    /// Opens the records in `data`; returns how many bytes are used up. Bytes to be sent are appended to
    /// `out`.
    pub(super) fn open(
        &mut self,
        data: &mut [u8],
        out: &mut Vec<u8>,
        mut sink: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<usize> {
        let mut used = 0;
        for _ in 0..MAX_TURNS {
            let UnbufferedStatus { mut discard, state, .. } = self.0.process_tls_records(&mut data[used..]);
            let mut done = false;
            match state? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        sink(record.payload)?;
                    }
                }
                ConnectionState::EncodeTlsData(mut message) => {
                    let at = out.len();
                    let needed = match message.encode(&mut []) {
                        Err(EncodeError::InsufficientSize(error)) => error.required_size,
                        other => bail!("a message of no bytes: {other:?}"),
                    };
                    out.resize(at + needed, 0);
                    let len = message.encode(&mut out[at..])?;
                    out.truncate(at + len);
                }
                ConnectionState::TransmitTlsData(transmit) => transmit.done(),
                ConnectionState::PeerClosed | ConnectionState::Closed => bail!("the server closed"),
                _ => done = true,
            }
            used += discard;
            if done {
                return Ok(used);
            }
        }
        bail!("the TLS connection does not come to rest")
    }

    /// Whether the handshake is over.
    pub(super) fn is_ready(&self) -> bool {
        !self.0.is_handshaking()
    }

    /// Appends `plain` as one record; at most 16 KiB.
    pub(super) fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> anyhow::Result<()> {
        let at = out.len();
        out.resize(at + plain.len() + RECORD_OVERHEAD, 0);
        let ConnectionState::WriteTraffic(mut traffic) = self.0.process_tls_records(&mut []).state? else {
            bail!("the TLS connection cannot write now");
        };
        let len = traffic.encrypt(plain, &mut out[at..]).ok().context("the record is too long")?;
        out.truncate(at + len);
        Ok(())
    }
}

/// The first key exchange of stock clients, and the cipher that both servers choose for them.
pub(super) fn config() -> anyhow::Result<Arc<ClientConfig>> {
    let provider = CryptoProvider {
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![aws_lc_rs::kx_group::X25519MLKEM768, aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(anyone())
        .with_no_client_auth();
    // Every login is a full handshake.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}
