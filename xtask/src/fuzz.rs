//! `cargo xtask fuzz`: builds the fuzz targets with the installed toolchain, and runs them one after another.
//!
//! cargo-fuzz needs a nightly compiler for sanitizers, which are useless for code without `unsafe`. libFuzzer
//! needs only LLVM's coverage, which every compiler has.

use std::{
    ffi::OsString,
    fs,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::{cargo, host, process};

/// Coverage for libFuzzer, with the options of cargo-fuzz; overflows and debug assertions count as findings.
const RUSTFLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Cdebug-assertions -Coverflow-checks \
    -Ccodegen-units=1";

/// Maximum memory of a target, in MiB.
const MEMORY_MIB: u32 = 2048;

/// Arguments of `cargo xtask fuzz`.
#[derive(Args, Debug)]
pub(crate) struct Fuzz {
    /// Run only this target
    target: Option<String>,
    /// How long each target runs, in seconds
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Arguments after `--` go to libFuzzer, such as -runs=1000000
    #[arg(last = true)]
    args: Vec<OsString>,
}

/// Builds and runs the targets. A finding ends the run and is stored in `target/fuzz`.
pub(crate) fn fuzz(fuzz: &Fuzz) -> Result<()> {
    let dir = host::workspace().join("tests/fuzz");
    let mut targets: Vec<String> = fs::read_dir(dir.join("fuzz_targets"))
        .context("cannot list the fuzz targets")?
        .filter_map(|entry| Some(entry.ok()?.path().file_stem()?.to_str()?.to_owned()))
        .collect();
    targets.sort();
    if let Some(wanted) = &fuzz.target {
        if !targets.contains(wanted) {
            bail!("no fuzz target {wanted}; there are {}", targets.join(", "));
        }
        targets = vec![wanted.clone()];
    }
    let platform = platform().context("rustc -vV does not say its host")?;
    let out = host::target_dir().join("fuzz");
    let mut build = cargo::plain();
    build.current_dir(&dir).args(["build", "--release", "--target-dir"]).arg(&out);
    // The target is named, so that these flags do not apply to build scripts and macros.
    build.args(["--target", &platform]).env("RUSTFLAGS", RUSTFLAGS);
    process::run(build.args(targets.iter().flat_map(|target| ["--bin", target])))?;
    for target in &targets {
        let corpus = out.join("corpus").join(target);
        fs::create_dir_all(&corpus).with_context(|| format!("cannot make {}", corpus.display()))?;
        let mut run = Command::new(out.join(&platform).join("release").join(target));
        run.arg(format!("-max_total_time={}", fuzz.seconds)).arg(format!("-rss_limit_mb={MEMORY_MIB}"));
        run.arg(format!("-artifact_prefix={}/{target}-", out.display())).arg("-print_final_stats=1");
        run.args(&fuzz.args).arg(&corpus);
        run.args(Some(dir.join("seeds").join(target)).filter(|seeds| seeds.is_dir()));
        println!("\nfuzz: {target}");
        process::run(run.stdin(Stdio::null()))?;
    }
    Ok(())
}

/// The platform for which rustc builds by default.
fn platform() -> Option<String> {
    let about = process::stdout_of(Command::new("rustc").arg("-vV"))?;
    about.lines().find_map(|line| line.strip_prefix("host: ")).map(str::to_owned)
}
