//! Sealed bytes that the socket has not taken yet.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncWrite, Interest};
use tokio::net::TcpStream;

use super::fitting;

/// Runs of bytes in one system call at most.
const MAX_RUNS: usize = 64;

/// Where a record ends, and how much plaintext it holds. The peer has this plaintext only once it has the
/// whole record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Bytes from the start of the sent bytes to the end of the record.
    pub end: usize,
    /// Plaintext bytes in the record.
    pub plaintext: usize,
}

/// The bytes that wait for the socket. Empty, an outbox is one pointer; most connections never need more.
#[derive(Debug, Default)]
pub struct Outbox {
    kept: Option<Box<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    bytes: Vec<u8>,
    written: usize,
    /// The marks of records that have not been written whole.
    marks: VecDeque<Mark>,
}

impl Outbox {
    /// Whether all bytes have been written.
    pub fn is_empty(&self) -> bool {
        self.kept.is_none()
    }

    /// Bytes that the socket has not taken.
    pub fn unsent(&self) -> usize {
        self.kept.as_ref().map_or(0, |kept| kept.bytes.len() - kept.written)
    }

    /// Plaintext bytes in records that the socket has not taken whole.
    pub fn unsent_plaintext(&self) -> usize {
        self.kept.as_ref().map_or(0, |kept| kept.marks.iter().map(|mark| mark.plaintext).sum())
    }

    /// Appends bytes for [`Outbox::poll_flush`] to write; `marks` are counted from the start of these bytes.
    pub fn push(&mut self, bytes: &[u8], marks: &[Mark]) {
        if bytes.is_empty() {
            return;
        }
        let kept = self.kept.get_or_insert_default();
        if kept.bytes.capacity() == 0 {
            kept.bytes = fitting::take(bytes.len());
        }
        let at = kept.bytes.len();
        kept.marks.extend(marks.iter().map(|mark| Mark { end: at + mark.end, ..*mark }));
        kept.bytes.extend_from_slice(bytes);
    }

    /// Writes as much of `bytes` as the socket takes now, and keeps the rest. `more`: see
    /// [`super::Stream::send`].
    ///
    /// # Errors
    /// The socket's error.
    pub fn send(
        &mut self,
        cx: &mut Context<'_>,
        tcp: &mut TcpStream,
        bytes: &[u8],
        marks: &[Mark],
        more: bool,
    ) -> io::Result<()> {
        let mut at = 0;
        while self.is_empty() && at < bytes.len() {
            match poll_send(cx, tcp, &[IoSlice::new(&bytes[at..])], more) {
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

    /// Like [`Outbox::send`], for unsealed bytes that lie in several places: writes many runs with one system
    /// call.
    ///
    /// # Errors
    /// The socket's error.
    pub fn send_runs(
        &mut self,
        cx: &mut Context<'_>,
        tcp: &mut TcpStream,
        runs: &mut dyn Iterator<Item = &[u8]>,
        more: bool,
    ) -> io::Result<()> {
        let mut runs = runs.filter(|run| !run.is_empty()).peekable();
        while self.is_empty() && runs.peek().is_some() {
            let (mut slices, mut count) = ([IoSlice::new(&[]); MAX_RUNS], 0);
            while count < MAX_RUNS
                && let Some(run) = runs.next()
            {
                slices[count] = IoSlice::new(run);
                count += 1;
            }
            let mut left = &mut slices[..count];
            while !left.is_empty() {
                match poll_send(cx, tcp, left, more) {
                    Poll::Ready(result) => IoSlice::advance_slices(&mut left, written(result)?),
                    Poll::Pending => {
                        left.iter().for_each(|run| self.push(run, &[]));
                        break;
                    }
                }
            }
        }
        runs.for_each(|run| self.push(run, &[]));
        Ok(())
    }

    /// Writes the remaining bytes. Ready when none are left; then the outbox holds no memory.
    ///
    /// # Errors
    /// The socket's error.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>, tcp: &mut TcpStream) -> Poll<io::Result<()>> {
        let Some(kept) = &mut self.kept else { return Poll::Ready(Ok(())) };
        while kept.written < kept.bytes.len() {
            let result = ready!(Pin::new(&mut *tcp).poll_write(cx, &kept.bytes[kept.written..]));
            kept.written += written(result)?;
            while kept.marks.front().is_some_and(|mark| mark.end <= kept.written) {
                kept.marks.pop_front();
            }
        }
        fitting::put(std::mem::take(&mut kept.bytes));
        self.kept = None;
        Poll::Ready(Ok(()))
    }
}

/// Writes as much of `runs` as the socket takes. `more`: bytes that do not fill a segment may wait for the
/// next call (send(2), `MSG_MORE`). Two calls then wake the receiver and load the network as one would.
fn poll_send(
    cx: &mut Context<'_>,
    tcp: &mut TcpStream,
    runs: &[IoSlice<'_>],
    more: bool,
) -> Poll<io::Result<usize>> {
    if !more {
        return Pin::new(tcp).poll_write_vectored(cx, runs);
    }
    loop {
        ready!(tcp.poll_write_ready(cx))?;
        let socket = SockRef::from(&*tcp);
        let flags = libc::MSG_MORE | libc::MSG_NOSIGNAL;
        match tcp.try_io(Interest::WRITABLE, || socket.send_vectored_with_flags(runs, flags)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return Poll::Ready(result),
        }
    }
}

/// If a socket takes nothing of a non-empty write, it is closed.
fn written(result: io::Result<usize>) -> io::Result<usize> {
    match result? {
        0 => Err(io::ErrorKind::WriteZero.into()),
        n => Ok(n),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::task::Waker;

    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, std::net::TcpStream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let reader = std::net::TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        let (tcp, _) = listener.accept().await.expect("connected");
        tcp.set_nodelay(true).expect("a socket");
        tcp.writable().await.expect("a socket");
        (tcp, reader)
    }

    #[tokio::test]
    async fn what_is_followed_leaves_with_what_follows() {
        let waited = async || {
            let mut cx = Context::from_waker(Waker::noop());
            let ((mut tcp, mut reader), mut outbox) = (pair().await, Outbox::default());
            reader.set_nonblocking(true).expect("a socket");
            let mut outboxes =
                |cx: &mut Context<'_>, bytes, more| outbox.send(cx, &mut tcp, bytes, &[], more);
            outboxes(&mut cx, b"first", true).expect("sent");
            let early = reader.peek(&mut [0; 16]);
            outboxes(&mut cx, b"second", false).expect("sent");
            reader.set_nonblocking(false).expect("a socket");
            let mut got = [0; 11];
            reader.read_exact(&mut got).expect("read");
            assert_eq!(&got, b"firstsecond");
            early.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        };
        // The system holds the bytes back for at most a fifth of a second. The test allows more, for a
        // machine that is paused.
        for _ in 0..10 {
            if waited().await {
                return;
            }
        }
        panic!("it did not wait");
    }

    #[tokio::test]
    async fn many_runs_arrive_in_order_whatever_the_socket_takes_at_once() {
        let (mut tcp, mut reader) = pair().await;
        SockRef::from(&tcp).set_send_buffer_size(16 * 1024).expect("a socket");
        // More bytes than one system call or the sockets take, in runs of all lengths.
        let runs: Vec<Vec<u8>> = (0..3_000_u32).map(|run| vec![run as u8; run as usize % 3_001]).collect();
        let (mut cx, mut outbox) = (Context::from_waker(Waker::noop()), Outbox::default());
        let mut slices = runs.iter().map(Vec::as_slice);
        outbox.send_runs(&mut cx, &mut tcp, &mut slices, true).expect("sent");
        assert!(outbox.unsent() > 0, "the socket took all of it");
        let reading = std::thread::spawn(move || {
            let mut got = Vec::new();
            reader.read_to_end(&mut got).map(|_| got)
        });
        std::future::poll_fn(|cx| outbox.poll_flush(cx, &mut tcp)).await.expect("flushed");
        drop(tcp);
        assert!(reading.join().expect("no panic").expect("read") == runs.concat());
    }
}
