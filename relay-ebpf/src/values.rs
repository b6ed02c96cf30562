//! Access to map values: only this module turns the kernel's pointers into references.
//!
//! Slots of arrays are never freed, so only other writers matter. A per-CPU slot belongs to the running
//! program. A slot that others write too is a value of [`crate::shared`] and needs nothing from here.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{HashMap, PerCpuArray},
};

/// Flag of a hash map whose elements are allocated one by one.
///
/// A preallocated map reuses the memory of a removed element at once, even while a program still reads it: a
/// packet could go to the wrong client. Elements allocated one by one are freed only after every program that
/// could see them has returned.
pub const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;

/// The value under `key` of a map that no program writes.
#[inline(always)]
pub fn find<V, const N: usize>(
    map: &'static HashMap<u32, V, N, NO_PREALLOC>,
    key: u32,
) -> Option<&'static V> {
    // SAFETY: only the daemon writes the map, and it replaces whole elements. With `NO_PREALLOC` in the map's
    // type, the element outlives this run of the program, and the program cannot keep a reference for its
    // next run.
    unsafe { map.get(key) }
}

/// Changes this CPU's value at `index`; if the map has no such slot, it does nothing and returns `None`.
#[inline(always)]
pub fn change_own<T, R, const N: usize>(
    map: &PerCpuArray<T, N>,
    index: u32,
    change: impl FnOnce(&mut T) -> R,
) -> Option<R> {
    let slot = map.get_ptr_mut(index)?;
    // SAFETY: the kernel returned a slot of this map, whose value type is T. XDP programs are neither
    // preempted nor nested on a CPU, so no other program uses this CPU's value at the same time; the daemon
    // only reads it, through a system call that copies.
    Some(change(unsafe { &mut *slot }))
}
