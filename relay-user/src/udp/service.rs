//! The UDP relay's socket tasks: each waits for its socket, and then takes turns at it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::discovery::Awaited;
use super::exchange::{Exchange, Rules, Turn};
use super::relay::UdpRelay;
use super::setback::Setbacks;
use super::socket::{SocketPair, UdpSocket};
use crate::clock;
use crate::fastpath::nexthop::announce::Announce;
use crate::observe::counters::{Counter, Tally};
use crate::relay::Relay;
use crate::route::vocabulary::BoundLeg;
use crate::workers::pause;

/// How long a task waits when a send buffer is full. What arrives meanwhile waits in the receive queue, where
/// dropping it costs nothing.
const ROOM_PAUSE: Duration = Duration::from_millis(1);

/// The state that the socket tasks share.
#[derive(Debug)]
pub struct UdpService {
    /// Decides about each control message.
    pub udp: Arc<UdpRelay>,
    /// Table and counters.
    pub relay: Arc<Relay>,
    /// Where bound legs are announced to the thread that finds next hops, if there is a fast path.
    pub bound: Option<Announce>,
    /// The answers that are awaited from STUN servers, if any are asked.
    pub awaited: Option<Arc<Awaited>>,
}

/// The socket of a pair from which a task receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// The IPv4 socket.
    V4,
    /// The IPv6 socket.
    V6,
}

/// One worker's sockets, and the memory that they share. Both tasks run on the worker's thread, so that the
/// lock is always free.
#[derive(Debug)]
pub struct Post {
    /// The sockets.
    pub pair: Arc<SocketPair>,
    exchange: Mutex<Exchange>,
}

impl Post {
    /// Takes the sockets.
    pub fn new(pair: SocketPair) -> Self {
        Self { pair: Arc::new(pair), exchange: Mutex::default() }
    }
}

impl UdpService {
    /// Serves one socket of `post` for ever. Answers and forwarded datagrams are sent on the socket of their
    /// family. No error ends it.
    pub async fn serve(self: Arc<Self>, post: Arc<Post>, family: Family) {
        let socket = match (family, &post.pair.v6) {
            (Family::V4, _) => &post.pair.v4,
            (Family::V6, Some(v6)) => v6,
            (Family::V6, None) => return,
        };
        let mut setbacks = Setbacks::default();
        loop {
            let turn = match socket.readable().await {
                Ok(mut ready) => {
                    let turn = self.turn(&post, socket);
                    // With a free slot left, the queue was empty. What came since then has woken this task
                    // anew.
                    if turn.as_ref().map_or_else(is_empty, |turn| !turn.more) {
                        ready.clear_ready();
                    }
                    turn
                }
                Err(error) => Err(error),
            };
            match turn {
                Ok(turn) => {
                    setbacks.over();
                    pause::note(turn.messages as u64);
                    if turn.no_room {
                        tokio::time::sleep(ROOM_PAUSE).await;
                    } else if turn.more {
                        // The worker's other sockets have their turn.
                        tokio::task::yield_now().await;
                    }
                }
                Err(error) if is_empty(&error) => {}
                // Most errors on a UDP socket concern an earlier datagram; upstream closes its server after
                // one.
                Err(error) => {
                    let counters = &self.relay.counters;
                    setbacks.pause(&error, "UDP relay", Counter::UdpRecvFailed, counters).await;
                }
            }
        }
    }

    fn turn(&self, post: &Post, socket: &UdpSocket) -> std::io::Result<Turn> {
        let rules = Rules {
            udp: &self.udp,
            router: &self.relay.router,
            awaited: self.awaited.as_deref(),
            now_ns: clock::monotonic_ns(),
        };
        let mut tally = Tally::default();
        let turn = post.exchange.lock().turn(&post.pair, socket, rules, &mut tally, |vni, leg, path| {
            tracing::debug!(vni, leg, remote = %path.remote, local = %path.local, "leg bound");
            if let Some(bound) = &self.bound {
                bound.bound(BoundLeg { vni, leg, path });
            }
        });
        self.relay.counters.shard().add_all(&tally);
        turn
    }
}

fn is_empty(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::WouldBlock
}
