//! Access to map values: only this module turns the kernel's pointers into references.
//!
//! Slots of arrays are never freed, so only other writers matter: a per-CPU slot belongs to the running
//! program; a slot that others write too is only accessed as [`Words`]. An element of a hash map may even
//! become another key's element while a program reads it, so it is copied word by word too, and the copy is
//! compared with what was looked up.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    btf_maps::{Array, HashMap, PerCpuArray},
};
use bytemuck::Pod;

/// Flag of a hash map whose elements are allocated one by one: the memory grows with the sessions that there
/// are, not with those that there may be.
///
/// It does not protect a reader. Removed elements go to a list of the CPU's and are used again at once, with
/// this flag and without it.
pub const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;

/// Flag of an array that the daemon maps into its memory.
pub const MAPPABLE: usize = BPF_F_MMAPABLE as usize;

/// The element under `key` of a map whose elements the kernel may use again meanwhile.
#[inline(always)]
pub fn find<V: Pod, const WORDS: usize, const N: usize, const FLAGS: usize>(
    map: &'static HashMap<u32, V, N, FLAGS>,
    key: u32,
) -> Option<Words<WORDS>> {
    const { assert!(size_of::<V>() == size_of::<[u64; WORDS]>()) };
    Some(Words(map.get_ptr_mut(key)?.cast()))
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

/// A slot that others write too, as words of eight bytes: each is read and written whole, without any order
/// between them.
pub struct Words<const WORDS: usize>(*mut [u64; WORDS]);

/// The slot at `index` as its words; `None` if the map has no such slot.
#[inline(always)]
pub fn words<T: Pod, const WORDS: usize, const N: usize, const FLAGS: usize>(
    map: &Array<T, N, FLAGS>,
    index: u32,
) -> Option<Words<WORDS>> {
    const { assert!(size_of::<T>() == size_of::<[u64; WORDS]>()) };
    Some(Words(map.get_ptr_mut(index)?.cast()))
}

impl<const WORDS: usize> Words<WORDS> {
    /// Part `number` of a slot that consists of parts of `PART` words; `None` if it has no such part.
    #[inline(always)]
    pub fn part<const PART: usize>(&self, number: usize) -> Option<Words<PART>> {
        if number >= WORDS / PART {
            return None;
        }
        // SAFETY: as in `get`: the part lies within the slot.
        Some(Words(unsafe { self.0.cast::<u64>().add(number * PART) }.cast()))
    }

    /// A copy of all words, read one after the other in their order; `before` is called with the number of
    /// each.
    #[inline(always)]
    pub fn copy(&self, before: impl Fn(usize)) -> [u64; WORDS] {
        let mut copy = [0; WORDS];
        for (at, word) in copy.iter_mut().enumerate() {
            before(at);
            // SAFETY: as in `get`: there are as many words in the slot as in the copy.
            *word = unsafe { self.0.cast::<u64>().add(at).read_volatile() };
        }
        copy
    }

    /// The word at `AT`.
    #[inline(always)]
    pub fn get<const AT: usize>(&self) -> u64 {
        const { assert!(AT < WORDS) };
        // SAFETY: `words` or `find` got the slot from the kernel: it stays a slot of the map until the
        // program returns, is aligned to eight bytes, and has `WORDS` words, of which this is one; any bits
        // are a `u64`. Others may write it meanwhile: the slot is no memory of Rust's, and a volatile access
        // to a word is one instruction. (Relaxed atomics would say the same, but LLVM's BPF back end cannot
        // compile an atomic load.)
        unsafe { self.0.cast::<u64>().add(AT).read_volatile() }
    }

    /// Sets the word at `AT`.
    #[inline(always)]
    pub fn set<const AT: usize>(&self, word: u64) {
        const { assert!(AT < WORDS) };
        // SAFETY: as in `get`; the map is not read-only, as it gave a pointer for writing.
        unsafe { self.0.cast::<u64>().add(AT).write_volatile(word) }
    }

    /// Sets all words, one after the other in their order.
    #[inline(always)]
    pub fn set_all(&self, words: [u64; WORDS]) {
        for (at, word) in words.into_iter().enumerate() {
            // SAFETY: as in `set`: there are as many words in the slot as are given.
            unsafe { self.0.cast::<u64>().add(at).write_volatile(word) }
        }
    }

    /// Adds to the word at `AT`; returns what it was before. If two CPUs add to one word at once, one
    /// addition may be lost; that costs less than a locked one for each packet.
    #[inline(always)]
    pub fn add<const AT: usize>(&self, more: u64) -> u64 {
        let before = self.get::<AT>();
        self.set::<AT>(before.wrapping_add(more));
        before
    }
}

/// A copy of a slot of two words. They may be of two writes; each is one that was written.
#[inline(always)]
pub fn read<T: Pod, const N: usize>(map: &Array<T, N>, index: u32) -> Option<T> {
    let words = words::<T, 2, N, 0>(map, index)?;
    Some(bytemuck::must_cast([words.get::<0>(), words.get::<1>()]))
}
