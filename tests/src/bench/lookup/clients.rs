//! The clients to find: they are in a router, and in one map behind one mutex, as upstream once had it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use relay_common::key::NodePublic;
use relay_user::route::Router;
use relay_user::route::gone::Audience;
use relay_user::route::peer::Peer;
use relay_user::route::sessions::Limits;
use relay_user::route::vocabulary::ConnId;

use super::random::{Random, mix};

/// The keys to look up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Upstream's four keys, looked up in turn.
    FourHot,
    /// Many keys, looked up in random order while clients leave and come back.
    Many {
        /// Keys that are logged in.
        clients: u64,
        /// Clients that leave per second; as many come back, a millisecond later.
        churn: u64,
    },
}

impl Load {
    pub(super) fn clients(self) -> u64 {
        match self {
            Self::FourHot => 4,
            Self::Many { clients, .. } => clients,
        }
    }

    /// The nth key. It is computed, so that only the look-up reads memory; the Go side does the same.
    pub(super) fn key(self, n: u64) -> NodePublic {
        match self {
            Self::FourHot => NodePublic::from_bytes([n as u8 + 2; 32]),
            Self::Many { .. } => {
                let mut bytes = [0; 32];
                for (word, place) in (0..).zip(bytes.chunks_exact_mut(8)) {
                    place.copy_from_slice(&mix(4 * n + word).to_le_bytes());
                }
                NodePublic::from_bytes(bytes)
            }
        }
    }
}

/// The clients that can be found.
pub(super) struct Clients {
    pub(super) router: Router,
    locked: Mutex<HashMap<NodePublic, Arc<Peer>>>,
    load: Load,
    next_conn: AtomicU64,
}

impl Clients {
    pub(super) fn new(load: Load) -> Self {
        let router = Router::new(Limits::default(), None);
        let clients = Self { router, locked: Mutex::default(), load, next_conn: AtomicU64::new(1) };
        (0..load.clients()).for_each(|n| clients.login(n));
        clients
    }

    /// Upstream's old look-up: one mutex for all connections.
    pub(super) fn locked(&self, key: &NodePublic) -> Option<Arc<Peer>> {
        self.locked.lock().unwrap_or_else(PoisonError::into_inner).get(key).map(Arc::clone)
    }

    /// If the load has churn, starts the thread that lets clients leave and come back until `stop` is set.
    pub(super) fn come_and_go(self: &Arc<Self>, stop: &Arc<AtomicBool>) -> Option<thread::JoinHandle<()>> {
        let Load::Many { clients, churn } = self.load else { return None };
        let (table, stop) = (Arc::clone(self), Arc::clone(stop));
        Some(thread::spawn(move || {
            let mut random = Random(mix(0));
            let (mut away, mut gone, start) = (Vec::new(), 0, Instant::now());
            while !stop.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(1));
                away.drain(..).for_each(|n| table.login(n));
                let due = (start.elapsed().as_secs_f64() * churn as f64) as u64;
                away.extend((gone..due).map(|_| random.below(clients)));
                gone = due;
                // A client drawn twice in one millisecond leaves only once and comes back only once.
                away.sort_unstable();
                away.dedup();
                away.iter().for_each(|n| table.leave(*n));
            }
        }))
    }

    fn login(&self, n: u64) {
        let id = ConnId(self.next_conn.fetch_add(1, Ordering::Relaxed));
        let peer = Arc::new(Peer::new(self.load.key(n), id, ([127, 0, 0, 1], 1).into()));
        let _ = self.router.login(&peer, 0).expect("a new connection");
        self.locked.lock().unwrap_or_else(PoisonError::into_inner).insert(peer.key, peer);
    }

    fn leave(&self, n: u64) {
        let peer = self.locked.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.load.key(n));
        if let Some(peer) = peer {
            let _ = self.router.leave(&peer, Audience::default(), 0);
        }
    }
}
