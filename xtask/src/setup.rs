//! Installs the missing parts that the eBPF build and the lab need.
//!
//! On Debian all parts but the linker are packages; the linker is built once, from the Rust package registry,
//! against Debian's LLVM. On other systems the list is printed for the user.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::{cargo, ebpf, host, process};

/// One thing that is missing, why it is needed, and where it comes from.
struct Need {
    what: &'static str,
    why: &'static str,
    packages: &'static [&'static str],
}

/// What to check and install.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The tools that compile the XDP program.
    Ebpf,
    /// Those of `Ebpf`, and the programs that the lab uses for network namespaces.
    Lab,
}

/// Installs what is missing in `scope` and prints it; does nothing if nothing is missing.
pub(crate) fn install(scope: Scope) -> Result<()> {
    let needs = needs(scope);
    let linker = ebpf::linker().err();
    if needs.is_empty() && linker.is_none() {
        return Ok(());
    }
    if !host_can_install() {
        bail!("{}", by_hand(&needs, linker.is_some()));
    }
    if !needs.is_empty() {
        install_packages(&needs)?;
    }
    if let Some(reason) = linker {
        println!("setup: building bpf-linker {} ({reason}); about a minute", ebpf::LINKER_VERSION);
        process::run(&mut install_linker())?;
    }
    ebpf::compiler().map_err(anyhow::Error::msg)?;
    ebpf::linker().map_err(anyhow::Error::msg)?;
    Ok(())
}

/// Whether [`install`] can do anything on this machine: Debian's package manager, and root or sudo.
pub(crate) fn host_can_install() -> bool {
    let apt = host::find_program("apt-get").is_some() && Path::new("/etc/debian_version").exists();
    apt && process::as_root(&Command::new("true")).is_some()
}

/// Programs the lab runs that are not on this machine.
pub(crate) fn missing_lab_programs() -> impl Iterator<Item = &'static str> {
    missing_lab_needs().map(|need| need.what)
}

/// Prints what is installed, after [`install`].
pub(crate) fn report() {
    match ebpf::compiler() {
        Ok(compiler) => println!("setup: eBPF compiler: {}", compiler.origin),
        Err(reason) => println!("setup: eBPF compiler: {reason}"),
    }
    match ebpf::linker() {
        Ok(file) => println!("setup: eBPF linker: {}", file.display()),
        Err(reason) => println!("setup: eBPF linker: {reason}"),
    }
    for Need { what, .. } in LAB_PROGRAMS {
        let file = host::find_program(what).map(|file| file.display().to_string());
        println!("setup: {what}: {}", file.as_deref().unwrap_or("missing"));
    }
    if host::find_program("go").is_none() {
        println!("setup: go: missing; the interop tests will be listed as skipped");
    }
}

/// Programs that the lab runs; `what` is the program's name.
const LAB_PROGRAMS: &[Need] = &[
    Need { what: "ip", why: "makes the lab's namespaces and veth pairs", packages: &["iproute2"] },
    Need { what: "ethtool", why: "turns checksum offload off in the lab", packages: &["ethtool"] },
    Need { what: "nft", why: "translates addresses in the lab", packages: &["nftables"] },
    Need { what: "bpftool", why: "shows pinned maps by field name", packages: &["bpftool"] },
];

fn needs(scope: Scope) -> Vec<&'static Need> {
    const COMPILER: Need = Need {
        what: "a Rust compiler with the source of `core`",
        why: "compiles the XDP program; no rustup toolchain here has a fitting rust-src",
        packages: &["rustc-web", "cargo-web", "rust-web-src"],
    };
    const LLVM: Need = Need {
        what: "LLVM 22 to link with",
        why: "bpf-linker is built on it",
        packages: &["llvm-22-dev", "libpolly-22-dev"],
    };
    const CXX: Need = Need { what: "c++", why: "bpf-linker links LLVM's C++ libraries", packages: &["g++"] };

    let mut needs = Vec::new();
    if ebpf::compiler().is_err() {
        needs.push(&COMPILER);
    }
    if ebpf::linker().is_err() {
        let llvm = Path::new(LLVM_PREFIX);
        if !(llvm.join("bin/llvm-config").exists() && llvm.join("lib/libPolly.a").exists()) {
            needs.push(&LLVM);
        }
        if host::find_program("c++").is_none() {
            needs.push(&CXX);
        }
    }
    if scope == Scope::Lab {
        needs.extend(missing_lab_needs());
    }
    needs
}

fn missing_lab_needs() -> impl Iterator<Item = &'static Need> {
    LAB_PROGRAMS.iter().filter(|need| host::find_program(need.what).is_none())
}

const LLVM_PREFIX: &str = "/usr/lib/llvm-22";

fn install_packages(needs: &[&Need]) -> Result<()> {
    for need in needs {
        println!("setup: installing {} ({}: {})", need.packages.join(", "), need.what, need.why);
    }
    process::run(&mut apt(&["update"])?)?;
    // `--no-remove`, because Debian's compiler conflicts with Debian's rustup package, and that belongs to
    // the user.
    let mut install = apt(&["install", "--yes", "--no-remove", "--no-install-recommends"])?;
    install.args(needs.iter().flat_map(|need| need.packages));
    process::run(&mut install)
}

fn apt(args: &[&str]) -> Result<Command> {
    let mut apt = Command::new("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive").args(["-qq", "-o", "Dpkg::Use-Pty=0"]).args(args);
    let mut apt = process::as_root(&apt).context("root or sudo is needed to install packages")?;
    // Errors go to standard error; standard output has only a line for every file of every package.
    apt.stdout(Stdio::null());
    Ok(apt)
}

fn install_linker() -> Command {
    let mut cargo = cargo::plain();
    cargo.env("LLVM_PREFIX", LLVM_PREFIX).env_remove("CARGO_TARGET_DIR").args(linker_args()).arg("--force");
    cargo
}

fn linker_args() -> Vec<String> {
    let fixed =
        ["install", "bpf-linker", "--quiet", "--version", ebpf::LINKER_VERSION, "--no-default-features"];
    let feature = format!("llvm-{}", ebpf::LLVM);
    fixed.map(str::to_owned).into_iter().chain(["--features".to_owned(), feature]).collect()
}

/// The list of what the user must install when this command cannot.
fn by_hand(needs: &[&Need], linker: bool) -> String {
    let mut lines = vec!["this machine has no apt, or no way to root, so please install:".to_owned()];
    for need in needs {
        lines.push(format!("  {} ({}); on Debian: {}", need.what, need.why, need.packages.join(" ")));
    }
    if needs.iter().any(|need| need.packages.contains(&"rust-web-src")) {
        lines.push("    or: rustup toolchain install nightly --component rust-src".to_owned());
    }
    if linker {
        let args = linker_args().join(" ");
        lines.push(format!("  bpf-linker: LLVM_PREFIX=<where LLVM {} is> cargo {args}", ebpf::LLVM));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_for_a_person_names_every_package_and_the_linker_command() {
        let needs: Vec<&Need> = LAB_PROGRAMS.iter().collect();
        let text = by_hand(&needs, true);
        for word in ["iproute2", "ethtool", "bpftool", "install bpf-linker", "--version 0.13.0", "llvm-22"] {
            assert!(text.contains(word), "{word} in {text}");
        }
    }
}
