//! [`SessionMap`] in memory, for tests of its writers. It has the kernel's limits and fails on demand.

use std::collections::BTreeMap;

use bytemuck::Zeroable;
use relay_common::fastpath::{SessionEntry, SessionStats};

use super::session_map::{List, MapError, Part, SessionMap};

/// A session map that lives in memory only.
#[derive(Clone, Debug)]
pub(super) struct ModelSessions {
    /// The sessions, by VNI.
    pub sessions: BTreeMap<u32, SessionEntry>,
    /// The counters, by slot. A test writes here what the BPF program would have counted.
    pub stats: BTreeMap<u32, SessionStats>,
    /// Entries written so far.
    pub installs: usize,
    /// The error that the next fallible operation returns, once.
    pub fail_next: Option<MapError>,
    /// The error that every reading of sessions returns.
    pub unreadable: Option<MapError>,
    limit: u32,
}

impl ModelSessions {
    /// An empty map for `limit` sessions.
    pub(super) fn new(limit: u32) -> Self {
        Self {
            sessions: BTreeMap::new(),
            stats: BTreeMap::new(),
            installs: 0,
            fail_next: None,
            unreadable: None,
            limit,
        }
    }

    /// As [`List::part`].
    pub(super) fn slice(&self, after: Option<u64>, most: usize) -> Result<Part, MapError> {
        if let Some(error) = &self.unreadable {
            return Err(error.clone());
        }
        let first = after.map_or(0, |vni| vni as u32 + 1);
        let vnis: Vec<u32> = self.sessions.range(first..).take(most).map(|(vni, _)| *vni).collect();
        let next = vnis.last().filter(|_| vnis.len() == most).map(|vni| u64::from(*vni));
        Ok((vnis, next))
    }

    fn check_slot(&self, slot: u32) -> Result<(), MapError> {
        if slot < self.limit { Ok(()) } else { Err(MapError::Slot { slot, limit: self.limit }) }
    }

    fn fail(&mut self) -> Result<(), MapError> {
        self.fail_next.take().map_or(Ok(()), Err)
    }
}

impl SessionMap for ModelSessions {
    fn install(&mut self, vni: u32, entry: &SessionEntry) -> Result<(), MapError> {
        self.fail()?;
        if !self.sessions.contains_key(&vni) && self.sessions.len() >= self.limit as usize {
            return Err(MapError::Full);
        }
        self.sessions.insert(vni, *entry);
        self.installs += 1;
        Ok(())
    }

    fn remove(&mut self, vni: u32) -> Result<bool, MapError> {
        self.fail()?;
        Ok(self.sessions.remove(&vni).is_some())
    }

    fn zero_stats(&mut self, slot: u32) -> Result<(), MapError> {
        self.fail()?;
        self.check_slot(slot)?;
        self.stats.remove(&slot);
        Ok(())
    }

    fn stats(&self, slot: u32) -> Result<SessionStats, MapError> {
        self.check_slot(slot)?;
        Ok(self.stats.get(&slot).copied().unwrap_or_else(SessionStats::zeroed))
    }

    fn get(&self, vni: u32) -> Result<Option<SessionEntry>, MapError> {
        match &self.unreadable {
            Some(error) => Err(error.clone()),
            None => Ok(self.sessions.get(&vni).copied()),
        }
    }

    fn list(&self) -> List {
        let now = self.clone();
        List::new(move |after, most| now.slice(after, most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_map_refuses_a_new_session_but_rewrites_an_old_one() {
        let mut map = ModelSessions::new(1);
        let entry = SessionEntry::zeroed();
        assert_eq!(map.install(1, &entry), Ok(()));
        assert_eq!(map.install(2, &entry), Err(MapError::Full));
        assert_eq!(map.install(1, &entry), Ok(()));
        assert_eq!(map.remove(1), Ok(true));
        assert_eq!(map.remove(1), Ok(false));
        assert_eq!(map.install(2, &entry), Ok(()));
    }

    #[test]
    fn a_failure_is_injected_once() {
        let mut map = ModelSessions::new(1);
        let refused = MapError::Syscall { call: "install", errno: 12 };
        map.fail_next = Some(refused.clone());
        assert_eq!(map.install(1, &SessionEntry::zeroed()), Err(refused));
        assert_eq!(map.install(1, &SessionEntry::zeroed()), Ok(()));
    }

    #[test]
    fn a_slot_past_the_limit_is_refused() {
        let mut map = ModelSessions::new(4);
        assert_eq!(map.zero_stats(3), Ok(()));
        assert_eq!(map.zero_stats(4), Err(MapError::Slot { slot: 4, limit: 4 }));
        assert_eq!(map.stats(4), Err(MapError::Slot { slot: 4, limit: 4 }));
    }
}
