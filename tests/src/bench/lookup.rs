//! Rows about finding a peer by its key.

use super::{Settings, report::Row};

/// All rows of `bench lookup` that are asked for.
///
/// # Errors
/// A rival cannot be built or run.
pub fn rows(_settings: &Settings) -> anyhow::Result<Vec<Row>> {
    Ok(Vec::new())
}
