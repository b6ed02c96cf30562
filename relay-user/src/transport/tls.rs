//! TLS for DERP: as a server with derper's certificates, followed by the meta certificate that enables fast
//! start; as a client of the other relays of the mesh.

pub mod certificate;
pub mod cipher;
pub mod client;
pub mod files;
pub mod handshake;
pub mod map_node;
pub mod meta;
pub mod records;
mod side;
pub mod stream;

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context, bail};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, ServerConfig};

use self::certificate::Facts;

use crate::cli::TlsRecords;

/// Makes the server configuration: TLS 1.2 and 1.3, one certificate, `meta` as the last of its chain.
/// `records` selects the record layer for TLS 1.3.
///
/// # Errors
/// The key cannot sign or belongs to another certificate, or the provider lacks a protocol version. The
/// message names the files.
pub fn server_config(
    certificate: files::Certificate,
    meta: CertificateDer<'static>,
    hostname: &str,
    records: TlsRecords,
) -> anyhow::Result<Arc<ServerConfig>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut certified = certified(&provider, &certificate)?;
    certified.cert.push(meta);
    let resolver = Resolver {
        with_meta: Arc::new(certified),
        // An address has no server name to compare; clients that dial an address send none.
        server_name: hostname.parse::<IpAddr>().is_err().then(|| hostname.to_owned()),
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // DERP connections live long and clients keep no tickets: resumption would cost memory and work for
    // nothing.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    // Our record layer takes a connection over after its handshake, for which it needs the secrets. Without
    // them, rustls keeps the connection.
    config.enable_secret_extraction = records == TlsRecords::Own;
    Ok(Arc::new(config))
}

/// Reads a certificate and checks that it can serve clients of `hostname`.
///
/// # Errors
/// The certificate is for another host, or the key belongs to another certificate. The message names the
/// files and the remedy.
pub fn judge(certificate: &files::Certificate, hostname: &str) -> anyhow::Result<Facts> {
    certified(&rustls::crypto::aws_lc_rs::default_provider(), certificate)?;
    Facts::of(certificate, hostname)
}

/// Whether certificate and key belong together.
fn is_one(certificate: &files::Certificate) -> bool {
    !certificate.chain.is_empty()
        && certified(&rustls::crypto::aws_lc_rs::default_provider(), certificate).is_ok()
}

/// Certificate and key in the form that rustls serves.
///
/// # Errors
/// The key cannot sign, or belongs to another certificate. The message names the files and the remedy.
fn certified(provider: &CryptoProvider, certificate: &files::Certificate) -> anyhow::Result<CertifiedKey> {
    let (crt, key) = (certificate.files.crt.display(), certificate.files.key.display());
    let signer = provider.key_provider.load_private_key(certificate.key.clone_key()).with_context(|| {
        format!("the key {key} cannot be used (-certdir, -hostname); use one of ECDSA P-256 or RSA 2048")
    })?;
    let certified = CertifiedKey::new(certificate.chain.clone(), signer);
    match certified.keys_match() {
        // If the provider cannot compare certificate and key, the clients will.
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(_)) => bail!(
            "{key} is not the key of the first certificate in {crt} (-certdir, -hostname); put the key and \
             the certificate there that were issued together"
        ),
        Err(error) => Err(error).with_context(|| {
            format!("the certificate {crt} cannot be used (-certdir, -hostname); replace it")
        }),
    }
}

/// derper's manual mode: the server name must be the host name, unless the host name is an address.
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
