//! One turn of a worker: receives messages, decides about each run of datagrams, and sends what is to be
//! sent. No payload is copied: what is decided about are places in the slab.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use relay_common::geneve::{self, GeneveError};
use relay_common::stun;

use super::batch::{Arrival, MOST_SLOTS, Slab};
use super::data::DataRoute;
use super::deliver::Loss;
use super::discovery::Awaited;
use super::gather::{Flow, Piece};
use super::relay::{Action, UdpRelay, malformed};
use super::runs::{Run, runs};
use super::sender::{Sender, Settled};
use super::socket::{SocketPair, TRAIN_SLOT_BYTES, UdpSocket};
use crate::observe::counters::{Counter, Tally};
use crate::route::Router;
use crate::route::session::SessionRoute;
use crate::route::vocabulary::{LegIndex, LegPath};

/// Messages per receive call while trains arrive: the worker holds other packets up for no longer than such a
/// turn takes.
const TRAIN_SLOTS: usize = 16;

/// One worker's memory for packets, which both of its sockets use in turn.
#[derive(Debug)]
pub(super) struct Exchange {
    slab: Slab,
    sender: Sender,
    outgoing: Vec<Outgoing>,
    recent: Option<DataRoute>,
    slots: usize,
}

/// What the decisions are made with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules<'a> {
    /// Decides about control messages.
    pub(super) udp: &'a UdpRelay,
    /// Where the sessions are.
    pub(super) router: &'a Router,
    /// The answers that are awaited from STUN servers, if any are asked.
    pub(super) awaited: Option<&'a Awaited>,
    /// CLOCK_MONOTONIC nanoseconds.
    pub(super) now_ns: u64,
}

impl Rules<'_> {
    /// What to count for a datagram that is not Geneve. Answers of STUN servers are among these: their first
    /// bytes are no header of Geneve.
    fn not_geneve(&self, datagram: &[u8], from: SocketAddr, error: GeneveError) -> Counter {
        match self.awaited.filter(|_| stun::is_answer(datagram)) {
            Some(awaited) => awaited.take(datagram, from),
            None => malformed(error),
        }
    }
}

/// How a turn went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Turn {
    /// Messages received.
    pub(super) messages: usize,
    /// Whether all slots were used, so that there may be more.
    pub(super) more: bool,
    /// Whether a send buffer was full.
    pub(super) no_room: bool,
}

/// Datagrams to send.
#[derive(Debug)]
struct Outgoing {
    piece: Piece,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// Data of this leg of a session, from here on in the slab.
    Data { at: usize, session: Arc<SessionRoute>, leg: LegIndex },
    /// An answer to a client's bind.
    Challenge(Vec<u8>),
}

impl Default for Exchange {
    fn default() -> Self {
        Self {
            slab: Slab::new(MOST_SLOTS, TRAIN_SLOT_BYTES),
            sender: Sender::default(),
            outgoing: Vec::new(),
            recent: None,
            slots: MOST_SLOTS,
        }
    }
}

impl Exchange {
    /// Receives on `socket`, which is one of `pair`, and sends on the socket of each receiver's family.
    /// `bound` is told of each leg that a client has bound.
    ///
    /// # Errors
    /// The system's error; `WouldBlock` if there is nothing to receive.
    pub(super) fn turn(
        &mut self,
        pair: &SocketPair,
        socket: &UdpSocket,
        rules: Rules<'_>,
        tally: &mut Tally,
        mut bound: impl FnMut(u32, LegIndex, LegPath),
    ) -> io::Result<Turn> {
        let messages = socket.recv(&mut self.slab, self.slots)?;
        tally.add(Counter::UdpRecvCalls, 1);
        let mut turn = Turn { messages, more: messages == self.slots, no_room: false };
        let mut trains = false;
        for index in 0..self.slab.arrivals().len() {
            let arrival = self.slab.arrivals()[index];
            trains |= arrival.notes.segment > 0;
            if let Some(total) = arrival.notes.queue_drops {
                tally.add(Counter::UdpQueueFull, socket.queue_drops(total).into());
            }
            self.decide(&arrival, path(&arrival, socket.local()), rules, tally, &mut bound);
        }
        self.slots = if trains { TRAIN_SLOTS } else { MOST_SLOTS };
        turn.no_room = self.send(pair, rules.now_ns, tally);
        self.outgoing.clear();
        self.recent = None;
        Ok(turn)
    }

    /// Decides about one message.
    fn decide(
        &mut self,
        arrival: &Arrival,
        path: LegPath,
        rules: Rules<'_>,
        tally: &mut Tally,
        bound: &mut impl FnMut(u32, LegIndex, LegPath),
    ) {
        let whole = Piece { flow: flow(path, 0), len: arrival.len, segment: arrival.notes.segment };
        if arrival.truncated {
            return tally.add(Counter::UdpTruncated, whole.datagrams() as u64);
        }
        let Self { slab, outgoing, recent, .. } = self;
        let message = slab.bytes(arrival.at, arrival.len);
        for run in runs(message, arrival.notes.segment) {
            let Run { at, len, .. } = run;
            let bytes = &message[at..at + len];
            let datagrams = || bytes.chunks(whole.size()).chain(bytes.is_empty().then_some(bytes));
            let header = geneve::parse(bytes).map(|(header, _)| header);
            match (header, run.head) {
                (Ok(header), Some(head)) if !header.control => {
                    if !recent.as_ref().is_some_and(|recent| recent.is_for(&head, &path)) {
                        match DataRoute::find(rules.router, head, header.vni, path, rules.now_ns) {
                            Ok(found) => *recent = Some(found),
                            Err(reason) => {
                                tally.add(reason, datagrams().count() as u64);
                                continue;
                            }
                        }
                    }
                    let Some(route) = recent else { continue };
                    outgoing.push(Outgoing {
                        piece: Piece {
                            flow: flow(route.to, arrival.notes.tos),
                            len,
                            segment: arrival.notes.segment,
                        },
                        source: Source::Data {
                            at: arrival.at + at,
                            session: Arc::clone(&route.session),
                            leg: route.leg,
                        },
                    });
                }
                (Ok(_), _) => {
                    // A leg may move, also the one that was looked up last.
                    *recent = None;
                    for datagram in datagrams() {
                        match rules.udp.decide(rules.router, datagram, path, rules.now_ns) {
                            Action::Challenge(answer) => outgoing.push(Outgoing {
                                piece: Piece { flow: flow(path, 0), len: answer.len(), segment: 0 },
                                source: Source::Challenge(answer),
                            }),
                            Action::Bound { vni, leg, path } => {
                                tally.add(Counter::UdpBinds, 1);
                                bound(vni, leg, path);
                            }
                            Action::Drop(reason) => tally.add(reason, 1),
                            Action::Forward(_) => {}
                        }
                    }
                }
                (Err(error), _) => {
                    for datagram in datagrams() {
                        tally.add(rules.not_geneve(datagram, path.remote, error), 1);
                    }
                }
            }
        }
    }

    /// Sends what has been decided. Returns whether a send buffer was full.
    fn send(&mut self, pair: &SocketPair, now_ns: u64, tally: &mut Tally) -> bool {
        let Self { slab, sender, outgoing, .. } = self;
        let payload = |number: usize| match &outgoing[number] {
            Outgoing { piece, source: Source::Data { at, .. } } => slab.bytes(*at, piece.len),
            Outgoing { source: Source::Challenge(answer), .. } => answer,
        };
        let mut no_room = false;
        for v4 in [true, false] {
            let wanted = |one: &(usize, Piece)| one.1.flow.to.is_ipv4() == v4;
            let pieces = || outgoing.iter().map(|one| one.piece).enumerate().filter(wanted);
            let Some((_, first)) = pieces().next() else { continue };
            let Some(socket) = pair.of(first.flow.to) else {
                let lost = pieces().map(|(_, piece)| piece.datagrams() as u64).sum();
                tally.add(Counter::UdpSendFailed, lost);
                continue;
            };
            let settle = |number: usize, settled: Settled| count(&outgoing[number].source, settled, tally);
            let sent = sender.send(socket, pieces(), payload, now_ns, settle);
            tally.add(Counter::UdpSendCalls, sent.calls);
            tally.add(Counter::UdpSentApart, sent.refused_trains);
            no_room |= sent.full;
        }
        no_room
    }
}

/// Counts what became of some datagrams.
fn count(source: &Source, settled: Settled, tally: &mut Tally) {
    let (datagrams, bytes) = (settled.datagrams as u64, settled.bytes as u64);
    match (settled.loss, source) {
        (None, Source::Data { session, leg, .. }) => {
            session.side[*leg].count(datagrams, bytes);
            tally.add(Counter::UdpForwarded, datagrams);
            tally.add(Counter::UdpForwardedBytes, bytes);
        }
        (None, Source::Challenge(_)) => tally.add(Counter::UdpChallenges, datagrams),
        (Some(Loss::NoRoom), _) => tally.add(Counter::UdpSendNoRoom, datagrams),
        (Some(Loss::TooLong), _) => tally.add(Counter::UdpSendTooLong, datagrams),
        (Some(Loss::Refused), _) => tally.add(Counter::UdpSendFailed, datagrams),
    }
}

/// Where a leg's packets go. They leave from the address that this client talks to, so that the client and
/// its NATs recognise them.
fn flow(leg: LegPath, tos: u8) -> Flow {
    Flow { to: leg.remote, from: Some(leg.local.ip()), tos }
}

/// The path by which a message came.
fn path(arrival: &Arrival, bound: SocketAddr) -> LegPath {
    let ip = arrival.notes.local_ip.unwrap_or_else(|| bound.ip());
    LegPath { remote: arrival.from, local: SocketAddr::new(ip, bound.port()) }
}

#[cfg(test)]
mod tests;
