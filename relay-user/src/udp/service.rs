//! The UDP relay's socket tasks: receive a batch, decide about each datagram, send the results.

use std::net::SocketAddr;
use std::sync::Arc;

use relay_common::stun;
use tokio::sync::mpsc;

use super::batch::{Outgoing, ReceivedBatch, ReceivedDatagram};
use super::discovery::Awaited;
use super::relay::{Action, UdpRelay};
use super::setback::Setbacks;
use super::socket::{SocketPair, UdpSocket};
use crate::clock;
use crate::observe::counters::{Counter, Tally};
use crate::relay::Relay;
use crate::route::vocabulary::{LegIndex, LegPath};

/// A leg was bound, and its next hop must be looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoundLeg {
    /// The session.
    pub vni: u32,
    /// The leg.
    pub leg: LegIndex,
    /// The path that the leg is bound to.
    pub path: LegPath,
}

/// The state that the socket tasks share.
#[derive(Debug)]
pub struct UdpService {
    /// Decides about each datagram.
    pub udp: Arc<UdpRelay>,
    /// Table and counters.
    pub relay: Arc<Relay>,
    /// The channel to the task that looks up next hops, if there is a fast path. If the channel is full, the
    /// task's refresh timer finds the leg later.
    pub bound: Option<mpsc::Sender<BoundLeg>>,
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

impl UdpService {
    /// Serves one socket of `pair` for ever. Answers and forwarded datagrams are sent on the socket of their
    /// family.
    pub async fn serve(self: Arc<Self>, pair: Arc<SocketPair>, family: Family) {
        let socket = match (family, &pair.v6) {
            (Family::V4, _) => &pair.v4,
            (Family::V6, Some(v6)) => v6,
            (Family::V6, None) => return,
        };
        let mut received = ReceivedBatch::default();
        let mut setbacks = Setbacks::default();
        loop {
            match socket.recv(&mut received).await {
                Ok(_) => {
                    setbacks.over();
                    self.batch(&pair, socket, &received);
                }
                // Most errors on a UDP socket concern an earlier datagram; upstream closes its server after
                // one.
                Err(error) => {
                    let counters = &self.relay.counters;
                    setbacks.pause(&error, "UDP relay", Counter::UdpRecvFailed, counters).await;
                }
            }
        }
    }

    fn batch(&self, pair: &SocketPair, socket: &UdpSocket, received: &ReceivedBatch) {
        let now_ns = clock::monotonic_ns();
        let mut tally = Tally::default();
        let decided: Vec<_> = received
            .iter()
            .filter_map(|datagram| {
                let path = path(&datagram, socket.local());
                if !datagram.truncated && self.stun_answer(datagram.payload, datagram.from) {
                    return None;
                }
                let action = match (datagram.truncated, path) {
                    (true, _) => Action::Drop(Counter::UdpTruncated),
                    (false, path) => self.udp.decide(&self.relay.router, datagram.payload, path, now_ns),
                };
                self.count(&action, datagram.payload.len(), &mut tally);
                Planned::new(action, datagram.payload, path)
            })
            .collect();
        for family in [Family::V4, Family::V6] {
            let wanted = |out: &Outgoing<'_>| out.to.is_ipv4() == (family == Family::V4);
            let batch: Vec<_> = decided.iter().map(Planned::outgoing).filter(wanted).collect();
            let Some(first) = batch.first() else { continue };
            let failed = match pair.of(first.to) {
                Some(socket) => socket.send(&batch).failed,
                None => batch.len(),
            };
            tally.add(Counter::UdpSendFailed, failed as u64);
        }
        self.relay.counters.shard().add_all(&tally);
    }

    /// Takes a datagram that is an answer of a STUN server, asked for or not; returns whether it was one.
    /// Must be called before the datagram is read as Geneve.
    fn stun_answer(&self, datagram: &[u8], from: SocketAddr) -> bool {
        let Some(awaited) = self.awaited.as_ref().filter(|_| stun::is_answer(datagram)) else { return false };
        self.relay.counters.add(awaited.take(datagram, from), 1);
        true
    }

    fn count(&self, action: &Action, bytes: usize, tally: &mut Tally) {
        match action {
            Action::Forward(_) => {
                tally.add(Counter::UdpForwarded, 1);
                tally.add(Counter::UdpForwardedBytes, bytes as u64);
            }
            Action::Challenge(_) => tally.add(Counter::UdpChallenges, 1),
            Action::Bound { vni, leg, path } => {
                tally.add(Counter::UdpBinds, 1);
                tracing::debug!(vni, leg, remote = %path.remote, local = %path.local, "leg bound");
                if let Some(bound) = &self.bound {
                    // The channel is full: the receiver's refresh timer will find this leg too.
                    let _ = bound.try_send(BoundLeg { vni: *vni, leg: *leg, path: *path });
                }
            }
            Action::Drop(reason) => tally.add(*reason, 1),
        }
    }
}

/// A datagram to send, with the data that it borrows.
enum Planned<'a> {
    Forward { payload: &'a [u8], to: LegPath },
    Answer { payload: Vec<u8>, to: LegPath },
}

impl<'a> Planned<'a> {
    fn new(action: Action, payload: &'a [u8], from: LegPath) -> Option<Self> {
        match action {
            Action::Forward(to) => Some(Self::Forward { payload, to }),
            Action::Challenge(answer) => Some(Self::Answer { payload: answer, to: from }),
            Action::Bound { .. } | Action::Drop(_) => None,
        }
    }

    fn outgoing(&self) -> Outgoing<'_> {
        let (payload, to) = match self {
            Self::Forward { payload, to } => (*payload, to),
            Self::Answer { payload, to } => (payload.as_slice(), to),
        };
        // Sent from the address that this client talks to, so that the client and its NATs recognise the
        // answer.
        Outgoing { payload, to: to.remote, from: Some(to.local.ip()) }
    }
}

/// The path by which a datagram came.
fn path(datagram: &ReceivedDatagram<'_>, bound: SocketAddr) -> LegPath {
    let ip = datagram.local_ip.unwrap_or_else(|| bound.ip());
    LegPath { remote: datagram.from, local: SocketAddr::new(ip, bound.port()) }
}
