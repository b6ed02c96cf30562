//! Rows about the UDP relay: relayd and upstream's peer relay under the same load, and relayd with few and
//! with very many sessions.
//!
//! The rival is a program of a few lines around upstream's own package, with the same allocation resource
//! (`tests/interop/udprelay`). Both run with their default number of workers.

pub(super) mod bind;
mod copies;
mod datagrams;
pub(super) mod field;
mod http;
mod packets;
mod place;
pub(super) mod population;
pub(super) mod relay;
mod sessions;
pub(super) mod traffic;

use super::report::Row;
use super::{Settings, keep, udp_program};

/// All selected rows of `bench udp`.
///
/// # Errors
/// A relay cannot be built or run, or a load fails.
pub fn rows(settings: &Settings) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    if !nix::unistd::geteuid().is_root() {
        crate::skip("bench udp", "network namespaces need root");
        return Ok(rows);
    }
    packets::rows(settings, &mut rows)?;
    copies::rows(settings, &mut rows)?;
    sessions::rows(settings, &mut rows)?;
    if settings.wants(udp_program::NAME) {
        keep(&mut rows, settings, udp_program::row(settings)?);
    }
    Ok(rows)
}
