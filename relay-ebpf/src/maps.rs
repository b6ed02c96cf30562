//! Every map of the program. Names, values and meaning are in `relay_common::fastpath`.

use aya_ebpf::{
    btf_maps::{Array, HashMap, PerCpuArray},
    macros::btf_map,
};
use relay_common::fastpath::{Config, DEFAULT_MAX_SESSIONS, ReasonCount, SessionEntry, SessionStats, reason};
use relay_ebpf::values::{NO_PREALLOC, find, read};

const SESSION_COUNT: usize = DEFAULT_MAX_SESSIONS as usize;
const REASON_COUNT: usize = reason::COUNT as usize;

#[btf_map]
static SESSIONS: HashMap<u32, SessionEntry, SESSION_COUNT, NO_PREALLOC> = HashMap::new();

#[btf_map]
pub(crate) static LEG_STATS: Array<SessionStats, SESSION_COUNT> = Array::new();

#[btf_map]
pub(crate) static REASONS: PerCpuArray<ReasonCount, REASON_COUNT> = PerCpuArray::new();

#[btf_map]
static CONFIG: Array<Config, 1> = Array::new();

/// The configuration that the daemon has set. Until then the map holds zeros, which mean disabled.
#[inline(always)]
pub(crate) fn config() -> Option<Config> {
    read(&CONFIG, 0)
}

/// The session with that VNI.
#[inline(always)]
pub(crate) fn session(vni: u32) -> Option<&'static SessionEntry> {
    find(&SESSIONS, vni)
}
