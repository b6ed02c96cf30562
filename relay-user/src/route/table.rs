//! The authoritative client table: a plain state machine, `(event, now) -> changes`.
//!
//! The table knows connections, keys and sessions by name only. It has no socket, no clock and no lock:
//! [`super::Router`] holds the one mutex around it and writes its changes, and nothing else, to the two
//! mirrors (laws 1 to 5 of `docs/architecture.md`).

use relay_common::fastpath::SessionEntry;
use relay_common::key::{DiscoPublic, NodePublic};

use super::claims::Claims;
use super::clients::Clients;
use super::sessions::{Limits, Session, Sessions};
use super::vocabulary::{Change, Event, LegIndex, LinkId, Refusal};

/// The client table.
#[derive(Debug)]
pub(super) struct Table {
    clients: Clients,
    claims: Claims,
    sessions: Sessions,
}

impl Table {
    /// An empty table that will hold at most `limits.max_sessions` sessions.
    pub(super) fn new(limits: Limits) -> Self {
        Self { clients: Clients::default(), claims: Claims::default(), sessions: Sessions::new(limits) }
    }

    /// Applies one event at `now_ns` (CLOCK_MONOTONIC) and appends the changes for the mirrors to `out`.
    ///
    /// # Errors
    /// The event was refused; the table and `out` are unchanged.
    pub(super) fn apply(&mut self, event: Event, now_ns: u64, out: &mut Vec<Change>) -> Result<(), Refusal> {
        match event {
            Event::Login { conn, key } => self.clients.login(conn, key, out),
            Event::Frame { conn } => self.clients.frame(conn, out),
            Event::Leave { conn } => self.clients.leave(conn, out),
            Event::LinkUp { link } => self.claims.up(link),
            Event::Claim { link, key, listed } => self.claims.claim(link, key, listed, out),
            Event::Disclaim { link, key } => self.claims.disclaim(link, key, out),
            Event::LinkDown { link } => self.claims.down(link, out),
            Event::Allocate { pair } => self.sessions.allocate(pair, now_ns, out),
            Event::Bind { vni, leg } => self.sessions.bind(vni, leg),
            Event::Answer { vni, leg, number, path } => {
                self.sessions.answer(vni, leg, number, path, now_ns, out)
            }
            Event::NextHop { vni, leg, path, hop } => self.sessions.next_hop(vni, leg, path, hop, out),
            Event::End { vni } => self.sessions.end(vni, out),
            Event::Tick { vni, last_seen_ns } => self.sessions.tick(vni, last_seen_ns, now_ns, out),
        }
    }

    /// The links that claim `key`, the newest last.
    pub(super) fn claims(&self, key: &NodePublic) -> &[LinkId] {
        self.claims.of(key)
    }

    /// Number of keys that a link claims.
    pub(super) fn claimed_count(&self, link: LinkId) -> usize {
        self.claims.count(link)
    }

    /// One session.
    pub(super) fn session(&self, vni: u32) -> Option<&Session> {
        self.sessions.get(vni)
    }

    /// The session of a pair, in either order.
    pub(super) fn session_of(&self, pair: [DiscoPublic; 2]) -> Option<&Session> {
        self.sessions.of(pair)
    }

    /// The number of a leg's latest challenge; 0: none.
    pub(super) fn challenges(&self, vni: u32, leg: LegIndex) -> u64 {
        self.sessions.challenges(vni, leg)
    }

    /// Number of sessions, and of those that the kernel should be forwarding.
    pub(super) fn session_counts(&self) -> (usize, usize) {
        self.sessions.counts()
    }

    /// The entry that the kernel should have for a session; `None`: it should not forward the session.
    pub(super) fn kernel_entry(&self, vni: u32) -> Option<SessionEntry> {
        self.sessions.kernel_entry(vni)
    }

    /// At most `count` VNIs after `vni`, ascending, to walk all sessions a few at a time.
    pub(super) fn vnis_after(&self, vni: u32, count: usize) -> Vec<u32> {
        self.sessions.vnis_after(vni, count)
    }
}
