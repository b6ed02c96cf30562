//! Splits the bytes of a connection into frames as they arrive.
//!
//! A frame that lies completely in one input is delivered without a copy. A frame that spans several inputs
//! is collected in a carry buffer, which is released when the frame is complete, so an idle connection holds
//! no buffer. The carry buffer grows with the bytes that have arrived, not with the length in the header.
//! Skipped frames are never buffered.
//!
//! ```text
//!            5 bytes, legal, wanted           body complete
//!   Header ------------------------> Body ------------------> Header, frame delivered
//!      |      legal, not wanted               body complete
//!      +---------------------------> Skip ------------------> Header
//!      |      not legal
//!      +---------------------------> error: close the connection
//! ```

use super::{
    HEADER_LEN,
    frame::Header,
    limits::{Disposition, FrameError},
};

/// The state between two inputs of one connection.
#[derive(Debug)]
pub struct Deframer {
    state: State,
}

/// Why a push ended early. The caller must close the connection; the rest of the input was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError<E> {
    /// The peer sent a frame it may not send.
    #[error(transparent)]
    Frame(FrameError),
    /// The receiver of the frames returned an error.
    #[error("{0}")]
    Sink(E),
}

/// A source of carry buffers. Callers with many connections keep a pool of them.
pub trait CarryBuffers {
    /// Returns an empty buffer with room for `at_least` bytes; room for more than `at_most` is wasted.
    fn take(&mut self, at_least: usize, at_most: usize) -> Vec<u8>;
    /// Takes back a buffer that is no longer needed; its capacity may be zero.
    fn put(&mut self, buffer: Vec<u8>);
}

/// Allocates a new buffer each time.
struct NewBuffers;

impl CarryBuffers for NewBuffers {
    fn take(&mut self, _at_least: usize, at_most: usize) -> Vec<u8> {
        Vec::with_capacity(at_most)
    }

    fn put(&mut self, _buffer: Vec<u8>) {}
}

#[derive(Debug)]
enum State {
    /// `have` bytes of a header have arrived; 0: the stream is between two frames.
    Header { bytes: [u8; HEADER_LEN], have: u8 },
    /// The header and `carry.len()` bytes of its payload have arrived, fewer than `header.len`.
    Body { header: Header, carry: Vec<u8> },
    /// `left` bytes of a skipped frame have yet to arrive.
    Skip { left: u32 },
}

impl State {
    const BETWEEN_FRAMES: Self = Self::Header { bytes: [0; HEADER_LEN], have: 0 };
}

impl Default for Deframer {
    fn default() -> Self {
        Self::new()
    }
}

impl Deframer {
    /// The state at the start of a stream.
    pub const fn new() -> Self {
        Self { state: State::BETWEEN_FRAMES }
    }

    /// Reads all of `input` and delivers each frame that it completes, in order.
    ///
    /// `limits` is called exactly once per frame, also for skipped ones, as soon as the header is complete.
    ///
    /// # Errors
    /// `limits` refused a frame, or `on_frame` failed; all earlier frames have been delivered.
    pub fn push<E>(
        &mut self,
        input: &[u8],
        limits: impl Fn(Header) -> Result<Disposition, FrameError>,
        on_frame: impl FnMut(Header, &[u8]) -> Result<(), E>,
    ) -> Result<(), PushError<E>> {
        self.push_with(&mut NewBuffers, input, limits, on_frame)
    }

    /// Like [`Deframer::push`], but takes carry buffers from `carries` and returns them there.
    ///
    /// # Errors
    /// As for [`Deframer::push`].
    pub fn push_with<E>(
        &mut self,
        carries: &mut impl CarryBuffers,
        mut input: &[u8],
        limits: impl Fn(Header) -> Result<Disposition, FrameError>,
        mut on_frame: impl FnMut(Header, &[u8]) -> Result<(), E>,
    ) -> Result<(), PushError<E>> {
        while let Some(result) =
            self.step(carries, &mut input, &limits, &mut on_frame).map_err(PushError::Frame)?
        {
            result.map_err(PushError::Sink)?;
        }
        Ok(())
    }

    /// Reads `input` up to the end of the next frame and delivers that frame. If no frame is complete, it
    /// reads all of `input` and returns `None`.
    ///
    /// For a connection whose limits change after a frame, such as during login.
    ///
    /// # Errors
    /// `limits` refused the frame.
    pub fn pull<R>(
        &mut self,
        input: &mut &[u8],
        limits: impl Fn(Header) -> Result<Disposition, FrameError>,
        on_frame: impl FnOnce(Header, &[u8]) -> R,
    ) -> Result<Option<R>, FrameError> {
        self.step(&mut NewBuffers, input, limits, on_frame)
    }

    fn step<R>(
        &mut self,
        carries: &mut impl CarryBuffers,
        input: &mut &[u8],
        limits: impl Fn(Header) -> Result<Disposition, FrameError>,
        on_frame: impl FnOnce(Header, &[u8]) -> R,
    ) -> Result<Option<R>, FrameError> {
        loop {
            match &mut self.state {
                State::Header { bytes, have } => {
                    let Some(header) = take_header(bytes, have, input) else { return Ok(None) };
                    self.state = State::BETWEEN_FRAMES;
                    if limits(header)? == Disposition::Skip {
                        self.state = State::Skip { left: header.len };
                        continue;
                    }
                    if let Some((body, rest)) = input.split_at_checked(header.len as usize) {
                        *input = rest;
                        return Ok(Some(on_frame(header, body)));
                    }
                    self.state = State::Body { header, carry: Vec::new() };
                }
                State::Body { header, carry } => {
                    let (header, total) = (*header, header.len as usize);
                    collect(carries, carry, take(input, total - carry.len()), total);
                    if carry.len() < total {
                        return Ok(None);
                    }
                    let body = core::mem::take(carry);
                    self.state = State::BETWEEN_FRAMES;
                    let result = on_frame(header, &body);
                    carries.put(body);
                    return Ok(Some(result));
                }
                State::Skip { left } => {
                    *left -= take(input, *left as usize).len() as u32;
                    if *left > 0 {
                        return Ok(None);
                    }
                    self.state = State::BETWEEN_FRAMES;
                }
            }
        }
    }

    /// Whether the stream is between two frames.
    pub const fn is_idle(&self) -> bool {
        matches!(self.state, State::Header { have: 0, .. })
    }

    /// Bytes of heap that the deframer holds now.
    pub const fn retained_bytes(&self) -> usize {
        match &self.state {
            State::Body { carry, .. } => carry.capacity(),
            State::Header { .. } | State::Skip { .. } => 0,
        }
    }
}

/// Smallest carry buffer in bytes, so that a frame in many small pieces does not reallocate for each piece.
const MIN_CARRY: usize = 2048;

fn take_header(bytes: &mut [u8; HEADER_LEN], have: &mut u8, input: &mut &[u8]) -> Option<Header> {
    let seen = usize::from(*have);
    if seen == 0
        && let Some((whole, rest)) = input.split_first_chunk()
    {
        *input = rest;
        return Some(Header::decode(whole));
    }
    let piece = take(input, HEADER_LEN - seen);
    bytes[seen..seen + piece.len()].copy_from_slice(piece);
    *have += piece.len() as u8;
    (usize::from(*have) == HEADER_LEN).then(|| Header::decode(bytes))
}

/// Splits up to `max` bytes off the front of `input`.
fn take<'a>(input: &mut &'a [u8], max: usize) -> &'a [u8] {
    let (front, rest) = input.split_at(max.min(input.len()));
    *input = rest;
    front
}

/// Appends `piece`. Without a pool, the capacity stays within `total` and within twice the bytes that have
/// arrived (or the minimum).
fn collect(carries: &mut impl CarryBuffers, carry: &mut Vec<u8>, piece: &[u8], total: usize) {
    let len = carry.len() + piece.len();
    if carry.capacity() < len {
        let mut wider = carries.take(len.max(MIN_CARRY).min(total), (2 * len).max(MIN_CARRY).min(total));
        wider.extend_from_slice(carry);
        carries.put(core::mem::replace(carry, wider));
    }
    carry.extend_from_slice(piece);
}

#[cfg(test)]
mod tests;
