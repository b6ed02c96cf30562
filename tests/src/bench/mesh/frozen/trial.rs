//! One trial: a new region, and the same load three times: before relay 3 is frozen, while it is, and after.

use std::thread;
use std::time::Duration;

use anyhow::Context as _;

use super::talk::{Talk, Told, VICTIM};
use crate::bench::load::{Outcome, Plan, Shape};
use crate::bench::mesh::counters::{self, Counts};
use crate::bench::mesh::place::{Hosts, Place};
use crate::bench::{Settings, usage};
use crate::region::Program;

/// Passers per second.
const PASSERS: f64 = 500.0;
/// Packets per second of the local pair.
pub(super) const RATE: f64 = 1000.0;
/// What the phases are called.
pub(super) const PHASES: [&str; 3] = ["before", "during", "after"];

/// One phase, as relay 1 and its clients saw it.
pub(super) struct Phase {
    /// The local pair at its fixed rate.
    pub(super) paced: Outcome,
    /// The local pair with a window.
    pub(super) full: Outcome,
    /// Resident bytes of relay 1 when the phase began, at most during it, and at its end.
    pub(super) resident: [u64; 3],
    /// What relay 1 counted.
    pub(super) counts: Counts,
    /// Packets to the clients of relay 3.
    pub(super) told: Told,
    /// Seconds in which the passers passed.
    pub(super) seconds: f64,
}

/// A finished trial.
pub(super) struct Sample {
    pub(super) phases: [Phase; 3],
    /// Clients that ended by themselves, and why.
    pub(super) ended: Vec<String>,
}

/// Clients that come and go in a phase.
pub(super) fn passers(settings: &Settings) -> usize {
    if settings.quick { 2_000 } else { 10_000 }
}

/// Time after the thaw, in which links come up again. derper dials every 5 s.
pub(super) fn settle(settings: &Settings) -> Duration {
    Duration::from_secs(if settings.quick { 3 } else { 8 })
}

pub(super) fn run(settings: &Settings, program: &Program) -> anyhow::Result<Sample> {
    let mut place = Place::start(program, Hosts::Own)?;
    let talk = Talk::start(&mut place.region)?;
    // One-time costs of first clients are not a phase's.
    phase(&mut place, &talk, 500, 200).context("the first clients")?;
    let (count, ms) = (passers(settings), (passers(settings) as f64 / PASSERS * 400.0) as u64);
    let before = phase(&mut place, &talk, count, ms).context("before")?;
    place.region.relay(VICTIM).freeze()?;
    let during = phase(&mut place, &talk, count, ms).context("during");
    place.region.relay(VICTIM).thaw()?;
    let during = during?;
    thread::sleep(settle(settings));
    let after = phase(&mut place, &talk, count, ms).context("after")?;
    Ok(Sample { phases: [before, during, after], ended: talk.stop() })
}

/// Passers, and beside them the local pair: first at its rate, then with a window.
fn phase(place: &mut Place, talk: &Talk, passers: usize, measure_ms: u64) -> anyhow::Result<Phase> {
    let pid = place.region.relay(0).pid()?;
    let (told, counts) = (talk.told(), counters::packets(place.region.relay(0))?);
    usage::forget_peak(pid)?;
    let resident = usage::resident_bytes(pid)?;
    let plan = Plan { clients: passers, rate: PASSERS, threads: 4, ..Plan::new(Shape::Passers) };
    let mut passing = place.start_load(&plan, None)?;
    let pair = |shape| Plan { clients: 2, rate: RATE, measure_ms, ..Plan::new(shape) };
    let paced = place.load(&pair(Shape::Rate))?;
    let full = place.load(&pair(Shape::Window))?;
    let passed = passing.outcome().context("clients that come and go")?;
    passing.finish()?;
    let resident = [resident, usage::peak_bytes(pid)?, usage::resident_bytes(pid)?];
    let counts = counters::since(&counts, &counters::packets(place.region.relay(0))?);
    let now = talk.told();
    let told =
        Told { sent: now.sent - told.sent, arrived: now.arrived - told.arrived, gone: now.gone - told.gone };
    Ok(Phase { paced, full, resident, counts, told, seconds: passed.seconds })
}
