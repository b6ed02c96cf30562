//! Writes the table's changes to its mirrors: the in-process maps and the BPF map.

use std::sync::Arc;

use relay_common::fastpath::{SessionEntry, SessionStats};

use super::audit::Audit;
use super::link::Remote;
use super::sessions::Session;
use super::vocabulary::Change;
use super::{Inner, Router};
use crate::route::session_map::{MapError, SessionMap};

/// How well the BPF map has followed the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelHealth {
    /// Installs, removals and audits that failed; the next audit repairs the map.
    pub failures: u64,
    /// Audits done.
    pub audits: u64,
    /// Entries that an audit found missing, stale or different. Must stay zero.
    pub drift: u64,
}

/// The one writer of the BPF map.
#[derive(Default)]
pub(super) struct Kernel {
    map: Option<Box<dyn SessionMap>>,
    health: KernelHealth,
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernel").field("map", &self.map.is_some()).field("health", &self.health).finish()
    }
}

impl Kernel {
    pub(super) fn new(map: Option<Box<dyn SessionMap>>) -> Self {
        Self { map, ..Self::default() }
    }

    pub(super) fn health(&self) -> KernelHealth {
        self.health
    }

    /// The program's counters of a session; `None` if it has none there, or they cannot be read.
    pub(super) fn stats(&self, session: &Session) -> Option<SessionStats> {
        self.map.as_ref()?.stats(session.stats_slot()?).ok()
    }

    /// Compares sessions with their entries in the map, and repairs the map. `wanted`: VNIs, each with the
    /// entry that the table says it should have.
    pub(super) fn check(&mut self, wanted: impl Iterator<Item = (u32, Option<SessionEntry>)>) {
        let Some(map) = &mut self.map else { return };
        let mut found = Audit::default();
        wanted.for_each(|(vni, wanted)| found.check(map.as_mut(), vni, wanted));
        self.note(&found);
    }

    /// Notes that the map could not be listed.
    pub(super) fn unlisted(&mut self, error: MapError) {
        self.note(&Audit { error: Some(error), ..Audit::default() });
    }

    /// Notes that an audit is complete.
    pub(super) fn audited(&mut self) {
        self.health.audits += u64::from(self.map.is_some());
    }

    fn note(&mut self, found: &Audit) {
        self.health.drift += found.drift() as u64;
        if let Some(error) = &found.error {
            self.health.failures += 1;
            tracing::warn!(%error, "cannot audit the session map whole");
        }
    }

    fn install(&mut self, vni: u32, entry: &SessionEntry, fresh: bool) {
        let Some(map) = &mut self.map else { return };
        let zeroed = if fresh { map.zero_stats(entry.stats_slot) } else { Ok(()) };
        if let Err(error) = zeroed.and_then(|()| map.install(vni, entry)) {
            self.health.failures += 1;
            // What the entry said before may be wrong by now.
            let _ = map.remove(vni);
            tracing::warn!(vni, %error, "cannot install a session in the kernel; userspace carries it");
        }
    }

    fn uninstall(&mut self, vni: u32) {
        let Some(map) = &mut self.map else { return };
        if let Err(error) = map.remove(vni) {
            self.health.failures += 1;
            tracing::warn!(vni, %error, "cannot remove a session from the kernel; its expiry will end it");
        }
    }
}

impl Router {
    /// Writes one change.
    pub(super) fn mirror(&self, inner: &mut Inner, change: Change) {
        match change {
            Change::Route { key, conn } => {
                // A connection is in `conns` from before its login until after its leave.
                let Some(peer) = self.conns.get(&conn).map(|peer| Arc::clone(&peer)) else { return };
                // From now on this relay has the key, whatever links claim.
                if let Some(remote) = self.remotes.get(&key) {
                    remote.set_active(false);
                }
                peer.set_active(true);
                if let Some(previous) = self.peers.insert(key, peer)
                    && previous.id != conn
                {
                    previous.set_active(false);
                }
            }
            Change::Unroute { key } => {
                if let Some((_, peer)) = self.peers.remove(&key) {
                    peer.set_active(false);
                }
                if let Some(mut remote) = self.remotes.get_mut(&key) {
                    *remote = Arc::new(Remote::new(key, Arc::clone(&remote.link), true));
                }
            }
            Change::Remote { key, link } => {
                // A link is in `links` from before its first claim until after its last.
                let Some(link) = self.links.get(&link).map(|link| Arc::clone(&link)) else { return };
                let active = !self.peers.contains_key(&key);
                if let Some(previous) = self.remotes.insert(key, Arc::new(Remote::new(key, link, active))) {
                    previous.set_active(false);
                }
            }
            Change::NoRemote { key } => {
                if let Some((_, remote)) = self.remotes.remove(&key) {
                    remote.set_active(false);
                }
                inner.lost.push(key);
            }
            Change::Shared { conn, shared } => {
                if let Some(peer) = self.conns.get(&conn) {
                    peer.set_shared(shared);
                }
            }
            Change::Session { route } => {
                self.sessions.insert(route.vni, route);
            }
            Change::NoSession { vni } => {
                self.sessions.remove(&vni);
            }
            Change::Install { vni, entry, fresh } => inner.kernel.install(vni, &entry, fresh),
            Change::Uninstall { vni } => inner.kernel.uninstall(vni),
        }
    }
}
