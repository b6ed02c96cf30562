//! derper's `-certmode manual`: a certificate and key in a directory, named after the host.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use time::{Duration, OffsetDateTime};

use crate::newfile::{self, Staged, make_directory};

/// How long a certificate made for an address is valid.
const SELF_SIGNED: Duration = Duration::days(365);

/// Mode of a directory made for certificates, as in derper.
const DIRECTORY_MODE: u32 = 0o700;

/// A chain, leaf first, and the leaf's key.
#[derive(Debug)]
pub struct Certificate {
    /// DER certificates.
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key.
    pub key: PrivateKeyDer<'static>,
    /// The files of chain and key.
    pub files: CertificatePaths,
    /// Whether chain and key were made just now.
    pub fresh: bool,
    /// The certificate's temporary file, if it has not been renamed yet; see [`finish`].
    pub unfinished: Option<PathBuf>,
}

/// The paths of a certificate and its key; the files may not exist yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificatePaths {
    /// The certificates, PEM.
    pub crt: PathBuf,
    /// The private key, PEM.
    pub key: PathBuf,
}

impl CertificatePaths {
    /// `<dir>/<hostname>.crt` and `.key`. As in derper, only letters, digits, dots and dashes of the name are
    /// kept.
    pub fn new(dir: &Path, hostname: &str) -> Self {
        let keep = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
        let name: String = hostname.chars().filter(keep).collect();
        Self { crt: dir.join(format!("{name}.crt")), key: dir.join(format!("{name}.key")) }
    }
}

/// Loads a pair. Returns `None` if neither file exists and the host name is an address, so that a pair can be
/// made. Writes nothing.
///
/// # Errors
/// The message names the file, and the flag that led to it.
pub fn load(files: &CertificatePaths, hostname: &str) -> anyhow::Result<Option<Certificate>> {
    let (crt, key) = (files.crt.display(), files.key.display());
    let (has_crt, has_key) = (is_there(&files.crt)?, is_there(&files.key)?);
    // The daemon was killed between the two renames: the certificate only lacks its name.
    let unfinished = if has_key && !has_crt { unfinished(files) } else { None };
    match (has_crt || unfinished.is_some(), has_key) {
        (true, true) => {}
        (false, false) if hostname.parse::<IpAddr>().is_ok() => return Ok(None),
        (false, false) => bail!(
            "no certificate: put {crt} and {key} there, or change -certdir or -hostname (for a host name \
             that is an IP address, relayd makes a self-signed one)"
        ),
        _ => {
            let (there, missing) = if has_crt { (crt, key) } else { (key, crt) };
            bail!(
                "half a certificate: {there} is there and {missing} is not (-certdir, -hostname); put the \
                 missing file of the pair there, or move the other away (for a host name that is an IP \
                 address, relayd then makes a new pair)"
            )
        }
    }
    let bytes = |path: &Path, what: &str| {
        fs::read(path).with_context(|| {
            let path = path.display();
            format!("cannot read the {what} {path} (-certdir, -hostname); make it readable for this user")
        })
    };
    let found = unfinished.as_deref().unwrap_or(&files.crt);
    let chain = CertificateDer::pem_slice_iter(&bytes(found, "certificate")?)
        .collect::<Result<Vec<_>, _>>()
        .ok()
        .filter(|chain| !chain.is_empty())
        .with_context(|| {
            format!(
                "{crt} holds no PEM certificate (-certdir, -hostname); put the certificate there, behind it \
                 those that issued it"
            )
        })?;
    // The parser's error may show its input, which is secret.
    let key =
        PrivateKeyDer::from_pem_slice(&bytes(&files.key, "certificate key")?).ok().with_context(|| {
            format!(
                "{key} holds no PEM private key without a passphrase (-certdir, -hostname); put the \
             certificate's key there"
            )
        })?;
    Ok(Some(Certificate { chain, key, files: files.clone(), fresh: false, unfinished }))
}

/// Renames the certificate, if the daemon was killed before it could do so.
///
/// # Errors
/// The message names the file, and the flag that led to it.
pub fn finish(certificate: &mut Certificate) -> anyhow::Result<()> {
    let Some(staged) = certificate.unfinished.take() else { return Ok(()) };
    let crt = &certificate.files.crt;
    newfile::finish(staged, crt).with_context(|| {
        format!("cannot write {} (-certdir); make the directory writable, or name another", crt.display())
    })
}

/// The certificate of a pair that was being made when the daemon was killed. It must be whole and match the
/// key.
fn unfinished(files: &CertificatePaths) -> Option<PathBuf> {
    let key = PrivateKeyDer::from_pem_slice(&fs::read(&files.key).ok()?).ok()?;
    let is_ours = |staged: &PathBuf| {
        let chain = fs::read(staged).ok().map(|pem| CertificateDer::pem_slice_iter(&pem).collect());
        let Some(Ok(chain)) = chain else { return false };
        let (key, files) = (key.clone_key(), files.clone());
        super::is_one(&Certificate { chain, key, files, fresh: false, unfinished: None })
    };
    newfile::staged(&files.crt).ok()?.into_iter().find(is_ours)
}

/// Whether a file of this name exists; a dangling link counts.
fn is_there(path: &Path) -> anyhow::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| {
            let path = path.display();
            format!("cannot look for {path} (-certdir, -hostname); make the directory readable for this user")
        }),
    }
}

/// Makes a self-signed pair for a host name that is an address.
///
/// # Errors
/// The message names the file, and the flag that led to it. No file is left behind.
pub fn make(files: &CertificatePaths, hostname: &str, now: OffsetDateTime) -> anyhow::Result<Certificate> {
    let ip: IpAddr = hostname.parse().with_context(|| format!("-hostname {hostname} is no IP address"))?;
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
    let written = write(files, signer.serialize_pem().as_bytes(), certificate.pem().as_bytes());
    if written.as_ref().is_err_and(|error| error.kind() == ErrorKind::AlreadyExists)
        && let Ok(Some(made)) = load(files, hostname)
    {
        // Another daemon that is starting made the pair first.
        return Ok(made);
    }
    written.with_context(|| {
        format!(
            "cannot write {} and {} (-certdir); make the directory writable and free space there, or name \
             another",
            files.key.display(),
            files.crt.display()
        )
    })?;
    let made = load(files, hostname)?.context("the certificate that was just made is gone again")?;
    Ok(Certificate { fresh: true, ..made })
}

/// Both files are written and synced before either is renamed, so that half a pair is very unlikely.
fn write(files: &CertificatePaths, key: &[u8], crt: &[u8]) -> io::Result<()> {
    make_directory(&files.crt, DIRECTORY_MODE)?;
    let staged = (Staged::write(&files.key, key, 0o600)?, Staged::write(&files.crt, crt, 0o644)?);
    staged.0.publish()?;
    staged.1.publish().inspect_err(|_| {
        // The key is ours, and useless without the certificate.
        let _ = fs::remove_file(&files.key);
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// What the daemon does at its start: loads the pair, or makes one if neither file exists.
    fn load_or_make(dir: &Path, hostname: &str, now: OffsetDateTime) -> anyhow::Result<Certificate> {
        let files = CertificatePaths::new(dir, hostname);
        match load(&files, hostname)? {
            Some(mut certificate) => finish(&mut certificate).map(|()| certificate),
            None => make(&files, hostname, now),
        }
    }

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    #[test]
    fn a_pair_for_an_address_is_made_once_and_private() {
        let dir = tempfile::tempdir().expect("directory");
        let sub = dir.path().join("sub");
        let made = load_or_make(&sub, "192.0.2.1", NOW).expect("made");
        assert!(made.fresh);
        let again = load_or_make(&sub, "192.0.2.1", NOW).expect("loaded");
        assert!(!again.fresh && again.chain == made.chain);
        let mode = |path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&made.files.key), mode(&made.files.crt) & 0o400, mode(&sub)), (0o600, 0o400, 0o700));
        assert_eq!(fs::read_dir(&sub).expect("directory").count(), 2, "nothing beside them");
    }

    #[test]
    fn half_a_pair_is_refused_with_both_names_and_kept() {
        for gone in ["crt", "key"] {
            let dir = tempfile::tempdir().expect("directory");
            let made = load_or_make(dir.path(), "192.0.2.1", NOW).expect("made");
            fs::remove_file(dir.path().join(format!("192.0.2.1.{gone}"))).expect("removed");
            let error = load_or_make(dir.path(), "192.0.2.1", NOW).expect_err("half").to_string();
            for path in [&made.files.crt, &made.files.key] {
                assert!(error.contains(&path.display().to_string()), "{error}");
            }
            assert!(error.contains("-certdir") && error.contains("move the other away"), "{error}");
            assert_eq!(fs::read_dir(dir.path()).expect("directory").count(), 1);
        }
    }

    #[test]
    fn a_pair_that_a_killed_daemon_had_all_but_made_is_finished() {
        let dir = tempfile::tempdir().expect("directory");
        let made = load_or_make(dir.path(), "192.0.2.1", NOW).expect("made");
        let staged = |suffix: &str| dir.path().join(format!(".192.0.2.1.crt.{suffix}"));
        fs::rename(&made.files.crt, staged("mine")).expect("renamed");
        // Three certificates that do not fit: another key's, a cut one, and no certificate at all.
        let other = load_or_make(dir.path(), "192.0.2.2", NOW).expect("made");
        fs::rename(&other.files.crt, staged("another")).expect("renamed");
        fs::write(staged("half"), &fs::read(staged("mine")).expect("there")[..99]).expect("written");
        fs::write(staged("none"), "").expect("written");
        let judged = load(&made.files, "192.0.2.1").expect("whole").expect("there");
        assert!(!made.files.crt.exists(), "judging writes nothing");
        assert_eq!(judged.chain, made.chain);
        let finished = load_or_make(dir.path(), "192.0.2.1", NOW).expect("finished");
        assert!(made.files.crt.exists() && !staged("mine").exists() && staged("another").exists());
        assert_eq!(finished.chain, made.chain);
    }

    #[test]
    fn links_to_nothing_are_not_written_through() {
        let dir = tempfile::tempdir().expect("directory");
        let files = CertificatePaths::new(dir.path(), "192.0.2.1");
        let targets = [dir.path().join("a"), dir.path().join("b")];
        std::os::unix::fs::symlink(&targets[0], &files.crt).expect("link");
        std::os::unix::fs::symlink(&targets[1], &files.key).expect("link");
        assert!(load_or_make(dir.path(), "192.0.2.1", NOW).is_err());
        assert!(make(&files, "192.0.2.1", NOW).is_err());
        assert!(targets.iter().all(|target| !target.exists()));
    }

    #[test]
    fn a_pair_of_which_one_name_is_taken_leaves_nothing() {
        let dir = tempfile::tempdir().expect("directory");
        let files = CertificatePaths::new(dir.path(), "192.0.2.1");
        fs::write(&files.crt, "somebody else's").expect("written");
        assert!(make(&files, "192.0.2.1", NOW).is_err());
        assert_eq!(fs::read_dir(dir.path()).expect("directory").count(), 1);
    }

    #[test]
    fn a_host_name_without_files_names_both_and_what_is_no_pem_is_not_repeated() {
        let dir = tempfile::tempdir().expect("directory");
        let error = load_or_make(dir.path(), "relay.example", NOW).expect_err("none").to_string();
        assert!(error.contains("relay.example.crt") && error.contains("relay.example.key"), "{error}");
        fs::write(dir.path().join("relay.example.crt"), "5ec2e7").expect("written");
        fs::write(dir.path().join("relay.example.key"), "5ec2e7").expect("written");
        let error = format!("{:#}", load_or_make(dir.path(), "relay.example", NOW).expect_err("no PEM"));
        assert!(error.contains("relay.example.crt") && !error.contains("5ec2e7"), "{error}");
    }
}
