//! The writing half of a connection or link: from its mailbox into its stream. Every packet that leaves the
//! mailbox is counted once, as sent or with the reason why not.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use super::ledger::{Ledger, Packets};
use crate::clock;
use crate::mailbox::{Lane, Mailbox};
use crate::observe::counters::Counter;
use crate::relay::Relay;
use crate::route::link::Link;
use crate::route::peer::{Peer, PeerCounters};
use crate::transport::Stream;

/// Mailbox takes per turn: one busy receiver must not keep its worker from the others.
pub(super) const WRITES_PER_TURN: usize = 4;

/// Who gets the frames, and how their ends are counted.
#[derive(Clone, Copy, Debug)]
pub struct Receiver<'a> {
    mailbox: &'a Mailbox,
    counters: &'a PeerCounters,
    blocked_since_ms: &'a AtomicU64,
    /// Sent packets; sent payload bytes; packets sealed for a connection that then ended; packets that had
    /// not left the mailbox.
    ends: [Counter; 4],
    /// Packets of a link that were lost with it.
    lost: Option<&'a AtomicU64>,
}

impl<'a> Receiver<'a> {
    /// A client.
    pub fn client(peer: &'a Peer) -> Self {
        Self {
            mailbox: &peer.mailbox,
            counters: &peer.counters,
            blocked_since_ms: &peer.timers.blocked_since_ms,
            ends: [
                Counter::PacketsSent,
                Counter::BytesSent,
                Counter::DropWriteError,
                Counter::DropGoneDisconnected,
            ],
            lost: None,
        }
    }

    /// Another relay.
    pub fn link(link: &'a Link) -> Self {
        Self {
            mailbox: &link.mailbox,
            counters: &link.counters,
            blocked_since_ms: &link.times.blocked_since_ms,
            ends: [
                Counter::ForwardedOut,
                Counter::ForwardedOutBytes,
                Counter::DropMeshLink,
                Counter::DropMeshLink,
            ],
            lost: Some(&link.dropped),
        }
    }

    /// Refuses further frames, and counts those that waited.
    pub fn close(self, relay: &Relay) {
        let [.., waited] = self.ends;
        let left = self.mailbox.close();
        relay.budget.add(-(left.bytes() as i64));
        self.lose(relay, waited, left.packets(), left.count(Lane::Control).frames);
    }

    fn sent(self, relay: &Relay, Packets { packets, bytes }: Packets) {
        if packets == 0 {
            return;
        }
        let [sent, sent_bytes, ..] = self.ends;
        let shard = relay.counters.shard();
        shard.add(sent, packets as u64);
        shard.add(sent_bytes, bytes as u64);
        self.counters.packets_out.fetch_add(packets as u64, Ordering::Relaxed);
        self.counters.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn lose(self, relay: &Relay, why: Counter, packets: usize, control: usize) {
        let shard = relay.counters.shard();
        shard.add(why, packets as u64);
        shard.add(Counter::DropControl, control as u64);
        if let Some(lost) = self.lost {
            lost.fetch_add(packets as u64, Ordering::Relaxed);
        }
    }
}

/// The state of the writing half.
#[derive(Debug, Default)]
pub struct Outgoing {
    ledger: Ledger,
    /// Bytes that were left to flush at the last look; they count towards the budget.
    unsent: usize,
}

impl Outgoing {
    /// Writes what the stream takes now. Ready: the turn is used up, and more may be left.
    ///
    /// # Errors
    /// The stream's error; the connection is over.
    pub fn write<S: Stream>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
        to: Receiver<'_>,
        relay: &Relay,
    ) -> Poll<io::Result<()>> {
        for left in (0..WRITES_PER_TURN).rev() {
            let flushed = stream.poll_flush(cx)?;
            self.note_unsent(stream, to, relay);
            if flushed.is_pending() {
                to.mailbox.settle();
                return Poll::Pending;
            }
            let batch = to.mailbox.take();
            if batch.is_empty() {
                return Poll::Pending;
            }
            // After the last take, all other tasks have their turns: the data must not be held back until
            // then.
            let more = left > 0 && batch.is_followed();
            let sent = stream.send(cx, &mut batch.slices(), more);
            relay.budget.add(-(batch.bytes() as i64));
            if let Err(error) = sent {
                let [_, _, why, _] = to.ends;
                to.lose(relay, why, batch.packets(), batch.count(Lane::Control).frames);
                return Poll::Ready(Err(error));
            }
            to.sent(relay, self.ledger.begin(&batch, stream.unsent_plaintext()));
        }
        Poll::Ready(Ok(()))
    }

    /// Looks at the bytes that the socket has not taken yet. Counts the packets that it took since the last
    /// look, updates the budget, and restarts the write deadline if it took something.
    pub fn note_unsent<S: Stream>(&mut self, stream: &S, to: Receiver<'_>, relay: &Relay) {
        let unsent = stream.unsent();
        let before = std::mem::replace(&mut self.unsent, unsent);
        // A batch whose rest left between two looks must still be counted.
        if before == 0 && unsent == 0 && !self.ledger.is_open() {
            return;
        }
        relay.budget.add(unsent as i64 - before as i64);
        let blocked = to.blocked_since_ms;
        if unsent == 0 {
            blocked.store(0, Ordering::Relaxed);
        } else if unsent != before || blocked.load(Ordering::Relaxed) == 0 {
            blocked.store(clock::monotonic_ms(), Ordering::Relaxed);
        }
        to.sent(relay, self.ledger.advance(stream.unsent_plaintext()));
    }

    /// Ends the half with its connection: counts the packets that the socket never took.
    pub fn end(&mut self, to: Receiver<'_>, relay: &Relay) {
        relay.budget.add(-(std::mem::take(&mut self.unsent) as i64));
        let unsent = self.ledger.end();
        let [_, _, why, _] = to.ends;
        to.lose(relay, why, unsent.packets, unsent.control);
    }
}
