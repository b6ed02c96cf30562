//! TLS as DERP needs it: derper's certificates, and behind them the meta certificate that enables fast start.

pub mod cipher;
pub mod files;
pub mod handshake;
pub mod meta;
pub mod records;
pub mod stream;

use std::net::IpAddr;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::cli::TlsRecords;

/// The server configuration: TLS 1.2 and 1.3, one certificate, `meta` as the last of its chain, and whose
/// record layer carries TLS 1.3.
///
/// # Errors
/// The key cannot sign, or the provider lacks a protocol version.
pub fn server_config(
    certificate: files::Certificate,
    meta: CertificateDer<'static>,
    hostname: &str,
    records: TlsRecords,
) -> anyhow::Result<Arc<ServerConfig>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = provider.key_provider.load_private_key(certificate.key)?;
    let with_meta = certificate.chain.iter().cloned().chain([meta]).collect();
    let resolver = Resolver {
        with_meta: Arc::new(CertifiedKey::new(with_meta, key)),
        // An address has no server name to compare; clients that dial one send none.
        server_name: hostname.parse::<IpAddr>().is_err().then(|| hostname.to_owned()),
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // DERP connections live long and clients keep no tickets: resumption would be memory and work for
    // nothing.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    // Our record layer takes a connection over after its handshake; without its secrets, rustls keeps it.
    config.enable_secret_extraction = records == TlsRecords::Own;
    Ok(Arc::new(config))
}

/// derper's manual mode: the server name must be the host name, unless that is an address.
#[derive(Debug)]
struct Resolver {
    with_meta: Arc<CertifiedKey>,
    server_name: Option<String>,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let wanted = self.server_name.as_deref();
        let matches = wanted
            .is_none_or(|wanted| hello.server_name().is_some_and(|name| name.eq_ignore_ascii_case(wanted)));
        matches.then(|| Arc::clone(&self.with_meta))
    }
}
