//! What waits to be written to one client: three lanes of whole frames, bounded, dropped from the head, and
//! the news that it is owed.
//!
//! A payload is copied once, behind its new header, into the receiver's lane; the receiver's task takes what
//! its socket is likely to take, and seals it into full records. What is not taken stays in its lane: there
//! it can be overtaken, and dropped by the rules. Senders never wait: a full lane loses its oldest frames,
//! and says so. Every payload is copied, long ones too: up to 64 KiB, an allocation of its own costs as much
//! as the copy (`bench mux`).

mod batch;
pub mod budget;
mod chunk;
mod lane;
mod owed;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use futures_util::task::AtomicWaker;
use relay_common::derp::message::PeerGoneReason;
use relay_common::key::NodePublic;

pub use self::batch::Batch;
use self::chunk::CHUNK_BYTES;
pub use self::lane::{Count, MAX_LANE_BYTES, MAX_LANE_FRAMES, MIN_LANE_FRAMES};
use self::lane::{Queue, Room};
use self::owed::{NEWS_BYTES, Owed};

/// Bytes taken at once while the receiver takes all it is given ...
const TAKE_BYTES: usize = CHUNK_BYTES;

/// ... and while it is blocked: one full record, so that little stands before what may overtake.
const TAKE_BYTES_BLOCKED: usize = 16 * 1024;

/// Bytes that a blocked receiver takes without refusing any before it counts as one that takes. Several times
/// what a socket makes room for at once, so that a slow reader never does; and so little that a fast one
/// which was late once does not stay blocked as long as its senders keep it busy.
const UNBLOCK_BYTES: usize = 256 * 1024;

/// The lanes, in the order in which they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// The relay's own frames: Pong, KeepAlive. What is owed goes before them.
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
#[must_use]
pub struct Pushed {
    /// The receiver must be woken: it has not been since it last looked.
    pub wake: bool,
    /// Older frames of the same lane that had to go.
    pub dropped: Count,
    /// Bytes by which the mailbox has grown (or shrunk), for the [`budget::Budget`].
    pub growth: i64,
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
    owed: Owed,
    closed: bool,
    woken: bool,
    /// Bytes to be taken before the receiver, whose socket has refused some, is not blocked any more; 0: it
    /// is not.
    blocked: usize,
}

impl Mailbox {
    /// Appends the frame `head` followed by `body`. `tight`: memory is short, and each lane holds no more
    /// than it must.
    ///
    /// # Errors
    /// The connection has ended; nobody will read the frame.
    pub fn push(&self, lane: Lane, head: &[u8], body: &[u8], tight: bool) -> Result<Pushed, Closed> {
        let mut lanes = self.lock();
        if lanes.closed {
            return Err(Closed);
        }
        let blocked = lanes.blocked > 0;
        let room = Room { few: tight || blocked, exact: blocked };
        let dropped = lanes.queues[lane as usize].push(head, body, room);
        let wake = !std::mem::replace(&mut lanes.woken, true);
        let growth = (head.len() + body.len()) as i64 - dropped.bytes as i64;
        Ok(Pushed { wake, dropped, growth })
    }

    /// Notes that the receiver has to hear that `key` is gone; it will, once, however long that takes.
    ///
    /// # Errors
    /// The connection has ended; it needs no telling.
    pub fn owe_gone(&self, key: NodePublic, reason: PeerGoneReason) -> Result<Pushed, Closed> {
        let mut lanes = self.lock();
        if lanes.closed {
            return Err(Closed);
        }
        let growth = if lanes.owed.gone(key, reason) { NEWS_BYTES as i64 } else { 0 };
        let wake = !std::mem::replace(&mut lanes.woken, true);
        Ok(Pushed { wake, dropped: Count::default(), growth })
    }

    /// Takes what the socket is likely to take now; from now on a push asks to wake the receiver again, so it
    /// has to go on taking until there is nothing.
    pub fn take(&self) -> Batch {
        let mut lanes = self.lock();
        lanes.woken = false;
        let room = if lanes.blocked > 0 { TAKE_BYTES_BLOCKED } else { TAKE_BYTES };
        let batch = lanes.take(room);
        lanes.blocked = if batch.is_empty() { 0 } else { lanes.blocked.saturating_sub(batch.bytes()) };
        batch
    }

    /// The socket has refused bytes: until the mailbox has been found empty, or much has been taken without
    /// another refusal, each lane holds what derper would hold, in no more than twice the memory. (Before, it
    /// is in buffers made for the usual case, that it is taken at once.)
    pub fn settle(&self) {
        let mut lanes = self.lock();
        if std::mem::replace(&mut lanes.blocked, UNBLOCK_BYTES) == 0 {
            lanes.queues.iter_mut().for_each(Queue::settle);
        }
    }

    /// Refuses further frames; returns what was left.
    pub fn close(&self) -> Batch {
        let mut lanes = self.lock();
        lanes.closed = true;
        let mut left = Batch::new();
        while let Some(chunk) = lanes.owed.take() {
            left.add_owed(chunk);
        }
        let [control, disco, data] = &mut lanes.queues;
        for (lane, queue) in [(Lane::Control, control), (Lane::Disco, disco), (Lane::Data, data)] {
            left.add(lane, queue, usize::MAX);
        }
        left
    }

    /// Frames and bytes that wait, over all lanes, and news that is owed.
    pub fn depth(&self) -> Count {
        let lanes = self.lock();
        let news = lanes.owed.len();
        let waiting =
            lanes.queues.iter().fold((0, 0), |(f, b), queue| (f + queue.frames(), b + queue.bytes()));
        Count { frames: waiting.0 + news, bytes: waiting.1 + news * NEWS_BYTES }
    }

    /// Bytes of memory that hold the frames that wait.
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

impl Lanes {
    fn take(&mut self, room: usize) -> Batch {
        let mut batch = Batch::new();
        if let Some(news) = self.owed.take() {
            batch.add_owed(news);
        }
        let [control, disco, data] = &mut self.queues;
        batch.add(Lane::Control, control, room);
        // A key whose going is still to be told may be back: its packets must not come first.
        if self.owed.len() == 0 {
            batch.add(Lane::Disco, disco, room);
            batch.add(Lane::Data, data, room);
        }
        if self.owed.len() > 0 || self.queues.iter().any(|queue| queue.frames() > 0) {
            batch.set_followed();
        }
        batch
    }
}

#[cfg(test)]
mod tests;
