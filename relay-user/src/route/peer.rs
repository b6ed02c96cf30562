//! A logged-in client as others see it: its mailbox, and whether packets for its key still go to it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use relay_common::derp::info::AppName;
use relay_common::derp::message::PeerPresentFlags;
use relay_common::key::NodePublic;

use super::vocabulary::ConnId;
use crate::mailbox::{Mailbox, News, Presence};

/// The handle that mirrors, caches and other connections share.
///
/// The fields that a look-up reads come first, in their own cache line, which is rarely written. The
/// reference count before them and the mailbox and counters behind them are written often; their cache lines
/// are separate, so these writes do not slow look-ups.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Peer {
    /// The node key that the client proved.
    pub key: NodePublic,
    /// The connection's name.
    pub id: ConnId,
    active: AtomicBool,
    shared: AtomicBool,
    ending: AtomicU8,
    /// The address that the client connected from.
    pub remote: SocketAddr,
    /// Frames to be written to the client.
    pub mailbox: Mailbox,
    /// The client's counters, for `relayd clients`.
    pub counters: PeerCounters,
    /// Times that the sweep reads.
    pub timers: PeerTimers,
    /// The connection's protocol and label.
    pub about: About,
    /// Number of the worker that must run the connection's task; the task moves there.
    pub worker: AtomicU32,
}

/// What `relayd clients` shows of a connection besides its numbers.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// The transport protocol under the DERP frames, as the stream names it.
    pub protocol: &'static str,
    /// The label that the client gave itself.
    pub app_name: AppName,
    /// What kind of client it is.
    pub flags: PeerPresentFlags,
}

/// Packets and bytes of one connection. Its own task writes them, once per batch.
#[derive(Debug, Default)]
pub struct PeerCounters {
    /// Packets the client sent.
    pub packets_in: AtomicU64,
    /// Payload bytes of the packets that the client sent.
    pub bytes_in: AtomicU64,
    /// Packets written to the client.
    pub packets_out: AtomicU64,
    /// Payload bytes of the packets written to the client.
    pub bytes_out: AtomicU64,
}

/// Times that the sweep compares with its own clock. One sweep serves all connections, instead of a timer for
/// each.
#[derive(Debug, Default)]
pub struct PeerTimers {
    /// CLOCK_MONOTONIC milliseconds when a KeepAlive is due.
    pub keepalive_due_ms: AtomicU64,
    /// CLOCK_MONOTONIC milliseconds since when the client has taken none of the bytes that wait for it; 0:
    /// none wait.
    pub blocked_since_ms: AtomicU64,
    /// CLOCK_MONOTONIC milliseconds of the login.
    pub connected_ms: AtomicU64,
    /// Whether the client calls this relay its home.
    pub preferred: AtomicBool,
}

/// Why the relay ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Ending {
    /// The client took nothing for longer than `-tcp-write-timeout`.
    WriteTimeout = 1,
    /// The daemon stops.
    Shutdown = 2,
    /// Too many bytes waited for all clients, and this client had been blocked longest (`--queue-memory`).
    QueueMemory = 3,
    /// A relay with the mesh key asked for it.
    Closed = 4,
}

impl Peer {
    /// A handle that is not yet in the table.
    pub fn new(key: NodePublic, id: ConnId, remote: SocketAddr) -> Self {
        Self {
            key,
            id,
            active: AtomicBool::new(false),
            shared: AtomicBool::new(false),
            ending: AtomicU8::new(0),
            remote,
            mailbox: Mailbox::default(),
            counters: PeerCounters::default(),
            timers: PeerTimers::default(),
            about: About::default(),
            worker: AtomicU32::new(0),
        }
    }

    /// The client as watchers are told of it; `is_first`: they do not know the key.
    pub fn presence(&self, is_first: bool) -> News {
        let About { app_name, flags, .. } = &self.about;
        let flags = if *flags == PeerPresentFlags::default() { PeerPresentFlags::REGULAR } else { *flags };
        News::Here(Box::new(Presence { addr: self.remote, flags, app_name: app_name.clone(), is_first }))
    }

    /// Whether packets for the key go here. A cached handle that is not active is stale. (One relaxed load is
    /// enough: the mirror is written before the bit is cleared, and a packet in between counts as an earlier
    /// one.)
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    /// Whether other connections hold the same key, so that each frame is an event for the table.
    pub fn is_shared(&self) -> bool {
        self.shared.load(Ordering::Relaxed)
    }

    /// Asks the connection's task to end.
    pub fn end(&self, why: Ending) {
        self.ending.store(why as u8, Ordering::Release);
        self.mailbox.wake();
    }

    /// Why the task must end; `None`: it must not.
    pub fn ending(&self) -> Option<Ending> {
        match self.ending.load(Ordering::Acquire) {
            0 => None,
            1 => Some(Ending::WriteTimeout),
            3 => Some(Ending::QueueMemory),
            4 => Some(Ending::Closed),
            _ => Some(Ending::Shutdown),
        }
    }

    pub(super) fn set_active(&self, active: bool) {
        self.active.store(active, Ordering::Release);
    }

    pub(super) fn set_shared(&self, shared: bool) {
        self.shared.store(shared, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_told_why_it_must_end() {
        let peer = Peer::new(NodePublic::from_bytes([1; 32]), ConnId(1), ([127, 0, 0, 1], 1).into());
        assert_eq!(peer.ending(), None);
        for why in [Ending::WriteTimeout, Ending::Shutdown, Ending::QueueMemory, Ending::Closed] {
            peer.end(why);
            assert_eq!(peer.ending(), Some(why));
        }
    }
}
