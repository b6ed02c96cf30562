//! Buffers for frames that are about to be taken and sent on. A worker's mailboxes share them, so that busy
//! mailboxes need no allocator and idle ones hold no memory.

use std::cell::RefCell;
use std::sync::{Mutex, PoisonError};

/// Buffers that a worker and the depot exchange at once, so that the depot's lock is taken rarely. New
/// buffers are made in the same number, so that a rare peak finds some.
const HANDFUL: usize = 8;

/// Bytes in the depot at most: 256 new buffers.
const MAX_DEPOT_BYTES: usize = 8 * 1024 * 1024;

/// Bytes of a new buffer: two full TLS records, and a few packets of any usual size.
pub(super) const NEW_CAPACITY: usize = 32 * 1024;

/// A larger buffer goes back to the allocator: one burst must not enlarge a worker's memory for good. The
/// longest frame fits.
const MAX_CAPACITY: usize = 128 * 1024;

thread_local! {
    static BUFFERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// The workers' surplus buffers. A mailbox is filled by its senders' workers and emptied by its own worker,
/// so without the depot some workers would run out of buffers and others would collect them.
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

    /// Drops the buffer if the depot is full: then no worker needs it.
    fn put(&mut self, buffer: Vec<u8>) {
        if self.bytes + buffer.capacity() <= MAX_DEPOT_BYTES {
            self.bytes += buffer.capacity();
            self.buffers.push(buffer);
        }
    }
}

/// An empty buffer for frames that are about to be taken and sent on. Its capacity is [`NEW_CAPACITY`], or
/// more if its last user enlarged it.
pub(super) fn take() -> Vec<u8> {
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
pub(super) fn put(mut buffer: Vec<u8>) {
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

#[cfg(test)]
mod tests {
    use super::*;

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
