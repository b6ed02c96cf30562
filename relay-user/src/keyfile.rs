//! derper's key file: JSON with one member, `PrivateKey`, made with mode 0600 where there is none.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;
use rand_core::OsRng;
use relay_common::key::NodePrivate;
use serde::Deserialize;

#[derive(Deserialize)]
struct KeyFile {
    #[serde(rename = "PrivateKey")]
    private_key: String,
}

/// Loads the server's key, or makes one and writes it.
///
/// # Errors
/// Names the file and the flag that leads to it. A file that does not parse is never overwritten.
pub fn load_or_make(path: &Path) -> anyhow::Result<NodePrivate> {
    match fs::read_to_string(path) {
        Ok(text) => parse(&text).with_context(|| format!("key file {} (-c)", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => make(path),
        Err(error) => Err(error).with_context(|| format!("cannot read key file {} (-c)", path.display())),
    }
}

fn parse(text: &str) -> anyhow::Result<NodePrivate> {
    let file: KeyFile = serde_json::from_str(text).context("not derper's JSON")?;
    // The error of the parser would name its input; a key must not get into a log.
    file.private_key.parse().map_err(|_| anyhow::anyhow!("PrivateKey is not privkey: and 64 hex digits"))
}

fn make(path: &Path) -> anyhow::Result<NodePrivate> {
    let key = NodePrivate::generate(&mut OsRng);
    let cannot = || format!("cannot write key file {} (-c)", path.display());
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).with_context(cannot)?;
    }
    // Whole or not at all: a daemon killed in between must not leave half a key.
    let half = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&half)
        .with_context(cannot)?;
    file.write_all(format!("{{\n\t\"PrivateKey\": \"{}\"\n}}\n", key.to_text()).as_bytes())
        .with_context(cannot)?;
    file.sync_all().with_context(cannot)?;
    fs::rename(&half, path).with_context(cannot)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

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
