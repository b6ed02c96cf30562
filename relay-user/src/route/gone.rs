//! Remembers who has heard from whom, so that PeerGone reaches exactly these clients when a key leaves.
//!
//! Each sender remembers its own receivers, in its own task, without a lock. Upstream keeps the same relation
//! at the receivers, under the global mutex.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use relay_common::key::NodePublic;

use super::peer::Peer;
use super::vocabulary::ConnId;

/// Dead entries are removed when the list has grown to this size, and then to twice the size that was left.
const FIRST_PURGE: usize = 64;

/// The connections that one connection has sent packets to.
#[derive(Debug, Default)]
pub struct Audience {
    heard: HashMap<ConnId, Weak<Peer>>,
    purge_at: usize,
}

impl Audience {
    /// Remembers that `peer` is sent a packet.
    pub fn add(&mut self, peer: &Arc<Peer>) {
        self.heard.entry(peer.id).or_insert_with(|| Arc::downgrade(peer));
        self.purge();
    }

    fn merge(&mut self, other: Self) {
        self.heard.extend(other.heard);
        self.purge();
    }

    /// Removes dead entries: even a weak handle keeps the memory of its peer.
    fn purge(&mut self) {
        if self.heard.len() >= self.purge_at.max(FIRST_PURGE) {
            self.heard.retain(|_, peer| peer.strong_count() > 0);
            self.purge_at = self.heard.len() * 2;
        }
    }

    /// Forgets those who have left; returns whether anybody remains.
    pub(super) fn has_anybody(&mut self) -> bool {
        self.heard.retain(|_, peer| peer.strong_count() > 0);
        !self.heard.is_empty()
    }

    pub(super) fn into_peers(self) -> Vec<Arc<Peer>> {
        self.heard.into_values().filter_map(|peer| peer.upgrade()).collect()
    }
}

/// The audiences of ended connections whose key is still held by another connection.
#[derive(Debug, Default)]
pub(super) struct Audiences {
    by_key: HashMap<NodePublic, Audience>,
}

impl Audiences {
    /// Handles the end of a connection of `key`; `last`: the key left with it. Returns the peers that must be
    /// told.
    pub(super) fn leave(&mut self, key: NodePublic, audience: Audience, last: bool) -> Vec<Arc<Peer>> {
        if last {
            let mut all = self.by_key.remove(&key).unwrap_or_default();
            all.merge(audience);
            return all.into_peers();
        }
        self.by_key.entry(key).or_default().merge(audience);
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(conn: u64) -> Arc<Peer> {
        Arc::new(Peer::new(NodePublic::from_bytes([1; 32]), ConnId(conn), ([127, 0, 0, 1], 1).into()))
    }

    #[test]
    fn receivers_that_come_and_go_while_a_key_is_held_twice_are_forgotten() {
        let key = NodePublic::from_bytes([7; 32]);
        let mut audiences = Audiences::default();
        for conn in 0..10_000 {
            let receiver = peer(conn);
            let mut audience = Audience::default();
            audience.add(&receiver);
            assert!(audiences.leave(key, audience, false).is_empty());
            assert!(audiences.by_key[&key].heard.len() <= FIRST_PURGE);
        }
        let stays = peer(10_000);
        let mut audience = Audience::default();
        audience.add(&stays);
        assert!(audiences.leave(key, audience, false).is_empty());
        let told = audiences.leave(key, Audience::default(), true);
        assert_eq!(told.iter().map(|peer| peer.id).collect::<Vec<_>>(), [stays.id]);
    }
    #[test]
    fn those_who_stay_are_all_told_and_looked_through_only_when_their_number_has_doubled() {
        let key = NodePublic::from_bytes([7; 32]);
        let stay: Vec<_> = (0..2 * FIRST_PURGE as u64).map(peer).collect();
        let mut audience = Audience::default();
        for (heard, peer) in (1..).zip(&stay) {
            audience.add(peer);
            // The next size at which dead entries are looked for tells when they were last looked for.
            let at = heard / FIRST_PURGE * 2 * FIRST_PURGE;
            assert_eq!(audience.purge_at, at, "{heard} receivers");
        }
        let mut told = Audiences::default().leave(key, audience, true);
        told.sort_unstable_by_key(|peer| peer.id);
        assert_eq!(
            told.iter().map(|peer| peer.id).collect::<Vec<_>>(),
            stay.iter().map(|peer| peer.id).collect::<Vec<_>>()
        );
    }
}
