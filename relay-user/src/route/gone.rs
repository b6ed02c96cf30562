//! Who has heard from whom, so that PeerGone reaches exactly those when a key leaves.
//!
//! Each sender remembers its own receivers, in its own task, without a lock. Upstream keeps the same relation
//! at the receivers, under the global mutex.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use relay_common::key::NodePublic;

use super::peer::Peer;
use super::table::ConnId;

/// Dead entries are swept out when the list has grown to this, and then to twice what was left.
const FIRST_PURGE: usize = 64;

/// The connections that one connection has sent packets to.
#[derive(Debug, Default)]
pub struct Audience {
    heard: HashMap<ConnId, Weak<Peer>>,
    purge_at: usize,
}

impl Audience {
    /// Remembers that `peer` is being sent a packet.
    pub fn add(&mut self, peer: &Arc<Peer>) {
        self.heard.entry(peer.id).or_insert_with(|| Arc::downgrade(peer));
        if self.heard.len() >= self.purge_at.max(FIRST_PURGE) {
            self.heard.retain(|_, peer| peer.strong_count() > 0);
            self.purge_at = self.heard.len() * 2;
        }
    }

    fn merge(&mut self, other: Self) {
        self.heard.extend(other.heard);
    }

    fn into_peers(self) -> Vec<Arc<Peer>> {
        self.heard.into_values().filter_map(|peer| peer.upgrade()).collect()
    }
}

/// What connections left behind whose key is still held by another connection.
#[derive(Debug, Default)]
pub(super) struct Audiences {
    by_key: HashMap<NodePublic, Audience>,
}

impl Audiences {
    /// A connection of `key` left; `last`: the key left with it. Returns who has to hear of it.
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
