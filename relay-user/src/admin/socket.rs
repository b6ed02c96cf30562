//! The admin socket's path, and its owner.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::sys::stat::{Mode, fchmod};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::lockfile::{Lock, LockError};

/// Mode of the socket's file: only the owner has access.
const MODE: u32 = 0o600;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;

/// `admin.sock` in systemd's `RuntimeDirectory=`, if the service has one. Otherwise `/run/relayd/admin.sock`
/// for root, and `relayd/admin.sock` under the user's runtime directory for other users.
///
/// # Errors
/// The user is not root and has no runtime directory.
pub fn default_path() -> anyhow::Result<PathBuf> {
    if let Some(dirs) = std::env::var_os("RUNTIME_DIRECTORY")
        && let Some(dir) = dirs.as_bytes().split(|byte| *byte == b':').find(|dir| !dir.is_empty())
    {
        return Ok(Path::new(OsStr::from_bytes(dir)).join("admin.sock"));
    }
    if nix::unistd::geteuid().is_root() {
        return Ok("/run/relayd/admin.sock".into());
    }
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(dir) if !dir.is_empty() => Ok(Path::new(&dir).join("relayd/admin.sock")),
        _ => bail!("no XDG_RUNTIME_DIR to put the admin socket in; name a place with --admin-socket"),
    }
}

/// A bound admin socket. Dropping it removes the socket's file, if it is still the file made here, and then
/// releases the lock.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    // Device and inode of the file.
    made: (u64, u64),
    _lock: Lock,
}

/// Another daemon uses the path.
#[derive(Debug, thiserror::Error)]
#[error("another relayd serves {}{holder}; stop it, or name another place with --admin-socket", path.display())]
pub struct Taken {
    path: PathBuf,
    holder: String,
}

/// Binds the socket for its owner only. Replaces a socket that no process serves, and refuses one that a
/// process serves.
///
/// If several daemons start together, one gets the socket: all steps are done under the lock of a file beside
/// the socket, which is held as long as the socket.
///
/// # Errors
/// The message names the path, `--admin-socket` and the remedy; [`Taken`] if another daemon serves the
/// socket.
pub fn bind(path: &Path) -> anyhow::Result<(UnixListener, SocketFile)> {
    let cannot = || {
        let path = path.display();
        format!("cannot bind the admin socket {path}; name a place you may write to with --admin-socket")
    };
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        fs::create_dir_all(dir).with_context(cannot)?;
    }
    let lock = lock(path, cannot)?;
    match fs::symlink_metadata(path) {
        Ok(meta) if !meta.file_type().is_socket() => {
            bail!("{} exists and is no socket; name another place with --admin-socket", path.display())
        }
        // The socket belongs to another program, or to a relayd from before the lock was introduced.
        Ok(_) if is_served(path) => return Err(taken(path, None)),
        Ok(_) => fs::remove_file(path).with_context(cannot)?,
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(cannot),
    }
    let listener = listen(path).with_context(cannot)?;
    let meta = fs::symlink_metadata(path).with_context(cannot)?;
    Ok((listener, SocketFile { path: path.to_owned(), made: (meta.dev(), meta.ino()), _lock: lock }))
}

/// Whether a process listens on the socket, even one that accepts nothing. Does not wait.
fn is_served(path: &Path) -> bool {
    let connected = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)
        .and_then(|socket| socket.connect(&SockAddr::unix(path)?));
    match connected {
        Ok(()) => true,
        // As many connections wait as it lets wait.
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}

/// Takes the lock beside the socket without waiting.
fn lock(path: &Path, cannot: impl Fn() -> String) -> anyhow::Result<Lock> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    match Lock::take(Path::new(&name)) {
        Ok(lock) => Ok(lock),
        Err(LockError::Held(holder)) => Err(taken(path, holder)),
        Err(LockError::Io(error)) => Err(error).with_context(cannot),
    }
}

fn taken(path: &Path, holder: Option<u32>) -> anyhow::Error {
    let holder = holder.map_or_else(String::new, |pid| format!(" (process {pid})"));
    Taken { path: path.to_owned(), holder }.into()
}

/// Listens on a socket whose file has its final mode from the start, so that no other user can connect in
/// between. On Linux the file takes the mode of the unbound socket (unix(7) does not say so; see
/// `unix_bind_bsd`).
fn listen(path: &Path) -> std::io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    fchmod(&socket, Mode::from_bits_truncate(MODE))?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(BACKLOG)?;
    let fd: OwnedFd = socket.into();
    Ok(fd.into())
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // The file may be gone already; a file that another process put there must stay.
        let still = fs::symlink_metadata(&self.path).is_ok_and(|meta| (meta.dev(), meta.ino()) == self.made);
        if still {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Barrier;

    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_live_socket_is_refused_and_a_stale_one_replaced() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("sub/admin.sock");
        let (listener, bound) = bind(&path).expect("first");
        let mode = fs::metadata(&path).expect("socket").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let refused = bind(&path).expect_err("live").to_string();
        assert!(refused.contains("--admin-socket"), "{refused}");
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        drop((listener, bound));
        assert!(!path.exists());
        drop(UnixListener::bind(&path).expect("what a killed daemon leaves"));
        let (_listener, bound) = bind(&path).expect("stale is replaced");
        drop(bound);
        assert!(!path.exists());
    }

    #[test]
    fn a_socket_served_without_the_lock_is_refused_too() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("admin.sock");
        let _listener = UnixListener::bind(&path).expect("somebody's");
        assert!(bind(&path).expect_err("live").to_string().contains("--admin-socket"));
        assert!(path.exists());
    }

    #[test]
    fn a_file_in_the_way_is_kept() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("admin.sock");
        fs::write(&path, "mine").expect("written");
        assert!(bind(&path).is_err());
        assert_eq!(fs::read_to_string(&path).expect("kept"), "mine");
    }

    #[test]
    fn another_socket_of_the_name_outlives_the_guard() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("admin.sock");
        let (_listener, bound) = bind(&path).expect("first");
        // The old file is renamed first: a file system may give a new file the inode of a file just removed.
        let moved = dir.path().join("moved");
        fs::rename(&path, &moved).expect("renamed");
        let _other = UnixListener::bind(&path).expect("bound");
        drop(bound);
        assert!(path.exists(), "it is somebody else's");
    }

    #[test]
    fn a_socket_whose_owner_accepts_nothing_is_taken_at_once() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("admin.sock");
        let owner = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
        owner.bind(&SockAddr::unix(&path).expect("short")).expect("bound");
        owner.listen(0).expect("listening");
        let _waiting = UnixStream::connect(&path).expect("the only one that may wait");
        assert!(bind(&path).expect_err("taken").is::<Taken>());
    }

    #[test]
    fn of_many_that_bind_together_one_gets_it() {
        const BINDERS: usize = 4;
        let dir = tempfile::tempdir().expect("directory");
        for round in 0..100 {
            let path = dir.path().join(format!("{round}.sock"));
            drop(UnixListener::bind(&path).expect("a stale one to fall over"));
            let start = Barrier::new(BINDERS);
            let got = std::thread::scope(|scope| {
                let binder = || {
                    start.wait();
                    bind(&path)
                };
                let binders: Vec<_> = (0..BINDERS).map(|_| scope.spawn(binder)).collect();
                binders.into_iter().map(|binder| binder.join().expect("no panic")).collect::<Vec<_>>()
            });
            assert_eq!(got.iter().filter(|got| got.is_ok()).count(), 1, "round {round}");
            assert!(UnixStream::connect(&path).is_ok(), "round {round}: the winner's socket is there");
            drop(got);
            let left: Vec<_> = fs::read_dir(dir.path()).expect("directory").collect();
            assert!(left.is_empty(), "round {round}: {left:?}");
        }
    }
}
