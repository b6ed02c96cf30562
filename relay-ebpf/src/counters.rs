//! What the program counts: one reason per frame, and for a forwarded frame the leg's last activity and
//! volume.

use relay_common::{
    fastpath::{ReasonCount, reason::XdpReason},
    forward::Decision,
};
use relay_ebpf::values::change_own;

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
    let Some(stats) = LEG_STATS.get(decision.stats_slot) else { return };
    let [first, second] = &stats.legs;
    let leg = if decision.from_leg == 0 { first } else { second };
    leg.note(decision.now_ns, decision.payload_length.into());
}
