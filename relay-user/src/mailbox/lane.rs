//! One lane: whole frames in chunks, oldest first. Waiting frames are never moved to make room for more.

use std::collections::VecDeque;

use super::buffers::NEW_CAPACITY;
use super::chunk::Chunk;

/// Frames that a lane always holds, whatever their size. This is the length of derper's queue, on which stock
/// clients and probes rely.
pub const MIN_LANE_FRAMES: usize = 32;

/// Frames that a lane holds at most while its receiver is not blocked.
pub const MAX_LANE_FRAMES: usize = 256;

/// Bytes that a lane holds at most while its receiver is not blocked, frame headers included. It always holds
/// [`MIN_LANE_FRAMES`] frames, even if they are longer.
pub const MAX_LANE_BYTES: usize = 512 * 1024;

/// Frames and bytes that a lane of a link to another relay holds at most, whether its relay takes them or
/// not: the packets of many clients wait in it.
pub const LINK_LANE_FRAMES: usize = 4096;
/// See [`LINK_LANE_FRAMES`].
pub const LINK_LANE_BYTES: usize = 4 * 1024 * 1024;

/// Chunks that an empty lane keeps room for.
const KEPT_ROOM: usize = 8;

/// How much a lane may hold, and in which buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// The lane holds at most [`MIN_LANE_FRAMES`] frames.
    pub(super) few: bool,
    /// The lane is that of a link.
    pub(super) link: bool,
    /// A frame pushed now may wait long: it gets a buffer of exactly its size.
    pub(super) exact: bool,
}

/// A number of frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Number of frames.
    pub frames: usize,
    /// Their bytes, frame headers included.
    pub bytes: usize,
}

/// The frames of one lane.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Chunks before `tail`. Most lanes never have any, and are small.
    #[expect(
        clippy::box_collection,
        reason = "three lanes for each client: a pointer is a quarter of a deque"
    )]
    full: Option<Box<VecDeque<Chunk>>>,
    tail: Chunk,
    frames: u32,
    bytes: u32,
}

impl Queue {
    /// Appends a frame; drops the oldest frames if there is no room. Returns the dropped frames.
    pub(super) fn push(&mut self, head: &[u8], body: &[u8], room: Room) -> Count {
        let len = head.len() + body.len();
        let mut dropped = Count::default();
        while self.is_full_for(len, room) {
            dropped.bytes += self.drop_first(room.exact);
            dropped.frames += 1;
        }
        if room.exact || len > NEW_CAPACITY {
            self.append(Chunk::exact(head, body));
        } else if self.tail.held_bytes() == 0 || !self.tail.try_push(head, body) {
            let mut chunk = Chunk::pooled();
            chunk.try_push(head, body);
            self.append(chunk);
        }
        self.frames += 1;
        self.bytes += len as u32;
        dropped
    }

    /// Takes whole chunks from the head into `into`, as long as they fit into `room` bytes. With
    /// `at_least_one`, takes the first chunk even if it does not fit: a frame may be longer than any room.
    pub(super) fn take(&mut self, room: usize, at_least_one: bool, into: &mut Vec<Chunk>) -> Count {
        let mut taken = Count::default();
        while let Some(first) = self.first()
            && (taken.bytes + first.bytes() <= room || (at_least_one && taken.frames == 0))
        {
            let chunk = self.pop();
            taken.frames += chunk.frames();
            taken.bytes += chunk.bytes();
            into.push(chunk);
        }
        self.frames -= taken.frames as u32;
        self.bytes -= taken.bytes as u32;
        if self.frames == 0 && self.full.as_ref().is_some_and(|full| full.capacity() > KEPT_ROOM) {
            self.full = None;
        }
        taken
    }

    pub(super) fn frames(&self) -> usize {
        self.frames as usize
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes as usize
    }

    /// Bytes of memory that hold the frames.
    pub(super) fn held_bytes(&self) -> usize {
        let full = self.full.iter().flat_map(|full| full.iter());
        full.chain([&self.tail]).map(Chunk::held_bytes).sum()
    }

    /// Cuts the buffers to the size of their frames.
    pub(super) fn settle(&mut self) {
        let full = self.full.iter_mut().flat_map(|full| full.iter_mut());
        full.chain([&mut self.tail]).for_each(Chunk::fit);
    }

    fn is_full_for(&self, len: usize, room: Room) -> bool {
        let frames = self.frames();
        let (most_frames, most_bytes) = match room.link {
            true => (LINK_LANE_FRAMES, LINK_LANE_BYTES),
            false => (MAX_LANE_FRAMES, MAX_LANE_BYTES),
        };
        frames >= MIN_LANE_FRAMES && (room.few || frames >= most_frames || self.bytes() + len > most_bytes)
    }

    fn append(&mut self, chunk: Chunk) {
        let before = std::mem::replace(&mut self.tail, chunk);
        if before.frames() > 0 {
            self.full.get_or_insert_default().push_back(before);
        }
    }

    fn first(&self) -> Option<&Chunk> {
        let full = self.full.as_ref().and_then(|full| full.front());
        full.or_else(|| Some(&self.tail).filter(|tail| tail.frames() > 0))
    }

    fn pop(&mut self) -> Chunk {
        let full = self.full.as_mut().and_then(|full| full.pop_front());
        full.unwrap_or_else(|| std::mem::take(&mut self.tail))
    }

    /// Drops the oldest frame; returns its length. The lane must not be empty.
    fn drop_first(&mut self, exact: bool) -> usize {
        let first = self.full.as_mut().and_then(|full| full.front_mut());
        let first = match first {
            Some(first) => first,
            None => &mut self.tail,
        };
        let len = first.drop_first();
        if first.frames() == 0 {
            drop(self.pop());
        } else if exact {
            first.fit();
        }
        self.frames -= 1;
        self.bytes -= len as u32;
        len
    }
}
