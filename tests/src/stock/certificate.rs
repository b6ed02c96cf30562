//! The two ways in which operators without a public name give a relay a certificate.

use std::fs;
use std::path::Path;

use anyhow::Result;

use super::place::RELAY_IPV4;
use crate::authority::Authority;

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
        let authority = Authority::new("Authority of the stock tests")?;
        fs::write(dir.join(AUTHORITY), authority.pem())?;
        authority.issue(NAME, dir)
    }
}
