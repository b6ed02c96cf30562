//! One lane: whole frames back to back in one buffer, oldest first.

use relay_common::derp::HEADER_LEN;

use super::LANES;
use crate::conn::pool;

/// Frames a lane holds at most.
pub const MAX_LANE_FRAMES: usize = 256;

/// Bytes a lane holds at most, frame headers included: several of the longest frame.
pub const MAX_LANE_BYTES: usize = 512 * 1024;

/// What was pushed out of a lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// How many frames.
    pub frames: usize,
}

/// The frames of one lane.
#[derive(Debug, Default)]
pub(super) struct Queue {
    buffer: Vec<u8>,
    head: usize,
    frames: usize,
}

impl Queue {
    /// Appends a frame; makes room at the head where there is none. `slow`: it is going to stay.
    pub(super) fn push(&mut self, head: &[u8], body: &[u8], slow: bool) -> Dropped {
        let len = head.len() + body.len();
        let mut dropped = Dropped::default();
        while self.frames >= MAX_LANE_FRAMES || (self.frames > 0 && self.bytes() + len > MAX_LANE_BYTES) {
            self.head += frame_len(&self.buffer[self.head..]);
            self.frames -= 1;
            dropped.frames += 1;
        }
        self.reclaim();
        if slow {
            self.fit(self.bytes() + len);
        } else if self.buffer.capacity() == 0 {
            self.buffer = pool::take();
        }
        self.buffer.reserve(len);
        self.buffer.extend_from_slice(head);
        self.buffer.extend_from_slice(body);
        self.frames += 1;
        dropped
    }

    pub(super) fn frames(&self) -> usize {
        self.frames
    }

    pub(super) fn bytes(&self) -> usize {
        self.buffer.len() - self.head
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    /// Moves what waits out of a buffer that is much too large for it.
    pub(super) fn settle(&mut self) {
        self.fit(self.bytes());
    }

    /// Makes the capacity one to two times `bytes`, and all of it usable.
    fn fit(&mut self, bytes: usize) {
        if (bytes..=2 * bytes).contains(&self.buffer.capacity()) {
            if self.buffer.len() - self.bytes() + bytes > self.buffer.capacity() {
                self.buffer.drain(..self.head);
                self.head = 0;
            }
            return;
        }
        // Half as much again: neither the next frame that comes nor the next that is dropped moves
        // everything.
        let mut fitting = Vec::with_capacity(bytes + bytes / 2);
        fitting.extend_from_slice(&self.buffer[self.head..]);
        pool::put(std::mem::replace(&mut self.buffer, fitting));
        self.head = 0;
    }

    /// Dropped bytes at the front must not outgrow what is still queued: nothing pins more than twice its
    /// size.
    fn reclaim(&mut self) {
        if self.head > self.buffer.len() / 2 {
            self.buffer.drain(..self.head);
            self.head = 0;
        }
    }
}

/// All that waited in a mailbox. Dropping it returns the buffers to the worker's pool.
#[derive(Debug, Default)]
pub struct Batch {
    queues: [Queue; LANES],
}

impl Batch {
    pub(super) fn from_queues(queues: &mut [Queue; LANES]) -> Self {
        Self { queues: std::mem::take(queues) }
    }

    /// Runs of whole frames, in the order in which they are to be written.
    pub fn slices(&self) -> [&[u8]; LANES] {
        self.queues.each_ref().map(|queue| &queue.buffer[queue.head..])
    }

    /// Frames of one lane.
    pub fn frames(&self, lane: super::Lane) -> usize {
        self.queues[lane as usize].frames
    }

    /// Bytes of one lane, frame headers included.
    pub fn bytes(&self, lane: super::Lane) -> usize {
        self.queues[lane as usize].bytes()
    }

    /// Whether nothing waited.
    pub fn is_empty(&self) -> bool {
        self.queues.iter().all(|queue| queue.frames == 0)
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.queues.iter_mut().for_each(|queue| pool::put(std::mem::take(&mut queue.buffer)));
    }
}

/// Length of the frame at the start of `bytes`, header included. Only whole frames are ever queued.
fn frame_len(bytes: &[u8]) -> usize {
    match bytes {
        [_, a, b, c, d, ..] => HEADER_LEN + u32::from_be_bytes([*a, *b, *c, *d]) as usize,
        _ => bytes.len(),
    }
}
