//! News that a receiver is owed: the latest for each key. News is never dropped.
//!
//! A receiver that takes nothing may be owed one piece of news for each key: that it is gone, or, if the
//! receiver watches, that it is here. A key that came and left before the receiver was told of it is not news
//! at all. So the news takes bounded memory, however many keys come and go, and however often: one piece for
//! each key that is here or that the receiver believes to be here (upstream keeps a list without a bound).

use std::collections::{BTreeMap, HashMap};
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
    /// Whether the receiver does not believe the key to be here, unless it is owed other news.
    pub is_first: bool,
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

/// The pending news of one receiver: the oldest is told first.
#[derive(Debug, Default)]
pub(super) struct Owed {
    by_number: BTreeMap<u64, (NodePublic, News)>,
    numbers: HashMap<NodePublic, u64, foldhash::fast::RandomState>,
    next_number: u64,
    bytes: usize,
}

impl Owed {
    /// Notes news about `key` in place of what was pending; returns by how many bytes the frames have grown.
    pub(super) fn add(&mut self, key: NodePublic, mut news: News) -> i64 {
        let before = self.bytes;
        let pending = self.numbers.remove(&key).and_then(|number| self.by_number.remove(&number));
        let pending = pending.map(|(_, news)| news);
        self.bytes -= pending.as_ref().map_or(0, |old| old.bytes(&key));
        let knows_nothing = matches!(&pending, Some(News::Here(presence)) if presence.is_first);
        match &mut news {
            News::Gone(_) if knows_nothing => return self.bytes as i64 - before as i64,
            News::Gone(_) => {}
            // Pending news of the key's end means that the receiver believes the key to be here.
            News::Here(presence) => {
                presence.is_first = knows_nothing || (presence.is_first && pending.is_none());
            }
        }
        self.bytes += news.bytes(&key);
        self.numbers.insert(key, self.next_number);
        self.by_number.insert(self.next_number, (key, news));
        self.next_number += 1;
        self.bytes as i64 - before as i64
    }

    pub(super) fn len(&self) -> usize {
        self.by_number.len()
    }

    /// Bytes of the pending frames.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes some of the news, as frames.
    pub(super) fn take(&mut self) -> Option<Chunk> {
        if self.by_number.is_empty() {
            return None;
        }
        let mut chunk = Chunk::pooled();
        let mut frame = Vec::new();
        for _ in 0..MAX_AT_ONCE {
            let Some((_, (peer, news))) = self.by_number.pop_first() else { break };
            self.numbers.remove(&peer);
            frame.clear();
            news.frame(&peer).encode(&mut frame);
            self.bytes -= frame.len();
            chunk.try_push(&frame, &[]);
        }
        Some(chunk)
    }
}
