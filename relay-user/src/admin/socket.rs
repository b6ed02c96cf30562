//! The admin socket's place, and who may own it.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use tokio::net::UnixListener;

/// `/run/relayd/admin.sock` for root, `relayd/admin.sock` under the user's runtime directory for others.
///
/// # Errors
/// Not root, and no runtime directory.
pub fn default_path() -> anyhow::Result<PathBuf> {
    if nix::unistd::geteuid().is_root() {
        return Ok("/run/relayd/admin.sock".into());
    }
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(dir) if !dir.is_empty() => Ok(Path::new(&dir).join("relayd/admin.sock")),
        _ => bail!("no XDG_RUNTIME_DIR to put the admin socket in; name a place with --admin-socket"),
    }
}

/// A bound admin socket; removes its file when dropped.
#[derive(Debug)]
pub struct Bound {
    path: PathBuf,
}

/// Binds the socket for its owner only. Replaces one that nobody serves, and refuses one that somebody does.
///
/// # Errors
/// Names the path and `--admin-socket`.
pub fn bind(path: &Path) -> anyhow::Result<(UnixListener, Bound)> {
    let cannot = || format!("cannot bind the admin socket {} (--admin-socket)", path.display());
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        fs::create_dir_all(dir).with_context(cannot)?;
    }
    match fs::symlink_metadata(path) {
        Ok(meta) if !meta.file_type().is_socket() => {
            bail!("{} exists and is no socket; name another place with --admin-socket", path.display())
        }
        Ok(_) if UnixStream::connect(path).is_ok() => {
            bail!(
                "another relayd serves {}; stop it, or name another place with --admin-socket",
                path.display()
            )
        }
        Ok(_) => fs::remove_file(path).with_context(cannot)?,
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(cannot),
    }
    // Nobody else may connect in between: the file is born with the mode it keeps.
    let previous = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(path);
    nix::sys::stat::umask(previous);
    let listener = listener.with_context(cannot)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).with_context(cannot)?;
    Ok((listener, Bound { path: path.to_owned() }))
}

impl Drop for Bound {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_live_socket_is_refused_and_a_stale_one_replaced() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("sub/admin.sock");
        let (listener, bound) = bind(&path).expect("first");
        let mode = fs::metadata(&path).expect("socket").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(bind(&path).expect_err("live").to_string().contains("--admin-socket"));
        std::mem::forget(bound);
        drop(listener);
        let (_listener, bound) = bind(&path).expect("stale is replaced");
        drop(bound);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_file_in_the_way_is_kept() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("admin.sock");
        fs::write(&path, "mine").expect("written");
        assert!(bind(&path).is_err());
        assert_eq!(fs::read_to_string(&path).expect("kept"), "mine");
    }
}
