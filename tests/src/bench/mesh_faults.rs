//! Rows about a region of three relays: how long its clients hear nothing while a relay is cut off, frozen,
//! killed or restarted, and what they lose.
//!
//! Regions of relayd and of derper take turns, each with all faults. A region has its own hosts and the
//! field's socket buffers; see `crate::region`.

mod rows;
mod trial;

use super::report::Row;
use super::{Settings, keep, rivals};

/// All selected rows of `bench mesh-faults`.
///
/// # Errors
/// derper cannot be built, a region of it does not become whole, or a client gets what nobody sent it.
pub fn rows(settings: &Settings) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    let Some([ours, theirs]) = rivals::programs(settings, "bench mesh-faults")? else { return Ok(rows) };
    let (mut samples, mut broken) = ([Vec::new(), Vec::new()], None::<String>);
    for number in 0..repetitions(settings) {
        // The sides take turns at being first.
        for side in [number % 2, 1 - number % 2] {
            if side == 1 {
                samples[1].push(trial::run(settings, &theirs)?);
            } else if broken.is_none() {
                // The rival's figures are worth having while a mesh of ours is not built yet, or is broken.
                match trial::run(settings, &ours) {
                    Ok(sample) => samples[0].push(sample),
                    Err(error) => {
                        eprintln!("relayd: {error:#}");
                        broken = Some(error.root_cause().to_string());
                    }
                }
            }
        }
    }
    for mut row in rows::all(settings, &samples) {
        row.notes.extend(broken.iter().map(|reason| format!("**relayd failed**: {reason}")));
        let kept = rows.len();
        keep(&mut rows, settings, row);
        rows[kept..].iter().for_each(tell);
    }
    Ok(rows)
}

/// Prints the columns in which something happened; `keep` prints the gap only.
fn tell(row: &Row) {
    for column in &row.extra {
        let is_zero = |value: &str| value.is_empty() || value == "0";
        if !is_zero(&column.ours) || !is_zero(&column.rival) {
            eprintln!("    {}: {} against {}", column.name, column.ours, column.rival);
        }
    }
}

/// How often each side runs.
fn repetitions(settings: &Settings) -> usize {
    settings.pairs.unwrap_or(if settings.quick { 1 } else { 3 })
}
