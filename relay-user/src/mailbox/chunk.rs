//! A run of whole frames in one buffer.

use relay_common::derp::HEADER_LEN;

use super::buffers;

/// A chunk takes no further frame beyond this many bytes: the most that is sealed at once.
pub(super) const CHUNK_BYTES: usize = 64 * 1024;

/// Whole frames back to back, oldest first. The frames before `head` have been dropped.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    buffer: Vec<u8>,
    head: u32,
    frames: u32,
}

impl Chunk {
    /// An empty chunk in a pooled buffer, for the usual case: its frames are taken soon.
    pub(super) fn pooled() -> Self {
        Self { buffer: buffers::take(), ..Self::default() }
    }

    /// A chunk that fits one frame exactly, for a frame that may wait long.
    pub(super) fn exact(head: &[u8], body: &[u8]) -> Self {
        let mut buffer = Vec::with_capacity(head.len() + body.len());
        buffer.extend_from_slice(head);
        buffer.extend_from_slice(body);
        Self { buffer, head: 0, frames: 1 }
    }

    /// Appends a frame, if there is room.
    pub(super) fn try_push(&mut self, head: &[u8], body: &[u8]) -> bool {
        let len = self.buffer.len() + head.len() + body.len();
        // A pooled buffer may grow. A buffer that was cut to fit must not: growing moves all its frames.
        let room = self.buffer.capacity().max(if self.is_pooled() { CHUNK_BYTES } else { 0 });
        if len > room && self.frames > 0 {
            return false;
        }
        self.buffer.extend_from_slice(head);
        self.buffer.extend_from_slice(body);
        self.frames += 1;
        true
    }

    /// The frames that wait.
    pub(super) fn as_slice(&self) -> &[u8] {
        &self.buffer[self.head as usize..]
    }

    pub(super) fn frames(&self) -> usize {
        self.frames as usize
    }

    pub(super) fn bytes(&self) -> usize {
        self.buffer.len() - self.head as usize
    }

    /// Bytes of memory that the chunk occupies.
    pub(super) fn held_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    /// Drops the oldest frame; returns its length. The chunk must not be empty.
    pub(super) fn drop_first(&mut self) -> usize {
        let len = frame_len(self.as_slice());
        self.head += len as u32;
        self.frames -= 1;
        if self.frames == 0 {
            self.buffer.clear();
            self.head = 0;
        }
        len
    }

    /// Moves the frames into a buffer of their size if their buffer is more than twice as large.
    pub(super) fn fit(&mut self) {
        if self.held_bytes() > 2 * self.bytes() {
            let fitting = self.as_slice().to_vec();
            buffers::put(std::mem::replace(&mut self.buffer, fitting));
            self.head = 0;
        }
    }

    fn is_pooled(&self) -> bool {
        self.buffer.capacity() >= buffers::NEW_CAPACITY
    }
}

/// Gives the buffer back to [`buffers`].
impl Drop for Chunk {
    fn drop(&mut self) {
        buffers::put(std::mem::take(&mut self.buffer));
    }
}

/// Length of the frame at the start of `bytes`, header included. Only whole frames are ever queued.
pub(super) fn frame_len(bytes: &[u8]) -> usize {
    match bytes {
        [_, a, b, c, d, ..] => HEADER_LEN + u32::from_be_bytes([*a, *b, *c, *d]) as usize,
        _ => bytes.len(),
    }
}
