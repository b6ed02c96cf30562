//! derper's key file: JSON with one member, `PrivateKey`. A missing file is made with mode 0600.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, bail};
use rand_core::OsRng;
use relay_common::key::NodePrivate;
use serde::Deserialize;

use crate::newfile::{Staged, make_directory};

/// Mode of a directory made for the key, as in derper.
const DIRECTORY_MODE: u32 = 0o755;

#[derive(Deserialize)]
struct KeyFile {
    #[serde(rename = "PrivateKey")]
    private_key: String,
}

/// Loads the server's key; `None` if there is no file. Writes nothing.
///
/// # Errors
/// The message names the file and the flag that led to it.
pub fn load(path: &Path) -> anyhow::Result<Option<NodePrivate>> {
    match fs::read_to_string(path) {
        Ok(text) => parse(&text).map(Some).with_context(|| {
            format!("key file {} (-c): restore it, or move it away and a new key is made", path.display())
        }),
        // A dangling link is a mistake, so no new key is written there.
        Err(error) if error.kind() == ErrorKind::NotFound => match fs::symlink_metadata(path) {
            Ok(_) => bail!("key file {} (-c) is a link to nothing; remove it, or mend it", path.display()),
            Err(_) => Ok(None),
        },
        Err(error) => Err(error).with_context(|| {
            let path = path.display();
            format!("cannot read key file {path} (-c); make it readable for this user, or name another")
        }),
    }
}

/// Makes a key and writes it. If another daemon writes its key first, that key is used.
///
/// # Errors
/// The message names the file and the flag that led to it; no file is left behind.
pub fn make(path: &Path) -> anyhow::Result<NodePrivate> {
    let key = NodePrivate::generate(&mut OsRng);
    let cannot = || {
        let path = path.display();
        format!(
            "cannot write key file {path} (-c); make its directory writable and free space there, or name another"
        )
    };
    let text = format!("{{\n\t\"PrivateKey\": \"{}\"\n}}\n", key.to_text());
    make_directory(path, DIRECTORY_MODE).with_context(cannot)?;
    match Staged::write(path, text.as_bytes(), 0o600).and_then(Staged::publish) {
        Ok(()) => Ok(key),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => load(path)?.with_context(cannot),
        Err(error) => Err(error).with_context(cannot),
    }
}

fn parse(text: &str) -> anyhow::Result<NodePrivate> {
    // The parsers' errors are not passed on: they contain their input, and a key must not get into a log.
    let file: KeyFile = serde_json::from_str(text)
        .map_err(|error| anyhow::anyhow!("not derper's JSON, at line {}", error.line()))?;
    file.private_key.parse().map_err(|_| anyhow::anyhow!("PrivateKey is not privkey: and 64 hex digits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_or_make(path: &Path) -> anyhow::Result<NodePrivate> {
        load(path)?.map_or_else(|| make(path), Ok)
    }

    #[test]
    fn of_many_daemons_that_make_the_key_all_have_the_same() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("derper.key");
        let keys: Vec<_> = std::thread::scope(|scope| {
            let made: Vec<_> = (0..8).map(|_| scope.spawn(|| make(&path).expect("made").public())).collect();
            made.into_iter().map(|thread| thread.join().expect("ends")).collect()
        });
        let kept = load(&path).expect("valid").expect("there").public();
        assert_eq!(keys, [kept; 8]);
        assert_eq!(fs::read_dir(dir.path()).expect("directory").count(), 1, "nothing beside it");
    }

    #[test]
    fn a_key_is_never_written_where_a_link_points() {
        let dir = tempfile::tempdir().expect("directory");
        let (path, target) = (dir.path().join("derper.key"), dir.path().join("elsewhere"));
        std::os::unix::fs::symlink(&target, &path).expect("link");
        assert!(format!("{:#}", load_or_make(&path).expect_err("refused")).contains("link to nothing"));
        assert!(make(&path).is_err() && !target.exists());
        // The temporary name that an older relayd used.
        let new = dir.path().join("other.new");
        std::os::unix::fs::symlink(&target, &new).expect("link");
        make(&dir.path().join("other.key")).expect("made");
        assert!(!target.exists() && new.is_symlink());
    }

    #[test]
    fn what_does_not_parse_is_not_repeated() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("derper.key");
        for text in ["{\"PrivateKey\": 5ec2e7}", "\"5ec2e7\"", "{\"PrivateKey\":\"privkey:5ec2e7\"}"] {
            fs::write(&path, text).expect("written");
            let error = format!("{:#}", load(&path).expect_err("refused"));
            assert!(error.contains("-c") && !error.contains("5ec2e7"), "{error}");
        }
    }

    #[test]
    fn a_made_key_is_private_and_loads_again() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("deep/derper.key");
        let made = load_or_make(&path).expect("made");
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).expect("file").permissions());
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(load_or_make(&path).expect("loaded").public(), made.public());
    }

    #[test]
    fn a_broken_file_is_refused_without_its_content_and_kept() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("derper.key");
        fs::write(&path, "{\"PrivateKey\":\"privkey:secret\"}").expect("written");
        let error = format!("{:#}", load_or_make(&path).expect_err("refused"));
        assert!(error.contains("-c") && !error.contains("secret"), "{error}");
        assert!(fs::read_to_string(&path).expect("still there").contains("secret"));
    }
}
