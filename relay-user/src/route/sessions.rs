//! The UDP relay's sessions: who may bind, who has bound, and which sessions the kernel may forward.
//!
//! ```text
//! allocated --bind, answer--> one leg bound --bind, answer--> bound --next hops known--> in the kernel
//!     |                            |                            |                         |
//!     +---- 30 s after allocation -+                            +- 5 min without either --+--> gone
//! ```
//! A bound leg stays bound until it binds again or the session ends (upstream `net/udprelay`;
//! `docs/protocol.md` has the rules). Only an authenticated answer moves a leg; data never does.

mod entry;

use std::collections::{BTreeMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::HashTable;
use relay_common::fastpath::SessionEntry;
use relay_common::key::DiscoPublic;

use super::Hasher;
use super::next_hop::HopNumber;
use super::session::SessionRoute;
use super::vocabulary::{Change, LegIndex, LegPath, Refusal};

/// Largest VNI: 24 bits.
const MAX_VNI: u32 = (1 << 24) - 1;

/// How many sessions there may be, and how long they live. The default allows none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Largest number of sessions, which is also the number of stats slots.
    pub max_sessions: u32,
    /// Nanoseconds from allocation within which both legs must be bound.
    pub bind_lifetime_ns: u64,
    /// Nanoseconds for which a bound session lives after one leg fell silent.
    pub steady_lifetime_ns: u64,
    /// The relay's own disco key, which no client may claim.
    pub server: DiscoPublic,
}

/// One allocated session.
#[derive(Clone, Debug)]
pub struct Session {
    /// What packets need of it.
    pub route: Arc<SessionRoute>,
    /// A newer session has a higher number, over the life of the server key.
    pub lamport_id: u64,
    /// CLOCK_MONOTONIC nanoseconds of the allocation.
    pub allocated_ns: u64,
    /// CLOCK_MONOTONIC nanoseconds of the latest request for the session, whose answer promised the bind
    /// lifetime from then on.
    asked_ns: u64,
    /// CLOCK_MONOTONIC nanoseconds of the expiry last given to the kernel; `None`: userspace forwards the
    /// session.
    installed_until_ns: Option<u64>,
    /// Where each client was heard and is reached.
    legs: [Leg; 2],
    /// Index of the session's counters in `LEG_STATS`.
    stats_slot: u32,
    /// Whether the counters are of this session, and not of one that used the slot before.
    slot_used: bool,
}

/// One side of a session.
#[derive(Clone, Debug, Default)]
struct Leg {
    /// CLOCK_MONOTONIC nanoseconds of the client's last packet or bind.
    last_seen_ns: u64,
    /// The next hop by which the kernel would reach the client.
    hop: Option<HopNumber>,
    /// Challenges made; each has the next number.
    challenges: u64,
    /// The number of the challenge whose answer bound the leg; what was challenged before is worth nothing.
    answered: u64,
}

impl Session {
    /// The session's virtual network identifier.
    pub fn vni(&self) -> u32 {
        self.route.vni
    }

    /// Whether the kernel should be forwarding the session.
    pub fn is_installed(&self) -> bool {
        self.installed_until_ns.is_some()
    }

    /// When the leg was last heard or bound, CLOCK_MONOTONIC nanoseconds, as of the last sweep; 0: never.
    pub fn last_seen_ns(&self, leg: LegIndex) -> u64 {
        self.legs[leg].last_seen_ns
    }

    /// The slot of the program's counters; `None`: the program has never had the session.
    pub fn stats_slot(&self) -> Option<u32> {
        self.slot_used.then_some(self.stats_slot)
    }

    /// The bound legs whose packets the kernel could forward: their paths and next hops.
    pub fn ways(&self) -> impl Iterator<Item = (LegIndex, LegPath, Option<HopNumber>)> + '_ {
        let bound = self.route.legs.iter().zip(&self.legs).enumerate();
        let bound = bound.filter_map(|(index, (path, leg))| Some((index, (*path)?, leg.hop)));
        bound.filter(|(_, path, _)| entry::is_eligible(path))
    }

    fn expires_ns(&self, limits: &Limits) -> u64 {
        let promised = self.asked_ns.saturating_add(limits.bind_lifetime_ns);
        if !self.route.is_bound() {
            return promised;
        }
        let seen = self.legs.iter().map(|leg| leg.last_seen_ns).min().unwrap_or(0);
        seen.saturating_add(limits.steady_lifetime_ns).max(promised)
    }
}

/// All sessions, with their indexes.
#[derive(Debug)]
pub(super) struct Sessions {
    limits: Limits,
    by_vni: BTreeMap<u32, Session>,
    /// The VNI of each pair of clients. The keys themselves are in the sessions.
    vni_by_pair: HashTable<u32>,
    hasher: Hasher,
    /// Slots below this have been used.
    fresh_slot: u32,
    // First in, first out: the slot that has been free longest is used next, so that a late write cannot hit
    // the slot's next session.
    free_slots: VecDeque<u32>,
    next_vni: u32,
    last_lamport_id: u64,
    installed: usize,
}

impl Sessions {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            by_vni: BTreeMap::new(),
            vni_by_pair: HashTable::new(),
            hasher: Hasher::default(),
            fresh_slot: 0,
            free_slots: VecDeque::new(),
            next_vni: 1,
            last_lamport_id: 0,
            installed: 0,
        }
    }

    /// Makes the pair's session if there is none. Its lifetimes begin now in either case, because that is
    /// what the clients will be told.
    pub(super) fn allocate(
        &mut self,
        pair: [DiscoPublic; 2],
        now_ns: u64,
        out: &mut Vec<Change>,
    ) -> Result<(), Refusal> {
        let clients = sorted(pair);
        if clients[0] == clients[1]
            || clients.iter().any(|key| key.has_small_order() || *key == self.limits.server)
        {
            return Err(Refusal::BadPair);
        }
        if let Some(vni) = self.vni_of(&clients) {
            if let Some(session) = self.by_vni.get_mut(&vni) {
                session.asked_ns = now_ns;
            }
            return Ok(());
        }
        let stats_slot = self.take_slot().ok_or(Refusal::Full)?;
        let vni = self.pick_vni();
        self.last_lamport_id += 1;
        let route = SessionRoute { vni, binds: [0; 2], clients, legs: [None; 2], side: Arc::default() };
        let session = Session {
            route: Arc::new(route),
            lamport_id: self.last_lamport_id,
            allocated_ns: now_ns,
            asked_ns: now_ns,
            installed_until_ns: None,
            legs: Default::default(),
            stats_slot,
            slot_used: false,
        };
        out.push(Change::Session { route: Arc::clone(&session.route) });
        let (by_vni, hasher) = (&self.by_vni, &self.hasher);
        // A VNI in the index is always in the table; zeros would only make the index slower.
        let hash = |vni: &u32| {
            hasher.hash_one(by_vni.get(vni).map_or_else(Default::default, |other| other.route.clients))
        };
        self.vni_by_pair.insert_unique(hasher.hash_one(clients), vni, hash);
        self.by_vni.insert(vni, session);
        Ok(())
    }

    /// Handles a bind, which begins a handshake: its challenge has the number [`Self::challenges`].
    pub(super) fn bind(&mut self, vni: u32, leg: LegIndex) -> Result<(), Refusal> {
        let session = self.by_vni.get_mut(&vni).ok_or(Refusal::UnknownSession)?;
        session.legs.get_mut(leg).ok_or(Refusal::UnknownSession)?.challenges += 1;
        Ok(())
    }

    /// The number of the leg's latest challenge; 0: none.
    pub(super) fn challenges(&self, vni: u32, leg: LegIndex) -> u64 {
        let leg = self.by_vni.get(&vni).and_then(|session| session.legs.get(leg));
        leg.map_or(0, |leg| leg.challenges)
    }

    /// Handles an answer to the challenge `number`, which binds the leg to the path that the answer came by.
    pub(super) fn answer(
        &mut self,
        vni: u32,
        leg: LegIndex,
        number: u64,
        path: LegPath,
        now_ns: u64,
        out: &mut Vec<Change>,
    ) -> Result<(), Refusal> {
        let session = self.by_vni.get_mut(&vni).ok_or(Refusal::UnknownSession)?;
        let state = session.legs.get_mut(leg).ok_or(Refusal::UnknownSession)?;
        if number <= state.answered || number > state.challenges {
            return Err(Refusal::WrongHandshake);
        }
        if session.route.legs[1 - leg].is_some_and(|other| other.remote == path.remote) {
            return Err(Refusal::SameAddress);
        }
        let mut route = SessionRoute::clone(&session.route);
        // Each answer is valid once. A client that moved needs a new next hop before the kernel may forward
        // its session again.
        if route.legs[leg] != Some(path) {
            state.hop = None;
        }
        state.last_seen_ns = now_ns;
        state.answered = number;
        route.legs[leg] = Some(path);
        route.binds[leg] = route.binds[leg].wrapping_add(1);
        session.route = Arc::new(route);
        out.push(Change::Session { route: Arc::clone(&session.route) });
        self.reconcile(vni, out);
        Ok(())
    }

    /// Sets or clears the next hop of a leg, as the kernel's routing reports it.
    pub(super) fn next_hop(
        &mut self,
        vni: u32,
        leg: LegIndex,
        path: LegPath,
        hop: Option<HopNumber>,
        out: &mut Vec<Change>,
    ) -> Result<(), Refusal> {
        let session = self.by_vni.get_mut(&vni).ok_or(Refusal::UnknownSession)?;
        if session.route.legs.get(leg) != Some(&Some(path)) {
            return Err(Refusal::StalePath);
        }
        if session.legs[leg].hop != hop {
            session.legs[leg].hop = hop;
            self.reconcile(vni, out);
        }
        Ok(())
    }

    /// Notes when each leg was last heard; ends the session if that is too long ago.
    pub(super) fn tick(
        &mut self,
        vni: u32,
        last_seen_ns: [u64; 2],
        now_ns: u64,
        out: &mut Vec<Change>,
    ) -> Result<(), Refusal> {
        let session = self.by_vni.get_mut(&vni).ok_or(Refusal::UnknownSession)?;
        for (leg, seen) in last_seen_ns.into_iter().enumerate() {
            if session.route.legs[leg].is_some() {
                let state = &mut session.legs[leg];
                state.last_seen_ns = state.last_seen_ns.max(seen);
            }
        }
        if session.expires_ns(&self.limits) >= now_ns {
            entry::refresh(session, &self.limits, out);
            return Ok(());
        }
        self.end(vni, out)
    }

    /// Ends a session.
    pub(super) fn end(&mut self, vni: u32, out: &mut Vec<Change>) -> Result<(), Refusal> {
        let session = self.by_vni.remove(&vni).ok_or(Refusal::UnknownSession)?;
        // The session is removed from the kernel before it is removed from the table: law 3.
        if session.is_installed() {
            self.installed -= 1;
            out.push(Change::Uninstall { vni });
        }
        out.push(Change::NoSession { vni });
        let hash = self.hasher.hash_one(session.route.clients);
        if let Ok(known) = self.vni_by_pair.find_entry(hash, |other| *other == vni) {
            known.remove();
        }
        self.free_slots.push_back(session.stats_slot);
        Ok(())
    }

    /// Number of sessions, and of those that the kernel should be forwarding.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.by_vni.len(), self.installed)
    }

    /// The entry that the kernel should have.
    pub(super) fn kernel_entry(&self, vni: u32) -> Option<SessionEntry> {
        self.by_vni.get(&vni).and_then(entry::installed)
    }

    pub(super) fn get(&self, vni: u32) -> Option<&Session> {
        self.by_vni.get(&vni)
    }

    pub(super) fn of(&self, pair: [DiscoPublic; 2]) -> Option<&Session> {
        self.vni_of(&sorted(pair)).and_then(|vni| self.by_vni.get(&vni))
    }

    pub(super) fn vnis_after(&self, vni: u32, count: usize) -> Vec<u32> {
        self.by_vni.range(vni.saturating_add(1)..).take(count).map(|(vni, _)| *vni).collect()
    }

    fn vni_of(&self, clients: &[DiscoPublic; 2]) -> Option<u32> {
        let is_theirs = |vni: &u32| self.by_vni.get(vni).is_some_and(|other| other.route.clients == *clients);
        self.vni_by_pair.find(self.hasher.hash_one(clients), is_theirs).copied()
    }

    fn reconcile(&mut self, vni: u32, out: &mut Vec<Change>) {
        let Some(session) = self.by_vni.get_mut(&vni) else { return };
        let before = session.is_installed();
        entry::reconcile(session, &self.limits, out);
        self.installed = self.installed + usize::from(session.is_installed()) - usize::from(before);
    }

    /// Slots that were never used come first.
    fn take_slot(&mut self) -> Option<u32> {
        if self.fresh_slot < self.limits.max_sessions {
            self.fresh_slot += 1;
            return Some(self.fresh_slot - 1);
        }
        self.free_slots.pop_front()
    }

    /// Picks VNIs in sequence (RFC 6056, algorithm 1 without the random start), so that a VNI rests as long
    /// as possible before it names another session. A free slot exists, and there are fewer slots than VNIs,
    /// so the loop ends.
    fn pick_vni(&mut self) -> u32 {
        loop {
            let vni = self.next_vni;
            self.next_vni = if vni == MAX_VNI { 1 } else { vni + 1 };
            if !self.by_vni.contains_key(&vni) {
                return vni;
            }
        }
    }
}

fn sorted([a, b]: [DiscoPublic; 2]) -> [DiscoPublic; 2] {
    if a <= b { [a, b] } else { [b, a] }
}

#[cfg(test)]
mod tests {
    use relay_common::key::DiscoPrivate;

    use super::*;

    #[test]
    fn behind_the_largest_vni_comes_the_first_one_that_is_free() {
        let limits = Limits { max_sessions: 4, bind_lifetime_ns: 1, ..Limits::default() };
        let mut sessions = Sessions::new(limits);
        sessions.next_vni = 0xff_ffff;
        let disco = |n: u8| DiscoPrivate::from_bytes([n; 32]).public();
        let vnis = [1, 2, 3].map(|n| {
            let pair = [disco(10), disco(n)];
            sessions.allocate(pair, 0, &mut Vec::new()).expect("there is room");
            sessions.of(pair).expect("allocated").vni()
        });
        assert_eq!(vnis, [0xff_ffff, 1, 2]);
        sessions.next_vni = 0xff_ffff;
        let pair = [disco(10), disco(4)];
        sessions.allocate(pair, 0, &mut Vec::new()).expect("there is room");
        assert_eq!(sessions.of(pair).expect("allocated").vni(), 3, "those before are taken");
    }
}
