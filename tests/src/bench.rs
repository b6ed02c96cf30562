//! The benchmark: compares relayd and its parts with alternatives, at the same time on the same machine under
//! the same load.
//!
//! ```text
//!   cargo xtask bench ─► bin/bench ─┬─ lookup, mux          code against code, in this process or in Go's
//!                                   ├─ derp, scale, slow    relayd and derper as processes; load: a third
//!                                   ├─ workers              relayd against itself, likewise
//!                                   ├─ udp                  relayd and upstream's peer relay, in namespaces
//!                                   └─ mesh, mesh-faults    regions of three of them; the latter with faults
//! ```
//!
//! Our samples and the rival's alternate (A B A B ...). A row is judged by the median of the ratios of
//! neighbours, because the speed of a shared machine drifts by more than the measured differences.

pub mod derp;
pub mod load;
pub mod lookup;
pub mod machine;
pub mod mesh;
pub mod mesh_faults;
pub mod mux;
pub mod report;
mod rivals;
pub mod scale;
mod server;
pub mod slow;
pub mod steady;
pub mod udp;
pub mod udp_flaps;
pub mod udp_program;
mod usage;
pub mod workers;

use std::path::PathBuf;

use report::Row;

/// The settings of a benchmark run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Fewer and shorter samples: they show that everything works, but not how fast it is.
    pub quick: bool,
    /// Pairs of samples per row, if not the usual number.
    pub pairs: Option<usize>,
    /// Only rows whose name contains this.
    pub row: Option<String>,
    /// The daemon, built with `--release`.
    pub relayd: PathBuf,
    /// More arguments for every relayd that is started.
    pub relayd_args: Vec<String>,
    /// Sessions of a row that has very many, if not the usual number.
    pub sessions: Option<usize>,
    /// Another build of the daemon, which takes the place of derper.
    pub against: Option<PathBuf>,
}

impl Settings {
    /// Pairs of samples per row.
    pub fn pairs(&self) -> usize {
        self.pairs.unwrap_or(if self.quick { 3 } else { 7 })
    }

    /// Length of one sample in milliseconds.
    pub fn sample_ms(&self) -> u64 {
        if self.quick { 500 } else { 1000 }
    }

    /// Whether the settings select a row of this name.
    pub fn wants(&self, name: &str) -> bool {
        self.row.as_ref().is_none_or(|part| name.contains(part.as_str()))
    }
}

/// Stores a finished row and prints it at once.
fn keep(rows: &mut Vec<Row>, settings: &Settings, row: Row) {
    if settings.wants(&row.name) {
        // The goals apply to derper only.
        let row = match &settings.against {
            Some(_) if row.rival_name == rivals::DERPER => Row {
                rival_name: "the other build".to_owned(),
                goal: "no worse than the spread".to_owned(),
                at_most: None,
                ..row
            },
            _ => row,
        };
        eprintln!("{}", row.line());
        rows.push(row);
    }
}
