//! Writes the table's changes to its mirrors: the in-process maps and the BPF map.

use std::collections::BTreeMap;
use std::sync::Arc;

use relay_common::fastpath::{SessionEntry, SessionStats};

use super::link::Remote;
use super::session::{SessionRoute, UserspaceState};
use super::vocabulary::Change;
use super::{Inner, Router};
use crate::route::session_map::SessionMap;

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

    /// The program's counters in a slot; `None` if there is no map or the slot cannot be read.
    pub(super) fn stats(&self, slot: u32) -> Option<SessionStats> {
        self.map.as_ref()?.stats(slot).ok()
    }

    pub(super) fn audit(&mut self, wanted: impl Iterator<Item = (u32, SessionEntry)>) -> KernelHealth {
        let Some(map) = &mut self.map else { return self.health };
        let wanted: BTreeMap<u32, SessionEntry> = wanted.collect();
        self.health.audits += 1;
        let audit = super::audit::audit(map.as_mut(), &wanted);
        self.health.drift += audit.drift() as u64;
        if let Some(error) = audit.error {
            self.health.failures += 1;
            tracing::warn!(%error, "cannot audit the session map whole");
        }
        self.health
    }

    fn install(&mut self, vni: u32, entry: &SessionEntry, fresh: bool) {
        let Some(map) = &mut self.map else { return };
        let zeroed = if fresh { map.zero_stats(entry.stats_slot) } else { Ok(()) };
        if let Err(error) = zeroed.and_then(|()| map.install(vni, entry)) {
            self.health.failures += 1;
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
    /// Writes one change. `side` is for a new session.
    pub(super) fn mirror(&self, inner: &mut Inner, change: Change, side: &mut Option<UserspaceState>) {
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
            Change::Session { vni, clients, legs } => {
                let known = self.session(vni).map(|route| UserspaceState::clone(&route.side));
                if let Some(side) = known.or_else(|| side.take()) {
                    self.sessions.insert(vni, Arc::new(SessionRoute { vni, clients, legs, side }));
                }
            }
            Change::NoSession { vni } => {
                self.sessions.remove(&vni);
            }
            Change::Install { vni, entry, fresh } => inner.kernel.install(vni, &entry, fresh),
            Change::Uninstall { vni } => inner.kernel.uninstall(vni),
        }
    }
}
