//! Buffers that a worker's connections share, so that busy ones need no allocator and idle ones hold no
//! memory.

use std::cell::RefCell;
use std::sync::{Mutex, PoisonError};
use std::thread::LocalKey;

use relay_common::derp::deframer::Carries;

/// Buffers that change hands at once between a worker and the depot, so that its lock is taken rarely; new
/// ones are made by as many, so that a rare peak of buffers in use finds some.
const HANDFUL: usize = 8;

/// Bytes in the depot at most: 512 new buffers.
const MAX_DEPOT_BYTES: usize = 16 * 1024 * 1024;

/// Bytes of a new buffer: two full TLS records, and a few packets of any usual size.
pub const NEW_CAPACITY: usize = 32 * 1024;

/// A larger buffer goes back to the allocator: one burst must not fix a worker's memory for good. The longest
/// frame fits.
const MAX_CAPACITY: usize = 128 * 1024;

/// Fitting buffers come in powers of two, from this size ...
const MIN_FITTING: usize = 2 * 1024;

/// ... in so many sizes, the largest for a whole frame of 64 KiB with its keys.
const FITTING: usize = 7;

/// Fitting buffers of one size that a worker keeps at most.
const MAX_FITTING: usize = 16;

/// Bytes of a worker's receive scratch.
pub const SCRATCH_BYTES: usize = 64 * 1024;

thread_local! {
    static BUFFERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static SIZES: RefCell<[Vec<Vec<u8>>; FITTING]> = const { RefCell::new([const { Vec::new() }; FITTING]) };
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static SEAL: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static GATHER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What one worker has too many of: a mailbox is filled by its senders' workers and emptied by its own, so
/// that buffers would run dry on one side and pile up on the other.
static DEPOT: Mutex<Depot> = Mutex::new(Depot { buffers: Vec::new(), bytes: 0 });

struct Depot {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

impl Depot {
    fn take(&mut self) -> Option<Vec<u8>> {
        let buffer = self.buffers.pop()?;
        self.bytes -= buffer.capacity();
        Some(buffer)
    }

    /// A full depot means that nobody wants them.
    fn put(&mut self, buffer: Vec<u8>) {
        if self.bytes + buffer.capacity() <= MAX_DEPOT_BYTES {
            self.bytes += buffer.capacity();
            self.buffers.push(buffer);
        }
    }
}

/// An empty buffer for what is about to be taken and sent on: [`NEW_CAPACITY`], or more if its last user made
/// it so.
pub fn take() -> Vec<u8> {
    BUFFERS.with_borrow_mut(|buffers| {
        if buffers.is_empty() {
            buffers.reserve_exact(2 * HANDFUL);
            let mut depot = DEPOT.lock().unwrap_or_else(PoisonError::into_inner);
            buffers.extend((0..HANDFUL).map_while(|_| depot.take()));
        }
        if buffers.is_empty() {
            buffers.extend((0..HANDFUL).map(|_| Vec::with_capacity(NEW_CAPACITY)));
        }
        buffers.pop().unwrap_or_default()
    })
}

/// Gives a buffer back.
pub fn put(mut buffer: Vec<u8>) {
    if !(NEW_CAPACITY..=MAX_CAPACITY).contains(&buffer.capacity()) {
        return;
    }
    buffer.clear();
    BUFFERS.with_borrow_mut(|buffers| {
        if buffers.len() >= 2 * HANDFUL {
            let mut depot = DEPOT.lock().unwrap_or_else(PoisonError::into_inner);
            buffers.drain(..HANDFUL).for_each(|buffer| depot.put(buffer));
        }
        buffers.reserve_exact((2 * HANDFUL).saturating_sub(buffers.len()));
        buffers.push(buffer);
    });
}

/// An empty buffer for `bytes`, of at most twice that capacity (and at least [`MIN_FITTING`]): for what may
/// be held long, such as half a frame whose other half does not come.
pub fn take_fitting(bytes: usize) -> Vec<u8> {
    let capacity = bytes.max(MIN_FITTING).next_power_of_two();
    let size = (capacity / MIN_FITTING).ilog2() as usize;
    let kept = SIZES.with_borrow_mut(|sizes| sizes.get_mut(size).and_then(Vec::pop));
    kept.unwrap_or_else(|| Vec::with_capacity(capacity))
}

/// Gives a fitting buffer back.
pub fn put_fitting(mut buffer: Vec<u8>) {
    let Some(size) = (buffer.capacity() / MIN_FITTING).checked_ilog2() else { return };
    buffer.clear();
    SIZES.with_borrow_mut(|sizes| {
        if let Some(size) = sizes.get_mut(size as usize)
            && size.len() < MAX_FITTING
        {
            size.reserve_exact(MAX_FITTING - size.len());
            size.push(buffer);
        }
    });
}

/// Frames that straddle reads are put together in fitting buffers.
#[derive(Clone, Copy, Debug)]
pub struct Fitting;

impl Carries for Fitting {
    fn take(&mut self, at_least: usize, _at_most: usize) -> Vec<u8> {
        take_fitting(at_least)
    }

    fn put(&mut self, buffer: Vec<u8>) {
        put_fitting(buffer);
    }
}

/// Lends the worker's receive scratch, [`SCRATCH_BYTES`] long, to one read.
pub fn with_scratch<T>(f: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    lend(&SCRATCH, |scratch| {
        scratch.resize(SCRATCH_BYTES.max(scratch.len()), 0);
        f(scratch)
    })
}

/// Lends the worker's seal buffer: as long as its longest use so far, contents unspecified.
pub fn with_seal<T>(f: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    lend(&SEAL, f)
}

/// Lends the worker's buffer for runs that are put together before they are sealed; contents unspecified.
pub fn with_gather<T>(f: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    lend(&GATHER, f)
}

fn lend<T>(kept: &'static LocalKey<RefCell<Vec<u8>>>, f: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    let mut buffer = kept.with_borrow_mut(std::mem::take);
    let result = f(&mut buffer);
    kept.with_borrow_mut(|kept| *kept = buffer);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fitting_buffer_is_never_more_than_twice_what_was_asked_for() {
        for bytes in [0, 1, 2047, 2048, 2049, 40_000, 65_573, 131_072, 131_073, 1 << 20] {
            for _ in 0..2 {
                let buffer = take_fitting(bytes);
                assert!((bytes..=(2 * bytes).max(MIN_FITTING)).contains(&buffer.capacity()), "{bytes}");
                put_fitting(buffer);
            }
        }
    }

    #[test]
    fn a_depot_hands_on_what_it_is_given_until_it_is_full() {
        let mut depot = Depot { buffers: Vec::new(), bytes: 0 };
        let most = MAX_DEPOT_BYTES / NEW_CAPACITY;
        (0..most + 10).for_each(|_| depot.put(Vec::with_capacity(NEW_CAPACITY)));
        assert_eq!(depot.bytes, MAX_DEPOT_BYTES);
        assert_eq!(std::iter::from_fn(|| depot.take()).count(), most);
        assert_eq!(depot.bytes, 0);
    }

    #[test]
    fn a_worker_that_only_gives_keeps_few_and_the_depot_has_the_rest() {
        let giver = || {
            (0..16 * HANDFUL).for_each(|_| put(Vec::with_capacity(NEW_CAPACITY)));
            BUFFERS.with_borrow(Vec::len)
        };
        let kept = std::thread::spawn(giver).join().expect("no panic");
        assert!(kept <= 2 * HANDFUL, "{kept}");
    }
}
