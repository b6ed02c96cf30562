//! The map of bound sessions, as seen by its one writer (law 4 of the table: one writer, rebuildable at any
//! time).
//!
//! The trait names no BPF type, so that the table's mirror is tested against a model and runs on
//! [`crate::fastpath::bpf_sessions::BpfSessions`].

use std::sync::Arc;

use relay_common::fastpath::{SessionEntry, SessionStats};

/// Some sessions of a map, and the place where to go on; `None`: there are no more.
pub type Part = (Vec<u32>, Option<u64>);

/// Lists a session map without its writer: the kernel may walk through a million empty buckets before it
/// finds a session.
#[derive(Clone)]
pub struct List(Arc<dyn Fn(Option<u64>, usize) -> Result<Part, MapError> + Send + Sync>);

impl List {
    /// `part` is [`Self::part`].
    pub fn new(part: impl Fn(Option<u64>, usize) -> Result<Part, MapError> + Send + Sync + 'static) -> Self {
        Self(Arc::new(part))
    }

    /// About `most` sessions behind the place `after`; `None`: from the start. A walk sees every session that
    /// is in the map from its start to its end; another one, or one twice, it may see.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn part(&self, after: Option<u64>, most: usize) -> Result<Part, MapError> {
        self.0(after, most)
    }
}

impl std::fmt::Debug for List {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("List").finish_non_exhaustive()
    }
}

/// Why a map operation failed; the caller handles each variant differently.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MapError {
    /// The map holds `--relay-max-sessions` sessions: this one stays in userspace.
    #[error("the session map is full")]
    Full,
    /// `LEG_STATS` has no such slot: the slot allocator and the map disagree on the limit.
    #[error("stats slot {slot} is not below the limit of {limit}")]
    Slot {
        /// The requested slot.
        slot: u32,
        /// Number of slots.
        limit: u32,
    },
    /// The kernel refused the operation.
    #[error("{call}: {}", std::io::Error::from_raw_os_error(*errno))]
    Syscall {
        /// The BPF operation.
        call: &'static str,
        /// The kernel's error number; 0 if aya did not report one.
        errno: i32,
    },
}

/// The session map and the counters of its sessions.
pub trait SessionMap: Send {
    /// Writes a session; an existing entry for the VNI is replaced.
    ///
    /// # Errors
    /// The map is full, or the kernel refuses.
    fn install(&mut self, vni: u32, entry: &SessionEntry) -> Result<(), MapError>;

    /// Removes a session; returns `false` if it was not in the map.
    ///
    /// # Errors
    /// The kernel refuses.
    fn remove(&mut self, vni: u32) -> Result<bool, MapError>;

    /// Zeroes the counters of a slot. Call it before a session with this slot is installed: after that, the
    /// program is the only writer of the counters.
    ///
    /// # Errors
    /// There is no such slot, or the kernel refuses.
    fn zero_stats(&mut self, slot: u32) -> Result<(), MapError>;

    /// Reads the counters of a slot.
    ///
    /// # Errors
    /// There is no such slot, or the kernel refuses.
    fn stats(&self, slot: u32) -> Result<SessionStats, MapError>;

    /// The entry of a session; `None`: it is not in the map.
    ///
    /// # Errors
    /// The kernel refuses.
    fn get(&self, vni: u32) -> Result<Option<SessionEntry>, MapError>;

    /// Lists the sessions in the map, whoever writes it meanwhile.
    fn list(&self) -> List;
}
