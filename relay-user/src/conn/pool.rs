//! Buffers that a worker's connections share, so that busy ones need no allocator and idle ones hold no
//! memory.

use std::cell::RefCell;

/// Buffers a worker keeps at most.
const MAX_BUFFERS: usize = 128;

/// A larger buffer goes back to the allocator: one burst must not fix a worker's memory for good.
const MAX_CAPACITY: usize = 128 * 1024;

/// Bytes of a worker's receive scratch.
pub const SCRATCH_BYTES: usize = 64 * 1024;

thread_local! {
    static BUFFERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static SEAL: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer, with whatever capacity its last user left.
pub fn take() -> Vec<u8> {
    BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Gives a buffer back.
pub fn put(mut buffer: Vec<u8>) {
    if buffer.capacity() == 0 || buffer.capacity() > MAX_CAPACITY {
        return;
    }
    BUFFERS.with_borrow_mut(|buffers| {
        if buffers.len() < MAX_BUFFERS {
            buffer.clear();
            buffers.push(buffer);
        }
    });
}

/// Lends the worker's receive scratch, [`SCRATCH_BYTES`] long, to one read.
pub fn with_scratch<T>(f: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    let mut scratch = SCRATCH.with_borrow_mut(std::mem::take);
    scratch.resize(SCRATCH_BYTES.max(scratch.len()), 0);
    let result = f(&mut scratch);
    SCRATCH.with_borrow_mut(|kept| *kept = scratch);
    result
}

/// Lends the worker's seal buffer: as long as its longest use so far, contents unspecified.
pub fn with_seal<T>(f: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    let mut seal = SEAL.with_borrow_mut(std::mem::take);
    let result = f(&mut seal);
    SEAL.with_borrow_mut(|kept| *kept = seal);
    result
}
