//! Rows about the DERP path: relayd and derper under the same load.
//!
//! The unit is the CPU time (user and system) of the server process per packet that arrived.

mod clients;
mod latency;
mod throughput;

use super::{Settings, report::Row, rivals};

/// All selected rows of `bench derp`.
///
/// # Errors
/// A server cannot be built or run, or a load fails.
pub fn rows(settings: &Settings) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut peak = None;
    throughput::rows(settings, &mut rows, &mut peak)?;
    latency::rows(settings, &mut rows, peak)?;
    clients::rows(settings, &mut rows)?;
    Ok(rows)
}

/// The versions that `bench derp`, `bench scale` and `bench slow` compare.
///
/// # Errors
/// One of the programs is missing.
pub fn facts(settings: &Settings) -> anyhow::Result<Vec<(&'static str, String)>> {
    rivals::facts(settings)
}
