//! A link to another relay as packets see it, and the keys that it reaches.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use relay_common::key::NodePublic;

use super::peer::{Peer, PeerCounters};
use super::vocabulary::LinkId;
use crate::mailbox::Mailbox;

/// The handle of a link that is up.
#[derive(Debug)]
pub struct Link {
    /// The link's name.
    pub id: LinkId,
    /// The key of the relay at its other end.
    pub server: NodePublic,
    /// The address that was dialled.
    pub remote: SocketAddr,
    /// Frames to be written to the relay.
    pub mailbox: Mailbox,
    /// Packets that were forwarded over the link. Those of its relay come by a link of its own.
    pub counters: PeerCounters,
    /// Packets that the link lost: they were pushed out of its full queue, or waited when it ended.
    pub dropped: AtomicU64,
    /// Times of the link.
    pub times: LinkTimes,
    over: AtomicBool,
}

/// Times of a link.
#[derive(Debug, Default)]
pub struct LinkTimes {
    /// CLOCK_MONOTONIC milliseconds when the link came up.
    pub up_ms: AtomicU64,
    /// CLOCK_MONOTONIC nanoseconds when its relay was last heard.
    pub heard_ns: AtomicU64,
    /// CLOCK_MONOTONIC nanoseconds when its relay last answered a probe.
    pub answered_ns: AtomicU64,
    /// CLOCK_MONOTONIC milliseconds since when the relay has taken none of the bytes that wait for it; 0:
    /// none wait.
    pub blocked_since_ms: AtomicU64,
    /// Nanoseconds from the last probe to its answer; 0: none was answered yet.
    pub round_trip_ns: AtomicU64,
}

impl Link {
    /// A handle that is not yet in the table.
    pub fn new(id: LinkId, server: NodePublic, remote: SocketAddr) -> Self {
        Self {
            id,
            server,
            remote,
            mailbox: Mailbox::for_link(),
            counters: PeerCounters::default(),
            dropped: AtomicU64::new(0),
            times: LinkTimes::default(),
            over: AtomicBool::new(false),
        }
    }

    /// Asks the link's task to end.
    pub fn end(&self) {
        self.over.store(true, Ordering::Release);
        self.mailbox.wake();
    }

    /// Whether the task must end.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }
}

/// A key that a link reaches.
#[derive(Debug)]
pub struct Remote {
    /// The key.
    pub key: NodePublic,
    /// The link.
    pub link: Arc<Link>,
    active: AtomicBool,
}

impl Remote {
    pub(super) fn new(key: NodePublic, link: Arc<Link>, active: bool) -> Self {
        Self { key, link, active: AtomicBool::new(active) }
    }

    /// Whether packets for the key go over the link. A cached handle that is not active is stale.
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    pub(super) fn set_active(&self, active: bool) {
        self.active.store(active, Ordering::Release);
    }
}

/// Where the packets for a key go.
#[derive(Clone, Debug)]
pub enum Way {
    /// To a connection of this relay.
    Here(Arc<Peer>),
    /// Over a link, to the relay that has the key.
    Link(Arc<Remote>),
}

impl Way {
    /// The key.
    pub fn key(&self) -> &NodePublic {
        match self {
            Self::Here(peer) => &peer.key,
            Self::Link(remote) => &remote.key,
        }
    }

    /// Whether packets for the key still go this way.
    pub fn is_active(&self) -> bool {
        match self {
            Self::Here(peer) => peer.is_active(),
            Self::Link(remote) => remote.is_active(),
        }
    }

    /// The connection of this relay.
    pub fn peer(&self) -> Option<&Arc<Peer>> {
        match self {
            Self::Here(peer) => Some(peer),
            Self::Link(_) => None,
        }
    }
}
