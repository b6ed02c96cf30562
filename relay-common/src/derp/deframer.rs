//! Bytes to frames, as they arrive.
//!
//! A frame that lies whole in the input is handed over where it lies. One that straddles inputs is collected
//! in a carry buffer that lives only until that frame is done, so an idle connection holds no buffer. The
//! carry grows with what has really arrived, never with what a header promises. Frames to be skipped are
//! never buffered.
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

/// Why a push ended early. The connection is to be closed; the rest of the input has not been looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError<E> {
    /// The peer sent a frame it may not send.
    #[error(transparent)]
    Frame(FrameError),
    /// The receiver of the frames refused one.
    #[error("{0}")]
    Sink(E),
}

/// Where carry buffers come from and go to: for those with many connections, who keep a pool.
pub trait CarryBuffers {
    /// An empty buffer for `at_least` bytes; what has room for more than `at_most` is wasteful.
    fn take(&mut self, at_least: usize, at_most: usize) -> Vec<u8>;
    /// A buffer that is no longer needed; it may have no capacity at all.
    fn put(&mut self, buffer: Vec<u8>);
}

/// The allocator itself.
struct NewBuffers;

impl CarryBuffers for NewBuffers {
    fn take(&mut self, _at_least: usize, at_most: usize) -> Vec<u8> {
        Vec::with_capacity(at_most)
    }

    fn put(&mut self, _buffer: Vec<u8>) {}
}

#[derive(Debug)]
enum State {
    /// `have` bytes of a header are here; 0: between two frames.
    Header { bytes: [u8; HEADER_LEN], have: u8 },
    /// A header and `carry.len() < header.len` bytes of its payload are here.
    Body { header: Header, carry: Vec<u8> },
    /// This many bytes are still to be thrown away.
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
    /// At the start of a stream.
    pub const fn new() -> Self {
        Self { state: State::BETWEEN_FRAMES }
    }

    /// Takes all of `input` and hands over each frame that it completes, in order.
    ///
    /// `limits` is asked exactly once per frame, skipped ones included, as soon as its header is complete.
    ///
    /// # Errors
    /// `limits` refused a frame, or `on_frame` failed; frames before that one have been handed over.
    pub fn push<E>(
        &mut self,
        input: &[u8],
        limits: impl Fn(Header) -> Result<Disposition, FrameError>,
        on_frame: impl FnMut(Header, &[u8]) -> Result<(), E>,
    ) -> Result<(), PushError<E>> {
        self.push_with(&mut NewBuffers, input, limits, on_frame)
    }

    /// As [`Deframer::push`]; carry buffers come from `carries` and go back there.
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

    /// Takes of `input` what is needed for the next frame, and hands that over. Nothing: all of `input` is
    /// taken.
    ///
    /// For a connection whose rules change with a frame, such as login.
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

    /// Bytes of heap held at the moment.
    pub const fn retained_bytes(&self) -> usize {
        match &self.state {
            State::Body { carry, .. } => carry.capacity(),
            State::Header { .. } | State::Skip { .. } => 0,
        }
    }
}

/// Smallest carry, so that a frame arriving in crumbs does not reallocate for each.
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

/// Appends `piece`. Without a pool, capacity stays within twice what has arrived (or the minimum) and within
/// `total`.
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
