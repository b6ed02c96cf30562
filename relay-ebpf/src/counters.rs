//! What the program counts: one reason per frame, and for a forwarded frame the leg's last activity and
//! volume.

use core::mem::offset_of;

use relay_common::{
    fastpath::{LegStats, ReasonCount, SessionStats, reason::XdpReason},
    forward::Decision,
};
use relay_ebpf::values::{change_own, words};

use crate::maps::{LEG_STATS, REASONS};

/// Sizes and places in the stats, in words.
const STATS_WORDS: usize = size_of::<SessionStats>() / size_of::<u64>();
const LEG_WORDS: usize = size_of::<LegStats>() / size_of::<u64>();
const LAST_SEEN: usize = offset_of!(LegStats, last_seen_ns) / size_of::<u64>();
const PACKETS: usize = offset_of!(LegStats, packets) / size_of::<u64>();
const BYTES: usize = offset_of!(LegStats, bytes) / size_of::<u64>();

/// Counts a frame of `length` bytes; returns how many this CPU has now counted under that reason.
#[inline(always)]
pub(crate) fn count(reason: XdpReason, length: usize) -> u64 {
    let add = |count: &mut ReasonCount| {
        count.packets += 1;
        count.bytes += length as u64;
        count.packets
    };
    change_own(&REASONS, reason as u32, add).unwrap_or(0)
}

/// Counts a forwarded packet for the leg that sent it. Packets from one client arrive on one queue, so only
/// one CPU writes a slot at a time.
#[inline(always)]
pub(crate) fn note_leg(decision: &Decision) {
    let stats = words::<_, STATS_WORDS, _, _>(&LEG_STATS, decision.stats_slot);
    let Some(leg) = stats.and_then(|stats| stats.part::<LEG_WORDS>(decision.from_leg.into())) else { return };
    leg.set::<LAST_SEEN>(decision.now_ns);
    leg.add::<PACKETS>(1);
    leg.add::<BYTES>(decision.payload_length.into());
}
