//! Keeps a second daemon off the same pin directory.
//!
//! The lock is `flock` on a regular file, since the BPF file system has none; it goes with the process,
//! however that ends. A clean end removes the file too, while it is still locked; who takes the lock
//! therefore looks whether the file it locked is still the one of that name.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

/// Files locked and found removed in the meantime before giving up.
const PATIENCE: usize = 8;

/// A held lock; dropping it removes the file and lets go.
#[derive(Debug)]
pub(super) struct Lock {
    path: PathBuf,
    _file: Flock<File>,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Left where it is, the file does no harm.
        let _ = fs::remove_file(&self.path);
    }
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
        for _ in 0..PATIENCE {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(mut file) => {
                    let ours = file.metadata()?;
                    let still = fs::metadata(path)
                        .is_ok_and(|named| (named.dev(), named.ino()) == (ours.dev(), ours.ino()));
                    if !still {
                        continue;
                    }
                    file.set_len(0)?;
                    writeln!(file, "{}", std::process::id())?;
                    return Ok(Self { path: path.to_owned(), _file: file });
                }
                Err((mut file, Errno::EWOULDBLOCK)) => {
                    let mut text = String::new();
                    let read = file.read_to_string(&mut text);
                    return Err(LockError::Held(read.ok().and_then(|_| text.trim().parse().ok())));
                }
                Err((_, errno)) => return Err(LockError::Io(errno.into())),
            }
        }
        Err(LockError::Io(io::Error::other("the lock file is removed again and again")))
    }
}

/// Waits for the lock under which the BPF file system is mounted: two daemons that both found it missing
/// would mount one over the other's pins.
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
        assert!(!path.exists(), "nothing is left");
        fs::write(&path, "4711\n").expect("what a killed process leaves");
        drop(Lock::take(&path).expect("a file is not a lock"));
    }

    #[test]
    fn of_many_takers_one_at_a_time_has_the_lock() {
        use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
        let path = std::env::temp_dir().join(format!("relayd-lock-race-{}", std::process::id()));
        let (inside, taken) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let Ok(lock) = Lock::take(&path) else { continue };
                        assert_eq!(inside.fetch_add(1, SeqCst), 0, "two have the lock");
                        taken.fetch_add(1, SeqCst);
                        inside.fetch_sub(1, SeqCst);
                        drop(lock);
                    }
                });
            }
        });
        assert!(taken.into_inner() > 0);
    }
}
