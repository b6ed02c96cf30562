//! A logged-in connection as a task of a worker.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use super::Connection;
use crate::transport::Stream;
use crate::workers::{Pool, here};

/// Runs a connection, and moves it to the worker that its peer's `worker` names.
#[derive(Debug)]
pub struct Task<S> {
    connection: Option<Connection<S>>,
    pool: Arc<Pool>,
    /// The worker whose event loop has the socket.
    at: usize,
}

impl<S: Stream + Unpin + Send + 'static> Task<S> {
    /// Runs `connection` on this thread's worker. Its socket is in this thread's event loop.
    pub fn start(connection: Connection<S>, pool: Arc<Pool>) {
        let at = here().unwrap_or(0);
        connection.peer().worker.store(at as u32, Ordering::Relaxed);
        tokio::spawn(Self { connection: Some(connection), pool, at });
    }
}

impl<S: Stream + Unpin + Send + 'static> Future for Task<S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let Some(connection) = &mut this.connection else { return Poll::Ready(()) };
        let wanted = connection.peer().worker.load(Ordering::Relaxed) as usize;
        // An ended connection stays: it has a timer in this event loop and will be gone soon.
        let may_move = wanted < this.pool.count() && !connection.is_over();
        if may_move && here() != Some(wanted) {
            let connection = this.connection.take();
            this.pool.nth(wanted).spawn(Self { connection, pool: Arc::clone(&this.pool), at: this.at });
            return Poll::Ready(());
        }
        if may_move && this.at != wanted {
            // On failure the socket stays in the other event loop, which works as well.
            if let Err(error) = connection.rehome() {
                tracing::debug!(%error, "a connection cannot change its event loop");
            }
            this.at = wanted;
        }
        let polled = Pin::new(&mut *connection).poll(cx);
        // The peer may have been told to move before its task could be woken for the move.
        if polled.is_pending() && connection.peer().worker.load(Ordering::Relaxed) as usize != wanted {
            cx.waker().wake_by_ref();
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use relay_common::derp::frame::FrameType;
    use relay_common::derp::message::FromClient;
    use relay_common::derp::{HEADER_LEN, KEY_LEN, PING_LEN};
    use relay_common::key::{NodePrivate, NodePublic};

    use super::*;
    use crate::conn::reader::Reader;
    use crate::observe::counters::Counters;
    use crate::relay::Relay;
    use crate::route::Router;
    use crate::route::peer::Peer;
    use crate::route::sessions::Limits;
    use crate::transport::plain::PlainStream;
    use crate::workers::Workers;

    const MOVES: u32 = 500;

    #[test]
    fn a_connection_that_is_moved_loses_nothing_and_ends_where_it_is() {
        let mut workers = Workers::default();
        let shared = workers.start(2, Duration::ZERO).expect("threads");
        let (key, router) = (NodePrivate::from_bytes([7; KEY_LEN]), Router::new(Limits::default(), None));
        let relay = Arc::new(Relay::new(router, Counters::default(), key, Duration::ZERO, u64::MAX));
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let mut client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        client.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
        let (served, remote) = listener.accept().expect("connected");
        served.set_nonblocking(true).expect("a socket");
        let peer = Arc::new(Peer::new(NodePublic::from_bytes([1; KEY_LEN]), relay.next_conn(), remote));
        let _ = relay.router.login(&peer, 0).expect("a new connection");
        let (whose, on, pool) = (Arc::clone(&peer), Arc::clone(&relay), Arc::clone(&shared));
        shared.nth(0).spawn(async move {
            let stream = PlainStream::new(tokio::net::TcpStream::from_std(served).expect("a loop"));
            Task::start(Connection::new(stream, Reader::new(0), whose, on), pool);
        });
        let mut ping = |number: u32| {
            let mut data = [0; PING_LEN];
            data[..4].copy_from_slice(&number.to_be_bytes());
            let mut frame = Vec::new();
            FromClient::Ping(data).encode(&mut frame);
            client.write_all(&frame).expect("sent");
            let mut answer = [0; HEADER_LEN + PING_LEN];
            client.read_exact(&mut answer).expect("answered");
            assert_eq!((answer[0], &answer[HEADER_LEN..]), (FrameType::Pong as u8, &data[..]));
        };
        let mut beside = 0;
        for number in 0..MOVES {
            peer.worker.store(number % 2, Ordering::Relaxed);
            // Half of the moves wake the connection; the others are noticed with the next packet.
            if number % 4 < 2 {
                peer.mailbox.wake();
            }
            ping(number);
            ping(number);
            beside += u32::from(shared.tasks(1 - number as usize % 2) == 0);
        }
        assert!(beside > MOVES / 2, "it was where it should be only {beside} times");
        peer.worker.store(7, Ordering::Relaxed);
        ping(MOVES);
        drop(client);
        while Arc::strong_count(&peer) > 1 {
            std::thread::yield_now();
        }
        assert_eq!(relay.router.client_count(), 0);
    }
}
