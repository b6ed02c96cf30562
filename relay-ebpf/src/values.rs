//! Reaching the values in a map: the only place that turns what the kernel returns into references.
//!
//! Slots of array maps are never freed, so the only care there is for other writers: a per-CPU slot belongs
//! to the running program; a shared one is written without a lock, and two CPUs in the same slot may lose an
//! addition.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{Array, HashMap, PerCpuArray},
};

/// Flag of a hash map whose elements are allocated one by one.
///
/// A preallocated map hands the memory of a removed element to the next one at once, under the eyes of a
/// program that still reads it: a packet would go to the wrong client. Elements allocated one by one are
/// freed only after every program that could see them has returned.
pub const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;

/// The value under `key` of a map that no program writes.
#[inline(always)]
pub fn find<V, const N: usize>(
    map: &'static HashMap<u32, V, N, NO_PREALLOC>,
    key: u32,
) -> Option<&'static V> {
    // SAFETY: only the daemon writes the map, and it replaces whole elements; with `NO_PREALLOC` in the map's
    // type the element outlives this run of the program, and a reference cannot be kept for the next.
    unsafe { map.get(key) }
}

/// Changes this CPU's value at `index`; `None`, without effect, where the map has no such slot.
#[inline(always)]
pub fn change_own<T, R, const N: usize>(
    map: &PerCpuArray<T, N>,
    index: u32,
    change: impl FnOnce(&mut T) -> R,
) -> Option<R> {
    let slot = map.get_ptr_mut(index)?;
    // SAFETY: the kernel returned a slot of this map, whose value type is T; XDP programs are neither
    // preempted nor nested on a CPU, so nothing else refers to this CPU's value meanwhile.
    Some(change(unsafe { &mut *slot }))
}

/// Changes the value at `index` that all CPUs share; `None`, without effect, where the map has no such slot.
#[inline(always)]
pub fn change_shared<T, R, const N: usize>(
    map: &Array<T, N>,
    index: u32,
    change: impl FnOnce(&mut T) -> R,
) -> Option<R> {
    let slot = map.get_ptr_mut(index)?;
    // SAFETY: the kernel returned a slot of this map, whose value type is T. Another CPU may write it at the
    // same time: the values are aligned integers, whose stores are whole, and the worst is a lost addition.
    Some(change(unsafe { &mut *slot }))
}
