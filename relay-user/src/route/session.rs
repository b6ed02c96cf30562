//! A session as packets see it. It is immutable: when a leg moves, a new one replaces it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use relay_common::fastpath::SessionStats;
use relay_common::key::{DiscoPublic, DiscoShared};

use super::vocabulary::LegPath;

/// The mirror's entry for one session.
#[derive(Debug)]
pub struct SessionRoute {
    /// The session's virtual network identifier.
    pub vni: u32,
    /// The two clients, ascending.
    pub clients: [DiscoPublic; 2],
    /// Where each client is bound.
    pub legs: [Option<LegPath>; 2],
    /// The state that is kept when a leg binds again.
    pub side: UserspaceState,
}

/// The parts of a session that all its versions share and that the table does not hold.
#[derive(Clone, Debug)]
pub struct UserspaceState {
    /// The relay's precomputed box with each client, ascending by client.
    pub boxes: Arc<[DiscoShared; 2]>,
    /// What userspace forwarded for each leg.
    pub counters: Arc<[LegCounters; 2]>,
}

impl UserspaceState {
    /// Makes new counters for these boxes.
    pub fn new(boxes: [DiscoShared; 2]) -> Self {
        Self { boxes: Arc::new(boxes), counters: Arc::default() }
    }
}

/// Packets that userspace received from a leg and could send on. The sending leg's socket writes them; any
/// thread reads them.
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
    /// Notes that the leg was heard.
    pub fn seen(&self, now_ns: u64) {
        self.last_seen_ns.store(now_ns, Ordering::Relaxed);
    }

    /// Counts packets that were sent on, `bytes` bytes together.
    pub fn count_many(&self, packets: u64, bytes: u64) {
        self.packets.fetch_add(packets, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl SessionRoute {
    /// When each leg was last heard, in userspace or, if the kernel forwards the session, in the kernel.
    pub fn last_seen_ns(&self, kernel: Option<&SessionStats>) -> [u64; 2] {
        std::array::from_fn(|leg| {
            let user = self.side.counters[leg].last_seen_ns.load(Ordering::Relaxed);
            user.max(kernel.map_or(0, |stats| stats.legs[leg].last_seen_ns))
        })
    }
}
