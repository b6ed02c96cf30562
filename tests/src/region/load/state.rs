//! What the load's clients and its script share: orders to the clients, and where each client is.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize},
    time::Instant,
};

use crate::region::records::Nanos;

/// Where each client is at home. The last two talk only with each other.
pub(super) const HOMES: [usize; 5] = [0, 1, 2, 1, 1];
/// [`State::at`] of a client without a connection.
pub(super) const NOWHERE: usize = usize::MAX;

/// The shared state.
#[derive(Debug)]
pub(super) struct State {
    /// Zero of the load's clock.
    epoch: Instant,
    pub(super) stop: AtomicBool,
    /// Whether a client whose relay is away goes to the next one.
    pub(super) roam: AtomicBool,
    /// The relay of each client, by index, or [`NOWHERE`].
    pub(super) at: [AtomicUsize; HOMES.len()],
    /// Time of the last arrival from each client at each client; 0: nothing arrived yet.
    pub(super) last: [[AtomicU64; HOMES.len()]; HOMES.len()],
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            epoch: Instant::now(),
            stop: AtomicBool::new(false),
            roam: AtomicBool::new(false),
            at: [const { AtomicUsize::new(NOWHERE) }; HOMES.len()],
            last: [const { [const { AtomicU64::new(0) }; HOMES.len()] }; HOMES.len()],
        }
    }

    pub(super) fn now(&self) -> Nanos {
        self.epoch.elapsed().as_nanos() as Nanos
    }
}
