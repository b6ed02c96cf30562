//! Embeds the eBPF object that `cargo xtask build` made and names in `RELAYD_BPF_OBJECT`, and the commit that
//! this is built from.
//!
//! The object needs a toolchain of its own (`xtask/src/ebpf.rs`), which not every machine has; without it the
//! daemon is built without the fast path and says so.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

const OBJECT: &str = "RELAYD_BPF_OBJECT";

/// For packagers, who build without git: the commit.
const COMMIT: &str = "RELAYD_COMMIT";

/// Digits of a commit that tell it from all others of this project.
const DIGITS: usize = 12;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={OBJECT}");
    println!("cargo::rerun-if-env-changed={COMMIT}");
    println!("cargo::rustc-check-cfg=cfg(have_bpf)");
    let given = env::var(COMMIT).ok().filter(|commit| !commit.is_empty());
    println!("cargo::rustc-env={COMMIT}={}", given.or_else(commit).unwrap_or_else(|| "unknown".to_owned()));
    let Some(object) = env::var_os(OBJECT).filter(|path| !path.is_empty()) else {
        println!("cargo::warning=built without the XDP fast path; `cargo xtask build` builds with it");
        return;
    };
    println!("cargo::rerun-if-changed={}", object.display());
    println!("cargo::rustc-cfg=have_bpf");
    let out_dir = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR for build scripts");
    let copy = Path::new(&out_dir).join("relayd-xdp.o");
    if let Err(error) = fs::copy(&object, copy) {
        println!("cargo::error=cannot read the eBPF object {}: {error}", object.display());
    }
}

/// The commit that is checked out, and what to watch for another one. `None` without git, and where the
/// sources lie in somebody else's repository, as an unpacked archive may.
fn commit() -> Option<String> {
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR")?);
    let git = |args: &[&str]| git(&package, args);
    let top = Path::new(&git(&["rev-parse", "--show-toplevel"])?).canonicalize().ok()?;
    if top != package.parent()?.canonicalize().ok()? {
        return None;
    }
    // HEAD changes with the branch, its log with every commit. A repository without logs has the branches
    // watched instead, other people's pushes included. cargo takes a file that is not there for one that
    // always changes, so each is looked for first.
    let watch = |name: &str| {
        // Relative to the directory in which git runs, or absolute.
        let path = package.join(git(&["rev-parse", "--git-path", name])?);
        path.exists().then(|| println!("cargo::rerun-if-changed={}", path.display()))
    };
    watch("HEAD");
    if watch("logs/HEAD").is_none() {
        watch("refs/heads");
        watch("packed-refs");
    }
    let commit = git(&["rev-parse", "HEAD"])?;
    Some(commit.chars().take(DIGITS).collect())
}

/// A line that git prints in `dir`.
fn git(dir: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).current_dir(dir).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
