//! The map of bound sessions as its one writer sees it (law 4 of the table: one writer, rebuildable at any
//! time).
//!
//! The trait names no BPF type, so that the table's mirror is tested against a model and runs on
//! [`crate::fastpath::bpf_sessions::BpfSessions`].

use relay_common::fastpath::{SessionEntry, SessionStats};

/// Why a map operation failed; what the caller does differs by variant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MapError {
    /// The map holds `--relay-max-sessions` sessions: this one stays in userspace.
    #[error("the session map is full")]
    Full,
    /// No such slot in `LEG_STATS`: the slot allocator and the map disagree on the limit.
    #[error("stats slot {slot} is not below the limit of {limit}")]
    Slot {
        /// The slot asked for.
        slot: u32,
        /// How many slots there are.
        limit: u32,
    },
    /// The kernel refused.
    #[error("{call}: {}", std::io::Error::from_raw_os_error(*errno))]
    Syscall {
        /// The BPF operation.
        call: &'static str,
        /// What it answered; 0 if aya did not say.
        errno: i32,
    },
}

/// The session map and the counters of its sessions.
pub trait SessionMap: Send {
    /// Writes a session, whether or not its VNI was there before.
    fn install(&mut self, vni: u32, entry: &SessionEntry) -> Result<(), MapError>;

    /// Removes a session; `false` if it was not there.
    fn remove(&mut self, vni: u32) -> Result<bool, MapError>;

    /// Zeroes the counters of a slot. To be called before a session with this slot is installed: from then on
    /// the program is their only writer.
    fn zero_stats(&mut self, slot: u32) -> Result<(), MapError>;

    /// The counters of a slot.
    fn stats(&self, slot: u32) -> Result<SessionStats, MapError>;

    /// Every session in the map, in no order.
    fn entries(&self) -> Result<Vec<(u32, SessionEntry)>, MapError>;
}
