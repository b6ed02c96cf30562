//! A session as packets see it: immutable, replaced whole when a leg moves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use relay_common::fastpath::SessionStats;
use relay_common::key::{DiscoPublic, DiscoShared};

use super::vocabulary::LegPath;

/// The mirror's entry for one session.
#[derive(Debug)]
pub struct SessionRoute {
    /// Its virtual network identifier.
    pub vni: u32,
    /// The two clients, ascending.
    pub clients: [DiscoPublic; 2],
    /// Where each client is bound.
    pub legs: [Option<LegPath>; 2],
    /// What outlives a rebind.
    pub side: UserspaceState,
}

/// The parts of a session that its bindings share, and that the table does not know.
#[derive(Clone, Debug)]
pub struct UserspaceState {
    /// The relay's precomputed box with each client, ascending by client.
    pub boxes: Arc<[DiscoShared; 2]>,
    /// What userspace carried for each leg.
    pub counters: Arc<[LegCounters; 2]>,
}

impl UserspaceState {
    /// Fresh counters with these boxes.
    pub fn new(boxes: [DiscoShared; 2]) -> Self {
        Self { boxes: Arc::new(boxes), counters: Arc::default() }
    }
}

/// What userspace received from a leg and could send on. The sending leg's socket writes, anybody reads.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct LegCounters {
    /// CLOCK_MONOTONIC nanoseconds of the last packet; 0: none yet.
    pub last_seen_ns: AtomicU64,
    /// Packets.
    pub packets: AtomicU64,
    /// UDP payload bytes, Geneve header included.
    pub bytes: AtomicU64,
}

impl LegCounters {
    /// Counts one packet of `bytes` bytes.
    pub fn count(&self, bytes: usize, now_ns: u64) {
        self.last_seen_ns.store(now_ns, Ordering::Relaxed);
        self.packets.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl SessionRoute {
    /// When each leg was last heard, in userspace or, where it runs, in the kernel.
    pub fn last_seen_ns(&self, kernel: Option<&SessionStats>) -> [u64; 2] {
        std::array::from_fn(|leg| {
            let user = self.side.counters[leg].last_seen_ns.load(Ordering::Relaxed);
            user.max(kernel.map_or(0, |stats| stats.legs[leg].last_seen_ns))
        })
    }
}
