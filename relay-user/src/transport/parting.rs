//! The end of a connection whose peer still sends: the peer must receive our last bytes, and not a reset.
//!
//! Closing a socket with unread bytes resets the connection. The reset also discards bytes that the peer has
//! not read yet, such as the alert that says what was wrong. So the writing side is shut first, and incoming
//! bytes are read and dropped for a moment.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use super::outbox::Outbox;
use super::{Stream, scratch};

/// How long a peer may take to close its side.
const PATIENCE: Duration = Duration::from_secs(1);

/// Bytes that are read and dropped at most.
const MAX_DROPPED: usize = 256 * 1024;

/// Connections that part at the same time, at most. Further ones are closed at once, so that nobody can pile
/// up sockets here.
const MAX_PARTING: usize = 256;

static PARTING: AtomicUsize = AtomicUsize::new(0);

/// A connection that is over, and out of the table, but not yet closed.
#[derive(Debug)]
pub struct Parting {
    /// Bytes that may still be dropped.
    left: usize,
    deadline: Pin<Box<Sleep>>,
}

impl Parting {
    /// Begins to part; `None` if too many connections are parting.
    pub fn begin() -> Option<Self> {
        let one_more = |parting| (parting < MAX_PARTING).then_some(parting + 1);
        PARTING.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Self { left: MAX_DROPPED, deadline: Box::pin(sleep(PATIENCE)) })
    }

    /// Ready when the peer has closed too, has sent too much, or has taken too long.
    pub fn poll<S: Stream>(&mut self, cx: &mut Context<'_>, stream: &mut S) -> Poll<()> {
        if stream.poll_part(cx, &mut self.left).is_ready() {
            return Poll::Ready(());
        }
        self.deadline.as_mut().poll(cx)
    }
}

impl Drop for Parting {
    fn drop(&mut self) {
        PARTING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Says goodbye and parts, for a connection that is not in the table.
pub async fn part<S: Stream>(stream: &mut S) {
    let mut parting = Parting::begin();
    poll_fn(|cx| {
        stream.close(cx);
        Poll::Ready(())
    })
    .await;
    if let Some(parting) = &mut parting {
        poll_fn(|cx| parting.poll(cx, stream)).await;
    }
}

/// Implements [`Stream::poll_part`] for a stream over `tcp`.
pub fn poll_part(
    cx: &mut Context<'_>,
    tcp: &mut TcpStream,
    outbox: &mut Outbox,
    left: &mut usize,
) -> Poll<()> {
    // The end of the stream follows the last bytes. Until they have left, reading goes on: the peer may take
    // nothing before we have taken the bytes that it sends.
    if let Poll::Ready(flushed) = outbox.poll_flush(cx, tcp)
        && (flushed.is_err() || ready!(Pin::new(&mut *tcp).poll_shutdown(cx)).is_err())
    {
        return Poll::Ready(());
    }
    scratch::for_reading(|scratch| {
        while *left > 0 {
            let room = scratch.len().min(*left);
            let mut read = ReadBuf::new(&mut scratch[..room]);
            let result = ready!(Pin::new(&mut *tcp).poll_read(cx, &mut read));
            if result.is_err() || read.filled().is_empty() {
                break;
            }
            *left -= read.filled().len();
        }
        Poll::Ready(())
    })
}
