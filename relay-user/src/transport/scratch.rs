//! Memory that a worker lends to the connection that is reading or writing, so that no connection has its
//! own.

use std::cell::RefCell;
use std::thread::LocalKey;

/// Bytes of a worker's receive scratch.
pub const SCRATCH_BYTES: usize = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static SEAL: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static GATHER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Lends the worker's receive scratch, at least [`SCRATCH_BYTES`] long, to one read.
pub fn for_reading<T>(f: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    lend(&SCRATCH, |scratch| {
        scratch.resize(SCRATCH_BYTES.max(scratch.len()), 0);
        f(scratch)
    })
}

/// Lends the worker's seal buffer. It is as long as its longest use so far; its contents are unspecified.
pub fn for_sealing<T>(f: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    lend(&SEAL, f)
}

/// Lends the worker's buffer for runs that are joined before they are sealed; its contents are unspecified.
pub fn for_gathering<T>(f: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    lend(&GATHER, f)
}

fn lend<T>(kept: &'static LocalKey<RefCell<Vec<u8>>>, f: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    let mut buffer = kept.with_borrow_mut(std::mem::take);
    let result = f(&mut buffer);
    kept.with_borrow_mut(|kept| *kept = buffer);
    result
}
