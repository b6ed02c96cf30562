//! The eBPF objects for tests: finds and loads them, and reads and writes their maps as the shared values.
//!
//! On purpose it does not use the daemon's loader: a second implementation of the same contract can find
//! errors.

mod lab_programs;
mod maps;
mod relayd;

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader,
    programs::{ProgramType, TestRun as _, TestRunOptions, Xdp},
    sys::is_program_supported,
};
use nix::time::{ClockId, clock_gettime};

pub use lab_programs::LabPrograms;
pub use maps::{array_value, own_values, set_array_value};
pub use relayd::Relayd;

/// The paths of the two objects.
#[derive(Debug)]
pub struct Objects {
    /// relayd's program.
    pub relayd: PathBuf,
    /// The lab's programs.
    pub lab: PathBuf,
}

impl Objects {
    /// Finds the objects in `RELAYD_XDP_OBJECT` and `RELAYD_LAB_OBJECT`, or where `cargo xtask build` puts
    /// them.
    ///
    /// # Errors
    /// What is missing, for the list of skipped tests.
    pub fn find() -> Result<Self, String> {
        if !nix::unistd::geteuid().is_root() {
            return Err("needs root to load BPF programs".to_owned());
        }
        match is_program_supported(ProgramType::Xdp) {
            Ok(true) => {}
            Ok(false) => return Err("the kernel has no XDP".to_owned()),
            Err(error) => return Err(format!("BPF is not available: {error}")),
        }
        Ok(Self { relayd: object("RELAYD_XDP_OBJECT", "relayd-xdp.o")?, lab: lab_object()? })
    }
}

/// The object of the lab's programs.
///
/// # Errors
/// What is missing.
pub fn lab_object() -> Result<PathBuf, String> {
    object("RELAYD_LAB_OBJECT", "lab-xdp.o")
}

fn object(variable: &str, name: &str) -> Result<PathBuf, String> {
    let built = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bpf").join(name);
    let path = env::var_os(variable).map_or_else(built, PathBuf::from);
    if path.is_file() { Ok(path) } else { Err(format!("{name} is not built (`cargo xtask build`)")) }
}

/// Creates the maps of an object with their compiled sizes, and relocates its programs.
pub fn load_object(path: &Path) -> Result<Ebpf> {
    EbpfLoader::new().load_file(path).with_context(|| format!("loading {}", path.display()))
}

/// Loads one program of an object into the kernel, which runs the verifier.
pub fn load_program<'e>(ebpf: &'e mut Ebpf, name: &str) -> Result<&'e mut Xdp> {
    let program: &mut Xdp = loaded_program(ebpf, name)?;
    program.load().with_context(|| format!("the kernel refuses {name}"))?;
    Ok(program)
}

/// A program of an object.
pub fn loaded_program<'e>(ebpf: &'e mut Ebpf, name: &str) -> Result<&'e mut Xdp> {
    Ok(ebpf.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?)
}

/// Runs a program once on `frame`, as if it had arrived on the loopback interface; returns the action and the
/// resulting frame.
pub fn run(program: &Xdp, frame: &[u8]) -> Result<(u32, Vec<u8>)> {
    let mut out = vec![0; frame.len() + 64];
    let result = program.test_run(TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut out),
        ..TestRunOptions::new()
    })?;
    out.truncate(usize::try_from(result.data_size_out)?);
    Ok((result.return_value, out))
}

/// CLOCK_MONOTONIC in nanoseconds, which the programs also read.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every Linux has this clock");
    let [seconds, nanoseconds] =
        [now.tv_sec(), now.tv_nsec()].map(|part| u64::try_from(part).expect("after boot"));
    seconds * 1_000_000_000 + nanoseconds
}
