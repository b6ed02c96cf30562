//! Every map of the lab's programs. Names, values and meaning are in `relay_ebpf::lab`.

use aya_ebpf::{
    btf_maps::{Array, PerCpuArray},
    macros::btf_map,
};
use relay_ebpf::lab::{Checked, LabConfig, Template, VNI_SLOTS, VniCount};

#[btf_map]
pub(crate) static LAB_CONFIG: Array<LabConfig, 1> = Array::new();

#[btf_map]
pub(crate) static LAB_CHECKED: PerCpuArray<u64, { Checked::COUNT as usize }> = PerCpuArray::new();

#[btf_map]
pub(crate) static LAB_VNIS: PerCpuArray<VniCount, { VNI_SLOTS as usize }> = PerCpuArray::new();

#[btf_map]
pub(crate) static LAB_TEMPLATES: Array<Template, 2> = Array::new();

#[btf_map]
pub(crate) static LAB_GENERATED: Array<u64, 1> = Array::new();
