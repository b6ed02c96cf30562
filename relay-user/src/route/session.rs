//! A session as packets see it. It is immutable: when a leg moves, a new one replaces it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use relay_common::fastpath::SessionStats;
use relay_common::key::{DiscoPublic, DiscoShared};

use super::leg::LegPath;

/// The facts about one session that packets need. The table and its in-process mirror share it.
#[derive(Clone, Debug)]
pub struct SessionRoute {
    /// The session's virtual network identifier, 1 to 2^24-1.
    pub vni: u32,
    /// Completed binds of each leg.
    pub binds: [u32; 2],
    /// The two clients, ascending.
    pub clients: [DiscoPublic; 2],
    /// Where each client is bound.
    pub legs: [Option<LegPath>; 2],
    /// What all versions of the session share.
    pub side: Arc<[LegState; 2]>,
}

/// What userspace has counted for a leg, and the relay's box with its client. It fills a cache line: the two
/// clients of a session may be served by two workers.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct LegState {
    /// CLOCK_MONOTONIC nanoseconds of the last packet; 0: none yet.
    pub last_seen_ns: AtomicU64,
    /// Packets that came from the leg and were sent on.
    pub packets: AtomicU64,
    /// UDP payload bytes of these packets, Geneve header included.
    pub bytes: AtomicU64,
    /// Computed at the leg's first bind: most of the cost of a session, and many are never bound.
    shared: OnceLock<DiscoShared>,
}

const _: () = assert!(size_of::<LegState>() == 64);

impl LegState {
    /// Notes that the client was heard.
    pub fn heard(&self, now_ns: u64) {
        self.last_seen_ns.store(now_ns, Ordering::Relaxed);
    }

    /// Counts packets that were sent on: `bytes` of them together.
    pub fn count(&self, packets: u64, bytes: u64) {
        self.packets.fetch_add(packets, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The relay's box with the client; `compute` makes it when it is first needed.
    pub fn shared(&self, compute: impl FnOnce() -> Option<DiscoShared>) -> Option<&DiscoShared> {
        if let Some(shared) = self.shared.get() {
            return Some(shared);
        }
        let computed = compute()?;
        Some(self.shared.get_or_init(|| computed))
    }
}

impl PartialEq for SessionRoute {
    /// Whether it is the same version of the same session.
    fn eq(&self, other: &Self) -> bool {
        (self.vni, self.binds, self.clients, self.legs) == (other.vni, other.binds, other.clients, other.legs)
    }
}

impl SessionRoute {
    /// Completed binds of both legs: no two bindings of a session have the same number, until it has had
    /// 2^32.
    pub fn generation(&self) -> u32 {
        self.binds[0].wrapping_add(self.binds[1])
    }

    /// Whether both legs are bound.
    pub fn is_bound(&self) -> bool {
        self.legs.iter().all(Option::is_some)
    }

    /// When each leg was last heard, in userspace or, if the kernel forwards the session, in the kernel.
    pub fn last_seen_ns(&self, kernel: Option<&SessionStats>) -> [u64; 2] {
        std::array::from_fn(|leg| {
            let user = self.side[leg].last_seen_ns.load(Ordering::Relaxed);
            user.max(kernel.map_or(0, |stats| stats.legs[leg].last_seen_ns))
        })
    }
}
