//! TLS as a client: whom the relay trusts to be another relay of the mesh.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context, ensure};
use aws_lc_rs::digest;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};

use crate::cli::TlsRecords;

/// Before the digits of a pin, as in a DERP map's `CertName`.
const PIN: &str = "sha256-raw:";

/// The SHA-256 of a server's certificate: the only one that it may show.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Pin([u8; digest::SHA256_OUTPUT_LEN]);

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PIN)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Pin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is no pin; write {PIN} and 64 hex digits, as the other relay logs them");
        let digits = text
            .strip_prefix(PIN)
            .filter(|digits| digits.len() == 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let digits = digits.ok_or_else(wrong)?;
        let mut pin = [0; digest::SHA256_OUTPUT_LEN];
        for (byte, at) in pin.iter_mut().zip((0..).step_by(2)) {
            *byte = u8::from_str_radix(&digits[at..at + 2], 16).map_err(|_| wrong())?;
        }
        Ok(Self(pin))
    }
}

/// The system's certificate authorities, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`.
///
/// # Errors
/// There are none. The message names the remedy.
pub fn roots() -> anyhow::Result<Arc<RootCertStore>> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, ignored) = roots.add_parsable_certificates(found.certs);
    let said: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
    ensure!(
        added > 0,
        "no certificate authorities to verify the relays of -mesh-with by ({}); install ca-certificates, name a \
         file in SSL_CERT_FILE, or pin each relay's certificate with --mesh-pin",
        if said.is_empty() { format!("{ignored} unusable ones found") } else { said.join("; ") }
    );
    Ok(Arc::new(roots))
}

/// The configuration for links to servers that show a certificate of these `roots`.
///
/// # Errors
/// The provider lacks a protocol version.
pub fn trusting(roots: Arc<RootCertStore>, records: TlsRecords) -> anyhow::Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider));
    config(verifier.build().context("the certificate authorities cannot be used")?, provider, records)
}

/// The configuration for links to a server that shows the certificate of this `pin`, whoever signed it,
/// whatever its names, and however old it is: as a client of a pinned DERP map node.
///
/// # Errors
/// The provider lacks a protocol version.
pub fn pinned(pin: Pin, records: TlsRecords) -> anyhow::Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    config(Arc::new(Pinned { pin, provider: Arc::clone(&provider) }), provider, records)
}

fn config(
    verifier: Arc<dyn ServerCertVerifier>,
    provider: Arc<CryptoProvider>,
    records: TlsRecords,
) -> anyhow::Result<Arc<ClientConfig>> {
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Links live long. Another relay may be restarted with other keys at any time.
    config.resumption = Resumption::disabled();
    config.enable_secret_extraction = records == TlsRecords::Own;
    Ok(Arc::new(config))
}

/// The server has another certificate than the pinned one.
#[derive(Debug, thiserror::Error)]
#[error("its certificate is {seen}, and --mesh-pin says {pin}")]
pub struct WrongPin {
    pin: Pin,
    seen: Pin,
}

/// Accepts one certificate.
#[derive(Debug)]
struct Pinned {
    pin: Pin,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let mut seen = Pin([0; digest::SHA256_OUTPUT_LEN]);
        seen.0.copy_from_slice(digest::digest(&digest::SHA256, end_entity).as_ref());
        if seen == self.pin {
            return Ok(ServerCertVerified::assertion());
        }
        let wrong = WrongPin { pin: self.pin, seen };
        Err(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(wrong)))))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_written_as_it_is_read() {
        let text = format!("{PIN}{}", "0f".repeat(32));
        assert_eq!(text.parse::<Pin>().expect("a pin").to_string(), text);
        assert_eq!(
            text.to_uppercase()
                .replace("SHA256-RAW", "sha256-raw")
                .parse::<Pin>()
                .expect("a pin")
                .to_string(),
            text
        );
        for wrong in
            ["", PIN, &text[1..], &text[..text.len() - 1], &format!("{text}0"), &text.replace('f', "é")]
        {
            assert!(wrong.parse::<Pin>().is_err(), "{wrong}");
        }
    }
}
