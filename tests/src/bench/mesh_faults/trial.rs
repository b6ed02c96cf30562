//! One trial: a new region of one program, and every selected fault in it.

use std::time::Duration;

use anyhow::Context as _;

use crate::bench::Settings;
use crate::region::account::Window;
use crate::region::faults::{Fault, Finished, Restart, Trial};
use crate::region::{Program, Region};

/// The row of the start.
pub(super) const START: &str = "start-up";
/// The prefix of the rows of the rolling restart.
pub(super) const ROLLING: &str = "rolling restart";
/// The long cut is longer than every timer of a relay but derper's 2 minutes of silence.
const LONG_CUT: Duration = Duration::from_secs(60);

/// What a finished trial has to tell.
pub(super) struct Sample {
    pub(super) seen: Finished,
    /// The window of each fault that happened, by name.
    pub(super) windows: Vec<(&'static str, Window)>,
    pub(super) restarts: Vec<Restart>,
}

/// The faults, in their order, by the prefix of their rows.
pub(super) fn faults(settings: &Settings) -> Vec<(&'static str, Fault)> {
    let seconds = Duration::from_secs;
    let all = [
        ("no fault", Fault::None(seconds(if settings.quick { 5 } else { 15 }))),
        ("cut for 3 s", Fault::Cut(seconds(3))),
        ("cut for 60 s", Fault::Cut(LONG_CUT)),
        ("frozen for 5 s", Fault::Freeze(seconds(5))),
        ("killed for 3 s", Fault::Kill(seconds(3))),
    ];
    let wanted = |fault: &(&str, Fault)| {
        is_wanted(settings, fault.0) && !(settings.quick && fault.1 == Fault::Cut(LONG_CUT))
    };
    all.into_iter().filter(wanted).collect()
}

/// Whether the settings select a row that begins so.
pub(super) fn is_wanted(settings: &Settings, prefix: &str) -> bool {
    settings.wants(prefix) || settings.row.as_ref().is_some_and(|row| row.starts_with(prefix))
}

/// Runs a region of three of this program.
pub(super) fn run(settings: &Settings, program: &Program) -> anyhow::Result<Sample> {
    let region = Region::new([program; 3])?;
    let mut trial = Trial::start(region)?;
    let mut windows = Vec::new();
    for (name, fault) in faults(settings) {
        eprintln!("{:?}: {name}", program.kind);
        windows.push((name, trial.fault(fault).with_context(|| name.to_owned())?));
    }
    let mut restarts = Vec::new();
    if is_wanted(settings, ROLLING) {
        eprintln!("{:?}: {ROLLING}", program.kind);
        restarts = trial.rolling_restart()?;
    }
    Ok(Sample { seen: trial.finish()?, windows, restarts })
}
