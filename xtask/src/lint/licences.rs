//! Checks the dependencies: each comes from the registry, under a licence that goes with ours.
//!
//! Advisories are not checked here, because their database is not in the registry; `.github/SECURITY.md` says
//! how to ask for them.

use std::{collections::BTreeSet, path::Path};

use anyhow::{Context as _, Result};
use spdx::{Expression, ParseMode};

use crate::{cargo, host, process};

/// Licences that a dependency may have. Where several are offered, one of these is enough.
const ALLOWED: &[&str] =
    &["Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "NCSA", "Unicode-3.0", "Unlicense", "Zlib"];

/// What is wrong with the dependencies of the workspace in `dir`: a line for each.
pub(super) fn complaints(dir: &Path) -> Result<Vec<String>> {
    let mut tree = cargo::plain();
    tree.current_dir(dir).args([
        "tree",
        "--workspace",
        "--all-features",
        "--target=all",
        "--edges=normal,build,dev",
    ]);
    let packages = process::stdout_of(tree.args(["--prefix=none", "--format={p}\t{l}"]));
    let packages = packages.with_context(|| format!("cargo tree fails in {}", dir.display()))?;
    // A package that comes again is marked with a star.
    let packages = packages.lines().map(|line| line.trim_end_matches(" (*)"));
    let packages: BTreeSet<&str> = packages.filter(|line| !line.is_empty()).collect();
    Ok(packages.into_iter().filter_map(complaint).collect())
}

/// What is wrong with one package: `name version (origin)`, a tab, its licence.
fn complaint(package: &str) -> Option<String> {
    let Some((package, licence)) = package.split_once('\t') else {
        return Some(format!("{package}: this is not a line of a package and its licence"));
    };
    let origin = package.split_once('(').map(|(_, origin)| origin.trim_end_matches(')'));
    let is_ours = |path: &str| Path::new(path).starts_with(host::workspace());
    if !origin.is_none_or(|origin| origin == "proc-macro" || is_ours(origin)) {
        return Some(format!("{package} does not come from the registry"));
    }
    let allowed = Expression::parse_mode(licence, ParseMode::LAX).is_ok_and(|offered| {
        offered.evaluate(|part| {
            // An exception takes nothing away: it allows more than its licence.
            part.license.id().is_some_and(|id| ALLOWED.contains(&id.name))
        })
    });
    (!allowed).then(|| {
        format!("{package} has the licence {licence:?}; xtask/src/lint/licences.rs lists which may be")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_several_licences_is_enough_and_all_that_apply_are_needed() {
        for fine in ["a v1\tMIT/Apache-2.0", "a v1\tISC AND (GPL-3.0 OR MIT)", "a v1 (proc-macro)\tMIT"] {
            assert_eq!(complaint(fine), None, "{fine}");
        }
        for not in ["a v1\tGPL-3.0", "a v1\tMIT AND GPL-3.0", "a v1\t", "a v1"] {
            assert!(complaint(not).is_some(), "{not}");
        }
    }

    #[test]
    fn a_package_is_ours_or_the_registrys() {
        let ours = format!("a v1 ({})\tMIT", host::workspace().join("a").display());
        assert_eq!(complaint(&ours), None);
        for not in ["a v1 (https://x/y#1)\tMIT", "a v1 (/elsewhere/a)\tMIT", "a v1 (registry `x`)\tMIT"] {
            assert!(complaint(not).is_some(), "{not}");
        }
    }
}
