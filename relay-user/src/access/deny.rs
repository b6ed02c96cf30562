//! `--relay-deny-file`: networks whose clients may not bind a leg of a UDP session.
//!
//! The list is looked at by handshakes only. A client that is bound is on no denied network, because a list
//! that is read anew ends the sessions of those that are.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use nix::libc;

use super::networks::{LineError, Networks};

/// The longest file that is read, in bytes: more than a million networks.
const MOST_BYTES: u64 = 64 << 20;

/// The denied networks, and the file that names them. The default denies nobody.
#[derive(Debug, Default)]
pub struct DenyList {
    file: Option<PathBuf>,
    networks: ArcSwap<Networks>,
    /// Why the file could not be used when it was last read.
    refused: ArcSwapOption<String>,
}

/// Why a deny file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DenyFileError {
    /// The file cannot be read.
    #[error("cannot read {} (--relay-deny-file): {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// A line is no network.
    #[error("{}:{error} (--relay-deny-file)", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line and the fault.
        error: LineError,
    },
}

impl DenyList {
    /// Reads the list.
    ///
    /// # Errors
    /// The file cannot be read, or a line of it is no network.
    pub fn load(file: PathBuf) -> Result<Self, DenyFileError> {
        let networks = ArcSwap::from_pointee(read(&file)?);
        Ok(Self { file: Some(file), networks, refused: ArcSwapOption::empty() })
    }

    /// Reads the file again and uses the list that is in it now.
    ///
    /// # Errors
    /// As for [`Self::load`]; then the list stays as it was.
    pub fn reload(&self) -> Result<(), DenyFileError> {
        let Some(file) = &self.file else { return Ok(()) };
        let read = read(file);
        self.refused.store(read.as_ref().err().map(|error| Arc::new(error.to_string())));
        self.networks.store(read?.into());
        Ok(())
    }

    /// Why the file could not be used when it was last read; `None`: the list is what the file says.
    pub fn refused(&self) -> Option<Arc<String>> {
        self.refused.load_full()
    }

    /// Whether a client at this address may not bind.
    pub fn denies(&self, ip: IpAddr) -> bool {
        self.networks.load().contains(ip)
    }

    /// The file, if there is one.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Number of networks; those that overlap or touch count as one.
    pub fn len(&self) -> usize {
        self.networks.load().len()
    }

    /// Whether nobody is denied.
    pub fn is_empty(&self) -> bool {
        self.networks.load().is_empty()
    }
}

fn read(path: &Path) -> Result<Networks, DenyFileError> {
    let failed = |error| DenyFileError::Read { path: path.to_owned(), error };
    let mut text = String::new();
    // Opening a pipe, or reading a device, could wait for ever.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")));
    }
    // One byte more, to tell a file of just that length from a longer one.
    file.take(MOST_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MOST_BYTES {
        return Err(failed(io::Error::new(io::ErrorKind::FileTooLarge, "longer than 64 MiB")));
    }
    Networks::parse(&text).map_err(|error| DenyFileError::Line { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_broken_file_is_named_and_leaves_the_old_list() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("deny");
        let error = DenyList::load(path.clone()).expect_err("no file").to_string();
        assert!(error.contains("deny") && error.contains("--relay-deny-file"), "{error}");
        std::fs::write(&path, "192.0.2.0/24\n").expect("written");
        let list = DenyList::load(path.clone()).expect("a list");
        assert!(list.denies(ip("192.0.2.7")) && !list.denies(ip("198.51.100.1")));
        std::fs::write(&path, "198.51.100.1\nnonsense\n").expect("written");
        let error = list.reload().expect_err("broken").to_string();
        assert!(error.starts_with(&format!("{}:2: \"nonsense\" ", path.display())), "{error}");
        assert!(list.denies(ip("192.0.2.7")) && !list.denies(ip("198.51.100.1")), "the old list");
        assert_eq!(list.refused().as_deref(), Some(&error));
        std::fs::write(&path, "198.51.100.1\n").expect("written");
        list.reload().expect("a list");
        assert!(!list.denies(ip("192.0.2.7")) && list.denies(ip("198.51.100.1")));
        assert_eq!(list.refused(), None);
        std::fs::write(&path, [0xff, 0xfe]).expect("written");
        assert!(list.reload().expect_err("not text").to_string().contains("UTF-8"));
        assert!(list.denies(ip("198.51.100.1")));
    }

    #[test]
    fn a_file_that_is_none_is_refused_at_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        for path in [pipe, dir.path().to_owned(), "/dev/zero".into()] {
            let error = DenyList::load(path).expect_err("no file").to_string();
            assert!(error.ends_with("it is not a regular file"), "{error}");
        }
    }

    #[test]
    fn without_a_file_nobody_is_denied() {
        let list = DenyList::default();
        list.reload().expect("nothing to read");
        assert!(list.is_empty() && !list.denies(ip("192.0.2.7")));
    }
}
