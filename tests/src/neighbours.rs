//! Two daemons of one region: a mesh key, certificates that each trusts, and the flags that link them.

use std::{fs, net::IpAddr};

use anyhow::Result;
use rand_core::{OsRng, RngCore as _};
use tempfile::TempDir;

use crate::{
    authority::Authority,
    daemon::{DERP_PORT, Setup},
};

/// The files of a region of two relays: the mesh key, their certificates, and the authority that signed them.
#[derive(Debug)]
pub struct Neighbours {
    dir: TempDir,
    addresses: [IpAddr; 2],
}

impl Neighbours {
    /// A region of relays with these addresses.
    pub fn new(addresses: [IpAddr; 2]) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let mut key = [0; 32];
        OsRng.fill_bytes(&mut key);
        let digits: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(dir.path().join("mesh.key"), digits)?;
        let authority = Authority::new("neighbours")?;
        fs::write(dir.path().join("authority.crt"), authority.pem())?;
        addresses.iter().try_for_each(|address| authority.issue(&address.to_string(), dir.path()))?;
        Ok(Self { dir, addresses })
    }

    /// Makes the relay one of the region.
    pub fn join(&self, setup: Setup) -> Setup {
        let path = |name: &str| self.dir.path().join(name).display().to_string();
        let others = self.addresses.iter().map(|address| format!("{address}:{DERP_PORT}"));
        let (key, others) = (path("mesh.key"), others.collect::<Vec<_>>().join(","));
        let setup = setup.with(&["-mesh-psk-file", &key, "-mesh-with", &others]);
        let trust = format!("SSL_CERT_FILE={}", path("authority.crt"));
        Setup { certificate: Some(self.dir.path().to_owned()), ..setup.under(&["env", &trust]) }
    }

    /// The address of the second relay.
    pub fn second(&self) -> IpAddr {
        self.addresses[1]
    }
}
