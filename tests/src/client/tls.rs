//! Which servers a client of the tests accepts: one, by its certificate, or all.
//!
//! The relay of a test has a self-signed certificate for an address, so the client pins its bytes. The client
//! still verifies the handshake's signature, because the signature, not the chain, proves that the relay
//! holds the key.

use std::{net::IpAddr, path::Path, sync::Arc};

use anyhow::{Context as _, Result};
use relay_common::key::NodePublic;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme, SupportedProtocolVersion,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{
        CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
    },
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
};

/// Prefix of the meta certificate's common name.
const META_NAME: &[u8] = b"derpkey";
/// Version 3, then the DERP protocol version 2 as serial number.
const META_HEAD: [u8; 8] = [0xa0, 3, 2, 1, 2, 2, 1, 2];
/// Hex digits of the key in the common name.
const HEX_LEN: usize = 64;

/// The certificate that a relay must show first, and the name by which the client asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinned {
    certificate: CertificateDer<'static>,
    /// `None`: the address, which TLS does not send.
    name: Option<ServerName<'static>>,
}

impl Pinned {
    /// Reads the first certificate of a PEM file.
    pub fn load(path: &Path) -> Result<Self> {
        let certificate = CertificateDer::from_pem_file(path);
        let certificate = certificate.with_context(|| format!("certificate {}", path.display()))?;
        Ok(Self { certificate, name: None })
    }

    /// Asks for the certificate by this name: a relay whose certificate is for a name refuses clients that
    /// send none.
    pub fn by_name(self, name: &str) -> Result<Self> {
        Ok(Self { name: Some(ServerName::try_from(name.to_owned())?), ..self })
    }

    /// The name for a connection to this address.
    pub(super) fn name(&self, ip: IpAddr) -> ServerName<'static> {
        self.name.clone().unwrap_or_else(|| ServerName::IpAddress(ip.into()))
    }

    /// A TLS configuration that accepts this certificate and uses one version.
    pub(super) fn config(&self, version: &'static SupportedProtocolVersion) -> Result<Arc<ClientConfig>> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = Verifier { pinned: Some(self.certificate.clone()), provider: Arc::clone(&provider) };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        // For the forger, which continues with the keys and without rustls.
        config.enable_secret_extraction = true;
        Ok(Arc::new(config))
    }
}

/// The relay's key from the meta certificate, which must be the last of the chain and must have the
/// protocol's version.
pub(super) fn meta_key(chain: &[CertificateDer<'_>]) -> Option<NodePublic> {
    let der = chain.last()?;
    der.windows(META_HEAD.len()).find(|window| *window == META_HEAD)?;
    let at = der.windows(META_NAME.len()).position(|window| window == META_NAME)? + META_NAME.len();
    let digits = core::str::from_utf8(der.get(at..at + HEX_LEN)?).ok()?;
    format!("{}{digits}", NodePublic::PREFIX).parse().ok()
}

/// Accepts every server and verifies nothing: for a client that started its server, and should cost little.
pub(crate) fn anyone() -> Arc<dyn ServerCertVerifier> {
    Arc::new(Verifier { pinned: None, provider: Arc::new(aws_lc_rs::default_provider()) })
}

#[derive(Debug)]
struct Verifier {
    /// The only certificate that is accepted; `None`: any, without a look at the signature.
    pinned: Option<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn signature(
        &self,
        verify: impl FnOnce(&WebPkiSupportedAlgorithms) -> Result<HandshakeSignatureValid, Error>,
    ) -> Result<HandshakeSignatureValid, Error> {
        match self.pinned {
            Some(_) => verify(&self.provider.signature_verification_algorithms),
            None => Ok(HandshakeSignatureValid::assertion()),
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match &self.pinned {
            Some(pinned) if pinned != end_entity => Err(Error::General("not the pinned certificate".into())),
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(|algorithms| verify_tls12_signature(message, certificate, signature, algorithms))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(|algorithms| verify_tls13_signature(message, certificate, signature, algorithms))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
