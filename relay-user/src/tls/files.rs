//! derper's `-certmode manual`: a certificate and key in a directory, named after the host.

use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use time::{Duration, OffsetDateTime};

/// How long a certificate that was made for an address is valid.
const SELF_SIGNED: Duration = Duration::days(365);

/// A chain, leaf first, and the leaf's key.
#[derive(Debug)]
pub struct Certificate {
    /// DER certificates.
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key.
    pub key: PrivateKeyDer<'static>,
    /// It was made just now; the caller may want to tell how to pin it.
    pub fresh: bool,
}

impl Certificate {
    /// SHA-256 of the leaf, in hex: what a DERP map pins as `sha256-raw:`.
    pub fn fingerprint(&self) -> String {
        let leaf = self.chain.first().map_or(&[][..], |leaf| leaf.as_ref());
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, leaf);
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Loads `<dir>/<hostname>.crt` and `.key`. Where neither exists and the host name is an address, makes them.
///
/// # Errors
/// Names the file, and the flag that leads to it.
pub fn load_or_make(dir: &Path, hostname: &str, now: OffsetDateTime) -> anyhow::Result<Certificate> {
    let (crt, key) = paths(dir, hostname);
    if !crt.exists() && !key.exists() {
        let Ok(ip) = hostname.parse::<IpAddr>() else {
            bail!(
                "no certificate: put {} and {} there, or change --certdir or --hostname \
                 (for a host name that is an IP address, relayd makes a self-signed one)",
                crt.display(),
                key.display()
            );
        };
        make(&crt, &key, ip, now)?;
        return Ok(Certificate { fresh: true, ..load(&crt, &key)? });
    }
    load(&crt, &key)
}

fn paths(dir: &Path, hostname: &str) -> (PathBuf, PathBuf) {
    let keep = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    let name: String = hostname.chars().filter(keep).collect();
    (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")))
}

fn load(crt: &Path, key: &Path) -> anyhow::Result<Certificate> {
    let chain = CertificateDer::pem_file_iter(crt)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("certificate {} (--certdir, --hostname)", crt.display()))?;
    if chain.is_empty() {
        bail!("certificate {} holds no PEM certificate (--certdir, --hostname)", crt.display());
    }
    let key = PrivateKeyDer::from_pem_file(key)
        .with_context(|| format!("certificate key {} (--certdir, --hostname)", key.display()))?;
    Ok(Certificate { chain, key, fresh: false })
}

fn make(crt: &Path, key: &Path, ip: IpAddr, now: OffsetDateTime) -> anyhow::Result<()> {
    let signer = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.not_before = now;
    params.not_after = now + SELF_SIGNED;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, ip.to_string());
    params.subject_alt_names = vec![SanType::IpAddress(ip)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.is_ca = rcgen::IsCa::ExplicitNoCa;
    let certificate = params.self_signed(&signer)?;
    if let Some(dir) = crt.parent() {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {} (--certdir)", dir.display()))?;
    }
    write(key, signer.serialize_pem().as_bytes(), 0o600)?;
    write(crt, certificate.pem().as_bytes(), 0o644)
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    let open = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    open.and_then(|mut file| file.write_all(bytes))
        .with_context(|| format!("cannot write {} (--certdir)", path.display()))
}
