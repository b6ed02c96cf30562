//! The byte stream under a connection, as small as the relay needs it.
//!
//! Reading hands each run of plaintext to a sink where it lies, in the worker's scratch; writing takes a
//! batch out of the mailbox at once. So a transport can decrypt and seal in place, and an idle one holds no
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

/// What one read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadResult {
    /// The socket had bytes; the sink has seen all plaintext that became whole with them.
    Bytes,
    /// The peer sends no more.
    Closed,
}

/// A transport.
pub trait Stream: Send + Unpin + 'static {
    /// Reads the socket once and hands `sink` each plaintext slice, in order. Once the sink breaks, it is not
    /// called again, and what it has not seen is lost: the caller is about to end the connection.
    ///
    /// An error of kind `InvalidData` says that the peer broke the transport's rules.
    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Poll<io::Result<ReadResult>>;

    /// Takes all of `plaintext`, in order, seals it and writes what the socket will have;
    /// [`Stream::poll_flush`] does the rest. To be called only when nothing is left to flush. `more`: another
    /// call follows before anything else is done, and the end of this one may wait for it to fill a segment.
    ///
    /// # Errors
    /// The transport's; the connection is over.
    fn send(
        &mut self,
        cx: &mut Context<'_>,
        plaintext: &mut dyn Iterator<Item = &[u8]>,
        more: bool,
    ) -> io::Result<()>;

    /// Writes what is left of earlier sends. Ready when nothing is.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Bytes that are left to flush.
    fn unsent(&self) -> usize;

    /// Bytes of plaintext at the end of the last [`Stream::send`] that the peer cannot have yet: the socket
    /// has not taken the records that they are in, or not to their ends.
    fn unsent_plaintext(&self) -> usize;

    /// Says goodbye, as far as the socket takes it without waiting.
    fn close(&mut self, cx: &mut Context<'_>);

    /// After [`Stream::close`]: sends what is left and the end of the stream, and drops what the peer still
    /// sends, which `left` counts down. Ready when the peer has closed too, nothing is left, or it is of no
    /// use.
    fn poll_part(&mut self, cx: &mut Context<'_>, left: &mut usize) -> Poll<()>;

    /// Lets this thread's event loop wait for the socket, instead of another's.
    ///
    /// # Errors
    /// The system's; the other one goes on waiting for it.
    fn rehome(&mut self) -> io::Result<()>;

    /// The protocol under it, for `relayd clients`.
    fn protocol(&self) -> &'static str;
}

/// The same connection in the event loop that this is called in, instead of another's.
///
/// # Errors
/// The system's; and that no file is left for the moment in which both have it but those that clients do not
/// get.
pub fn rehome(tcp: &TcpStream) -> io::Result<TcpStream> {
    let again = tcp.as_fd().try_clone_to_owned()?;
    if Limit::get().unwrap_or(Limit::UNKNOWN).is_reserved(again.as_raw_fd()) {
        return Err(io::Error::other("only reserved files are left"));
    }
    TcpStream::from_std(again.into())
}

/// Waits for the next bytes and appends them to `into`; flushes meanwhile. For the phases before the frames.
///
/// # Errors
/// The transport's, and `UnexpectedEof` when the peer has closed.
pub async fn recv_into<S: Stream>(stream: &mut S, into: &mut Vec<u8>) -> io::Result<()> {
    let received = poll_fn(|cx| {
        // An answer that does not get away must not keep us from reading: the peer may be waiting for
        // neither.
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
/// The transport's.
pub async fn send_all<S: Stream>(stream: &mut S, plaintext: &[u8]) -> io::Result<()> {
    poll_fn(|cx| stream.poll_flush(cx)).await?;
    poll_fn(|cx| Poll::Ready(stream.send(cx, &mut [plaintext].into_iter(), false))).await?;
    poll_fn(|cx| stream.poll_flush(cx)).await
}
