//! Keeps a second daemon from using the same pin directory.
//!
//! The BPF file system has no locks, so the lock file is elsewhere, in this user's own directory: any
//! process that can open a lock file can hold the lock, and so keep the daemon from starting.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{DirBuilderExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use crate::lockfile::{Lock, LockError, open};

/// Maximum wait for another daemon that mounts the BPF file system.
const MOUNT_PATIENCE: Duration = Duration::from_secs(5);
/// Time between two tries.
const MOUNT_POLL: Duration = Duration::from_millis(10);

/// Takes the lock at `path` without waiting; makes its directory if needed.
pub(super) fn take(path: &Path) -> Result<Lock, LockError> {
    if let Some(parent) = path.parent() {
        private_dir(parent)?;
    }
    Lock::take(path)
}

/// Takes the lock that protects mounting the BPF file system; dropping the file releases it. Without it, two
/// daemons that both found it missing would mount one over the other's pins. Its holders need microseconds,
/// so whoever holds it for long is no daemon that starts.
pub(super) fn mount_lock() -> io::Result<File> {
    let dir = runtime_dir()?;
    private_dir(&dir)?;
    wait_for(&dir.join("bpffs.lock"), MOUNT_PATIENCE)
}

fn wait_for(path: &Path, patience: Duration) -> io::Result<File> {
    let file = open(path)?;
    let end = Instant::now() + patience;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if Instant::now() < end => thread::sleep(MOUNT_POLL),
            Err(TryLockError::WouldBlock) => {
                let path = path.display();
                return Err(io::Error::other(format!(
                    "another process has held {path} for more than {} s; end it (fuser {path} names it)",
                    patience.as_secs()
                )));
            }
        }
    }
}

/// The lock file of a pin directory: in the runtime directory, named after the pin directory.
pub(super) fn lock_path(pins: &Path) -> io::Result<PathBuf> {
    Ok(runtime_dir()?.join(lock_name(&resolve(pins))))
}

/// `/run/relayd` for root, else a directory in the user's runtime directory.
fn runtime_dir() -> io::Result<PathBuf> {
    let is_root = nix::unistd::geteuid().is_root();
    runtime_dir_of(is_root, std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from))
}

fn runtime_dir_of(is_root: bool, own: Option<PathBuf>) -> io::Result<PathBuf> {
    match own.filter(|dir| dir.is_absolute()) {
        _ if is_root => Ok(PathBuf::from("/run/relayd")),
        Some(own) => Ok(own.join("relayd")),
        None => Err(io::Error::other(
            "there is no runtime directory of this user for lock files; set XDG_RUNTIME_DIR to one, such as \
             systemd's RuntimeDirectory=, or run relayd as root",
        )),
    }
}

/// Makes the directory; checks that this user owns it and that no other user can write to it.
fn private_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let found = fs::symlink_metadata(dir)?;
    let others_write = found.mode() & 0o022 != 0;
    if !found.is_dir() || found.uid() != nix::unistd::geteuid().as_raw() || others_write {
        let dir = dir.display();
        return Err(io::Error::other(format!(
            "{dir} is not a directory that belongs to this user and that nobody else can write to; \
             remove it, or correct its owner and mode (chmod go-w {dir})"
        )));
    }
    Ok(())
}

/// The path without symbolic links, as far as it exists, so that two spellings of one directory share a lock.
fn resolve(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for parent in path.ancestors() {
        if let Ok(real) = parent.canonicalize() {
            let rest = path.strip_prefix(parent).unwrap_or_else(|_| Path::new(""));
            return if rest.as_os_str().is_empty() { real } else { real.join(rest) };
        }
    }
    path
}

/// Distinct for distinct paths: letters, digits, dots and underscores stay, a slash becomes a hyphen, all
/// other bytes are escaped.
fn lock_name(path: &Path) -> String {
    let mut name = String::from("bpf");
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' => name.push('-'),
            b'.' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => name.push(char::from(*byte)),
            other => name.push_str(&format!("%{other:02x}")),
        }
    }
    name.push_str(".lock");
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distinct_directories_have_distinct_locks() {
        assert_eq!(lock_name(Path::new("/sys/fs/bpf/relayd/v1/3478")), "bpf-sys-fs-bpf-relayd-v1-3478.lock");
        assert_ne!(lock_name(Path::new("/a-b")), lock_name(Path::new("/a/b")));
    }

    #[test]
    fn spellings_of_one_directory_share_a_lock() {
        let place = tempfile::tempdir().expect("a directory");
        let real = place.path().canonicalize().expect("it is there");
        let other = real.join("..").join(real.file_name().expect("a name")).join("not-there");
        assert_eq!(resolve(&other), real.join("not-there"));
    }

    #[test]
    fn locks_are_never_in_a_shared_directory() {
        let of = |is_root, own: Option<&str>| runtime_dir_of(is_root, own.map(PathBuf::from));
        assert_eq!(of(true, Some("/x")).expect("root's"), Path::new("/run/relayd"));
        assert_eq!(of(false, Some("/run/user/1")).expect("own"), Path::new("/run/user/1/relayd"));
        for none in [None, Some(""), Some("relative")] {
            let error = of(false, none).expect_err("no place").to_string();
            assert!(error.contains("XDG_RUNTIME_DIR"), "{error}");
        }
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("a directory of one's own");
        let open = dir.path().join("open");
        fs::create_dir(&open).expect("made");
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).expect("opened");
        assert!(matches!(take(&open.join("lock")), Err(LockError::Io(_))));
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path(), &link).expect("link");
        assert!(private_dir(&link).expect_err("refused").to_string().contains("chmod"));
        private_dir(&dir.path().join("new/deep")).expect("made");
    }

    #[test]
    fn who_holds_the_mount_lock_for_long_delays_a_start_only_so_long() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("bpffs.lock");
        let held = wait_for(&path, Duration::ZERO).expect("free");
        let error = wait_for(&path, Duration::ZERO).expect_err("held").to_string();
        assert!(error.contains("bpffs.lock") && error.contains("end it"), "{error}");
        drop(held);
        wait_for(&path, Duration::from_secs(5)).expect("free again");
    }
}
