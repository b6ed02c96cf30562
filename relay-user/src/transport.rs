//! The byte stream under a connection, with only the operations that the relay needs.
//!
//! Reading hands each run of plaintext to a sink, in place, in the worker's scratch. Writing takes a whole
//! batch of the mailbox at once. So a transport can decrypt and seal in place, and an idle one holds no
//! buffer.

pub mod fitting;
pub mod gather;
pub mod outbox;
pub mod parting;
pub mod plain;
pub mod scratch;
pub mod tls;

use std::future::poll_fn;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, AsRawFd};
use std::task::{Context, Poll};

use tokio::net::TcpStream;

use crate::files::Limit;

/// Unsent bytes that a socket takes at most. Further data waits in its lane, where other lanes can overtake
/// it and a full lane can drop it. This is enough that a fast path never runs dry.
pub const NOT_SENT_BYTES: u32 = 64 * 1024;

/// Result of one read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadResult {
    /// The socket had bytes; the sink has been given all plaintext that they completed.
    Bytes,
    /// The peer sends no more.
    Closed,
}

/// A transport.
pub trait Stream: Send + Unpin + 'static {
    /// Reads the socket once and hands `sink` each plaintext slice, in order. Once the sink breaks, it is not
    /// called again and the remaining plaintext is lost: the caller is about to end the connection.
    ///
    /// An error of kind `InvalidData` means that the peer broke the transport's rules.
    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Poll<io::Result<ReadResult>>;

    /// Takes all of `plaintext`, in order, seals it and writes as much as the socket takes;
    /// [`Stream::poll_flush`] writes the rest. Call this only when nothing is left to flush. `more`: another
    /// call follows at once, and the end of this one may wait for it to fill a segment.
    ///
    /// # Errors
    /// The transport failed; the connection is over.
    fn send(
        &mut self,
        cx: &mut Context<'_>,
        plaintext: &mut dyn Iterator<Item = &[u8]>,
        more: bool,
    ) -> io::Result<()>;

    /// Writes the bytes left by earlier sends. Ready when none are left.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Bytes that are left to flush.
    fn unsent(&self) -> usize;

    /// Bytes of plaintext at the end of the last [`Stream::send`] that the peer cannot have yet: the socket
    /// has not taken the whole of their records.
    fn unsent_plaintext(&self) -> usize;

    /// Sends a goodbye, as far as the socket takes it without waiting.
    fn close(&mut self, cx: &mut Context<'_>);

    /// To be called after [`Stream::close`]. Sends the remaining bytes and the end of the stream, and drops
    /// the bytes that the peer still sends; `left` counts them down. Ready when the peer has closed too, when
    /// `left` is 0, or when the socket has failed.
    fn poll_part(&mut self, cx: &mut Context<'_>, left: &mut usize) -> Poll<()>;

    /// Moves the socket into this thread's event loop, from another thread's.
    ///
    /// # Errors
    /// The system refused; the other event loop keeps the socket.
    fn rehome(&mut self) -> io::Result<()>;

    /// The transport protocol, for `relayd clients`.
    fn protocol(&self) -> &'static str;
}

/// Moves a connection into the calling thread's event loop, from another thread's.
///
/// # Errors
/// The system refused, or only reserved files are left: for a moment both event loops have a file for the
/// connection, and clients do not get reserved files.
pub fn rehome(tcp: &TcpStream) -> io::Result<TcpStream> {
    let again = tcp.as_fd().try_clone_to_owned()?;
    if Limit::get().unwrap_or(Limit::UNKNOWN).is_reserved(again.as_raw_fd()) {
        return Err(io::Error::other("only reserved files are left"));
    }
    TcpStream::from_std(again.into())
}

/// Waits for the next bytes and appends them to `into`; flushes meanwhile. Used in the phases before the
/// frames.
///
/// # Errors
/// The transport's error, or `UnexpectedEof` when the peer has closed.
pub async fn recv_into<S: Stream>(stream: &mut S, into: &mut Vec<u8>) -> io::Result<()> {
    let received = poll_fn(|cx| {
        // A flush that makes no progress must not stop the reading: the peer may not be waiting for the
        // answer.
        if let Poll::Ready(Err(error)) = stream.poll_flush(cx) {
            return Poll::Ready(Err(error));
        }
        stream.poll_recv(cx, &mut |plaintext| {
            into.extend_from_slice(plaintext);
            ControlFlow::Continue(())
        })
    });
    match received.await? {
        ReadResult::Bytes => Ok(()),
        ReadResult::Closed => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Sends all of `plaintext` and waits until the socket has taken it.
///
/// # Errors
/// The transport's error.
pub async fn send_all<S: Stream>(stream: &mut S, plaintext: &[u8]) -> io::Result<()> {
    poll_fn(|cx| stream.poll_flush(cx)).await?;
    poll_fn(|cx| Poll::Ready(stream.send(cx, &mut [plaintext].into_iter(), false))).await?;
    poll_fn(|cx| stream.poll_flush(cx)).await
}
