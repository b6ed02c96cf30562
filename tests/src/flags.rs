//! The command line of a relay under test, in the flags that relayd and derper share.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

/// The flags. A relay with them has no plain companion and no STUN unless it is given their ports or has
/// derper's.
#[derive(Clone, Debug)]
pub(crate) struct Flags {
    /// `-a`: where DERP listens.
    pub addr: String,
    /// `-c`: the file of the relay's key.
    pub key: PathBuf,
    /// With TLS: `-hostname` and `-certdir`. Without, the address must not have port 443.
    pub tls: Option<(String, PathBuf)>,
    /// `-http-port`.
    pub http_port: Option<u16>,
    /// `-stun-port`.
    pub stun_port: Option<u16>,
    /// Whether the flags of both ports are left out, which gives derper's ports.
    pub default_ports: bool,
}

impl Flags {
    /// Without TLS, with the key in `dir`.
    pub(crate) fn plain(addr: String, dir: &Path) -> Self {
        let key = dir.join("derper.key");
        Self { addr, key, tls: None, http_port: None, stun_port: None, default_ports: false }
    }

    /// With TLS for `hostname`, with the key and the certificates in `dir`.
    pub(crate) fn tls(addr: String, dir: &Path, hostname: &str) -> Self {
        Self { tls: Some((hostname.to_owned(), dir.to_owned())), ..Self::plain(addr, dir) }
    }

    /// With the plain companion on this port.
    #[must_use]
    pub(crate) fn http(self, port: u16) -> Self {
        Self { http_port: Some(port), ..self }
    }

    /// With STUN on this port.
    #[must_use]
    pub(crate) fn stun(self, port: u16) -> Self {
        Self { stun_port: Some(port), ..self }
    }

    /// With derper's ports for the companion and STUN.
    #[must_use]
    pub(crate) fn default_ports(self) -> Self {
        Self { default_ports: true, ..self }
    }

    /// The arguments.
    pub(crate) fn words(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> =
            vec!["-a".into(), (&self.addr).into(), "-c".into(), (&self.key).into()];
        if let Some((hostname, dir)) = &self.tls {
            words.extend(["-certmode".into(), "manual".into(), "-hostname".into(), hostname.into()]);
            words.extend(["-certdir".into(), dir.into()]);
        }
        if self.default_ports {
            return words;
        }
        words.push(format!("-http-port={}", self.http_port.map_or(-1, i32::from)).into());
        words.push(match self.stun_port {
            Some(port) => format!("-stun-port={port}").into(),
            None => "-stun=false".into(),
        });
        words
    }
}
