//! One client's connection, from its first byte to its last. One task polls both directions.
//!
//! ```text
//! stream -> reader -> router -> the receivers' mailboxes          own mailbox -> stream
//! ```
//! A waiting task holds no buffer and no timer of its own: scratch memory belongs to the worker, and the
//! sweep checks the deadlines.

pub mod bucket;
pub mod ledger;
pub mod login;
pub mod outgoing;
pub mod reader;
pub mod sweep;
pub mod task;

use std::future::Future;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use self::outgoing::{Outgoing, Receiver};
use self::reader::{ProtocolFault, Reader};
use crate::clock;
use crate::observe::counters::Counter;
use crate::relay::Relay;
use crate::route::gone::Audience;
use crate::route::peer::{Ending, Peer};
use crate::transport::parting::Parting;
use crate::transport::{ReadResult, Stream};

/// Socket reads per turn: one busy client must not keep its worker from the others.
const READS_PER_TURN: usize = 4;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum End {
    /// The client closed the connection.
    #[error("closed by the client")]
    Closed,
    /// The transport failed.
    #[error("transport: {0}")]
    Io(#[from] std::io::Error),
    /// The client broke the protocol.
    #[error("protocol: {0}")]
    Fault(#[from] ProtocolFault),
    /// The relay ended the connection.
    #[error("ended by the relay: {0:?}")]
    Ending(Ending),
}

impl End {
    /// Whether the client broke a rule. Then the relay tells it why, even while it may still be sending.
    fn is_fault(&self) -> bool {
        match self {
            Self::Fault(_) => true,
            Self::Io(error) => error.kind() == ErrorKind::InvalidData,
            Self::Closed | Self::Ending(_) => false,
        }
    }
}

/// A logged-in connection. As a future, it resolves when the connection is over and everybody has been told.
/// Dropping it always takes the client out of the table, also after a panic.
#[derive(Debug)]
pub struct Connection<S> {
    stream: S,
    reader: Reader,
    peer: Arc<Peer>,
    relay: Arc<Relay>,
    outgoing: Outgoing,
    has_left: bool,
    /// Set when the connection is over and out of the table, but its client must still be told why.
    parting: Option<Box<Parting>>,
}

impl<S: Stream> Connection<S> {
    /// Makes a connection whose login is done and whose peer is in the table.
    pub fn new(stream: S, reader: Reader, peer: Arc<Peer>, relay: Arc<Relay>) -> Self {
        Self { stream, reader, peer, relay, outgoing: Outgoing::default(), has_left: false, parting: None }
    }

    /// The handle that other connections share.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Whether the connection has ended, so that only its last bytes are still being sent.
    pub fn is_over(&self) -> bool {
        self.has_left
    }

    /// Moves the socket into this thread's event loop, from another thread's.
    ///
    /// # Errors
    /// The system refused; the other event loop keeps the socket.
    pub fn rehome(&mut self) -> std::io::Result<()> {
        self.stream.rehome()
    }

    /// Counts and logs why the connection is over.
    fn finish(&mut self, end: &End) {
        match end {
            End::Fault(_) => self.relay.counters.add(Counter::ProtocolFaults, 1),
            End::Io(error) if error.kind() == ErrorKind::InvalidData => {
                self.relay.counters.add(Counter::TlsFaults, 1);
            }
            _ => {}
        }
        tracing::debug!(remote = %self.peer.remote, %end, "connection ended");
        self.leave();
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if let Some(ending) = self.peer.ending() {
            self.close(cx);
            return Poll::Ready(End::Ending(ending));
        }
        let read = match self.read(cx) {
            Poll::Ready(Err(end)) => {
                self.close(cx);
                return Poll::Ready(end);
            }
            other => other,
        };
        let write = match self.write(cx) {
            Poll::Ready(Err(end)) => return Poll::Ready(end),
            other => other,
        };
        if read.is_ready() || write.is_ready() {
            // The turn is used up and work is left: the worker's other tasks run first.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    fn close(&mut self, cx: &mut Context<'_>) {
        self.stream.close(cx);
        self.note_unsent();
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        for _ in 0..READS_PER_TURN {
            let Self { stream, reader, peer, relay, .. } = self;
            let mut turn = reader.turn(peer, relay, clock::monotonic_ns);
            let mut fault = None;
            let received = stream.poll_recv(cx, &mut |plaintext| match turn.feed(plaintext) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    fault = Some(error);
                    ControlFlow::Break(())
                }
            });
            drop(turn);
            if let Some(fault) = fault {
                return Poll::Ready(Err(fault.into()));
            }
            match received {
                Poll::Ready(Ok(ReadResult::Bytes)) => {}
                Poll::Ready(Ok(ReadResult::Closed)) => return Poll::Ready(Err(End::Closed)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        let Self { stream, peer, relay, outgoing, .. } = self;
        outgoing.write(cx, stream, Receiver::client(peer), relay).map_err(End::from)
    }

    fn note_unsent(&mut self) {
        let Self { stream, peer, relay, outgoing, .. } = self;
        outgoing.note_unsent(stream, Receiver::client(peer), relay);
    }
}

impl<S> Connection<S> {
    /// Takes the connection out of the table, once; its audience is told. Counts every packet that waited for
    /// it. Bytes that the socket has not taken may still be sent.
    fn leave(&mut self) {
        if std::mem::replace(&mut self.has_left, true) {
            return;
        }
        let Self { reader, peer, relay, .. } = self;
        Receiver::client(peer).close(relay);
        // When the daemon stops, all clients leave: news about all the others would be useless to them.
        let stopping = peer.ending() == Some(Ending::Shutdown);
        let audience = if stopping { Audience::default() } else { reader.take_audience() };
        relay.leave(peer, audience, clock::monotonic_ns());
    }
}

/// A task may be dropped unfinished, because it panicked, because its client failed during the login, or
/// because the daemon ends. Its client must not stay in the table.
impl<S> Drop for Connection<S> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.relay.counters.add(Counter::TaskPanics, 1);
            tracing::error!(remote = %self.peer.remote, "the task of a connection panicked; this is a bug");
        }
        self.leave();
        self.outgoing.end(Receiver::client(&self.peer), &self.relay);
    }
}

/// The connection's task. A hand-written future holds the connection once; an async function would hold it
/// twice.
impl<S: Stream> Future for Connection<S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if this.parting.is_none() {
            // The waker is registered before the mailbox is read, so that no push is missed in between.
            this.peer.mailbox.register(cx.waker());
            let end = ready!(this.turn(cx));
            this.finish(&end);
            if end.is_fault() {
                this.parting = Parting::begin().map(Box::new);
            }
        }
        let Some(parting) = &mut this.parting else { return Poll::Ready(()) };
        let parted = parting.poll(cx, &mut this.stream);
        this.note_unsent();
        parted
    }
}

#[cfg(test)]
mod tests;
