//! Every map of the lab's programs. Names, values and meaning are in `relay_ebpf::lab`.

use aya_ebpf::{
    btf_maps::{Array, HashMap, PerCpuArray},
    macros::btf_map,
};
use relay_common::fastpath::{Config, SessionEntry};
use relay_ebpf::{
    lab::{Checked, LabConfig, REUSE_SESSIONS, ReuseFound, ReuseTry, Template, VNI_SLOTS, VniCount},
    values::{NO_PREALLOC, read},
};

#[btf_map]
static LAB_CONFIG: Array<LabConfig, 1> = Array::new();

#[btf_map]
pub(crate) static LAB_CHECKED: PerCpuArray<u64, { Checked::COUNT as usize }> = PerCpuArray::new();

#[btf_map]
pub(crate) static LAB_VNIS: PerCpuArray<VniCount, { VNI_SLOTS as usize }> = PerCpuArray::new();

// The test writes it only while no program runs.
#[btf_map]
pub(crate) static LAB_TEMPLATES: Array<Template, 2> = Array::new();

#[btf_map]
pub(crate) static LAB_GENERATED: Array<u64, 1> = Array::new();

#[btf_map]
pub(crate) static LAB_SESSIONS: HashMap<u32, SessionEntry, { REUSE_SESSIONS as usize }, NO_PREALLOC> =
    HashMap::new();

#[btf_map]
pub(crate) static LAB_PREALLOC: HashMap<u32, SessionEntry, { REUSE_SESSIONS as usize }, 0> = HashMap::new();

#[btf_map]
pub(crate) static LAB_REUSE: Array<ReuseTry, 1> = Array::new();

#[btf_map]
pub(crate) static LAB_SIGNALS: Array<u64, 2> = Array::new();

#[btf_map]
pub(crate) static LAB_FOUND: Array<ReuseFound, 1> = Array::new();

#[btf_map]
pub(crate) static LAB_RELAY: Array<Config, 1> = Array::new();

/// What the test has told the programs. Until then it is zero.
#[inline(always)]
pub(crate) fn config() -> Option<LabConfig> {
    read(&LAB_CONFIG, 0)
}
