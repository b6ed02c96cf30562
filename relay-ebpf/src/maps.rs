//! Every map of the program. Names, values and meaning are in `relay_common::fastpath`.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{Array, HashMap, PerCpuArray},
    macros::btf_map,
};
use relay_common::fastpath::{Config, DEFAULT_MAX_SESSIONS, ReasonCount, SessionEntry, SessionStats, reason};

const SESSION_COUNT: usize = DEFAULT_MAX_SESSIONS as usize;

// Allocated one by one: a preallocated map hands the memory of a removed session to the next one at once, under the
// eyes of a program that still reads it, and a packet goes to the wrong client.
#[btf_map]
static SESSIONS: HashMap<u32, SessionEntry, SESSION_COUNT, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

#[btf_map]
pub(crate) static LEG_STATS: Array<SessionStats, SESSION_COUNT> = Array::new();

#[btf_map]
pub(crate) static REASONS: PerCpuArray<ReasonCount, { reason::COUNT as usize }> = PerCpuArray::new();

#[btf_map]
static CONFIG: Array<Config, 1> = Array::new();

/// What the daemon has set. A map nobody wrote yet holds zeros: disabled.
#[inline(always)]
pub(crate) fn config() -> Option<&'static Config> {
    CONFIG.get(0)
}

/// The session with that VNI.
#[inline(always)]
pub(crate) fn session(vni: u32) -> Option<&'static SessionEntry> {
    // SAFETY: the program writes no map elements of its own accord, and without preallocation an element the daemon
    // removes or replaces is freed only after a grace period that includes this run of the program.
    unsafe { SESSIONS.get(vni) }
}
