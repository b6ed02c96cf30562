//! Compares the BPF map with the table and repairs the map, a few sessions at a time.
//!
//! The table is the truth and the map is its mirror (law 4 of the table). A difference means that a write was
//! lost or that another process writes. Both are faults, so the sum is a metric that must stay zero.
//!
//! ```text
//! a pass:  the map, slice by slice   -> what the table does not have there is removed
//!          the table, slice by slice -> what the map lacks or has otherwise is written
//! ```
//! Stale entries first: removing them makes room where the map is full.

use relay_common::fastpath::SessionEntry;

use super::session_map::{MapError, SessionMap};

/// What a part of an audit found, in sessions, and what it repaired.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "drift is a fault to count and report"]
pub struct Audit {
    /// Sessions in the table, but not in the map.
    pub missing: usize,
    /// Sessions in the map, but not in the table.
    pub stale: usize,
    /// Sessions in both, with different values.
    pub different: usize,
    /// How many of these the audit repaired.
    pub repaired: usize,
    /// The first error met; the audit goes on after an error.
    pub error: Option<MapError>,
}

impl Audit {
    /// How many sessions the map had wrong.
    pub fn drift(&self) -> usize {
        self.missing + self.stale + self.different
    }

    /// Compares one session with its entry in the map and repairs the map. `wanted`: the entry that the table
    /// says it should have; `None`: none.
    ///
    /// Call this under the table's lock: it would undo a write that came between comparison and repair.
    pub fn check(&mut self, map: &mut dyn SessionMap, vni: u32, wanted: Option<SessionEntry>) {
        let held = match map.get(vni) {
            Ok(held) => held,
            Err(error) => return self.note(Err(error)),
        };
        match (wanted, held) {
            (None, None) => {}
            (Some(wanted), Some(held)) if wanted == held => {}
            (None, Some(_)) => {
                self.stale += 1;
                let done = map.remove(vni).map(|_| ());
                self.note_repair(done);
            }
            (Some(wanted), held) => {
                match held {
                    Some(_) => self.different += 1,
                    None => self.missing += 1,
                }
                let done = map.install(vni, &wanted);
                self.note_repair(done);
            }
        }
    }

    fn note_repair(&mut self, repair: Result<(), MapError>) {
        self.repaired += usize::from(repair.is_ok());
        self.note(repair);
    }

    /// Keeps the first error.
    pub fn note(&mut self, result: Result<(), MapError>) {
        if let Err(error) = result {
            self.error.get_or_insert(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use bytemuck::Zeroable;
    use proptest::prelude::*;

    use super::*;
    use crate::route::model_sessions::ModelSessions;

    fn entry(expires_ns: u64) -> SessionEntry {
        SessionEntry { expires_ns, ..SessionEntry::zeroed() }
    }

    fn sessions(list: &[(u32, u64)]) -> BTreeMap<u32, SessionEntry> {
        list.iter().map(|(vni, expires)| (*vni, entry(*expires))).collect()
    }

    fn audit(map: &mut ModelSessions, wanted: &BTreeMap<u32, SessionEntry>) -> Audit {
        let mut found = Audit::default();
        let all: BTreeSet<u32> = map.sessions.keys().chain(wanted.keys()).copied().collect();
        all.into_iter().for_each(|vni| found.check(map, vni, wanted.get(&vni).copied()));
        found
    }

    #[test]
    fn equal_maps_are_left_alone() {
        let wanted = sessions(&[(1, 1), (2, 1)]);
        let mut map = ModelSessions::new(2);
        map.sessions = wanted.clone();
        map.fail_next = Some(MapError::Full);
        assert_eq!(audit(&mut map, &wanted), Audit::default());
        assert!(map.fail_next.is_some(), "nothing was written");
    }

    #[test]
    fn each_kind_of_drift_is_counted_and_repaired() {
        let wanted = sessions(&[(1, 1), (2, 2), (3, 1)]);
        let mut map = ModelSessions::new(4);
        map.sessions = sessions(&[(2, 1), (3, 1), (9, 1)]);
        let found = audit(&mut map, &wanted);
        assert_eq!(found, Audit { missing: 1, stale: 1, different: 1, repaired: 3, error: None });
        assert_eq!(found.drift(), 3);
        assert_eq!(map.sessions, wanted);
    }

    #[test]
    fn a_failed_repair_is_reported_and_the_others_still_happen() {
        let wanted = sessions(&[(1, 1), (2, 1)]);
        let mut map = ModelSessions::new(2);
        map.fail_next = Some(MapError::Full);
        let found = audit(&mut map, &wanted);
        assert_eq!((found.missing, found.repaired), (2, 1));
        assert_eq!(found.error, Some(MapError::Full));
        assert_eq!(audit(&mut map, &wanted), Audit { missing: 1, repaired: 1, ..Audit::default() });
        assert_eq!(audit(&mut map, &wanted), Audit::default());
    }

    #[test]
    fn a_map_that_cannot_be_read_is_reported_and_left_alone() {
        let mut map = ModelSessions::new(2);
        map.unreadable = Some(MapError::Full);
        let found = audit(&mut map, &sessions(&[(1, 1)]));
        assert_eq!(found, Audit { error: Some(MapError::Full), ..Audit::default() });
        assert!(map.sessions.is_empty());
    }

    proptest! {
        #[test]
        fn whatever_the_map_held_it_equals_the_table_afterwards(
            held in proptest::collection::btree_map(0u32..32, 0u64..3, 0..32),
            wanted in proptest::collection::btree_map(0u32..32, 0u64..3, 0..32),
        ) {
            let held: Vec<_> = held.into_iter().collect();
            let wanted: Vec<_> = wanted.into_iter().collect();
            let wanted = sessions(&wanted);
            let mut map = ModelSessions::new(64);
            map.sessions = sessions(&held);
            let found = audit(&mut map, &wanted);
            prop_assert_eq!(found.drift(), found.repaired);
            prop_assert_eq!(&map.sessions, &wanted);
        }
    }
}
