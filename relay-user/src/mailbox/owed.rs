//! News that a receiver is owed: the latest for each key. News is never dropped.
//!
//! A receiver that takes nothing may be owed one piece of news for each key: that it is gone, or, if the receiver
//! watches, that it is here. So the news takes bounded memory, however often these keys come and go (upstream
//! keeps a list without this bound).

use std::collections::BTreeMap;
use std::net::SocketAddr;

use relay_common::derp::info::AppName;
use relay_common::derp::message::{FromServer, PeerGoneReason, PeerPresentFlags};
use relay_common::key::NodePublic;

use super::chunk::Chunk;

/// News frames written at once: packets must not wait for a long list.
const MAX_AT_ONCE: usize = 256;

/// A client as watchers are told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presence {
    /// The address that the client connects from.
    pub addr: SocketAddr,
    /// What kind of client it is.
    pub flags: PeerPresentFlags,
    /// The label that the client gave itself.
    pub app_name: AppName,
}

/// The news about one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// The key left.
    Gone(PeerGoneReason),
    /// The key is here.
    Here(Box<Presence>),
}

impl News {
    fn frame<'a>(&'a self, peer: &'a NodePublic) -> FromServer<'a> {
        match self {
            Self::Gone(reason) => FromServer::PeerGone { peer, reason: *reason },
            Self::Here(presence) => FromServer::PeerPresent {
                peer,
                addr: Some(presence.addr),
                flags: presence.flags,
                app_name: presence.app_name.as_str(),
            },
        }
    }

    fn bytes(&self, peer: &NodePublic) -> usize {
        self.frame(peer).encoded_len()
    }
}

/// The pending news of one receiver, by key.
#[derive(Debug, Default)]
pub(super) struct Owed {
    news: BTreeMap<NodePublic, News>,
    bytes: usize,
}

impl Owed {
    /// Notes news about `key` in place of what was pending; returns by how many bytes the frames have grown.
    pub(super) fn add(&mut self, key: NodePublic, news: News) -> i64 {
        let before = self.bytes;
        self.bytes += news.bytes(&key);
        if let Some(old) = self.news.insert(key, news) {
            self.bytes -= old.bytes(&key);
        }
        self.bytes as i64 - before as i64
    }

    pub(super) fn len(&self) -> usize {
        self.news.len()
    }

    /// Bytes of the pending frames.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes some of the news, as frames.
    pub(super) fn take(&mut self) -> Option<Chunk> {
        if self.news.is_empty() {
            return None;
        }
        let mut chunk = Chunk::pooled();
        let mut frame = Vec::new();
        for _ in 0..MAX_AT_ONCE {
            let Some((peer, news)) = self.news.pop_first() else { break };
            frame.clear();
            news.frame(&peer).encode(&mut frame);
            self.bytes -= frame.len();
            chunk.try_push(&frame, &[]);
        }
        Some(chunk)
    }
}
