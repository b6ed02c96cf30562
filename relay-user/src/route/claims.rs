//! Which links of the mesh reach a node key that has no connection here.
//!
//! Each relay tells its watchers which keys are connected to it; that is a claim of the link to that relay.
//! The newest claim wins: a client that moves from one relay to another is claimed by the second at once, and
//! its first relay may take long to notice. A relay that has just been linked lists whom it has, some of them
//! long gone: such claims come after those that were there before. (Upstream keeps the oldest claim, so that
//! a key that is connected twice keeps its path; here such a key moves each time it connects.)

use std::collections::{HashMap, HashSet};

use relay_common::key::NodePublic;

use super::vocabulary::{Change, LinkId, Refusal};

/// Claims that end at once with their link: a login waits no longer for the table than that takes.
const AT_ONCE: usize = 256;

/// The claims of every key, the newest last, and the keys of every link.
#[derive(Debug, Default)]
pub(super) struct Claims {
    links_by_key: HashMap<NodePublic, Vec<LinkId>>,
    keys_by_link: HashMap<LinkId, HashSet<NodePublic>>,
}

impl Claims {
    /// Handles the start of a link.
    pub(super) fn up(&mut self, link: LinkId) -> Result<(), Refusal> {
        if self.keys_by_link.contains_key(&link) {
            return Err(Refusal::LinkInUse);
        }
        self.keys_by_link.insert(link, HashSet::new());
        Ok(())
    }

    /// Handles the news that the link's relay has a connection of `key`. A repeated claim becomes the newest;
    /// one that is only `listed` becomes the oldest, or stays what it is.
    pub(super) fn claim(
        &mut self,
        link: LinkId,
        key: NodePublic,
        listed: bool,
        out: &mut Vec<Change>,
    ) -> Result<(), Refusal> {
        let is_new = self.keys_by_link.get_mut(&link).ok_or(Refusal::UnknownLink)?.insert(key);
        let links = self.links_by_key.entry(key).or_default();
        let newest = links.last().copied();
        if listed {
            if is_new {
                links.insert(0, link);
            }
        } else {
            links.retain(|other| *other != link);
            links.push(link);
        }
        if newest != links.last().copied() {
            out.push(Change::Remote { key, link });
        }
        Ok(())
    }

    /// Handles the news that the link's relay no longer has `key`.
    pub(super) fn disclaim(
        &mut self,
        link: LinkId,
        key: NodePublic,
        out: &mut Vec<Change>,
    ) -> Result<(), Refusal> {
        if !self.keys_by_link.get_mut(&link).ok_or(Refusal::UnknownLink)?.remove(&key) {
            return Err(Refusal::NotClaimed);
        }
        self.remove(link, key, out);
        Ok(())
    }

    /// Handles the end of a link: the next [`AT_ONCE`] of its claims end, or the link itself if it has none.
    pub(super) fn down(&mut self, link: LinkId, out: &mut Vec<Change>) -> Result<(), Refusal> {
        let keys = self.keys_by_link.get_mut(&link).ok_or(Refusal::UnknownLink)?;
        let some: Vec<_> = keys.iter().take(AT_ONCE).copied().collect();
        some.iter().for_each(|key| _ = keys.remove(key));
        if some.is_empty() {
            self.keys_by_link.remove(&link);
        }
        some.into_iter().for_each(|key| self.remove(link, key, out));
        Ok(())
    }

    /// The links that claim `key`, the newest last.
    pub(super) fn of(&self, key: &NodePublic) -> &[LinkId] {
        self.links_by_key.get(key).map_or(&[], Vec::as_slice)
    }

    /// Number of keys that `link` claims.
    pub(super) fn count(&self, link: LinkId) -> usize {
        self.keys_by_link.get(&link).map_or(0, HashSet::len)
    }

    fn remove(&mut self, link: LinkId, key: NodePublic, out: &mut Vec<Change>) {
        let Some(links) = self.links_by_key.get_mut(&key) else { return };
        let was_newest = links.last() == Some(&link);
        links.retain(|other| *other != link);
        match links.last() {
            None => {
                self.links_by_key.remove(&key);
                out.push(Change::NoRemote { key });
            }
            Some(newest) if was_newest => out.push(Change::Remote { key, link: *newest }),
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> NodePublic {
        NodePublic::from_bytes([n; 32])
    }

    fn up(links: &[u64]) -> Claims {
        let mut claims = Claims::default();
        links.iter().for_each(|link| claims.up(LinkId(*link)).expect("a new link"));
        claims
    }

    fn changes(act: impl FnOnce(&mut Vec<Change>) -> Result<(), Refusal>) -> Vec<Change> {
        let mut out = Vec::new();
        act(&mut out).expect("not refused");
        out
    }

    #[test]
    fn the_newest_claim_wins_and_the_one_before_is_next() {
        let mut claims = up(&[1, 2]);
        let remote = |link| vec![Change::Remote { key: key(7), link: LinkId(link) }];
        assert_eq!(changes(|out| claims.claim(LinkId(1), key(7), false, out)), remote(1));
        assert_eq!(changes(|out| claims.claim(LinkId(2), key(7), false, out)), remote(2));
        assert_eq!(changes(|out| claims.claim(LinkId(2), key(7), false, out)), [], "nothing new");
        assert_eq!(changes(|out| claims.claim(LinkId(1), key(7), false, out)), remote(1), "it is back there");
        assert_eq!(changes(|out| claims.disclaim(LinkId(1), key(7), out)), remote(2));
        assert_eq!(
            changes(|out| claims.disclaim(LinkId(2), key(7), out)),
            [Change::NoRemote { key: key(7) }]
        );
        assert_eq!(claims.of(&key(7)), []);
    }

    #[test]
    fn a_relay_that_lists_whom_it_has_takes_no_key_from_another() {
        let mut claims = up(&[1, 2, 3]);
        changes(|out| claims.claim(LinkId(1), key(7), true, out));
        assert_eq!(claims.of(&key(7)), [LinkId(1)], "nobody else has it");
        assert_eq!(changes(|out| claims.claim(LinkId(2), key(7), true, out)), []);
        assert_eq!(claims.of(&key(7)), [LinkId(2), LinkId(1)]);
        changes(|out| claims.claim(LinkId(3), key(7), false, out));
        assert_eq!(changes(|out| claims.claim(LinkId(3), key(7), true, out)), [], "it has said so before");
        assert_eq!(claims.of(&key(7)), [LinkId(2), LinkId(1), LinkId(3)]);
    }

    #[test]
    fn the_end_of_an_older_claim_changes_nothing() {
        let mut claims = up(&[1, 2]);
        for link in [1, 2] {
            changes(|out| claims.claim(LinkId(link), key(7), false, out));
        }
        assert_eq!(changes(|out| claims.disclaim(LinkId(1), key(7), out)), []);
        assert_eq!(claims.of(&key(7)), [LinkId(2)]);
    }

    #[test]
    fn with_a_link_all_its_claims_end_and_no_others() {
        let mut claims = up(&[1, 2]);
        for (link, n) in [(1, 7), (1, 8), (2, 8), (2, 9)] {
            changes(|out| claims.claim(LinkId(link), key(n), false, out));
        }
        assert_eq!(changes(|out| claims.down(LinkId(1), out)), [Change::NoRemote { key: key(7) }]);
        assert_eq!(changes(|out| claims.down(LinkId(1), out)), [], "now the link itself");
        assert_eq!([7, 8, 9].map(|n| claims.of(&key(n)).len()), [0, 1, 1]);
        assert_eq!(
            claims.claim(LinkId(1), key(7), false, &mut Vec::new()),
            Err(Refusal::UnknownLink),
            "it is over"
        );
    }

    #[test]
    fn many_claims_end_some_at_a_time() {
        let mut claims = up(&[1]);
        let mut keys = (0..2 * AT_ONCE as u64 + 1).map(|n| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&n.to_be_bytes());
            NodePublic::from_bytes(bytes)
        });
        let mut out = Vec::new();
        keys.try_for_each(|key| claims.claim(LinkId(1), key, false, &mut out)).expect("up");
        let ended: Vec<_> = (0..4).map(|_| changes(|out| claims.down(LinkId(1), out)).len()).collect();
        assert_eq!(ended, [AT_ONCE, AT_ONCE, 1, 0]);
        assert_eq!(claims.down(LinkId(1), &mut Vec::new()), Err(Refusal::UnknownLink));
    }

    #[test]
    fn what_was_not_claimed_is_refused() {
        let mut claims = up(&[1]);
        assert_eq!(claims.up(LinkId(1)), Err(Refusal::LinkInUse));
        assert_eq!(claims.disclaim(LinkId(1), key(7), &mut Vec::new()), Err(Refusal::NotClaimed));
        assert_eq!(claims.disclaim(LinkId(2), key(7), &mut Vec::new()), Err(Refusal::UnknownLink));
        assert_eq!(claims.down(LinkId(2), &mut Vec::new()), Err(Refusal::UnknownLink));
    }
}
