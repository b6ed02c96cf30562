//! What waits to be written to one client: three lanes of whole frames, bounded, dropped from the head.
//!
//! A payload is copied once, behind its new header, into the receiver's lane; the receiver's task takes
//! everything at once and seals it into full records. Senders never wait: a full lane loses its oldest
//! frames, and says so. Every payload is copied, long ones too: up to 64 KiB, an allocation of its own costs
//! as much as the copy (`bench mux`).

mod lane;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use futures_util::task::AtomicWaker;

use self::lane::Queue;
pub use self::lane::{Batch, Dropped, MAX_LANE_BYTES, MAX_LANE_FRAMES};

/// The lanes, in the order in which they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// The relay's own frames: PeerGone, Pong, KeepAlive.
    Control = 0,
    /// Disco packets, so that bulk data cannot push out what finds better paths.
    Disco = 1,
    /// Everything else.
    Data = 2,
}

/// Lanes of a mailbox.
pub const LANES: usize = 3;

/// What became of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pushed {
    /// The receiver must be woken: it has not been since it last looked.
    pub wake: bool,
    /// Older frames that had to go.
    pub dropped: Dropped,
}

/// The receiver is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

/// A receiver's mailbox.
#[derive(Debug, Default)]
pub struct Mailbox {
    lanes: Mutex<Lanes>,
    waker: AtomicWaker,
}

#[derive(Debug, Default)]
struct Lanes {
    queues: [Queue; LANES],
    closed: bool,
    woken: bool,
    /// The receiver cannot take for now.
    slow: bool,
}

impl Mailbox {
    /// Appends the frame `head` followed by `body`.
    ///
    /// # Errors
    /// The connection has ended; nobody will read the frame.
    pub fn push(&self, lane: Lane, head: &[u8], body: &[u8]) -> Result<Pushed, Closed> {
        let mut lanes = self.lock();
        if lanes.closed {
            return Err(Closed);
        }
        let slow = lanes.slow;
        let dropped = lanes.queues[lane as usize].push(head, body, slow);
        let wake = !std::mem::replace(&mut lanes.woken, true);
        Ok(Pushed { wake, dropped })
    }

    /// As [`Mailbox::push`], for senders that push one frame only: wakes the receiver at once where it must
    /// be.
    ///
    /// # Errors
    /// As for [`Mailbox::push`].
    pub fn deliver(&self, lane: Lane, frame: &[u8]) -> Result<(), Closed> {
        if self.push(lane, frame, &[])?.wake {
            self.wake();
        }
        Ok(())
    }

    /// Takes all that waits; from now on a push asks to wake the receiver again.
    pub fn take(&self) -> Batch {
        let mut lanes = self.lock();
        lanes.woken = false;
        lanes.slow = false;
        Batch::from_queues(&mut lanes.queues)
    }

    /// The receiver cannot take for now: until it does, what waits for it holds no more than twice its size.
    /// (Before, it is in buffers made for the usual case, that it is taken at once.)
    pub fn settle(&self) {
        let mut lanes = self.lock();
        if !std::mem::replace(&mut lanes.slow, true) {
            lanes.queues.iter_mut().for_each(Queue::settle);
        }
    }

    /// Refuses further frames; returns how many data and disco frames were left.
    pub fn close(&self) -> usize {
        let mut lanes = self.lock();
        lanes.closed = true;
        let left = Batch::from_queues(&mut lanes.queues);
        left.frames(Lane::Disco) + left.frames(Lane::Data)
    }

    /// Frames and bytes that wait, over all lanes.
    pub fn depth(&self) -> (usize, usize) {
        let lanes = self.lock();
        lanes.queues.iter().fold((0, 0), |(f, b), queue| (f + queue.frames(), b + queue.bytes()))
    }

    /// Bytes of memory that hold what waits.
    pub fn held_bytes(&self) -> usize {
        self.lock().queues.iter().map(Queue::held_bytes).sum()
    }

    /// Names the task that takes from this mailbox.
    pub fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Wakes the task that takes from this mailbox.
    pub fn wake(&self) {
        self.waker.wake();
    }

    fn lock(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
