//! Keeps a second daemon off the same pin directory.
//!
//! The lock is `flock` on a regular file, since the BPF file system has none; it goes with the process,
//! however that ends. A clean end removes the file too, while it is still locked; who takes the lock
//! therefore looks whether the file it locked is still the one of that name. It lies in a directory of this
//! user's own: whoever can open a lock file can hold it, and keep the daemon from starting.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    },
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
            private_dir(parent)?;
        }
        for _ in 0..PATIENCE {
            let file = open(path)?;
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
    let dir = runtime_dir()?;
    private_dir(&dir)?;
    let file = open(&dir.join("bpffs.lock"))?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
}

/// Opens a lock file, for its owner alone and through no symbolic link.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.custom_flags(nix::fcntl::OFlag::O_NOFOLLOW.bits()).open(path)
}

/// Where the lock of a pin directory lives: in the runtime directory, named after the pin directory.
pub(super) fn lock_path(pins: &Path) -> io::Result<PathBuf> {
    Ok(runtime_dir()?.join(lock_name(&resolve(pins))))
}

/// `/run/relayd` for root, else a directory in the user's own.
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

/// Makes the directory, or finds it in nobody else's hands.
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
        let dir = tempfile::tempdir().expect("a directory of one's own");
        let path = dir.path().join("lock");
        let held = Lock::take(&path).expect("nobody has it");
        match Lock::take(&path) {
            Err(LockError::Held(pid)) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("a second lock gave {other:?}"),
        }
        let mode = fs::metadata(&path).expect("a file").mode();
        assert_eq!(mode & 0o777, 0o600, "who can open it can lock it");
        drop(held);
        drop(Lock::take(&path).expect("free again"));
        assert!(!path.exists(), "nothing is left");
        fs::write(&path, "4711\n").expect("what a killed process leaves");
        drop(Lock::take(&path).expect("a file is not a lock"));
    }

    #[test]
    fn of_many_takers_one_at_a_time_has_the_lock() {
        use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
        let dir = tempfile::tempdir().expect("a directory of one's own");
        let path = dir.path().join("lock");
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
        assert!(matches!(Lock::take(&open.join("lock")), Err(LockError::Io(_))));
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path(), &link).expect("link");
        assert!(private_dir(&link).expect_err("refused").to_string().contains("chmod"));
        private_dir(&dir.path().join("new/deep")).expect("made");
    }
}
