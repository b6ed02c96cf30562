//! The state that all connections and sockets of the daemon share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use relay_common::key::{MeshKey, NodePrivate, NodePublic};
use tokio::sync::Notify;

use crate::mailbox::budget::Budget;
use crate::observe::counters::Counters;
use crate::observe::held::Control;
use crate::observe::seldom::Seldom;
use crate::route::gone::Audience;
use crate::route::peer::Peer;
use crate::route::vocabulary::{ConnId, LinkId, Refusal};
use crate::route::{NewsOwed, Router};

/// The region that a relay is a part of.
#[derive(Debug, Default)]
pub struct Mesh {
    /// The key that all relays of the region hold; `None`: nobody is trusted with it.
    pub key: Option<MeshKey>,
    /// Notified when somebody with the mesh key has logged in: another relay may be back.
    pub came: Notify,
    /// Limits the log lines about logins with another mesh key.
    pub strangers: Seldom,
}

/// The shared state of the daemon.
#[derive(Debug)]
pub struct Relay {
    /// The client table and its mirrors.
    pub router: Router,
    /// The daemon's counters.
    pub counters: Counters,
    /// The server's DERP key.
    pub key: NodePrivate,
    /// The public half of the DERP key, which every login needs.
    pub public: NodePublic,
    /// How long a client may take none of the bytes that wait for it; zero: for ever.
    pub write_timeout: Duration,
    /// The limit of the bytes that may wait for all clients together.
    pub budget: Budget,
    /// The region that the relay is a part of.
    pub mesh: Mesh,
    /// How long the work on all sessions holds others up.
    pub control: Control,
    next_conn: AtomicU64,
}

impl Relay {
    /// Makes a relay without clients. At most `queue_bytes` may wait for all clients together.
    pub fn new(
        router: Router,
        counters: Counters,
        key: NodePrivate,
        write_timeout: Duration,
        queue_bytes: u64,
    ) -> Self {
        let public = key.public();
        let budget = Budget::new(queue_bytes);
        let (mesh, control, next_conn) = (Mesh::default(), Control::default(), AtomicU64::new(1));
        Self { router, counters, key, public, write_timeout, budget, mesh, control, next_conn }
    }

    /// Handles the news that the relay of `link` has `key`. `listed`: perhaps since long ago.
    ///
    /// # Errors
    /// The link is not up.
    pub fn claim(&self, link: LinkId, key: NodePublic, listed: bool, now_ns: u64) -> Result<(), Refusal> {
        self.router.claim(link, key, listed, now_ns)
    }

    /// Handles the news that the relay of `link` no longer has `key`; those who heard from it are told if
    /// nobody has it.
    ///
    /// # Errors
    /// The link is not up, or never claimed the key.
    pub fn disclaim(&self, link: LinkId, key: NodePublic, now_ns: u64) -> Result<(), Refusal> {
        self.router.disclaim(link, key, now_ns).map(|told| self.tell(&told))
    }

    /// Takes a link out of the table with all its claims; those who heard from keys that nobody has are told.
    pub fn link_down(&self, link: LinkId, now_ns: u64) {
        self.tell(&self.router.link_down(link, now_ns));
    }

    /// Puts a connection into the table; all who watch are told.
    ///
    /// # Errors
    /// The table refused the connection.
    pub fn login(&self, peer: &Arc<Peer>, now_ns: u64) -> Result<(), Refusal> {
        self.router.login(peer, now_ns).map(|told| self.tell(&told))
    }

    /// Takes a connection out of the table. If its key left with it, all of `audience` and all who watch are
    /// told.
    pub fn leave(&self, peer: &Peer, audience: Audience, now_ns: u64) {
        self.tell(&self.router.leave(peer, audience, now_ns));
    }

    /// From now on, `watcher` is told of every key that comes or leaves.
    pub fn watch(&self, watcher: &Arc<Peer>) {
        self.tell(&self.router.watch(watcher));
    }

    fn tell(&self, told: &NewsOwed) {
        self.budget.add(told.growth);
        told.wake.iter().for_each(|peer| peer.mailbox.wake());
    }

    /// Makes a name for a new connection.
    pub fn next_conn(&self) -> ConnId {
        ConnId(self.next_conn.fetch_add(1, Ordering::Relaxed))
    }
}
