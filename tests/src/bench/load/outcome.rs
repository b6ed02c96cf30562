//! What a load process measured.

use serde::{Deserialize, Serialize};

use super::sizes::Cost;
use super::slow::Ages;

/// The results of a load process.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// Length of the measurement in seconds.
    pub seconds: f64,
    /// Packets that arrived, or logins done.
    pub done: u64,
    /// Packets that never arrived.
    pub lost: u64,
    /// CPU seconds of the server.
    pub server_cpu: f64,
    /// CPU seconds of the other measured processes.
    pub beside_cpu: Vec<f64>,
    /// CPU seconds of the load process.
    pub load_cpu: f64,
    /// Seconds in which threads of the load process were ready but had no core.
    pub load_queued: f64,
    /// Median time from the planned sending of a packet until it was read, in microseconds.
    pub p50_us: f64,
    /// The 99th percentile of the same time.
    pub p99_us: f64,
    /// 99th percentile of the delay with which a fixed-rate packet was written, in microseconds.
    pub late_p99_us: f64,
    /// Resident bytes of the server before the clients connected.
    pub resident_before: u64,
    /// Resident bytes of the server with all clients.
    pub resident_after: u64,
    /// Clients that the server disconnected.
    pub cut: u64,
    /// The keys of the clients that stay.
    pub stayers: Vec<String>,
    /// The ages of the frames that a slow client read.
    pub ages: Ages,
    /// The server's cost per packet, by size.
    pub costs: Vec<Cost>,
}

impl Outcome {
    /// Microseconds of server CPU for each packet or login.
    pub fn server_us(&self) -> f64 {
        self.server_cpu * 1e6 / self.done.max(1) as f64
    }

    /// Microseconds of CPU of another measured process for each packet or login.
    pub fn beside_us(&self, index: usize) -> f64 {
        self.beside_cpu.get(index).map_or(f64::NAN, |cpu| cpu * 1e6 / self.done.max(1) as f64)
    }

    /// Packets or logins per second of wall clock.
    pub fn per_second(&self) -> f64 {
        self.done as f64 / self.seconds
    }

    /// The share of its time in which the load, with this many threads, had nothing to do.
    pub fn load_idle(&self, threads: usize) -> f64 {
        1.0 - (self.load_cpu + self.load_queued) / (self.seconds * threads as f64)
    }

    /// Resident bytes per client.
    pub fn bytes_per_client(&self, clients: usize) -> f64 {
        (self.resident_after as f64 - self.resident_before as f64) / clients as f64
    }
}
