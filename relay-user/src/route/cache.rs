//! A connection's recent destinations: steady traffic finds its peer by one compare and one load.
//!
//! Reproduces, and goes beyond, derper's lock-free look-up: no shared map is touched on a hit. An entry is
//! stale when its peer is no longer active for the key; then the mirror decides afresh.

use std::sync::Arc;

use relay_common::key::NodePublic;

use super::Router;
use super::gone::Audience;
use super::peer::Peer;

/// Direct-mapped slots; a power of two. Allocated with the first packet, so that idle clients hold none.
const SLOTS: usize = 8;

/// The cache, and with it the memory of who has heard from this connection.
#[derive(Debug, Default)]
pub struct Cache {
    slots: Option<Box<[Option<Arc<Peer>>; SLOTS]>>,
    audience: Audience,
}

impl Cache {
    /// Finds the connection for `key`: here, else in the mirror.
    pub fn lookup(&mut self, key: &NodePublic, router: &Router) -> Option<&Arc<Peer>> {
        let slots = self.slots.get_or_insert_with(Box::default);
        // Node keys are curve points, so any byte will do; a client that picks keys to collide slows only
        // itself.
        let slot = &mut slots[usize::from(key.as_bytes()[0]) % SLOTS];
        let hit = slot.as_ref().is_some_and(|peer| peer.key == *key && peer.is_active());
        if !hit {
            let peer = router.peer(key);
            if let Some(peer) = &peer {
                self.audience.add(peer);
            }
            // An unknown key leaves the slot to whoever had it: a flood of misses must not empty the cache.
            peer.as_ref()?;
            *slot = peer;
        }
        slot.as_ref()
    }

    /// Everybody this connection has sent to.
    pub fn into_audience(self) -> Audience {
        self.audience
    }
}
