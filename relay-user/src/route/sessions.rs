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

use std::collections::{BTreeMap, HashMap, VecDeque};

use relay_common::fastpath::SessionEntry;
use relay_common::key::DiscoPublic;

use super::vocabulary::{Change, LegIndex, LegPath, Refusal};
use crate::route::next_hop::NextHop;

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
    /// The session's virtual network identifier, 1 to 2^24-1.
    pub vni: u32,
    /// A newer session has a higher number, over the life of the server key.
    pub lamport_id: u64,
    /// The two clients, ascending.
    pub clients: [DiscoPublic; 2],
    /// Where each client is bound.
    pub legs: [Leg; 2],
    /// CLOCK_MONOTONIC nanoseconds of the allocation.
    pub allocated_ns: u64,
    /// Index of the session's counters in `LEG_STATS`.
    pub stats_slot: u32,
    /// Number of completed binds.
    pub generation: u64,
    /// The entry last given to the kernel; `None`: userspace forwards the session.
    pub installed: Option<SessionEntry>,
    slot_used: bool,
}

/// One side of a session.
#[derive(Clone, Copy, Debug, Default)]
pub struct Leg {
    /// The number that the client gave to the handshake in progress (upstream's "generation"); 0: none.
    pub in_progress: u32,
    /// Where the client is bound.
    pub path: Option<LegPath>,
    /// The next hop by which the kernel would reach the client.
    pub hop: Option<NextHop>,
    /// CLOCK_MONOTONIC nanoseconds of the client's last packet or bind.
    pub last_seen_ns: u64,
}

impl Session {
    /// Whether both legs are bound.
    pub fn is_bound(&self) -> bool {
        self.legs.iter().all(|leg| leg.path.is_some())
    }

    fn change(&self) -> Change {
        Change::Session { vni: self.vni, clients: self.clients, legs: self.legs.map(|leg| leg.path) }
    }

    fn expires_ns(&self, limits: &Limits) -> u64 {
        let from = match self.is_bound() {
            true => self.legs.iter().map(|leg| leg.last_seen_ns).min().unwrap_or(0),
            false => self.allocated_ns,
        };
        let lifetime = if self.is_bound() { limits.steady_lifetime_ns } else { limits.bind_lifetime_ns };
        from.saturating_add(lifetime)
    }
}

/// All sessions, with their indexes.
#[derive(Debug)]
pub(super) struct Sessions {
    limits: Limits,
    by_vni: BTreeMap<u32, Session>,
    vni_by_pair: HashMap<[DiscoPublic; 2], u32>,
    // First in, first out: the slot that has been free longest is used next, so that a late write cannot hit
    // the slot's next session.
    free_slots: VecDeque<u32>,
    next_vni: u32,
    last_lamport_id: u64,
}

impl Sessions {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            by_vni: BTreeMap::new(),
            vni_by_pair: HashMap::new(),
            free_slots: (0..limits.max_sessions).collect(),
            next_vni: 1,
            last_lamport_id: 0,
        }
    }

    /// Makes the pair's session if there is none.
    pub(super) fn allocate(
        &mut self,
        pair: [DiscoPublic; 2],
        now_ns: u64,
        out: &mut Vec<Change>,
    ) -> Result<(), Refusal> {
        let clients = sorted(pair);
        if clients[0] == clients[1] || clients.iter().any(|key| key.is_zero() || *key == self.limits.server) {
            return Err(Refusal::BadPair);
        }
        if self.vni_by_pair.contains_key(&clients) {
            return Ok(());
        }
        let stats_slot = self.free_slots.pop_front().ok_or(Refusal::Full)?;
        let vni = self.pick_vni();
        self.last_lamport_id += 1;
        let session = Session {
            vni,
            lamport_id: self.last_lamport_id,
            clients,
            legs: [Leg::default(); 2],
            allocated_ns: now_ns,
            stats_slot,
            generation: 0,
            installed: None,
            slot_used: false,
        };
        out.push(session.change());
        self.vni_by_pair.insert(clients, vni);
        self.by_vni.insert(vni, session);
        Ok(())
    }

    /// Handles a bind, which opens a handshake; only the latest handshake counts.
    pub(super) fn bind(&mut self, vni: u32, leg: LegIndex, handshake: u32) -> Result<(), Refusal> {
        if handshake == 0 {
            return Err(Refusal::WrongHandshake);
        }
        self.leg_mut(vni, leg)?.in_progress = handshake;
        Ok(())
    }

    /// Handles an answer, which binds the leg to the path that the answer came by.
    pub(super) fn answer(
        &mut self,
        vni: u32,
        leg: LegIndex,
        handshake: u32,
        path: LegPath,
        now_ns: u64,
        out: &mut Vec<Change>,
    ) -> Result<(), Refusal> {
        let session = self.by_vni.get_mut(&vni).ok_or(Refusal::UnknownSession)?;
        let [mine, other] = match leg {
            0 => session.legs,
            _ => [session.legs[1], session.legs[0]],
        };
        if handshake == 0 || mine.in_progress != handshake {
            return Err(Refusal::WrongHandshake);
        }
        if other.path.is_some_and(|other| other.remote == path.remote) {
            return Err(Refusal::SameAddress);
        }
        // Each answer is valid once. A client that moved needs a new next hop before the kernel may forward
        // its session again.
        let hop = if mine.path == Some(path) { mine.hop } else { None };
        session.legs[leg] = Leg { in_progress: 0, path: Some(path), hop, last_seen_ns: now_ns };
        session.generation += 1;
        out.push(session.change());
        entry::reconcile(session, &self.limits, out);
        Ok(())
    }

    /// Sets or clears the next hop of a leg, as the kernel's routing reports it.
    pub(super) fn next_hop(
        &mut self,
        vni: u32,
        leg: LegIndex,
        path: LegPath,
        hop: Option<NextHop>,
        out: &mut Vec<Change>,
    ) -> Result<(), Refusal> {
        let session = self.by_vni.get_mut(&vni).ok_or(Refusal::UnknownSession)?;
        let target = session.legs.get_mut(leg).ok_or(Refusal::UnknownSession)?;
        if target.path != Some(path) {
            return Err(Refusal::StalePath);
        }
        target.hop = hop;
        entry::reconcile(session, &self.limits, out);
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
        for (leg, seen) in session.legs.iter_mut().zip(last_seen_ns) {
            if leg.path.is_some() {
                leg.last_seen_ns = leg.last_seen_ns.max(seen);
            }
        }
        if session.expires_ns(&self.limits) >= now_ns {
            entry::refresh(session, &self.limits, out);
            return Ok(());
        }
        self.end(vni, out)
    }

    /// Ends a session now.
    pub(super) fn end(&mut self, vni: u32, out: &mut Vec<Change>) -> Result<(), Refusal> {
        let session = self.by_vni.remove(&vni).ok_or(Refusal::UnknownSession)?;
        // The session is removed from the kernel before it is removed from the mirror: law 3.
        if session.installed.is_some() {
            out.push(Change::Uninstall { vni });
        }
        out.push(Change::NoSession { vni });
        self.vni_by_pair.remove(&session.clients);
        self.free_slots.push_back(session.stats_slot);
        Ok(())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Session> + '_ {
        self.by_vni.values()
    }

    pub(super) fn get(&self, vni: u32) -> Option<&Session> {
        self.by_vni.get(&vni)
    }

    pub(super) fn of(&self, pair: [DiscoPublic; 2]) -> Option<&Session> {
        self.vni_by_pair.get(&sorted(pair)).and_then(|vni| self.by_vni.get(vni))
    }

    pub(super) fn vnis_after(&self, vni: u32, count: usize) -> Vec<u32> {
        self.by_vni.range(vni.saturating_add(1)..).take(count).map(|(vni, _)| *vni).collect()
    }

    fn leg_mut(&mut self, vni: u32, leg: LegIndex) -> Result<&mut Leg, Refusal> {
        let session = self.by_vni.get_mut(&vni).ok_or(Refusal::UnknownSession)?;
        session.legs.get_mut(leg).ok_or(Refusal::UnknownSession)
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
            sessions.of(pair).expect("allocated").vni
        });
        assert_eq!(vnis, [0xff_ffff, 1, 2]);
        sessions.next_vni = 0xff_ffff;
        let pair = [disco(10), disco(4)];
        sessions.allocate(pair, 0, &mut Vec::new()).expect("there is room");
        assert_eq!(sessions.of(pair).expect("allocated").vni, 3, "those before are taken");
    }
}
