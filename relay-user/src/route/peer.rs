//! A logged-in client as others see it: its mailbox, and whether it is still the one to send to.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use relay_common::derp::info::AppName;
use relay_common::key::NodePublic;

use super::vocabulary::ConnId;
use crate::mailbox::Mailbox;

/// The handle that mirrors, caches and other connections share.
///
/// What a look-up reads comes first and has a cache line to itself, which is hardly ever written: neither the
/// count of handles before it nor the mailbox and the counters behind it disturb those who only want to know
/// the way.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Peer {
    /// The node key it proved.
    pub key: NodePublic,
    /// The connection's name.
    pub id: ConnId,
    active: AtomicBool,
    shared: AtomicBool,
    ending: AtomicU8,
    /// Where it connected from.
    pub remote: SocketAddr,
    /// What is to be written to it.
    pub mailbox: Mailbox,
    /// What it did, for `relayd clients`.
    pub counters: PeerCounters,
    /// What the sweep looks at.
    pub timers: PeerTimers,
    /// How it came and what it calls itself.
    pub about: About,
    /// The number of the worker that its task is to run on; the task moves there.
    pub worker: AtomicU32,
}

/// What `relayd clients` says of a connection besides its numbers.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// The protocol under its frames, as its stream names it.
    pub protocol: &'static str,
    /// The label it gave itself.
    pub app_name: AppName,
}

/// Packets and bytes of one connection; written by its own task, once per batch.
#[derive(Debug, Default)]
pub struct PeerCounters {
    /// Packets the client sent.
    pub packets_in: AtomicU64,
    /// Payload bytes of those.
    pub bytes_in: AtomicU64,
    /// Packets written to the client.
    pub packets_out: AtomicU64,
    /// Payload bytes of those.
    pub bytes_out: AtomicU64,
}

/// Times the sweep compares with its own clock; one sweep for all connections instead of timers for each.
#[derive(Debug, Default)]
pub struct PeerTimers {
    /// CLOCK_MONOTONIC milliseconds when a KeepAlive is due.
    pub keepalive_due_ms: AtomicU64,
    /// CLOCK_MONOTONIC milliseconds since when the client has taken nothing of what waits for it; 0: nothing
    /// waits.
    pub blocked_since_ms: AtomicU64,
    /// CLOCK_MONOTONIC milliseconds of the login.
    pub connected_ms: AtomicU64,
    /// Whether the client calls this relay its home; 0 or 1.
    pub preferred: AtomicU32,
}

/// Why the relay ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Ending {
    /// It took nothing for longer than `-tcp-write-timeout`.
    WriteTimeout = 1,
    /// The daemon stops.
    Shutdown = 2,
    /// Too much waited for all clients, and for this one the longest (`--queue-memory`).
    QueueMemory = 3,
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

    /// Whether packets for the key go here. A cached handle that says no is stale. (One relaxed load: the
    /// mirror is written before the bit is cleared, and a packet in between is one that came before.)
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

    /// Why the task should end, if it should.
    pub fn ending(&self) -> Option<Ending> {
        match self.ending.load(Ordering::Acquire) {
            0 => None,
            1 => Some(Ending::WriteTimeout),
            3 => Some(Ending::QueueMemory),
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
