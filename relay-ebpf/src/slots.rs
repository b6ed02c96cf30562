//! Changing the value in a slot of an array map.
//!
//! Slots of array maps are never freed, so the only care is for other writers: a per-CPU slot belongs to the running
//! program, a shared slot is written without a lock, and two CPUs in the same slot may lose an addition.

use aya_ebpf::btf_maps::{Array, PerCpuArray};

/// Changes this CPU's value at `index`; `None` without effect where the map has no such slot.
#[inline(always)]
pub fn change_own<T, R, const N: usize>(
    map: &PerCpuArray<T, N>,
    index: u32,
    change: impl FnOnce(&mut T) -> R,
) -> Option<R> {
    let slot = map.get_ptr_mut(index)?;
    // SAFETY: the kernel returned a slot of this map, whose value type is T; XDP programs are neither preempted nor
    // nested on a CPU, so nothing else refers to this CPU's value meanwhile.
    Some(change(unsafe { &mut *slot }))
}

/// Changes the value at `index` that all CPUs share.
#[inline(always)]
pub fn change_shared<T, R, const N: usize>(
    map: &Array<T, N>,
    index: u32,
    change: impl FnOnce(&mut T) -> R,
) -> Option<R> {
    let slot = map.get_ptr_mut(index)?;
    // SAFETY: as above, but other CPUs may write the slot at the same time: the values are counters and times of plain
    // integers, for which the machine's aligned stores are whole, and the reference does not outlive the closure.
    Some(change(unsafe { &mut *slot }))
}
