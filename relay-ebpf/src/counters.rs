//! What the program counts: one reason per frame, and for a forwarded frame the leg's last activity and
//! volume.

use relay_common::{
    fastpath::{LegStats, ReasonCount, reason::XdpReason},
    forward::Decision,
};
use relay_ebpf::values::{change_own, change_shared};

use crate::maps::{LEG_STATS, REASONS};

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
    let note = |leg: &mut LegStats| {
        leg.last_seen_ns = decision.now_ns;
        leg.packets += 1;
        leg.bytes += u64::from(decision.payload_length);
    };
    change_shared(&LEG_STATS, decision.stats_slot, |stats| {
        let [first, second] = &mut stats.legs;
        note(if decision.from_leg == 0 { first } else { second });
    });
}
