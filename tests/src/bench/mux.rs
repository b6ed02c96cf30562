//! Rows about many streams in one.

use super::{Settings, report::Row};

/// All rows of `bench mux` that are asked for.
///
/// # Errors
/// A rival cannot be built or run.
pub fn rows(_settings: &Settings) -> anyhow::Result<Vec<Row>> {
    Ok(Vec::new())
}
