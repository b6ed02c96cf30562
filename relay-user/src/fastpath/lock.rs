//! Keeps a second daemon off the same pin directory.
//!
//! The lock is `flock` on a regular file, since the BPF file system has none; it goes with the process, however that
//! ends. The file stays: removing it would let two daemons lock two files of one name.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

/// A held lock; dropping it lets go.
#[derive(Debug)]
pub(super) struct Lock {
    _file: Flock<File>,
}

/// Why a lock was not had.
#[derive(Debug)]
pub(super) enum LockError {
    /// Another process has it: its id, if the file says.
    Held(Option<u32>),
    /// The file could not be opened or locked.
    Io(io::Error),
}

impl From<io::Error> for LockError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Lock {
    /// Takes the lock at `path` without waiting and leaves this process's id in it.
    pub(super) fn take(path: &Path) -> Result<Self, LockError> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                file.set_len(0)?;
                writeln!(file, "{}", std::process::id())?;
                Ok(Self { _file: file })
            }
            Err((mut file, Errno::EWOULDBLOCK)) => {
                let mut text = String::new();
                let read = file.read_to_string(&mut text);
                Err(LockError::Held(read.ok().and_then(|_| text.trim().parse().ok())))
            }
            Err((_, errno)) => Err(LockError::Io(errno.into())),
        }
    }
}

/// Waits for the lock under which the BPF file system is mounted: two daemons that both found it missing would mount one
/// over the other's pins.
pub(super) fn mount_lock() -> io::Result<Flock<File>> {
    let dir = runtime_dir();
    fs::create_dir_all(&dir)?;
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(dir.join("bpffs.lock"))?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
}

/// Where the lock of a pin directory lives: in the runtime directory, named after the pin directory.
pub(super) fn lock_path(pins: &Path) -> PathBuf {
    runtime_dir().join(lock_name(&resolve(pins)))
}

/// `/run/relayd` for root, else the user's own.
fn runtime_dir() -> PathBuf {
    if nix::unistd::geteuid().is_root() {
        return PathBuf::from("/run/relayd");
    }
    std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from).join("relayd")
}

/// The path without symbolic links, as far as it exists: two spellings of one directory share a lock.
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

/// Distinct for distinct paths: letters, digits, dots and underscores stay, everything else is escaped.
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
        let real = std::env::temp_dir().canonicalize().expect("a temporary directory");
        let other = real.join("..").join(real.file_name().expect("a name")).join("not-there");
        assert_eq!(resolve(&other), real.join("not-there"));
    }

    #[test]
    fn a_held_lock_is_refused_with_the_holder_and_free_after_drop() {
        let path = std::env::temp_dir().join(format!("relayd-lock-test-{}", std::process::id()));
        let held = Lock::take(&path).expect("nobody has it");
        match Lock::take(&path) {
            Err(LockError::Held(pid)) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("a second lock gave {other:?}"),
        }
        drop(held);
        drop(Lock::take(&path).expect("free again"));
        fs::remove_file(&path).expect("the test's own file");
    }
}
