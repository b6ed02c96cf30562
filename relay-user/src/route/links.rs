//! The router's part in the mesh: links, what they claim, and who must hear of the end of a claim.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::MutexGuard;
use relay_common::derp::message::PeerGoneReason;
use relay_common::key::NodePublic;

use super::gone::Audience;
use super::link::Link;
use super::peer::Peer;
use super::vocabulary::{Event, LinkId, Refusal};
use super::{Inner, NewsOwed, Router};
use crate::mailbox::News;

/// Keys of other relays without a claim that are remembered at most, for those who heard from them.
const MAX_UNCLAIMED: usize = 64 * 1024;

/// Those who heard from a key of another relay.
#[derive(Debug)]
pub(super) struct Hearers {
    audience: Audience,
    /// Cleared when they have been told, or forgotten.
    stands: Arc<AtomicBool>,
}

impl Default for Hearers {
    fn default() -> Self {
        Self { audience: Audience::default(), stands: Arc::new(AtomicBool::new(true)) }
    }
}

impl Hearers {
    /// Whoever hears from the key again must be noted again. Returns `false`: nothing of it is kept.
    fn end(&mut self) -> bool {
        self.stands.store(false, Ordering::Release);
        false
    }
}

/// That somebody who heard from a key will be told of its end.
#[derive(Clone, Debug)]
pub struct Note(Arc<AtomicBool>);

impl Note {
    /// Whether it still stands: nobody has been told yet.
    pub fn stands(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Where a key is.
#[derive(Clone, Debug, Default)]
pub struct Whereabouts {
    /// Its connections here; packets go to the active one.
    pub here: Vec<Arc<Peer>>,
    /// The links that claim it, the newest last: without a connection here, packets go over that one.
    pub links: Vec<Arc<Link>>,
}

impl Router {
    /// Puts a link into the table, without claims.
    ///
    /// # Errors
    /// The link is up already.
    pub fn link_up(&self, link: &Arc<Link>, now_ns: u64) -> Result<(), Refusal> {
        let mut inner = self.lock();
        // The mirror must find the link before the table routes packets to it.
        self.links.insert(link.id, Arc::clone(link));
        self.apply(&mut inner, Event::LinkUp { link: link.id }, now_ns)
    }

    /// Handles the news that the link's relay has `key`; `listed` is as in [`Event::Claim`].
    ///
    /// # Errors
    /// The link is not up.
    pub fn claim(&self, link: LinkId, key: NodePublic, listed: bool, now_ns: u64) -> Result<(), Refusal> {
        self.apply(&mut self.lock(), Event::Claim { link, key, listed }, now_ns)
    }

    /// Handles the news that the link's relay no longer has `key`. If nobody has it any more, the connections
    /// that heard from it are owed the news.
    ///
    /// # Errors
    /// The link is not up, or never claimed the key.
    pub fn disclaim(&self, link: LinkId, key: NodePublic, now_ns: u64) -> Result<NewsOwed, Refusal> {
        let mut inner = self.lock();
        self.apply(&mut inner, Event::Disclaim { link, key }, now_ns)?;
        let mut told = NewsOwed::default();
        self.tell_of_lost(&mut inner, &mut told);
        Ok(told)
    }

    /// Removes a link and all that it claimed; news is owed as in [`Router::disclaim`]. A relay may claim
    /// very many keys: they end some at a time, and in between others get the table. Meanwhile packets for
    /// the rest go to the link's mailbox, which is closed, and are counted.
    pub fn link_down(&self, link: LinkId, now_ns: u64) -> NewsOwed {
        let mut told = NewsOwed::default();
        loop {
            let mut inner = self.lock();
            // The table refuses this only when the link is down; then nothing is lost.
            let is_down = self.apply(&mut inner, Event::LinkDown { link }, now_ns).is_err();
            self.tell_of_lost(&mut inner, &mut told);
            if is_down {
                self.links.remove(&link);
                return told;
            }
            MutexGuard::unlock_fair(inner);
        }
    }

    /// Notes that `peer` had a packet from the key `source` of another relay, so that it is told when that
    /// key is gone. No link need claim the key yet: the other relay's link to us may be up before ours to it.
    /// As long as the note stands, the caller need not make it again. `None`: of such keys only so many are
    /// remembered.
    pub fn heard_from(&self, source: &NodePublic, peer: &Arc<Peer>) -> Option<Note> {
        if !self.remotes.contains_key(source) && self.heard.len() >= MAX_UNCLAIMED {
            return None;
        }
        let mut hearers = self.heard.entry(*source).or_default();
        hearers.audience.add(peer);
        Some(Note(Arc::clone(&hearers.stands)))
    }

    /// Forgets those who heard from other relays' keys and have left since. Call this now and then.
    pub fn forget_hearers(&self) {
        self.heard.retain(|_, hearers| hearers.audience.has_anybody() || hearers.end());
    }

    fn tell_of_lost(&self, inner: &mut Inner, told: &mut NewsOwed) {
        for key in std::mem::take(&mut inner.lost) {
            if self.peers.contains_key(&key) {
                continue;
            }
            for other in inner.audiences.leave(key, Audience::default(), true) {
                told.add(&other, key, News::Gone(PeerGoneReason::Disconnected));
            }
            self.tell_hearers(key, told, &[]);
        }
    }

    /// `watchers` are told by the caller, and not twice.
    pub(super) fn tell_hearers(&self, key: NodePublic, told: &mut NewsOwed, watchers: &[Arc<Peer>]) {
        let Some((_, mut hearers)) = self.heard.remove(&key) else { return };
        hearers.end();
        let others = hearers.audience.into_peers().into_iter();
        for other in others.filter(|other| watchers.iter().all(|watcher| watcher.id != other.id)) {
            told.add(&other, key, News::Gone(PeerGoneReason::Disconnected));
        }
    }

    /// Where a key is. Takes the table's lock for a moment, and looks at every connection: this is for
    /// operators.
    pub fn whereabouts(&self, key: &NodePublic) -> Whereabouts {
        let claims = self.lock().table.claims(key).to_vec();
        let links = claims.iter().filter_map(|link| self.links.get(link).map(|link| Arc::clone(&link)));
        let links = links.collect();
        let mut here = Vec::new();
        self.for_each_peer(|peer| {
            if peer.key == *key {
                here.push(Arc::clone(peer));
            }
        });
        Whereabouts { here, links }
    }

    /// Number of keys that links claim.
    pub fn remote_count(&self) -> usize {
        self.remotes.len()
    }

    /// Number of links that are up.
    pub fn link_count(&self) -> usize {
        self.links.len()
    }

    /// Number of keys that a link claims.
    pub fn claimed_count(&self, link: LinkId) -> usize {
        self.lock().table.claimed_count(link)
    }

    /// Visits every key that is here or claimed by a link, some of them twice; `visit` must not block.
    pub fn for_each_key(&self, mut visit: impl FnMut(&NodePublic)) {
        self.peers.iter().for_each(|peer| visit(peer.key()));
        self.remotes.iter().for_each(|remote| visit(remote.key()));
    }
}
