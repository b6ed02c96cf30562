//! The two ways in which operators without a public name give a relay a certificate.

use std::fs;
use std::path::Path;

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use super::place::RELAY_IPV4;

/// The relay's certificate, and why clients trust it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certificate {
    /// Files for a DNS name, signed by an authority that the stock program's host trusts.
    Signed,
    /// A self-signed certificate for the relay's IP address; the DERP map pins it.
    Pinned,
}

/// The relay's DNS name.
const NAME: &str = "derp.stock.test";
/// File with the authority's certificate, for `SSL_CERT_FILE`.
pub(super) const AUTHORITY: &str = "authority.pem";

impl Certificate {
    /// The relay's `-hostname`, and its `HostName` in the DERP map.
    pub(super) fn hostname(self) -> String {
        match self {
            Self::Signed => NAME.to_owned(),
            Self::Pinned => RELAY_IPV4.to_string(),
        }
    }

    /// Writes the files that the relay needs into `dir`.
    pub(super) fn write(self, dir: &Path) -> Result<()> {
        if self == Self::Pinned {
            return Ok(());
        }
        let authority_key = KeyPair::generate()?;
        let mut authority = CertificateParams::default();
        authority.distinguished_name.push(DnType::CommonName, "Authority of the stock tests");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_pem = authority.self_signed(&authority_key)?.pem();
        let issuer = Issuer::new(authority, authority_key);
        let key = KeyPair::generate()?;
        let mut leaf = CertificateParams::new([NAME.to_owned()])?;
        // Public authorities set this too, and derpprobe checks the dates only of certificates that name
        // their issuer.
        leaf.use_authority_key_identifier_extension = true;
        let leaf_pem = leaf.signed_by(&key, &issuer)?.pem();
        fs::write(dir.join(AUTHORITY), &authority_pem)?;
        fs::write(dir.join(format!("{NAME}.crt")), leaf_pem + &authority_pem)?;
        fs::write(dir.join(format!("{NAME}.key")), key.serialize_pem())?;
        Ok(())
    }
}
