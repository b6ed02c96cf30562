//! Sealed bytes that the socket has not taken yet.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;
use tokio::net::TcpStream;

use crate::conn::pool;

/// Where a record ends, and how much plaintext is in it: what a peer has only once it has all of the record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Bytes from the start of what is sent to the end of the record.
    pub end: usize,
    /// Plaintext bytes in it.
    pub plaintext: usize,
}

/// What waits for the socket. Empty, it is one pointer; most connections never need more.
#[derive(Debug, Default)]
pub struct Outbox {
    kept: Option<Box<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    bytes: Vec<u8>,
    written: usize,
    /// Of the records that have not been written whole.
    marks: VecDeque<Mark>,
}

impl Outbox {
    /// Whether all has been written.
    pub fn is_empty(&self) -> bool {
        self.kept.is_none()
    }

    /// Bytes that the socket has not taken.
    pub fn unsent(&self) -> usize {
        self.kept.as_ref().map_or(0, |kept| kept.bytes.len() - kept.written)
    }

    /// Plaintext in records that the socket has not taken whole.
    pub fn unsent_plaintext(&self) -> usize {
        self.kept.as_ref().map_or(0, |kept| kept.marks.iter().map(|mark| mark.plaintext).sum())
    }

    /// Appends bytes to be written by [`Outbox::poll_flush`]; `marks` are counted from their start.
    pub fn push(&mut self, bytes: &[u8], marks: &[Mark]) {
        if bytes.is_empty() {
            return;
        }
        let kept = self.kept.get_or_insert_default();
        if kept.bytes.capacity() == 0 {
            kept.bytes = pool::take_fitting(bytes.len());
        }
        let at = kept.bytes.len();
        kept.marks.extend(marks.iter().map(|mark| Mark { end: at + mark.end, ..*mark }));
        kept.bytes.extend_from_slice(bytes);
    }

    /// Writes `bytes` now as far as the socket takes them, and keeps the rest.
    ///
    /// # Errors
    /// The socket's.
    pub fn send(
        &mut self,
        cx: &mut Context<'_>,
        tcp: &mut TcpStream,
        bytes: &[u8],
        marks: &[Mark],
    ) -> io::Result<()> {
        let mut at = 0;
        while self.is_empty() && at < bytes.len() {
            match Pin::new(&mut *tcp).poll_write(cx, &bytes[at..]) {
                Poll::Ready(result) => at += written(result)?,
                Poll::Pending => break,
            }
        }
        if at < bytes.len() {
            self.push(&bytes[at..], &[]);
            if let Some(kept) = &mut self.kept {
                let base = kept.bytes.len() - (bytes.len() - at);
                let open = marks.iter().filter(|mark| mark.end > at);
                kept.marks.extend(open.map(|mark| Mark { end: base + mark.end - at, ..*mark }));
            }
        }
        Ok(())
    }

    /// Writes what is left. Ready when nothing is; then it holds no memory.
    ///
    /// # Errors
    /// The socket's.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>, tcp: &mut TcpStream) -> Poll<io::Result<()>> {
        let Some(kept) = &mut self.kept else { return Poll::Ready(Ok(())) };
        while kept.written < kept.bytes.len() {
            let result = ready!(Pin::new(&mut *tcp).poll_write(cx, &kept.bytes[kept.written..]));
            kept.written += written(result)?;
            while kept.marks.front().is_some_and(|mark| mark.end <= kept.written) {
                kept.marks.pop_front();
            }
        }
        pool::put_fitting(std::mem::take(&mut kept.bytes));
        self.kept = None;
        Poll::Ready(Ok(()))
    }
}

/// A socket that takes nothing of a non-empty write is closed.
fn written(result: io::Result<usize>) -> io::Result<usize> {
    match result? {
        0 => Err(io::ErrorKind::WriteZero.into()),
        n => Ok(n),
    }
}
