//! Buffers that fit their contents, for bytes that may be held long. A worker's connections share them.

use std::cell::RefCell;

use relay_common::derp::deframer::CarryBuffers;

/// Size of the smallest fitting buffers; sizes are powers of two from here on.
const MIN_FITTING: usize = 2 * 1024;

/// Number of sizes; the largest holds a whole frame of 64 KiB with its keys.
const FITTING: usize = 7;

/// Fitting buffers of one size that a worker keeps at most.
const MAX_FITTING: usize = 16;

thread_local! {
    static SIZES: RefCell<[Vec<Vec<u8>>; FITTING]> = const { RefCell::new([const { Vec::new() }; FITTING]) };
}

/// An empty buffer for `bytes` bytes. Its capacity is at most twice that, and at least `MIN_FITTING`. It is
/// for bytes that may be held long, such as half a frame whose other half does not come.
pub fn take(bytes: usize) -> Vec<u8> {
    let capacity = bytes.max(MIN_FITTING).next_power_of_two();
    let size = (capacity / MIN_FITTING).ilog2() as usize;
    let kept = SIZES.with_borrow_mut(|sizes| sizes.get_mut(size).and_then(Vec::pop));
    kept.unwrap_or_else(|| Vec::with_capacity(capacity))
}

/// Gives a fitting buffer back.
pub fn put(mut buffer: Vec<u8>) {
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

/// Assembles in fitting buffers the frames that several reads bring in parts.
#[derive(Clone, Copy, Debug)]
pub struct Fitting;

impl CarryBuffers for Fitting {
    fn take(&mut self, at_least: usize, _at_most: usize) -> Vec<u8> {
        take(at_least)
    }

    fn put(&mut self, buffer: Vec<u8>) {
        put(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fitting_buffer_is_never_more_than_twice_what_was_asked_for() {
        for bytes in [0, 1, 2047, 2048, 2049, 40_000, 65_573, 131_072, 131_073, 1 << 20] {
            for _ in 0..2 {
                let buffer = take(bytes);
                assert!((bytes..=(2 * bytes).max(MIN_FITTING)).contains(&buffer.capacity()), "{bytes}");
                put(buffer);
            }
        }
    }
}
