//! News that a receiver is owed: the latest for each key. News is never dropped.
//!
//! A receiver that takes nothing may be owed one piece of news for each key that it has heard from. So the
//! news takes bounded memory, however often these keys come and go (upstream keeps a list without this
//! bound).

use std::collections::BTreeMap;

use relay_common::derp::message::{FromServer, PeerGoneReason};
use relay_common::derp::{HEADER_LEN, KEY_LEN};
use relay_common::key::NodePublic;

use super::chunk::Chunk;

/// Bytes of a PeerGone frame: header, key, reason.
pub(super) const NEWS_BYTES: usize = HEADER_LEN + KEY_LEN + 1;

/// News frames written at once: packets must not wait for a long list.
const MAX_AT_ONCE: usize = 256;

/// The pending news of one receiver, by key.
#[derive(Debug, Default)]
pub(super) struct Owed {
    gone: BTreeMap<NodePublic, PeerGoneReason>,
}

impl Owed {
    /// Notes that `key` is gone; returns whether nothing was pending for it before.
    pub(super) fn gone(&mut self, key: NodePublic, reason: PeerGoneReason) -> bool {
        self.gone.insert(key, reason).is_none()
    }

    pub(super) fn len(&self) -> usize {
        self.gone.len()
    }

    /// Takes some of the news, as frames.
    pub(super) fn take(&mut self) -> Option<Chunk> {
        if self.gone.is_empty() {
            return None;
        }
        let mut chunk = Chunk::pooled();
        let mut frame = Vec::with_capacity(NEWS_BYTES);
        for _ in 0..MAX_AT_ONCE {
            let Some((peer, reason)) = self.gone.pop_first() else { break };
            frame.clear();
            FromServer::PeerGone { peer: &peer, reason }.encode(&mut frame);
            chunk.try_push(&frame, &[]);
        }
        Some(chunk)
    }
}
