//! Moves packets from plaintext to the receivers' mailboxes: deframe, look up, copy once.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use relay_common::derp::deframer::{Deframer, PushError};
use relay_common::derp::frame::{FrameType, Header};
use relay_common::derp::limits::{self, Disposition, FrameError};
use relay_common::derp::message::{
    FromClient, FromServer, MessageError, PeerGoneReason, forward_packet_header, recv_packet_header,
};
use relay_common::derp::{
    HEADER_LEN, KEY_LEN, NOT_HERE_BURST, NOT_HERE_PER_SECOND, PING_LEN, is_disco_packet,
};
use relay_common::key::NodePublic;

use super::bucket::Bucket;
use crate::mailbox::{Lane, News};
use crate::observe::counters::{Counter, Tally};
use crate::relay::Relay;
use crate::route::cache::Cache;
use crate::route::gone::Audience;
use crate::route::link::{Link, Way};
use crate::route::links::Note;
use crate::route::peer::Peer;
use crate::route::vocabulary::ConnId;
use crate::transport::fitting;
use crate::workers::pause;

/// How a client broke the protocol. This ends its connection and no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolFault {
    /// A frame whose length its type does not allow.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A frame whose content does not fit its type.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// A frame that only a mesh peer may send.
    #[error("frame type {0:#04x} needs the mesh key")]
    NeedsMesh(u8),
}

/// Pairs of a key elsewhere and a connection here that are remembered at most.
const MAX_NOTED: usize = 64 * 1024;

thread_local! {
    /// Receivers to wake at the end of the worker's current read.
    static TOUCHED: RefCell<Vec<Arc<Peer>>> = const { RefCell::new(Vec::new()) };
    /// Links to wake at the end of the worker's current read.
    static TOUCHED_LINKS: RefCell<Vec<Arc<Link>>> = const { RefCell::new(Vec::new()) };
}

/// The reading half of a connection.
#[derive(Debug)]
pub struct Reader {
    deframer: Deframer,
    cache: Cache,
    not_here: Bucket,
    /// What only a connection of another relay needs.
    mesh: Option<Box<Forwarded>>,
}

impl Reader {
    /// A reader at the start of the frame stream.
    pub fn new(now_ns: u64) -> Self {
        let not_here = Bucket::new(NOT_HERE_PER_SECOND, NOT_HERE_BURST, now_ns);
        Self { deframer: Deframer::new(), cache: Cache::default(), not_here, mesh: None }
    }

    /// From now on, takes the frames that only a relay with the mesh key may send.
    pub fn accept_mesh(&mut self) {
        self.mesh = Some(Box::default());
    }

    /// Starts one look at a socket. `clock` is read once, with the first plaintext: most looks find nothing,
    /// and so cost nothing.
    pub fn turn<'a>(&'a mut self, me: &'a Arc<Peer>, relay: &'a Relay, clock: fn() -> u64) -> Turn<'a> {
        Turn { reader: self, me, relay, clock, begun: None }
    }

    /// All peers that have had packets from this connection.
    pub fn take_audience(&mut self) -> Audience {
        std::mem::take(&mut self.cache).into_audience()
    }
}

/// The handling of one read.
#[derive(Debug)]
pub struct Turn<'a> {
    reader: &'a mut Reader,
    me: &'a Arc<Peer>,
    relay: &'a Relay,
    clock: fn() -> u64,
    begun: Option<ReadTotals>,
}

/// Totals that are gathered over a read.
#[derive(Debug)]
struct ReadTotals {
    now_ns: u64,
    touched: Vec<Arc<Peer>>,
    touched_links: Vec<Arc<Link>>,
    tally: Tally,
    /// Bytes by which mailboxes have grown.
    growth: i64,
    /// Memory is short.
    tight: bool,
}

/// Pairs of a key elsewhere and a connection here.
type Pairs = HashMap<(NodePublic, ConnId), Note, foldhash::fast::RandomState>;

/// What is needed for packets of another relay's clients.
#[derive(Debug, Default)]
struct Forwarded {
    /// Their receivers. They have heard nothing of this connection's own key.
    cache: Cache,
    /// Which connections here have had packets from which keys of the other relay, as far as it was noted.
    noted: Pairs,
    /// The other relay is told of every key that comes and goes.
    watches: bool,
}

impl Forwarded {
    /// Notes, once for each pair, that `peer` must be told when the key `source` is gone.
    fn note(noted: &mut Pairs, source: &NodePublic, peer: &Arc<Peer>, relay: &Relay) {
        if noted.get(&(*source, peer.id)).is_some_and(Note::stands) {
            return;
        }
        if noted.len() >= MAX_NOTED {
            // They are noted again: that costs time and changes nothing.
            noted.clear();
        }
        if let Some(note) = relay.router.heard_from(source, peer) {
            noted.insert((*source, peer.id), note);
        }
    }
}

impl ReadTotals {
    fn deliver(&mut self, peer: &Arc<Peer>, lane: Lane, head: &[u8], packet: &[u8]) {
        match peer.mailbox.push(lane, head, packet, self.tight) {
            Ok(pushed) => {
                self.tally.add(Counter::DropQueueHead, pushed.dropped.frames as u64);
                self.growth += pushed.growth;
                if pushed.wake {
                    self.touched.push(Arc::clone(peer));
                }
            }
            Err(_) => self.tally.add(Counter::DropGoneDisconnected, 1),
        }
    }

    fn forward(&mut self, link: &Arc<Link>, lane: Lane, head: &[u8], packet: &[u8]) {
        match link.mailbox.push(lane, head, packet, self.tight) {
            Ok(pushed) => {
                if pushed.dropped.frames > 0 {
                    self.tally.add(Counter::DropQueueHead, pushed.dropped.frames as u64);
                    link.dropped.fetch_add(pushed.dropped.frames as u64, Ordering::Relaxed);
                }
                self.growth += pushed.growth;
                if pushed.wake {
                    self.touched_links.push(Arc::clone(link));
                }
            }
            Err(_) => self.tally.add(Counter::DropMeshLink, 1),
        }
    }
}

impl Turn<'_> {
    /// Handles the frames in a run of plaintext, in place where they are whole.
    ///
    /// # Errors
    /// The client broke the protocol; the frames before the fault have been handled.
    pub fn feed(&mut self, plaintext: &[u8]) -> Result<(), ProtocolFault> {
        let begun = self.begun.get_or_insert_with(|| ReadTotals {
            now_ns: (self.clock)(),
            touched: TOUCHED.with_borrow_mut(std::mem::take),
            touched_links: TOUCHED_LINKS.with_borrow_mut(std::mem::take),
            tally: Tally::default(),
            growth: 0,
            tight: self.relay.budget.is_tight(),
        });
        let (me, relay, now_ns) = (self.me, self.relay, begun.now_ns);
        let Reader { deframer, cache, not_here, mesh } = &mut *self.reader;
        let mut handler = Handler { cache, not_here, mesh: mesh.as_deref_mut(), me, relay, begun };
        let skipped = Cell::new(0);
        // Called once for each frame, skipped frames included: any frame of a duplicate makes it the active
        // connection.
        let admit = |header| {
            if me.is_shared() {
                relay.router.frame_from_shared(me.id, now_ns);
            }
            let disposition = limits::server(header)?;
            skipped.set(skipped.get() + u64::from(disposition == Disposition::Skip));
            Ok(disposition)
        };
        let on_frame = |header, payload: &[u8]| handler.frame(header, payload);
        let result = deframer.push_with(&mut fitting::Fitting, plaintext, admit, on_frame);
        handler.begun.tally.add(Counter::UnknownFrames, skipped.get());
        result.map_err(|error| match error {
            PushError::Frame(error) => ProtocolFault::Frame(error),
            PushError::Sink(fault) => fault,
        })
    }
}

/// Ends a read: wakes each receiver once and adds up the counters. This is done on drop, so that it happens
/// on every path: a receiver that is not woken would wait for ever.
impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let Some(begun) = self.begun.take() else { return };
        let ReadTotals { mut touched, mut touched_links, tally, growth, .. } = begun;
        let (me, relay) = (self.me, self.relay);
        relay.budget.add(growth);
        touched.drain(..).for_each(|peer| peer.mailbox.wake());
        TOUCHED.with_borrow_mut(|kept| *kept = touched);
        touched_links.drain(..).for_each(|link| link.mailbox.wake());
        TOUCHED_LINKS.with_borrow_mut(|kept| *kept = touched_links);
        pause::note(tally.get(Counter::PacketsReceived));
        me.counters.packets_in.fetch_add(tally.get(Counter::PacketsReceived), Ordering::Relaxed);
        me.counters.bytes_in.fetch_add(tally.get(Counter::BytesReceived), Ordering::Relaxed);
        relay.counters.shard().add_all(&tally);
    }
}

#[derive(Debug)]
struct Handler<'a> {
    cache: &'a mut Cache,
    not_here: &'a mut Bucket,
    mesh: Option<&'a mut Forwarded>,
    me: &'a Arc<Peer>,
    relay: &'a Relay,
    begun: &'a mut ReadTotals,
}

impl Handler<'_> {
    fn frame(&mut self, header: Header, payload: &[u8]) -> Result<(), ProtocolFault> {
        if header.kind == FrameType::SendPacket as u8
            && let Some((dest, packet)) = payload.split_first_chunk::<KEY_LEN>()
        {
            self.packet(NodePublic::from_ref(dest), packet);
            return Ok(());
        }
        if header.kind == FrameType::ForwardPacket as u8
            && self.mesh.is_some()
            && let Some((source, rest)) = payload.split_first_chunk::<KEY_LEN>()
            && let Some((dest, packet)) = rest.split_first_chunk::<KEY_LEN>()
        {
            self.forwarded(NodePublic::from_ref(source), NodePublic::from_ref(dest), packet);
            return Ok(());
        }
        match FromClient::parse(header, payload)? {
            FromClient::NotePreferred(preferred) => {
                self.me.timers.preferred.store(preferred, Ordering::Relaxed);
            }
            FromClient::Ping(data) => {
                self.begun.tally.add(Counter::Pings, 1);
                self.answer_ping(data);
            }
            // This relay itself, by a link to one of its own addresses: it needs no news of itself.
            FromClient::WatchConns if self.mesh.is_some() && self.me.key == self.relay.public => {}
            FromClient::WatchConns if self.mesh.is_some() => {
                if let Some(mesh) = &mut self.mesh {
                    mesh.watches = true;
                }
                self.relay.watch(self.me);
            }
            FromClient::ClosePeer(key) if self.mesh.is_some() => self.relay.router.close(key),
            FromClient::ForwardPacket { .. } | FromClient::WatchConns | FromClient::ClosePeer(_) => {
                return Err(ProtocolFault::NeedsMesh(header.kind));
            }
            // The header was admitted, so its type is one of those above; all other frames have been skipped.
            _ => {}
        }
        Ok(())
    }

    fn packet(&mut self, dest: &NodePublic, packet: &[u8]) {
        self.begun.tally.add(Counter::PacketsReceived, 1);
        self.begun.tally.add(Counter::BytesReceived, packet.len() as u64);
        let disco = is_disco_packet(packet);
        let Some(way) = self.cache.lookup(dest, &self.relay.router) else {
            self.begun.tally.add(Counter::DropUnknownDest, 1);
            // Only senders of disco packets are told: disco asks whether a peer is here, and the limiter
            // keeps the answers cheap.
            if disco && self.not_here.take(self.begun.now_ns) {
                self.answer_gone(dest);
            }
            return;
        };
        let lane = if disco { Lane::Disco } else { Lane::Data };
        match way {
            Way::Here(peer) => {
                let head = recv_packet_header(&self.me.key, packet.len());
                self.begun.deliver(peer, lane, &head, packet);
            }
            Way::Link(remote) => {
                let head = forward_packet_header(&self.me.key, dest, packet.len());
                self.begun.forward(&remote.link, lane, &head, packet);
            }
        }
    }

    /// Handles a packet of another relay's client. It never leaves by a link again.
    fn forwarded(&mut self, source: &NodePublic, dest: &NodePublic, packet: &[u8]) {
        self.begun.tally.add(Counter::ForwardedIn, 1);
        self.begun.tally.add(Counter::ForwardedInBytes, packet.len() as u64);
        let Some(mesh) = &mut self.mesh else { return };
        let disco = is_disco_packet(packet);
        let Some(Way::Here(peer)) = mesh.cache.lookup(dest, &self.relay.router) else {
            self.begun.tally.add(Counter::DropUnknownDest, 1);
            if disco && self.not_here.take(self.begun.now_ns) {
                match mesh.watches {
                    true => self.owe_gone(dest),
                    false => self.answer_gone(dest),
                }
            }
            return;
        };
        let lane = if disco { Lane::Disco } else { Lane::Data };
        let head = recv_packet_header(source, packet.len());
        self.begun.deliver(peer, lane, &head, packet);
        Forwarded::note(&mut mesh.noted, source, peer, self.relay);
    }

    // The client that is being read is not woken: its own task is running and will look at its mailbox.

    /// Answers this packet with PeerGone. It is not owed news: every answer is sent, as upstream does.
    fn answer_gone(&mut self, dest: &NodePublic) {
        let mut frame = Vec::new();
        FromServer::PeerGone { peer: dest, reason: PeerGoneReason::NotHere }.encode(&mut frame);
        self.answer(&frame);
    }

    /// Tells a watcher that this key is not here. It is news, in its order with all other news of the key:
    /// the key may come back before the watcher has been told.
    fn owe_gone(&mut self, dest: &NodePublic) {
        if let Ok(pushed) = self.me.mailbox.owe(*dest, News::Gone(PeerGoneReason::NotHere)) {
            self.begun.growth += pushed.growth;
        }
    }

    fn answer(&mut self, frame: &[u8]) {
        if let Ok(pushed) = self.me.mailbox.push(Lane::Control, frame, &[], self.begun.tight) {
            self.begun.tally.add(Counter::DropControl, pushed.dropped.frames as u64);
            self.begun.growth += pushed.growth;
        }
    }

    fn answer_ping(&mut self, data: [u8; PING_LEN]) {
        let mut pong = [0; HEADER_LEN + PING_LEN];
        let (head, body) = pong.split_at_mut(HEADER_LEN);
        head.copy_from_slice(&Header::new(FrameType::Pong, PING_LEN as u32).encode());
        body.copy_from_slice(&data);
        self.answer(&pong);
    }
}

#[cfg(test)]
mod tests;
