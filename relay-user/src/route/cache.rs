//! The connections that one connection sends to, by node key. Steady traffic finds its receiver without a
//! lock and without writing to memory that other threads read.
//!
//! This reproduces derper's lock-free look-up and goes further: a hit touches no shared map. An entry is
//! stale when its peer is no longer active for the key; then the mirror is asked again. The cache holds every
//! peer that has been sent packets, so it also says who must be told when this connection leaves.

use std::hash::BuildHasher;

use hashbrown::HashTable;
use relay_common::key::NodePublic;

use super::gone::Audience;
use super::link::Way;
use super::{Hasher, Router};

/// Number of recent finds, indexed by a byte of the key; a power of two.
const RECENT: usize = 8;

/// Inactive peers are removed when the table has grown to this size, and then to twice the size that was
/// left.
const FIRST_PURGE: usize = 64;

/// The cache, which also remembers who has heard from this connection.
#[derive(Debug, Default)]
pub struct Cache {
    known: HashTable<Way>,
    hasher: Hasher,
    /// Where in `known` the last peers were found: a guess that saves computing the hash.
    recent: [u32; RECENT],
    purge_at: usize,
    /// Peers that were sent packets and are no longer active: duplicates, or peers that left. Most
    /// connections have none.
    displaced: Option<Box<Audience>>,
}

impl Cache {
    /// Finds the way for `key`: first in the cache, then in the mirror.
    pub fn lookup(&mut self, key: &NodePublic, router: &Router) -> Option<&Way> {
        // Node keys are curve points, so any byte will do. A client that picks colliding keys slows only
        // itself.
        let recent = usize::from(key.as_bytes()[0]) % RECENT;
        let mut at = self.recent[recent] as usize;
        if !self.known.get_bucket(at).is_some_and(|way| way.key() == key && way.is_active()) {
            at = self.find(key, router)?;
            self.recent[recent] = at as u32;
        }
        self.known.get_bucket(at)
    }

    /// All peers that this connection has sent packets to.
    pub fn into_audience(self) -> Audience {
        let mut audience = self.displaced.map_or_else(Audience::default, |displaced| *displaced);
        self.known.iter().filter_map(Way::peer).for_each(|peer| audience.add(peer));
        audience
    }

    fn find(&mut self, key: &NodePublic, router: &Router) -> Option<usize> {
        let hash = self.hasher.hash_one(key);
        let at = self.known.find_bucket_index(hash, |way| way.key() == key);
        match at.and_then(|at| self.known.get_bucket(at)) {
            Some(way) if way.is_active() => at,
            _ => self.refresh(key, hash, router),
        }
    }

    /// Asks the mirror. An unknown key is not stored: a flood of misses must not fill the table.
    #[cold]
    fn refresh(&mut self, key: &NodePublic, hash: u64, router: &Router) -> Option<usize> {
        if let Ok(stale) = self.known.find_entry(hash, |way| way.key() == key)
            && let (Way::Here(peer), _) = stale.remove()
        {
            self.displaced.get_or_insert_default().add(&peer);
        }
        let way = router.way(key)?;
        if self.known.len() >= self.purge_at.max(FIRST_PURGE) {
            for way in self.known.extract_if(|way| !way.is_active()) {
                if let Way::Here(peer) = way {
                    self.displaced.get_or_insert_default().add(&peer);
                }
            }
            self.purge_at = self.known.len() * 2;
        }
        let entry = self.known.insert_unique(hash, way, |way| self.hasher.hash_one(way.key()));
        Some(entry.bucket_index())
    }
}

#[cfg(test)]
mod tests {
    use super::super::peer::Peer;
    use super::super::sessions::Limits;
    use super::super::vocabulary::ConnId;
    use std::sync::Arc;

    use super::*;

    fn router() -> Router {
        Router::new(Limits::default(), None)
    }

    fn login(router: &Router, conn: u64, key: u64) -> Arc<Peer> {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&key.to_be_bytes());
        let key = NodePublic::from_bytes(bytes);
        let peer = Arc::new(Peer::new(key, ConnId(conn), ([127, 0, 0, 1], 1).into()));
        let _ = router.login(&peer, 0).expect("a new connection");
        peer
    }

    #[test]
    fn more_peers_than_recent_places_are_all_found_and_each_is_itself() {
        let router = router();
        let peers: Vec<_> = (0..500).map(|n| login(&router, n, n % 250)).collect();
        let mut cache = Cache::default();
        for _ in 0..2 {
            for peer in &peers[250..] {
                assert_eq!(
                    cache.lookup(&peer.key, &router).and_then(Way::peer).map(|found| found.id),
                    Some(peer.id)
                );
            }
        }
        assert_eq!(cache.known.len(), 250);
        assert!(cache.displaced.is_none(), "all of them are still active");
    }

    #[test]
    fn a_connection_that_was_displaced_still_counts_as_sent_to() {
        let router = router();
        let mut cache = Cache::default();
        let mut sent_to = Vec::new();
        for conn in 1..=2 {
            let peer = login(&router, conn, 7);
            assert_eq!(
                cache.lookup(&peer.key, &router).and_then(Way::peer).map(|found| found.id),
                Some(peer.id)
            );
            assert_eq!(cache.known.len(), 1, "the one before is no longer looked at");
            sent_to.push(peer);
        }
        let sender = login(&router, 3, 8);
        let told = router.leave(&sender, cache.into_audience(), 0);
        let mut told: Vec<_> = told.wake.iter().map(|peer| peer.id).collect();
        told.sort();
        assert_eq!(told, [ConnId(1), ConnId(2)]);
    }

    #[test]
    fn those_who_left_do_not_fill_the_table() {
        let router = router();
        let mut cache = Cache::default();
        for n in 0..10_000 {
            let peer = login(&router, n, n);
            assert!(cache.lookup(&peer.key, &router).is_some());
            let _ = router.leave(&peer, Audience::default(), 0);
            assert!(cache.known.len() <= FIRST_PURGE);
        }
        let sender = login(&router, 10_000, 10_000);
        assert!(router.leave(&sender, cache.into_audience(), 0).wake.is_empty());
    }

    #[test]
    fn unknown_keys_leave_no_trace() {
        let router = router();
        let mut cache = Cache::default();
        assert!((0..=255).all(|n| cache.lookup(&NodePublic::from_bytes([n; 32]), &router).is_none()));
        assert_eq!(cache.known.capacity(), 0);
    }
    #[test]
    fn those_who_stay_are_looked_through_only_when_their_number_has_doubled() {
        let router = router();
        let mut cache = Cache::default();
        for n in 0..=2 * FIRST_PURGE {
            let peer = login(&router, n as u64, n as u64);
            assert!(cache.lookup(&peer.key, &router).is_some());
            // The next size at which inactive peers are looked for tells when they were last looked for.
            assert_eq!(cache.purge_at, n / FIRST_PURGE * 2 * FIRST_PURGE, "{n} known before");
        }
        assert_eq!(cache.known.len(), 2 * FIRST_PURGE + 1, "all stay");
    }
}
