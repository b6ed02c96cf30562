//! The frames that a receiver takes from its mailbox at once.

use std::cell::Cell;

use relay_common::derp::frame::FrameType;
use relay_common::derp::{HEADER_LEN, KEY_LEN};

use super::chunk::{Chunk, frame_len};
use super::lane::{Count, Queue};
use super::{LANES, Lane};

/// Chunks that a worker's spare list keeps room for.
const KEPT_ROOM: usize = 64;

thread_local! {
    /// The list of the worker's last batch. The next batch reuses it and needs no allocation.
    static SPARE: Cell<Vec<Chunk>> = const { Cell::new(Vec::new()) };
}

/// Frames in the order in which they are to be written. Dropping the batch gives its memory back.
#[derive(Debug, Default)]
pub struct Batch {
    chunks: Vec<Chunk>,
    counts: [Count; LANES],
    followed: bool,
    /// Bytes before each packet's payload, while it waits.
    head: usize,
}

impl Batch {
    /// `link`: the receiver is a link to another relay, whose packets name their destination too.
    pub(super) fn new(link: bool) -> Self {
        let head = if link { HEADER_LEN + 2 * KEY_LEN } else { HEADER_LEN + KEY_LEN };
        Self { chunks: SPARE.take(), counts: Default::default(), followed: false, head }
    }

    /// Notes that the mailbox holds more.
    pub(super) fn set_followed(&mut self) {
        self.followed = true;
    }

    /// Adds a chunk of owed news, before all other frames.
    pub(super) fn add_owed(&mut self, chunk: Chunk) {
        let count = &mut self.counts[Lane::Control as usize];
        count.frames += chunk.frames();
        count.bytes += chunk.bytes();
        self.chunks.push(chunk);
    }

    /// Takes frames from the head of a lane, until the batch holds `room` bytes.
    pub(super) fn add(&mut self, lane: Lane, queue: &mut Queue, room: usize) {
        let left = room.saturating_sub(self.bytes());
        let taken = queue.take(left, self.chunks.is_empty(), &mut self.chunks);
        let count = &mut self.counts[lane as usize];
        count.frames += taken.frames;
        count.bytes += taken.bytes;
    }

    /// Runs of whole frames, in order.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> {
        self.chunks.iter().map(Chunk::as_slice)
    }

    /// Frames and bytes taken from one lane.
    pub fn count(&self, lane: Lane) -> Count {
        self.counts[lane as usize]
    }

    /// Number of packets, disco and data.
    pub fn packets(&self) -> usize {
        self.count(Lane::Disco).frames + self.count(Lane::Data).frames
    }

    /// Payload bytes of the packets.
    pub fn payload_bytes(&self) -> usize {
        let bytes = self.count(Lane::Disco).bytes + self.count(Lane::Data).bytes;
        bytes - self.packets() * self.head
    }

    /// Bytes of all frames.
    pub fn bytes(&self) -> usize {
        self.counts.iter().map(|count| count.bytes).sum()
    }

    /// Whether the next [`super::Mailbox::take`] will find something. If so, the end of this batch can be
    /// sent together with the next one.
    pub fn is_followed(&self) -> bool {
        self.followed
    }

    /// Whether the mailbox was empty.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Every frame: its length with its header and, for a packet, the length of its payload.
    pub fn frames(&self) -> impl Iterator<Item = (usize, Option<usize>)> {
        self.slices().flat_map(move |mut rest| {
            std::iter::from_fn(move || {
                let kind = *rest.first()?;
                let (frame, behind) = rest.split_at(frame_len(rest).min(rest.len()));
                rest = behind;
                let packet = kind == FrameType::RecvPacket as u8 || kind == FrameType::ForwardPacket as u8;
                Some((frame.len(), packet.then(|| frame.len().saturating_sub(self.head))))
            })
        })
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        let mut chunks = std::mem::take(&mut self.chunks);
        chunks.clear();
        chunks.shrink_to(KEPT_ROOM);
        SPARE.set(chunks);
    }
}
