//! The pin directory, where `relayd inspect`, bpftool and debugging after a crash find the maps.
//!
//! The maps are pinned; the attachment is not. A clean stop removes the pins and their directory. After a
//! kill the program is gone with its process, and the maps stay for inspection until the next start removes
//! them.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};
use relay_common::fastpath::{SCHEMA, map};

use super::{
    error::StartError,
    lock::{self, lock_path, mount_lock},
};
use crate::lockfile::{Lock, LockError};

/// The host's BPF file system.
const BPFFS: &str = "/sys/fs/bpf";

/// The parent of every default pin directory of this daemon.
pub const ROOT: &str = "/sys/fs/bpf/relayd";

/// The maps that are pinned, by name.
pub(super) const PINNED: [&str; 5] =
    [map::SESSIONS, map::NEXTHOPS, map::LEG_STATS, map::REASONS, map::CONFIG];

/// The pin directory unless `--bpf-dir` names another: one for each schema and UDP port.
pub fn default_dir(udp_port: u16) -> PathBuf {
    PathBuf::from(format!("{ROOT}/v{SCHEMA}/{udp_port}"))
}

/// A locked pin directory without pins of an earlier run. Dropping it removes the pins, then the directory,
/// then releases the lock.
#[derive(Debug)]
pub(super) struct Pins {
    dir: PathBuf,
    _lock: Lock,
}

impl Pins {
    /// Locks, creates and empties `dir`. `None` if it is not on a BPF file system and none can be mounted
    /// there, which causes one warning.
    pub(super) fn open(dir: &Path) -> Result<Option<Self>, StartError> {
        if let Err(cause) = ensure_bpffs(dir) {
            tracing::warn!(
                dir = %dir.display(), %cause,
                "no BPF file system: the maps are not pinned, so `relayd inspect` will not find them; \
                 mount one with `mount -t bpf bpf {BPFFS}`",
            );
            return Ok(None);
        }
        let failed = |doing: &str| {
            let (dir, doing) = (dir.to_owned(), doing.to_owned());
            move |cause| StartError::Directory { dir, doing, cause }
        };
        let path = lock_path(dir).map_err(|cause| StartError::Lock { dir: dir.to_owned(), cause })?;
        let lock = lock::take(&path).map_err(|error| match error {
            LockError::Held(pid) => StartError::Locked { dir: dir.to_owned(), pid, lock: path.clone() },
            LockError::Io(cause) => {
                let cause = io::Error::new(cause.kind(), format!("{}: {cause}", path.display()));
                StartError::Lock { dir: dir.to_owned(), cause }
            }
        })?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed("create it"))?;
        let cleared = clear(dir).map_err(failed("remove the maps of an earlier run"))?;
        if cleared > 0 {
            let dir = dir.display();
            tracing::info!(%dir, cleared, "removed the maps of a daemon that did not stop cleanly");
        }
        Ok(Some(Self { dir: dir.to_owned(), _lock: lock }))
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        if let Err(error) = clear(&self.dir) {
            tracing::warn!(dir = %self.dir.display(), %error, "the pinned maps could not be removed");
        }
        // The directory is not empty if another process pinned something here; then that process must remove
        // it. The directories above stay, because other ports share them.
        let _ = fs::remove_dir(&self.dir);
    }
}

/// Removes only this daemon's pins: a mistyped directory must not lose pins of another program.
fn clear(dir: &Path) -> io::Result<usize> {
    let mut cleared = 0;
    for name in PINNED {
        match fs::remove_file(dir.join(name)) {
            Ok(()) => cleared += 1,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(cleared)
}

/// Ensures that `dir` will be on a BPF file system; mounts the host's if it is missing.
fn ensure_bpffs(dir: &Path) -> io::Result<()> {
    if on_bpffs(dir)? {
        return Ok(());
    }
    if !dir.starts_with(BPFFS) {
        return Err(io::Error::other("the directory is not on one"));
    }
    let _lock = mount_lock()?;
    if on_bpffs(dir)? {
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), BPFFS, Some("bpf"), flags, Some("mode=0700"))?;
    Ok(())
}

/// Whether `dir`, or the existing part of its path, is on a BPF file system.
fn on_bpffs(dir: &Path) -> io::Result<bool> {
    let dir = std::path::absolute(dir)?;
    let exists = dir.ancestors().find(|path| path.exists()).unwrap_or_else(|| Path::new("/"));
    Ok(statfs(exists)?.filesystem_type() == BPF_FS_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_directory_names_schema_and_port() {
        assert_eq!(default_dir(3478), Path::new("/sys/fs/bpf/relayd/v2/3478"));
    }

    #[test]
    fn a_directory_elsewhere_is_not_mounted_over() {
        let dir = tempfile::tempdir().expect("a directory").path().join("not-there");
        assert!(!on_bpffs(&dir).expect("statfs of the temporary directory"));
        assert!(ensure_bpffs(&dir).is_err());
    }

    #[test]
    fn only_this_daemons_pins_are_removed() {
        let place = tempfile::tempdir().expect("a directory");
        let dir = place.path();
        for name in [map::SESSIONS, map::CONFIG, "SOMEBODY_ELSES"] {
            fs::write(dir.join(name), "").expect("a file in it");
        }
        assert_eq!(clear(dir).expect("it is there"), 2);
        assert!(dir.join("SOMEBODY_ELSES").exists());
    }
}
