//! New files that exist whole or not at all: keys and certificates.
//!
//! The content is written under a random name in the same directory, with its final mode from the start, and
//! synced. Then the file is renamed, if its name is free, and the directory is synced. A daemon that is
//! killed, a full disk, a symbolic link in that place or a second daemon cannot leave a partial file.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::{NamedTempFile, TempPath};

/// A file that has kept its temporary name for longer than this belongs to no running daemon.
const LEFT_BEHIND: Duration = Duration::from_secs(60);

/// A written file that still has its temporary name. Dropping it removes the file.
#[derive(Debug)]
pub struct Staged {
    file: NamedTempFile,
    path: PathBuf,
}

impl Staged {
    /// Writes `bytes` to a temporary file beside `path`, for its owner and others as `mode` allows.
    ///
    /// # Errors
    /// The system's error; no file is left behind.
    pub fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<Self> {
        let prefix = prefix(path)?;
        for old in staged(path)? {
            let age = fs::symlink_metadata(&old).and_then(|meta| meta.modified()).map(|time| time.elapsed());
            // The file was left by a killed daemon; a file that is being written now is younger.
            if age.is_ok_and(|age| age.is_ok_and(|age| age > LEFT_BEHIND)) {
                let _ = fs::remove_file(old);
            }
        }
        let mut file = tempfile::Builder::new()
            .prefix(&prefix)
            .permissions(Permissions::from_mode(mode))
            .tempfile_in(directory(path))?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Gives the file its final name.
    ///
    /// # Errors
    /// `AlreadyExists` if a file has that name, including a dangling symbolic link; otherwise the system's
    /// error.
    pub fn publish(self) -> io::Result<()> {
        self.file.persist_noclobber(&self.path).map_err(|error| error.error)?;
        File::open(directory(&self.path))?.sync_all()
    }
}

/// Files that were written for `path` and still have their temporary names, as a killed daemon leaves them.
///
/// # Errors
/// The system's error.
pub fn staged(path: &Path) -> io::Result<Vec<PathBuf>> {
    let prefix = prefix(path)?;
    let mut found = Vec::new();
    for entry in fs::read_dir(directory(path))? {
        let entry = entry?;
        if entry.file_name().as_bytes().starts_with(prefix.as_bytes()) && entry.file_type()?.is_file() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Gives a file from [`staged`] its final name.
///
/// # Errors
/// The errors of [`Staged::publish`].
pub fn finish(staged: PathBuf, path: &Path) -> io::Result<()> {
    TempPath::try_from_path(staged)?.persist_noclobber(path).map_err(|error| error.error)?;
    File::open(directory(path))?.sync_all()
}

/// Makes the directory of `path` and its missing parents, with this mode.
///
/// # Errors
/// The system's error.
pub fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(directory(path))
}

/// The prefix of the names of temporary files for `path`.
fn prefix(path: &Path) -> io::Result<OsString> {
    let mut prefix = OsString::from(".");
    prefix.push(path.file_name().ok_or(io::ErrorKind::IsADirectory)?);
    prefix.push(".");
    Ok(prefix)
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<OsString> {
        fs::read_dir(dir).expect("directory").map(|entry| entry.expect("entry").file_name()).collect()
    }

    #[test]
    fn a_file_appears_whole_with_its_mode_and_nothing_beside_it() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("a/b");
        make_directory(&path, 0o700).expect("made");
        let staged = Staged::write(&path, b"whole", 0o600).expect("written");
        let [hidden] = names(&dir.path().join("a")).try_into().expect("one file");
        let mode = fs::metadata(path.with_file_name(&hidden)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "from birth");
        assert!(!path.exists());
        staged.publish().expect("named");
        assert_eq!(names(&dir.path().join("a")), ["b"]);
        assert_eq!(fs::read(&path).expect("there"), b"whole");
        drop(Staged::write(&path, b"other", 0o600).expect("written"));
        assert_eq!(names(&dir.path().join("a")), ["b"], "what is not published is gone");
    }

    #[test]
    fn what_killed_daemons_left_is_removed_when_it_is_old() {
        let dir = tempfile::tempdir().expect("directory");
        let [old, new, other] =
            [".key.aaaaaa", ".key.bbbbbb", ".crt.aaaaaa"].map(|name| dir.path().join(name));
        for path in [&old, &new, &other] {
            let file = File::create(path).expect("made");
            if path != &new {
                let hour_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
                file.set_modified(hour_ago).expect("dated");
            }
        }
        drop(Staged::write(&dir.path().join("key"), b"x", 0o600).expect("written"));
        assert_eq!((old.exists(), new.exists(), other.exists()), (false, true, true));
    }

    #[test]
    fn what_has_the_name_already_stays() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("key");
        let target = dir.path().join("elsewhere");
        std::os::unix::fs::symlink(&target, &path).expect("a link to nothing");
        let error = Staged::write(&path, b"x", 0o600).expect("written").publish().expect_err("refused");
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert!(!target.exists() && fs::symlink_metadata(&path).expect("kept").is_symlink());
        assert_eq!(names(dir.path()).len(), 1);
    }
}
