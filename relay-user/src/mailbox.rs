//! What waits to be written to one client. A mailbox has three bounded lanes of whole frames; a full lane
//! drops its oldest frames. The mailbox also holds the news that the client is owed.
//!
//! A payload is copied once, behind its new header, into the receiver's lane. The receiver's task takes as
//! much as its socket is likely to take and seals it into full records. The rest stays in its lane: there
//! other lanes can overtake it, and a full lane can drop it. Senders never wait: a full lane loses its oldest
//! frames and reports how many. Long payloads are copied too: up to 64 KiB, a separate allocation costs as
//! much as the copy (`bench mux`).

mod batch;
pub mod budget;
mod buffers;
mod chunk;
mod lane;
mod owed;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use futures_util::task::AtomicWaker;
use relay_common::key::NodePublic;

pub use self::batch::Batch;
use self::chunk::{CHUNK_BYTES, Chunk};
pub use self::lane::{
    Count, LINK_LANE_BYTES, LINK_LANE_FRAMES, MAX_LANE_BYTES, MAX_LANE_FRAMES, MIN_LANE_FRAMES,
};
use self::lane::{Queue, Room};
use self::owed::Owed;
pub use self::owed::{News, Presence};

/// Bytes taken at once while the receiver is not blocked.
const TAKE_BYTES: usize = CHUNK_BYTES;

/// Bytes taken at once while the receiver is blocked: one full record, so that a frame that may overtake
/// waits for few others.
const TAKE_BYTES_BLOCKED: usize = 16 * 1024;

/// Bytes that a blocked receiver must take without a refusal before it no longer counts as blocked. This is
/// several times the room that a socket makes at once, so a slow reader never reaches it. It is small enough
/// that a fast reader which was late once does not stay blocked while its senders keep it busy.
const UNBLOCK_BYTES: usize = 256 * 1024;

/// The lanes, in the order in which they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// The relay's own frames: Pong, KeepAlive. Owed news is written before them.
    Control = 0,
    /// Disco packets: they find better paths, so bulk data must not push them out.
    Disco = 1,
    /// All other packets.
    Data = 2,
}

/// Number of lanes of a mailbox.
pub const LANES: usize = 3;

/// Result of pushing a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Pushed {
    /// The receiver must be woken: nobody has woken it since its last take.
    pub wake: bool,
    /// Older frames of the same lane that were dropped.
    pub dropped: Count,
    /// Bytes by which the mailbox has grown (negative: shrunk), for the [`budget::Budget`].
    pub growth: i64,
}

/// The receiver's connection has ended.
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
    // Boxed: most receivers are owed nothing.
    owed: Option<Box<Owed>>,
    closed: bool,
    woken: bool,
    /// The receiver is a link to another relay.
    link: bool,
    /// Bytes that the receiver must still take before it no longer counts as blocked; 0: it is not blocked.
    blocked: usize,
}

impl Mailbox {
    /// A mailbox for a link to another relay, whose lanes hold more.
    pub fn for_link() -> Self {
        let lanes = Lanes { link: true, ..Lanes::default() };
        Self { lanes: Mutex::new(lanes), ..Self::default() }
    }

    /// Appends the frame `head` followed by `body`. `tight`: memory is short, and each lane holds only its
    /// minimum.
    ///
    /// # Errors
    /// The connection has ended; nobody will read the frame.
    pub fn push(&self, lane: Lane, head: &[u8], body: &[u8], tight: bool) -> Result<Pushed, Closed> {
        let mut lanes = self.lock();
        if lanes.closed {
            return Err(Closed);
        }
        let blocked = lanes.blocked > 0;
        let room = Room { few: tight || (blocked && !lanes.link), link: lanes.link, exact: blocked };
        let dropped = lanes.queues[lane as usize].push(head, body, room);
        let wake = !std::mem::replace(&mut lanes.woken, true);
        let growth = (head.len() + body.len()) as i64 - dropped.bytes as i64;
        Ok(Pushed { wake, dropped, growth })
    }

    /// Notes that the receiver must be told this about `key`, in place of news about it that it has not been
    /// told yet. It is told once, however long that takes.
    ///
    /// # Errors
    /// The connection has ended; the receiver needs no news.
    pub fn owe(&self, key: NodePublic, news: News) -> Result<Pushed, Closed> {
        let mut lanes = self.lock();
        if lanes.closed {
            return Err(Closed);
        }
        let growth = lanes.owed.get_or_insert_default().add(key, news);
        let wake = !std::mem::replace(&mut lanes.woken, true);
        Ok(Pushed { wake, dropped: Count::default(), growth })
    }

    /// Takes what the socket is likely to take now. The next push asks to wake the receiver again, so the
    /// receiver must go on taking until the mailbox is empty.
    pub fn take(&self) -> Batch {
        let mut lanes = self.lock();
        lanes.woken = false;
        let room = if lanes.blocked > 0 { TAKE_BYTES_BLOCKED } else { TAKE_BYTES };
        let batch = lanes.take(room);
        lanes.blocked = if batch.is_empty() { 0 } else { lanes.blocked.saturating_sub(batch.bytes()) };
        batch
    }

    /// Call this when the socket has refused bytes. Until the mailbox is found empty, or `UNBLOCK_BYTES`
    /// have been taken without another refusal, each lane holds what derper would hold, in at most twice that
    /// memory. (An unblocked lane uses buffers made for the usual case: its frames are taken at once.)
    pub fn settle(&self) {
        let mut lanes = self.lock();
        if std::mem::replace(&mut lanes.blocked, UNBLOCK_BYTES) == 0 {
            lanes.queues.iter_mut().for_each(Queue::settle);
        }
    }

    /// Refuses further frames; returns the frames that were left.
    pub fn close(&self) -> Batch {
        let mut lanes = self.lock();
        lanes.closed = true;
        let mut left = Batch::new(lanes.link);
        while let Some(chunk) = lanes.take_owed() {
            left.add_owed(chunk);
        }
        let [control, disco, data] = &mut lanes.queues;
        for (lane, queue) in [(Lane::Control, control), (Lane::Disco, disco), (Lane::Data, data)] {
            left.add(lane, queue, usize::MAX);
        }
        left
    }

    /// Frames and bytes that wait in all lanes, including owed news.
    pub fn depth(&self) -> Count {
        let lanes = self.lock();
        let news = lanes.owed.as_ref();
        let news = news.map_or_else(Count::default, |owed| Count { frames: owed.len(), bytes: owed.bytes() });
        let waiting =
            lanes.queues.iter().fold((0, 0), |(f, b), queue| (f + queue.frames(), b + queue.bytes()));
        Count { frames: waiting.0 + news.frames, bytes: waiting.1 + news.bytes }
    }

    /// Bytes of memory that hold the waiting frames.
    pub fn held_bytes(&self) -> usize {
        self.lock().queues.iter().map(Queue::held_bytes).sum()
    }

    /// Sets the task that takes from this mailbox.
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
    /// Some of the news.
    fn take_owed(&mut self) -> Option<Chunk> {
        let chunk = self.owed.as_mut()?.take();
        self.owed.take_if(|owed| owed.len() == 0);
        chunk
    }

    fn take(&mut self, room: usize) -> Batch {
        let mut batch = Batch::new(self.link);
        if let Some(news) = self.take_owed() {
            batch.add_owed(news);
        }
        let [control, disco, data] = &mut self.queues;
        batch.add(Lane::Control, control, room);
        // Owed news may be about a key that has come back: that key's packets must not be written before the
        // news.
        if self.owed.is_none() {
            batch.add(Lane::Disco, disco, room);
            batch.add(Lane::Data, data, room);
        }
        if self.owed.is_some() || self.queues.iter().any(|queue| queue.frames() > 0) {
            batch.set_followed();
        }
        batch
    }
}

#[cfg(test)]
mod tests;
