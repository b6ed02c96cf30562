//! A link that is up, as a task of a worker: it reads the other relay's news, and writes our clients'
//! packets.

use std::future::Future;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::incoming::{Incoming, LinkFault};
use crate::clock;
use crate::conn::outgoing::{Outgoing, Receiver};
use crate::observe::counters::Counter;
use crate::relay::Relay;
use crate::route::link::Link;
use crate::route::vocabulary::Refusal;
use crate::transport::{ReadResult, Stream};

/// Socket reads per turn: one busy link must not keep its worker from the clients.
const READS_PER_TURN: usize = 4;

/// Why a link ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkEnd {
    /// The other relay closed the connection before it told of any client.
    #[error("the relay ended the link at once; has it the same mesh key (-mesh-psk-file)?")]
    NotTrusted,
    /// The other relay closed the connection.
    #[error("closed by the relay")]
    Closed,
    /// The transport failed.
    #[error("transport: {0}")]
    Io(#[from] std::io::Error),
    /// The other relay broke the protocol.
    #[error("protocol: {0}")]
    Fault(#[from] LinkFault),
    /// The table refused the link.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// This relay ended the link.
    #[error("given up")]
    GivenUp,
}

impl LinkEnd {
    /// Whether the other relay had taken us for one of the region.
    pub fn is_of_the_region(&self) -> bool {
        !matches!(self, Self::NotTrusted | Self::Fault(_))
    }
}

/// A link's connection. As a future, it resolves when the link is over. Dropping it always takes the link out
/// of the table, also after a panic.
#[derive(Debug)]
pub struct LinkTask<S> {
    stream: S,
    incoming: Incoming,
    outgoing: Outgoing,
    link: Arc<Link>,
    relay: Arc<Relay>,
}

impl<S: Stream> LinkTask<S> {
    /// Puts `link` into the table and runs it over `stream`; `rest` are the bytes that have been read
    /// already.
    ///
    /// # Errors
    /// The link is up already, or the other relay has broken the protocol.
    pub fn start(
        stream: S,
        incoming: Incoming,
        rest: &[u8],
        link: Arc<Link>,
        relay: Arc<Relay>,
    ) -> Result<Self, LinkEnd> {
        let now_ns = clock::monotonic_ns();
        relay.router.link_up(&link, now_ns)?;
        let mut task = Self { stream, incoming, outgoing: Outgoing::default(), link, relay };
        task.incoming.feed(rest, &task.link, &task.relay, now_ns)?;
        Ok(task)
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<LinkEnd> {
        if self.link.is_over() {
            self.stream.close(cx);
            return Poll::Ready(LinkEnd::GivenUp);
        }
        let read = match self.read(cx) {
            Poll::Ready(Err(end)) => {
                self.stream.close(cx);
                return Poll::Ready(end);
            }
            other => other,
        };
        let Self { stream, outgoing, link, relay, .. } = self;
        let write = match outgoing.write(cx, stream, Receiver::link(link), relay) {
            Poll::Ready(Err(error)) => return Poll::Ready(error.into()),
            other => other,
        };
        if read.is_ready() || write.is_ready() {
            // The turn is used up and work is left: the worker's other tasks run first.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkEnd>> {
        for _ in 0..READS_PER_TURN {
            let Self { stream, incoming, link, relay, .. } = self;
            let mut fault = None;
            let received = stream.poll_recv(cx, &mut |plaintext| match incoming.feed(
                plaintext,
                link,
                relay,
                clock::monotonic_ns(),
            ) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    fault = Some(error);
                    ControlFlow::Break(())
                }
            });
            if let Some(fault) = fault {
                return Poll::Ready(Err(fault.into()));
            }
            match received {
                Poll::Ready(Ok(ReadResult::Bytes)) => {}
                Poll::Ready(Ok(ReadResult::Closed)) if !incoming.is_joined() => {
                    return Poll::Ready(Err(LinkEnd::NotTrusted));
                }
                Poll::Ready(Ok(ReadResult::Closed)) => return Poll::Ready(Err(LinkEnd::Closed)),
                Poll::Ready(Err(error)) if is_reset(&error) && !incoming.is_joined() => {
                    return Poll::Ready(Err(LinkEnd::NotTrusted));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn is_reset(error: &std::io::Error) -> bool {
    [ErrorKind::ConnectionReset, ErrorKind::ConnectionAborted, ErrorKind::UnexpectedEof]
        .contains(&error.kind())
}

impl<S: Stream> Future for LinkTask<S> {
    type Output = LinkEnd;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<LinkEnd> {
        // The waker is registered before the mailbox is read, so that no push is missed in between.
        self.link.mailbox.register(cx.waker());
        self.turn(cx)
    }
}

impl<S> Drop for LinkTask<S> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.relay.counters.add(Counter::TaskPanics, 1);
            tracing::error!(remote = %self.link.remote, "the task of a link panicked; this is a bug");
        }
        let to = Receiver::link(&self.link);
        to.close(&self.relay);
        self.outgoing.end(to, &self.relay);
        self.relay.link_down(self.link.id, clock::monotonic_ns());
    }
}
