//! Rows about a region of three relays: what a packet costs that crosses a link, what clients that come and
//! go cost the other relays, and what a frozen relay does to the clients of another one.
//!
//! Relay 1 has the senders, relay 2 the receivers, and relay 3 is idle or frozen. Where CPU time per packet
//! counts, all are on one host and talk over loopback, as in `bench derp`; the frozen relay is on a host of
//! its own with the field's socket buffers, because loopback's would hold all that is sent to it. See
//! `crate::region`.

mod churn;
mod counters;
mod crossing;
mod frozen;
mod place;

use super::report::{Row, Spread, number};
use super::{Settings, rivals};

/// All selected rows of `bench mesh`.
///
/// # Errors
/// derper cannot be built, a region does not come up, or a load fails.
pub fn rows(settings: &Settings) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    let Some([ours, theirs]) = rivals::programs(settings, "bench mesh")? else { return Ok(rows) };
    let programs = [&ours, &theirs];
    crossing::rows(settings, programs, &mut rows)?;
    churn::rows(settings, programs, &mut rows)?;
    frozen::rows(settings, programs, &mut rows)?;
    Ok(rows)
}

/// How often each side is measured where a sample takes long.
fn rounds(settings: &Settings) -> usize {
    settings.pairs.unwrap_or(if settings.quick { 1 } else { 3 })
}

/// A median with its range.
fn range(samples: &[f64]) -> String {
    match Spread::of(samples.iter().copied()) {
        Some(Spread { low, median, high }) if low < high => {
            format!("{} ({} to {})", number(median), number(low), number(high))
        }
        Some(Spread { median, .. }) => number(median),
        None => String::new(),
    }
}

/// Adds a column with median and range of each side.
fn add(row: &mut Row, name: &str, [ours, rival]: [Vec<f64>; 2]) {
    row.add(name, range(&ours), range(&rival));
}

/// Prints a row's further columns and notes; `keep` prints its line only.
fn tell(row: &Row) {
    for column in &row.extra {
        eprintln!("    {}: {} against {}", column.name, column.ours, column.rival);
    }
    row.notes.iter().for_each(|note| eprintln!("    {note}"));
}
