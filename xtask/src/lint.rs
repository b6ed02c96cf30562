//! `cargo xtask lint`: formatting, clippy, the house rules that neither of them checks, and the files outside
//! of the workspace.

mod beside;
mod floors;
mod imports;
mod licences;
mod source;

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail};

use self::imports::Imports;
use crate::{cargo, daemon, host, process, setup::Scope};

/// Runs every check, then fails if a check failed.
pub(crate) fn lint() -> Result<()> {
    let mut failed = Vec::new();
    let complaints = complaints()?;
    for complaint in &complaints {
        println!("{complaint}");
    }
    if !complaints.is_empty() {
        failed.push("house rules");
    }
    if !process::status(cargo::command(None).args(["fmt", "--all", "--check"]))?.success() {
        failed.push("cargo fmt");
    }
    // Clippy gets the object, so that it also checks the code behind `have_bpf`.
    let objects = daemon::objects(Scope::Ebpf)?;
    let mut clippy = cargo::command(objects.as_ref());
    clippy.args(["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"]);
    if !process::status(&mut clippy)?.success() {
        failed.push("clippy");
    }
    for (what, passed) in beside::checks()? {
        if !passed {
            failed.push(what);
        }
    }
    if failed.is_empty() {
        println!("lint: clean");
        return Ok(());
    }
    bail!("lint failed: {}", failed.join(", "))
}

fn complaints() -> Result<Vec<String>> {
    let root = host::workspace();
    let mut complaints = Vec::new();
    for package in ["relay-common", "relay-ebpf", "relay-user", "xtask", "tests"] {
        visit(&root.join(package), &root, &mut complaints)?;
        let imports = Imports::read(&root.join(package).join("src"), &package.replace('-', "_"))?;
        let circles = imports.circles();
        for circle in &circles {
            let names: Vec<_> = circle.iter().map(|module| module.join("::")).collect();
            complaints.push(format!("{package}: {} import each other", names.join(", ")));
        }
        let mut up = Vec::new();
        if package == "relay-user" {
            up = floors::complaints(&imports);
            let root = fs::read_to_string(root.join("relay-user/src/lib.rs"))?;
            if root.lines().any(|line| line.contains("use ") && !line.trim_start().starts_with("//")) {
                up.push("lib.rs passes names on, which hides who imports from whom".to_owned());
            }
        }
        println!(
            "{package}: {} imports between files, {} between folders: {} circles, {} arrows up",
            imports.arrows().count(),
            floors::between(&imports).len(),
            circles.len(),
            up.len(),
        );
        complaints.extend(up.into_iter().map(|what| format!("{package}: {what}")));
    }
    Ok(complaints)
}

fn visit(dir: &Path, root: &Path, complaints: &mut Vec<String>) -> Result<()> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    for path in paths {
        if path.is_dir() && !path.ends_with("target") {
            visit(&path, root, complaints)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text =
                fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            complaints
                .extend(source::complaints(&name, &text).into_iter().map(|what| format!("{name}: {what}")));
        }
    }
    Ok(())
}
