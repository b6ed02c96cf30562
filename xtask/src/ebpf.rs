//! Builds the eBPF objects: which compiler, which linker, which command line.
//!
//! The BPF target has no prebuilt `core`, so the compiler must come with the source of its library, and cargo
//! must accept the unstable `build-std`. The object needs BTF (`--btf`), because the kernel does not load a
//! `#[btf_map]` without it. <https://doc.rust-lang.org/rustc/platform-support/bpf-unknown-none.html>

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{host, process};

/// The version of the linker that [`crate::setup`] installs, and the oldest one accepted.
pub(crate) const LINKER_VERSION: &str = "0.13.0";
/// Major version of the LLVM in that linker. It reads bitcode of compilers with this LLVM or an older one.
pub(crate) const LLVM: u32 = 22;

const OLDEST_RUSTC_MINOR: u32 = 95;
const TARGET: &str = "bpfel-unknown-none";

/// Variables of the cargo that runs this program and of the user's own builds. They must not reach the BPF
/// build.
const FOREIGN_ENV: &[&str] = &[
    "CARGO",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_ENCODED_RUSTFLAGS",
    "LD_LIBRARY_PATH",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
];

/// A compiler whose installation holds the source of `core`.
#[derive(Debug)]
pub(crate) struct Compiler {
    /// Where the compiler came from, for people.
    pub(crate) origin: String,
    cargo: PathBuf,
    rustc: PathBuf,
}

/// The built objects.
#[derive(Clone, Debug)]
pub(crate) struct Objects {
    /// The daemon's program, which the daemon embeds.
    pub(crate) relayd: PathBuf,
    /// Programs that only lab tests and the demo attach.
    pub(crate) lab: PathBuf,
}

/// The compiler to use: a rustup toolchain with `rust-src` (nightlies first), else Debian's compiler.
///
/// # Errors
/// A part of a sentence that says what is missing.
pub(crate) fn compiler() -> Result<Compiler, String> {
    rustup_sysroots()
        .into_iter()
        .chain([("Debian's rustc".to_owned(), PathBuf::from("/usr"))])
        .find_map(|(origin, sysroot)| fit(origin, &sysroot))
        .ok_or_else(|| "no Rust compiler with the source of `core` is installed".to_owned())
}

/// The linker to use.
///
/// # Errors
/// A part of a sentence that says what is missing.
pub(crate) fn linker() -> Result<PathBuf, String> {
    let file = host::find_program("bpf-linker").ok_or("bpf-linker is missing")?;
    let said = process::stdout_of(Command::new(&file).arg("--version")).ok_or("bpf-linker does not start")?;
    let version = said.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    match version {
        Some(version) if numbers(version) >= numbers(LINKER_VERSION) => Ok(file),
        _ => Err(format!("bpf-linker {LINKER_VERSION} or later is needed")),
    }
}

/// Builds both objects; cargo decides what is out of date.
pub(crate) fn build(compiler: &Compiler, linker: &Path) -> Result<Objects> {
    let target_dir = host::target_dir().join("bpf");
    process::run(&mut command(compiler, linker, &target_dir))?;
    let built = target_dir.join(TARGET).join("bpf");
    Ok(Objects {
        relayd: publish(&built.join("relayd-xdp"), &target_dir.join("relayd-xdp.o"))?,
        lab: publish(&built.join("lab-xdp"), &target_dir.join("lab-xdp.o"))?,
    })
}

fn command(compiler: &Compiler, linker: &Path, target_dir: &Path) -> Command {
    let mut cargo = Command::new(&compiler.cargo);
    for name in FOREIGN_ENV {
        cargo.env_remove(name);
    }
    let flags = [
        format!("--cfg=bpf_target_arch=\"{}\"", env::consts::ARCH),
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        format!("-Clinker={}", linker.display()),
    ];
    cargo
        .current_dir(host::workspace())
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        // A separate directory, because the files come from another compiler and the outer cargo holds a
        // lock.
        .env("CARGO_TARGET_DIR", target_dir)
        .env("RUSTC", &compiler.rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .args(["build", "--quiet", "--package", "relay-ebpf", "--bins", "--profile", "bpf"])
        .args(["--target", TARGET, "-Z", "build-std=core"]);
    cargo
}

/// Copies only a changed file, because cargo embeds the object again when the copy's time stamp changes.
fn publish(from: &Path, to: &Path) -> Result<PathBuf> {
    let object = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if fs::read(to).ok().as_ref() != Some(&object) {
        fs::write(to, &object).with_context(|| format!("cannot write {}", to.display()))?;
    }
    Ok(to.to_path_buf())
}

fn fit(origin: String, sysroot: &Path) -> Option<Compiler> {
    let (cargo, rustc) = (sysroot.join("bin/cargo"), sysroot.join("bin/rustc"));
    let source = sysroot.join("lib/rustlib/src/rust/library/Cargo.lock");
    if !(cargo.is_file() && source.is_file()) {
        return None;
    }
    let said = process::stdout_of(Command::new(&rustc).arg("-vV").env_remove("LD_LIBRARY_PATH"))?;
    fits(&said).then_some(Compiler { origin, cargo, rustc })
}

/// Whether this linker can be used with the compiler that printed `verbose_version`, for this workspace.
fn fits(verbose_version: &str) -> bool {
    let field = |name: &str| verbose_version.lines().find_map(|line| line.strip_prefix(name)).map(numbers);
    let new_enough = field("release: ").is_some_and(|release| release >= vec![1, OLDEST_RUSTC_MINOR]);
    new_enough && field("LLVM version: ").is_some_and(|llvm| llvm < vec![LLVM + 1])
}

/// Name and sysroot of every installed rustup toolchain, nightlies first.
fn rustup_sysroots() -> Vec<(String, PathBuf)> {
    let Some(rustup) = host::find_program("rustup") else { return Vec::new() };
    let list = process::stdout_of(Command::new(&rustup).args(["toolchain", "list"])).unwrap_or_default();
    let mut names: Vec<&str> = list.lines().filter_map(|line| line.split_whitespace().next()).collect();
    names.sort_by_key(|name| !name.starts_with("nightly"));
    names
        .into_iter()
        .filter_map(|name| {
            let print =
                process::stdout_of(Command::new(&rustup).args(["run", name, "rustc", "--print", "sysroot"]))?;
            Some((format!("rustup's {name}"), PathBuf::from(print.trim())))
        })
        .collect()
}

/// `1.96.0-nightly` as `[1, 96, 0]`.
fn numbers(version: &str) -> Vec<u32> {
    let plain = version.split(['-', '+', ' ']).next().unwrap_or_default();
    plain.split('.').map_while(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str =
        "rustc 1.96.0\nbinary: rustc\nhost: x86_64-unknown-linux-gnu\nrelease: 1.96.0\nLLVM version: 22.1.8";

    #[test]
    fn a_compiler_whose_llvm_is_newer_than_the_linkers_is_not_taken() {
        assert!(fits(DEBIAN));
        assert!(fits(&DEBIAN.replace("22.1.8", "21.1.0")));
        assert!(!fits(&DEBIAN.replace("22.1.8", "23.0.0")));
    }

    #[test]
    fn a_compiler_too_old_for_the_workspace_is_not_taken() {
        assert!(fits(&DEBIAN.replace("release: 1.96.0", "release: 1.97.0-nightly")));
        assert!(!fits(&DEBIAN.replace("release: 1.96.0", "release: 1.85.0")));
        assert!(!fits("no version at all"));
    }

    #[test]
    fn the_build_does_not_inherit_the_callers_compiler_or_flags() {
        let compiler =
            Compiler { origin: String::new(), cargo: "debian-cargo".into(), rustc: "debian-rustc".into() };
        let command = command(&compiler, Path::new("bpf-linker"), Path::new("out"));
        let value = |name: &str| command.get_envs().find(|(key, _)| *key == name).map(|(_, value)| value);
        for name in ["CARGO", "LD_LIBRARY_PATH", "RUSTFLAGS", "RUSTUP_TOOLCHAIN"] {
            assert_eq!(value(name), Some(None), "{name} is removed");
        }
        assert_eq!(value("RUSTC"), Some(Some("debian-rustc".as_ref())));
    }
}
