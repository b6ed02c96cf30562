//! Lock files: only one of several processes gets the lock.
//!
//! The lock is `flock` on a regular file, so the system releases it when the process ends, for any reason. A
//! clean end also removes the file, while it is still locked. So a process that takes the lock checks that
//! the locked file is still the one of that name.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Tries before giving up: in each, the locked file had been removed in the meantime.
const PATIENCE: usize = 8;

/// A held lock; dropping it removes the file and releases the lock.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // A file that is left behind does no harm; if it was removed, another process's file may have its
        // name.
        if is_named(&self.file, &self.path) {
            let _ = fs::remove_file(&self.path);
        }
        // A child that was just forked may have the file open until it runs its program, and with it the
        // lock.
        let _ = self.file.unlock();
    }
}

/// Why the lock was not taken.
#[derive(Debug)]
pub enum LockError {
    /// Another process holds the lock: its id, if the file has it.
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
    /// Takes the lock at `path` without waiting and writes this process's id into the file.
    ///
    /// # Errors
    /// Another process holds it, or the file cannot be opened.
    pub fn take(path: &Path) -> Result<Self, LockError> {
        for _ in 0..PATIENCE {
            let mut file = open(path)?;
            match file.try_lock() {
                Ok(()) => {
                    if !is_named(&file, path) {
                        continue;
                    }
                    // The id is only for people: on a full disk, the lock works without it.
                    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
                    return Ok(Self { path: path.to_owned(), file });
                }
                Err(TryLockError::WouldBlock) => {
                    let mut text = String::new();
                    let read = file.read_to_string(&mut text);
                    return Err(LockError::Held(read.ok().and_then(|_| text.trim().parse().ok())));
                }
                Err(TryLockError::Error(error)) => return Err(LockError::Io(error)),
            }
        }
        Err(LockError::Io(io::Error::other("the lock file is removed again and again")))
    }
}

/// Whether `path` still names `file`.
fn is_named(file: &File, path: &Path) -> bool {
    let (Ok(ours), Ok(named)) = (file.metadata(), fs::symlink_metadata(path)) else { return false };
    (named.dev(), named.ino()) == (ours.dev(), ours.ino())
}

/// Opens a lock file: only for its owner, and not through a symbolic link.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.custom_flags(nix::fcntl::OFlag::O_NOFOLLOW.bits()).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_lock_that_lost_its_file_leaves_anothers_alone() {
        let dir = tempfile::tempdir().expect("a directory of one's own");
        let path = dir.path().join("lock");
        let first = Lock::take(&path).expect("nobody has it");
        fs::remove_file(&path).expect("somebody tidies up");
        let _second = Lock::take(&path).expect("a new file");
        drop(first);
        assert!(matches!(Lock::take(&path), Err(LockError::Held(_))));
    }
}
