//! What all connections and sockets of the daemon share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use relay_common::key::{NodePrivate, NodePublic};

use crate::observe::counters::Counters;
use crate::route::Router;
use crate::route::table::ConnId;

/// The shared state of the daemon.
#[derive(Debug)]
pub struct Relay {
    /// The client table and its mirrors.
    pub router: Router,
    /// What is counted.
    pub counters: Counters,
    /// The server's DERP key.
    pub key: NodePrivate,
    /// Its public half, which every login needs.
    pub public: NodePublic,
    /// How long a client may take nothing of what waits for it; zero: for ever.
    pub write_timeout: Duration,
    next_conn: AtomicU64,
}

impl Relay {
    /// A relay without clients.
    pub fn new(router: Router, counters: Counters, key: NodePrivate, write_timeout: Duration) -> Self {
        let public = key.public();
        Self { router, counters, key, public, write_timeout, next_conn: AtomicU64::new(1) }
    }

    /// A name for a new connection.
    pub fn next_conn(&self) -> ConnId {
        ConnId(self.next_conn.fetch_add(1, Ordering::Relaxed))
    }
}
