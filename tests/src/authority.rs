//! A certificate authority of a test, for relays that are verified by name instead of being pinned.

use std::fs;
use std::path::Path;

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// The authority; its key is never written to a file.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    /// A new authority with this common name.
    pub(crate) fn new(name: &str) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut authority = CertificateParams::default();
        authority.distinguished_name.push(DnType::CommonName, name);
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = authority.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(authority, key), pem })
    }

    /// The authority's own certificate, for `SSL_CERT_FILE`.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// Writes `NAME.crt`, with the chain, and `NAME.key` into `dir`, as `-certmode manual` expects them.
    pub(crate) fn issue(&self, name: &str, dir: &Path) -> Result<()> {
        let key = KeyPair::generate()?;
        let mut leaf = CertificateParams::new([name.to_owned()])?;
        // Public authorities set this too, and derpprobe checks the dates only of certificates that name
        // their issuer.
        leaf.use_authority_key_identifier_extension = true;
        let chain = leaf.signed_by(&key, &self.issuer)?.pem() + &self.pem;
        fs::write(dir.join(format!("{name}.crt")), chain)?;
        fs::write(dir.join(format!("{name}.key")), key.serialize_pem())?;
        Ok(())
    }
}
