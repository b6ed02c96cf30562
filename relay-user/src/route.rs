//! Finds where a packet goes: the client table, its two mirrors, and the look-ups for packets.
//!
//! [`crate::route::Router`] owns the table's one mutex. A thread that changes the table writes the changes to
//! both mirrors before it releases the mutex. Packets read the mirrors and do not take the mutex, with one
//! exception: a frame of a connection that shares its key is an event for the table.

pub mod audit;
pub mod cache;
mod claims;
mod clients;
mod ends;
pub mod gone;
pub mod leg;
pub mod link;
pub mod links;
mod mirror;
#[cfg(test)]
mod model_sessions;
pub mod next_hop;
pub mod peer;
pub mod session;
pub mod session_map;
pub mod sessions;
mod table;
pub mod vocabulary;

use std::sync::Arc;

use dashmap::DashMap;
use parking_lot::{Mutex, MutexGuard};
use relay_common::derp::message::PeerGoneReason;
use relay_common::fastpath::SessionStats;
use relay_common::key::{DiscoPublic, NodePublic};

use self::gone::Audience;
use self::link::{Link, Remote, Way};
use self::links::Hearers;
use self::mirror::Kernel;
pub use self::mirror::KernelHealth;
use self::next_hop::HopNumber;
use self::peer::{Ending, Peer};
use self::session::SessionRoute;
use self::session_map::{List, MapError, Part, SessionMap};
use self::sessions::{Limits, Session};
use self::table::Table;
use self::vocabulary::{Change, ConnId, Event, LegIndex, LegPath, LinkId, Refusal};
use crate::mailbox::News;

/// Sessions handled per hold of the table's mutex, by any walk over all sessions.
pub const WALK: usize = 64;

type Hasher = foldhash::fast::RandomState;
type Map<K, V> = DashMap<K, V, Hasher>;

/// The connections that are owed news: that a key left or, if they watch, that it came.
#[derive(Debug, Default)]
#[must_use]
pub struct NewsOwed {
    /// Connections whose tasks must be woken for the news.
    pub wake: Vec<Arc<Peer>>,
    /// Bytes of news that now wait for the connections.
    pub growth: i64,
}

impl NewsOwed {
    /// Owes `peer` this news.
    fn add(&mut self, peer: &Arc<Peer>, key: NodePublic, news: News) {
        // A connection that has ended too needs no news.
        let Ok(pushed) = peer.mailbox.owe(key, news) else { return };
        self.growth += pushed.growth;
        if pushed.wake {
            self.wake.push(Arc::clone(peer));
        }
    }
}

/// The table behind its mutex, and the in-process mirror in front of it.
#[derive(Debug)]
pub struct Router {
    inner: Mutex<Inner>,
    peers: Map<NodePublic, Arc<Peer>>,
    conns: Map<ConnId, Arc<Peer>>,
    links: Map<LinkId, Arc<Link>>,
    remotes: Map<NodePublic, Arc<Remote>>,
    /// Connections that had packets from keys of other relays.
    heard: Map<NodePublic, Hearers>,
    sessions: Map<u32, Arc<SessionRoute>>,
    /// Lists the BPF map, if there is one.
    list: Option<List>,
}

#[derive(Debug)]
struct Inner {
    table: Table,
    kernel: Kernel,
    audiences: gone::Audiences,
    /// Connections that are told of every key that comes or leaves.
    watchers: Vec<Arc<Peer>>,
    /// Keys that no link claims any more, since this was last looked at.
    lost: Vec<NodePublic>,
    changes: Vec<Change>,
}

impl Router {
    /// An empty router. `kernel`: the BPF map to keep equal to the table, if there is one.
    pub fn new(limits: Limits, kernel: Option<Box<dyn SessionMap>>) -> Self {
        let list = kernel.as_ref().map(|map| map.list());
        let inner = Inner {
            table: Table::new(limits),
            kernel: Kernel::new(kernel),
            audiences: gone::Audiences::default(),
            watchers: Vec::new(),
            lost: Vec::new(),
            changes: Vec::new(),
        };
        Self {
            inner: Mutex::new(inner),
            peers: Map::default(),
            conns: Map::default(),
            links: Map::default(),
            remotes: Map::default(),
            heard: Map::default(),
            sessions: Map::default(),
            list,
        }
    }

    /// The connection that packets for `key` go to. Takes no table lock; a miss is final.
    pub fn peer(&self, key: &NodePublic) -> Option<Arc<Peer>> {
        self.peers.get(key).map(|peer| Arc::clone(&peer))
    }

    /// Where packets for `key` go: to a connection here or, if there is none, over the link with the newest
    /// claim. Takes no table lock; a miss is final.
    pub fn way(&self, key: &NodePublic) -> Option<Way> {
        let remote = || self.remotes.get(key).map(|remote| Way::Link(Arc::clone(&remote)));
        self.peer(key).map(Way::Here).or_else(remote)
    }

    /// The session with this VNI. Takes no table lock; a miss is final.
    pub fn session(&self, vni: u32) -> Option<Arc<SessionRoute>> {
        self.sessions.get(&vni).map(|session| Arc::clone(&session))
    }

    /// Puts a connection into the table under its key, as the one that packets for the key go to. Those who
    /// watch are owed the news; what the caller has to do about that is as in [`Router::leave`].
    ///
    /// # Errors
    /// The connection is already logged in.
    pub fn login(&self, peer: &Arc<Peer>, now_ns: u64) -> Result<NewsOwed, Refusal> {
        let mut inner = self.lock();
        // The mirror must find the connection before the table routes packets to it.
        self.conns.insert(peer.id, Arc::clone(peer));
        let is_first = !self.peers.contains_key(&peer.key);
        self.apply(&mut inner, Event::Login { conn: peer.id, key: peer.key }, now_ns)?;
        let mut told = NewsOwed::default();
        inner.watchers.iter().for_each(|watcher| told.add(watcher, peer.key, peer.presence(is_first)));
        Ok(told)
    }

    /// From now on, `watcher` is told of every key that comes or leaves, and first of those that are here,
    /// its own among them (upstream's WatchConns). If it asks again, it is told again of those who are here.
    pub fn watch(&self, watcher: &Arc<Peer>) -> NewsOwed {
        let mut inner = self.lock();
        let mut told = NewsOwed::default();
        // Whoever has left watches nothing any more.
        if self.conns.contains_key(&watcher.id) {
            let is_first = inner.watchers.iter().all(|other| other.id != watcher.id);
            if is_first {
                inner.watchers.push(Arc::clone(watcher));
            }
            self.peers.iter().for_each(|peer| told.add(watcher, peer.key, peer.presence(is_first)));
        }
        told
    }

    /// Handles a frame of a connection that shares its key: the connection becomes the active one.
    pub fn frame_from_shared(&self, conn: ConnId, now_ns: u64) {
        // The table refuses this only when the connection has just left; then nothing has to be moved.
        let _ = self.apply(&mut self.lock(), Event::Frame { conn }, now_ns);
    }

    /// Removes a connection. If its key left with it, every connection in its audience is owed the news
    /// before the table's lock is released: the key may come back at once, and its packets must not be
    /// followed by the news that it left. The caller wakes the connections that [`NewsOwed`] names, and adds
    /// the growth to the budget.
    pub fn leave(&self, peer: &Peer, audience: Audience, now_ns: u64) -> NewsOwed {
        let mut inner = self.lock();
        let mut told = NewsOwed::default();
        if self.apply(&mut inner, Event::Leave { conn: peer.id }, now_ns).is_err() {
            return told;
        }
        self.conns.remove(&peer.id);
        inner.watchers.retain(|watcher| watcher.id != peer.id);
        let left = !self.peers.contains_key(&peer.key);
        let last = left && !self.remotes.contains_key(&peer.key);
        let gone = || News::Gone(PeerGoneReason::Disconnected);
        for other in inner.audiences.leave(peer.key, audience, last) {
            told.add(&other, peer.key, gone());
        }
        if last {
            self.tell_hearers(peer.key, &mut told, &inner.watchers);
        }
        if left {
            inner.watchers.iter().for_each(|watcher| told.add(watcher, peer.key, gone()));
        }
        told
    }

    /// Asks all connections of `key` to end (upstream's ClosePeer).
    pub fn close(&self, key: &NodePublic) {
        self.for_each_peer(|peer| {
            if peer.key == *key {
                peer.end(Ending::Closed);
            }
        });
    }

    /// Visits every logged-in connection; `visit` must not block.
    pub fn for_each_peer(&self, mut visit: impl FnMut(&Arc<Peer>)) {
        self.conns.iter().for_each(|peer| visit(&peer));
    }

    /// Connections logged in.
    pub fn client_count(&self) -> usize {
        self.conns.len()
    }

    /// Gives the pair its session.
    ///
    /// # Errors
    /// All sessions are taken, or the pair is not two different clients.
    pub fn allocate(&self, pair: [DiscoPublic; 2], now_ns: u64) -> Result<Session, Refusal> {
        let mut inner = self.lock();
        self.apply(&mut inner, Event::Allocate { pair }, now_ns)?;
        inner.table.session_of(pair).cloned().ok_or(Refusal::UnknownSession)
    }

    /// Handles a bind: an authenticated client began a handshake. Returns the number that its challenge must
    /// have.
    ///
    /// # Errors
    /// There is no such session or leg.
    pub fn bind(&self, vni: u32, leg: LegIndex, now_ns: u64) -> Result<u64, Refusal> {
        let mut inner = self.lock();
        self.apply(&mut inner, Event::Bind { vni, leg }, now_ns)?;
        Ok(inner.table.challenges(vni, leg))
    }

    /// Handles an answer: an authenticated client returned, from `path`, the challenge with this number.
    ///
    /// # Errors
    /// There is no such session, the challenge is no longer good, or both legs would have one address.
    pub fn answer(
        &self,
        vni: u32,
        leg: LegIndex,
        number: u64,
        path: LegPath,
        now_ns: u64,
    ) -> Result<(), Refusal> {
        self.apply(&mut self.lock(), Event::Answer { vni, leg, number, path }, now_ns)
    }

    /// Sets a leg's next hop, as the kernel's routing reports it.
    pub fn next_hop(&self, vni: u32, leg: LegIndex, path: LegPath, hop: Option<HopNumber>, now_ns: u64) {
        // The table refuses this only when the leg has moved on; its new path is being resolved separately.
        let _ = self.apply(&mut self.lock(), Event::NextHop { vni, leg, path, hop }, now_ns);
    }

    /// Updates the liveness of the next few sessions after the VNI `after`, and ends those that have expired.
    /// Returns how many ended, and the last VNI looked at; `None`: there are no more.
    pub fn sweep_slice(&self, after: u32, now_ns: u64) -> (usize, Option<u32>) {
        let mut ended = 0;
        let end = self.slice(after, &mut |inner, vni| {
            let Some(session) = inner.table.session(vni) else { return };
            let last_seen_ns = session.route.last_seen_ns(inner.kernel.stats(session).as_ref());
            // The table cannot refuse this: the session was found under the same lock.
            let _ = self.apply(inner, Event::Tick { vni, last_seen_ns }, now_ns);
            ended += usize::from(inner.table.session(vni).is_none());
        });
        (ended, end)
    }

    /// Visits those of the next few sessions after the VNI `last` that are `wanted`, with the program's
    /// counters. Returns the last VNI looked at; `None`: there are no more.
    pub fn sessions_after(
        &self,
        last: u32,
        wanted: impl Fn(&Session) -> bool,
        mut visit: impl FnMut(&Session, Option<SessionStats>),
    ) -> Option<u32> {
        self.slice(last, &mut |inner, vni| {
            if let Some(session) = inner.table.session(vni).filter(|session| wanted(session)) {
                visit(session, inner.kernel.stats(session));
            }
        })
    }

    /// Visits the next few sessions after the VNI `last`; returns the last VNI looked at; `None`: there are
    /// no more.
    pub fn ways_after(&self, last: u32, mut visit: impl FnMut(&Session)) -> Option<u32> {
        self.slice(last, &mut |inner, vni| {
            if let Some(session) = inner.table.session(vni) {
                visit(session);
            }
        })
    }

    /// Lists about [`WALK`] entries of the BPF map, for [`Self::audit_part`]; `None`: there is no map. Takes
    /// no lock: what comes to be in the map meanwhile is in the table, and what the table does not have any
    /// more is no longer in the map.
    pub fn map_part(&self, after: Option<u64>) -> Option<Result<Part, MapError>> {
        self.list.as_ref().map(|list| list.part(after, WALK))
    }

    /// Looks for listed entries that the table does not have, and removes those that are still in the map.
    /// Returns where to go on; `None`: the whole map has been looked at.
    pub fn audit_part(&self, part: Result<Part, MapError>) -> Option<u64> {
        let mut inner = self.lock();
        let Inner { table, kernel, .. } = &mut *inner;
        let (vnis, next) = part.unwrap_or_else(|error| {
            kernel.unlisted(error);
            (Vec::new(), None)
        });
        let stale = vnis.into_iter().filter(|vni| table.kernel_entry(*vni).is_none());
        kernel.check(stale.map(|vni| (vni, None)));
        MutexGuard::unlock_fair(inner);
        next
    }

    /// Compares the next few sessions after the VNI `after` with the BPF map, and repairs the map. Returns
    /// the last VNI looked at; `None`: there are no more, and the audit is complete.
    pub fn audit_table_slice(&self, after: u32) -> Option<u32> {
        let mut inner = self.lock();
        let Inner { table, kernel, .. } = &mut *inner;
        let vnis = table.vnis_after(after, WALK);
        let wanted = vnis.iter().map(|vni| (*vni, table.kernel_entry(*vni)));
        kernel.check(wanted.filter(|(_, entry)| entry.is_some()));
        if vnis.is_empty() {
            kernel.audited();
        }
        MutexGuard::unlock_fair(inner);
        vnis.last().copied()
    }

    /// How well the BPF map has followed the table.
    pub fn kernel_health(&self) -> KernelHealth {
        self.lock().kernel.health()
    }

    /// Number of allocated sessions, and of those that the kernel should be forwarding.
    pub fn session_counts(&self) -> (usize, usize) {
        self.lock().table.session_counts()
    }

    /// Holds the table's mutex until the result is dropped. Tests and the benchmark use this to show that
    /// packets do not wait for the mutex.
    pub fn hold(&self) -> impl Sized + '_ {
        self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic under the lock is a bug in the table, but everybody else's packets must still go on: this
        // mutex is never poisoned.
        self.inner.lock()
    }

    /// Visits the next few sessions after the VNI `last`; returns the last VNI visited.
    fn slice(&self, last: u32, visit: &mut impl FnMut(&mut Inner, u32)) -> Option<u32> {
        let mut inner = self.lock();
        let vnis = inner.table.vnis_after(last, WALK);
        vnis.iter().for_each(|vni| visit(&mut inner, *vni));
        // Hands the lock to a waiting thread, if there is one. A walk that took the lock again at once would
        // always win it, and a login would wait for the whole walk.
        MutexGuard::unlock_fair(inner);
        vnis.last().copied()
    }

    fn apply(&self, inner: &mut Inner, event: Event, now_ns: u64) -> Result<(), Refusal> {
        let mut changes = std::mem::take(&mut inner.changes);
        let result = inner.table.apply(event, now_ns, &mut changes);
        for change in changes.drain(..) {
            self.mirror(inner, change);
        }
        inner.changes = changes;
        result
    }
}

#[cfg(test)]
mod tests;
