//! The row about the XDP program: its cost beside a program that only parses, reads the clock and looks up.

use anyhow::{Result, anyhow};

use super::{Settings, report::Row};
use crate::{
    bpf::Objects,
    program_cost::{Programs, Size},
};

/// The largest ratio that meets the goal.
const GOAL: f64 = 1.5;
/// UDP payload of the packet, in bytes.
const PAYLOAD: usize = 1300;

/// The row's name.
pub const NAME: &str = "XDP program";

/// Measures the row.
///
/// # Errors
/// The objects are not built, or the kernel refuses them.
pub fn row(settings: &Settings) -> Result<Row> {
    let objects = Objects::find().map_err(|reason| anyhow!(reason))?;
    let mut programs = Programs::load(&objects, PAYLOAD)?;
    let calls = if settings.quick { 50 } else { 1000 };
    let mut row = Row {
        name: NAME.to_owned(),
        load: format!("{PAYLOAD} bytes of a bound session, BPF_PROG_TEST_RUN, fixed-point packet"),
        unit: "ns per run".to_owned(),
        rival_name: "parse, clock and lookup alone".to_owned(),
        goal: format!("at most {GOAL}"),
        at_most: Some(GOAL),
        ..Row::default()
    };
    let mut empty = Vec::new();
    // The first sample warms up.
    programs.sample(calls)?;
    for _ in 0..settings.pairs() {
        let sample = programs.sample(calls)?;
        row.ours.push(sample.relayd);
        row.rival.push(sample.look);
        empty.push(sample.empty);
    }
    let [ours, rival] = programs.sizes()?;
    let mut add =
        |name: &str, of: fn(Size) -> u32| row.add(name, of(ours).to_string(), of(rival).to_string());
    add("instructions", |size| size.instructions);
    add("verified instructions", |size| size.verified);
    add("bytes of machine code", |size| size.machine_code);
    let empty = super::report::Spread::of(empty).map_or(0.0, |spread| spread.median);
    row.notes.push(format!(
        "Both include what measuring costs: {empty:.0} ns per run of an empty program. Both are timed in turn."
    ));
    Ok(row)
}
