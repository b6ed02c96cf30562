//! A BPF array in the daemon's own memory: read and written without a system call.
//!
//! The kernel promises that a mapped array stays at its place as long as it is mapped, and lays its elements
//! out one behind the other. Programs and the daemon access it at the same time, so it is only seen as words
//! that are read and written whole; an order between them is up to the reader and the writer.
#![expect(unsafe_code, reason = "maps memory that the kernel and its programs write too")]

use std::{
    ffi::c_void,
    fmt, io,
    num::NonZeroUsize,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use aya::maps::MapData;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// Bytes of a word.
const WORD: usize = size_of::<AtomicU64>();

/// All elements of an array, each as `WORDS` words.
pub(super) struct MappedArray<const WORDS: usize> {
    start: NonNull<[AtomicU64; WORDS]>,
    elements: usize,
    /// Mapped bytes; whole pages.
    bytes: NonZeroUsize,
}

// SAFETY: the memory belongs to the process, not to the thread that mapped it, and is only accessed through
// atomics.
unsafe impl<const WORDS: usize> Send for MappedArray<WORDS> {}
// SAFETY: as above.
unsafe impl<const WORDS: usize> Sync for MappedArray<WORDS> {}

impl<const WORDS: usize> MappedArray<WORDS> {
    /// Maps an array, which was made with `BPF_F_MMAPABLE`.
    ///
    /// # Errors
    /// The elements have another size, or the kernel refuses.
    pub(super) fn new(map: &MapData) -> io::Result<Self> {
        let info = map.info().map_err(io::Error::other)?;
        if info.value_size() as usize != WORDS * WORD {
            let found = info.value_size();
            return Err(io::Error::other(format!("its values have {found} bytes, not {}", WORDS * WORD)));
        }
        let elements = info.max_entries() as usize;
        let bytes = pages(elements * WORDS * WORD)?;
        let (read_write, shared) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED);
        // SAFETY: a new mapping at a place of the kernel's choice touches no memory of this process.
        let start = unsafe { mmap(None, bytes, read_write, shared, map.fd(), 0) }?;
        Ok(Self { start: start.cast(), elements, bytes })
    }

    /// Zeroed memory of the same form, for tests without a kernel's map.
    #[cfg(test)]
    pub(super) fn in_memory(elements: usize) -> Self {
        let bytes = pages(elements * WORDS * WORD).expect("a few pages");
        let (read_write, own) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_PRIVATE);
        // SAFETY: as in `new`.
        let start = unsafe { nix::sys::mman::mmap_anonymous(None, bytes, read_write, own) }.expect("mapped");
        Self { start: start.cast(), elements, bytes }
    }

    /// How many elements there are.
    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.elements).unwrap_or(u32::MAX)
    }

    /// The words of the element at `index`; `None` if there is none.
    pub(super) fn element(&self, index: u32) -> Option<&[AtomicU64; WORDS]> {
        let index = usize::try_from(index).ok().filter(|index| *index < self.elements)?;
        // SAFETY: the element lies within the mapping.
        let element = unsafe { self.start.add(index) };
        // SAFETY: the mapping lives as long as `self`; it begins on a page and so is aligned; any bits are
        // words, and nobody accesses them but as whole words: the program by instructions of eight bytes, the
        // daemon by atomics.
        Some(unsafe { element.as_ref() })
    }

    /// A copy of the element at `index`: each word is one that was written, and they may be of two writes.
    pub(super) fn read(&self, index: u32) -> Option<[u64; WORDS]> {
        self.element(index).map(|words| words.each_ref().map(|word| word.load(Ordering::Relaxed)))
    }
}

impl<const WORDS: usize> Drop for MappedArray<WORDS> {
    fn drop(&mut self) {
        // SAFETY: `new` mapped these bytes, and no reference to them outlives `self`.
        let unmapped = unsafe { munmap(self.start.cast::<c_void>(), self.bytes.get()) };
        if let Err(error) = unmapped {
            tracing::warn!(%error, "a BPF map stays mapped");
        }
    }
}

impl<const WORDS: usize> fmt::Debug for MappedArray<WORDS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MappedArray").field("elements", &self.elements).finish_non_exhaustive()
    }
}

/// `bytes` rounded up to whole pages.
fn pages(bytes: usize) -> io::Result<NonZeroUsize> {
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)?.unwrap_or(4096);
    let page = usize::try_from(page).map_err(io::Error::other)?;
    NonZeroUsize::new(bytes.next_multiple_of(page)).ok_or_else(|| io::Error::other("it has no elements"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_apart_and_none_lies_beyond_the_last() {
        let array = MappedArray::<4>::in_memory(300);
        assert_eq!(array.len(), 300);
        for index in 0..300 {
            let element = array.element(index).expect("it is there");
            assert_eq!(element.as_ptr().align_offset(WORD), 0);
            element.iter().for_each(|word| word.store(u64::from(index) + 1, Ordering::Relaxed));
        }
        for index in 0..300 {
            assert_eq!(array.read(index), Some([u64::from(index) + 1; 4]));
        }
        assert_eq!(array.read(300), None);
        assert_eq!(array.read(u32::MAX), None);
    }
}
