//! New files that are there whole or not at all: keys and certificates.
//!
//! The content is written under a random name in the same directory, with its mode from birth, and synced;
//! then it gets its name, if nobody has it, and the directory is synced. A daemon that is killed, a full
//! disk, a symbolic link that somebody put there or a second daemon cannot make it otherwise.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// A written file that has not got its name yet. Dropped, it is gone.
#[derive(Debug)]
pub struct Staged {
    file: NamedTempFile,
    path: PathBuf,
}

impl Staged {
    /// Writes `bytes` beside `path`, for its owner and whoever `mode` allows.
    ///
    /// # Errors
    /// The system's; nothing is left behind.
    pub fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<Self> {
        let mut prefix = OsString::from(".");
        prefix.push(path.file_name().ok_or(io::ErrorKind::IsADirectory)?);
        prefix.push(".");
        let mut file = tempfile::Builder::new()
            .prefix(&prefix)
            .permissions(Permissions::from_mode(mode))
            .tempfile_in(directory(path))?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// `AlreadyExists` if something has that name, a dangling symbolic link included; else the system's.
    pub fn publish(self) -> io::Result<()> {
        self.file.persist_noclobber(&self.path).map_err(|error| error.error)?;
        File::open(directory(&self.path))?.sync_all()
    }
}

/// Makes the directory that `path` is to be in, and those above it, with this mode where they are missing.
///
/// # Errors
/// The system's.
pub fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(directory(path))
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

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
