//! `cargo xtask mutants`: makes small changes in the critical code, one at a time, and runs the unit tests to
//! see whether they notice.

use std::{
    collections::BTreeMap,
    fs,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::{host, process, tools};

/// The critical files, used if no file is named: table, sessions, mailbox, records, deframer, forwarding,
/// next hops, and the decisions of the UDP relay.
const GUARDED: &[&str] = &[
    "relay-common/src/challenge.rs",
    "relay-common/src/derp/deframer.rs",
    "relay-common/src/derp/limits.rs",
    "relay-common/src/forward.rs",
    "relay-common/src/forward/*.rs",
    "relay-user/src/conn/ledger.rs",
    "relay-user/src/conn/reader.rs",
    "relay-user/src/fastpath/nexthop.rs",
    "relay-user/src/fastpath/nexthop/*.rs",
    "relay-user/src/mailbox.rs",
    "relay-user/src/mailbox/*.rs",
    "relay-user/src/route.rs",
    "relay-user/src/route/*.rs",
    "relay-user/src/route/sessions/*.rs",
    "relay-user/src/transport/tls/cipher.rs",
    "relay-user/src/transport/tls/records.rs",
    "relay-user/src/transport/tls/records/*.rs",
    "relay-user/src/udp/data.rs",
    "relay-user/src/udp/deliver.rs",
    "relay-user/src/udp/exchange.rs",
    "relay-user/src/udp/gather.rs",
    "relay-user/src/udp/no_trains.rs",
    "relay-user/src/udp/relay.rs",
    "relay-user/src/udp/runs.rs",
];

/// The packages with critical files, and which of their tests are run. The rules for forwarding are tested
/// from outside of their crate.
const PACKAGES: [(&str, &str); 2] = [("relay-common", "--tests"), ("relay-user", "--lib")];

/// Exit statuses of cargo-mutants that mean that it has tried mutants: all were caught, some survived, some
/// hung. The last is that of `timeout` when the time was over.
const ENDS: [i32; 4] = [0, 2, 3, 124];

/// Seconds after which a test that hangs counts as having noticed the mutant.
const PATIENCE_S: u32 = 60;

/// Arguments of `cargo xtask mutants`.
#[derive(Args, Debug)]
pub(crate) struct Mutants {
    /// Files to change, from the top of the workspace; without any, all critical files
    files: Vec<String>,
    /// Only files that differ from this commit
    #[arg(long, value_name = "COMMIT")]
    since: Option<String>,
    /// Maximum minutes for the whole run
    #[arg(long, default_value_t = 60)]
    minutes: u32,
}

/// Runs cargo-mutants and lists the survivors by file. Survivors are not an error: some mutants mean the
/// same.
pub(crate) fn mutants(mutants: &Mutants) -> Result<()> {
    let mut files = mutants.files.clone();
    if files.is_empty() {
        files = GUARDED.iter().map(|file| (*file).to_owned()).collect();
    }
    if let Some(since) = &mutants.since {
        let changed = changed(since)?;
        files = changed.into_iter().filter(|file| files.iter().any(|glob| fits(glob, file))).collect();
        if files.is_empty() {
            println!("mutants: none of these files has changed since {since}");
            return Ok(());
        }
    }
    if let Some(other) =
        files.iter().find(|file| PACKAGES.iter().all(|(package, _)| !file.starts_with(package)))
    {
        bail!(
            "{other} is in none of the packages {}; name files of these",
            PACKAGES.map(|(name, _)| name).join(", ")
        );
    }
    let end = Instant::now() + Duration::from_secs(60 * u64::from(mutants.minutes));
    let mut lists = [String::new(), String::new(), String::new()];
    for (package, tests) in PACKAGES {
        let own: Vec<_> = files.iter().filter(|file| file.starts_with(package)).collect();
        if own.is_empty() {
            continue;
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            println!("mutants: the time is over; those of {package} were not tried");
            continue;
        }
        let found = run(package, tests, &own, left)?;
        lists.iter_mut().zip(found).for_each(|(all, found)| all.push_str(&found));
    }
    if lists.iter().all(String::is_empty) {
        bail!("no mutant was tried; allow more --minutes");
    }
    let [caught, missed, hung] = &lists;
    println!("\n{}", table(&[caught, missed, hung]));
    println!("survivors:\n{missed}");
    Ok(())
}

/// Runs cargo-mutants on files of one package; returns what was caught, missed, and hung, in lines.
fn run(package: &str, tests: &str, files: &[&String], time: Duration) -> Result<[String; 3]> {
    let program = tools::MUTANTS.installed()?;
    let out = host::target_dir().join("mutants").join(package);
    // The findings of an earlier run must not be taken for this one's.
    if out.exists() {
        fs::remove_dir_all(&out).with_context(|| format!("cannot remove {}", out.display()))?;
    }
    fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    let mut run = Command::new("timeout");
    // After SIGINT, cargo-mutants still writes down its findings. In the foreground, Ctrl-C reaches it too.
    run.args(["--foreground", "--signal=INT", &format!("{}s", time.as_secs().max(1))]).arg(program);
    run.args(["mutants", "--package", package, "--dir"]).arg(host::workspace()).arg("--output").arg(&out);
    run.args(["--timeout", &PATIENCE_S.to_string(), "--no-shuffle", "--colors", "never"]);
    // The crate is compiled again for each mutant, and its unit tests are short.
    run.arg(format!("--cargo-arg={tests}"));
    for setting in ["relay-common.opt-level=0", "relay-user.opt-level=0", "relay-user.debug=0"] {
        run.args(["--cargo-arg=--config".to_owned(), format!("--cargo-arg=profile.dev.package.{setting}")]);
    }
    let status = process::status(run.args(files.iter().flat_map(|file| ["--file", file])))?;
    if !status.code().is_some_and(|code| ENDS.contains(&code)) {
        bail!("cargo-mutants failed ({status}); {} has its log", out.join("mutants.out").display());
    }
    let list = |name: &str| fs::read_to_string(out.join("mutants.out").join(name)).unwrap_or_default();
    Ok([list("caught.txt"), list("missed.txt"), list("timeout.txt")])
}

/// A line for each file: how many mutants of it were noticed, survived, and hung.
fn table(lists: &[&str; 3]) -> String {
    let mut files = BTreeMap::<&str, [usize; 3]>::new();
    for (column, list) in lists.iter().enumerate() {
        for file in list.lines().filter_map(|line| line.split(':').next()) {
            files.entry(file).or_default()[column] += 1;
        }
    }
    let lines = files.iter().map(|(file, [caught, missed, hung])| {
        format!("{file}: {caught} noticed, {missed} survived, {hung} hung\n")
    });
    lines.collect()
}

/// Files that differ from `commit`, from the top of the workspace.
fn changed(commit: &str) -> Result<Vec<String>> {
    let mut git = Command::new("git");
    git.arg("-C").arg(host::workspace()).args(["diff", "--name-only", commit]);
    let names = process::stdout_of(&mut git).with_context(|| format!("git does not know {commit}"))?;
    Ok(names.lines().map(str::to_owned).collect())
}

/// Whether `file` matches `glob`, in which a star stands for a file's name.
fn fits(glob: &str, file: &str) -> bool {
    match glob.split_once('*') {
        None => glob == file,
        Some((before, behind)) => file
            .strip_prefix(before)
            .and_then(|rest| rest.strip_suffix(behind))
            .is_some_and(|name| !name.contains('/')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_one_files_name() {
        assert!(fits("a/b.rs", "a/b.rs") && fits("a/*.rs", "a/b.rs"));
        assert!(!fits("a/*.rs", "a/b/c.rs") && !fits("a/*.rs", "b.rs") && !fits("a/b.rs", "a/c.rs"));
    }

    #[test]
    fn mutants_are_counted_by_file() {
        let table = table(&["a.rs:1:2: replace x\na.rs:3:4: replace y\n", "b.rs:5:6: delete z\n", ""]);
        assert_eq!(table, "a.rs: 2 noticed, 0 survived, 0 hung\nb.rs: 0 noticed, 1 survived, 0 hung\n");
    }

    #[test]
    fn every_guarded_file_exists() {
        for glob in GUARDED {
            let path = host::workspace().join(glob.trim_end_matches("*.rs"));
            assert!(path.exists(), "{glob}");
        }
    }
}
